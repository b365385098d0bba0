//! The batch door: many commands in one call, packed as `wit/batch.wit` says.
//!
//! A buffer that does not follow the layout is the host's mistake, and there is no way to answer it: the call traps.

use std::ops::Range;
use std::rc::Rc;

use crate::command::{Command, Context, Replica};
use crate::door::Instance;
use crate::frame;
use crate::vnode::{Vnode, not_active};

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
    let mut reader = Reader {
        bytes: &buffer,
        at: 0,
    };
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
                    0 => frame::Value::Absent,
                    1 => frame::Value::Present(reader.range()?),
                    2 => frame::Value::Unsent,
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
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::init;
    use crate::prelude::*;

    #[derive(Default)]
    struct Kv;

    impl Vnode for Kv {
        const NAME: &'static str = "kv";
        const MERGE: Merge = Merge::Siblings;
        const COMMANDS: &'static [CommandSpec] = &[
            read("GET").arity(2).key(1),
            write("SET").arity(3).key(1),
            write("FAIL").arity(2).key(1),
            read("COUNT").arity(2).key(1),
        ];

        fn handle(&mut self, command: &Command) -> Result<Reply> {
            match command.name() {
                "GET" => Ok(store::get(command.bytes(1)?)?.into()),
                "SET" => store::put(command.bytes(1)?, command.bytes(2)?).map(|()| Reply::ok()),
                "FAIL" => Err(command.bytes(1)?.escape_ascii().to_string().into()),
                _ => Ok(Reply::int(i64::try_from(store::count()?).unwrap_or(0))),
            }
        }
    }

    fn frame(command: u16, args: &[&str], value: Option<&str>) -> Vec<u8> {
        let mut out = vec![0; 25];
        out.extend(command.to_le_bytes());
        out.extend(u16::try_from(args.len()).unwrap().to_le_bytes());
        let text = |text: &str, out: &mut Vec<u8>| {
            out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            out.extend(text.as_bytes());
        };
        for arg in args {
            text(arg, &mut out);
        }
        out.extend([1, 0, u8::from(value.is_some())]);
        if let Some(value) = value {
            text(value, &mut out);
        }
        out
    }

    fn frames() -> Vec<Vec<u8>> {
        vec![
            frame(0, &["k"], Some("old")),
            frame(1, &["a", "new"], None),
            frame(3, &["k"], None),
            frame(2, &["f"], Some("")),
            frame(0, &["none"], None),
        ]
    }

    #[test]
    fn every_frame_has_its_answer_in_order() {
        let mut instance = init::<Kv>(Identity::default()).ok();
        let mut expected = Vec::new();
        expected.extend(b"\0\0\0\x09\0\0\0$3\r\nold\r\n");
        expected.extend(b"\0\x01\0\0\0\x01\x03\0\0\0new\x05\0\0\0+OK\r\n");
        expected.extend(b"\x02");
        expected.extend(b"\x01\x03\0\0\0ERR\x01\0\0\0f");
        expected.extend(b"\0\0\0\x03\0\0\0_\r\n");
        assert_eq!(answer(&mut instance, frames().concat()), Some(expected));
    }

    #[test]
    fn a_buffer_that_breaks_the_layout_is_refused() {
        let mut instance = init::<Kv>(Identity::default()).ok();
        let whole = frames().concat();
        let mut ends = vec![0];
        for frame in frames() {
            ends.push(ends[ends.len() - 1] + frame.len());
        }
        for cut in 0..=whole.len() {
            let answers = answer(&mut instance, whole[..cut].to_vec());
            assert_eq!(answers.is_some(), ends.contains(&cut), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for byte in [1, 2, 0x7f, 0xff] {
                let mut bent = whole.clone();
                bent[at] = byte;
                // Any answer will do, as long as there is one or the refusal.
                let _ = answer(&mut instance, bent);
            }
        }
    }
}
