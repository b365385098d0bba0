//! What a client wishes for one command: other quorums, another timeout. `VNODE.WITH`, and the same by HTTP.

use crate::resp::catalog::{GuestCommand, Target};
use crate::vnode::failure::Failure;
use crate::vnode::request::Consistency;
use crate::vnode::words::Words;

use super::Coordinator;

/// What differs from what the service says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Replicas to involve, no more than the service has.
    pub n: Option<u8>,
    /// Replicas that a read waits for.
    pub r: Option<u8>,
    /// Replicas that a write waits for.
    pub w: Option<u8>,
    /// Primaries among those of a read.
    pub pr: Option<u8>,
    /// Primaries among those of a write.
    pub pw: Option<u8>,
    /// Replicas of a write that have it on disk.
    pub dw: Option<u8>,
    /// Different nodes.
    pub node_confirms: Option<u8>,
    /// Time for the reply, milliseconds; at most what the node allows.
    pub timeout_ms: Option<u32>,
    /// What is there of a coverage command's reply is enough.
    pub partial: bool,
}

impl Wishes {
    /// What the command gets.
    ///
    /// # Errors
    /// Numbers that cannot be met whatever happens, with their names.
    pub fn over(self, of: Consistency) -> Result<Consistency, Failure> {
        let n = self.n.unwrap_or(of.n);
        if n == 0 || n > of.n {
            return Err(Failure::Usage(format!(
                "n={n}: the service keeps {} replicas of each key",
                of.n
            )));
        }
        let wished = Consistency {
            n,
            r: self.r.unwrap_or(of.r.min(n)),
            w: self.w.unwrap_or(of.w.min(n)),
            pr: self.pr.unwrap_or(of.pr.min(n)),
            pw: self.pw.unwrap_or(of.pw.min(n)),
            dw: self.dw.unwrap_or(of.dw.min(n)),
            node_confirms: self.node_confirms.unwrap_or(of.node_confirms.min(n)),
            timeout_ms: self.timeout_ms.unwrap_or(of.timeout_ms).min(of.timeout_ms),
        };
        let numbers = [
            ("r", wished.r, 1),
            ("w", wished.w, 1),
            ("pr", wished.pr, 0),
            ("pw", wished.pw, 0),
            ("dw", wished.dw, 0),
            ("node_confirms", wished.node_confirms, 0),
        ];
        for (name, number, least) in numbers {
            if number < least || number > n {
                return Err(Failure::Usage(format!(
                    "{name}={number}: it has to be from {least} to n={n}"
                )));
            }
        }
        Ok(wished)
    }

    fn set(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(value).ok()?;
        let place = match name.to_ascii_lowercase().as_slice() {
            b"n" => &mut self.n,
            b"r" => &mut self.r,
            b"w" => &mut self.w,
            b"pr" => &mut self.pr,
            b"pw" => &mut self.pw,
            b"dw" => &mut self.dw,
            b"node_confirms" => &mut self.node_confirms,
            b"timeout" => {
                self.timeout_ms = Some(text.parse().ok()?);
                return Some(());
            }
            _ => return None,
        };
        *place = Some(text.parse().ok()?);
        Some(())
    }
}

/// A command of a guest with all that was put in front of it.
pub struct Wished {
    /// The command.
    pub target: GuestCommand,
    /// Its words.
    pub words: Words,
    /// What its client wishes.
    pub wishes: Wishes,
    /// Whether its client wants to hear what each vnode did.
    pub traced: bool,
}

impl Coordinator {
    /// Reads `VNODE.TRACE` and `VNODE.WITH ... --`, however they nest, in front of a command of a guest.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub fn wished(&self, words: &Words) -> Result<Wished, Failure> {
        let mut wishes = Wishes::default();
        let (mut traced, mut at) = (false, 0);
        loop {
            let word = words.get(at);
            if word.eq_ignore_ascii_case(b"vnode.trace") {
                traced = true;
                at += 1;
            } else if word.eq_ignore_ascii_case(b"vnode.with") {
                at = options(words, at + 1, &mut wishes)?;
            } else {
                break;
            }
        }
        match self.front().catalog().find(words.get(at)) {
            Some(Target::Guest(target)) => Ok(Wished {
                target,
                words: Words::copy(words.iter().skip(at)),
                wishes,
                traced,
            }),
            _ => Err(Failure::Usage(format!(
                "'{}' is no command of a guest; VNODE.HELP lists what can stand here",
                String::from_utf8_lossy(words.get(at))
            ))),
        }
    }
}

/// Reads the options from `at` to `--`. Returns where the command begins.
fn options(words: &Words, mut at: usize, wishes: &mut Wishes) -> Result<usize, Failure> {
    loop {
        let name = words.get(at);
        if name == b"--" {
            return Ok(at + 1);
        }
        if name.eq_ignore_ascii_case(b"partial") {
            wishes.partial = true;
            at += 1;
            continue;
        }
        if at + 1 >= words.len() {
            return Err(Failure::Usage(
                "VNODE.WITH needs a -- before the command".into(),
            ));
        }
        let value = words.get(at + 1);
        if wishes.set(name, value).is_none() {
            let shown = String::from_utf8_lossy(name);
            let wrong = match value {
                b"--" if wishes.set(name, b"1").is_some() => {
                    format!("VNODE.WITH: '{shown}' needs a number")
                }
                b"--" => format!("VNODE.WITH does not know '{shown}'"),
                value => {
                    let value = String::from_utf8_lossy(value);
                    format!("VNODE.WITH does not know '{shown} {value}'")
                }
            };
            return Err(Failure::Usage(format!(
                "{wrong}; it takes N R W PR PW DW NODE_CONFIRMS TIMEOUT, each with a number, and PARTIAL"
            )));
        }
        at += 2;
    }
}
