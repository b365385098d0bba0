//! The life of a vnode's guest: it starts, fails and is made again, gives way to another version, and ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::edition::Edition;
use super::failure::Failure;
use super::{Guest, TERMINATE_WITHIN, Vnode};
use crate::wasm::{GuestError, Hook, Instance, VnodeState};

impl Vnode {
    /// Goes over to another version, which starts now if the vnode is to serve.
    ///
    /// # Errors
    /// Why that does not start. The vnode runs the old one again then.
    pub fn take_over(&mut self, edition: Arc<Edition>, starts: bool) -> Result<(), String> {
        self.end_shadow();
        if let Guest::Running(instance) = &mut self.guest {
            instance.terminate("another version takes over", TERMINATE_WITHIN);
        }
        let mut state = match self.take_guest() {
            Guest::Running(instance) => Box::new(instance.into_state()),
            Guest::Ended(state)
            | Guest::Down {
                state: Some(state), ..
            } => state,
            other => {
                self.guest = other;
                return Err("the vnode is on its way out".into());
            }
        };
        let old = std::mem::replace(&mut self.edition, edition);
        state.set_guest(Arc::clone(&self.edition.guest));
        let was_withheld = std::mem::take(&mut self.withheld);
        if !starts {
            self.guest = Guest::Ended(state);
            return Ok(());
        }
        match Instance::start(*state) {
            Ok(instance) => {
                self.guest = Guest::Running(Box::new(instance));
                Ok(())
            }
            Err(failed) => {
                let (mut state, error) = *failed;
                state.set_guest(Arc::clone(&old.guest));
                self.edition = old;
                self.guest = Guest::Ended(Box::new(state));
                if was_withheld {
                    self.withhold(&error.to_string());
                }
                Err(error.to_string())
            }
        }
    }

    /// Serves nothing until another version takes over: the one that it has is not the one that it is to run.
    pub fn withhold(&mut self, why: &str) {
        self.end_shadow();
        self.end();
        if let Guest::Ended(state)
        | Guest::Down {
            state: Some(state), ..
        } = self.take_guest()
        {
            self.guest = Guest::Down {
                state: Some(state),
                why: why.to_owned(),
                since: Instant::now(),
            };
            self.withheld = true;
        }
    }

    /// Tells a guest that listens that it ends in good order, and gives it so much time.
    pub fn terminate(&mut self, reason: &str, budget: Duration) {
        let budget = budget.min(self.budget());
        if let Guest::Running(instance) = &mut self.guest {
            instance.terminate(reason, budget);
        }
    }

    /// Tells a guest that listens what happens to its vnode, and gives it so much time; starts it if need be. A guest that fails at
    /// it, or does not run, agrees.
    ///
    /// # Errors
    /// Its refusal.
    pub fn hear(&mut self, hook: &Hook, budget: Duration) -> Result<(), String> {
        if !self.edition.guest.has_lifecycle() {
            return Ok(());
        }
        let budget = budget.min(self.budget());
        let Ok(instance) = self.instance() else {
            return Ok(());
        };
        instance.hear(hook, budget).unwrap_or_else(|error| {
            self.drop_instance(&error, self.budget());
            Ok(())
        })
    }

    /// Time of one command.
    pub(super) fn budget(&self) -> Duration {
        self.edition.guest.limits().command_budget
    }

    /// The running instance, started if that is due.
    pub(super) fn instance(&mut self) -> Result<&mut Instance, Failure> {
        if self.needs_start() {
            match self.take_guest() {
                Guest::Ended(state)
                | Guest::Down {
                    state: Some(state), ..
                } => {
                    self.restarts += 1;
                    self.start_guest(state);
                }
                other => self.guest = other,
            }
        }
        match &mut self.guest {
            Guest::Running(instance) => Ok(instance),
            Guest::Ended(_) => Err(Failure::Usage("the vnode has ended".into())),
            Guest::Down { why, .. } => Err(Failure::Down {
                partition: self.partition,
                service: self.service.placement.service.clone(),
                why: why.clone(),
            }),
        }
    }

    /// The guest failed: counts it and ends the instance. The next command has a new one made around the same state.
    pub(super) fn drop_instance(&mut self, error: &GuestError, budget: Duration) {
        if *error == GuestError::Deadline && budget < self.budget() {
            self.overruns += 1;
            return self.end();
        }
        self.traps += 1;
        tracing::warn!(
            service = self.service.name(),
            partition = %self.partition,
            version = &**self.edition.version(),
            %error,
            backtrace = error.backtrace().map(tracing::field::display),
            "guest failed; its instance is made again"
        );
        self.end();
    }

    /// Ends the instance and keeps its state.
    pub(super) fn end(&mut self) {
        self.guest = match self.take_guest() {
            Guest::Running(instance) => Guest::Ended(Box::new(instance.into_state())),
            other => other,
        };
    }

    /// Takes the guest out, for a moment.
    pub(super) fn take_guest(&mut self) -> Guest {
        let none = Guest::Down {
            state: None,
            why: "starting".into(),
            since: Instant::now(),
        };
        std::mem::replace(&mut self.guest, none)
    }

    pub(super) fn start_guest(&mut self, state: Box<VnodeState>) {
        self.guest = match Instance::start(*state) {
            Ok(instance) => Guest::Running(Box::new(instance)),
            Err(failed) => {
                let (state, error) = *failed;
                tracing::error!(
                    service = self.service.name(),
                    partition = %self.partition,
                    version = &**self.edition.version(),
                    %error,
                    backtrace = error.backtrace().map(tracing::field::display),
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
