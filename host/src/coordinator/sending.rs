//! One transfer that this node sends, while it does: both sides know of it, it keeps to the limits of both, and it ends in good
//! order however it ends.
//!
//! The receiver is asked for a place before the first row. The place lasts for some seconds and is asked for again while rows
//! flow, so that a sender that dies keeps nobody out.

use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vnode_cluster::failpoint;
use vnode_ring::{NodeName, PartitionId};

use super::Coordinator;
use super::asks::Ask;
use super::transfers::{Amount, Kind, Phase, Transfers, Which};
use crate::vnode::failure::Failure;

/// Time for the receiver to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often the receiver hears that rows still flow.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How often one that waits for its turn looks whether its limits have changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a sender says to the receiver.
#[derive(Serialize, Deserialize)]
pub(super) struct Receive {
    from: NodeName,
    kind: Kind,
    partition: PartitionId,
    /// Its name, where the transfer is about one.
    service: Option<String>,
    total: Amount,
    moved: Amount,
    /// That was all.
    over: bool,
}

/// Why a transfer stopped before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// There is no room for it now.
    Held(String),
    /// Something went wrong.
    Failed(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure.to_string())
    }
}

/// A transfer that has a place among those that are sent.
pub(super) struct Sending<'a> {
    coordinator: &'a Coordinator,
    which: Which,
    to: NodeName,
    /// When the receiver last heard of it; none when it never did.
    said: Option<Instant>,
}

impl Coordinator {
    /// What is on its way, to read or to change. Never held for long.
    pub(crate) fn transfers(&self) -> MutexGuard<'_, Transfers> {
        let transfers = self.transfers.lock();
        transfers.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place here and at the receiver.
    pub(super) async fn begin_sending(
        &self,
        which: Which,
        to: &NodeName,
        attempt: u64,
        total: Amount,
    ) -> Result<Sending<'_>, Stop> {
        let view = self.view();
        self.transfers()
            .begin(which, (view.me(), to), attempt, total, self.steady_ms())
            .map_err(Stop::Held)?;
        let mut sending = Sending {
            coordinator: self,
            which,
            to: to.clone(),
            said: None,
        };
        sending.say().await?;
        Ok(sending)
    }

    /// A transfer stopped before its end: it waits, and everybody can see why.
    pub(super) fn stopped(&self, which: Which, stop: Stop) {
        match stop {
            Stop::Held(why) => self.transfers().hold(which, why, self.steady_ms()),
            Stop::Failed(why) => {
                self.tell_of(which, &format!("waits: {why}"));
                self.transfers().fail(which, why, self.steady_ms());
            }
        }
    }

    /// Takes down what happens to a transfer for those who watch.
    pub(super) fn tell_of(&self, which: Which, what: &str) {
        let (kind, partition) = (which.kind.as_str(), which.partition);
        let to = self.transfers().all().get(&which).map(|one| one.to.clone());
        let node = to.as_ref().map(NodeName::as_str);
        let goes = node.map_or(String::new(), |to| format!(" to {to}"));
        let text = format!("{kind} transfer of partition {partition}{goes} {what}");
        let epoch = self.view().map().epoch();
        self.cluster.feed().add("transfer", node, epoch, text);
    }

    /// Another node wants to send, or goes on sending.
    pub(super) fn receive(&self, said: Receive) -> Result<(), String> {
        let service = |name: &String| self.services.iter().find(|one| one.name() == name);
        let which = Which {
            kind: said.kind,
            partition: said.partition,
            service: said.service.as_ref().and_then(service).map(|one| one.index),
        };
        if said.over {
            self.transfers().received(&said.from, which);
            return Ok(());
        }
        if self.is_draining() {
            return Err("it is about to end".into());
        }
        if which.kind == Kind::Ownership && !self.comes(which.partition) {
            return Err("it has not heard yet that the partition is to come".into());
        }
        if which.kind == Kind::Ownership
            && let Some(why) = self.lacks_version(which.partition)
        {
            return Err(why);
        }
        let amounts = (said.total, said.moved);
        let place = self
            .transfers()
            .receive(&said.from, which, amounts, self.steady_ms());
        failpoint("place-given");
        place
    }

    fn word_of(&self, which: Which, over: bool) -> Ask {
        let transfers = self.transfers();
        let transfer = transfers.all().get(&which);
        let service = which
            .service
            .and_then(|index| self.services.get(usize::from(index)));
        Ask::Receive(Receive {
            from: self.cluster.me().name().clone(),
            kind: which.kind,
            partition: which.partition,
            service: service.map(|service| service.name().to_owned()),
            total: transfer.map(|one| one.total).unwrap_or_default(),
            moved: transfer.map(|one| one.moved).unwrap_or_default(),
            over,
        })
    }
}

impl Sending<'_> {
    /// The transfer gets further.
    pub(super) fn enter(&self, phase: Phase) {
        let news =
            self.coordinator
                .transfers()
                .enter(self.which, phase, self.coordinator.steady_ms());
        if news {
            let what = format!("is {}", phase.as_str());
            self.coordinator.tell_of(self.which, &what);
        }
    }

    /// So much has arrived, up to this place. Waits until more may be sent.
    pub(super) async fn moved(
        &mut self,
        amount: Amount,
        cursor: Option<(u16, Option<Vec<u8>>)>,
    ) -> Result<(), Stop> {
        let wait = {
            let mut transfers = self.coordinator.transfers();
            transfers.moved(self.which, amount, cursor, self.coordinator.steady_ms())
        };
        let until = Instant::now() + wait;
        loop {
            let unlimited = {
                let transfers = self.coordinator.transfers();
                if let Some(why) = transfers.paused() {
                    return Err(Stop::Held(why.to_owned()));
                }
                transfers.limits().bytes_per_second == 0
            };
            if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
                self.say().await?;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || unlimited {
                return Ok(());
            }
            // What an operator says meanwhile counts at once.
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    async fn say(&mut self) -> Result<(), Stop> {
        let word = self.coordinator.word_of(self.which, false);
        let deadline = Instant::now() + ANSWER_WITHIN;
        let answer = self.coordinator.ask_node(&self.to, &word, deadline).await?;
        answer.map_err(|why| Stop::Held(format!("{}: {why}", self.to)))?;
        self.said = Some(Instant::now());
        Ok(())
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.coordinator.transfers().rest(self.which);
        let coordinator = self.coordinator.me.upgrade();
        // There is no runtime any more when the node ends.
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(coordinator), Ok(runtime), Some(_)) = (coordinator, runtime, self.said) {
            let (to, word) = (self.to.clone(), self.coordinator.word_of(self.which, true));
            runtime.spawn(async move {
                let deadline = Instant::now() + ANSWER_WITHIN;
                // If it does not hear this, it hears nothing more, which says the same.
                drop(coordinator.ask_node(&to, &word, deadline).await);
            });
        }
    }
}
