use proptest::prelude::*;

use super::*;
use crate::checkers::history::made::{delete, done, fail, history, put, read, unknown};

fn end(siblings: &[u64]) -> BTreeMap<String, BTreeSet<u64>> {
    BTreeMap::from([("k".into(), siblings.iter().copied().collect())])
}

fn ids(versions: &[Version]) -> Vec<u64> {
    versions.iter().map(|version| version.id).collect()
}

#[test]
fn a_version_may_go_when_one_that_is_there_descends_from_it() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        done(2, put(2, &[1]), 3..5),
        unknown(1, put(3, &[2]), 6..9),
        done(2, put(4, &[2]), 6..9),
    ]);
    for siblings in [&[4][..], &[3, 4]] {
        let verdict = Lineage::check(&history, &end(siblings));
        assert_eq!(verdict.judgement(), Judgement::Holds, "{siblings:?}");
        assert_eq!(verdict.superseded, 2);
    }
    assert_eq!(
        Lineage::check(&history, &end(&[3, 4])).to_string(),
        "C2 lineage       ok         1 keys, 3 acked (2 superseded), 1 unknown, 0 failed, at most 2 siblings: \
         lost 0, resurrected 0, phantom 0, failed yet seen 0, keys not read 0"
    );
}

#[test]
fn last_write_wins_loses_a_concurrent_write() {
    let history = history([done(1, put(1, &[]), 0..2), done(2, put(2, &[]), 0..2)]);
    let verdict = Lineage::check(&history, &end(&[2]));
    assert_eq!(verdict.judgement(), Judgement::Violated);
    assert_eq!(
        verdict.explanation(),
        "acknowledged, gone, and not superseded: 1\n  client 1: \"k\" put 1 after []  [0..2] ok\n"
    );
}

#[test]
fn a_write_that_descends_but_is_not_there_excuses_nothing() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        unknown(2, put(2, &[1]), 3..5),
        fail(2, put(3, &[1]), 6..7),
    ]);
    assert_eq!(ids(&Lineage::check(&history, &end(&[])).lost), [1]);
    let verdict = Lineage::check(&history, &end(&[2]));
    assert_eq!(verdict.judgement(), Judgement::Holds);
}

/// riak_kv 679: a replica lost its data and counts from one again, so what it had counted before hides the new write.
#[test]
fn a_new_write_that_an_old_version_hides_is_lost() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        done(1, put(2, &[1]), 3..5),
        done(1, put(3, &[]), 6..8),
    ]);
    assert_eq!(ids(&Lineage::check(&history, &end(&[2])).lost), [3]);
}

#[test]
fn deletions_explain_absence_and_old_ones_do_not_eat_new_values() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        done(1, delete(2, &[1]), 3..5),
        done(1, put(3, &[]), 6..8),
    ]);
    let verdict = Lineage::check(&history, &end(&[3]));
    assert_eq!(verdict.judgement(), Judgement::Holds);
    // The doomstone: a reaped tombstone came back from a fallback.
    assert_eq!(ids(&Lineage::check(&history, &end(&[])).lost), [3]);
    // The tombstone was reaped too early.
    let verdict = Lineage::check(&history, &end(&[1, 3]));
    assert_eq!(ids(&verdict.resurrected), [1]);
    assert_eq!(
        verdict.explanation(),
        "there again, though superseded: 1\n  client 1: \"k\" put 1 after []  [0..2] ok\n"
    );
}

#[test]
fn a_superseded_version_must_not_stay_beside_its_successor() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        done(2, put(2, &[1]), 3..5),
        unknown(3, put(3, &[2]), 3..5),
    ]);
    let resurrected = |siblings| ids(&Lineage::check(&history, &end(siblings)).resurrected);
    assert_eq!(resurrected(&[1, 2]), [1]);
    assert_eq!(resurrected(&[1, 3]), [1]);
    assert_eq!(resurrected(&[2, 3]), [2]);
    // Without the write of unknown outcome nothing supersedes the second.
    assert!(resurrected(&[2]).is_empty());
}

#[test]
fn what_nobody_wrote_or_what_failed_must_not_be_seen_by_anybody() {
    let history = history([
        done(1, put(1, &[]), 0..2),
        fail(2, put(2, &[]), 0..2),
        read(1, &[1, 2], 3..4),
        done(3, put(3, &[1, 77]), 5..6),
    ]);
    let verdict = Lineage::check(&history, &end(&[3]));
    assert_eq!(ids(&verdict.phantom), [77]);
    assert_eq!(ids(&verdict.failed_present), [2]);
    assert_eq!(verdict.judgement(), Judgement::Violated);
}

#[test]
fn without_evidence_nothing_holds() {
    let one = history([done(1, put(1, &[]), 0..2)]);
    let unread = Lineage::check(&one, &BTreeMap::new());
    assert_eq!(unread.judgement(), Judgement::Undecided);
    assert_eq!(unread.unread, ["k"]);
    let idle = Lineage::check(&history([]), &BTreeMap::new());
    assert_eq!(idle.judgement(), Judgement::Undecided);
}

/// What a client of the model does: which replica it talks to, and whether it writes, deletes, or has the two merge.
#[derive(Clone, Debug)]
enum Move {
    Put { replica: usize, blind: bool },
    Delete { replica: usize },
    Merge,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..2_usize, any::<bool>()).prop_map(|(replica, blind)| Move::Put { replica, blind }),
        1 => (0..2_usize).prop_map(|replica| Move::Delete { replica }),
        2 => Just(Move::Merge),
    ];
    prop::collection::vec(one, 1..40)
}

/// Two replicas of one register that keep, for each version, whether it is there; a version that went never comes back.
#[derive(Clone, Default)]
struct Replica {
    siblings: BTreeSet<u64>,
    known: BTreeSet<u64>,
}

impl Replica {
    fn merged(&self, other: &Replica) -> Replica {
        let keeps = |id: &u64, one: &Replica, other: &Replica| {
            one.siblings.contains(id) && (other.siblings.contains(id) || !other.known.contains(id))
        };
        let all = self.siblings.union(&other.siblings).copied();
        let siblings = all.filter(|id| keeps(id, self, other) || keeps(id, other, self));
        Replica {
            siblings: siblings.collect(),
            known: self.known.union(&other.known).copied().collect(),
        }
    }
}

/// The history of these moves, and the siblings once both replicas have merged.
fn played(moves: &[Move]) -> (History, BTreeSet<u64>) {
    let mut replicas = [Replica::default(), Replica::default()];
    let mut operations = Vec::new();
    for (number, each) in (0_u64..).zip(moves) {
        let time = number * 10..number * 10 + 5;
        match each {
            Move::Merge => {
                let both = replicas[0].merged(&replicas[1]);
                replicas = [both.clone(), both];
            }
            Move::Put { replica, blind } => {
                let replica = &mut replicas[*replica];
                let read: Vec<u64> = match blind {
                    true => Vec::new(),
                    false => replica.siblings.iter().copied().collect(),
                };
                replica.siblings.retain(|id| !read.contains(id));
                replica.siblings.insert(number);
                replica.known.insert(number);
                operations.push(done(1, put(number, &read), time));
            }
            Move::Delete { replica } => {
                let siblings = std::mem::take(&mut replicas[*replica].siblings);
                let read: Vec<u64> = siblings.into_iter().collect();
                operations.push(done(1, delete(number, &read), time));
            }
        }
    }
    (
        history(operations),
        replicas[0].merged(&replicas[1]).siblings,
    )
}

proptest! {
    #[test]
    fn a_causal_register_passes_until_it_drops_or_revives_a_version(
        moves in moves(),
        chosen in any::<prop::sample::Index>(),
    ) {
        let (history, siblings) = played(&moves);
        if history.operations.is_empty() {
            return Ok(());
        }
        let judged = |siblings: &BTreeSet<u64>| {
            Lineage::check(&history, &BTreeMap::from([("k".to_owned(), siblings.clone())]))
        };
        let verdict = judged(&siblings);
        prop_assert_eq!(verdict.judgement(), Judgement::Holds, "{}", verdict.explanation());

        let puts = history.operations.iter().filter(|each| matches!(each.action, Action::Put { .. }));
        let written: Vec<u64> = puts.filter_map(|each| each.action.written()).collect();
        if written.is_empty() {
            return Ok(());
        }
        let chosen = *chosen.get(&written);
        let mut changed = siblings.clone();
        if changed.remove(&chosen) {
            prop_assert!(ids(&judged(&changed).lost).contains(&chosen));
        } else {
            changed.insert(chosen);
            prop_assert_eq!(ids(&judged(&changed).resurrected), [chosen]);
        }
    }
}
