//! The link to one other node: dialled when it is wanted, kept, and dialled again when it breaks.
//!
//! A task keeps the link, callers look at its state. Callers wait only for a first dial, or for one after a good link broke;
//! otherwise a link that is not open is known to be broken, and they are told so at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use vnode_ring::NodeName;

use super::hello::{self, DialError, Me};
use super::link::{Ended, Link};
use super::peers::Verdict;
use super::wire::{Purpose, WireError};

/// The pause after the first dial that failed. Each further one doubles it.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest pause between two dials. Chance takes up to half of a pause away.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A link that lived shorter than this counts as a dial that failed.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// One other node, shared by its callers and the task that keeps its link.
pub(super) struct Peer {
    name: NodeName,
    address: watch::Sender<String>,
    state: watch::Sender<State>,
    /// The link is wanted for the first time, or there is reason to dial without waiting.
    dial_now: Notify,
    said_down: AtomicBool,
}

#[derive(Clone)]
enum State {
    /// Not wanted yet.
    Unused,
    /// Callers wait for it.
    Dialling,
    Open(Arc<Link>),
    /// Callers do not wait. The text says why.
    Broken(Arc<str>),
}

impl Peer {
    pub(super) fn new(name: NodeName, address: &str) -> Peer {
        Peer {
            name,
            address: watch::Sender::new(address.to_owned()),
            state: watch::Sender::new(State::Unused),
            dial_now: Notify::new(),
            said_down: AtomicBool::new(false),
        }
    }

    /// Dials anew if the address is another one.
    pub(super) fn move_to(&self, address: &str) {
        self.address.send_if_modified(|old| {
            let moved = *old != address;
            if moved {
                address.clone_into(old);
            }
            moved
        });
    }

    /// While a node is said to be down nobody gets its link.
    pub(super) fn say(&self, verdict: Verdict) {
        self.said_down
            .store(verdict == Verdict::Down, Ordering::Relaxed);
    }

    /// Dials without waiting until the pause is over.
    pub(super) fn dial_now(&self) {
        self.dial_now.notify_one();
    }

    /// Dials if that was never wanted before.
    pub(super) fn want(&self) {
        if matches!(*self.state.borrow(), State::Unused) {
            self.dial_now.notify_one();
        }
    }

    /// Ends the link for good, once its task has ended.
    pub(super) fn close(&self, why: &str) {
        self.state.send_replace(State::Broken(why.into()));
    }

    /// The link, if there is one that works as far as is known.
    pub(super) fn open_link(&self) -> Option<Arc<Link>> {
        match &*self.state.borrow() {
            State::Open(link) => Some(Arc::clone(link)),
            State::Unused | State::Dialling | State::Broken(_) => None,
        }
    }

    /// The link, once there is one. Else says why there is none.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Arc<str>> {
        if self.said_down.load(Ordering::Relaxed) {
            return Err("it does not answer and is taken to be down".into());
        }
        let mut state = match &*self.state.borrow() {
            State::Open(link) => return Ok(Arc::clone(link)),
            State::Broken(why) => return Err(Arc::clone(why)),
            State::Unused | State::Dialling => self.state.subscribe(),
        };
        self.want();
        let dialled = |state: &State| matches!(state, State::Open(_) | State::Broken(_));
        let settled = timeout_at(deadline, state.wait_for(dialled)).await;
        match settled.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Open(link))) => Ok(link),
            Ok(Ok(State::Broken(why))) => Err(why),
            _ => Err("its link is still being dialled".into()),
        }
    }
}

/// Keeps the link to a node, until the future is dropped. Names of nodes that broke a steady link off go to `gone`.
pub(super) async fn keep(
    me: Arc<Me>,
    peer: Arc<Peer>,
    gone: mpsc::Sender<NodeName>,
    rng: SmallRng,
) {
    let keeper = Keeper {
        me,
        peer,
        gone,
        rng,
    };
    keeper.run().await;
}

/// The task that dials one node, and dials again.
struct Keeper {
    me: Arc<Me>,
    peer: Arc<Peer>,
    gone: mpsc::Sender<NodeName>,
    rng: SmallRng,
}

impl Keeper {
    async fn run(mut self) {
        let mut moved = self.peer.address.subscribe();
        self.peer.dial_now.notified().await;
        self.peer.state.send_replace(State::Dialling);
        // Dials that failed since the link was last steady.
        let mut failures = 0;
        loop {
            let address = moved.borrow_and_update().clone();
            match self.dial(&address).await {
                Ok(link) => {
                    let since = Instant::now();
                    self.peer.state.send_replace(State::Open(Arc::clone(&link)));
                    let ended = tokio::select! { biased;
                        ended = link.ended() => Some(ended),
                        _ = moved.changed() => None,
                    };
                    let was_steady = since.elapsed() >= STEADY_AFTER;
                    failures = if was_steady { 0 } else { failures };
                    if was_steady && is_broken_off(ended.as_ref()) {
                        let _ = self.gone.try_send(self.peer.name.clone());
                    }
                    let (state, at_once) = after_link(ended, was_steady);
                    self.peer.state.send_replace(state);
                    if at_once {
                        continue;
                    }
                }
                Err(error) => {
                    self.say_broken(&error);
                }
            }
            failures += 1;
            tokio::select! { biased;
                () = sleep(self.pause(failures)) => {}
                () = self.peer.dial_now.notified() => {}
                _ = moved.changed() => {}
            }
        }
    }

    async fn dial(&self, address: &str) -> Result<Arc<Link>, DialError> {
        let hello = self
            .me
            .hello(Purpose::Control, Some(self.peer.name.clone()));
        let dialled = hello::dial(address, &hello, self.me.tls()).await?;
        tracing::info!(node = %self.peer.name, address, "connected");
        Ok(Arc::new(Link::open(dialled.stream)))
    }

    fn say_broken(&self, error: &DialError) {
        let why: Arc<str> = error.to_string().into();
        let old = self
            .peer
            .state
            .send_replace(State::Broken(Arc::clone(&why)));
        if !matches!(old, State::Broken(old) if old == why) {
            tracing::warn!(node = %self.peer.name, %error, "not connected; dialling again");
        }
    }

    /// Grows from failure to failure, and differs between nodes so that they do not all dial a node that comes back at once.
    fn pause(&mut self, failures: u32) -> Duration {
        let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled
            .min(BACKOFF_MAX)
            .mul_f64(self.rng.random_range(0.5..=1.0))
    }
}

/// Whether the other side ended the link, which a process that runs on does not do. None: the node has moved.
fn is_broken_off(ended: Option<&Ended>) -> bool {
    matches!(
        ended,
        Some(Ended::Closed | Ended::Wire(WireError::Broken(_) | WireError::FrameCut { .. }))
    )
}

/// What callers see when a link has ended, and whether to dial at once. None: the node has moved.
fn after_link(ended: Option<Ended>, was_steady: bool) -> (State, bool) {
    match ended {
        None => (State::Dialling, true),
        // Likely a restart: callers wait for one dial.
        Some(Ended::Closed | Ended::Wire(_)) if was_steady => (State::Dialling, true),
        // From a node that is silent nothing can be hoped for, but it may have come back just now.
        Some(ended) => (State::Broken(ended.to_string().into()), was_steady),
    }
}
