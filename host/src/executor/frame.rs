//! What executors of different nodes say to each other: commands one way, replies the other.
//!
//! Owns the layout, in bytes, of what passes over a link of the purpose `Requests` once both sides have greeted each other.
//! Numbers are little-endian. A frame is its length after the length field (u32), then:
//!
//! ```text
//! services  = 0:u8  count:u32  (name:text  count:u32  (command:text)*)*      the sender's services, once, first
//! command   = 1:u8  id:u64  epoch:u64  request:u64  now_ms:u64  hash:u64
//!             service:u16  command:u16  partition:u16  range:u16  role:u8  work:u8  traced:u8
//!             n:u8 r:u8 w:u8 pr:u8 pw:u8 dw:u8 node_confirms:u8  timeout_ms:u32  count:u32  (word:text)*
//! reply     = 2:u8  id:u64  answer
//! stale     = 3:u8  id:u64  epoch:u64
//! text      = length:u32  bytes
//! ```
//!
//! An answer is a RESP3 value, or what `vnode::replica` says of objects; if the request was traced, the version of the vnode's guest
//! may come first (`coordinator::trace::sign`).
//!
//! A command's words stay where they were read: a [`Words`] is ranges of the buffer. That is why this is laid out by hand and
//! not encoded like the other messages between nodes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use vnode_ring::{PartitionId, Role};

use crate::vnode::request::{Consistency, Request, Work};

use crate::vnode::words::Words;

/// Longest frame, bytes: a request or a reply of the largest size, and a head.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 30;

const SERVICES: u8 = 0;
const COMMAND: u8 = 1;
const REPLY: u8 = 2;
const STALE: u8 = 3;

/// Not a frame of this layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadFrame(&'static str);

/// A service and its commands, by their positions at the sender.
pub(super) type ServiceNames = (String, Vec<String>);

/// A command as it came over a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) id: u64,
    /// The epoch at which the sender chose this node.
    pub(super) epoch: u64,
    pub(super) request: u64,
    pub(super) now_ms: u64,
    pub(super) hash: u64,
    pub(super) service: u16,
    pub(super) command: u16,
    pub(super) partition: PartitionId,
    pub(super) range: PartitionId,
    pub(super) role: Role,
    pub(super) work: Work,
    pub(super) traced: bool,
    pub(super) consistency: Consistency,
    pub(super) words: Words,
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Services(Vec<ServiceNames>),
    Command(Command),
    /// The reply to a command.
    Reply(u64, &'a [u8]),
    /// The node does not have that role for the partition at its epoch.
    Stale(u64, u64),
}

/// Frames that have come as a whole. The words of their commands share one buffer.
#[derive(Debug)]
pub(super) struct Frames(Bytes);

/// Takes the frames off the front of the buffer that are there as a whole.
///
/// # Errors
/// When what is there is no frame. Nothing after it can be understood.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Frames, BadFrame> {
    let mut end = 0;
    while let Some(head) = buffer.get(end..).and_then(<[u8]>::first_chunk::<4>) {
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(BadFrame("a frame is longer than any may be"));
        }
        if buffer.len() - end - 4 < length {
            break;
        }
        end += 4 + length;
    }
    Ok(Frames(buffer.split_to(end).freeze()))
}

impl Frames {
    /// Reads them in order, up to the first whose fields are not what the layout says.
    pub(super) fn read(&self) -> impl Iterator<Item = Result<Frame<'_>, BadFrame>> {
        let bytes = &self.0;
        let mut next = 0;
        std::iter::from_fn(move || {
            let rest = bytes.get(next..)?;
            let (head, rest) = rest.split_first_chunk::<4>()?;
            let at = next + 4;
            next = at + (u32::from_le_bytes(*head) as usize).min(rest.len());
            let mut reader = Reader {
                bytes,
                at,
                end: next,
            };
            Some(reader.frame())
        })
    }
}

/// Bytes that the frame at the front of the buffer still lacks, at least 1.
pub(super) fn lacks(buffer: &[u8]) -> usize {
    let whole = buffer
        .first_chunk::<4>()
        .map_or(4, |head| u32::from_le_bytes(*head) as usize + 4);
    whole.saturating_sub(buffer.len()).max(1)
}

/// Reads the fields of one frame, which lies before `end`.
struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    fn frame(&mut self) -> Result<Frame<'a>, BadFrame> {
        let frame = self.fields()?;
        match self.rest() {
            [] => Ok(frame),
            _ => Err(BadFrame("bytes follow the last field of a frame")),
        }
    }

    fn fields(&mut self) -> Result<Frame<'a>, BadFrame> {
        let [kind] = self.array()?;
        match kind {
            SERVICES => {
                let count = self.count()?;
                let mut services = Vec::new();
                for _ in 0..count {
                    let name = self.string()?;
                    let commands = self.count()?;
                    let commands = (0..commands)
                        .map(|_| self.string())
                        .collect::<Result<_, _>>()?;
                    services.push((name, commands));
                }
                Ok(Frame::Services(services))
            }
            COMMAND => Ok(Frame::Command(self.command()?)),
            REPLY => {
                let id = self.u64()?;
                let reply = self.rest();
                self.at = self.end;
                Ok(Frame::Reply(id, reply))
            }
            STALE => Ok(Frame::Stale(self.u64()?, self.u64()?)),
            _ => Err(BadFrame("a frame is of no known kind")),
        }
    }

    fn command(&mut self) -> Result<Command, BadFrame> {
        Ok(Command {
            id: self.u64()?,
            epoch: self.u64()?,
            request: self.u64()?,
            now_ms: self.u64()?,
            hash: self.u64()?,
            service: self.u16()?,
            command: self.u16()?,
            partition: PartitionId::from_id(self.u16()?),
            range: PartitionId::from_id(self.u16()?),
            role: match self.array()? {
                [0] => Role::Primary,
                [1] => Role::Fallback,
                _ => return Err(BadFrame("a command is for no known role")),
            },
            work: match self.array()? {
                [0] => Work::Command,
                [1] => Work::Look,
                [2] => Work::Merge,
                [3] => Work::Fetch,
                [4] => Work::Each,
                [5] => Work::Page,
                [6] => Work::Forget,
                [7] => Work::Leaves,
                [8] => Work::Leaf,
                [9] => Work::Tombstones,
                [10] => Work::Reap,
                _ => return Err(BadFrame("a request is for no known work")),
            },
            traced: self.array()? == [1],
            consistency: self.consistency()?,
            words: self.words()?,
        })
    }

    fn consistency(&mut self) -> Result<Consistency, BadFrame> {
        let [n, r, w, pr, pw, dw, node_confirms] = self.array()?;
        Ok(Consistency {
            n,
            r,
            w,
            pr,
            pw,
            dw,
            node_confirms,
            timeout_ms: u32::from_le_bytes(self.array()?),
        })
    }

    fn words(&mut self) -> Result<Words, BadFrame> {
        let count = self.count()?;
        let mut ranges: SmallVec<[_; 16]> = SmallVec::new();
        for _ in 0..count {
            ranges.push(self.text()?);
        }
        Ok(Words::new(self.bytes.clone(), &ranges))
    }

    /// A number of things that take four bytes or more each.
    fn count(&mut self) -> Result<usize, BadFrame> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.rest().len() / 4 {
            return Err(BadFrame("a frame announces more than it has"));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<Range<usize>, BadFrame> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let end = self.at.saturating_add(length);
        if end > self.end {
            return Err(BadFrame("a text goes beyond its frame"));
        }
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn string(&mut self) -> Result<String, BadFrame> {
        let range = self.text()?;
        let bytes = self.bytes.get(range).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| BadFrame("a name is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn u64(&mut self) -> Result<u64, BadFrame> {
        self.array().map(u64::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, BadFrame> {
        self.array().map(u16::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadFrame> {
        let bytes = self.rest().first_chunk();
        let bytes = bytes.ok_or(BadFrame("a frame ends early"))?;
        self.at += N;
        Ok(*bytes)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }
}

/// Appends one frame, whose fields `write` appends.
fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.push(kind);
    write(out);
    // Requests and replies are far smaller than 4 GiB.
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_count(out, text.len());
    out.extend_from_slice(text);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// Appends the sender's services.
pub(super) fn put_services(out: &mut Vec<u8>, services: &[ServiceNames]) {
    frame(out, SERVICES, |out| {
        put_count(out, services.len());
        for (name, commands) in services {
            put_text(out, name.as_bytes());
            put_count(out, commands.len());
            for command in commands {
                put_text(out, command.as_bytes());
            }
        }
    });
}

/// Appends a command, named `id` on this link.
pub(super) fn put_command(out: &mut Vec<u8>, id: u64, epoch: u64, request: &Request) {
    frame(out, COMMAND, |out| {
        for number in [id, epoch, request.id, request.now_ms, request.hash] {
            out.extend(number.to_le_bytes());
        }
        let (partition, range) = (request.partition.id(), request.range.id());
        for number in [request.service, request.command, partition, range] {
            out.extend(number.to_le_bytes());
        }
        out.push(match request.role {
            Role::Primary => 0,
            Role::Fallback => 1,
        });
        out.push(match request.work {
            Work::Command => 0,
            Work::Look => 1,
            Work::Merge => 2,
            Work::Fetch => 3,
            Work::Each => 4,
            Work::Page => 5,
            Work::Forget => 6,
            Work::Leaves => 7,
            Work::Leaf => 8,
            Work::Tombstones => 9,
            Work::Reap => 10,
        });
        out.push(request.trace.is_some().into());
        let of = request.consistency;
        out.extend([of.n, of.r, of.w, of.pr, of.pw, of.dw, of.node_confirms]);
        out.extend(of.timeout_ms.to_le_bytes());
        put_count(out, request.words.len());
        for word in request.words.iter() {
            put_text(out, word);
        }
    });
}

/// Appends the reply to the command of that name.
pub(super) fn put_reply(out: &mut Vec<u8>, id: u64, reply: &[u8]) {
    frame(out, REPLY, |out| {
        out.extend(id.to_le_bytes());
        out.extend_from_slice(reply);
    });
}

/// Appends that the command of that name went to the wrong node.
pub(super) fn put_stale(out: &mut Vec<u8>, id: u64, epoch: u64) {
    frame(out, STALE, |out| {
        out.extend(id.to_le_bytes());
        out.extend(epoch.to_le_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnode::request::ReplyTo;
    use proptest::prelude::*;

    use tokio::time::Instant;

    fn request(words: &[Vec<u8>], role: Role, numbers: [u64; 3]) -> Request {
        let [id, now_ms, hash] = numbers;
        Request {
            service: 3,
            command: 1,
            partition: PartitionId::from_id(17),
            range: PartitionId::from_id(16),
            hash,
            words: Words::copy(words.iter().map(Vec::as_slice)),
            now_ms,
            id,
            alone: false,
            role,
            work: Work::Merge,
            consistency: Consistency {
                n: 3,
                r: 2,
                w: 1,
                pr: 4,
                pw: 5,
                dw: 6,
                node_confirms: 7,
                timeout_ms: 1234,
            },
            trace: None,
            tries: 0,
            arrived: Instant::now(),
            reply_to: ReplyTo::Peer {
                executor: 0,
                link: 0,
                id: 0,
            },
        }
    }

    proptest! {
        /// Whatever was written is read again, however the bytes come.
        #[test]
        fn frames_are_read_as_they_were_written(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            reply in prop::collection::vec(any::<u8>(), 0..100),
            numbers in any::<[u64; 3]>(),
            fallback in any::<bool>(),
            chunk in 1_usize..40,
        ) {
            let role = if fallback { Role::Fallback } else { Role::Primary };
            let request = request(&words, role, numbers);
            let services = vec![("kv".to_owned(), vec!["GET".to_owned(), "SET".to_owned()])];
            let mut bytes = Vec::new();
            put_services(&mut bytes, &services);
            put_command(&mut bytes, 5, 9, &request);
            put_reply(&mut bytes, 6, &reply);
            put_stale(&mut bytes, 7, 12);
            let (mut buffer, mut taken) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(chunk) {
                buffer.extend_from_slice(part);
                taken.push(take(&mut buffer).unwrap());
            }
            let frames: Result<Vec<_>, _> = taken.iter().flat_map(Frames::read).collect();
            let frames = frames.unwrap();
            prop_assert_eq!(frames.len(), 4);
            prop_assert_eq!(&frames[0], &Frame::Services(services));
            let Frame::Command(command) = &frames[1] else { panic!("{:?}", frames[1]) };
            prop_assert_eq!((command.id, command.epoch), (5, 9));
            prop_assert_eq!([command.request, command.now_ms, command.hash], numbers);
            prop_assert_eq!((command.service, command.command), (3, 1));
            prop_assert_eq!((command.partition, command.range), (PartitionId::from_id(17), PartitionId::from_id(16)));
            prop_assert_eq!(command.role, role);
            prop_assert_eq!((command.work, command.consistency), (request.work, request.consistency));
            let read: Vec<Vec<u8>> = command.words.iter().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read, words);
            prop_assert_eq!(&frames[2], &Frame::Reply(6, &reply));
            prop_assert_eq!(&frames[3], &Frame::Stale(7, 12));
        }

        /// No bytes panic, nor make room for what is not there.
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = BytesMut::from(&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..]);
            framed.extend_from_slice(&bytes);
            for mut buffer in [framed, BytesMut::from(&bytes[..])] {
                if let Ok(frames) = take(&mut buffer) {
                    frames.read().take_while(Result::is_ok).for_each(drop);
                }
            }
        }
    }

    #[test]
    fn an_endless_frame_is_refused_before_it_comes() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(take(&mut buffer).is_err());
    }
}
