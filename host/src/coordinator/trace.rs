//! Which vnodes had a part in one command, for those who ask: `VNODE.TRACE`, and `"trace": true` by HTTP.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vnode_ring::{NodeName, PartitionId, Place, Role};

use super::Coordinator;
use crate::vnode::request::Failure;

/// What one vnode did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its node, as the coordinator saw it.
    pub node: NodeName,
    /// Its partition.
    pub partition: PartitionId,
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
    /// The role's word for people.
    pub fn kind(&self) -> &'static str {
        match self.role {
            Role::Primary => "primary",
            Role::Fallback => "fallback",
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

impl Coordinator {
    /// Takes down that a command was asked of the vnode of a partition at `begun`, and has an answer.
    pub(super) fn record_reply(
        &self,
        recorder: &Recorder,
        partition: PartitionId,
        begun: Instant,
        answer: &Result<Vec<u8>, Failure>,
    ) {
        let view = self.view();
        let place = view.place(partition);
        let (Place::Here(role) | Place::There(_, role)) = place else {
            return;
        };
        let Some(node) = view.node_at(place) else {
            return;
        };
        recorder.add(Step {
            node: node.clone(),
            partition,
            role,
            outcome: outcome(answer),
            took: begun.elapsed(),
            part: None,
        });
    }

    /// Takes down a vnode's part of a coverage command.
    pub(super) fn record_part(
        &self,
        recorder: &Recorder,
        partition: PartitionId,
        begun: Instant,
        part: (Vec<u8>, usize),
    ) {
        recorder.add(Step {
            node: self.view().ring().owner(partition).clone(),
            partition,
            role: Role::Primary,
            outcome: "ok".into(),
            took: begun.elapsed(),
            part: Some(part),
        });
    }
}

fn outcome(answer: &Result<Vec<u8>, Failure>) -> String {
    match answer {
        Err(failure) => failure.code().to_owned(),
        Ok(reply) => match reply.split_first() {
            Some((b'-', rest)) => {
                let word = rest.split(|byte| byte.is_ascii_whitespace()).next();
                String::from_utf8_lossy(word.unwrap_or_default()).into_owned()
            }
            _ => "ok".into(),
        },
    }
}
