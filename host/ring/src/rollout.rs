//! Rollouts: how a service goes from one version of its guest to another while it serves, and back.
//!
//! Owns the stages, which partition runs which version in each of them, and when a rollout may go on. A part of the cluster map
//! (`map.rs`), so every node computes the same. Whether a version is any good is judged in [`gate`]; nothing is run here.
//!
//! Partitions move in one order, fixed when the rollout begins: first the canaries, of which no preference list has two and no
//! node has two; then as many as leave a quorum of every preference list behind; then all others. A stage is how far along
//! that order it is, so a partition that has moved stays moved unless all go back.

pub mod gate;
mod order;
mod refusal;
pub mod shadow;
pub mod times;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::order::Order;
pub use self::refusal::RolloutError;
use self::shadow::Expected;
pub use self::versions::Versions;
pub(crate) use self::versions::{Surroundings, happen};
use crate::index::PartitionId;
use crate::ring::{NodeName, Ring};

/// Parts of the ring that a rollout moves after its canaries, percent.
const WAVES: [u8; 3] = [25, 50, 100];

/// One version of a service's guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// SHA-256 of the component, hexadecimal. What names the version among nodes.
    pub digest: String,
    /// The version that it says it is, for people.
    pub version: String,
    /// Oldest schema of stored values that it reads.
    pub schema_reads_from: u32,
    /// Schema that it writes, the newest that it reads.
    pub schema_writes: u32,
    /// Oldest schema in which it can have stored what it writes, by a migration of its own; `schema_writes` if it has none.
    pub schema_stores_from: u32,
    /// Size of the component.
    pub bytes: u64,
}

/// How a rollout is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Replicas of each key of the service.
    pub n: u16,
    /// Replicas that a write waits for.
    pub w: u16,
    /// Part of the ring that moves first, percent. At least one partition does, and at most one of each node.
    pub canary_percent: u8,
    /// Every partition moves at once.
    pub all_at_once: bool,
    /// Time that each stage is watched before the next, milliseconds.
    pub soak_ms: u64,
    /// The operator knows that what the new version writes cannot be read by the old one, or the other way round.
    pub forced: bool,
    /// Commands that are meant to answer something else than in the old version.
    pub expected: Expected,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The nodes fetch, check and compile the new version. Nothing runs it.
    Distributing,
    /// The canaries run it.
    Canary,
    /// About so much of the ring runs it, percent.
    Wave(u8),
    /// Everything runs it, and it may still go back.
    Done,
    /// It is the service's version now.
    Finalized,
    /// Everything runs the old version again.
    RolledBack,
}

impl Stage {
    /// Whether the rollout is over, whatever became of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Stage::Finalized | Stage::RolledBack)
    }
}

impl Release {
    /// Whether what this version stores before it is final can be read by the one before, so that it may take over again.
    #[must_use]
    pub fn leads_back_to(&self, before: &Release) -> bool {
        self.schema_stores_from.min(self.schema_writes) <= before.schema_writes
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Distributing => f.pad("distributing"),
            Stage::Canary => f.pad("canary"),
            Stage::Wave(percent) => f.pad(&format!("wave {percent}%")),
            Stage::Done => f.pad("done"),
            Stage::Finalized => f.pad("finalized"),
            Stage::RolledBack => f.pad("rolled-back"),
        }
    }
}

/// What happens to the rollout of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutEvent {
    /// An operator wants another version. If the one before is done and not final, it becomes so.
    Begun {
        /// What is served now, as the node at hand knows it.
        from: Release,
        /// What is to be served.
        to: Release,
        /// How.
        terms: Terms,
        /// The node that has the component.
        by: NodeName,
    },
    /// A node has done all that a step asks of it, or could not.
    Reported {
        /// The rollout.
        id: u64,
        /// The step.
        step: u32,
        /// The node.
        node: NodeName,
        /// Why it could not.
        outcome: Result<(), String>,
    },
    /// The next stage begins. Nobody waits for those that cannot be reached: they have to catch up before they serve.
    Advanced {
        /// The rollout.
        id: u64,
        /// The step that is over.
        step: u32,
        /// Those that cannot be reached.
        unreachable: BTreeSet<NodeName>,
    },
    /// It stays where it is, until it is resumed.
    Paused {
        /// The rollout.
        id: u64,
        /// Why.
        why: String,
    },
    /// It goes on.
    Resumed {
        /// The rollout.
        id: u64,
    },
    /// Everything goes back to the old version.
    RolledBack {
        /// The rollout.
        id: u64,
        /// Why.
        why: String,
    },
    /// The old version is given up.
    Finalized {
        /// The rollout.
        id: u64,
    },
}

/// The way of one service from a version to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its name in the cluster: the epoch at which it began.
    pub id: u64,
    /// The old version.
    pub from: Release,
    /// The new one.
    pub to: Release,
    /// How it is done.
    pub terms: Terms,
    /// How far it is.
    pub stage: Stage,
    /// Grows whenever something else is asked of the nodes; they report by it.
    pub step: u32,
    /// Why it does not go on, if it is paused.
    pub paused: Option<String>,
    /// Why it went back, if it did.
    pub why: Option<String>,
    order: Order,
    /// How many of the order run the new version.
    moved: u16,
    /// The last step that each node has done.
    reported: BTreeMap<NodeName, u32>,
}

impl Rollout {
    fn new(
        id: u64,
        (from, to): (Release, Release),
        terms: Terms,
        ring: &Ring,
        reported: BTreeMap<NodeName, u32>,
    ) -> Rollout {
        let size = ring.size().get();
        // Rounded down: a canary is to be small.
        let part = u32::from(size) * u32::from(terms.canary_percent) / 100;
        let canaries = u16::try_from(part).unwrap_or(size).max(1);
        let order = Order::new(ring, terms.n, terms.w, canaries);
        Rollout {
            id,
            from,
            to,
            order,
            terms,
            stage: Stage::Distributing,
            step: 0,
            paused: None,
            why: None,
            moved: 0,
            reported,
        }
    }

    /// One that has not begun, for those who want to know what it would do.
    #[must_use]
    pub fn preview((from, to): (Release, Release), terms: Terms, ring: &Ring) -> Rollout {
        let nobody = BTreeMap::new();
        Rollout::new(0, (from, to), terms, ring, nobody)
    }

    /// The partitions that are to run the new version now, in the order in which they moved.
    #[must_use]
    pub fn moved(&self) -> &[PartitionId] {
        let moved = usize::from(self.moved);
        self.order.partitions.get(..moved).unwrap_or_default()
    }

    /// The partitions where the old version runs as the shadow of the new one: the canaries, as long as stages are
    /// watched. None if it could not read what the new one stores.
    #[must_use]
    pub fn shadowed(&self) -> &[PartitionId] {
        let canaries = usize::from(self.order.canaries);
        let watched = !self.terms.all_at_once && self.to.leads_back_to(&self.from);
        match self.stage {
            Stage::Canary | Stage::Wave(_) if watched => {
                self.order.partitions.get(..canaries).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// In which order they move.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// How many partitions run the new version in a stage of this rollout.
    #[must_use]
    pub fn moved_in(&self, stage: Stage) -> u16 {
        self.order.moved(stage)
    }

    /// Whether the node has done all that the present step asks.
    #[must_use]
    pub fn has_reported(&self, node: &NodeName) -> bool {
        self.reported
            .get(node)
            .is_some_and(|step| *step >= self.step)
    }

    /// Whether the node has the new version, checked and compiled.
    #[must_use]
    pub fn has_component(&self, node: &NodeName) -> bool {
        self.reported.contains_key(node)
    }

    /// Whether new versions have begun to be written, so that there is something to go back from.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.moved > 0
    }

    /// The stages that are still to come, up to the one where everything has moved and is watched no more.
    #[must_use]
    pub fn stages_left(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        let mut at = self.stage;
        while let Some(next) = self.next(at) {
            stages.push(next);
            at = next;
        }
        stages
    }

    /// The stage after another one. A wave that moves nothing is left out.
    fn next(&self, stage: Stage) -> Option<Stage> {
        let waves = |after: u8| {
            let moved = self.order.moved(stage);
            let mut waves = WAVES.into_iter().filter(move |wave| *wave > after);
            waves.find(|wave| self.order.moved(Stage::Wave(*wave)) > moved)
        };
        match stage {
            Stage::Distributing if self.terms.all_at_once => Some(Stage::Wave(100)),
            Stage::Distributing => Some(Stage::Canary),
            Stage::Canary => Some(waves(0).map_or(Stage::Done, Stage::Wave)),
            Stage::Wave(percent) => Some(waves(percent).map_or(Stage::Done, Stage::Wave)),
            Stage::Done | Stage::Finalized | Stage::RolledBack => None,
        }
    }

    fn enter(&mut self, stage: Stage) {
        let moved = self.order.moved(stage);
        if moved != self.moved {
            self.step += 1;
        }
        self.moved = moved;
        self.stage = stage;
    }

    fn advance(&mut self, step: u32, waits_for: &BTreeSet<&NodeName>) -> Result<(), RolloutError> {
        self.at(step)?;
        if let Some(why) = &self.paused {
            return Err(RolloutError::Paused { why: why.clone() });
        }
        let next = self.next(self.stage).ok_or(RolloutError::AtTheEnd)?;
        if let Some(node) = waits_for.iter().find(|node| !self.has_reported(node)) {
            let node = NodeName::clone(node);
            return Err(RolloutError::NotReady { node });
        }
        self.enter(next);
        Ok(())
    }

    fn at(&self, step: u32) -> Result<(), RolloutError> {
        match step == self.step {
            true => Ok(()),
            false => Err(RolloutError::Stale {
                found: step,
                current: self.step,
            }),
        }
    }

    fn go_back(&mut self, why: &str) {
        self.enter(Stage::RolledBack);
        self.paused = None;
        self.why = Some(why.to_owned());
    }

    fn report(
        &mut self,
        node: &NodeName,
        step: u32,
        outcome: &Result<(), String>,
    ) -> Result<(), RolloutError> {
        self.at(step)?;
        match outcome {
            Ok(()) => {
                self.reported.insert(node.clone(), step);
            }
            // The old version keeps serving where it could not be replaced.
            Err(why) if !self.stage.is_over() => self.go_back(&format!("{node}: {why}")),
            // It is over already; whoever looks at the node finds out.
            Err(_) => {}
        }
        Ok(())
    }
}
