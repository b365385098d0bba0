//! Laws of a resize: until it is complete the old ring holds, giving it up leads back to it, and every key keeps its nodes.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vnode_ring::{
    Addresses, Card, Change, ClusterId, ClusterMap, HashId, MapError, MapEvent, MemberStatus,
    NodeName, PartitionId, Resize, ResizeError, ResizeEvent, ResizeStage, Ring, RingSize, Staged,
};

const N: u16 = 3;

fn node(number: usize) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

fn card(number: usize) -> Card {
    Card {
        number: number as u64,
        addresses: Addresses::default(),
        guests: BTreeMap::new(),
    }
}

/// A cluster at rest.
fn cluster(nodes: usize, partitions: u32) -> ClusterMap {
    let size = RingSize::new(partitions).unwrap();
    let cluster = ClusterId([7; 16]);
    let mut map = ClusterMap::new(cluster, N, size, HashId::V1, node(0), card(0), None);
    for number in 1..nodes {
        let event = MapEvent::JoinStaged {
            node: node(number),
            card: card(number),
            size: map.ring().size(),
            hash: map.ring().hash(),
            location: None,
        };
        map.apply(&event).unwrap();
    }
    if nodes > 1 {
        commit(&mut map);
    }
    move_all(&mut map);
    map
}

fn commit(map: &mut ClusterMap) {
    let plan = map.plan().unwrap();
    map.apply(&MapEvent::PlanCommitted(plan.id)).unwrap();
}

/// Lets so many transfers end.
fn move_some(map: &mut ClusterMap, count: usize) {
    let moves = map.transfers().iter().take(count);
    let moves = moves.map(|(partition, one)| (*partition, one.attempt));
    let moves = MapEvent::HandedOver(moves.collect());
    map.apply(&moves).unwrap();
}

fn move_all(map: &mut ClusterMap) {
    move_some(map, usize::MAX);
    assert!(map.transfers().is_empty());
}

fn stage(map: &mut ClusterMap, partitions: u16) -> Result<u64, MapError> {
    let change = Change::Resize { partitions, n: N };
    let node = node(0);
    map.apply(&MapEvent::ChangeStaged(Staged { node, change }))
}

fn begin(map: &mut ClusterMap, partitions: u16) -> u64 {
    stage(map, partitions).unwrap();
    commit(map);
    map.resize().unwrap().id
}

fn happen(map: &mut ClusterMap, event: ResizeEvent) -> Result<u64, MapError> {
    map.apply(&MapEvent::Resize(event))
}

fn fill(map: &mut ClusterMap, id: u64) {
    for node in map.members().keys().cloned().collect::<Vec<_>>() {
        happen(map, ResizeEvent::Filled { id, node }).unwrap();
    }
}

fn clean(map: &mut ClusterMap, id: u64) {
    for node in map.members().keys().cloned().collect::<Vec<_>>() {
        happen(map, ResizeEvent::Cleaned { id, node }).unwrap();
    }
    assert_eq!(map.resize(), None);
}

/// The nodes that hold the keys with a hash, sorted.
fn holders(ring: &Ring, hash: u64) -> Vec<NodeName> {
    let size = ring.size();
    let range = size.range_of(hash);
    let list = (0..N).map(|steps| ring.owner(size.after(range, steps)).clone());
    let mut list: Vec<_> = list.collect();
    list.sort();
    list
}

fn hashes() -> impl Iterator<Item = u64> {
    (0..256).map(|part| part << 56 | 0x1234_5678)
}

fn refusal(error: MapError) -> ResizeError {
    match error {
        MapError::Resize(error) => error,
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// RI10: whatever the cluster, the ring is the old one until the flip and the new one after it; the flip moves no key from one
    /// node to another, and the end is as good a ring as one that was claimed at that size.
    #[test]
    fn a_resize_keeps_every_key_on_its_nodes(
        nodes in 1_usize..7,
        bits in 4_u32..7,
        halves in any::<bool>(),
    ) {
        let mut map = cluster(nodes, 1 << bits);
        let from = map.ring().size();
        let to = if halves { from.get() / 2 } else { from.get() * 2 };
        let id = begin(&mut map, to);
        prop_assert_eq!(map.ring().size(), from);
        prop_assert_eq!(map.flips(), None);
        while !map.transfers().is_empty() {
            prop_assert!(halves, "nothing moves before a ring doubles");
            let early = happen(&mut map, ResizeEvent::Flipped { id });
            prop_assert!(early.is_err());
            move_some(&mut map, 1);
            prop_assert_eq!(map.ring().size(), from);
        }
        fill(&mut map, id);
        let before = map.ring().clone();
        prop_assert_eq!(map.flips().map(|one| one.id), Some(id));
        happen(&mut map, ResizeEvent::Flipped { id }).unwrap();
        prop_assert_eq!(map.ring().size().get(), to);
        for hash in hashes() {
            prop_assert_eq!(holders(&before, hash), holders(map.ring(), hash));
        }
        clean(&mut map, id);
        move_all(&mut map);
        let fresh = cluster(nodes, u32::from(to));
        let bad = |map: &ClusterMap| {
            let safety = vnode_ring::safety(map.ring().owners(), &map.claimers(), N).unwrap();
            safety.nodes.bad.len()
        };
        prop_assert!(bad(&map) <= bad(&fresh));
    }

    /// Given up at any moment before its flip, a resize leads back to the owners of before, by ordinary transfers.
    #[test]
    fn a_resize_that_is_given_up_leads_back(
        nodes in 1_usize..7,
        halves in any::<bool>(),
        moved in 0_usize..12,
        filled in 0_usize..7,
    ) {
        let mut map = cluster(nodes, 32);
        let before = map.ring().owners().to_vec();
        let id = begin(&mut map, if halves { 16 } else { 64 });
        move_some(&mut map, moved);
        for number in 0..filled.min(nodes) {
            happen(&mut map, ResizeEvent::Filled { id, node: node(number) }).unwrap();
        }
        stage(&mut map, 32).unwrap();
        let plan = map.plan().unwrap();
        prop_assert_eq!(plan.after.future_owners(), before.clone());
        commit(&mut map);
        prop_assert!(!map.resize().unwrap().is_filling());
        clean(&mut map, id);
        move_all(&mut map);
        prop_assert_eq!(map.ring().owners(), before.as_slice());
        prop_assert_eq!(map.ring().size().get(), 32);
        prop_assert!(stage(&mut map, 64).is_ok(), "it can be begun again");
    }
}

#[test]
fn a_ring_that_doubles_and_halves_has_other_partitions_than_at_first() {
    let mut map = cluster(3, 16);
    let first = map.ring().size();
    for to in [32, 16] {
        let id = begin(&mut map, to);
        move_all(&mut map);
        fill(&mut map, id);
        happen(&mut map, ResizeEvent::Flipped { id }).unwrap();
        clean(&mut map, id);
        move_all(&mut map);
    }
    let again = map.ring().size();
    assert_eq!(again.get(), first.get());
    assert!(again.partitions().all(|one| !first.contains(one)));
}

#[test]
fn what_cannot_be_is_refused_in_words_for_operators() {
    let mut map = cluster(3, 16);
    let mut staged = |partitions, n| {
        let change = Change::Resize { partitions, n };
        let node = node(0);
        let error = map.apply(&MapEvent::ChangeStaged(Staged { node, change }));
        refusal(error.unwrap_err()).to_string()
    };
    let table = [
        (16, 3, "the ring has 16 partitions already"),
        (24, 3, "ring size 24 is not a power of two from 8 to 4096"),
        (
            64,
            3,
            "the ring has 16 partitions and can be resized to twice or half as many, not to 64; go there in steps",
        ),
        (
            32,
            2,
            "a ring is resized only for services with an odd number of replicas that fits both sizes, not yet for n=2",
        ),
    ];
    for (partitions, n, words) in table {
        assert_eq!(staged(partitions, n), words);
    }
}

#[test]
fn one_thing_after_another() {
    let mut map = cluster(3, 16);
    let leaves = |number| {
        MapEvent::ChangeStaged(Staged {
            node: node(number),
            change: Change::Leave,
        })
    };
    map.apply(&leaves(2)).unwrap();
    stage(&mut map, 32).unwrap();
    assert_eq!(refusal(map.plan().unwrap_err()), ResizeError::Alone);
    map.apply(&MapEvent::StagedCleared).unwrap();
    let id = begin(&mut map, 32);
    let joins = MapEvent::JoinStaged {
        node: node(9),
        card: card(9),
        size: map.ring().size(),
        hash: map.ring().hash(),
        location: None,
    };
    assert!(matches!(
        refusal(map.apply(&joins).unwrap_err()),
        ResizeError::Filling { .. }
    ));
    assert!(matches!(
        refusal(map.apply(&leaves(2)).unwrap_err()),
        ResizeError::Filling { .. }
    ));
    fill(&mut map, id);
    happen(&mut map, ResizeEvent::Flipped { id }).unwrap();
    assert!(matches!(
        refusal(stage(&mut map, 16).unwrap_err()),
        ResizeError::Cleaning { .. }
    ));
}

#[test]
fn members_that_are_down_are_not_waited_for_and_clean_up_when_they_are_back() {
    let mut map = cluster(3, 16);
    let id = begin(&mut map, 32);
    for number in [0, 1] {
        let node = node(number);
        happen(&mut map, ResizeEvent::Filled { id, node }).unwrap();
    }
    let error = happen(&mut map, ResizeEvent::Flipped { id }).unwrap_err();
    assert_eq!(refusal(error), ResizeError::NotFilled { node: node(2) });
    map.apply(&MapEvent::MarkedDown(node(2))).unwrap();
    happen(&mut map, ResizeEvent::Flipped { id }).unwrap();
    for number in [0, 1] {
        let node = node(number);
        happen(&mut map, ResizeEvent::Cleaned { id, node }).unwrap();
    }
    let left: Vec<NodeName> = match &map.resize().unwrap().stage {
        ResizeStage::Cleaning { left } => left.iter().cloned().collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(left, [node(2)]);
    let mut gone = map.clone();
    let card = card(2);
    let node = node(2);
    map.apply(&MapEvent::Returned {
        node: node.clone(),
        card,
    })
    .unwrap();
    assert_eq!(map.members()[&node].status, MemberStatus::Valid);
    happen(
        &mut map,
        ResizeEvent::Cleaned {
            id,
            node: node.clone(),
        },
    )
    .unwrap();
    assert_eq!(map.resize(), None);
    // One that never comes back is given up, and with it what it held.
    let change = Change::ForceRemove;
    gone.apply(&MapEvent::ChangeStaged(Staged { node, change }))
        .unwrap();
    commit(&mut gone);
    assert_eq!(gone.resize(), None);
}

#[test]
fn a_node_joins_a_ring_that_has_the_size_of_its_own_again() {
    let mut map = cluster(1, 16);
    let (fresh, hash) = (map.ring().size(), map.ring().hash());
    for partitions in [32, 16] {
        let id = begin(&mut map, partitions);
        move_all(&mut map);
        fill(&mut map, id);
        happen(&mut map, ResizeEvent::Flipped { id }).unwrap();
        clean(&mut map, id);
        move_all(&mut map);
    }
    assert_ne!(map.ring().size(), fresh, "another generation");
    let join = |node, size| MapEvent::JoinStaged {
        node,
        card: card(1),
        size,
        hash,
        location: None,
    };
    let larger = RingSize::new(32).unwrap();
    let refused = map.apply(&join(node(1), larger));
    assert!(matches!(refused, Err(MapError::OtherRing { .. })));
    map.apply(&join(node(1), fresh)).unwrap();
    commit(&mut map);
    move_all(&mut map);
    assert!(map.ring().partitions_of(&node(1)).count() > 0);
}

#[test]
fn what_is_said_of_another_resize_does_not_count() {
    let mut map = cluster(1, 16);
    let id = begin(&mut map, 32);
    let old = id - 1;
    let node = node(0);
    for event in [
        ResizeEvent::Filled {
            id: old,
            node: node.clone(),
        },
        ResizeEvent::Flipped { id: old },
        ResizeEvent::Cleaned {
            id: old,
            node: node.clone(),
        },
        ResizeEvent::Cleaned { id, node },
    ] {
        let error = happen(&mut map, event).unwrap_err();
        assert_eq!(refusal(error), ResizeError::None);
    }
    assert!(map.resize().is_some_and(Resize::is_filling));
    assert!(map.ring().size().contains(PartitionId::from_id(15)));
}
