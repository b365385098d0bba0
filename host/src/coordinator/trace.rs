//! Which vnodes had a part in one command, for those who ask: `VNODE.TRACE`, and `"trace": true` by HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{NodeName, PartitionId, Role};

use super::Coordinator;
use super::coverage::Covered;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::resp::{Protocol, write};
use crate::vnode::failure::Failure;

/// What one vnode did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its node, as the coordinator saw it.
    pub node: NodeName,
    /// The position of its partition, for people.
    pub partition: u16,
    /// As what it was asked.
    pub role: Role,
    /// `ok`, or the first word of the error.
    pub outcome: String,
    /// From asking to the answer.
    pub took: Duration,
    /// The version of the guest on the vnode, if it has said so.
    pub version: Option<Arc<str>>,
    /// For a coverage command: its part of the reply, RESP3 values back to back, and how many.
    pub part: Option<(Vec<u8>, usize)>,
}

impl Step {
    /// Appends `[node, partition, kind, outcome, microseconds, version]`, or `[node, partition, partial reply, version]`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let node = Value::bulk(self.node.as_str());
        let partition = Value::Int(self.partition.into());
        let version = self.version.as_deref().map_or(Value::Nil, Value::bulk);
        if let Some((items, count)) = &self.part {
            write::array(out, 4);
            node.encode(Protocol::Resp3, out);
            partition.encode(Protocol::Resp3, out);
            write::array(out, *count);
            out.extend_from_slice(items);
            version.encode(Protocol::Resp3, out);
            return;
        }
        let took = i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX);
        let kind = Value::simple(self.role.word());
        let outcome = Value::bulk(self.outcome.as_str());
        let took = Value::Int(took);
        Value::Array(vec![node, partition, kind, outcome, took, version])
            .encode(Protocol::Resp3, out);
    }

    fn read(step: &Value) -> Option<Step> {
        let Value::Array(parts) = step else {
            return None;
        };
        let [
            node,
            Value::Int(partition),
            kind,
            outcome,
            Value::Int(took),
            version,
        ] = parts.as_slice()
        else {
            return None;
        };
        Some(Step {
            node: NodeName::new(node.as_str()?).ok()?,
            partition: u16::try_from(*partition).ok()?,
            role: match kind.as_str()? {
                "primary" => Role::Primary,
                _ => Role::Fallback,
            },
            outcome: outcome.as_str()?.to_owned(),
            took: Duration::from_micros(u64::try_from(*took).ok()?),
            version: version.as_str().map(Arc::from),
            part: None,
        })
    }
}

/// What is known of a command that somebody wants to hear of, on its way.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What vnodes have done for it so far.
    pub steps: Vec<Step>,
    /// The version of the guest that got it.
    pub version: Option<Arc<str>>,
}

impl Trace {
    /// Appends the answer of the vnode of the partition at that position to what it was asked, with all that is known.
    pub fn answer(mut self, partition: u16, reply: &[u8], out: &mut Vec<u8>) {
        self.sign(out);
        if self.steps.is_empty() {
            return out.extend_from_slice(reply);
        }
        for own in &mut self.steps {
            if own.partition == partition {
                own.version.clone_from(&self.version);
            }
        }
        out.extend(with_steps(reply, &self.steps));
    }

    /// Says in front of an answer which version it is from.
    pub fn sign(&self, out: &mut Vec<u8>) {
        if let Some(version) = &self.version {
            sign(version, out);
        }
    }
}

/// Takes down the steps of one command.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Vec<Step>>);

impl Recorder {
    fn add(&self, step: Step) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step);
    }

    /// The steps, in the order of their answers.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A traced reply: `[reply, [[node, partition, kind, outcome, microseconds, version] ...]]`, as RESP3.
pub fn traced(reply: &[u8], steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, 2);
    out.extend_from_slice(reply);
    write::array(&mut out, steps.len());
    for step in steps {
        step.write(&mut out);
    }
    out
}

/// In front of an answer that says itself who had a part in it. No RESP value begins so.
const STEPS: u8 = 1;

/// An answer on its way inside a node, with who had a part in it.
pub fn with_steps(reply: &[u8], steps: &[Step]) -> Vec<u8> {
    let mut answer = vec![STEPS];
    answer.extend(traced(reply, steps));
    answer
}

/// The traced reply in an answer that says itself who had a part in it.
pub fn steps_of(answer: &[u8]) -> Option<&[u8]> {
    answer
        .split_first()
        .filter(|(first, _)| **first == STEPS)
        .map(|(_, rest)| rest)
}

/// In front of the answer of a vnode to one who traces: then come the length of its version (u32, little-endian), the version, and
/// the answer. No other answer begins so.
const VERSION: u8 = 2;

/// Says in front of an answer which version it is from.
pub fn sign(version: &str, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend(u32::try_from(version.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(version.as_bytes());
}

/// The version in front of an answer, if there is one, and the answer.
pub fn signed(answer: &[u8]) -> (Option<&str>, &[u8]) {
    let split = || {
        let (length, rest) = answer.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let (version, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((std::str::from_utf8(version).ok()?, rest))
    };
    split().map_or((None, answer), |(version, rest)| (Some(version), rest))
}

/// The reply and the steps of what [`traced`] wrote; the reply alone of anything else.
fn untraced(answer: &[u8]) -> (Vec<u8>, Vec<Step>) {
    let parts = match Value::parse(answer, &ReplyLimits::default()) {
        Ok(Value::Array(parts)) => <[Value; 2]>::try_from(parts).ok(),
        _ => None,
    };
    let Some([reply, Value::Array(steps)]) = parts else {
        return (answer.to_vec(), Vec::new());
    };
    let mut bytes = Vec::new();
    reply.encode(Protocol::Resp3, &mut bytes);
    (bytes, steps.iter().filter_map(Step::read).collect())
}

impl Coordinator {
    /// Takes down what the vnodes did that had a part in the answer to a traced request. Returns the reply alone.
    pub(super) fn record_answer(
        &self,
        recorder: &Recorder,
        partition: PartitionId,
        begun: Instant,
        answer: Result<Vec<u8>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let answer = match answer.map(|answer| untraced(&answer)) {
            Ok((reply, steps)) if !steps.is_empty() => {
                for step in steps {
                    recorder.add(step);
                }
                return Ok(reply);
            }
            other => other.map(|(reply, _)| reply),
        };
        // It never came to the vnode.
        let view = self.view();
        let holders = view.holders(partition, 1);
        let found = holders.first().and_then(|holder| {
            let node = view.nodes().get(usize::from(holder.node))?;
            Some((node.clone(), holder.role))
        });
        if let Some((node, role)) = found {
            recorder.add(Step {
                node,
                partition: partition.number(),
                role,
                outcome: outcome(&answer),
                took: begun.elapsed(),
                version: None,
                part: None,
            });
        }
        answer
    }

    /// Takes down a vnode's part of a coverage command, with the version that gave the last of it.
    pub(super) fn record_part(
        &self,
        recorder: &Recorder,
        (covered, version): (Covered, String),
        begun: Instant,
        part: (Vec<u8>, usize),
    ) {
        recorder.add(Step {
            node: covered.node.clone(),
            partition: covered.partition.number(),
            role: Role::Primary,
            outcome: "ok".into(),
            took: begun.elapsed(),
            version: Some(version.into()),
            part: Some(part),
        });
    }
}

/// The first word of a RESP error, without its sign.
pub fn first_word(error: &[u8]) -> String {
    let text = error.strip_prefix(b"-").unwrap_or(error);
    let word = text.split(|byte| byte.is_ascii_whitespace()).next();
    String::from_utf8_lossy(word.unwrap_or_default()).into_owned()
}

fn outcome(answer: &Result<Vec<u8>, Failure>) -> String {
    match answer {
        Err(failure) => failure.code().to_owned(),
        Ok(reply) => match reply.split_first() {
            Some((b'-', _)) => first_word(reply),
            _ => "ok".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(partition: u16, version: Option<&str>) -> Step {
        Step {
            node: NodeName::new("a@test").unwrap(),
            partition,
            role: Role::Primary,
            outcome: "ok".into(),
            took: Duration::from_micros(7),
            version: version.map(Arc::from),
            part: None,
        }
    }

    fn versions(steps: &[Step]) -> Vec<Option<&str>> {
        steps.iter().map(|step| step.version.as_deref()).collect()
    }

    #[test]
    fn steps_come_over_with_the_versions_that_are_known() {
        let steps = [step(1, Some("1.0.0")), step(2, None)];
        let (reply, read) = untraced(&traced(b"+OK\r\n", &steps));
        assert_eq!(reply, b"+OK\r\n");
        assert_eq!(versions(&read), [Some("1.0.0"), None]);
    }

    #[test]
    fn a_vnode_says_its_version_and_puts_it_into_its_own_step() {
        let trace = Trace {
            steps: vec![step(1, Some("1.0.0")), step(2, None)],
            version: Some("2.0.0".into()),
        };
        let mut answer = Vec::new();
        trace.clone().answer(2, b":1\r\n", &mut answer);
        let (version, rest) = signed(&answer);
        assert_eq!(version, Some("2.0.0"));
        let (reply, steps) = untraced(steps_of(rest).unwrap());
        assert_eq!(reply, b":1\r\n");
        assert_eq!(versions(&steps), [Some("1.0.0"), Some("2.0.0")]);
        let alone = Trace {
            steps: Vec::new(),
            ..trace
        };
        answer.clear();
        alone.answer(2, b":1\r\n", &mut answer);
        assert_eq!(signed(&answer), (Some("2.0.0"), &b":1\r\n"[..]));
    }

    proptest! {
        /// Whatever stands behind a version comes out again, and what has none is left as it is.
        #[test]
        fn answers_come_out_as_they_were(version in ".{0,20}", answer in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            sign(&version, &mut out);
            out.extend_from_slice(&answer);
            prop_assert_eq!(signed(&out), (Some(version.as_str()), answer.as_slice()));
            if answer.first() != Some(&VERSION) {
                prop_assert_eq!(signed(&answer), (None, answer.as_slice()));
            }
        }

        /// No bytes of another node panic.
        #[test]
        fn any_bytes_may_stand_behind_the_sign(rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = signed(&[&[VERSION], rest.as_slice()].concat());
        }
    }
}
