//! A guest on the rows of another one's vnode that leaves nothing behind: it reads what is there, and what it writes is only looked at.
//!
//! Its state has no rows of its own. For the time of a call it has those of the other, whose guest does not run meanwhile.

use std::borrow::Cow;
use std::sync::Arc;

use vnode_ring::{Actor, Dot, Object};

use super::VnodeState;
use crate::store::{Engine, StoreError};
use crate::wasm::{Guest, Refusal};

/// What a command leaves under the keys that it writes: the values, latest first; none if the key is deleted.
pub type Written = Vec<(Vec<u8>, Vec<Vec<u8>>)>;

impl VnodeState {
    /// A state for a guest whose effects are thrown away, on the rows that [`trade_rows`](Self::trade_rows) lends it.
    pub fn rehearsal(&self, guest: Arc<Guest>) -> Result<VnodeState, StoreError> {
        let nothing = Engine::memory().open(&self.placement.service, self.partition.number())?;
        let (placement, node) = (self.placement.clone(), Arc::clone(&self.node));
        let mut state = VnodeState::new(
            self.values.rehearsal(guest),
            placement,
            (self.ring_size, self.partition),
            node,
            nothing,
        )?;
        state.rehearses = true;
        Ok(state)
    }

    /// Has the rows of `other` from now on, and that one has what was here: done twice, nothing has happened. What the guest sees besides
    /// the rows is as the other's guest would see it: the name that its next write gets, and the clock of its writes.
    pub fn trade_rows(&mut self, other: &mut VnodeState) {
        if other.last_seq.is_none() {
            other.last_seq = other.store.next_dot().ok().map(|dot| dot.seq);
        }
        std::mem::swap(&mut self.store, &mut other.store);
        std::mem::swap(&mut self.trees, &mut other.trees);
        if self.rehearses {
            self.clock = other.clock;
            self.actor = other.actor;
            self.last_seq = other.last_seq;
        }
    }

    /// Whether nothing that the guest does is kept.
    pub(in crate::wasm) fn rehearses(&self) -> bool {
        self.rehearses
    }

    /// The name that a write of the other guest would get now.
    pub(super) fn rehearsed_dot(&mut self) -> Dot {
        let seq = self.last_seq.unwrap_or(0) + 1;
        self.last_seq = Some(seq);
        Dot {
            actor: Actor(self.actor),
            seq,
        }
    }

    /// What would be stored if the guest wrote this value under the key; none if it deletes.
    pub fn as_stored(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let (_, value) = self.values.stored(key, value)?;
        Ok(value.map(Cow::into_owned))
    }

    /// What the last command of the typed door would leave.
    pub fn rehearsed(&self) -> Result<Written, Refusal> {
        let writes = self.writes.iter();
        let written = writes.map(|(position, write)| {
            let key = position.get(8..).unwrap_or_default().to_vec();
            Ok((key, values(&write.object)?))
        });
        written.collect()
    }

    /// What the last commit has left.
    pub fn left(&self) -> Result<Written, Refusal> {
        let changes = self.committed.changes();
        let written = changes.filter_map(|change| Some((change.row.key, change.object?)));
        let written = written.map(|(key, object)| Ok((key.to_vec(), values(object)?)));
        written.collect()
    }
}

/// The values of an encoded object, latest first.
fn values(object: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let object = Object::decode(object)?;
    Ok(object.live().map(<[u8]>::to_vec).collect())
}
