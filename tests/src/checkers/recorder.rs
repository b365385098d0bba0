//! Takes down operations while clients run, on any number of threads or tasks.
//!
//! It reads no clock: who calls passes the time, so that a simulation's is as good as the machine's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::{Action, History, Operation, Outcome};

/// A history in the making. Shared by reference; a call takes a lock for as long as a push takes.
#[derive(Debug, Default)]
pub struct Recorder {
    operations: Mutex<Vec<Operation>>,
}

/// An operation that has begun. One that is dropped stays unknown, as that of a client that died.
#[must_use = "an operation whose end is not recorded is unknown"]
#[derive(Debug)]
pub struct Ticket(usize);

impl Recorder {
    /// One with nothing in it.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Takes down that a client begins an operation. `now` must have been read before the request leaves.
    pub fn invoke(&self, now: u64, client: u32, key: &str, action: Action) -> Ticket {
        let mut operations = self.operations();
        operations.push(Operation {
            client,
            key: key.to_owned(),
            action,
            invoked: now,
            completed: None,
            outcome: Outcome::Unknown("no answer was recorded".into()),
        });
        Ticket(operations.len() - 1)
    }

    /// Takes down how it ended. `now` must have been read after the answer came.
    ///
    /// # Panics
    /// When it ends before it began: the clients' clocks differ, and no checker can judge that.
    pub fn complete(&self, now: u64, ticket: Ticket, outcome: Outcome) {
        let mut operations = self.operations();
        let operation = operations.get_mut(ticket.0);
        let operation = operation.expect("the ticket is of this recorder");
        assert!(operation.invoked <= now, "ends at {now}: {operation}");
        operation.completed = Some(now);
        operation.outcome = outcome;
    }

    /// What was recorded so far; operations without an end are unknown.
    pub fn history(&self, note: impl Into<String>) -> History {
        let mut operations = self.operations().clone();
        // Threads read the clock and take the lock in different orders.
        operations.sort_by_key(|operation| operation.invoked);
        History {
            note: note.into(),
            operations,
        }
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        // What others recorded is whole even if one client's thread panicked.
        let operations = self.operations.lock();
        operations.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::checkers::Answer;

    #[test]
    fn clients_on_many_threads_record_in_the_order_of_time() {
        let (recorder, clock) = (Recorder::new(), AtomicU64::new(0));
        let tick = || clock.fetch_add(1, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for client in 0..4 {
                let (recorder, tick) = (&recorder, &tick);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let ticket = recorder.invoke(tick(), client, "k", Action::Read);
                        let outcome = Outcome::Ok(Answer::Values(vec![]));
                        recorder.complete(tick(), ticket, outcome);
                    }
                });
            }
        });
        let history = recorder.history("threads");
        assert_eq!(history.operations.len(), 400);
        let in_order = |pair: &[Operation]| pair[0].invoked < pair[1].invoked;
        assert!(history.operations.windows(2).all(in_order));
        let whole = |each: &Operation| each.is_ok() && each.completed > Some(each.invoked);
        assert!(history.operations.iter().all(whole));
    }

    #[test]
    fn an_operation_without_an_end_is_unknown() {
        let recorder = Recorder::new();
        drop(recorder.invoke(3, 1, "k", Action::Read));
        let history = recorder.history("");
        assert!(history.operations[0].is_unknown());
        assert_eq!(history.operations[0].completed, None);
    }
}
