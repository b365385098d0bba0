//! Many commands in one call: frames out of the mailbox, answers into effects and replies.
//!
//! First every answer is judged and its effects staged, then one commit, then the replies. Until the commit nothing has
//! happened, so whatever goes wrong before it leaves all commands of the call to be run again one by one.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;
use vnode_ring::{PartitionId, Role};

use super::failure::Failure;

use super::request::{Replies, Request};
use super::service::{CommandStats, Ended};
use super::touched::Touched;
use super::{Guest, Ran, Vnode, fail, finish, seed};
use crate::descriptor::CommandSpec;
use crate::resp::wire::{self, ReplyError};
use crate::wasm::{
    Answer, Answers, Effect, Effects, FrameHead, FrameWriter, GuestError, Refusal, Scope,
    VnodeState, sanitize_refusal,
};

/// Commands of one call through the packed door.
const BATCH_COMMANDS_MAX: usize = 128;
/// Bytes of one call through the packed door, arguments and values; a single command may have more.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// The commands of one call on their way, and memory for them. Whoever runs vnodes has one for all of them.
#[derive(Default)]
pub struct Call {
    frames: FrameWriter,
    pub(super) requests: Vec<Request>,
    touched: Touched,
    verdicts: Vec<Option<Failure>>,
    /// Some value could not be read, so that a deferral says nothing about the command.
    unread: bool,
}

impl Vnode {
    /// Takes commands from the mailbox into `call` and writes their frames. Stops at a command that needs another door,
    /// at one whose keys meet those of a writer in the batch, and at the limits.
    pub(super) fn fill(
        &mut self,
        call: &mut Call,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) {
        if let Guest::Running(instance) = &mut self.guest {
            instance.state().allow(budget);
        }
        call.frames.clear();
        call.requests.clear();
        call.touched.clear();
        call.unread = false;
        while let Some(request) = mailbox.front() {
            let full = call.requests.len() >= BATCH_COMMANDS_MAX
                || call.frames.bytes().len() + request.words.bytes() > BATCH_BYTES_MAX;
            let typed = request.alone || self.edition.is_typed(request.command);
            let apart = call.requests.first().is_some_and(|first| {
                let of = |request: &Request| (request.range, request.consistency, request.work);
                of(request) != of(first)
            });
            if !request.work.runs()
                || !call.requests.is_empty() && (full || typed || apart)
                || !call
                    .touched
                    .add(&self.edition, &self.service.placement, request)
            {
                return;
            }
            let Some(request) = mailbox.pop_front() else {
                return;
            };
            match self.write_frame(&mut call.frames, &request) {
                Ok(whole) => {
                    call.unread |= !whole;
                    call.requests.push(request);
                }
                // Frames of earlier commands are not touched: nothing was written before the values could be read.
                Err(failure) => finish(&self.edition, replies, stats, request, Err(failure)),
            }
        }
    }

    /// Says whether all values could be read that the command may want.
    fn write_frame(
        &mut self,
        frames: &mut FrameWriter,
        request: &Request,
    ) -> Result<bool, Failure> {
        let (Some(spec), Some(command)) = (
            self.edition.command(request.command),
            self.edition.position(request.command),
        ) else {
            return Err(self.lacks());
        };
        let Guest::Running(instance) = &mut self.guest else {
            return Err(Failure::Usage("vnode is down".into()));
        };
        write_frame(instance.state(), (spec, command), frames, request)
    }

    pub(super) fn call(&mut self, call: &Call, budget: Duration) -> Result<Vec<u8>, GuestError> {
        let Guest::Running(instance) = &mut self.guest else {
            return Err(GuestError::Contract("vnode is down".into()));
        };
        if let Some(first) = call.requests.first() {
            instance.state().begin(Scope {
                range: first.range,
                writes: false,
                now_ms: first.now_ms,
                seed: seed(first.id),
            });
        }
        instance.handle_batch(call.frames.bytes(), budget)
    }

    /// Nothing of a call has happened: the instance goes, and the commands are to be run otherwise.
    pub(super) fn give_up(&mut self, call: &mut Call, error: &GuestError, budget: Duration) -> Ran {
        self.drop_instance(error, budget);
        let requests = std::mem::take(&mut call.requests);
        match error {
            GuestError::Deadline => Ran::Overran(requests),
            _ => Ran::Left(requests),
        }
    }

    /// Applies what the guest answered: first every effect, then one commit, then the replies.
    pub(super) fn settle(
        &mut self,
        call: &mut Call,
        answers: &[u8],
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
        budget: Duration,
    ) -> Ran {
        let answered = match self.stage(call, answers, budget) {
            Ok(answered) => answered,
            Err(error) => return self.give_up(call, &error, budget),
        };
        let Guest::Running(instance) = &mut self.guest else {
            return Ran::All;
        };
        let committed = instance
            .state()
            .commit()
            .map_err(|error| Failure::of_store(&error, self.partition));
        let mut answers = Answers::new(answers);
        let answered = answered.min(call.requests.len());
        let rest = call.requests.split_off(answered);
        let mut written = match (call.requests.first(), &committed) {
            (Some(first), Ok(Some(commit))) if first.replicates() => {
                let first = (first.range, first.consistency, first.arrived);
                Some(self.written(first, *commit))
            }
            _ => None,
        };
        let now = Instant::now();
        for (request, verdict) in call.requests.drain(..).zip(call.verdicts.drain(..)) {
            let Ok(answer) = answers.next_answer() else {
                break;
            };
            let stats = stats.get(usize::from(request.command));
            let took = now.saturating_duration_since(request.arrived);
            let ended = match (verdict, answer, &committed) {
                (Some(failure), _, _) => {
                    fail(&self.edition, replies, request, &failure);
                    failure.ended()
                }
                (None, Answer::Error { code, message }, _) => {
                    let failure = refusal(code, message);
                    fail(&self.edition, replies, request, &failure);
                    Ended::Error
                }
                (None, Answer::Ok { effects, .. }, Err(failure)) if !effects.is_empty() => {
                    fail(&self.edition, replies, request, failure);
                    Ended::Error
                }
                (None, Answer::Ok { effects, reply }, committed) => {
                    let after = if effects.is_empty() {
                        None
                    } else {
                        committed.as_ref().ok().copied().flatten()
                    };
                    match &mut written {
                        Some(written) if after.is_some() => {
                            written.replies.add(request.reply_to, reply)
                        }
                        _ => replies
                            .push(request.reply_to, after, |out| out.extend_from_slice(reply)),
                    }
                    Ended::Ok
                }
                (None, Answer::Deferred, _) => Ended::Ok,
            };
            if let Some(stats) = stats {
                stats.count(ended, took);
            }
        }
        replies.written.extend(written);
        self.defer(rest, mailbox, call.unread);
        Ran::All
    }

    /// Stages the effects of all answers up to the first deferred one, and judges each in `verdicts`. Returns how many
    /// commands are answered.
    fn stage(
        &mut self,
        call: &mut Call,
        answers: &[u8],
        budget: Duration,
    ) -> Result<usize, GuestError> {
        let Guest::Running(instance) = &mut self.guest else {
            return Err(GuestError::Contract("vnode is down".into()));
        };
        let reply_limits = self.edition.guest.reply_limits();
        let state = instance.state();
        // The guest may have used up its own time, and a shadow took some too.
        state.allow(budget);
        let mut answers = Answers::new(answers);
        call.verdicts.clear();
        for (nth, request) in call.requests.iter().enumerate() {
            let verdict = match answers.next_answer()? {
                Answer::Deferred => return Ok(nth),
                Answer::Error { .. } => None,
                Answer::Ok { effects, reply } => {
                    let spec = self.edition.command(request.command);
                    state.set_scope(Scope {
                        range: request.range,
                        writes: spec.is_some_and(|spec| spec.writes()),
                        now_ms: request.now_ms,
                        seed: seed(request.id),
                    });
                    match wire::check(reply, &reply_limits) {
                        Err(ReplyError::TooLong { max, .. }) => Some(Failure::TooBig(format!(
                            "reply of more than {max} bytes (reply_bytes_max)"
                        ))),
                        Err(error) => Some(Failure::Trap {
                            partition: self.partition,
                            why: format!("guest broke the contract: {error}"),
                        }),
                        Ok(()) => effects_of(state, spec, request, effects, self.partition)?,
                    }
                }
            };
            call.verdicts.push(verdict);
        }
        answers.finish()?;
        Ok(call.requests.len())
    }

    /// Puts commands back at the front of the mailbox, the first of which asked for the typed door. The instance may
    /// have run what followed it, so it goes: it must not remember what did not happen.
    fn defer(&mut self, mut rest: Vec<Request>, mailbox: &mut VecDeque<Request>, unread: bool) {
        let Some(first) = rest.first_mut() else {
            return;
        };
        first.alone = true;
        if !unread {
            self.edition.set_typed(first.command);
        }
        for request in rest.into_iter().rev() {
            mailbox.push_front(request);
        }
        self.end();
    }
}

/// Writes the frame of a command, which has that place in the guest's descriptor, with the values under its keys. Says whether all
/// could be read that the command may want.
pub(super) fn write_frame(
    state: &mut VnodeState,
    (spec, command): (&CommandSpec, u16),
    frames: &mut FrameWriter,
    request: &Request,
) -> Result<bool, Failure> {
    let mut whole = true;
    let start = frames.bytes().len();
    frames.command(
        FrameHead {
            now_ms: request.now_ms,
            seed: seed(request.id),
            request_id: request.id,
            fallback: request.role == Role::Fallback,
            command,
        },
        request.words.args(),
    );
    let words = request.words.len();
    frames.values(spec.key_positions(words).count());
    for (nth, position) in spec.key_positions(words).enumerate() {
        if spec.blind {
            frames.unsent();
            continue;
        }
        let key = request.words.get(position);
        let hash = request.hash_of(nth, key, state.placement());
        let before = frames.bytes().len();
        let read = frames.value(|out| state.read_committed(hash, key, out));
        match read {
            Ok(()) => {}
            // Whoever only writes does not have to suffer from what cannot be read.
            Err(Refusal::Join(_) | Refusal::Schema { .. } | Refusal::Migrate { .. }) => {
                frames.truncate(before);
                frames.unsent();
                whole = false;
            }
            Err(refusal) => {
                frames.truncate(start);
                return Err(refusal.into());
            }
        }
    }
    Ok(whole)
}

/// Checks and stages the effects of one answer; of several on one key the last one counts. A failure means that none of
/// them is staged.
///
/// # Errors
/// When there was not time enough to put the values into their schema.
fn effects_of(
    state: &mut VnodeState,
    spec: Option<&CommandSpec>,
    request: &Request,
    effects: Effects<'_>,
    partition: PartitionId,
) -> Result<Option<Failure>, GuestError> {
    let words = request.words.len();
    let key_of = |effect: &Effect<'_>| {
        let position = spec?.key_positions(words).nth(effect.key)?;
        Some(request.words.get(position))
    };
    for effect in effects {
        let Some(key) = key_of(&effect) else {
            let why = "guest broke the contract: effect on a key that the command does not have";
            return Ok(Some(Failure::Trap {
                partition,
                why: why.into(),
            }));
        };
        let hash = request.hash_of(effect.key, key, state.placement());
        if let Err(refusal) = state.check_write(hash, key, effect.value) {
            return Ok(Some(refusal.into()));
        }
    }
    let mut last: SmallVec<[_; 2]> = effects
        .filter_map(|effect| Some((key_of(&effect)?, effect)))
        .collect();
    // The sort is stable, so of equal keys the first from behind is the last one.
    last.sort_by_key(|(key, _)| *key);
    last.reverse();
    last.dedup_by_key(|(key, _)| *key);
    let before = state.staged();
    for (key, effect) in last {
        let hash = request.hash_of(effect.key, key, state.placement());
        if let Err(refusal) = state.stage(hash, key, effect.value) {
            state.unstage(before);
            return match refusal.is_overrun() {
                true => Err(GuestError::Deadline),
                false => Ok(Some(refusal.into())),
            };
        }
    }
    Ok(None)
}

fn refusal(code: &[u8], message: &[u8]) -> Failure {
    let (code, message) = sanitize_refusal(
        &String::from_utf8_lossy(code),
        &String::from_utf8_lossy(message),
    );
    Failure::Refused { code, message }
}
