//! A node in memory for one guest: a vnode for each partition, and rows that outlive the instances on them.
//!
//! Everything that a node leaves to chance is fixed here: the actor, the clock and the names of commands. So two rigs
//! that play the same steps have the same bytes, unless the guest sees to something else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{HashId, ObjectRef, PartitionId, RingSize, Role};

use super::rows::{Rows, Stored};
use super::script::Step;
use crate::config::{Demands, Replication};
use crate::descriptor::{CommandKind, CommandSpec};
use crate::store::{Batch, Engine, Liveness, RowKey, Store};
use crate::vnode::request::{Consistency, Replies, ReplyTo, Request, Work};
use crate::vnode::service::{CommandStats, Service};
use crate::vnode::words::Words;
use crate::vnode::{Call, Ran, Vnode, seed};
use crate::wasm::{self, Guest, Placement, Scope, TypedCommand, VnodeState};

/// Partitions of the ring.
const RING: u32 = 8;
/// The clock of the first step, milliseconds.
const START_MS: u64 = 1_700_000_000_000;
/// Pages of one command on one vnode; no script has so many rows.
const PAGES_MAX: usize = 4096;
/// A busy machine must not look like a slow guest.
const PATIENCE: u32 = 10;

/// How a rig differs from another.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Name under which every vnode writes.
    pub(super) actor: u64,
    /// Name of the node.
    pub(super) node: &'static str,
    /// Whether the packed door stays shut.
    pub(super) typed: bool,
    /// Whether every step finds a fresh instance.
    pub(super) restarts: bool,
    /// Where the numbers of writes start. Guests see them in causal contexts and nowhere else.
    pub(super) writes_from: u64,
}

impl Plan {
    /// The usual node.
    pub(super) const USUAL: Plan = Plan {
        actor: 11,
        node: "a@conformance",
        typed: false,
        restarts: false,
        writes_from: 0,
    };
}

/// What a step led to.
pub(super) struct Heard {
    /// The reply: one RESP3 value, or for coverage the items of all pages.
    pub(super) reply: Vec<u8>,
    /// What no guest should do, if it did.
    pub(super) trouble: Option<String>,
}

/// Values under a key, latest first, by partition and key.
pub(super) type Values = BTreeMap<(PartitionId, Vec<u8>), Vec<Vec<u8>>>;

/// The node.
pub(super) struct Rig {
    service: Arc<Service>,
    size: RingSize,
    plan: Plan,
    engine: Engine,
    seats: BTreeMap<PartitionId, Seat>,
    stats: Vec<CommandStats>,
    budget: Duration,
}

struct Seat {
    rows: Rows,
    vnode: Vnode,
}

impl Rig {
    /// A node without rows.
    pub(super) fn new(guest: &Arc<Guest>, plan: Plan) -> Result<Rig, String> {
        let placement = Placement {
            service: guest.descriptor().name.as_str().into(),
            hash: HashId::V1,
            n: 1,
        };
        let service = Service::new(
            0,
            Arc::clone(guest),
            placement,
            Replication {
                n: 1,
                r: 1,
                w: 1,
                demands: Demands::default(),
            },
            Duration::MAX,
            0,
        );
        let commands = guest.descriptor().commands.len();
        if plan.typed {
            (0..commands).for_each(|command| service.first().set_typed(number(command)));
        }
        let mut rig = Rig {
            service: Arc::new(service),
            size: RingSize::new(RING).map_err(|error| error.to_string())?,
            plan,
            engine: Engine::memory(),
            seats: BTreeMap::new(),
            stats: std::iter::repeat_with(CommandStats::default)
                .take(commands)
                .collect(),
            budget: guest.limits().command_budget * PATIENCE,
        };
        for partition in rig.size.partitions() {
            let store = rig
                .engine
                .open(rig.service.name(), partition.id())
                .map_err(text)?;
            let rows = Rows::new(store, plan.actor + u64::from(partition.id()));
            let vnode = rig.start(partition, rows.clone())?;
            rig.seats.insert(partition, Seat { rows, vnode });
        }
        Ok(rig)
    }

    /// Another node with the same rows, as after a handoff.
    pub(super) fn handed_over(&self, plan: Plan) -> Result<Rig, String> {
        let mut rig = Rig::new(&self.service.first().guest, plan)?;
        for (partition, seat) in &mut rig.seats {
            let Some(from) = self.seats.get(partition) else {
                continue;
            };
            let mut batch = Batch::default();
            for ((hash, key), object) in from.rows.all() {
                let live = Liveness {
                    before: false,
                    after: ObjectRef::parse(&object).map_err(text)?.is_live(),
                };
                batch
                    .put(RowKey { hash, key: &key }, &object, live)
                    .map_err(text)?;
            }
            seat.rows.apply(&batch).map_err(text)?;
        }
        Ok(rig)
    }

    /// Runs one step.
    pub(super) fn play(&mut self, step: &Step) -> Heard {
        let heard = self.play_together(std::slice::from_ref(step));
        heard.into_iter().next().unwrap_or_else(|| Heard {
            reply: Vec::new(),
            trouble: Some("it was not answered".into()),
        })
    }

    /// Runs steps that wait together, so that the packed door gets several at once.
    pub(super) fn play_together(&mut self, steps: &[Step]) -> Vec<Heard> {
        let mut heard: Vec<Option<Heard>> = steps.iter().map(|_| None).collect();
        let mut waiting: BTreeMap<PartitionId, VecDeque<Request>> = BTreeMap::new();
        for (nth, step) in steps.iter().enumerate() {
            let Some(spec) = self.service.first().command(step.command).cloned() else {
                continue;
            };
            if matches!(
                spec.kind,
                CommandKind::Coverage | CommandKind::CoverageWrite
            ) {
                self.drain(&mut waiting, &mut heard);
                let covered = self.cover(&spec, step);
                put(&mut heard, nth, covered);
            } else {
                let request = self.request(&spec, step, nth);
                waiting
                    .entry(request.partition)
                    .or_default()
                    .push_back(request);
            }
        }
        self.drain(&mut waiting, &mut heard);
        let missing = || Heard {
            reply: Vec::new(),
            trouble: Some("it was not answered".into()),
        };
        heard
            .into_iter()
            .map(|heard| heard.unwrap_or_else(missing))
            .collect()
    }

    /// Every value of every key.
    pub(super) fn values(&self) -> Result<Values, String> {
        let mut values = Values::new();
        for (partition, seat) in &self.seats {
            for ((_, key), object) in seat.rows.all() {
                let object = ObjectRef::parse(&object).map_err(text)?.to_object();
                let live: Vec<Vec<u8>> = object.live().map(<[u8]>::to_vec).collect();
                if !live.is_empty() {
                    values.insert((*partition, key), live);
                }
            }
        }
        Ok(values)
    }

    /// Every row as it is stored.
    pub(super) fn bytes(&self) -> Vec<Stored> {
        self.seats
            .values()
            .flat_map(|seat| seat.rows.all())
            .collect()
    }

    /// Commands that are still answered by the packed door.
    pub(super) fn packed(&self) -> usize {
        let commands = self
            .service
            .first()
            .guest
            .descriptor()
            .commands
            .iter()
            .enumerate();
        commands
            .filter(|(_, spec)| {
                !matches!(
                    spec.kind,
                    CommandKind::Coverage | CommandKind::CoverageWrite
                )
            })
            .filter(|(position, _)| !self.service.first().is_typed(number(*position)))
            .count()
    }

    fn start(&self, partition: PartitionId, rows: Rows) -> Result<Vnode, String> {
        let guest = Arc::clone(&self.service.first().guest);
        let state = VnodeState::new(
            wasm::Values::new(guest, Arc::clone(&self.service.schemas)),
            self.service.placement.clone(),
            (self.size, partition),
            self.plan.node.into(),
            Box::new(rows),
        );
        let edition = Arc::clone(self.service.first());
        let mut vnode = Vnode::start(Arc::clone(&self.service), edition, state.map_err(text)?);
        match vnode.figures().down {
            None => Ok(vnode),
            Some(why) => Err(format!("a vnode does not start: {why}")),
        }
    }

    fn request(&self, spec: &CommandSpec, step: &Step, nth: usize) -> Request {
        let words =
            std::iter::once(spec.name.as_bytes()).chain(step.args.iter().map(Vec::as_slice));
        let words = Words::copy(words);
        let placement = &self.service.placement;
        let key = spec
            .key_positions(words.len())
            .next()
            .map(|position| words.get(position));
        let (hash, partition) = match (key, &spec.keys) {
            (Some(key), Some(keys)) => {
                let routed = [keys.prefix.as_bytes(), key].concat();
                (
                    placement.hash_of(key),
                    self.size.range_of(placement.hash_of(&routed)),
                )
            }
            _ => (0, self.size.at(0)),
        };
        Request {
            service: 0,
            command: step.command,
            partition,
            range: partition,
            hash,
            words,
            now_ms: START_MS + step.number,
            id: step.number,
            role: Role::Primary,
            work: Work::Command,
            consistency: Consistency::single(Duration::from_secs(1)),
            trace: None,
            tries: 0,
            alone: false,
            arrived: Instant::now(),
            reply_to: ReplyTo::Connection {
                executor: 0,
                connection: 0,
                seq: u32::try_from(nth).unwrap_or(u32::MAX),
            },
        }
    }

    fn drain(
        &mut self,
        waiting: &mut BTreeMap<PartitionId, VecDeque<Request>>,
        heard: &mut [Option<Heard>],
    ) {
        for (partition, mut mailbox) in std::mem::take(waiting) {
            if self.plan.restarts
                && let Err(why) = self.restart(partition)
            {
                for request in mailbox {
                    answer(heard, &request.reply_to, Vec::new(), Some(why.clone()));
                }
                continue;
            }
            self.number_writes(partition, mailbox.front().map_or(0, |first| first.id));
            let Some(seat) = self.seats.get_mut(&partition) else {
                continue;
            };
            let mut replies = Replies::default();
            let mut call = Call::default();
            while !mailbox.is_empty() {
                let traps = seat.vnode.figures().traps;
                let left = match seat.vnode.run(
                    &mut call,
                    &mut mailbox,
                    &mut replies,
                    &self.stats,
                    self.budget,
                ) {
                    Ran::All => Vec::new(),
                    Ran::Left(left) | Ran::Overran(left) => left,
                };
                let failed = (seat.vnode.figures().traps > traps).then(|| {
                    "the guest trapped or broke the contract of the packed door".to_owned()
                });
                collect(&mut replies, heard, None);
                for request in left {
                    seat.vnode
                        .run_one(request, &mut replies, &self.stats, self.budget);
                    collect(&mut replies, heard, failed.as_ref());
                }
            }
        }
    }

    /// Runs a coverage command on every vnode, page by page.
    fn cover(&mut self, spec: &CommandSpec, step: &Step) -> Heard {
        let mut reply = Vec::new();
        let partitions: Vec<PartitionId> = self.seats.keys().copied().collect();
        for range in partitions {
            if self.plan.restarts
                && let Err(why) = self.restart(range)
            {
                return Heard {
                    reply,
                    trouble: Some(why),
                };
            }
            self.number_writes(range, step.number);
            let Some(seat) = self.seats.get_mut(&range) else {
                continue;
            };
            let command = TypedCommand {
                name: spec.name.clone(),
                args: step.args.clone(),
                request_id: step.number,
                fallback: false,
                scope: Scope {
                    range,
                    writes: spec.writes(),
                    now_ms: START_MS + step.number,
                    seed: seed(step.number),
                },
            };
            let mut cursor: Option<Vec<u8>> = None;
            for page in 0.. {
                match seat
                    .vnode
                    .cover(&command, cursor.as_deref(), &mut Replies::default())
                {
                    Ok((covered, ..)) => {
                        reply.extend_from_slice(&covered.items);
                        if covered.next.is_none() {
                            break;
                        }
                        if page > PAGES_MAX || covered.next == cursor {
                            let trouble = Some("its pages do not come to an end".into());
                            return Heard { reply, trouble };
                        }
                        cursor = covered.next;
                    }
                    Err(failure) => {
                        let mut reply = Vec::new();
                        failure.write(&mut reply);
                        let trouble = trouble(&reply);
                        return Heard { reply, trouble };
                    }
                }
            }
        }
        Heard {
            reply,
            trouble: None,
        }
    }

    /// Gives the writes of a step numbers that do not hang on how many there were before.
    fn number_writes(&mut self, partition: PartitionId, step: u64) {
        if let Some(seat) = self.seats.get(&partition) {
            seat.rows.number_from(self.plan.writes_from + (step << 20));
        }
    }

    fn restart(&mut self, partition: PartitionId) -> Result<(), String> {
        let Some(rows) = self.seats.get(&partition).map(|seat| seat.rows.clone()) else {
            return Ok(());
        };
        let vnode = self.start(partition, rows)?;
        if let Some(seat) = self.seats.get_mut(&partition) {
            seat.vnode = vnode;
        }
        Ok(())
    }
}

/// Puts replies where their steps stand.
fn collect(replies: &mut Replies, heard: &mut [Option<Heard>], failed: Option<&String>) {
    replies.drain(|reply, bytes| {
        let trouble = trouble(bytes).or_else(|| failed.cloned());
        answer(heard, &reply.to, bytes.to_vec(), trouble);
    });
}

fn answer(heard: &mut [Option<Heard>], to: &ReplyTo, reply: Vec<u8>, trouble: Option<String>) {
    if let ReplyTo::Connection { seq, .. } = to {
        put(heard, *seq as usize, Heard { reply, trouble });
    }
}

fn put(heard: &mut [Option<Heard>], nth: usize, new: Heard) {
    if let Some(place) = heard.get_mut(nth) {
        *place = Some(new);
    }
}

/// What a reply says that no command should lead to.
fn trouble(reply: &[u8]) -> Option<String> {
    let bad = [&b"-GUESTTRAP "[..], b"-TIMEOUT ", b"-ERR vnode "];
    bad.iter().any(|start| reply.starts_with(start)).then(|| {
        let line = reply.strip_prefix(b"-").unwrap_or(reply);
        String::from_utf8_lossy(line).trim_end().to_owned()
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The position of a command; a descriptor has far fewer than this holds.
pub(super) fn number(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
