//! Which keys the commands of one call touch, so that no command sees a value from before another one's write.

use super::edition::Edition;
use super::request::Request;
use crate::wasm::Placement;

/// Hashes of the keys of a batch. Two keys with one hash count as one key, which costs a call and nothing else.
#[derive(Default)]
pub(super) struct Touched {
    read: Vec<u64>,
    written: Vec<u64>,
}

impl Touched {
    pub(super) fn clear(&mut self) {
        self.read.clear();
        self.written.clear();
    }

    /// Adds a command's keys; false, and nothing is added, when the command has to wait for the next call.
    pub(super) fn add(
        &mut self,
        edition: &Edition,
        placement: &Placement,
        request: &Request,
    ) -> bool {
        let Some(spec) = edition.command(request.command) else {
            return true;
        };
        let words = request.words.len();
        let keys = spec.key_positions(words).enumerate();
        let hashes = keys
            .map(|(nth, position)| request.hash_of(nth, request.words.get(position), placement));
        let writes = spec.writes();
        let read = self.read.len();
        let written = self.written.len();
        // A key may stand twice in one command: only earlier commands count.
        for hash in hashes {
            let earlier = self.written.iter().take(written);
            let met = earlier.chain(self.read.iter().take(read).filter(|_| writes));
            if met.into_iter().any(|other| *other == hash) {
                self.read.truncate(read);
                self.written.truncate(written);
                return false;
            }
            if writes {
                self.written.push(hash);
            } else {
                self.read.push(hash);
            }
        }
        true
    }
}
