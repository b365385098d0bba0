//! Replies on their way to one client.
//!
//! They lie in chunks, so that a long backlog is neither moved when a part of it is written nor copied when it grows.

use std::collections::VecDeque;
use std::io::{ErrorKind, Result};

/// A chunk takes no further reply when it has so many bytes. Also what a quiet connection keeps.
const CHUNK_BYTES: usize = 64 * 1024;

/// So many bytes for another node are written at once, and not at the end of the pass: it begins with them while this one goes on.
pub(super) const EAGER_BYTES: usize = 32 * 1024;

/// Bytes for one socket, in order.
#[derive(Default)]
pub(super) struct Outbox {
    /// Chunks before the last, oldest first.
    full: VecDeque<Vec<u8>>,
    last: Vec<u8>,
    /// Of the oldest chunk, so many bytes are written.
    written: usize,
    full_bytes: usize,
}

impl Outbox {
    /// Where the next reply is appended, whole.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.last.len() >= CHUNK_BYTES {
            let chunk = std::mem::replace(&mut self.last, Vec::with_capacity(CHUNK_BYTES));
            self.full_bytes += chunk.len();
            self.full.push_back(chunk);
        }
        &mut self.last
    }

    /// Puts a chunk before everything else. Nothing may have been written yet.
    pub(super) fn put_first(&mut self, chunk: Vec<u8>) {
        self.full_bytes += chunk.len();
        self.full.push_front(chunk);
    }

    /// Bytes that are not written yet.
    pub(super) fn len(&self) -> usize {
        self.full_bytes + self.last.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives `write` what waits, oldest first, until nothing does or `write` takes no more for now. `write` says how much
    /// it took. Returns whether it took anything.
    pub(super) fn write(&mut self, mut write: impl FnMut(&[u8]) -> Result<usize>) -> Result<bool> {
        let mut took = false;
        loop {
            let chunk = self.full.front().unwrap_or(&self.last);
            let rest = chunk.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.written = 0;
                match self.full.pop_front() {
                    Some(chunk) => self.full_bytes -= chunk.len(),
                    None => {
                        self.last.clear();
                        self.last.shrink_to(CHUNK_BYTES);
                        return Ok(took);
                    }
                }
                continue;
            }
            match write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(took),
                Err(error) => return Err(error),
            }
            took = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reply(usize),
        /// The socket has so much room.
        Write(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = prop_oneof![0..100_usize, 0..3 * CHUNK_BYTES];
        let step = prop_oneof![
            size.clone().prop_map(Step::Reply),
            size.prop_map(Step::Write)
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn what_was_appended_comes_out_once_and_in_order(steps in steps()) {
            let mut outbox = Outbox::default();
            let (mut sent, mut received) = (Vec::new(), Vec::<u8>::new());
            let mut fill = 0_u8;
            for step in steps.into_iter().chain([Step::Write(usize::MAX)]) {
                match step {
                    Step::Reply(bytes) => {
                        fill = fill.wrapping_add(1);
                        let reply = vec![fill; bytes];
                        outbox.tail().extend(&reply);
                        sent.extend(reply);
                    }
                    Step::Write(mut room) => {
                        let took = outbox.write(|bytes| {
                            let count = bytes.len().min(room).min(10_000);
                            if count == 0 {
                                return Err(ErrorKind::WouldBlock.into());
                            }
                            room -= count;
                            received.extend(&bytes[..count]);
                            Ok(count)
                        });
                        prop_assert!(took.is_ok());
                    }
                }
                prop_assert_eq!(outbox.len(), sent.len() - received.len());
            }
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(sent, received);
        }
    }

    #[test]
    fn a_socket_that_takes_nothing_is_an_error() {
        let mut outbox = Outbox::default();
        outbox.tail().push(b'+');
        assert!(outbox.write(|_| Ok(0)).is_err());
    }

    #[test]
    fn a_long_backlog_leaves_no_memory_behind() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.tail().extend([0; 1000]);
        }
        assert!(outbox.write(|bytes| Ok(bytes.len())).unwrap());
        assert!(outbox.full.is_empty());
        assert!(outbox.last.capacity() <= 2 * CHUNK_BYTES);
    }
}
