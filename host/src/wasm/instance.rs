//! One instance of a guest: the calls of the contract, each under its deadline.
//!
//! After any trap or deadline the instance is useless; the caller takes the state back out and starts another one
//! around it, which costs microseconds.

use std::time::Duration;

use wasmtime::Store;

use super::bindings::exports::vnode::host::vnode as exported;
use super::bindings::vnode::host::types as contract;
use super::engine::ticks;
use super::state::{Scope, VnodeState};
use super::{Frames, GuestError, bindings, doors, reply};
use crate::store::{Commit, StoreError};

/// One command for the typed door.
#[derive(Clone, Debug)]
pub struct TypedCommand {
    /// As the descriptor spells it.
    pub name: String,
    /// Arguments after the name.
    pub args: Vec<Vec<u8>>,
    /// Name of this command in the cluster.
    pub request_id: u64,
    /// Whether this vnode stands in for another.
    pub fallback: bool,
    /// What it may touch, its time and its chance.
    pub scope: Scope,
}

/// How a command ended that did not trap.
#[derive(Debug)]
pub enum Done<T> {
    /// It is committed.
    Ok(T, Option<Commit>),
    /// The guest refused it; nothing is kept.
    Refused {
        /// First word of the client's error.
        code: String,
        /// The rest.
        message: String,
    },
    /// Its writes could not be stored; nothing is kept.
    Store(StoreError),
}

/// One page of a coverage command.
#[derive(Debug)]
pub struct CoveragePage {
    /// RESP3 values back to back.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
    /// Where to go on.
    pub next: Option<Vec<u8>>,
    /// The version of the guest that made it.
    pub version: String,
}

/// What a guest that listens is told besides its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Its rows are about to be sent to that node. It may refuse for now.
    HandoffStarting(String),
    /// That node owns the partition now.
    HandoffFinished(String),
    /// It stays the owner; nothing goes to that node.
    HandoffCancelled(String),
    /// Its rows were removed here.
    Deleted,
}

/// A running guest around its vnode's state.
pub struct Instance {
    store: Store<VnodeState>,
    guest: Bound,
}

/// The exports of one instance.
pub(super) struct Bound {
    pub(super) vnode: bindings::Guest,
    pub(super) batch: Option<doors::BatchDoor>,
    pub(super) lifecycle: Option<doors::LifecycleDoor>,
}

impl Instance {
    /// Instantiates the guest and runs its `init`, which has the time of a command. The state comes back when that fails.
    pub fn start(state: VnodeState) -> Result<Instance, Box<(VnodeState, GuestError)>> {
        let budget = state.limits().command_budget;
        Instance::start_within(state, budget)
    }

    /// The same within another time.
    pub fn start_within(
        mut state: VnodeState,
        budget: Duration,
    ) -> Result<Instance, Box<(VnodeState, GuestError)>> {
        let guest = state.guest().clone();
        // What a command that trapped has left behind is none of the new instance's business.
        state.allow(budget);
        state.begin(Scope {
            range: state.partition(),
            writes: false,
            ..*state.scope()
        });
        let partition = state.partition();
        let placement = state.placement();
        let identity = exported::Identity {
            service: placement.service.to_string(),
            partition: u32::from(partition.number()),
            partition_index: state.ring_size().index_decimal(partition),
            ring_size: u32::from(state.ring_size().get()),
            node: state.node().to_owned(),
            actor: state.actor(),
        };
        let mut store = Store::new(guest.engine().wasmtime(), state);
        store.limiter(|state| &mut state.memory);
        store.data_mut().memory.reset();
        store.data_mut().said.clear();
        store.set_epoch_deadline(ticks(budget));
        let mut start = || -> wasmtime::Result<Result<Bound, String>> {
            let instance = guest.pre().instantiate(&mut store)?;
            let bound = guest.bind(&mut store, &instance)?;
            let vnode = bound.vnode.vnode_host_vnode();
            let answer = vnode.call_init(&mut store, &identity)?;
            Ok(answer.map(|()| bound))
        };
        match start() {
            Ok(Ok(guest)) => Ok(Instance { store, guest }),
            Ok(Err(refused)) => {
                let error = GuestError::Trap {
                    why: format!("init refused: {}", super::one_line(&refused)),
                    frames: Frames::default(),
                };
                Err(Box::new((store.into_data(), error)))
            }
            Err(error) => {
                let mut state = store.into_data();
                let error = GuestError::from_wasmtime(&error, state.said.take_stderr());
                Err(Box::new((state, error)))
            }
        }
    }

    /// The rows and limits around the guest.
    pub fn state(&mut self) -> &mut VnodeState {
        self.store.data_mut()
    }

    /// The rows alone.
    pub fn rows(&self) -> &dyn crate::store::Store {
        self.store.data().store()
    }

    /// Ends the instance and keeps its state.
    pub fn into_state(self) -> VnodeState {
        let mut state = self.store.into_data();
        state.rest();
        state
    }

    /// Linear memory of the guest, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.memory_bytes()
    }

    /// Whether the guest has the packed door.
    pub fn has_batch(&self) -> bool {
        self.guest.batch.is_some()
    }

    /// Tells a guest that listens that this instance ends in good order. A guest that fails at it ends all the same.
    pub fn terminate(&mut self, reason: &str, budget: Duration) {
        let Some(door) = &self.guest.lifecycle else {
            return;
        };
        self.store.set_epoch_deadline(ticks(budget));
        if let Err(error) = door
            .vnode_host_lifecycle()
            .call_terminate(&mut self.store, reason)
        {
            let error = Self::failed(&mut self.store, &error);
            tracing::warn!(%error, "guest failed in terminate");
        }
    }

    /// Tells a guest that listens what happens to its vnode. The inner error is its refusal, which only [`Hook::HandoffStarting`]
    /// can meet with.
    pub fn hear(
        &mut self,
        hook: &Hook,
        budget: Duration,
    ) -> Result<Result<(), String>, GuestError> {
        let Some(door) = &self.guest.lifecycle else {
            return Ok(Ok(()));
        };
        self.store.set_epoch_deadline(ticks(budget));
        let state = self.store.data_mut();
        state.allow(budget);
        state.begin(Scope {
            writes: false,
            ..*state.scope()
        });
        state.said.clear();
        let (door, store) = (door.vnode_host_lifecycle(), &mut self.store);
        let heard = match hook {
            Hook::HandoffStarting(node) => door.call_handoff_starting(store, node),
            Hook::HandoffFinished(node) => door.call_handoff_finished(store, node).map(Ok),
            Hook::HandoffCancelled(node) => door.call_handoff_cancelled(store, node).map(Ok),
            Hook::Deleted => door.call_deleted(store).map(Ok),
        };
        heard
            .map(|answer| answer.map_err(|why| super::one_line(&why)))
            .map_err(|error| Self::failed(&mut self.store, &error))
    }

    /// Runs packed frames within `budget`. The caller applies the effects: see `VnodeState::stage`.
    pub fn handle_batch(&mut self, frames: &[u8], budget: Duration) -> Result<Vec<u8>, GuestError> {
        let Some(door) = &self.guest.batch else {
            return Err(GuestError::Contract("no packed door".into()));
        };
        self.store.set_epoch_deadline(ticks(budget));
        self.store.data_mut().said.clear();
        door.vnode_host_batch()
            .call_handle_batch(&mut self.store, frames)
            .map_err(|error| Self::failed(&mut self.store, &error))
    }

    /// Runs one command within `budget` and commits what it wrote. The reply is one RESP3 value, appended to `out`.
    pub fn handle(
        &mut self,
        command: &TypedCommand,
        budget: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Done<()>, GuestError> {
        let request = self.begin(command, budget);
        let answer = self
            .guest
            .vnode
            .vnode_host_vnode()
            .call_handle(&mut self.store, &request)
            .map_err(|error| Self::failed(&mut self.store, &error))?;
        let state = self.store.data_mut();
        let nodes = match answer {
            Ok(nodes) => nodes,
            Err(error) => return refused(error),
        };
        let start = out.len();
        reply::encode(&nodes, Some(1), state.limits().reply_bytes_max, out)?;
        match state.commit() {
            Ok(commit) => Ok(Done::Ok((), commit)),
            Err(error) => {
                out.truncate(start);
                Ok(Done::Store(error))
            }
        }
    }

    /// Runs one page of a coverage command and commits what it wrote.
    pub fn coverage(
        &mut self,
        command: &TypedCommand,
        cursor: Option<&[u8]>,
        budget: Duration,
    ) -> Result<Done<CoveragePage>, GuestError> {
        let request = self.begin(command, budget);
        let answer = self
            .guest
            .vnode
            .vnode_host_vnode()
            .call_handle_coverage(&mut self.store, &request, cursor)
            .map_err(|error| Self::failed(&mut self.store, &error))?;
        let state = self.store.data_mut();
        let page = match answer {
            Ok(page) => page,
            Err(error) => return refused(error),
        };
        let mut items = Vec::new();
        let count = reply::encode(
            &page.items,
            None,
            // A page carries keys and values up to the bound of one scan, and what encoding adds to them.
            state.limits().reply_bytes_max.saturating_mul(4),
            &mut items,
        )?;
        let version = state.guest().descriptor().version.clone();
        match state.commit() {
            Ok(commit) => Ok(Done::Ok(
                CoveragePage {
                    items,
                    count,
                    next: page.next,
                    version,
                },
                commit,
            )),
            Err(error) => Ok(Done::Store(error)),
        }
    }

    fn begin(&mut self, command: &TypedCommand, budget: Duration) -> contract::Command {
        self.store.set_epoch_deadline(ticks(budget));
        let state = self.store.data_mut();
        state.allow(budget);
        state.begin(command.scope);
        state.said.clear();
        contract::Command {
            name: command.name.clone(),
            args: command.args.clone(),
            context: contract::Context {
                now_ms: command.scope.now_ms,
                seed: command.scope.seed,
                request_id: command.request_id,
                partition: u32::from(state.partition().number()),
                node: state.node().to_owned(),
                replica: if command.fallback {
                    contract::ReplicaKind::Fallback
                } else {
                    contract::ReplicaKind::Primary
                },
            },
        }
    }

    fn failed(store: &mut Store<VnodeState>, error: &wasmtime::Error) -> GuestError {
        let said = store.data_mut().said.take_stderr();
        GuestError::from_wasmtime(error, said)
    }
}

/// The guest's own refusal. Its words reach a client, so they are made to fit one line and a known shape.
fn refused<T>(error: contract::Error) -> Result<Done<T>, GuestError> {
    let (code, message) = super::sanitize_refusal(&error.code, &error.message);
    Ok(Done::Refused { code, message })
}
