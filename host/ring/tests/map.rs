//! Laws of the cluster map: what each event may and may not do, and that every history keeps the invariants.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vnode_ring::{
    Addresses, Card, Change, ClusterId, ClusterMap, HashId, MapError, MapEvent, MemberStatus,
    NodeName, PartitionId, RingSize, Staged, TransferLimits,
};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn size(partitions: u32) -> RingSize {
    RingSize::new(partitions).unwrap()
}

fn card(number: u64) -> Card {
    Card {
        number,
        addresses: Addresses::default(),
        guests: BTreeMap::new(),
    }
}

/// A node's number is that of its name.
fn number(name: &str) -> u64 {
    name.bytes()
        .fold(0, |sum, byte| sum * 256 + u64::from(byte))
}

fn single(partitions: u32) -> ClusterMap {
    let me = node("a");
    ClusterMap::new(
        ClusterId([7; 16]),
        3,
        size(partitions),
        HashId::V1,
        me,
        card(number("a")),
        None,
    )
}

fn join(map: &ClusterMap, name: &str) -> MapEvent {
    MapEvent::JoinStaged {
        node: node(name),
        card: card(number(name)),
        size: map.ring().size(),
        hash: map.ring().hash(),
        location: None,
    }
}

fn stage(name: &str, change: Change) -> MapEvent {
    MapEvent::ChangeStaged(Staged {
        node: node(name),
        change,
    })
}

fn commit(map: &mut ClusterMap) -> Result<u64, MapError> {
    let id = map.plan()?.id;
    map.apply(&MapEvent::PlanCommitted(id))
}

/// Lets every transfer succeed.
fn hand_over_all(map: &mut ClusterMap) {
    while let Some((&partition, transfer)) = map.transfers().iter().next() {
        let tries = BTreeMap::from([(partition, transfer.attempt)]);
        map.apply(&MapEvent::HandedOver(tries)).unwrap();
    }
}

/// A settled cluster of these nodes.
fn cluster(partitions: u32, names: &[&str]) -> ClusterMap {
    let mut map = single(partitions);
    for name in &names[1..] {
        map.apply(&join(&map, name)).unwrap();
    }
    if names.len() > 1 {
        commit(&mut map).unwrap();
    }
    hand_over_all(&mut map);
    map
}

fn statuses(map: &ClusterMap) -> String {
    let members = map.members().iter();
    let each: Vec<String> = members.map(|(n, m)| format!("{n} {}", m.status)).collect();
    each.join(", ")
}

#[test]
fn two_nodes_join_the_first_as_in_the_tutorials() {
    for (partitions, shares) in [(64, [22, 21, 21]), (16, [6, 5, 5])] {
        let mut map = single(partitions);
        map.apply(&join(&map, "b")).unwrap();
        map.apply(&join(&map, "c")).unwrap();
        assert_eq!(statuses(&map), "a valid, b joining, c joining");
        assert_eq!(map.ring().nodes().len(), 1, "staging moves nothing");
        let plan = map.plan().unwrap();
        assert_eq!(plan.safety.nodes.bad.len(), 2);
        assert_eq!(plan.moves.len(), shares[1] + shares[2]);
        commit(&mut map).unwrap();
        assert_eq!(statuses(&map), "a valid, b valid, c valid");
        assert_eq!(map.ring().nodes().len(), 1, "a commit moves no data itself");
        hand_over_all(&mut map);
        for (name, share) in ["a", "b", "c"].into_iter().zip(shares) {
            assert_eq!(map.ring().partitions_of(&node(name)).count(), share);
        }
    }
}

#[test]
fn a_join_asked_for_twice_is_one_join_and_a_taken_name_is_refused() {
    let mut map = single(8);
    let epoch = map.apply(&join(&map, "b")).unwrap();
    assert_eq!(
        map.apply(&join(&map, "b")).unwrap(),
        epoch,
        "nothing changes"
    );
    // It was wiped and asks anew.
    let again = MapEvent::JoinStaged {
        node: node("b"),
        card: card(99),
        size: size(8),
        hash: HashId::V1,
        location: None,
    };
    map.apply(&again).unwrap();
    assert_eq!(map.member(&node("b")).unwrap().card.number, 99);
    commit(&mut map).unwrap();
    let other = join(&map, "b");
    assert_eq!(
        map.apply(&other),
        Err(MapError::NameTaken { node: node("b") })
    );
    let smaller = MapEvent::JoinStaged {
        node: node("c"),
        card: card(1),
        size: size(16),
        hash: HashId::V1,
        location: None,
    };
    assert!(matches!(
        map.apply(&smaller),
        Err(MapError::OtherRing { .. })
    ));
}

#[test]
fn a_leaving_node_serves_until_it_owns_nothing_and_then_may_go() {
    let mut map = cluster(16, &["a", "b", "c", "d"]);
    map.apply(&stage("b", Change::Leave)).unwrap();
    let plan = map.plan().unwrap();
    assert!(plan.moves.iter().all(|m| m.to != node("b") && !m.lossy));
    commit(&mut map).unwrap();
    assert_eq!(
        map.member(&node("b")).unwrap().status,
        MemberStatus::Leaving
    );
    assert!(
        map.apply(&MapEvent::Left(node("b"))).is_err(),
        "it still owns"
    );
    hand_over_all(&mut map);
    assert_eq!(
        map.member(&node("b")).unwrap().status,
        MemberStatus::Exiting
    );
    map.apply(&MapEvent::Left(node("b"))).unwrap();
    assert_eq!(statuses(&map), "a valid, c valid, d valid");
}

#[test]
fn a_replacement_takes_over_exactly_what_the_other_owned() {
    for forced in [false, true] {
        let mut map = cluster(16, &["a", "b", "c"]);
        let before: Vec<PartitionId> = map.ring().partitions_of(&node("b")).collect();
        map.apply(&join(&map, "d")).unwrap();
        let by = node("d");
        let change = match forced {
            false => Change::Replace { by },
            true => Change::ForceReplace { by },
        };
        map.apply(&stage("b", change)).unwrap();
        let plan = map.plan().unwrap();
        assert_eq!(plan.moves.len(), before.len());
        assert!(plan.moves.iter().all(|m| m.lossy == forced));
        commit(&mut map).unwrap();
        assert_eq!(map.transfers().is_empty(), forced);
        hand_over_all(&mut map);
        let after: Vec<PartitionId> = map.ring().partitions_of(&node("d")).collect();
        assert_eq!(after, before);
        let left = if forced { "" } else { "b exiting, " };
        assert_eq!(statuses(&map), format!("a valid, {left}c valid, d valid"));
    }
}

#[test]
fn what_may_not_be_staged_is_refused_and_changes_nothing() {
    let mut map = cluster(16, &["a", "b", "c"]);
    map.apply(&join(&map, "d")).unwrap();
    map.apply(&join(&map, "e")).unwrap();
    let replace = |by: &str| Change::Replace { by: node(by) };
    map.apply(&stage("a", replace("d"))).unwrap();
    let before = map.clone();
    let long = "x".repeat(129);
    let table = [
        (stage("x", Change::Leave), "x is not a member"),
        (stage("b", replace("x")), "x is not a member"),
        (
            stage("b", replace("c")),
            "c is valid; only a node that joins",
        ),
        (stage("b", replace("d")), "d already replaces a"),
        (stage("d", replace("e")), "d is joining"),
        (stage("d", Change::ForceRemove), "d is joining"),
        (stage("b", Change::Join), "b is valid"),
        (
            stage("b", Change::Location(Some(String::new()))),
            "a location has",
        ),
        (stage("b", Change::Location(Some(long))), "a location has"),
        (MapEvent::Left(node("b")), "b is valid"),
        (MapEvent::MarkedDown(node("d")), "d is joining"),
    ];
    for (event, expected) in table {
        let error = map.apply(&event).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(map, before, "{error}");
    }
}

#[test]
fn a_plan_is_stale_once_it_would_lead_elsewhere() {
    let mut map = cluster(16, &["a", "b"]);
    assert_eq!(map.plan().unwrap_err(), MapError::NothingStaged);
    map.apply(&join(&map, "c")).unwrap();
    let seen = map.plan().unwrap().id;
    // An address says nothing about the plan.
    let moved = MapEvent::Returned {
        node: node("b"),
        card: Card {
            addresses: Addresses {
                peer: "elsewhere:1".into(),
                ..Addresses::default()
            },
            ..card(number("b"))
        },
    };
    map.apply(&moved).unwrap();
    assert_eq!(map.plan().unwrap().id, seen);
    map.apply(&join(&map, "d")).unwrap();
    let current = map.plan().unwrap().id;
    let refused = map.apply(&MapEvent::PlanCommitted(seen)).unwrap_err();
    assert_eq!(
        refused,
        MapError::StalePlan {
            found: seen,
            current
        }
    );
    map.apply(&MapEvent::StagedCleared).unwrap();
    assert_eq!(statuses(&map), "a valid, b valid");
}

#[test]
fn one_that_only_asked_to_join_leaves_at_once() {
    let mut map = cluster(16, &["a", "b"]);
    for joiner in ["c", "d"] {
        map.apply(&join(&map, joiner)).unwrap();
    }
    let by = node("c");
    map.apply(&stage("b", Change::Replace { by })).unwrap();
    map.apply(&stage("c", Change::Leave)).unwrap();
    assert_eq!(statuses(&map), "a valid, b valid, d joining");
    let staged: Vec<Change> = map.staged().into_iter().map(|one| one.change).collect();
    assert_eq!(staged, [Change::Join], "nobody is replaced by it");
    assert_eq!(
        map.apply(&stage("c", Change::Leave)),
        Err(MapError::NotMember { node: node("c") })
    );
}

#[test]
fn somebody_always_owns_the_ring() {
    let mut map = single(8);
    map.apply(&stage("a", Change::Leave)).unwrap();
    let alone = MapError::OnlyMember { node: node("a") };
    assert_eq!(map.plan().unwrap_err(), MapError::NobodyLeft);
    assert_eq!(map.apply(&MapEvent::MarkedDown(node("a"))), Err(alone));
    // With a node that joins there is somebody.
    map.apply(&join(&map, "b")).unwrap();
    commit(&mut map).unwrap();
    hand_over_all(&mut map);
    assert_eq!(statuses(&map), "a exiting, b valid");
}

#[test]
fn down_is_said_by_operators_and_taken_back_by_the_node() {
    let mut map = cluster(16, &["a", "b", "c"]);
    let owned = map.ring().partitions_of(&node("b")).count();
    map.apply(&MapEvent::MarkedDown(node("b"))).unwrap();
    assert_eq!(map.member(&node("b")).unwrap().status, MemberStatus::Down);
    assert_eq!(map.ring().partitions_of(&node("b")).count(), owned);
    let stranger = MapEvent::Returned {
        node: node("b"),
        card: card(1),
    };
    assert!(map.apply(&stranger).is_err(), "another node of that name");
    let back = MapEvent::Returned {
        node: node("b"),
        card: card(number("b")),
    };
    map.apply(&back).unwrap();
    assert_eq!(map.member(&node("b")).unwrap().status, MemberStatus::Valid);
}

#[test]
fn a_try_that_was_given_up_hands_nothing_over() {
    let mut map = cluster(8, &["a"]);
    map.apply(&join(&map, "b")).unwrap();
    commit(&mut map).unwrap();
    let (&partition, transfer) = map.transfers().iter().next().unwrap();
    let attempt = transfer.attempt;
    let tries = BTreeMap::from([(partition, attempt)]);
    let epoch = map
        .apply(&MapEvent::TransfersRenewed(tries.clone()))
        .unwrap();
    let gone = Err(MapError::NoTransfer { partition, attempt });
    assert_eq!(map.apply(&MapEvent::HandedOver(tries.clone())), gone);
    assert_eq!(map.apply(&MapEvent::TransfersRenewed(tries)), Ok(epoch));
}

#[test]
fn limits_are_said_for_all_and_whoever_is_nearer_says_more() {
    let mut map = cluster(16, &["a", "b"]);
    let epoch = map.epoch();
    let limits = TransferLimits {
        out_max: Some(4),
        bytes_per_second: Some(1 << 20),
        ..TransferLimits::default()
    };
    let event = MapEvent::TransfersLimited(limits);
    assert_eq!(map.apply(&event), Ok(epoch + 1));
    assert_eq!(map.apply(&event), Ok(epoch + 1), "nothing has changed");
    assert_eq!(map.transfer_limits(), limits);
    let own = TransferLimits {
        out_max: Some(1),
        in_max: Some(3),
        ..TransferLimits::default()
    };
    let both = own.or(limits);
    assert_eq!((both.out_max, both.in_max), (Some(1), Some(3)));
    assert_eq!(both.bytes_per_second, Some(1 << 20));
    let paused = TransferLimits {
        paused: true,
        ..TransferLimits::default()
    };
    assert!(own.or(paused).paused && paused.or(own).paused && !both.paused);
}

/// Something that may happen next. The numbers choose among what there is.
fn event(map: &ClusterMap, kind: u8, which: usize, other: usize) -> MapEvent {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let name = names[which % names.len()];
    let by = node(names[other % names.len()]);
    let transfer = map
        .transfers()
        .iter()
        .nth(which % map.transfers().len().max(1));
    let (partition, attempt) =
        transfer.map_or((PartitionId::from_id(0), 0), |(p, t)| (*p, t.attempt));
    match kind {
        0..=2 => join(map, name),
        3 => stage(name, Change::Leave),
        4 => stage(name, Change::Replace { by }),
        5 => stage(name, Change::ForceReplace { by }),
        6 => stage(name, Change::ForceRemove),
        7 => stage(
            name,
            Change::Location((other > 3).then(|| format!("rack {}", other % 3))),
        ),
        8 => stage(name, Change::Weight([0, 50, 100, 200][other % 4])),
        9 => MapEvent::StagedCleared,
        10..=13 => match map.plan() {
            Ok(plan) => MapEvent::PlanCommitted(plan.id),
            Err(_) => MapEvent::StagedCleared,
        },
        14 => MapEvent::MarkedDown(node(name)),
        15 => MapEvent::Returned {
            node: node(name),
            card: card(number(name)),
        },
        16 => MapEvent::TransfersLimited(TransferLimits {
            out_max: u16::try_from(other).ok(),
            ..TransferLimits::default()
        }),
        17 => MapEvent::Left(node(name)),
        18 => MapEvent::TransfersRenewed(BTreeMap::from([(partition, attempt)])),
        _ => MapEvent::HandedOver(BTreeMap::from([(partition, attempt)])),
    }
}

/// Asserts what holds from one map to the next.
fn check_step(
    before: &ClusterMap,
    event: &MapEvent,
    outcome: &Result<u64, MapError>,
    after: &ClusterMap,
) {
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(after, config).unwrap();
    let (read, _): (ClusterMap, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
    assert_eq!(
        &read, after,
        "a map is checked when it is read, and this one passes"
    );
    match outcome {
        Err(_) => assert_eq!(before, after, "what is refused changes nothing"),
        Ok(epoch) => assert_eq!(*epoch, after.epoch()),
    }
    assert_eq!(after.epoch() > before.epoch(), after != before);
    for (node, member) in before.members() {
        match after.members().get(node) {
            Some(now) if now.status != member.status => {
                // One commit may let a node leave that owns nothing.
                let through =
                    (member.status, now.status) == (MemberStatus::Valid, MemberStatus::Exiting);
                assert!(through || member.status.may_become(now.status), "{event:?}");
            }
            Some(_) => {}
            None => assert!(
                matches!(event, MapEvent::PlanCommitted(_) | MapEvent::Left(_))
                    || member.status == MemberStatus::Joining
            ),
        }
    }
    let changed: Vec<PartitionId> = after
        .ring()
        .size()
        .partitions()
        .filter(|p| before.ring().owner(*p) != after.ring().owner(*p))
        .collect();
    match event {
        MapEvent::HandedOver(tries) => assert!(changed.iter().all(|p| tries.contains_key(p))),
        MapEvent::PlanCommitted(_) => {
            let alive = |p: &PartitionId| after.members().contains_key(before.ring().owner(*p));
            assert!(
                !changed.iter().any(alive),
                "nobody who is there loses a partition at once"
            );
        }
        _ => assert!(changed.is_empty()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is asked of a map in whatever order: its invariants hold, and in the end it settles.
    #[test]
    fn every_history_keeps_the_invariants(
        steps in prop::collection::vec((0_u8..26, 0_usize..16, 0_usize..16), 1..80),
    ) {
        let mut map = single(16);
        for (kind, which, other) in steps {
            let event = event(&map, kind, which, other);
            let before = map.clone();
            let outcome = map.apply(&event);
            check_step(&before, &event, &outcome, &map);
            let mut replayed = before;
            prop_assert_eq!(replayed.apply(&event), outcome, "every node computes the same");
            prop_assert_eq!(&replayed, &map);
        }
        hand_over_all(&mut map);
        prop_assert!(map.members().values().all(|member| member.status != MemberStatus::Leaving));
    }

    /// What a plan shows is what the cluster has when all is done.
    #[test]
    fn a_committed_plan_comes_true(
        steps in prop::collection::vec((0_u8..26, 0_usize..16, 0_usize..16), 1..40),
    ) {
        let mut map = single(16);
        for (kind, which, other) in steps {
            let event = event(&map, kind, which, other);
            let _ = map.apply(&event);
        }
        if let Ok(plan) = map.plan() {
            let future = plan.after.future_owners();
            for step in &plan.moves {
                prop_assert_eq!(map.ring().owner(step.partition), &step.from);
                prop_assert_eq!(&future[usize::from(step.partition.number())], &step.to);
            }
            commit(&mut map).unwrap();
            hand_over_all(&mut map);
            prop_assert_eq!(map.ring().owners(), future.as_slice());
            prop_assert!(map.ring().nodes().iter().all(|owner| map.members().contains_key(owner)));
        }
    }
}
