//! A view's preference lists, on random rings with random nodes up: those of `preflist_from`, in ring order.
#![allow(
    clippy::unwrap_used,
    reason = "a failed set-up fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use vnode_ring::{
    Addresses, Card, ClusterId, ClusterMap, HashId, Holder, Member, MemberStatus, NodeName,
    PartitionId, Place, REPLICAS_MAX, Replica, ReplicaKind, Resize, Ring, RingSize, Role, Staged,
    Transfer, TransferLimits, Versions, View, WEIGHT, preflist_from,
};

fn node(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

/// A map with this ring, of `nodes` members. The claim would not make most of these rings, so it is put together from the
/// parts in which a map is written down.
fn map(ring: Ring, nodes: u8) -> ClusterMap {
    let member = |number: u8| Member {
        status: MemberStatus::Valid,
        card: Card {
            number: number.into(),
            addresses: Addresses::default(),
            guests: BTreeMap::new(),
        },
        location: None,
        weight: WEIGHT,
    };
    let members: BTreeMap<NodeName, Member> = (0..nodes)
        .map(|number| (node(number), member(number)))
        .collect();
    let transfers: BTreeMap<PartitionId, Transfer> = BTreeMap::new();
    let staged: Vec<Staged> = Vec::new();
    let parts = (
        ClusterId([7; 16]),
        3_u16,
        ring,
        members,
        transfers,
        staged,
        1_u64,
        TransferLimits::default(),
        BTreeMap::<String, Versions>::new(),
        None::<Resize>,
    );
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(parts, config).unwrap();
    bincode::serde::decode_from_slice(&bytes, config).unwrap().0
}

/// A view of one of up to twelve members, some of which own nothing and some of which are down.
fn view() -> impl Strategy<Value = View> {
    let sizes = proptest::sample::select(&[8_u32, 16, 64][..]);
    (sizes, 1..12u8, 0..4u8).prop_flat_map(|(partitions, owners, idle)| {
        let nodes = owners + idle;
        let ring = proptest::collection::vec(0..owners, partitions as usize);
        let up = proptest::collection::vec(proptest::bool::weighted(0.6), usize::from(nodes));
        // The last is nobody: a node that asks to join has a view, and is no member.
        (ring, up, 0..=nodes).prop_map(move |(ring, up, me)| {
            let size = RingSize::new(partitions).unwrap();
            let ring = ring.into_iter().map(node).collect();
            let ring = Ring::new(size, HashId::V1, ring, 1).unwrap();
            let up = (0..).map(node).zip(up).filter(|(_, up)| *up);
            let up: BTreeSet<NodeName> = up.map(|(node, _)| node).collect();
            View::new(node(me), Arc::new(map(ring, nodes)), &up, None)
        })
    })
}

/// What a holder should be for an entry of a preference list.
fn holder(view: &View, replica: &Replica) -> Holder {
    let node = view.nodes().binary_search(&replica.node).unwrap();
    Holder {
        partition: replica.partition,
        node: u16::try_from(node).unwrap(),
        role: match replica.kind {
            ReplicaKind::Primary => Role::Primary,
            ReplicaKind::Fallback { .. } => Role::Fallback,
        },
    }
}

fn expected(view: &View, range: PartitionId, n: u16) -> Vec<Holder> {
    let list = preflist_from(view.ring(), &|node| view.is_up(node), range, n);
    let mut holders: Vec<Holder> = list.iter().map(|replica| holder(view, replica)).collect();
    let size = view.ring().size().get();
    holders.sort_by_key(|holder| (holder.partition.number() + size - range.number()) % size);
    holders
}

proptest! {
    #[test]
    fn holders_are_the_preference_list_in_ring_order(view in view()) {
        for n in 1..=view.ring().size().get().min(10) {
            for range in view.ring().size().partitions() {
                let holders = view.holders(range, n);
                let list = preflist_from(view.ring(), &|node| view.is_up(node), range, n);
                prop_assert_eq!(holders, expected(&view, range, n), "{} of {}", range, n);
                let preferred: Vec<Holder> = list.iter().map(|one| holder(&view, one)).collect();
                prop_assert_eq!(view.preferred(range, n), preferred, "{} of {}", range, n);
                // The list has its primaries first, so its head is the coordinator.
                let head = list.first().map(|replica| holder(&view, replica));
                let coordinator = view.coordinator(range, n);
                prop_assert_eq!(coordinator.map(|c| c.role), head.map(|h| h.role));
                match head {
                    Some(head) if head.is_primary() => prop_assert_eq!(coordinator, Some(head)),
                    _ => prop_assert_eq!(coordinator, holders.first().copied()),
                }
            }
        }
    }

    #[test]
    fn holders_on_this_node_are_known_without_names(view in view()) {
        for range in view.ring().size().partitions() {
            for holder in view.holders(range, 3) {
                let name = &view.nodes()[usize::from(holder.node)];
                prop_assert_eq!(view.is_here(holder), name == view.me());
            }
        }
        let mine = view.my_position().map(|at| &view.nodes()[usize::from(at)]);
        let member = view.map().members().contains_key(view.me());
        prop_assert_eq!(mine, member.then(|| view.me()));
    }

    #[test]
    fn with_one_replica_the_holder_is_the_place(view in view()) {
        for range in view.ring().size().partitions() {
            let list = preflist_from(view.ring(), &|node| view.is_up(node), range, 1);
            let place = view.place(range);
            match list.first() {
                None => prop_assert_eq!(place, Place::Nowhere),
                Some(replica) => {
                    let Holder { node, role, .. } = holder(&view, replica);
                    let there = Place::There(node.into(), role);
                    let here = replica.node == *view.me();
                    prop_assert_eq!(place, if here { Place::Here(role) } else { there });
                }
            }
            prop_assert_eq!(view.node_at(place), list.first().map(|replica| &replica.node));
        }
    }
}

#[test]
fn commands_go_to_members_of_which_nothing_was_heard_yet() {
    let size = RingSize::new(8).unwrap();
    let owners = (0..8).map(|n| node(n % 2)).collect();
    let map = Arc::new(map(Ring::new(size, HashId::V1, owners, 1).unwrap(), 2));
    let alone = View::new(node(0), map, &BTreeSet::new(), None);
    let place = |view: &View| view.place(PartitionId::from_id(1));
    assert_eq!(place(&alone), Place::Here(Role::Fallback));
    let presuming = alone.presuming(BTreeSet::from([node(1)]));
    assert_eq!(place(&presuming), Place::There(1, Role::Primary));
    assert!(presuming.is_up(&node(1)) && !presuming.is_seen(&node(1)));
    assert!(presuming.is_seen(&node(0)));
}

#[test]
fn widths_are_brought_into_bounds() {
    let size = RingSize::new(128).unwrap();
    let ring = Ring::single(node(0), size, HashId::V1);
    let view = View::new(node(0), Arc::new(map(ring, 1)), &BTreeSet::new(), None);
    let lengths =
        [0, 1, 64, 65, u16::MAX].map(|n| view.holders(PartitionId::from_id(127), n).len());
    let widest = usize::from(REPLICAS_MAX);
    assert_eq!(lengths, [1, 1, widest, widest, widest]);
    assert!(
        view.holders(PartitionId::from_id(128), 3).is_empty(),
        "of another ring"
    );
    assert_eq!(view.coordinator(PartitionId::from_id(128), 3), None);
    assert_eq!(
        view.clone().holders(PartitionId::from_id(127), 2),
        view.holders(PartitionId::from_id(127), 2)
    );
}
