use proptest::prelude::*;

use super::*;
use crate::checkers::history::made::{
    add, count, delete, done, fail, history, put, read, unknown, write,
};

fn judged(operations: impl IntoIterator<Item = Operation>) -> Sessions {
    Sessions::check(&history(operations))
}

/// Reads without their client's own write, and reads that went back.
fn figures(operations: impl IntoIterator<Item = Operation>) -> (usize, usize) {
    let verdict = judged(operations);
    (verdict.own_write_missing.len(), verdict.went_back.len())
}

#[test]
fn a_set_shows_the_clients_own_elements_and_all_it_showed_before() {
    let good = [
        done(1, add(1), 0..2),
        read(1, &[1], 3..4),
        done(2, add(2), 3..5),
        // Another client's element need not be there yet.
        read(1, &[1], 6..7),
        read(1, &[1, 2], 8..9),
    ];
    assert_eq!(figures(good.clone()), (0, 0));
    let mut back = good.to_vec();
    back.push(read(1, &[1], 10..11));
    assert_eq!(figures(back), (0, 1));
    let mut forgets = good.to_vec();
    forgets.push(read(2, &[1], 10..11));
    assert_eq!(figures(forgets), (1, 0));
}

#[test]
fn a_write_that_overlaps_was_refused_or_is_unknown_promises_nothing() {
    let operations = [
        done(1, add(1), 0..5),
        read(1, &[], 4..6),
        fail(1, add(2), 6..7),
        unknown(1, add(3), 7..8),
        read(1, &[1], 9..10),
    ];
    assert_eq!(figures(operations), (0, 0));
}

#[test]
fn a_causal_register_shows_a_version_or_what_descends_from_it() {
    let one = done(1, put(1, &[]), 0..2);
    let two = done(2, put(2, &[1]), 3..4);
    let beside = done(3, put(3, &[]), 3..4);
    let seen = |values| {
        figures([
            one.clone(),
            two.clone(),
            beside.clone(),
            read(1, values, 5..6),
        ])
    };
    assert_eq!(seen(&[2]), (0, 0));
    assert_eq!(seen(&[1]), (0, 0));
    assert_eq!(seen(&[3]), (1, 0));
    assert_eq!(seen(&[]), (1, 0));

    let deleted = done(2, delete(4, &[2]), 4..9);
    let gone = [one, two, read(1, &[2], 5..6), deleted, read(1, &[], 7..8)];
    assert_eq!(figures(gone), (0, 0));
}

#[test]
fn a_register_may_show_what_might_be_newer() {
    let own = done(1, write(1), 10..20);
    let older = done(2, write(2), 0..5);
    let perhaps = done(2, write(3), 15..30);
    let late = unknown(2, write(4), 0..3);
    let seen = |values| {
        let writes = [late.clone(), older.clone(), own.clone(), perhaps.clone()];
        figures(writes.into_iter().chain([read(1, values, 40..41)]))
    };
    assert_eq!(seen(&[1]), (0, 0));
    assert_eq!(seen(&[3]), (0, 0));
    assert_eq!(seen(&[4]), (0, 0));
    assert_eq!(seen(&[2]), (1, 0));
    assert_eq!(seen(&[]), (1, 0));
}

#[test]
fn a_count_never_falls_and_has_the_clients_own_increments() {
    let one = || done(1, Action::Increment { by: 1 }, 0..1);
    let seen = |counts: [u64; 2]| {
        let [first, second] = counts;
        figures([
            one(),
            one(),
            count(1, Action::Read, first, 2..3),
            count(1, Action::Read, second, 4..5),
        ])
    };
    assert_eq!(seen([2, 2]), (0, 0));
    assert_eq!(seen([3, 2]), (0, 1));
    assert_eq!(seen([1, 2]), (1, 0));
}

#[test]
fn staleness_is_the_age_of_the_oldest_write_that_a_read_misses() {
    let verdict = judged([
        done(1, add(1), 0..10),
        done(1, add(2), 15..20),
        read(2, &[], 30..31),
        read(2, &[1], 32..33),
        read(2, &[1, 2], 34..35),
        read(2, &[1, 2], 36..37),
    ]);
    assert_eq!(verdict.staleness, [0, 0, 12, 20]);
    let at = [0.5, 0.75, 0.99].map(|share| verdict.staleness_at(share));
    assert_eq!(at, [0, 12, 20]);
    assert_eq!(
        verdict.to_string(),
        "C5 sessions      ok         2 sessions, 4 reads: own write missing 0 of 0 (0.000 %), \
         went back 0 of 3 (0.000 %), staleness p99 20 max 20"
    );
}

#[test]
fn a_regression_is_shown_with_what_it_falls_short_of() {
    let verdict = judged([done(1, add(1), 0..2), read(1, &[], 3..4)]);
    assert_eq!(
        verdict.explanation(),
        "reads without the client's own write: 1\n  \
         client 1: \"k\" read -> []  [3..4] ok\n    after client 1: \"k\" add 1  [0..2] ok\n"
    );
    assert_eq!(judged([]).judgement(), Judgement::Undecided);
}

proptest! {
    #[test]
    fn one_copy_keeps_every_session_and_a_forgetful_one_is_caught(
        clients in prop::collection::vec((1..4_u32, any::<bool>()), 2..60),
        chosen in any::<prop::sample::Index>(),
    ) {
        let mut elements = Vec::new();
        let mut operations = Vec::new();
        for ((client, adds), number) in clients.into_iter().zip(0_u64..) {
            let time = number * 10..number * 10 + 5;
            operations.push(match adds {
                true => {
                    elements.push(number);
                    done(client, add(number), time)
                }
                false => read(client, &elements, time),
            });
        }
        prop_assert_eq!(figures(operations.clone()), (0, 0));

        let writes = operations.iter().filter(|each| each.action != Action::Read);
        let writers: Vec<u32> = writes.map(|each| each.client).collect();
        if writers.is_empty() {
            return Ok(());
        }
        let writer = *chosen.get(&writers);
        operations.push(read(writer, &[], 10_000..10_001));
        prop_assert_eq!(figures(operations).0, 1);
    }
}
