//! Local vnodes: one partition of one service each, with one guest instance, run serially.
//!
//! - [`service`] is what all vnodes of a service share, [`edition`] is one version of its guest.
//! - [`request`] is one command on its way, and its reply; [`words`] are what it says, [`failure`] why there is no reply.
//! - [`batch`] runs many commands in one call.
//! - [`shadow`] has another version run beside the one that serves, and [`comparison`] keeps what was seen of it.
//! - `life` has the guest start, fail, give way to another version and end.
//! - `heirs` copies rows to the vnodes of another ring.
//! - [`replica`] is what needs no guest: merging what other replicas have written, and showing what is here.
//! - this file runs the commands of one vnode, in batches where the guest has the packed door. Which thread it is on is
//!   the business of `executor`.
//!
//! **Invariants.** A vnode is in one place at a time, so its commands are serial. Nothing of a command is visible before
//! its batch is applied. After a trap or a deadline the instance is dropped, its state stays, and commands that shared
//! the call are run again one by one: none of them had been applied.

mod batch;
pub mod comparison;
pub mod edition;
pub mod failure;
mod heirs;
mod life;
mod outcome;
pub mod replica;
pub mod request;
pub mod service;
mod shadow;
mod touched;
pub mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use vnode_ring::{PartitionId, Role};

pub use self::batch::Call;
use self::edition::Edition;
use self::failure::Failure;
use self::request::{Consistency, HeldReplies, Replies, ReplyTo, Request, Written};
use self::service::{CommandStats, Ended, Service};
use self::shadow::Shadow;
use crate::executor::slow::Given;
use crate::store::Commit;
use crate::wasm::{Done, GuestError, Instance, Scope, TypedCommand, VnodeState};

/// Time of an old version for its end.
const TERMINATE_WITHIN: Duration = Duration::from_millis(20);
/// After a start that failed, commands are refused for so long before the next try.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Where the guest of a vnode stands.
enum Guest {
    /// It runs.
    Running(Box<Instance>),
    /// It ended and has to be started. That may take long, so no executor does it.
    Ended(Box<VnodeState>),
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
    edition: Arc<Edition>,
    partition: PartitionId,
    guest: Guest,
    /// Another version beside the guest, whose effects are thrown away.
    shadow: Option<Box<Shadow>>,
    /// It waits for another version.
    withheld: bool,
    traps: u64,
    restarts: u64,
    overruns: u64,
}

/// What can be seen of a vnode.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The version of its guest, for people.
    pub version: Arc<str>,
    /// Its digest.
    pub digest: Arc<str>,
    /// Whether it waits for another version.
    pub withheld: bool,
    /// Why its guest does not run, if it does not.
    pub down: Option<Arc<str>>,
    /// Memory of the guest, bytes.
    pub memory_bytes: usize,
    /// How much its store holds.
    pub store: crate::store::Stats,
    /// Times that the guest trapped, ran out of time or broke the contract.
    pub traps: u64,
    /// Times that its instance was made again.
    pub restarts: u64,
    /// Times that a call was stopped on a data thread and its commands went to a slow one.
    pub overruns: u64,
}

/// What a run left undone.
pub enum Ran {
    /// Nothing; more may wait in the mailbox.
    All,
    /// These, none of which was applied. Each has to run alone, where it may take long.
    Left(Vec<Request>),
    /// These, because the guest ran out of time. It should be kept apart for a while.
    Overran(Vec<Request>),
}

impl Vnode {
    /// A vnode around its rows, which belong to this edition's guest. It starts now; when it does not, commands are refused with
    /// the reason.
    pub fn start(service: Arc<Service>, edition: Arc<Edition>, state: VnodeState) -> Vnode {
        let mut vnode = Vnode::resting(service, edition, state);
        if let Guest::Ended(state) = vnode.take_guest() {
            vnode.start_guest(state);
        }
        vnode
    }

    /// A vnode around its rows whose guest starts with the first command.
    pub fn resting(service: Arc<Service>, edition: Arc<Edition>, state: VnodeState) -> Vnode {
        Vnode {
            service,
            edition,
            partition: state.partition(),
            guest: Guest::Ended(Box::new(state)),
            shadow: None,
            withheld: false,
            traps: 0,
            restarts: 0,
            overruns: 0,
        }
    }

    /// Ends the guest; the next command starts it again.
    pub fn rest(&mut self) {
        self.end_shadow();
        self.end();
    }

    /// Its service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The version that it runs.
    pub fn edition(&self) -> &Arc<Edition> {
        &self.edition
    }

    /// How it stands now.
    pub fn figures(&mut self) -> Figures {
        let mut figures = Figures::default();
        self.note(&mut figures);
        figures
    }

    /// Takes down how it stands now, over what it was.
    pub fn note(&mut self, figures: &mut Figures) {
        let (down, memory_bytes, store) = match &mut self.guest {
            Guest::Running(instance) => {
                let memory_bytes = instance.memory_bytes();
                (None, memory_bytes, instance.state().store().stats())
            }
            Guest::Ended(state) => (None, 0, state.store().stats()),
            Guest::Down { state, why, .. } => {
                let store = state.as_ref().map(|state| state.store().stats());
                (Some(why.as_str().into()), 0, store.unwrap_or_default())
            }
        };
        let (version, digest) = (self.edition.version(), self.edition.digest());
        // All vnodes share these, and all threads would have to count who has them, after each call.
        if !Arc::ptr_eq(&figures.digest, digest) {
            figures.version = Arc::clone(version);
            figures.digest = Arc::clone(digest);
        }
        figures.withheld = self.withheld;
        figures.down = down;
        figures.memory_bytes = memory_bytes;
        figures.store = store;
        figures.traps = self.traps;
        figures.restarts = self.restarts;
        figures.overruns = self.overruns;
    }

    /// Runs commands from the front of the mailbox: one call of the guest, with as many commands as fit together.
    pub fn run(
        &mut self,
        call: &mut Call,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) -> Ran {
        self.attend(mailbox, replies);
        if mailbox.is_empty() {
            return Ran::All;
        }
        if self.needs_start() {
            return Ran::Left(mailbox.drain(..).collect());
        }
        let typed = mailbox
            .front()
            .is_some_and(|request| request.alone || self.edition.is_typed(request.command));
        if typed {
            if let Some(request) = mailbox.pop_front() {
                return match self.run_one(request, replies, stats, budget) {
                    None => Ran::All,
                    Some(request) => Ran::Overran(vec![request]),
                };
            }
            return Ran::All;
        }
        if let Err(failure) = self.instance() {
            while let Some(request) = mailbox.pop_front() {
                finish(&self.edition, replies, stats, request, Err(failure.clone()));
            }
            return Ran::All;
        }
        self.fill(call, mailbox, replies, stats, budget);
        if call.requests.is_empty() {
            return Ran::All;
        }
        let begun = self.shadow.as_ref().map(|_| Instant::now());
        match self.call(call, budget) {
            Ok(answers) => {
                if let Some(begun) = begun {
                    self.rehearse(&call.requests, &answers, begun.elapsed(), budget);
                }
                self.settle(call, &answers, mailbox, replies, stats, budget)
            }
            Err(error) => self.give_up(call, &error, budget),
        }
    }

    /// Whether the guest has to be started before the next command, and now is the time to try.
    fn needs_start(&self) -> bool {
        match &self.guest {
            Guest::Running(_) => false,
            Guest::Ended(_) => true,
            Guest::Down { since, .. } => !self.withheld && since.elapsed() >= RESTART_PAUSE,
        }
    }

    /// Runs one command through the typed door. Gives it back when the guest ran out of a budget that is smaller than
    /// the command's own.
    pub fn run_one(
        &mut self,
        mut request: Request,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) -> Option<Request> {
        if !request.work.runs() {
            self.attend(&mut VecDeque::from([request]), replies);
            return None;
        }
        self.note_version(&mut request);
        let full = self.budget();
        let Some(spec) = self.edition.command(request.command) else {
            let failure = self.lacks();
            finish(&self.edition, replies, stats, request, Err(failure));
            return None;
        };
        let command = typed_command(spec, &request);
        let partition = self.partition;
        let rehearsed = match &self.shadow {
            Some(_) => self.rehearse_one(&request, budget),
            None => None,
        };
        let begun = rehearsed.is_some().then(Instant::now);
        let ended = match self.instance() {
            Err(failure) => Err(failure),
            Ok(instance) => {
                let mut reply = Vec::new();
                match instance.handle(&command, budget, &mut reply) {
                    Ok(Done::Ok((), commit)) => Ok((reply, commit)),
                    Ok(Done::Refused { code, message }) => Err(Failure::Refused { code, message }),
                    Ok(Done::Store(error)) => Err(Failure::of_store(&error, partition)),
                    Err(error) => {
                        self.drop_instance(&error, budget);
                        if error == GuestError::Deadline && budget < full {
                            return Some(request);
                        }
                        Err(Failure::of_guest(error, partition, &command.name, full))
                    }
                }
            }
        };
        if let (Some(rehearsed), Some(begun)) = (rehearsed, begun) {
            self.compare(rehearsed, &request, &ended, begun.elapsed());
        }
        match ended {
            Ok((reply, Some(commit))) if request.replicates() => {
                count(stats, &request, Ended::Ok);
                let of = (request.range, request.consistency, request.arrived);
                let mut written = self.written(of, commit);
                written.replies.add(request.reply_to, &reply);
                written.trace = request.trace;
                replies.written.push(written);
            }
            ended => finish(&self.edition, replies, stats, request, ended),
        }
        None
    }

    /// Takes down for one who traces to which version a command came.
    fn note_version(&self, request: &mut Request) {
        if let Some(trace) = &mut request.trace {
            trace.version = Some(Arc::clone(self.edition.version()));
        }
    }

    /// The last commit as the other replicas of the range get it.
    fn written(
        &mut self,
        (range, consistency, arrived): (PartitionId, Consistency, Instant),
        commit: Commit,
    ) -> Written {
        let rows = self
            .state()
            .map(|state| state.committed().as_bytes().to_vec());
        Written {
            service: self.service.index,
            partition: self.partition,
            range,
            consistency,
            rows: rows.unwrap_or_default(),
            commit,
            arrived,
            replies: HeldReplies::default(),
            trace: None,
        }
    }

    /// Runs one page of a coverage command.
    pub fn cover(
        &mut self,
        command: &TypedCommand,
        cursor: Option<&[u8]>,
        replies: &mut Replies,
    ) -> Result<Given, Failure> {
        let partition = self.partition;
        let budget = self.budget();
        match self.instance()?.coverage(command, cursor, budget) {
            Ok(Done::Ok(page, commit)) => {
                let said = commit.and_then(|commit| self.replicate_page(command, commit, replies));
                Ok((page, commit, said))
            }
            Ok(Done::Refused { code, message }) => Err(Failure::Refused { code, message }),
            Ok(Done::Store(error)) => Err(Failure::of_store(&error, partition)),
            Err(error) => {
                self.drop_instance(&error, budget);
                Err(Failure::of_guest(error, partition, &command.name, budget))
            }
        }
    }

    /// Has other replicas hear of what a page wrote. Returns where it is said that they have.
    fn replicate_page(
        &mut self,
        command: &TypedCommand,
        commit: Commit,
        replies: &mut Replies,
    ) -> Option<oneshot::Receiver<Vec<u8>>> {
        let number = self.service.command_number(&command.name)?;
        let consistency = self.edition.consistency(number);
        if consistency.n == 1 {
            return None;
        }
        let of = (command.scope.range, consistency, Instant::now());
        let mut written = self.written(of, commit);
        let (said, heard) = oneshot::channel();
        written.replies.add(ReplyTo::Task(said), b"+OK\r\n");
        replies.written.push(written);
        Some(heard)
    }

    /// Why a command is refused that other versions have.
    fn lacks(&self) -> Failure {
        let version = &self.edition.guest.descriptor().version;
        let partition = self.partition;
        Failure::NotActive(format!(
            "vnode {partition} runs version {version}, which does not have the command"
        ))
    }
}

/// The command as the typed door takes it.
fn typed_command(spec: &crate::descriptor::CommandSpec, request: &Request) -> TypedCommand {
    TypedCommand {
        name: spec.name.clone(),
        args: request.words.args().map(<[u8]>::to_vec).collect(),
        request_id: request.id,
        fallback: request.role == Role::Fallback,
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

/// Refuses a command whose time was over before it had its turn with this version.
pub(crate) fn refuse_late(
    edition: &Edition,
    request: Request,
    replies: &mut Replies,
    stats: &[CommandStats],
) {
    let failure = Failure::Timeout {
        within: request.consistency.within(),
        limit: "request_timeout",
    };
    finish(edition, replies, stats, request, Err(failure));
}

fn count(stats: &[CommandStats], request: &Request, ended: Ended) {
    let command = usize::from(request.command);
    if request.work.runs()
        && let Some(stats) = stats.get(command)
    {
        stats.count(ended, request.arrived.elapsed());
    }
}

/// Replies to a command that ran alone, and counts it.
fn finish(
    edition: &Edition,
    replies: &mut Replies,
    stats: &[CommandStats],
    request: Request,
    ended: Result<(Vec<u8>, Option<Commit>), Failure>,
) {
    let how = match &ended {
        Ok(_) => Ended::Ok,
        Err(failure) => failure.ended(),
    };
    count(stats, &request, how);
    match ended {
        Ok((reply, after)) => replies.push(request.reply_to, after, |out| match request.trace {
            Some(trace) => trace.answer(request.partition.number(), &reply, out),
            None => out.extend_from_slice(&reply),
        }),
        Err(failure) => fail(edition, replies, request, &failure),
    }
}

/// Answers a command with an error.
fn fail(edition: &Edition, replies: &mut Replies, request: Request, failure: &Failure) {
    if let Failure::Refused { code, message } = failure {
        // Nothing is wrong with the node, but who writes the guest wants to see it.
        tracing::debug!(
            target: "guest",
            service = edition.guest.descriptor().name,
            partition = %request.partition,
            version = &**edition.version(),
            command = %String::from_utf8_lossy(request.words.get(0)),
            "refused: {code} {message}"
        );
    }
    replies.push(request.reply_to, None, |out| {
        if let Some(trace) = &request.trace {
            trace.sign(out);
        }
        failure.write(out);
    });
}
