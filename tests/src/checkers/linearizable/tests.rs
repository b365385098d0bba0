use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::checkers::Outcome;
use crate::checkers::history::made::{done, fail, history, read, unknown, write};

/// With a refused write besides, which says that the key is a register even if it is only read.
fn judged(operations: impl IntoIterator<Item = Operation>) -> Linearizable {
    let kind = fail(0, write(0), 0..0);
    Linearizable::check(&history([kind].into_iter().chain(operations)))
}

fn judgement(operations: impl IntoIterator<Item = Operation>) -> Judgement {
    judged(operations).judgement()
}

/// The examples of Herlihy and Wing 1990, figure 1, as registers, and what Porcupine's tests have on top.
#[test]
fn known_histories_are_judged_as_the_books_do() {
    use Judgement::{Holds, Violated};
    let sequential = [done(1, write(1), 0..1), read(2, &[1], 2..3)];
    let stale = [
        done(1, write(1), 0..1),
        done(1, write(2), 2..3),
        read(2, &[1], 4..5),
    ];
    let early = [done(1, write(1), 0..10), read(2, &[1], 1..2)];
    let early_then_gone = [
        done(1, write(1), 0..10),
        read(2, &[1], 1..2),
        read(3, &[], 3..4),
    ];
    let before_it_was_written = [read(2, &[1], 0..1), done(1, write(1), 2..3)];
    let touching = [read(2, &[1], 0..2), done(1, write(1), 2..3)];
    let lost = [done(1, write(1), 0..1), read(2, &[], 2..3)];
    let opposite_orders = [
        done(1, write(1), 0..10),
        done(2, write(2), 0..10),
        read(3, &[1], 11..12),
        read(4, &[2], 13..14),
    ];
    let two_at_once = [
        done(1, write(1), 0..10),
        done(2, write(2), 0..10),
        read(3, &[1, 2], 11..12),
    ];
    assert_eq!(judgement(sequential), Holds);
    assert_eq!(judgement(stale), Violated);
    assert_eq!(judgement(early), Holds);
    assert_eq!(judgement(early_then_gone), Violated);
    assert_eq!(judgement(before_it_was_written), Violated);
    assert_eq!(judgement(touching), Holds);
    assert_eq!(judgement(lost), Violated);
    assert_eq!(judgement(opposite_orders), Violated);
    assert_eq!(judgement(two_at_once), Violated);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late_or_never_but_not_twice() {
    use Judgement::{Holds, Violated};
    let until = |reads: &[(u64, u64)]| {
        let writes = [unknown(1, write(1), 0..3), done(2, write(2), 4..5)];
        let reads = reads
            .iter()
            .map(|(value, at)| read(3, &[*value], *at..*at + 1));
        judgement(writes.into_iter().chain(reads))
    };
    assert_eq!(until(&[(2, 10)]), Holds);
    assert_eq!(until(&[(2, 10), (1, 20)]), Holds);
    assert_eq!(until(&[(1, 10), (1, 20)]), Holds);
    assert_eq!(until(&[(1, 10), (2, 20)]), Violated);
    assert_eq!(until(&[(2, 10), (1, 20), (2, 30)]), Violated);
}

#[test]
fn a_refused_write_must_not_be_seen() {
    let seen = [fail(1, write(1), 0..3), read(2, &[1], 1..2)];
    assert_eq!(judgement(seen), Judgement::Violated);
    let unseen = [fail(1, write(1), 0..3), read(2, &[], 1..5)];
    assert_eq!(judgement(unseen), Judgement::Holds);
}

#[test]
fn a_violation_is_shown_by_its_shortest_window() {
    let mut operations = Vec::new();
    for value in 1..=100 {
        let at = value * 10;
        operations.push(done(1, write(value), at..at + 3));
        operations.push(read(2, &[value], at + 4..at + 6));
    }
    // Long after it was overwritten, the fiftieth value is read once, while a write is open that has nothing to do with it.
    operations.push(unknown(3, write(1000), 799..802));
    operations.push(read(3, &[49], 807..809));
    let verdict = judged(operations);
    assert_eq!(
        verdict.explanation(),
        "keys without an order that explains them: 1\n  \
         \"k\": no order of these 2 explains the last (acknowledged as number 161 of the key)\n    \
         client 2: \"k\" read -> [80]  [804..806] ok\n    \
         client 3: \"k\" read -> [49]  [807..809] ok\n"
    );
    assert!(verdict.to_string().starts_with(
        "C4 linearizable  VIOLATED   1 keys, 201 acked, 1 unknown and 1 failed writes, "
    ));
}

#[test]
fn what_takes_too_long_is_undecided_and_so_is_nothing() {
    let operations = (1..=8).map(|value| done(1, write(value), 0..100 + value));
    let reads = (1..=8).map(|value| read(2, &[value], 100..200));
    let history = history(operations.chain(reads));
    assert_eq!(Linearizable::check(&history).judgement(), Judgement::Holds);
    let hasty = Linearizable::check_within(&history, 3);
    assert_eq!(hasty.judgement(), Judgement::Undecided);
    assert_eq!(hasty.undecided, ["k"]);
    assert_eq!(judgement([]), Judgement::Undecided);
}

/// A register that a seed plays: operations take effect one after the other, ten apart, and overlap by up to `slack`.
fn played(plan: &[Step], slack: u64) -> Vec<Operation> {
    let mut holds: Vec<u64> = Vec::new();
    let mut operations = Vec::new();
    for (number, step) in (1_u64..).zip(plan) {
        let effect = number * 10 + slack;
        let time = effect - step.before % (slack + 1)..effect + step.after % (slack + 1);
        let client = u32::try_from(number % 5).unwrap();
        operations.push(match step.kind {
            0..=3 => read(client, &holds, time),
            4..=6 => {
                holds = vec![number];
                done(client, write(number), time)
            }
            7 => {
                holds = vec![number];
                unknown(client, write(number), time)
            }
            8 => unknown(client, write(number), time),
            _ => fail(client, write(number), time),
        });
    }
    operations
}

#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    before: u64,
    after: u64,
}

fn plan(length: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..10_u8, any::<u64>(), any::<u64>());
    let step = step.prop_map(|(kind, before, after)| Step {
        kind,
        before,
        after,
    });
    prop::collection::vec(step, length)
}

/// A few operations with times and values so close together that anything may come of it.
fn soup() -> impl Strategy<Value = Vec<Operation>> {
    let one = (0..6_u8, 1..4_u64, 0..12_u64, 0..6_u64);
    let one = one.prop_map(|(kind, value, at, length)| {
        let time = at..at + length;
        match kind {
            0 => read(1, &[], time),
            1 | 2 => read(1, &[value], time),
            3 | 4 => done(1, write(value), time),
            _ => unknown(1, write(value), time),
        }
    });
    prop::collection::vec(one, 1..8).prop_map(|mut operations| {
        operations.sort_by_key(|operation| operation.invoked);
        operations
    })
}

/// Wing and Gong's definition without any wit: tries every order.
fn has_an_order(left: &[&Operation], held: &[u64]) -> bool {
    if left.iter().all(|each| each.is_unknown()) {
        return true;
    }
    let end = |each: &Operation| match each.is_unknown() {
        true => u64::MAX,
        false => each.completed.unwrap(),
    };
    let first_end = left.iter().map(|each| end(each)).min().unwrap();
    left.iter().enumerate().any(|(number, next)| {
        if next.invoked > first_end {
            return false;
        }
        let mut rest = left.to_vec();
        rest.remove(number);
        match (&next.action, next.answer()) {
            (Action::Write { value }, _) => has_an_order(&rest, &[*value]),
            (_, Some(Answer::Values(values))) => *values == held && has_an_order(&rest, held),
            _ => unreachable!(),
        }
    })
}

/// What was known of a history at a moment.
fn until(operations: &[Operation], moment: u64) -> Vec<Operation> {
    let begun = operations.iter().filter(|each| each.invoked <= moment);
    let known = begun.cloned().filter_map(|mut each| {
        let ended = each.completed.unwrap() <= moment;
        if !ended && each.action == Action::Read {
            return None;
        }
        if !ended {
            each.outcome = Outcome::Unknown("not yet".into());
        }
        Some(each)
    });
    known.collect()
}

/// Gibbons and Korach's condition (1997), as Golab, Li and Shah put it (2011): for unique values no search is needed. The zone of
/// a value is what lies between its first completion and its last invocation.
fn zones_allow(operations: &[Operation]) -> bool {
    let mut zones: BTreeMap<u64, (u64, u64, u64, bool)> = BTreeMap::new();
    for each in operations.iter().filter(|each| each.is_ok()) {
        let value = match (&each.action, each.answer()) {
            (Action::Write { value }, _) => *value,
            (_, Some(Answer::Values(values))) => values.first().copied().unwrap_or(0),
            _ => unreachable!(),
        };
        let (invoked, completed) = (each.invoked, each.completed.unwrap());
        let wrote = matches!(each.action, Action::Write { .. });
        let zone = zones.entry(value).or_insert((u64::MAX, 0, 0, value == 0));
        zone.0 = zone.0.min(completed);
        zone.1 = zone.1.max(invoked);
        if wrote {
            (zone.2, zone.3) = (invoked, true);
        }
    }
    // The register's emptiness at first is as good as a write before everything.
    if let Some(empty) = zones.get_mut(&0) {
        empty.0 = 0;
    }
    let sound = zones
        .values()
        .all(|(first, _, begin, known)| *known && begin <= first);
    let forward: Vec<_> = zones.values().filter(|zone| zone.0 < zone.1).collect();
    let backward: Vec<_> = zones.values().filter(|zone| zone.0 >= zone.1).collect();
    let apart = |one: usize, other: usize| {
        one == other || forward[one].1 <= forward[other].0 || forward[other].1 <= forward[one].0
    };
    let count = forward.len();
    let disjoint = (0..count).all(|one| (0..count).all(|other| apart(one, other)));
    let outside = backward.iter().all(|inner| {
        !forward
            .iter()
            .any(|outer| outer.0 < inner.1 && inner.0 < outer.1)
    });
    sound && disjoint && outside
}

proptest! {
    #[test]
    fn a_real_register_is_always_accepted(plan in plan(1..120), slack in 0..60_u64) {
        let verdict = judged(played(&plan, slack));
        prop_assert!(verdict.violations.is_empty(), "{}", verdict.explanation());
        prop_assert!(verdict.undecided.is_empty());
    }

    #[test]
    fn a_read_of_what_was_overwritten_before_it_is_caught(
        plan in plan(10..80),
        slack in 0..30_u64,
        chosen in any::<prop::sample::Index>(),
    ) {
        let mut operations = played(&plan, slack);
        let end = operations.iter().filter_map(|each| each.completed).max().unwrap_or(0);
        let writes = operations.iter().filter(|each| each.is_ok() && each.action != Action::Read);
        let written: Vec<u64> = writes.filter_map(|each| each.action.written()).collect();
        if written.is_empty() {
            return Ok(());
        }
        // Whatever was seen before, one more value follows it, so what is read next cannot be older.
        operations.push(done(9, write(1_000), end + 1..end + 2));
        let old = *chosen.get(&written);
        operations.push(read(9, &[old], end + 3..end + 4));
        let verdict = judged(operations.clone());
        prop_assert_eq!(verdict.violations.len(), 1);
        let violation = &verdict.violations[0];
        prop_assert_eq!(violation.prefix, operations.iter().filter(|each| each.is_ok()).count());
        prop_assert_eq!(violation.window.len(), 2, "{}", violation);
    }

    #[test]
    fn the_search_agrees_with_trying_every_order(operations in soup()) {
        let all: Vec<&Operation> = operations.iter().collect();
        let verdict = judged(operations.clone());
        prop_assert_eq!(verdict.violations.is_empty(), has_an_order(&all, &[]));

        let Some(violation) = verdict.violations.first() else {
            return Ok(());
        };
        let window: Vec<&Operation> = violation.window.iter().collect();
        let last = violation.window.last().and_then(|each| each.completed);
        let outside = operations.iter().filter(|each| !violation.window.contains(each));
        let begun = outside.filter(|each| Some(each.invoked) <= last);
        let before = begun.filter_map(|each| each.action.written());
        for held in before.map(|value| vec![value]).chain([vec![]]) {
            prop_assert!(!has_an_order(&window, &held), "from {:?}: {}", held, violation);
        }
        let acked = operations.iter().filter(|each| each.is_ok());
        let mut ends: Vec<u64> = acked.filter_map(|each| each.completed).collect();
        ends.sort_unstable();
        let moment = ends[violation.prefix - 1];
        let bad = until(&operations, moment);
        prop_assert!(!has_an_order(&bad.iter().collect::<Vec<_>>(), &[]));
        if let Some(before) = ends.iter().rfind(|end| **end < moment) {
            let well = until(&operations, *before);
            prop_assert!(has_an_order(&well.iter().collect::<Vec<_>>(), &[]));
        }
    }

    #[test]
    fn the_search_agrees_with_gibbons_and_korach(
        plan in plan(1..40),
        slack in 0..40_u64,
        swaps in prop::collection::vec((any::<prop::sample::Index>(), 0..40_u64), 0..3),
    ) {
        let mut operations = played(&plan, slack);
        operations.retain(Operation::is_ok);
        if operations.is_empty() {
            return Ok(());
        }
        for (at, value) in swaps {
            let each = at.get(&operations).clone();
            if each.action == Action::Read {
                let number = at.index(operations.len());
                operations[number].outcome = Outcome::Ok(Answer::Values(vec![value; usize::from(value > 0)]));
            }
        }
        let verdict = judged(operations.clone());
        prop_assert_eq!(verdict.violations.is_empty(), zones_allow(&operations), "{}", verdict.explanation());
    }
}

#[test]
fn thousands_of_operations_of_a_few_clients_take_few_steps() {
    let plan: Vec<Step> = (0..6_000_u64)
        .map(|number| Step {
            kind: u8::try_from(number * number % 97 % 10).unwrap(),
            before: number * 7919,
            after: number * 104_729,
        })
        .collect();
    let verdict = judged(played(&plan, 50));
    assert!(verdict.violations.is_empty() && verdict.undecided.is_empty());
    assert!(verdict.acked > 4_000, "{verdict}");
    assert!(verdict.unknown > 500, "{verdict}");
    assert!(verdict.steps < 200_000, "{verdict}");
}
