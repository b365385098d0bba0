//! Laws of rollouts: which partition runs what, in which order versions change, and when they may not.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vnode_ring::rollout::gate::{Sample, Thresholds, Verdict, judge};
use vnode_ring::rollout::shadow::Expected;
use vnode_ring::{
    Addresses, Card, ClusterId, ClusterMap, GuestCard, HashId, MapError, MapEvent, NodeName, Order,
    PartitionId, Release, Ring, RingSize, Rollout, RolloutError, RolloutEvent, Stage, Terms,
};

const KV: &str = "kv";

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn release(version: &str) -> Release {
    Release {
        schema_stores_from: 1,
        digest: format!("digest of {version}"),
        version: version.into(),
        schema_reads_from: 1,
        schema_writes: 1,
        bytes: 1000,
    }
}

fn card(number: u64, version: &str) -> Card {
    let release = release(version);
    let guest = GuestCard {
        version: release.version,
        digest: release.digest,
    };
    Card {
        number,
        addresses: Addresses::default(),
        guests: BTreeMap::from([(KV.into(), guest)]),
    }
}

/// A settled cluster of nodes that serve version 1.
fn cluster(partitions: u32, names: &[&str]) -> ClusterMap {
    let size = RingSize::new(partitions).unwrap();
    let first = card(0, "1");
    let id = ClusterId([7; 16]);
    let mut map = ClusterMap::new(id, 3, size, HashId::V1, node(names[0]), first, None);
    for (number, name) in names.iter().enumerate().skip(1) {
        let event = MapEvent::JoinStaged {
            node: node(name),
            card: card(number as u64, "1"),
            size,
            hash: HashId::V1,
            location: None,
        };
        map.apply(&event).unwrap();
    }
    if names.len() > 1 {
        let plan = map.plan().unwrap().id;
        map.apply(&MapEvent::PlanCommitted(plan)).unwrap();
    }
    while let Some((&partition, transfer)) = map.transfers().iter().next() {
        let tries = BTreeMap::from([(partition, transfer.attempt)]);
        map.apply(&MapEvent::HandedOver(tries)).unwrap();
    }
    map
}

fn terms() -> Terms {
    Terms {
        n: 3,
        w: 2,
        canary_percent: 5,
        all_at_once: false,
        soak_ms: 0,
        forced: false,
        expected: Expected::Nothing,
    }
}

fn begin(from: &str, to: &str, terms: Terms) -> RolloutEvent {
    RolloutEvent::Begun {
        from: release(from),
        to: release(to),
        terms,
        by: node("a"),
    }
}

fn happen(map: &mut ClusterMap, event: RolloutEvent) -> Result<u64, RolloutError> {
    let service = KV.to_owned();
    map.apply(&MapEvent::Rollout { service, event })
        .map_err(|error| match error {
            MapError::Rollout(error) => error,
            other => panic!("{other}"),
        })
}

fn rollout(map: &ClusterMap) -> &Rollout {
    map.versions()[KV].rollout().unwrap()
}

/// Every member reports the present step.
fn report_all(map: &mut ClusterMap) {
    let names: Vec<NodeName> = map.members().keys().cloned().collect();
    for name in names {
        report(map, name.as_str(), Ok(())).unwrap();
    }
}

fn report(
    map: &mut ClusterMap,
    name: &str,
    outcome: Result<(), String>,
) -> Result<u64, RolloutError> {
    let (id, step) = (rollout(map).id, rollout(map).step);
    let node = node(name);
    let event = RolloutEvent::Reported {
        id,
        step,
        node,
        outcome,
    };
    happen(map, event)
}

fn advance(map: &mut ClusterMap) -> Result<u64, RolloutError> {
    let (id, step) = (rollout(map).id, rollout(map).step);
    let unreachable = BTreeSet::new();
    let event = RolloutEvent::Advanced {
        id,
        step,
        unreachable,
    };
    happen(map, event)
}

fn roll_back(map: &mut ClusterMap) -> Result<u64, RolloutError> {
    let id = rollout(map).id;
    let why = "it is slow".into();
    happen(map, RolloutEvent::RolledBack { id, why })
}

fn finalize(map: &mut ClusterMap) -> Result<u64, RolloutError> {
    let id = rollout(map).id;
    happen(map, RolloutEvent::Finalized { id })
}

/// How many partitions run each version.
fn running(map: &ClusterMap) -> BTreeMap<String, usize> {
    let mut running = BTreeMap::new();
    for partition in map.ring().size().partitions() {
        let version = &map.assigned(KV, partition).unwrap().version;
        *running.entry(version.clone()).or_default() += 1;
    }
    running
}

#[test]
fn a_rollout_goes_by_its_stages_and_is_final_when_the_operator_says_so() {
    let mut map = cluster(64, &["a", "b", "c"]);
    assert_eq!(
        map.assigned(KV, PartitionId::from_id(0)),
        None,
        "nothing was agreed"
    );
    happen(&mut map, begin("1", "2", terms())).unwrap();
    let mut seen = Vec::new();
    loop {
        let stage = rollout(&map).stage;
        seen.push((
            stage.to_string(),
            running(&map).get("2").copied().unwrap_or(0),
        ));
        if stage == Stage::Done {
            break;
        }
        let missing = advance(&mut map).unwrap_err();
        assert!(
            matches!(missing, RolloutError::NotReady { .. }),
            "{missing}"
        );
        report_all(&mut map);
        advance(&mut map).unwrap();
    }
    let seen: Vec<(&str, usize)> = seen
        .iter()
        .map(|(stage, count)| (&**stage, *count))
        .collect();
    assert_eq!(
        seen,
        [
            ("distributing", 0),
            ("canary", 3),
            ("wave 25%", 16),
            ("wave 50%", 20),
            ("wave 100%", 64),
            ("done", 64)
        ],
        "a quorum of two of three leaves a third of the ring to the waves before the last"
    );
    assert_eq!(map.versions()[KV].current().version, "1");
    finalize(&mut map).unwrap();
    assert_eq!(map.versions()[KV].current().version, "2");
    assert_eq!(map.versions()[KV].past()[0].version, "1");
    assert_eq!(running(&map), BTreeMap::from([("2".into(), 64)]));
    assert!(
        roll_back(&mut map).is_err(),
        "there is nothing to go back from"
    );
}

#[test]
fn the_old_version_runs_beside_the_new_one_on_the_canaries_until_all_have_moved() {
    let mut map = cluster(64, &["a", "b", "c"]);
    happen(&mut map, begin("1", "2", terms())).unwrap();
    assert_eq!(rollout(&map).shadowed(), []);
    let canaries = usize::from(rollout(&map).order().canaries);
    for stage in [Stage::Canary, Stage::Wave(25)] {
        report_all(&mut map);
        advance(&mut map).unwrap();
        assert_eq!(rollout(&map).stage, stage);
        let moved = rollout(&map).moved();
        assert_eq!(rollout(&map).shadowed(), &moved[..canaries]);
    }
    roll_back(&mut map).unwrap();
    assert_eq!(rollout(&map).shadowed(), []);
}

#[test]
fn an_old_version_that_cannot_read_what_the_new_one_stores_does_not_run_beside_it() {
    let mut map = cluster(8, &["a"]);
    let forced = Terms {
        forced: true,
        ..terms()
    };
    let mut event = begin("1", "2", forced);
    if let RolloutEvent::Begun { to, .. } = &mut event {
        (to.schema_writes, to.schema_stores_from) = (2, 2);
    }
    happen(&mut map, event).unwrap();
    report_all(&mut map);
    advance(&mut map).unwrap();
    assert_eq!(rollout(&map).stage, Stage::Canary);
    assert_eq!(rollout(&map).shadowed(), []);
}

#[test]
fn all_at_once_has_no_canaries() {
    let mut map = cluster(8, &["a"]);
    let terms = Terms {
        all_at_once: true,
        ..terms()
    };
    happen(&mut map, begin("1", "2", terms)).unwrap();
    report_all(&mut map);
    advance(&mut map).unwrap();
    assert_eq!(running(&map), BTreeMap::from([("2".into(), 8)]));
    assert_eq!(rollout(&map).stages_left(), [Stage::Done]);
    assert_eq!(rollout(&map).shadowed(), []);
}

#[test]
fn only_one_rollout_of_a_service_is_under_way_and_a_new_one_makes_the_one_before_final() {
    let mut map = cluster(8, &["a"]);
    let at_once = Terms {
        all_at_once: true,
        ..terms()
    };
    happen(&mut map, begin("1", "2", at_once.clone())).unwrap();
    let refused = happen(&mut map, begin("1", "3", at_once.clone())).unwrap_err();
    assert!(
        matches!(refused, RolloutError::UnderWay { .. }),
        "{refused}"
    );
    assert!(matches!(
        finalize(&mut map),
        Err(RolloutError::NotDone { .. })
    ));
    report_all(&mut map);
    advance(&mut map).unwrap();
    report_all(&mut map);
    advance(&mut map).unwrap();
    happen(&mut map, begin("2", "3", at_once)).unwrap();
    assert_eq!(map.versions()[KV].current().version, "2");
    assert_eq!(rollout(&map).to.version, "3");
}

#[test]
fn a_rollout_begins_with_what_runs() {
    let mut map = cluster(8, &["a", "b"]);
    let refused = happen(&mut map, begin("7", "2", terms())).unwrap_err();
    assert!(
        matches!(refused, RolloutError::OtherVersion { .. }),
        "{refused}"
    );
    let refused = happen(&mut map, begin("1", "1", terms())).unwrap_err();
    assert!(matches!(refused, RolloutError::Same { .. }), "{refused}");
}

#[test]
fn schemas_that_cannot_be_read_need_force() {
    for (reads_from, writes) in [(2, 2), (1, 2)] {
        let mut map = cluster(8, &["a"]);
        let event = |forced| RolloutEvent::Begun {
            from: release("1"),
            to: Release {
                schema_reads_from: reads_from,
                schema_writes: writes,
                schema_stores_from: writes,
                ..release("2")
            },
            terms: Terms { forced, ..terms() },
            by: node("a"),
        };
        let refused = happen(&mut map, event(false)).unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        happen(&mut map, event(true)).unwrap();
    }
}

fn ceiling(map: &ClusterMap) -> u32 {
    map.versions()["kv"].ceiling()
}

#[test]
fn nothing_newer_than_the_old_version_reads_is_stored_until_a_rollout_is_final() {
    let mut map = cluster(8, &["a"]);
    // It migrates back, so it needs no force.
    let to = Release {
        schema_writes: 2,
        schema_stores_from: 1,
        ..release("2")
    };
    let begun = |from: &Release, to: &Release| RolloutEvent::Begun {
        from: from.clone(),
        to: to.clone(),
        terms: Terms {
            all_at_once: true,
            ..terms()
        },
        by: node("a"),
    };
    happen(&mut map, begun(&release("1"), &to)).unwrap();
    for _ in 0..2 {
        assert_eq!(ceiling(&map), 1);
        report_all(&mut map);
        advance(&mut map).unwrap();
    }
    assert_eq!((rollout(&map).stage, ceiling(&map)), (Stage::Done, 1));
    let id = rollout(&map).id;
    happen(&mut map, RolloutEvent::Finalized { id }).unwrap();
    assert_eq!(ceiling(&map), 2);
    // Now there are values that the first version does not read.
    let refused = happen(&mut map, begun(&to, &release("1"))).unwrap_err();
    assert!(
        matches!(
            refused,
            RolloutError::Older {
                reads: 1,
                stored: 2,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_node_that_fails_sends_everything_back() {
    let mut map = cluster(16, &["a", "b", "c"]);
    happen(&mut map, begin("1", "2", terms())).unwrap();
    report_all(&mut map);
    advance(&mut map).unwrap();
    assert!(rollout(&map).has_begun());
    report(&mut map, "b", Err("init refused".into())).unwrap();
    assert_eq!(rollout(&map).stage, Stage::RolledBack);
    assert_eq!(rollout(&map).why.as_deref(), Some("b: init refused"));
    assert_eq!(running(&map), BTreeMap::from([("1".into(), 16)]));
    // The nodes still have to go back, and say when they have.
    assert!(!rollout(&map).has_reported(&node("b")));
    report_all(&mut map);
    assert!(rollout(&map).has_reported(&node("b")));
    happen(&mut map, begin("1", "2", terms())).unwrap();
}

#[test]
fn nothing_advances_while_it_is_paused_and_a_late_word_changes_nothing() {
    let mut map = cluster(16, &["a", "b", "c"]);
    happen(&mut map, begin("1", "2", terms())).unwrap();
    report_all(&mut map);
    let id = rollout(&map).id;
    let why = "lunch".to_owned();
    happen(&mut map, RolloutEvent::Paused { id, why }).unwrap();
    assert!(matches!(
        advance(&mut map),
        Err(RolloutError::Paused { .. })
    ));
    happen(&mut map, RolloutEvent::Resumed { id }).unwrap();
    advance(&mut map).unwrap();
    let late = RolloutEvent::Advanced {
        id,
        step: 0,
        unreachable: BTreeSet::new(),
    };
    let before = map.clone();
    assert!(matches!(
        happen(&mut map, late),
        Err(RolloutError::Stale { .. })
    ));
    let other = RolloutEvent::RolledBack {
        id: id + 1,
        why: String::new(),
    };
    assert!(happen(&mut map, other).is_err());
    assert_eq!(map, before);
}

#[test]
fn a_rollout_is_not_made_final_while_partitions_move() {
    let mut map = cluster(16, &["a", "b"]);
    let at_once = Terms {
        all_at_once: true,
        ..terms()
    };
    happen(&mut map, begin("1", "2", at_once)).unwrap();
    for _ in 0..2 {
        report_all(&mut map);
        advance(&mut map).unwrap();
    }
    let joins = MapEvent::JoinStaged {
        node: node("c"),
        card: card(9, "1"),
        size: map.ring().size(),
        hash: HashId::V1,
        location: None,
    };
    map.apply(&joins).unwrap();
    let plan = map.plan().unwrap().id;
    map.apply(&MapEvent::PlanCommitted(plan)).unwrap();
    assert!(matches!(
        finalize(&mut map),
        Err(RolloutError::Transfers { .. })
    ));
}

fn owners() -> impl Strategy<Value = Vec<NodeName>> {
    (3_u32..8, 1_usize..7).prop_flat_map(|(bits, nodes)| {
        prop::collection::vec(0..nodes, 1 << bits)
            .prop_map(|owners| owners.iter().map(|at| node(&format!("n{at}"))).collect())
    })
}

proptest! {
    /// Every partition once; no preference list with two canaries, no node with two; up to `spared`, every preference list keeps
    /// its quorum of the old version.
    #[test]
    fn canaries_are_apart_and_quorums_are_spared(
        owners in owners(),
        n in 1_u16..6,
        w in 1_u16..6,
        canaries_max in 1_u16..20,
    ) {
        let w = w.min(n);
        let size = owners.len();
        let ring_size = RingSize::new(u32::try_from(size).unwrap()).unwrap();
        let ring = Ring::new(ring_size, HashId::V1, owners.clone(), 1).unwrap();
        let order = Order::new(&ring, n, w, canaries_max);
        let all: BTreeSet<_> = order.partitions.iter().collect();
        prop_assert_eq!((all.len(), order.partitions.len()), (size, size));
        let in_lists = |moved: &[PartitionId]| -> Vec<usize> {
            let moved: BTreeSet<usize> = moved.iter().map(|p| usize::from(p.number())).collect();
            let list = |first: usize| (0..usize::from(n).min(size)).map(move |at| (first + at) % size);
            (0..size).map(|first| list(first).filter(|at| moved.contains(at)).count()).collect()
        };
        let canaries = &order.partitions[..usize::from(order.canaries)];
        prop_assert!((1..=canaries_max).contains(&order.canaries));
        prop_assert!(in_lists(canaries).into_iter().all(|count| count <= 1));
        let of_nodes: BTreeSet<_> = canaries.iter().map(|p| &owners[usize::from(p.number())]).collect();
        prop_assert_eq!(of_nodes.len(), canaries.len());
        let spared = &order.partitions[..usize::from(order.spared)];
        let most = usize::from((n - w).max(1));
        prop_assert!(in_lists(spared).into_iter().all(|count| count <= most));
    }

    /// Whatever happens in whatever order: a partition that has moved stays moved until all go back, an over rollout assigns one
    /// version, and a map survives being written down.
    #[test]
    fn moved_partitions_stay_moved(steps in prop::collection::vec(0_u8..7, 1..60)) {
        let mut map = cluster(16, &["a", "b", "c"]);
        let (mut next, mut current) = (2, "1".to_owned());
        let mut moved: BTreeSet<PartitionId> = BTreeSet::new();
        for step in steps {
            let before = map.versions().get(KV).and_then(|versions| versions.rollout().cloned());
            let _may_be_refused = match (step, &before) {
                (0, _) => {
                    let begun = happen(&mut map, begin(&current, &next.to_string(), terms()));
                    next += usize::from(begun.is_ok());
                    begun
                }
                (_, None) => continue,
                (1, _) => { report_all(&mut map); continue }
                (2 | 3, _) => advance(&mut map),
                (4, _) => roll_back(&mut map),
                (5, _) => finalize(&mut map),
                _ => report(&mut map, "b", Err("no".into())),
            };
            let Some(versions) = map.versions().get(KV) else { continue };
            let now = versions.rollout().unwrap();
            let is: BTreeSet<PartitionId> = map
                .ring()
                .size()
                .partitions()
                .filter(|partition| *versions.assigned(*partition) == now.to)
                .collect();
            if before.is_some_and(|before| before.id == now.id) && now.stage != Stage::RolledBack {
                prop_assert!(is.is_superset(&moved));
            }
            match now.stage {
                Stage::Distributing | Stage::RolledBack => prop_assert!(is.is_empty()),
                Stage::Done | Stage::Finalized => prop_assert_eq!(is.len(), 16),
                Stage::Canary | Stage::Wave(_) => prop_assert!(!is.is_empty()),
            }
            moved = is;
            current = match now.stage {
                Stage::Done => now.to.version.clone(),
                _ => versions.current().version.clone(),
            };
            prop_assert!(versions.past().len() <= 3);
        }
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(&map, config).unwrap();
        let (read, _) = bincode::serde::decode_from_slice::<ClusterMap, _>(&bytes, config).unwrap();
        prop_assert_eq!(read, map);
    }
}

const THRESHOLDS: Thresholds = Thresholds {
    commands_min: 1000,
    traps_per_mille: 0,
    errors_per_mille: 1,
    p99_percent: 150,
    memory_percent: 80,
};

/// So many commands, of which so many failed and trapped, all of which took as long as the bucket of that number says.
fn sample(commands: u64, errors: u64, traps: u64, bucket: usize) -> Sample {
    let mut sample = Sample {
        commands,
        errors,
        traps,
        ..Sample::default()
    };
    sample.durations[bucket] = commands;
    sample
}

#[test]
fn the_gate_tells_good_from_bad_and_from_too_little() {
    let old = sample(10_000, 10, 0, 2);
    let verdict = |new: Sample| judge(&new, &old, &THRESHOLDS);
    let breach = |new: Sample, word: &str| match verdict(new) {
        Verdict::Breach(why) => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(verdict(sample(1000, 2, 0, 2)), Verdict::Good);
    assert_eq!(
        verdict(sample(1000, 0, 0, 4)),
        Verdict::Good,
        "a millisecond is not slow"
    );
    let tens = sample(10_000, 10, 0, 7);
    assert_eq!(
        judge(&sample(1000, 0, 0, 8), &tens, &THRESHOLDS),
        Verdict::Good,
        "both may be just about ten milliseconds"
    );
    assert!(matches!(
        judge(&sample(1000, 0, 0, 9), &tens, &THRESHOLDS),
        Verdict::Breach(_)
    ));
    assert_eq!(
        judge(
            &sample(1000, 0, 0, 14),
            &old.without_durations(),
            &THRESHOLDS
        ),
        Verdict::Good,
        "nothing is known of how fast the old version is now"
    );
    let few = Verdict::TooLittle {
        commands: 999,
        wanted: 1000,
    };
    assert_eq!(verdict(sample(999, 1, 0, 2)), few);
    breach(sample(5, 0, 1, 2), "trapped");
    breach(sample(1000, 3, 0, 2), "failed");
    breach(sample(1000, 0, 0, 8), "99 of 100");
    breach(sample(1000, 0, 0, 14), "more than a second");
    // What the old version does as well is not held against the new one.
    let old = sample(10_000, 500, 100, 9);
    assert_eq!(
        judge(&sample(1000, 50, 10, 9), &old, &THRESHOLDS),
        Verdict::Good
    );
}

#[test]
fn a_version_that_needs_much_more_memory_goes_back() {
    let uses = |memory_percent| Sample {
        memory_percent,
        ..sample(2000, 0, 0, 3)
    };
    let judged = |new, old| judge(&uses(new), &uses(old), &THRESHOLDS);
    assert_eq!(judged(80, 10), Verdict::Good);
    assert!(matches!(judged(81, 10), Verdict::Breach(why) if why.contains("81 %")));
    // The old version needs as much.
    assert_eq!(judged(81, 81), Verdict::Good);
    // Of all instances the largest counts, and what it has now.
    assert_eq!(uses(90).and(&uses(20)).memory_percent, 90);
    assert_eq!(uses(90).since(&uses(80)).memory_percent, 90);
}

#[test]
fn what_a_restarted_node_has_forgotten_is_nothing() {
    let before = sample(100, 3, 2, 1);
    let after = sample(40, 1, 0, 1).since(&before);
    assert_eq!(after, Sample::default());
    let both = sample(10, 1, 0, 1).and(&sample(5, 0, 1, 3));
    assert_eq!((both.commands, both.errors, both.traps), (15, 1, 1));
    assert_eq!(both.p99_us(), Some(500));
}
