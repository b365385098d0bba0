//! Tests that need more than one module, and the entries that they write.

mod crash;
mod recover;
mod restart;
mod suite;

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use vnode_ring::{
    Addresses, Card, Change, ClusterId, ClusterMap, HashId, MapEvent, NodeName, RingSize, Staged,
};

use super::network::Network;
use super::{Entry, LogId};
use crate::hello::Me;
use crate::peers::Peers;

fn name() -> NodeName {
    "only".parse().unwrap()
}

/// The place of an entry in the log.
pub(super) fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

/// The first founds a cluster, each other one changes its map once: entry `index` leads to epoch `index + 1`.
pub(super) fn event(index: u64) -> MapEvent {
    let node = name();
    if index > 0 {
        let change = Change::Location(Some(format!("rack {index}")));
        return MapEvent::ChangeStaged(Staged { node, change });
    }
    let card = Card {
        number: 1,
        addresses: Addresses::default(),
        guests: BTreeMap::new(),
    };
    let size = RingSize::new(8).unwrap();
    let map = ClusterMap::new(ClusterId([1; 16]), 3, size, HashId::V1, node, card, None);
    MapEvent::Founded(Box::new(map))
}

fn entries(from: u64, to: u64) -> impl Iterator<Item = Entry> + Clone {
    (from..to).map(|index| Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(event(index)),
    })
}

/// A network without other nodes.
fn network() -> Network {
    let me = Arc::new(Me::new(name(), None, None));
    Network::new(Peers::new(me, SmallRng::seed_from_u64(1)).0)
}

#[test]
fn the_settings_agree_with_each_other() {
    super::config("any").unwrap();
}
