//! Which vnodes of this node have another version beside their own: the canaries of a rollout the old one, and those that an operator
//! has chosen a version that is to be tried.
//!
//! The first is a function of the cluster map; the second is known to this node alone and ends with it. Both are brought about by the
//! same loop that gives vnodes their versions ([`versions`](super::versions)), so a vnode is never taken out of turn for two reasons at
//! once. What is seen stays in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use vnode_ring::rollout::shadow::{Compared, Tally};
use vnode_ring::{NodeName, PartitionId, Rollout, Stage, Versions, View};

use super::asks::{Ask, from_bytes, to_bytes};
use super::swap::Held;
use super::{Coordinator, join_all};
use crate::vnode::Vnode;
use crate::vnode::comparison::{Comparison, Standing};
use crate::vnode::edition::Edition;
use crate::vnode::service::Service;

/// Commands that a canary gives the old version in a second: a rollout is to cost little, and a wrong answer shows soon enough.
const CANARY_PER_SECOND: u32 = 250;
/// Time of a node to say what its canaries have seen. Whoever does not is left out.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// What this node knows of shadows.
#[derive(Default)]
pub(super) struct Shadows {
    known: Mutex<Known>,
    /// An operator has asked for something.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    /// What operators have asked for, by service: what runs, or ran last.
    asked: BTreeMap<String, Asked>,
    /// The rollouts whose canaries are watched, by service.
    canaries: BTreeMap<String, (u64, Arc<Comparison>)>,
    /// The seats whose vnodes have a shadow.
    placed: BTreeMap<usize, Arc<Comparison>>,
    /// What was seen of those that are forgotten, by service and command.
    past: BTreeMap<(String, String), Tally>,
}

/// A version that an operator wants to try.
#[derive(Clone)]
pub struct Asked {
    /// The version that serves, which it is compared with.
    pub running: Arc<Edition>,
    /// The version, and what is seen of it.
    pub comparison: Arc<Comparison>,
    /// Whose commands it gets.
    pub partitions: BTreeSet<PartitionId>,
    /// How long it is to run.
    pub within: Duration,
    /// For how long it has run, and why no longer.
    pub ended: Option<(Duration, String)>,
}

impl Known {
    /// Remembers what was counted before it is forgotten.
    fn bury(&mut self, service: &str, comparison: &Comparison) {
        for (command, seen) in comparison.seen().commands {
            let past = self.past.entry((service.to_owned(), command)).or_default();
            *past = past.and(&seen.compared.tally);
        }
    }

    /// Ends what an operator has asked for.
    fn end(&mut self, service: &str, why: &str) {
        if let Some(asked) = self.asked.get_mut(service) {
            let ran = asked.comparison.since.elapsed().min(asked.within);
            asked.ended.get_or_insert((ran, why.to_owned()));
        }
    }
}

impl Shadows {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an operator has asked for something.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Coordinator {
    /// Has a version run beside the serving one in these partitions of this node, for so long.
    ///
    /// # Errors
    /// The version that is tried already.
    pub fn begin_shadow(
        &self,
        service: &Service,
        running: Arc<Edition>,
        tried: Arc<Edition>,
        partitions: BTreeSet<PartitionId>,
        within: Duration,
    ) -> Result<(), Arc<Edition>> {
        let comparison = Comparison::new(tried, u32::MAX, Some(within));
        let asked = Asked {
            running,
            comparison: Arc::new(comparison),
            partitions,
            within,
            ended: None,
        };
        let mut known = self.shadows.lock();
        if let Some(other) = known.asked.get(service.name()).filter(|one| one.is_open()) {
            return Err(Arc::clone(&other.comparison.edition));
        }
        if let Some(old) = known.asked.insert(service.name().to_owned(), asked) {
            known.bury(service.name(), &old.comparison);
        }
        drop(known);
        self.shadows.changed.notify_one();
        Ok(())
    }

    /// Ends what an operator has asked for.
    pub fn end_shadow(&self, service: &Service) {
        let mut known = self.shadows.lock();
        known.end(service.name(), "an operator asked for it");
        drop(known);
        self.shadows.changed.notify_one();
    }

    /// What an operator has asked for, or did last.
    pub fn shadow(&self, service: &Service) -> Option<Asked> {
        let mut known = self.shadows.lock();
        // Whoever asks is not to see it run past its time until the loop comes by.
        let over = known.asked.get(service.name());
        if over.is_some_and(|asked| asked.comparison.is_over()) {
            known.end(service.name(), "its time is over");
        }
        known.asked.get(service.name()).cloned()
    }

    /// What all shadows of this node have seen since it began, by service and command.
    pub fn shadowed(&self) -> BTreeMap<(String, String), Tally> {
        let mut known = self.shadows.lock();
        let past = known.past.clone();
        let asked = known.asked.iter();
        let asked = asked.map(|(service, asked)| (service.clone(), Arc::clone(&asked.comparison)));
        let canaries = known.canaries.iter();
        let canaries = canaries.map(|(service, (_, seen))| (service.clone(), Arc::clone(seen)));
        let live: Vec<_> = asked.chain(canaries).collect();
        for (service, comparison) in live {
            known.bury(&service, &comparison);
        }
        std::mem::replace(&mut known.past, past)
    }

    /// Gives vnodes the shadows that they are to have, and takes away those that they are not.
    pub(super) async fn follow_shadows(&self, view: &View) {
        let mut wanted = BTreeMap::new();
        for service in &self.services {
            wanted.extend(self.wanted(view, service));
        }
        let placed = self.shadows.lock().placed.clone();
        for (number, old) in placed {
            let stays = |new: &Arc<Comparison>| Arc::ptr_eq(new, &old);
            if !wanted.get(&number).is_some_and(stays) {
                let ended = self.out_of_turn(number, Vnode::end_shadow).await;
                // Where there is no vnode any more there is no shadow.
                if ended.is_ok() || self.seats.is_vacant(number) {
                    self.shadows.lock().placed.remove(&number);
                }
            }
        }
        for (number, comparison) in wanted {
            let Some(partition) = self.seats.partition_of(number) else {
                continue;
            };
            if matches!(
                comparison.standing(partition),
                Some(Standing::Runs | Standing::GivenUp(_))
            ) {
                continue;
            }
            self.shadows
                .lock()
                .placed
                .insert(number, Arc::clone(&comparison));
            let started = move |vnode: &mut Vnode| vnode.start_shadow(&comparison);
            if let Err(why) = self.out_of_turn(number, started).await {
                tracing::debug!(%partition, why, "a vnode gets its shadow later");
            }
        }
    }

    /// The seats of a service whose vnodes are to have a shadow, and which.
    fn wanted(&self, view: &View, service: &Service) -> Vec<(usize, Arc<Comparison>)> {
        let versions = view.map().versions().get(service.name());
        let rollout = versions.and_then(Versions::under_way);
        let canaries = rollout.filter(|rollout| !rollout.shadowed().is_empty());
        let mut known = self.shadows.lock();
        let watched = known.canaries.get(service.name()).map(|(id, _)| *id);
        if watched != canaries.map(|rollout| rollout.id)
            && let Some((_, old)) = known.canaries.remove(service.name())
        {
            known.bury(service.name(), &old);
        }
        let asked = known.asked.get(service.name());
        let open = asked.filter(|one| one.ended.is_none());
        // A rollout that is done is only not final yet.
        let moving = rollout.filter(|rollout| rollout.stage != Stage::Done);
        let serves = |asked: &Asked| {
            let done = rollout.map(|rollout| &rollout.to);
            let current = done.or_else(|| versions.map(Versions::current));
            current.is_none_or(|release| release.digest == **asked.running.digest())
        };
        match open {
            Some(asked) if asked.comparison.is_over() => {
                known.end(service.name(), "its time is over")
            }
            Some(_) if moving.is_some() => known.end(service.name(), "a rollout has begun"),
            Some(asked) if !serves(asked) => known.end(service.name(), "another version serves"),
            _ => {}
        }
        let (comparison, partitions, runs) = match (canaries, known.asked.get(service.name())) {
            (Some(rollout), _) => {
                let Some(old) = service.edition(&rollout.from.digest) else {
                    return Vec::new();
                };
                let fresh = || {
                    let comparison = Comparison::new(old, CANARY_PER_SECOND, None);
                    (rollout.id, Arc::new(comparison))
                };
                let canaries = &mut known.canaries;
                let watched = canaries.entry(service.name().to_owned());
                let (_, comparison) = watched.or_insert_with(fresh);
                let partitions = rollout.shadowed().to_vec();
                (
                    Arc::clone(comparison),
                    partitions,
                    rollout.to.digest.clone(),
                )
            }
            (None, Some(asked)) if asked.is_open() => (
                Arc::clone(&asked.comparison),
                asked.partitions.iter().copied().collect(),
                asked.running.digest().to_string(),
            ),
            _ => return Vec::new(),
        };
        drop(known);
        let numbers = partitions
            .into_iter()
            .map(|partition| self.seat(usize::from(service.index), partition));
        let serving = numbers.filter(|number| {
            self.seats.lock(*number).is_some_and(|seat| {
                let figures = seat.figures();
                seat.is_owned() && !figures.withheld && *figures.digest == *runs
            })
        });
        serving
            .map(|number| (number, Arc::clone(&comparison)))
            .collect()
    }

    /// Does something with a vnode between two of its commands, which wait meanwhile.
    async fn out_of_turn(
        &self,
        number: usize,
        act: impl FnOnce(&mut Vnode) + Send + 'static,
    ) -> Result<(), String> {
        let Some(this) = self.me.upgrade() else {
            return Ok(());
        };
        let held = Held::new(self, number);
        self.settled(number).await.map_err(|why| why.to_string())?;
        // A guest must not keep a control thread.
        let acted = tokio::task::spawn_blocking(move || this.seats.with(number, act));
        let acted = acted.await;
        drop(held);
        match acted {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err("the vnode was taken away".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the canaries of a rollout on this node have seen, by command.
    pub(super) fn compared_here(&self, service: &str, rollout: u64) -> BTreeMap<String, Compared> {
        let known = self.shadows.lock();
        let canaries = known.canaries.get(service);
        let Some((_, comparison)) = canaries.filter(|(id, _)| *id == rollout) else {
            return BTreeMap::new();
        };
        let seen = comparison.seen().commands.into_iter();
        seen.map(|(name, command)| (name, command.compared))
            .collect()
    }

    /// What the canaries of a rollout have seen on all nodes that are up, by command.
    pub(super) async fn compared(
        &self,
        view: &View,
        service: &str,
        rollout: &Rollout,
    ) -> BTreeMap<String, Compared> {
        let owners = rollout.shadowed().iter();
        let owners = owners.map(|partition| view.ring().owner(*partition));
        let owners: BTreeSet<&NodeName> = owners.filter(|node| view.is_up(node)).collect();
        let asked = owners.into_iter();
        let asked = asked.map(|node| self.compared_of(view, node, service, rollout.id));
        let mut all = BTreeMap::<String, Compared>::new();
        for (command, seen) in join_all(asked.collect()).await.into_iter().flatten() {
            let sum = all.entry(command).or_default();
            *sum = std::mem::take(sum).and(seen);
        }
        all
    }

    async fn compared_of(
        &self,
        view: &View,
        node: &NodeName,
        service: &str,
        rollout: u64,
    ) -> BTreeMap<String, Compared> {
        if node == view.me() {
            return self.compared_here(service, rollout);
        }
        let deadline = Instant::now() + SAY_WITHIN;
        let question = to_bytes(&Ask::Compared(service.to_owned(), rollout));
        let answer = self.cluster.ask_vnodes(node, question, deadline).await;
        let said = answer.ok().and_then(|answer| from_bytes(&answer).ok());
        said.unwrap_or_default()
    }
}

impl Asked {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.ended.is_none() && !self.comparison.is_over()
    }
}
