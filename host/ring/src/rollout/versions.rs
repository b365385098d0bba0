//! Which versions of a service the cluster runs, and what events of a rollout do to that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Release, Rollout, RolloutError, RolloutEvent, Stage};
use crate::index::PartitionId;
use crate::ring::{NodeName, Ring};

/// Most versions that are kept after they were replaced.
const PAST_MAX: usize = 3;

/// Which versions of one service the cluster runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    current: Release,
    rollout: Option<Rollout>,
    /// Latest first.
    past: Vec<Release>,
}

impl Versions {
    /// The version that was agreed on last; while a rollout is not over, the one that it comes from.
    #[must_use]
    pub fn current(&self) -> &Release {
        &self.current
    }

    /// The rollout under way, or the last one.
    #[must_use]
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// The rollout that is not over.
    #[must_use]
    pub fn under_way(&self) -> Option<&Rollout> {
        self.rollout.as_ref().filter(|one| !one.stage.is_over())
    }

    /// What was replaced, latest first.
    #[must_use]
    pub fn past(&self) -> &[Release] {
        &self.past
    }

    /// Every version that a node has to have at hand: what partitions run, and what they may run next or go back to.
    #[must_use]
    pub fn at_hand(&self) -> Vec<&Release> {
        let next = self.under_way().map(|rollout| &rollout.to);
        std::iter::once(&self.current).chain(next).collect()
    }

    /// The newest schema in which anything may be stored now: until a rollout is final, one that both versions read.
    #[must_use]
    pub fn ceiling(&self) -> u32 {
        let current = self.current.schema_writes;
        let next = self.under_way().map(|rollout| rollout.to.schema_writes);
        next.map_or(current, |next| next.min(current))
    }

    /// Which version a partition runs.
    #[must_use]
    pub fn assigned(&self, partition: PartitionId) -> &Release {
        match self.under_way() {
            Some(rollout) if rollout.moved().contains(&partition) => &rollout.to,
            _ => &self.current,
        }
    }
}

/// The cluster as far as rollouts depend on it.
pub(crate) struct Surroundings<'a> {
    /// The epoch after the event.
    pub(crate) epoch: u64,
    /// Who owns what.
    pub(crate) ring: &'a Ring,
    /// What each member that may be waited for serves of the service.
    pub(crate) serving: BTreeMap<&'a NodeName, &'a str>,
    /// Partitions on their way.
    pub(crate) transfers: usize,
}

/// Lets an event happen to a service of which `versions` are known, if any.
pub(crate) fn happen(
    service: &str,
    versions: Option<Versions>,
    event: &RolloutEvent,
    around: &Surroundings<'_>,
) -> Result<Versions, RolloutError> {
    let none = || RolloutError::None {
        service: service.to_owned(),
    };
    if let RolloutEvent::Begun {
        from,
        to,
        terms,
        by,
    } = event
    {
        let versions = begin(service, versions, (from, to), around)?;
        check_schemas(from, to, terms.forced)?;
        let pair = (from.clone(), to.clone());
        let rollout = Rollout::new(
            around.epoch,
            pair,
            terms.clone(),
            around.ring,
            BTreeMap::from([(by.clone(), 0)]),
        );
        return Ok(Versions {
            rollout: Some(rollout),
            ..versions
        });
    }
    let mut versions = versions.ok_or_else(none)?;
    let rollout = versions.rollout.as_mut().ok_or_else(none)?;
    let of = |id: &u64| match rollout.id == *id {
        true => Ok(()),
        false => Err(none()),
    };
    match event {
        RolloutEvent::Begun { .. } => {}
        RolloutEvent::Reported {
            id,
            step,
            node,
            outcome,
        } => {
            of(id)?;
            rollout.report(node, *step, outcome)?;
        }
        // What follows happens to a rollout that is not over.
        RolloutEvent::Advanced { id, .. }
        | RolloutEvent::Paused { id, .. }
        | RolloutEvent::Resumed { id }
        | RolloutEvent::RolledBack { id, .. }
        | RolloutEvent::Finalized { id }
            if of(id).is_err() || rollout.stage.is_over() =>
        {
            return Err(none());
        }
        RolloutEvent::Advanced {
            step, unreachable, ..
        } => {
            let serving = around.serving.keys().copied();
            let waits_for = serving
                .filter(|node| !unreachable.contains(*node))
                .collect();
            rollout.advance(*step, &waits_for)?;
        }
        RolloutEvent::Paused { why, .. } => rollout.paused = Some(why.clone()),
        RolloutEvent::Resumed { .. } => rollout.paused = None,
        RolloutEvent::RolledBack { why, .. } => rollout.go_back(why),
        RolloutEvent::Finalized { .. } => versions = finalize(versions, around)?,
    }
    Ok(versions)
}

/// What the cluster runs when a rollout begins, if one may.
fn begin(
    service: &str,
    versions: Option<Versions>,
    (from, to): (&Release, &Release),
    around: &Surroundings<'_>,
) -> Result<Versions, RolloutError> {
    let versions = match versions {
        Some(versions) => match versions.under_way() {
            Some(rollout) if rollout.stage == Stage::Done => finalize(versions, around)?,
            Some(rollout) => {
                return Err(RolloutError::UnderWay {
                    service: service.to_owned(),
                    version: rollout.to.version.clone(),
                    stage: rollout.stage.to_string(),
                });
            }
            None => versions,
        },
        None => {
            let mut others = around.serving.iter();
            if let Some((node, found)) = others.find(|(_, digest)| **digest != from.digest) {
                return Err(RolloutError::OtherVersion {
                    service: service.to_owned(),
                    node: node.to_string(),
                    found: short(found),
                    wanted: short(&from.digest),
                });
            }
            Versions {
                current: from.clone(),
                rollout: None,
                past: Vec::new(),
            }
        }
    };
    if versions.current.digest != from.digest {
        return Err(RolloutError::OtherVersion {
            service: service.to_owned(),
            node: "the cluster".into(),
            found: short(&versions.current.digest),
            wanted: short(&from.digest),
        });
    }
    if from.digest == to.digest {
        return Err(RolloutError::Same {
            service: service.to_owned(),
            digest: short(&to.digest),
        });
    }
    Ok(versions)
}

fn check_schemas(from: &Release, to: &Release, forced: bool) -> Result<(), RolloutError> {
    if forced {
        return Ok(());
    }
    if to.schema_reads_from > from.schema_writes {
        return Err(RolloutError::Unreadable {
            version: to.version.clone(),
            reads_from: to.schema_reads_from,
            written: from.schema_writes,
        });
    }
    if to.schema_writes < from.schema_writes {
        return Err(RolloutError::Older {
            version: to.version.clone(),
            reads: to.schema_writes,
            stored: from.schema_writes,
        });
    }
    if !to.leads_back_to(from) {
        return Err(RolloutError::OneWay {
            version: to.version.clone(),
            writes: to.schema_stores_from,
            read: from.schema_writes,
        });
    }
    Ok(())
}

fn finalize(mut versions: Versions, around: &Surroundings<'_>) -> Result<Versions, RolloutError> {
    let Some(rollout) = &mut versions.rollout else {
        return Ok(versions);
    };
    if rollout.stage != Stage::Done {
        return Err(RolloutError::NotDone {
            stage: rollout.stage.to_string(),
        });
    }
    if around.transfers > 0 {
        return Err(RolloutError::Transfers {
            count: around.transfers,
        });
    }
    rollout.enter(Stage::Finalized);
    rollout.paused = None;
    let old = std::mem::replace(&mut versions.current, rollout.to.clone());
    versions.past.retain(|past| past.digest != old.digest);
    versions.past.insert(0, old);
    let current = &versions.current;
    versions.past.retain(|past| past.digest != current.digest);
    versions.past.truncate(PAST_MAX);
    Ok(versions)
}

/// As much of a digest as people compare.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
