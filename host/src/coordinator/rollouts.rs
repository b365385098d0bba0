//! Driving rollouts: the claimant lets a rollout go on when all nodes have done what a stage asks and the gate is open, and sends
//! it back when it is shut.
//!
//! Where a rollout stands is in the cluster map; how long a stage has been watched, and what was seen, only here. So whoever becomes
//! the claimant goes on where the one before was, and watches the stage anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vnode_ring::rollout::gate::{Sample, Verdict, judge};
use vnode_ring::rollout::shadow::{Compared, Tally, breach, slower};
use vnode_ring::{MapEvent, MemberStatus, NodeName, Rollout, RolloutEvent, Stage, Versions, View};

use super::asks::{Ask, from_bytes, to_bytes};
use super::{Coordinator, join_all};
use crate::vnode::edition::Edition;
use crate::vnode::service::Service;
use vnode_cluster::failpoint;

/// How often a rollout is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time of a node to say what its versions have done. Whoever does not is left out.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// What the driver of a rollout thinks of its present stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Gate {
    /// `waiting`, `watching`, `too little traffic` or `good`.
    pub state: String,
    /// More of that, for people.
    pub text: String,
    /// The nodes that are waited for.
    pub waits_for: Vec<String>,
    /// How long the stage has been watched, milliseconds.
    pub watched_ms: u64,
    /// What the new version has done meanwhile.
    pub new: Sample,
    /// What the old one has done.
    pub old: Sample,
    /// What the old one, beside the new one on the canaries, has done otherwise since the rollout began.
    pub compared: Tally,
}

/// A stage that is being watched.
struct Watch {
    of: (u64, Stage),
    since: Instant,
    /// What the new version and the old one had done before.
    before: [Sample; 2],
}

/// Drives all rollouts for as long as this node is the claimant; until the node ends.
pub async fn drive(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut watched: BTreeMap<String, Watch> = BTreeMap::new();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let leads = view.claimant() == Some(view.me());
        if !leads {
            watched.clear();
            coordinator.gates().clear();
        }
        for (service, versions) in view.map().versions() {
            if let Some(rollout) = versions.under_way().filter(|_| leads) {
                let watch = watched.remove(service);
                let watch = coordinator.drive_one(&view, service, rollout, watch).await;
                watched.extend(watch.map(|watch| (service.clone(), watch)));
            }
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
    }
}

impl Coordinator {
    /// Looks at one rollout. Returns what is watched from now on.
    async fn drive_one(
        &self,
        view: &View,
        service: &str,
        rollout: &Rollout,
        watch: Option<Watch>,
    ) -> Option<Watch> {
        let (waits_for, unreachable) = nodes(view, service, rollout);
        if let Some(why) = &rollout.paused {
            self.think(service, "paused", why.clone());
            return None;
        }
        if !waits_for.is_empty() {
            let gate = Gate {
                state: "waiting".into(),
                text: format!("for {}", waits_for.join(", ")),
                waits_for,
                ..Gate::default()
            };
            self.gates().insert(service.to_owned(), gate);
            return None;
        }
        let advance = RolloutEvent::Advanced {
            id: rollout.id,
            step: rollout.step,
            unreachable,
        };
        match rollout.stage {
            Stage::Distributing => {
                failpoint("rollout-distributed");
                self.tell(service, advance).await;
                None
            }
            Stage::Done => {
                self.think(service, "good", "everything runs the new version".into());
                None
            }
            _ => self.watch(view, service, rollout, (watch, advance)).await,
        }
    }

    /// Watches a stage of which all nodes have done their part.
    async fn watch(
        &self,
        view: &View,
        service: &str,
        rollout: &Rollout,
        (watch, advance): (Option<Watch>, RolloutEvent),
    ) -> Option<Watch> {
        let of = (rollout.id, rollout.stage);
        let now = self.samples(view, service, rollout).await;
        let watch = watch.filter(|watch| watch.of == of).unwrap_or(Watch {
            of,
            since: Instant::now(),
            before: now,
        });
        let [new, old] = now;
        let [new_before, old_before] = &watch.before;
        let new = new.since(new_before);
        let since = old.since(old_before);
        // When nothing runs the old version any more, it is what that did before which the new one is held against.
        let old = match since.commands {
            0 => old.without_durations(),
            _ => since,
        };
        let watched = watch.since.elapsed();
        let soak = Duration::from_millis(rollout.terms.soak_ms);
        let compared = self.compared(view, service, rollout).await;
        let all = compared
            .values()
            .fold(Tally::default(), |all, one: &Compared| all.and(&one.tally));
        let gate = |state: &str, text: String| Gate {
            state: state.into(),
            text,
            waits_for: Vec::new(),
            watched_ms: u64::try_from(watched.as_millis()).unwrap_or(u64::MAX),
            new,
            old,
            compared: all,
        };
        let threshold = self.limits.divergence_per_mille;
        let wrong = breach(&compared, &rollout.terms.expected, threshold);
        let verdict = match wrong.or_else(|| slower(&compared, self.limits.time_percent)) {
            Some(why) => Verdict::Breach(why),
            None => judge(&new, &old, &self.limits.gate),
        };
        let (shown, over) = match verdict {
            Verdict::Breach(why) => {
                self.gates()
                    .insert(service.to_owned(), gate("breach", why.clone()));
                let id = rollout.id;
                let why = format!("{}: {why}", rollout.stage);
                self.tell(service, RolloutEvent::RolledBack { id, why })
                    .await;
                return None;
            }
            Verdict::Good => (
                gate("watching", "nothing is wrong so far".into()),
                watched >= soak,
            ),
            Verdict::TooLittle { commands, wanted } if watched >= soak => {
                let text = format!("{commands} of {wanted} commands that a judgement needs");
                // An idle service has nobody to be spared.
                (gate("too little traffic", text), watched >= soak * 2)
            }
            Verdict::TooLittle { .. } => {
                (gate("watching", "nothing is wrong so far".into()), false)
            }
        };
        if over {
            let text = format!(
                "{service} {}: {} is over ({}, {} commands)",
                rollout.to.version, rollout.stage, shown.state, new.commands
            );
            let epoch = view.map().epoch();
            self.cluster.feed().add("rollout", None, epoch, text);
        }
        self.gates().insert(service.to_owned(), shown);
        if over {
            failpoint("rollout-advances");
            self.tell(service, advance).await;
            failpoint("rollout-advanced");
            return None;
        }
        Some(watch)
    }

    async fn tell(&self, service: &str, event: RolloutEvent) {
        let event = MapEvent::Rollout {
            service: service.to_owned(),
            event,
        };
        if let Err(error) = self.cluster.propose(event).await {
            tracing::debug!(%error, service, "a rollout does not go on yet");
        }
    }

    fn gates(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn think(&self, service: &str, state: &str, text: String) {
        let gate = Gate {
            state: state.into(),
            text,
            ..Gate::default()
        };
        self.gates().insert(service.to_owned(), gate);
    }

    pub(super) fn gate_here(&self, service: &str) -> Option<Gate> {
        self.gates().get(service).cloned()
    }

    /// What the claimant thinks of the rollout of a service, if it can be asked.
    pub async fn gate(&self, service: &str) -> Option<Gate> {
        let view = self.view();
        let claimant = view.claimant()?;
        if claimant == view.me() {
            return self.gate_here(service);
        }
        let deadline = Instant::now() + SAY_WITHIN;
        let question = to_bytes(&Ask::Gate(service.to_owned()));
        let answer = self.cluster.ask_vnodes(claimant, question, deadline).await;
        from_bytes(&answer.ok()?).ok()?
    }

    /// What the new version and the old one of a rollout have done on all nodes that are up.
    async fn samples(&self, view: &View, service: &str, rollout: &Rollout) -> [Sample; 2] {
        let digests = [rollout.to.digest.clone(), rollout.from.digest.clone()];
        let members = view.map().members().keys();
        let up = members.filter(|node| view.is_up(node));
        let asked = up.map(|node| self.samples_of(view, node, service, &digests));
        let said = join_all(asked.collect()).await;
        let mut all = [Sample::default(); 2];
        for samples in said.into_iter().flatten() {
            for (all, sample) in all.iter_mut().zip(samples) {
                *all = all.and(&sample);
            }
        }
        all
    }

    async fn samples_of(
        &self,
        view: &View,
        node: &NodeName,
        service: &str,
        digests: &[String; 2],
    ) -> Option<[Sample; 2]> {
        if node == view.me() {
            return Some(self.samples_here(service, digests));
        }
        let deadline = Instant::now() + SAY_WITHIN;
        let question = to_bytes(&Ask::Samples(service.to_owned(), digests.clone()));
        let answer = self.cluster.ask_vnodes(node, question, deadline).await;
        from_bytes(&answer.ok()?).ok()
    }

    /// What two versions of a service have done on this node.
    pub(super) fn samples_here(&self, service: &str, digests: &[String; 2]) -> [Sample; 2] {
        let mut samples = [Sample::default(); 2];
        let Some(service) = self.service(service) else {
            return samples;
        };
        for (sample, digest) in samples.iter_mut().zip(digests) {
            if let Some(edition) = service.edition(digest) {
                *sample = edition.counters().sample();
                sample.memory_percent = self.memory_percent(service, &edition);
            }
        }
        samples
    }
}

impl Coordinator {
    /// Linear memory of the largest instance of a version on this node, percent of what one may have.
    fn memory_percent(&self, service: &Service, edition: &Edition) -> u64 {
        let partitions = self.ring_size().partitions();
        let seats = partitions.map(|partition| self.seat(usize::from(service.index), partition));
        let bytes = seats.filter_map(|number| {
            let seat = self.seats.lock(number)?;
            let figures = seat.figures();
            (figures.digest == *edition.digest()).then_some(figures.memory_bytes)
        });
        let most = edition.guest.limits().memory_bytes_max.max(1) as u64;
        bytes.max().unwrap_or_default() as u64 * 100 / most
    }
}

/// Those who have not done yet what the present step asks, and those who serve and cannot be reached.
pub fn nodes(view: &View, service: &str, rollout: &Rollout) -> (Vec<String>, BTreeSet<NodeName>) {
    let (mut waits_for, mut unreachable) = (Vec::new(), BTreeSet::new());
    for (node, member) in view.map().members() {
        let counts = matches!(member.status, MemberStatus::Valid | MemberStatus::Leaving);
        if !counts || !member.card.guests.contains_key(service) {
            continue;
        }
        if !view.is_up(node) {
            unreachable.insert(node.clone());
        } else if !rollout.has_reported(node) {
            waits_for.push(node.to_string());
        }
    }
    (waits_for, unreachable)
}

/// What has happened to rollouts between two maps, for those who watch.
pub fn news(old: &BTreeMap<String, Versions>, new: &BTreeMap<String, Versions>) -> Vec<String> {
    let mut news = Vec::new();
    for (service, versions) in new {
        let was = old.get(service).and_then(Versions::rollout);
        let Some(is) = versions.rollout() else {
            continue;
        };
        let was = was.filter(|was| was.id == is.id);
        let (to, from) = (&is.to.version, &is.from.version);
        if was.map(|was| was.stage) != Some(is.stage) {
            let why = is.why.as_ref().map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            let (moved, all) = (is.moved().len(), is.order().partitions.len());
            news.push(format!(
                "{service} {from} -> {to}: {}, {moved} of {all} partitions{why}",
                is.stage
            ));
        }
        if let Some(why) = is
            .paused
            .as_ref()
            .filter(|_| was.is_some_and(|was| was.paused.is_none()))
        {
            news.push(format!("{service} {from} -> {to}: paused: {why}"));
        }
    }
    news
}
