//! Which vnodes had a part in one command, for those who ask: `VNODE.TRACE`, and `"trace": true` by HTTP.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{NodeName, PartitionId, Role};

use super::Coordinator;
use super::coverage::Covered;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::resp::{Protocol, write};
use crate::vnode::request::Failure;

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
    /// For a coverage command: its part of the reply, RESP3 values back to back, and how many.
    pub part: Option<(Vec<u8>, usize)>,
}

impl Step {
    /// Appends `[node, partition, kind, outcome, microseconds]`, or `[node, partition, partial reply]`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let node = Value::bulk(self.node.as_str());
        let partition = Value::Int(self.partition.into());
        if let Some((items, count)) = &self.part {
            write::array(out, 3);
            node.encode(Protocol::Resp3, out);
            partition.encode(Protocol::Resp3, out);
            write::array(out, *count);
            out.extend_from_slice(items);
            return;
        }
        let took = i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX);
        let kind = Value::simple(self.role.word());
        let outcome = Value::bulk(self.outcome.as_str());
        Value::Array(vec![node, partition, kind, outcome, Value::Int(took)])
            .encode(Protocol::Resp3, out);
    }

    fn read(step: &Value) -> Option<Step> {
        let Value::Array(parts) = step else {
            return None;
        };
        let [node, Value::Int(partition), kind, outcome, Value::Int(took)] = parts.as_slice()
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
            part: None,
        })
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

/// A traced reply: `[reply, [[node, partition, kind, outcome, microseconds] ...]]`, as RESP3.
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
                part: None,
            });
        }
        answer
    }

    /// Takes down a vnode's part of a coverage command.
    pub(super) fn record_part(
        &self,
        recorder: &Recorder,
        covered: &Covered,
        begun: Instant,
        part: (Vec<u8>, usize),
    ) {
        recorder.add(Step {
            node: covered.node.clone(),
            partition: covered.partition.number(),
            role: Role::Primary,
            outcome: "ok".into(),
            took: begun.elapsed(),
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
