//! The batch door: many commands in one call, packed as `wit/batch.wit` says.
//!
//! A buffer that does not follow the layout is the host's mistake, and there is no way to answer it: the call traps.

use std::ops::Range;
use std::rc::Rc;

use crate::command::{Command, Context, Replica};
use crate::door::Instance;
use crate::vnode::{Vnode, not_active};
use crate::frame;

/// Runs the commands of `frames` in order and answers each.
pub fn run<T: Vnode>(instance: &mut Option<Instance<T>>, frames: Vec<u8>) -> Vec<u8> {
    match answer(instance, frames) {
        Some(answers) => answers,
        None => {
            eprintln!("the frames of handle-batch do not follow their layout");
            std::process::abort()
        }
    }
}

fn answer<T: Vnode>(instance: &mut Option<Instance<T>>, frames: Vec<u8>) -> Option<Vec<u8>> {
    let buffer = Rc::new(frames);
    let mut answers = Vec::with_capacity(buffer.len());
    let mut words: Vec<&[u8]> = Vec::new();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut reader = Reader { bytes: &buffer, at: 0 };
    while reader.at < buffer.len() {
        let now_ms = reader.u64()?;
        let seed = reader.u64()?;
        let request_id = reader.u64()?;
        let replica = match reader.u8()? {
            0 => Replica::Primary,
            1 => Replica::Fallback,
            _ => return None,
        };
        let spec = T::COMMANDS.get(usize::from(reader.u16()?))?;

        words.clear();
        ranges.clear();
        words.push(spec.name.as_bytes());
        ranges.push(0..0);
        for _ in 0..reader.u16()? {
            let range = reader.range()?;
            words.push(buffer.get(range.clone())?);
            ranges.push(range);
        }

        let keys = usize::from(reader.u16()?);
        frame::open(&buffer, spec.writes(), |frame| {
            let mut positions = spec.key_positions(words.len());
            for _ in 0..keys {
                let key = ranges.get(positions.next()?)?;
                let value = match reader.u8()? {
                    0 => None,
                    1 => Some(reader.range()?),
                    _ => return None,
                };
                frame.add(key.clone(), value);
            }
            positions.next().is_none().then_some(())
        })?;

        let result = match instance {
            None => Err(not_active()),
            Some(instance) => {
                let context = Context {
                    now_ms,
                    seed,
                    request_id,
                    partition: instance.identity.partition,
                    node: &instance.identity.node,
                    replica,
                };
                instance.vnode.handle(&Command::new(spec, &words, context))
            }
        };
        frame::close(result, &mut answers);
    }
    Some(answers)
}

/// Reads the layout's numbers; none when the buffer ends too early.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let chunk = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*chunk)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// Where the next `bytes` are.
    fn range(&mut self) -> Option<Range<usize>> {
        let length = usize::try_from(self.take().map(u32::from_le_bytes)?).ok()?;
        let start = self.at;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(start..end)
    }
}
