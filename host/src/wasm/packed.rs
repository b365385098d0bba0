//! The packed door's bytes, as wit/batch.wit lays them out: frames go in, answers come out.
//!
//! Answers come from a guest and are not trusted: every length is checked against what is there.

use super::GuestError;

/// Memory that an empty writer keeps. There is one for each vnode.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Writes frames into a buffer that is used again and again.
#[derive(Default)]
pub struct FrameWriter {
    bytes: Vec<u8>,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    /// Wall clock of the coordinator, milliseconds.
    pub now_ms: u64,
    /// Chance of this command.
    pub seed: u64,
    /// Name of this command in the cluster.
    pub request_id: u64,
    /// Whether this vnode stands in for another.
    pub fallback: bool,
    /// Position of the command in the descriptor.
    pub command: u16,
}

impl FrameWriter {
    /// Forgets all frames and keeps the memory, but not that of a few huge values.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    /// The frames so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was written after the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Starts a frame and writes its arguments.
    pub fn command<'a>(&mut self, head: FrameHead, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.bytes.extend_from_slice(&head.now_ms.to_le_bytes());
        self.bytes.extend_from_slice(&head.seed.to_le_bytes());
        self.bytes.extend_from_slice(&head.request_id.to_le_bytes());
        self.bytes.push(u8::from(head.fallback));
        self.bytes.extend_from_slice(&head.command.to_le_bytes());
        self.count(args.len());
        for arg in args {
            self.length(arg.len());
            self.bytes.extend_from_slice(arg);
        }
    }

    /// Says how many values follow, one for each declared key.
    pub fn values(&mut self, count: usize) {
        self.count(count);
    }

    /// Writes one value; `read` appends its bytes and says whether there is one.
    pub fn value<E>(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[1, 0, 0, 0, 0]);
        if read(&mut self.bytes)? {
            let length = u32::try_from(self.bytes.len() - start - 5).unwrap_or(u32::MAX);
            if let Some(place) = self.bytes.get_mut(start + 1..start + 5) {
                place.copy_from_slice(&length.to_le_bytes());
            }
        } else {
            self.bytes.truncate(start);
            self.bytes.push(0);
        }
        Ok(())
    }

    /// Says that a value is not sent.
    pub fn unsent(&mut self) {
        self.bytes.push(2);
    }

    // The limits on arguments and batches keep every count and length far below these types.
    fn count(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&count.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }
}

/// What became of one frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It ran; its effects are still to be applied.
    Ok {
        /// Effects in the order the guest made them.
        effects: Effects<'a>,
        /// One RESP3 value, unchecked.
        reply: &'a [u8],
    },
    /// It was refused.
    Error {
        /// First word of the client's error.
        code: &'a [u8],
        /// The rest.
        message: &'a [u8],
    },
    /// It needs the typed door.
    Deferred,
}

/// One write of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Effect<'a> {
    /// Position among the frame's declared keys.
    pub key: usize,
    /// The value to store; none deletes.
    pub value: Option<&'a [u8]>,
}

/// The effects of one frame: a checked run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effects<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Iterator for Effects<'a> {
    type Item = Effect<'a>;

    fn next(&mut self) -> Option<Effect<'a>> {
        self.count = self.count.checked_sub(1)?;
        let mut reader = Reader { bytes: self.bytes };
        let effect = reader.effect().ok()?;
        self.bytes = reader.bytes;
        Some(effect)
    }
}

impl Effects<'_> {
    /// Whether the frame wrote nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The answers of one call, in order.
pub struct Answers<'a> {
    reader: Reader<'a>,
}

impl<'a> Answers<'a> {
    /// Reads what `handle-batch` returned.
    pub fn new(bytes: &'a [u8]) -> Answers<'a> {
        Answers {
            reader: Reader { bytes },
        }
    }

    /// The next answer. Fails when the guest wrote something else than an answer.
    pub fn next_answer(&mut self) -> Result<Answer<'a>, GuestError> {
        self.reader.answer().map_err(|Malformed| {
            GuestError::Contract("handle-batch answered malformed bytes".into())
        })
    }

    /// Fails when the guest answered more than it was asked.
    pub fn finish(self) -> Result<(), GuestError> {
        if self.reader.bytes.is_empty() {
            Ok(())
        } else {
            Err(GuestError::Contract(
                "handle-batch answered more than it was asked".into(),
            ))
        }
    }
}

struct Malformed;

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.bytes.split_first().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(u16::from_le_bytes(*bytes))
    }

    fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(Malformed)?;
        self.bytes = rest;
        self.take(u32::from_le_bytes(*bytes) as usize)
    }

    fn effect(&mut self) -> Result<Effect<'a>, Malformed> {
        let key = usize::from(self.u16()?);
        let value = match self.byte()? {
            0 => None,
            1 => Some(self.counted()?),
            _ => return Err(Malformed),
        };
        Ok(Effect { key, value })
    }

    fn answer(&mut self) -> Result<Answer<'a>, Malformed> {
        match self.byte()? {
            0 => {
                let count = self.u16()?;
                let bytes = self.bytes;
                for _ in 0..count {
                    self.effect()?;
                }
                let effects = Effects { count, bytes };
                let reply = self.counted()?;
                Ok(Answer::Ok { effects, reply })
            }
            1 => Ok(Answer::Error {
                code: self.counted()?,
                message: self.counted()?,
            }),
            2 => Ok(Answer::Deferred),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(bytes: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn answers_of_each_kind_are_read_in_order() {
        let mut bytes = vec![0, 2, 0];
        bytes.extend([0, 0, 1]);
        bytes.extend(counted(b"value"));
        bytes.extend([1, 0, 0]);
        bytes.extend(counted(b"+OK\r\n"));
        bytes.push(1);
        bytes.extend(counted(b"ERR"));
        bytes.extend(counted(b"no"));
        bytes.push(2);
        let mut answers = Answers::new(&bytes);
        let Answer::Ok { effects, reply } = answers.next_answer().unwrap() else {
            panic!("the first answer is ok");
        };
        assert_eq!(reply, b"+OK\r\n");
        let effects: Vec<_> = effects.collect();
        assert_eq!(
            effects,
            [
                Effect {
                    key: 0,
                    value: Some(b"value")
                },
                Effect {
                    key: 1,
                    value: None
                }
            ]
        );
        assert_eq!(
            answers.next_answer().unwrap(),
            Answer::Error {
                code: b"ERR",
                message: b"no"
            }
        );
        assert_eq!(answers.next_answer().unwrap(), Answer::Deferred);
        assert!(answers.next_answer().is_err());
        answers.finish().unwrap();
    }

    #[test]
    fn an_absent_value_leaves_one_byte() {
        let mut frames = FrameWriter::default();
        frames.value(|_| Ok::<_, ()>(false)).unwrap();
        frames
            .value(|out| {
                out.extend_from_slice(b"ab");
                Ok::<_, ()>(true)
            })
            .unwrap();
        assert_eq!(frames.bytes(), [0, 1, 2, 0, 0, 0, b'a', b'b']);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut answers = Answers::new(&bytes);
            while let Ok(answer) = answers.next_answer() {
                if let Answer::Ok { effects, .. } = answer {
                    effects.for_each(drop);
                }
            }
        }
    }
}
