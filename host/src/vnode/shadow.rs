//! Another version of the guest beside the one that serves: it gets the same commands over the same rows, and nothing that it does
//! is kept.
//!
//! It runs while the rows are as they were before the commands, right after the serving instance in the packed door and right before it
//! in the typed one. Its rows are lent for the call, its writes stay in its transaction, its lines reach no log.
//!
//! **Invariant.** No command fails because of it, and none waits for it longer than half of the time that a call of its own has. A
//! shadow that fails is given up after a few tries ([`Patience`]); it is made again by whoever looks after shadows, on no data thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::PartitionId;
use vnode_ring::rollout::shadow::{Pace, Patience};

use super::batch::write_frame;
use super::comparison::{Comparison, Failed, Standing, Verdict};
use super::edition::Edition;
use super::failure::Failure;
use super::outcome::Outcome;
use super::request::Request;
use super::{Guest, Vnode, seed, typed_command};
use crate::store::Commit;
use crate::wasm::{Answer, Answers, Done, FrameWriter, GuestError, Instance, Scope, VnodeState};

/// Commands of one call that the shadow gets. What follows is left out, so that a long batch does not take twice its time.
const COMMANDS_MAX: usize = 16;

/// Another version beside a vnode's own.
pub(super) struct Shadow {
    comparison: Arc<Comparison>,
    partition: PartitionId,
    /// None when it failed.
    instance: Option<Box<Instance>>,
    /// By the number of the command: whether both versions have it and say the same of it.
    comparable: Vec<bool>,
    patience: Patience,
    pace: Pace,
    /// It failed in a call of several commands: the next failure is to tell which of them it was.
    singly: bool,
    frames: FrameWriter,
}

/// What the shadow made of a command, before the vnode's own guest runs it.
pub(super) struct Rehearsed {
    outcome: Outcome,
    took: Duration,
}

impl Vnode {
    /// Has that version run beside the vnode's own from now on, or again if it has failed. Runs its `init`, so no data thread does this.
    pub fn start_shadow(&mut self, comparison: &Arc<Comparison>) {
        let same = |shadow: &Shadow| Arc::ptr_eq(&shadow.comparison, comparison);
        let kept = self.shadow.take().filter(|shadow| same(shadow));
        let mut shadow = kept
            .unwrap_or_else(|| Box::new(Shadow::new(&self.edition, comparison, self.partition)));
        let budget = self.budget() / 2;
        if let Some(rows) = self.state() {
            shadow.start(rows, budget);
        }
        self.shadow = Some(shadow);
    }

    /// Has nothing run beside the vnode's guest any more.
    pub fn end_shadow(&mut self) {
        self.shadow = None;
    }

    /// Gives the shadow what a call has just answered, before any of it is applied.
    pub(super) fn rehearse(
        &mut self,
        requests: &[Request],
        answers: &[u8],
        took: Duration,
        budget: Duration,
    ) {
        if let (Some(shadow), Guest::Running(running)) = (&mut self.shadow, &mut self.guest) {
            let each = took / u32::try_from(requests.len()).unwrap_or(1).max(1);
            running.state().allow(budget / 2);
            shadow.follow(
                running,
                &self.edition,
                requests,
                (answers, each),
                budget / 2,
            );
        }
    }

    /// Gives the shadow a command that is about to go through the typed door.
    pub(super) fn rehearse_one(
        &mut self,
        request: &Request,
        budget: Duration,
    ) -> Option<Rehearsed> {
        let shadow = self.shadow.as_mut()?;
        let Guest::Running(running) = &mut self.guest else {
            return None;
        };
        shadow.try_one(running, request, budget / 2)
    }

    /// Compares what the shadow made of a command with what the vnode's guest has made of it since.
    pub(super) fn compare(
        &mut self,
        rehearsed: Rehearsed,
        request: &Request,
        ended: &Result<(Vec<u8>, Option<Commit>), Failure>,
        took: Duration,
    ) {
        let (Some(shadow), Guest::Running(running)) = (&mut self.shadow, &mut self.guest) else {
            return;
        };
        let (reply, wrote) = match ended {
            Ok((reply, commit)) => (Ok(reply.clone()), commit.is_some()),
            Err(Failure::Refused { code, message }) => {
                (Err((code.clone(), message.clone())), false)
            }
            Err(_) => return,
        };
        let effects = match wrote {
            true => running.state().left(),
            false => Ok(Vec::new()),
        };
        let Ok(effects) = effects else { return };
        let outcome = Outcome {
            reply,
            effects: effects.into_iter().collect(),
        };
        let Some(spec) = self.edition.command(request.command) else {
            return;
        };
        let verdict = Verdict {
            command: spec.name.clone(),
            differences: outcome.differences(&rehearsed.outcome, spec, request),
            refused: rehearsed.outcome.reply.is_err(),
            running: took,
            shadow: rehearsed.took,
        };
        let memory = (running.memory_bytes(), shadow.memory_bytes());
        shadow.comparison.add([verdict], memory);
    }
}

impl Shadow {
    fn new(running: &Edition, comparison: &Arc<Comparison>, partition: PartitionId) -> Shadow {
        Shadow {
            comparable: running.comparable(&comparison.edition),
            pace: Pace::new(comparison.per_second),
            comparison: Arc::clone(comparison),
            partition,
            instance: None,
            patience: Patience::default(),
            singly: false,
            frames: FrameWriter::default(),
        }
    }

    fn memory_bytes(&self) -> usize {
        let instance = self.instance.as_ref();
        instance.map_or(0, |instance| instance.memory_bytes())
    }

    /// Makes an instance, unless there is one or too many have failed.
    fn start(&mut self, rows: &mut VnodeState, budget: Duration) {
        if self.instance.is_some() || self.patience.is_over() {
            return;
        }
        let guest = Arc::clone(&self.comparison.edition.guest);
        let mut state = match rows.rehearsal(guest) {
            Ok(state) => state,
            Err(error) => return self.stands(Standing::Ended(Some(error.to_string()))),
        };
        state.trade_rows(rows);
        match Instance::start_within(state, budget) {
            Ok(mut instance) => {
                instance.state().trade_rows(rows);
                self.instance = Some(Box::new(instance));
                self.stands(Standing::Runs);
            }
            Err(failed) => {
                let (mut state, error) = *failed;
                state.trade_rows(rows);
                self.fail(&error, None);
            }
        }
    }

    fn stands(&self, standing: Standing) {
        self.comparison.stands(self.partition, standing);
    }

    /// The instance has failed, and is gone.
    fn fail(&mut self, error: &GuestError, command: Option<&str>) {
        self.patience.fail();
        self.singly = true;
        let failed = match error {
            GuestError::Deadline => Failed::Overrun,
            _ => Failed::Trap,
        };
        self.comparison.fail(command, failed);
        let why = match command {
            Some(command) => format!("{command}: {error}"),
            None => error.to_string(),
        };
        tracing::debug!(partition = %self.partition, why, "the shadow of a vnode failed");
        self.stands(match self.patience.is_over() {
            true => Standing::GivenUp(why),
            false => Standing::Ended(Some(why)),
        });
    }

    /// How many of so many commands it gets now.
    fn due(&mut self, wanted: usize) -> usize {
        if self.instance.is_none() || self.comparison.is_over() {
            return 0;
        }
        let most = if self.singly { 1 } else { COMMANDS_MAX };
        let second = self.comparison.since.elapsed().as_secs();
        self.pace.take(second, wanted.min(most))
    }

    fn is_comparable(&self, command: u16) -> bool {
        let known = self.comparable.get(usize::from(command));
        known.copied().unwrap_or(false)
    }

    /// Runs what the packed door has answered, and compares.
    fn follow(
        &mut self,
        running: &mut Instance,
        edition: &Edition,
        requests: &[Request],
        (answers, took): (&[u8], Duration),
        budget: Duration,
    ) {
        let mut answers = Answers::new(answers);
        let mut pairs = Vec::new();
        for request in requests {
            match answers.next_answer() {
                Ok(Answer::Deferred) | Err(_) => break,
                Ok(answer) if self.is_comparable(request.command) => pairs.push((request, answer)),
                Ok(_) => {}
            }
        }
        let due = match pairs.len() {
            0 => 0,
            wanted => self.due(wanted),
        };
        pairs.truncate(due);
        if due == 0 {
            return;
        }
        let Some(mut instance) = self.instance.take() else {
            return;
        };
        instance.state().trade_rows(running.state());
        let compared = self.run(
            &mut instance,
            running.state(),
            edition,
            &pairs,
            (took, budget),
        );
        let memory = (running.memory_bytes(), instance.memory_bytes());
        instance.state().trade_rows(running.state());
        match compared {
            Ok((verdicts, keeps)) => {
                self.patience
                    .succeed(u32::try_from(verdicts.len()).unwrap_or(0));
                self.comparison.add(verdicts, memory);
                match keeps {
                    true => self.instance = Some(instance),
                    false => self.stands(Standing::Ended(None)),
                }
            }
            Err((error, command)) => self.fail(&error, command.as_deref()),
        }
    }

    /// Runs commands on the rows that the instance has for now. Says besides whether the instance may go on: one that deferred may
    /// remember what did not happen.
    fn run(
        &mut self,
        instance: &mut Instance,
        running: &mut VnodeState,
        edition: &Edition,
        pairs: &[(&Request, Answer<'_>)],
        (took, budget): (Duration, Duration),
    ) -> Result<(Vec<Verdict>, bool), (GuestError, Option<String>)> {
        let comparison = Arc::clone(&self.comparison);
        let own = &comparison.edition;
        let until = Instant::now() + budget;
        let (typed, packed): (Vec<_>, Vec<_>) = pairs
            .iter()
            .partition(|(request, _)| request.alone || own.is_typed(request.command));
        let mut verdicts = Vec::with_capacity(pairs.len());
        let keeps = self.run_packed(
            instance,
            running,
            edition,
            &packed,
            (took, budget),
            &mut verdicts,
        );
        let keeps = keeps.map_err(|error| (error, only_name(edition, &packed)))?;
        for (request, answer) in typed.into_iter().filter(|_| keeps) {
            let left = until.saturating_duration_since(Instant::now());
            let Some(spec) = edition.command(request.command).filter(|_| !left.is_zero()) else {
                break;
            };
            let rehearsed = one(instance, own, request, left);
            let rehearsed = rehearsed.map_err(|error| (error, Some(spec.name.clone())))?;
            let was = Outcome::of_answer(running, spec, request, answer);
            if let (
                Some(was),
                Some(Rehearsed {
                    outcome,
                    took: shadow,
                }),
            ) = (was, rehearsed)
            {
                let was = was.on_rows_of(instance.state());
                verdicts.push(Verdict {
                    command: spec.name.clone(),
                    differences: was.differences(&outcome, spec, request),
                    refused: outcome.reply.is_err(),
                    running: took,
                    shadow,
                });
            }
        }
        Ok((verdicts, keeps))
    }

    fn run_packed(
        &mut self,
        instance: &mut Instance,
        running: &mut VnodeState,
        edition: &Edition,
        pairs: &[&(&Request, Answer<'_>)],
        (took, budget): (Duration, Duration),
        verdicts: &mut Vec<Verdict>,
    ) -> Result<bool, GuestError> {
        let own = &self.comparison.edition;
        let state = instance.state();
        state.allow(budget);
        self.frames.clear();
        let (mut written, mut whole) = (Vec::new(), true);
        for (request, answer) in pairs {
            let number = request.command;
            let (Some(spec), Some(position)) = (own.command(number), own.position(number)) else {
                continue;
            };
            // What cannot be read here the vnode's own guest has not got either.
            if let Ok(all) = write_frame(state, (spec, position), &mut self.frames, request) {
                whole &= all;
                written.push((*request, answer));
            }
        }
        let Some((first, _)) = written.first() else {
            return Ok(true);
        };
        state.begin(Scope {
            range: first.range,
            writes: false,
            now_ms: first.now_ms,
            seed: seed(first.id),
        });
        let begun = Instant::now();
        let bytes = instance.handle_batch(self.frames.bytes(), budget)?;
        let shadow = begun.elapsed() / u32::try_from(written.len()).unwrap_or(1).max(1);
        let mut answers = Answers::new(&bytes);
        for (request, was) in written {
            let is = answers.next_answer()?;
            if is == Answer::Deferred {
                if whole {
                    own.set_typed(request.command);
                }
                return Ok(false);
            }
            let Some(spec) = edition.command(request.command) else {
                continue;
            };
            // Equal bytes are equal, and nearly all are.
            let differences = match is == *was {
                true => Vec::new(),
                false => {
                    let state = instance.state();
                    let was = Outcome::of_answer(running, spec, request, was);
                    let is = Outcome::of_answer(state, spec, request, &is);
                    let (Some(was), Some(is)) = (was, is) else {
                        continue;
                    };
                    let (was, is) = (was.on_rows_of(state), is.on_rows_of(state));
                    was.differences(&is, spec, request)
                }
            };
            verdicts.push(Verdict {
                command: spec.name.clone(),
                differences,
                refused: matches!(is, Answer::Error { .. }),
                running: took,
                shadow,
            });
        }
        Ok(true)
    }

    /// Runs a command through the typed door before the vnode's own guest does.
    fn try_one(
        &mut self,
        running: &mut Instance,
        request: &Request,
        budget: Duration,
    ) -> Option<Rehearsed> {
        if !self.is_comparable(request.command) || self.due(1) == 0 {
            return None;
        }
        let mut instance = self.instance.take()?;
        instance.state().trade_rows(running.state());
        let rehearsed = one(&mut instance, &self.comparison.edition, request, budget);
        instance.state().trade_rows(running.state());
        match rehearsed {
            Ok(rehearsed) => {
                self.patience.succeed(1);
                self.instance = Some(instance);
                rehearsed
            }
            Err(error) => {
                let edition = Arc::clone(&self.comparison.edition);
                let spec = edition.command(request.command);
                self.fail(&error, spec.map(|spec| spec.name.as_str()));
                None
            }
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if self.instance.is_some() {
            self.stands(Standing::Ended(None));
        }
    }
}

/// Runs one command through the typed door of an instance that has its rows. None if it does not have it, or what it wrote cannot be read.
fn one(
    instance: &mut Instance,
    edition: &Edition,
    request: &Request,
    budget: Duration,
) -> Result<Option<Rehearsed>, GuestError> {
    let Some(spec) = edition.command(request.command) else {
        return Ok(None);
    };
    let command = typed_command(spec, request);
    let begun = Instant::now();
    let mut reply = Vec::new();
    let done = instance.handle(&command, budget, &mut reply)?;
    let took = begun.elapsed();
    let (reply, effects) = match done {
        Done::Ok((), _) => (Ok(reply), instance.state().rehearsed()),
        Done::Refused { code, message } => (Err((code, message)), Ok(Vec::new())),
        Done::Store(_) => return Ok(None),
    };
    Ok(effects.ok().map(|effects| Rehearsed {
        outcome: Outcome {
            reply,
            effects: effects.into_iter().collect(),
        },
        took,
    }))
}

/// The name of the commands, if all have the same.
fn only_name(edition: &Edition, pairs: &[&(&Request, Answer<'_>)]) -> Option<String> {
    let (first, _) = pairs.first()?;
    let same = pairs
        .iter()
        .all(|(request, _)| request.command == first.command);
    let spec = edition.command(first.command).filter(|_| same)?;
    Some(spec.name.clone())
}
