//! What is on its way between this node and others: how far it is, how fast, and why it waits.
//!
//! Plain state. Whoever moves rows asks here for leave, and says here what he has done; whoever wants to know is shown it. It sends
//! nothing and knows no clock: times are handed in, in milliseconds of a clock that does not jump.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vnode_ring::{NodeName, PartitionId, RingSize, TransferLimits};

use super::pace::{Pace, Rate};

/// A sender that has said nothing for that long sends no more.
const LEASE: u64 = 3_000;
/// First wait after a transfer failed, milliseconds; doubled each time.
const PAUSE_MIN: u64 = 250;
/// Longest wait after a failure, milliseconds. A try costs one small request, and a network that heals is not always seen to.
const PAUSE_MAX: u64 = 5_000;
/// Wait of one that found the receiver busy: there may be room any moment.
const BUSY_PAUSE: u64 = 100;

/// Why rows move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A partition goes to its next owner.
    Ownership,
    /// What a node held for another goes home.
    Hinted,
    /// A partition is filled again from its other replicas.
    Repair,
    /// A node divides or joins its own rows, because the ring is resized.
    Resize,
}

impl Kind {
    /// All that go from node to node.
    pub const ALL: [Kind; 3] = [Kind::Ownership, Kind::Hinted, Kind::Repair];

    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ownership => "ownership",
            Kind::Hinted => "hinted",
            Kind::Repair => "repair",
            Kind::Resize => "resize",
        }
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not begun, or was stopped.
    Waiting,
    /// All rows are sent, page by page.
    Copying,
    /// Both nodes have the rows: what changes is found by hash trees and sent after.
    Dual,
    /// Commands wait while the rest is sent and the cluster agrees on the new owner.
    Flip,
    /// What was sent is removed here, row by row as its owner has confirmed it.
    Cleanup,
}

impl Phase {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Copying => "copying",
            Phase::Dual => "dual",
            Phase::Flip => "flip",
            Phase::Cleanup => "cleanup",
        }
    }
}

/// Names a transfer on its node. Ownership and repair are about all services of a partition at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which {
    /// Why it moves.
    pub kind: Kind,
    /// What moves.
    pub partition: PartitionId,
    /// Position of the service, for hints.
    pub service: Option<u16>,
}

/// An amount of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Rows.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A transfer that this node sends, or a repair that it makes.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// From whom.
    pub from: NodeName,
    /// To whom.
    pub to: NodeName,
    /// Which try of the map's transfer it belongs to; 0 for other kinds.
    pub attempt: u64,
    /// How far it is.
    pub phase: Phase,
    /// What there is to move, as far as known.
    pub total: Amount,
    /// What has arrived.
    pub moved: Amount,
    /// Where the copy of each service goes on; none when it is done.
    pub cursors: BTreeMap<u16, Option<Vec<u8>>>,
    /// Why it waits, if it does.
    pub reason: Option<String>,
    /// Since when it is in this phase.
    pub since_ms: u64,
    /// When it is tried again, if it waits for a time.
    pub next_try_ms: Option<u64>,
    /// How much is done, where that is not told by what has arrived.
    share: Option<f64>,
    /// Whether it counts as being sent.
    sending: bool,
    failures: u32,
    rate: Rate,
}

impl Transfer {
    fn new(from: NodeName, to: NodeName, attempt: u64, now: u64) -> Transfer {
        Transfer {
            from,
            to,
            attempt,
            phase: Phase::Waiting,
            total: Amount::default(),
            moved: Amount::default(),
            cursors: BTreeMap::new(),
            reason: None,
            since_ms: now,
            next_try_ms: None,
            share: None,
            sending: false,
            failures: 0,
            rate: Rate::default(),
        }
    }

    /// How much of it is done, from 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "a share is an estimate")]
    pub fn done_ratio(&self) -> f64 {
        if let Some(share) = self.share {
            return share;
        }
        match self.phase {
            Phase::Dual | Phase::Flip | Phase::Cleanup => 1.0,
            Phase::Waiting | Phase::Copying if self.total.objects == 0 => 0.0,
            Phase::Waiting | Phase::Copying => {
                (self.moved.objects as f64 / self.total.objects as f64).min(1.0)
            }
        }
    }

    /// Bytes a second of late.
    pub fn rate(&self, now: u64) -> f64 {
        self.rate.at(now)
    }

    /// Seconds until its rows are there, at the present rate.
    #[allow(clippy::cast_precision_loss, reason = "a guess")]
    pub fn eta(&self, now: u64) -> Option<f64> {
        let left = self.total.bytes.saturating_sub(self.moved.bytes);
        let rate = self.rate(now);
        (self.phase == Phase::Copying && rate >= 1.0).then(|| left as f64 / rate)
    }

    /// Whether rows move.
    pub fn is_running(&self) -> bool {
        self.phase != Phase::Waiting
    }

    fn enter(&mut self, phase: Phase, now: u64) -> bool {
        let changed = self.phase != phase;
        if changed {
            self.phase = phase;
            self.since_ms = now;
        }
        self.reason = None;
        self.next_try_ms = None;
        changed
    }
}

/// What another node sends here.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What there is to move.
    pub total: Amount,
    /// What has been sent.
    pub moved: Amount,
    /// Its first word of it.
    pub since_ms: u64,
    until_ms: u64,
    rate: Rate,
}

impl Incoming {
    /// Bytes a second of late.
    pub fn rate(&self, now: u64) -> f64 {
        self.rate.at(now)
    }
}

/// What holds for a node after all have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers that it sends at once.
    pub out_max: u16,
    /// Transfers that it receives at once.
    pub in_max: u16,
    /// Bytes that it sends in a second; 0 is as many as it can.
    pub bytes_per_second: u64,
}

/// All transfers that a node has to do with.
#[derive(Debug)]
pub struct Transfers {
    settings: Limits,
    own: TransferLimits,
    cluster: TransferLimits,
    all: BTreeMap<Which, Transfer>,
    incoming: BTreeMap<(NodeName, Which), Incoming>,
    pace: Pace,
    totals: BTreeMap<Kind, Totals>,
}

/// What has been sent since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows and bytes.
    pub sent: Amount,
    /// Transfers that came to their end.
    pub finished: u64,
    /// Tries that failed.
    pub failed: u64,
}

impl Transfers {
    /// None yet, under these limits.
    pub fn new(settings: Limits) -> Transfers {
        Transfers {
            settings,
            own: TransferLimits::default(),
            cluster: TransferLimits::default(),
            all: BTreeMap::new(),
            incoming: BTreeMap::new(),
            pace: Pace::default(),
            totals: BTreeMap::new(),
        }
    }

    /// What holds now.
    pub fn limits(&self) -> Limits {
        let said = self.own.or(self.cluster);
        Limits {
            out_max: said.out_max.unwrap_or(self.settings.out_max),
            in_max: said.in_max.unwrap_or(self.settings.in_max),
            bytes_per_second: said
                .bytes_per_second
                .unwrap_or(self.settings.bytes_per_second),
        }
    }

    /// Who has paused transfers, if somebody has.
    pub fn paused(&self) -> Option<&'static str> {
        match (self.own.paused, self.cluster.paused) {
            (_, true) => Some("transfers are paused in the whole cluster; `host transfers resume`"),
            (true, _) => Some("transfers are paused on this node; `host transfers resume --here`"),
            _ => None,
        }
    }

    /// What this node's operator has said.
    pub fn own_limits(&self) -> TransferLimits {
        self.own
    }

    /// This node's operator says something else.
    pub fn set_own_limits(&mut self, limits: TransferLimits) {
        self.own = limits;
    }

    /// The cluster's operator says something else.
    pub fn set_cluster_limits(&mut self, limits: TransferLimits) {
        self.cluster = limits;
    }

    /// Every transfer that was tried and is not over.
    pub fn all(&self) -> &BTreeMap<Which, Transfer> {
        &self.all
    }

    /// What others send here.
    pub fn incoming(&self, now: u64) -> impl Iterator<Item = (&NodeName, Which, &Incoming)> {
        let live = self
            .incoming
            .iter()
            .filter(move |(_, incoming)| incoming.until_ms > now);
        live.map(|((from, which), incoming)| (from, *which, incoming))
    }

    /// What was sent of each kind.
    pub fn totals(&self, kind: Kind) -> Totals {
        self.totals.get(&kind).copied().unwrap_or_default()
    }

    /// How many of a kind run, and how many wait.
    pub fn count(&self, kind: Kind) -> (u64, u64) {
        let of_kind = self.all.iter().filter(|(which, _)| which.kind == kind);
        of_kind.fold((0, 0), |(run, wait), (_, one)| match one.is_running() {
            true => (run + 1, wait),
            false => (run, wait + 1),
        })
    }

    /// Milliseconds since which the one waits that waits longest; 0 if none does.
    pub fn oldest_wait(&self, now: u64) -> u64 {
        let waiting = self.all.values().filter(|one| !one.is_running());
        let oldest = waiting.map(|one| one.since_ms).min();
        oldest.map_or(0, |since| now.saturating_sub(since))
    }

    /// Whether it may be tried now: it does not run, and the time for its next try has come.
    pub fn is_due(&self, which: Which, now: u64) -> bool {
        self.all.get(&which).is_none_or(|transfer| {
            !transfer.sending && transfer.next_try_ms.is_none_or(|next| next <= now)
        })
    }

    /// Takes a place among those that send at once, unless it has one, or says why there is none.
    ///
    /// # Errors
    /// The reason, with which the transfer waits from now on.
    pub fn begin(
        &mut self,
        which: Which,
        (from, to): (&NodeName, &NodeName),
        attempt: u64,
        total: Amount,
        now: u64,
    ) -> Result<(), String> {
        let others = self.all.iter().filter(|(other, _)| **other != which);
        let sending = others.filter(|(_, transfer)| transfer.sending).count();
        let max = usize::from(self.limits().out_max);
        let why = match self.paused() {
            Some(why) => Some(why.to_owned()),
            None if sending >= max => Some(format!("this node sends {sending} of {max} at once")),
            None => None,
        };
        let transfer = self
            .all
            .entry(which)
            .or_insert_with(|| Transfer::new(from.clone(), to.clone(), attempt, now));
        transfer.from = from.clone();
        if transfer.to != *to || transfer.attempt != attempt {
            // What was sent to somebody else does not count.
            *transfer = Transfer::new(from.clone(), to.clone(), attempt, now);
        }
        transfer.total = total;
        if let Some(why) = why {
            transfer.enter(Phase::Waiting, now);
            transfer.reason = Some(why.clone());
            return Err(why);
        }
        transfer.sending = true;
        Ok(())
    }

    /// It gets further. True when that is news.
    pub fn enter(&mut self, which: Which, phase: Phase, now: u64) -> bool {
        let transfer = self.all.get_mut(&which);
        transfer.is_some_and(|transfer| transfer.enter(phase, now))
    }

    /// So many of its steps are done.
    #[allow(clippy::cast_precision_loss, reason = "a share is an estimate")]
    pub fn share(&mut self, which: Which, done: usize, of: usize) {
        if let Some(transfer) = self.all.get_mut(&which) {
            transfer.share = Some(done as f64 / of.max(1) as f64);
        }
    }

    /// Why it does not go on by itself.
    pub fn explain(&mut self, which: Which, why: &str) {
        if let Some(transfer) = self.all.get_mut(&which) {
            transfer.reason = Some(why.to_owned());
        }
    }

    /// So much has arrived, up to this place. Returns how long to wait before more is sent.
    pub fn moved(
        &mut self,
        which: Which,
        amount: Amount,
        cursor: Option<(u16, Option<Vec<u8>>)>,
        now: u64,
    ) -> Duration {
        let per_second = self.limits().bytes_per_second;
        let totals = self.totals.entry(which.kind).or_default();
        add(&mut totals.sent, amount);
        if let Some(transfer) = self.all.get_mut(&which) {
            add(&mut transfer.moved, amount);
            transfer.rate.add(amount.bytes, now);
            transfer.cursors.extend(cursor);
        }
        Duration::from_millis(self.pace.take(amount.bytes, per_second, now))
    }

    /// Where the copy of a service begins, or goes on; none when there is nothing left to copy.
    pub fn cursor(&self, which: Which, service: u16) -> Option<Vec<u8>> {
        let transfer = self.all.get(&which)?;
        let cursor = transfer.cursors.get(&service);
        cursor.cloned().unwrap_or_else(|| Some(Vec::new()))
    }

    /// It sends no more for now. Its place is free.
    pub fn rest(&mut self, which: Which) {
        if let Some(transfer) = self.all.get_mut(&which) {
            transfer.sending = false;
        }
    }

    /// It waits because somebody has no room for it, and is tried again soon.
    pub fn hold(&mut self, which: Which, why: String, now: u64) {
        if let Some(transfer) = self.all.get_mut(&which) {
            transfer.enter(Phase::Waiting, now);
            transfer.reason = Some(why);
            transfer.next_try_ms = Some(now + BUSY_PAUSE);
        }
    }

    /// It failed, and is tried again after a while that gets longer each time.
    pub fn fail(&mut self, which: Which, why: String, now: u64) {
        self.totals.entry(which.kind).or_default().failed += 1;
        if let Some(transfer) = self.all.get_mut(&which) {
            transfer.enter(Phase::Waiting, now);
            transfer.reason = Some(why);
            let pause = PAUSE_MIN << transfer.failures.min(16);
            transfer.next_try_ms = Some(now + pause.min(PAUSE_MAX));
            transfer.failures += 1;
        }
    }

    /// Nothing that failed has to wait any longer: the cluster looks different.
    pub fn hurry(&mut self) {
        for transfer in self.all.values_mut() {
            transfer.next_try_ms = None;
        }
    }

    /// It has come to its end.
    pub fn finish(&mut self, which: Which) -> Option<Transfer> {
        let over = self.all.remove(&which)?;
        self.totals.entry(which.kind).or_default().finished += 1;
        Some(over)
    }

    /// Forgets all transfers of partitions of other rings.
    pub fn forget_all_but(&mut self, size: RingSize) {
        self.all.retain(|which, _| size.contains(which.partition));
        self.incoming
            .retain(|(_, which), _| size.contains(which.partition));
    }

    /// It is not to happen any more.
    pub fn forget(&mut self, which: Which) -> Option<Transfer> {
        self.all.remove(&which)
    }

    /// Another node sends, or goes on sending. Nothing of a partition comes while something of it goes: what goes is removed here, and
    /// that must not be what has just come.
    ///
    /// # Errors
    /// Why it may not.
    pub fn receive(
        &mut self,
        from: &NodeName,
        which: Which,
        (total, moved): (Amount, Amount),
        now: u64,
    ) -> Result<(), String> {
        self.incoming.retain(|_, incoming| incoming.until_ms > now);
        if let Some(why) = self.paused() {
            return Err(why.to_owned());
        }
        let mut going = self.all.iter().filter(|(_, one)| one.sending);
        if going.any(|(other, _)| other.partition == which.partition) {
            return Err("it sends rows of that partition itself".into());
        }
        let max = usize::from(self.limits().in_max);
        let name = (from.clone(), which);
        let receiving = self.incoming.len();
        if !self.incoming.contains_key(&name) && receiving >= max {
            return Err(format!("it receives {receiving} of {max} at once"));
        }
        let incoming = self.incoming.entry(name).or_insert_with(|| Incoming {
            total,
            moved,
            since_ms: now,
            until_ms: now,
            rate: Rate::default(),
        });
        let bytes = moved.bytes.saturating_sub(incoming.moved.bytes);
        incoming.rate.add(bytes, now);
        (incoming.total, incoming.moved) = (total, moved);
        incoming.until_ms = now + LEASE;
        Ok(())
    }

    /// Another node sends no more.
    pub fn received(&mut self, from: &NodeName, which: Which) {
        self.incoming.remove(&(from.clone(), which));
    }
}

fn add(sum: &mut Amount, amount: Amount) {
    sum.objects += amount.objects;
    sum.bytes += amount.bytes;
}

#[cfg(test)]
mod tests;
