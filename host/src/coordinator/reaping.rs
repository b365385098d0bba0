//! Tombstones that nobody needs any more are removed from all replicas.
//!
//! The mark of a deleted key is kept, or a replica that has not heard of the delete would bring the key back. It may go when nobody
//! is left who could: riak_kv removes it from each replica after three seconds on its own, and lost keys that were written again
//! meanwhile (riak_kv 679, "doomstones"). Here the owner of a range's first partition asks everybody, and only goes on if
//!
//! - the delete is older than `tombstone_grace`, so that nothing of the time before is still under way,
//! - all members of the cluster are up and no partition is moving,
//! - every replica holds exactly this tombstone, and no other vnode of any member holds anything under the key: no hint, and
//!   nothing that was written with a larger n.
//!
//! A replica on which the removal fails gives the tombstone back to the others, by a read or by anti-entropy, and it goes the next time.

use std::sync::Arc;
use std::time::Duration;

use vnode_ring::{Holder, PartitionId, Role, View};

use super::replicas::To;
use super::{Coordinator, join_all};
use crate::config::N_MAX;
use crate::vnode::failure::Failure;
use crate::vnode::replica::{Fetched, fetched, tombstones};
use crate::vnode::request::{Held, Work};
use crate::vnode::service::Service;
use crate::vnode::words::Words;
use crate::wasm::Digests;

/// Shortest time between two looks at the same range.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest time between two looks at the same range.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// Tombstones that are asked about at once.
const AT_ONCE: usize = 512;

/// Removes the tombstones of this node's ranges when they are old enough, for as long as the node runs.
pub async fn reap(coordinator: Arc<Coordinator>) {
    let grace = coordinator.limits.tombstone_grace;
    let pause = (grace / 24).clamp(PAUSE_MIN, PAUSE_MAX);
    loop {
        tokio::time::sleep(pause).await;
        for service in coordinator.services() {
            for range in coordinator.ring_size().partitions() {
                match coordinator.reap_range(service, range, grace).await {
                    Ok(keys) => coordinator.healing().reaped(keys),
                    Err(error) => {
                        let service = service.name();
                        tracing::debug!(service, %range, %error, "tombstones stay for now");
                    }
                }
            }
        }
    }
}

impl Coordinator {
    /// Removes the tombstones of one range, if this node is the one to do it. Returns how many.
    async fn reap_range(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        grace: Duration,
    ) -> Result<usize, Failure> {
        let before = self
            .now_ms()
            .saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let before = before.to_le_bytes();
        let (mut place, mut count) = (Vec::new(), 0);
        loop {
            let view = self.view();
            let Some(first) = whole(&view, range) else {
                return Ok(count);
            };
            let words = Words::copy([place.as_slice(), &before]);
            let answer = self
                .ask_replica(service, range, To::Vnode(first), Work::Tombstones, words)
                .await?;
            let (mut found, next) =
                tombstones(&answer).ok_or_else(|| Failure::of_answer(&answer))?;
            while !found.is_empty() {
                let later = match found.keys().nth(AT_ONCE).cloned() {
                    Some(at) => found.split_off(&at),
                    None => Digests::new(),
                };
                count += self.reap_keys(service, range, &view, &found).await?;
                found = later;
            }
            if next.is_empty() {
                return Ok(count);
            }
            place = next.to_vec();
        }
    }

    /// Removes those of these tombstones that all replicas hold and nobody else. Returns how many.
    async fn reap_keys(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        view: &View,
        keys: &Digests,
    ) -> Result<usize, Failure> {
        let (replicas, others) = everybody(view, range, service.n());
        let everybody = replicas.iter().chain(&others);
        let words = words(keys);
        let asked = everybody.map(|holder| {
            let (to, words) = (To::Vnode(*holder), words.clone());
            self.ask_replica(service, range, to, Work::Fetch, words)
        });
        let mut agreed = keys.clone();
        for (nth, answer) in join_all(asked.collect()).await.into_iter().enumerate() {
            let answer = answer?;
            let said = fetched(&answer, keys.len()).ok_or_else(|| Failure::of_answer(&answer))?;
            let wanted = match nth < replicas.len() {
                true => Fetched::Same,
                false => Fetched::Nothing,
            };
            for (key, said) in keys.keys().zip(said) {
                if said != wanted {
                    agreed.remove(key);
                }
            }
        }
        let words = self::words(&agreed);
        let reaped = replicas.iter().map(|holder| {
            let (to, words) = (To::Vnode(*holder), words.clone());
            self.ask_replica(service, range, to, Work::Reap, words)
        });
        for reaped in join_all(reaped.collect()).await {
            reaped?;
        }
        Ok(agreed.len())
    }
}

/// The first replica of a range, if it is this node's to look after and nothing is missing or moving in the cluster.
fn whole(view: &View, range: PartitionId) -> Option<Holder> {
    let all_up = view.nodes().iter().all(|node| view.is_up(node));
    let still = view.map().transfers().is_empty() && view.map().resize().is_none();
    let mine = view.ring().is_owner(view.me(), range);
    (all_up && still && mine).then_some(Holder {
        partition: range,
        node: view.my_position()?,
        role: Role::Primary,
    })
}

/// The `n` replicas of a range, and every other vnode of a member that may hold something of it.
fn everybody(view: &View, range: PartitionId, n: u16) -> (Vec<Holder>, Vec<Holder>) {
    let size = view.ring().size();
    let (mut replicas, mut others) = (Vec::new(), Vec::new());
    for step in 0..N_MAX.min(size.get()) {
        let partition = size.after(range, step);
        for (node, name) in (0..).zip(view.nodes()) {
            let owns = view.ring().is_owner(name, partition);
            let role = match owns {
                true => Role::Primary,
                false => Role::Fallback,
            };
            match owns && step < n {
                true => &mut replicas,
                false => &mut others,
            }
            .push(Holder {
                partition,
                node,
                role,
            });
        }
    }
    (replicas, others)
}

/// What is held under keys, as pairs of words.
fn words(keys: &Digests) -> Words {
    let pairs: Vec<Vec<u8>> = keys
        .iter()
        .flat_map(|(place, digest)| {
            let (hash, key) = place.split_first_chunk().unwrap_or((&[0; 8], &[]));
            let held = Held {
                hash: u64::from_be_bytes(*hash),
                digest: *digest,
            };
            [key.to_vec(), held.to_bytes().to_vec()]
        })
        .collect();
    Words::copy(pairs.iter().map(Vec::as_slice))
}
