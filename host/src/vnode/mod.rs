//! Local vnodes: one partition of one service each, with one guest instance, run serially.
//!
//! - [`service`] is what all vnodes of a guest share.
//! - [`request`] is one command on its way, and its reply.
//! - this file runs the commands of one vnode, in batches where the guest has the packed door. Which thread it is on is
//!   the business of `executor`.
//!
//! **Invariants.** A vnode is in one place at a time, so its commands are serial. Nothing of a command is visible before
//! its batch is applied. After a trap or a deadline the instance is dropped, its state stays, and commands that shared
//! the call are run again one by one: none of them had been applied.

pub mod request;
pub mod service;
mod touched;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vnode_ring::PartitionId;

use self::request::{Failure, Replies, Request};
use self::service::{CommandStats, Ended, Service};
use self::touched::Touched;
use crate::resp::wire;
use crate::store::Commit;
use crate::wasm::{
    Answer, Answers, CoveragePage, Done, FrameHead, FrameWriter, GuestError, Instance, Scope,
    TypedCommand, VnodeState,
};

/// Commands of one call through the packed door.
const BATCH_COMMANDS_MAX: usize = 128;
/// Bytes of arguments of one call through the packed door; a single command may have more.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// After a start that failed, commands are refused for so long before the next try.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Where the guest of a vnode stands.
enum Guest {
    /// It runs.
    Running(Box<Instance>),
    /// It did not start; the next command after a pause tries again.
    Down {
        state: Option<Box<VnodeState>>,
        why: String,
        since: Instant,
    },
}

/// A partition of a service.
pub struct Vnode {
    service: Arc<Service>,
    partition: PartitionId,
    guest: Guest,
    frames: FrameWriter,
    batch: Vec<Request>,
    /// Keys that the batch reads and writes, by hash.
    touched: Touched,
    verdicts: Vec<Option<Failure>>,
    /// Times that the guest trapped, ran out of time or broke the contract.
    pub traps: u64,
    /// Times that its instance was made again.
    pub restarts: u64,
}

/// What a run left undone.
pub enum Ran {
    /// Nothing; more may wait in the mailbox.
    All,
    /// The guest trapped or ran out of time on these. None was applied; each has to run alone, where it may take long.
    Left(Vec<Request>),
}

impl Vnode {
    /// A vnode around its rows. Its guest starts now; when it does not, commands are refused with the reason.
    pub fn start(service: Arc<Service>, partition: PartitionId, state: VnodeState) -> Vnode {
        let mut vnode = Vnode {
            service,
            partition,
            guest: Guest::Down {
                state: None,
                why: String::new(),
                since: Instant::now(),
            },
            frames: FrameWriter::default(),
            batch: Vec::new(),
            touched: Touched::default(),
            verdicts: Vec::new(),
            traps: 0,
            restarts: 0,
        };
        vnode.start_guest(Box::new(state));
        vnode
    }

    /// Its service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Its partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Why its guest does not run, if it does not.
    pub fn down(&self) -> Option<&str> {
        match &self.guest {
            Guest::Running(_) => None,
            Guest::Down { why, .. } => Some(why),
        }
    }

    /// Memory of the guest, bytes.
    pub fn memory_bytes(&self) -> usize {
        match &self.guest {
            Guest::Running(instance) => instance.memory_bytes(),
            Guest::Down { .. } => 0,
        }
    }

    /// How much its store holds.
    pub fn stats(&mut self) -> crate::store::Stats {
        match &mut self.guest {
            Guest::Running(instance) => instance.state().store().stats(),
            Guest::Down { state, .. } => state
                .as_ref()
                .map(|s| s.store().stats())
                .unwrap_or_default(),
        }
    }

    /// Tells a guest that listens that it ends in good order.
    pub fn terminate(&mut self, reason: &str) {
        if let Guest::Running(instance) = &mut self.guest {
            instance.terminate(reason);
        }
    }

    /// Runs commands from the front of the mailbox: one call of the guest, with as many commands as fit together.
    pub fn run(
        &mut self,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) -> Ran {
        let typed = mailbox
            .front()
            .is_some_and(|request| self.service.is_typed(request.command));
        if typed {
            if let Some(request) = mailbox.pop_front() {
                return match self.run_one(request, replies, stats, budget) {
                    None => Ran::All,
                    Some(request) => Ran::Left(vec![request]),
                };
            }
            return Ran::All;
        }
        if let Err(failure) = self.instance() {
            while let Some(request) = mailbox.pop_front() {
                finish(replies, stats, request, Err(failure.clone()));
            }
            return Ran::All;
        }
        self.fill(mailbox, replies, stats);
        if self.batch.is_empty() {
            return Ran::All;
        }
        match self.call(budget) {
            Ok(answers) => self.settle(&answers, mailbox, replies, stats),
            Err(error) => {
                self.drop_instance(&error);
                Ran::Left(std::mem::take(&mut self.batch))
            }
        }
    }

    /// Runs one command through the typed door. Gives it back when the guest ran out of a budget that is smaller than
    /// the command's own.
    pub fn run_one(
        &mut self,
        request: Request,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) -> Option<Request> {
        let full = self.budget();
        let Some(spec) = self.service.command(request.command) else {
            let failure = Failure::Usage("no such command".into());
            finish(replies, stats, request, Err(failure));
            return None;
        };
        let command = typed_command(spec, &request);
        let partition = self.partition;
        let ended = match self.instance() {
            Err(failure) => Err(failure),
            Ok(instance) => {
                let mut reply = Vec::new();
                match instance.handle(&command, budget, &mut reply) {
                    Ok(Done::Ok((), commit)) => Ok((reply, commit)),
                    Ok(Done::Refused { code, message }) => Err(Failure::Refused { code, message }),
                    Ok(Done::Store(error)) => Err(Failure::of_store(&error, partition)),
                    Err(error) => {
                        self.drop_instance(&error);
                        if error == GuestError::Deadline && budget < full {
                            return Some(request);
                        }
                        Err(Failure::of_guest(error, partition, &command.name, full))
                    }
                }
            }
        };
        finish(replies, stats, request, ended);
        None
    }

    /// Runs one page of a coverage command.
    pub fn cover(
        &mut self,
        command: &TypedCommand,
        cursor: Option<&[u8]>,
    ) -> Result<(CoveragePage, Option<Commit>), Failure> {
        let partition = self.partition;
        let budget = self.budget();
        match self.instance()?.coverage(command, cursor, budget) {
            Ok(Done::Ok(page, commit)) => Ok((page, commit)),
            Ok(Done::Refused { code, message }) => Err(Failure::Refused { code, message }),
            Ok(Done::Store(error)) => Err(Failure::of_store(&error, partition)),
            Err(error) => {
                self.drop_instance(&error);
                Err(Failure::of_guest(error, partition, &command.name, budget))
            }
        }
    }

    /// Time of one command.
    fn budget(&self) -> Duration {
        self.service.guest.limits().command_budget
    }

    /// Takes commands from the mailbox into `batch` and writes their frames. Stops at a command that needs another door,
    /// at one whose keys meet those of a writer in the batch, and at the limits.
    fn fill(
        &mut self,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
    ) {
        self.frames.clear();
        self.batch.clear();
        self.touched.clear();
        let mut bytes = 0;
        while let Some(request) = mailbox.front() {
            bytes += request.words.bytes();
            let full = self.batch.len() >= BATCH_COMMANDS_MAX || bytes > BATCH_BYTES_MAX;
            let typed = self.service.is_typed(request.command);
            if !self.batch.is_empty() && (full || typed)
                || !self.touched.add(&self.service, request)
            {
                return;
            }
            let Some(request) = mailbox.pop_front() else {
                return;
            };
            match self.write_frame(&request) {
                Ok(()) => self.batch.push(request),
                // Frames of earlier commands are not touched: nothing was written before the values could be read.
                Err(failure) => finish(replies, stats, request, Err(failure)),
            }
        }
    }

    fn write_frame(&mut self, request: &Request) -> Result<(), Failure> {
        let service = Arc::clone(&self.service);
        let Some(spec) = service.command(request.command) else {
            return Err(Failure::Usage("no such command".into()));
        };
        let Guest::Running(instance) = &mut self.guest else {
            return Err(Failure::Usage("vnode is down".into()));
        };
        let state = instance.state();
        let start = self.frames.bytes().len();
        self.frames.command(
            FrameHead {
                now_ms: request.now_ms,
                seed: seed(request.id),
                request_id: request.id,
                fallback: false,
                command: request.command,
            },
            request.words.args(),
        );
        let words = request.words.len();
        self.frames.values(spec.key_positions(words).count());
        for (nth, position) in spec.key_positions(words).enumerate() {
            if spec.blind {
                self.frames.unsent();
                continue;
            }
            let key = request.words.get(position);
            let hash = match nth {
                0 => request.hash,
                _ => state.placement().locate(key).0,
            };
            let read = self
                .frames
                .value(|out| state.read_committed(hash, key, out));
            if let Err(refusal) = read {
                self.frames.truncate(start);
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    fn call(&mut self, budget: Duration) -> Result<Vec<u8>, GuestError> {
        let Guest::Running(instance) = &mut self.guest else {
            return Err(GuestError::Contract("vnode is down".into()));
        };
        if let Some(first) = self.batch.first() {
            instance.state().begin(Scope {
                range: first.range,
                writes: false,
                now_ms: first.now_ms,
                seed: seed(first.id),
            });
        }
        instance.handle_batch(self.frames.bytes(), budget)
    }

    /// Applies what the guest answered to `batch`: first every effect, then one commit, then the replies.
    fn settle(
        &mut self,
        answers: &[u8],
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
    ) -> Ran {
        let answered = match self.stage(answers) {
            Ok(answered) => answered,
            Err(error) => {
                self.drop_instance(&error);
                return Ran::Left(std::mem::take(&mut self.batch));
            }
        };
        let Guest::Running(instance) = &mut self.guest else {
            return Ran::All;
        };
        let committed = instance
            .state()
            .commit()
            .map_err(|error| Failure::of_store(&error, self.partition));
        let mut answers = Answers::new(answers);
        let mut requests = std::mem::take(&mut self.batch);
        let rest = requests.split_off(answered.min(requests.len()));
        let now = Instant::now();
        for (request, verdict) in requests.drain(..).zip(self.verdicts.drain(..)) {
            let Ok(answer) = answers.next_answer() else {
                break;
            };
            let stats = stats.get(usize::from(request.command));
            let took = now.saturating_duration_since(request.arrived);
            let ended = match (verdict, answer, &committed) {
                (Some(failure), _, _) => {
                    replies.fail(request.reply_to, &failure);
                    failure.ended()
                }
                (None, Answer::Error { code, message }, _) => {
                    let failure = refusal(code, message);
                    replies.fail(request.reply_to, &failure);
                    Ended::Error
                }
                (None, Answer::Ok { effects, .. }, Err(failure)) if !effects.is_empty() => {
                    replies.fail(request.reply_to, failure);
                    Ended::Error
                }
                (None, Answer::Ok { effects, reply }, committed) => {
                    let after = if effects.is_empty() {
                        None
                    } else {
                        committed.as_ref().ok().copied().flatten()
                    };
                    replies.push(request.reply_to, after, |out| out.extend_from_slice(reply));
                    Ended::Ok
                }
                (None, Answer::Deferred, _) => Ended::Ok,
            };
            if let Some(stats) = stats {
                stats.count(ended, took);
            }
        }
        self.batch = requests;
        self.defer(rest, mailbox);
        Ran::All
    }

    /// Stages the effects of all answers up to the first deferred one, and judges each in `verdicts`. Returns how many
    /// commands are answered.
    fn stage(&mut self, answers: &[u8]) -> Result<usize, GuestError> {
        let Guest::Running(instance) = &mut self.guest else {
            return Err(GuestError::Contract("vnode is down".into()));
        };
        let reply_limits = self.service.guest.reply_limits();
        let state = instance.state();
        let mut answers = Answers::new(answers);
        self.verdicts.clear();
        for (nth, request) in self.batch.iter().enumerate() {
            let verdict = match answers.next_answer()? {
                Answer::Deferred => return Ok(nth),
                Answer::Error { .. } => None,
                Answer::Ok { effects, reply } => {
                    let spec = self.service.command(request.command);
                    state.set_scope(Scope {
                        range: request.range,
                        writes: spec.is_some_and(|spec| spec.writes()),
                        now_ms: request.now_ms,
                        seed: seed(request.id),
                    });
                    match wire::check(reply, &reply_limits) {
                        Err(error) => Some(Failure::Trap {
                            partition: self.partition,
                            why: format!("guest broke the contract: {error}"),
                        }),
                        Ok(()) => effects_of(state, spec, request, effects, self.partition),
                    }
                }
            };
            self.verdicts.push(verdict);
        }
        answers.finish()?;
        Ok(self.batch.len())
    }

    /// Puts commands back at the front of the mailbox, the first of which asked for the typed door. The instance may
    /// have run what followed it, so it goes: it must not remember what did not happen.
    fn defer(&mut self, rest: Vec<Request>, mailbox: &mut VecDeque<Request>) {
        let Some(first) = rest.first() else { return };
        self.service.set_typed(first.command);
        for request in rest.into_iter().rev() {
            mailbox.push_front(request);
        }
        self.restart();
    }

    /// The running instance, started again if it was down for a while.
    fn instance(&mut self) -> Result<&mut Instance, Failure> {
        if let Guest::Down { state, since, .. } = &mut self.guest
            && since.elapsed() >= RESTART_PAUSE
            && let Some(state) = state.take()
        {
            self.restarts += 1;
            self.start_guest(state);
        }
        match &mut self.guest {
            Guest::Running(instance) => Ok(instance),
            Guest::Down { why, .. } => Err(Failure::Down {
                partition: self.partition,
                service: self.service.placement.service.clone(),
                why: why.clone(),
            }),
        }
    }

    /// The guest failed: counts it and makes a new instance around the same state.
    fn drop_instance(&mut self, error: &GuestError) {
        self.traps += 1;
        tracing::warn!(
            service = self.service.name(),
            partition = %self.partition,
            %error,
            "guest failed; its instance is made again"
        );
        self.restart();
    }

    fn restart(&mut self) {
        let down = Guest::Down {
            state: None,
            why: "starting".into(),
            since: Instant::now(),
        };
        match std::mem::replace(&mut self.guest, down) {
            Guest::Running(instance) => {
                self.restarts += 1;
                self.start_guest(Box::new(instance.into_state()));
            }
            down @ Guest::Down { .. } => self.guest = down,
        }
    }

    fn start_guest(&mut self, state: Box<VnodeState>) {
        self.guest = match Instance::start(*state) {
            Ok(instance) => Guest::Running(Box::new(instance)),
            Err(failed) => {
                let (state, error) = *failed;
                tracing::error!(
                    service = self.service.name(),
                    partition = %self.partition,
                    %error,
                    "vnode does not start; its commands are refused and it is tried again"
                );
                Guest::Down {
                    state: Some(Box::new(state)),
                    why: error.to_string(),
                    since: Instant::now(),
                }
            }
        };
    }
}

/// Checks and stages the effects of one answer. A failure means that none of them is staged.
fn effects_of(
    state: &mut VnodeState,
    spec: Option<&crate::descriptor::CommandSpec>,
    request: &Request,
    effects: crate::wasm::Effects<'_>,
    partition: PartitionId,
) -> Option<Failure> {
    let words = request.words.len();
    let key_of = |effect: &crate::wasm::Effect<'_>| {
        let position = spec?.key_positions(words).nth(effect.key)?;
        Some(request.words.get(position))
    };
    for effect in effects {
        let Some(key) = key_of(&effect) else {
            return Some(Failure::Trap {
                partition,
                why: "guest broke the contract: effect on a key that the command does not have"
                    .into(),
            });
        };
        if let Err(refusal) = state.check_write(key, effect.value) {
            return Some(refusal.into());
        }
    }
    for effect in effects {
        let Some(key) = key_of(&effect) else { continue };
        let hash = if effect.key == 0 {
            request.hash
        } else {
            state.placement().locate(key).0
        };
        if let Err(refusal) = state.stage(hash, key, effect.value) {
            return Some(refusal.into());
        }
    }
    None
}

/// The command as the typed door takes it.
fn typed_command(spec: &crate::descriptor::CommandSpec, request: &Request) -> TypedCommand {
    TypedCommand {
        name: spec.name.clone(),
        args: request.words.args().map(<[u8]>::to_vec).collect(),
        request_id: request.id,
        fallback: false,
        scope: Scope {
            range: request.range,
            writes: spec.writes(),
            now_ms: request.now_ms,
            seed: seed(request.id),
        },
    }
}

/// Chance of a command, from its name (the finaliser of MurmurHash3): a retry draws the same.
pub(crate) fn seed(id: u64) -> u64 {
    let mut z = id ^ (id >> 33);
    z = z.wrapping_mul(0xff51_afd7_ed55_8ccd);
    z ^= z >> 33;
    z = z.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^ (z >> 33)
}

fn refusal(code: &[u8], message: &[u8]) -> Failure {
    let (code, message) = crate::wasm::sanitize_refusal(
        &String::from_utf8_lossy(code),
        &String::from_utf8_lossy(message),
    );
    Failure::Refused { code, message }
}

/// Replies to a command that ran alone, and counts it.
fn finish(
    replies: &mut Replies,
    stats: &[CommandStats],
    request: Request,
    ended: Result<(Vec<u8>, Option<Commit>), Failure>,
) {
    if let Some(stats) = stats.get(usize::from(request.command)) {
        let how = match &ended {
            Ok(_) => Ended::Ok,
            Err(failure) => failure.ended(),
        };
        stats.count(how, request.arrived.elapsed());
    }
    match ended {
        Ok((reply, after)) => {
            replies.push(request.reply_to, after, |out| out.extend_from_slice(&reply));
        }
        Err(failure) => replies.fail(request.reply_to, &failure),
    }
}
