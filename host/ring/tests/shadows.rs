//! What is made of commands that two versions were given.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vnode_ring::rollout::shadow::{
    Compared, Difference, Expected, Pace, Patience, Side, Tally, breach, slower,
};
use vnode_ring::rollout::times::Times;

fn seen(command: &str, compared: u64, differ: u64) -> BTreeMap<String, Compared> {
    let tally = Tally {
        compared,
        differ,
        replies: differ,
        ..Tally::default()
    };
    let example = (differ > 0).then(|| Difference {
        command: command.into(),
        key: "k7".into(),
        what: Side::Reply,
        running: "6".into(),
        shadow: "5".into(),
    });
    let compared = Compared {
        tally,
        example,
        ..Compared::default()
    };
    BTreeMap::from([(command.to_owned(), compared)])
}

#[test]
fn a_breach_names_the_command_and_an_example() {
    let mut all = seen("ADD", 1_000_000, 0);
    all.extend(seen("GET", 40, 4));
    let why = breach(&all, &Expected::Nothing, 1).unwrap();
    assert_eq!(
        why,
        "4 of 40 GET did not end as with the old version (GET k7: answers 6, the old version 5)"
    );
}

#[test]
fn what_is_expected_or_within_the_threshold_is_no_breach() {
    let all = seen("GET", 40, 4);
    assert_eq!(breach(&all, &Expected::Anything, 0), None);
    let of = |name: &str| Expected::Of(BTreeSet::from([name.to_owned()]));
    assert_eq!(breach(&all, &of("get"), 0), None);
    assert!(breach(&all, &of("SET"), 0).is_some());
    assert_eq!(breach(&all, &Expected::Nothing, 100), None);
    assert!(breach(&all, &Expected::Nothing, 99).is_some());
    assert_eq!(
        breach(&seen("GET", 2, 2), &Expected::Nothing, 0),
        None,
        "two are too few"
    );
}

/// Calls of GET with their times in both versions, nanoseconds.
fn timed(pairs: &[(u64, u64)]) -> BTreeMap<String, Compared> {
    let mut compared = Compared::default();
    for (running, shadow) in pairs {
        compared.running.add(Duration::from_nanos(*running));
        compared.shadow.add(Duration::from_nanos(*shadow));
    }
    BTreeMap::from([("GET".to_owned(), compared)])
}

#[test]
fn one_that_takes_longer_for_most_of_a_command_is_too_slow() {
    let three_times = timed(&[(6_000, 2_000); 500]);
    assert_eq!(
        slower(&three_times, 250).unwrap(),
        "5 of 100 GET within 6.1 us in the guest, and of the same in the old version within 2.0 us"
    );
    assert_eq!(slower(&three_times, 310), None);
    assert_eq!(slower(&timed(&[(6_000, 2_000); 499]), 250), None, "too few");
    let fast = timed(&[(960, 100); 500]);
    assert_eq!(slower(&fast, 250), None, "fast all the same");
    let half = [vec![(190_000, 3_000); 260], vec![(3_000, 3_000); 240]].concat();
    let why = slower(&timed(&half), 250).unwrap();
    assert!(why.starts_with("50 of 100 GET"), "{why}");
    let some = [vec![(190_000, 3_000); 240], vec![(3_000, 3_000); 260]].concat();
    assert_eq!(slower(&timed(&some), 250), None, "no more than half");
    let beyond = timed(&[(1_000_000_000, 1_000); 500]);
    assert!(slower(&beyond, 2_000).is_some());
    assert_eq!(slower(&beyond, 200_000_000), None, "the setting for never");
}

/// What was seen of versions of the same logic, of which the one on the canaries finds all caches cold: half of its calls take twice
/// and a half as long, the fastest do not.
#[test]
fn an_equal_version_that_finds_caches_cold_is_not_too_slow() {
    let seen = [
        (2_400, 1_500),
        (3_700, 1_600),
        (5_700, 2_500),
        (8_300, 3_400),
        (11_800, 5_000),
    ];
    let pairs: Vec<_> = seen.into_iter().cycle().take(500).collect();
    assert_eq!(slower(&timed(&pairs), 250), None);
}

proptest! {
    #[test]
    fn percentiles_of_sums_are_those_of_all_calls(
        one in vec(1..u64::MAX / 2048, 1..200),
        other in vec(1..2_000_000_u64, 1..200),
        percent in 0..=100_u64,
    ) {
        let times = |calls: &[u64]| {
            let mut times = Times::default();
            calls.iter().for_each(|ns| times.add(Duration::from_nanos(*ns)));
            times
        };
        let both = times(&one).and(&times(&other));
        let mut all = [one, other].concat();
        all.sort_unstable();
        prop_assert_eq!(both.count(), all.len() as u64);
        let rank = (all.len() as u64 * percent).div_ceil(100).max(1) - 1;
        let is = all[usize::try_from(rank).unwrap()];
        let said = u64::try_from(both.within(percent).unwrap().as_nanos()).unwrap();
        prop_assert!(said >= is && said - is <= is / 16, "{said} for {is}");
    }
}

#[test]
fn a_shadow_that_fails_now_and_then_is_kept_and_one_that_fails_always_is_not() {
    let mut patience = Patience::default();
    for _ in 0..100 {
        patience.fail();
        assert!(!patience.is_over());
        patience.succeed(1000);
    }
    (0..3).for_each(|_| patience.fail());
    assert!(patience.is_over());
    patience.succeed(1_000_000);
    assert!(patience.is_over(), "what was given up stays so");
}

proptest! {
    /// More of the same is judged the same, and no judgement comes from nothing.
    #[test]
    fn judgements_do_not_hang_on_how_counts_are_split(
        parts in vec((0_u64..50, 0_u64..50), 1..6),
        per_mille in 0_u64..1000,
    ) {
        let parts: Vec<_> = parts.into_iter().map(|(compared, differ)| seen("GET", compared + differ, differ)).collect();
        let whole: u64 = parts.iter().map(|part| part["GET"].tally.compared).sum();
        let differ: u64 = parts.iter().map(|part| part["GET"].tally.differ).sum();
        let joined = parts.into_iter().fold(Compared::default(), |all, mut part| {
            all.and(part.remove("GET").unwrap_or_default())
        });
        prop_assert_eq!((joined.tally.compared, joined.tally.differ), (whole, differ));
        let joined = BTreeMap::from([("GET".to_owned(), joined)]);
        let judged = breach(&joined, &Expected::Nothing, per_mille);
        prop_assert_eq!(judged.is_some(), differ >= 3 && differ * 1000 > whole * per_mille);
    }

    /// However the commands come, no second has more than it may.
    #[test]
    fn a_pace_is_kept_in_each_second(
        per_second in 0_u32..20,
        calls in vec((0_u64..2, 0_usize..10), 1..60),
    ) {
        let mut pace = Pace::new(per_second);
        let mut taken: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let mut second = 1;
        for (later, wanted) in calls {
            second += later;
            let now = pace.take(second, wanted);
            let (took, asked) = taken.entry(second).or_default();
            *took += now;
            *asked += wanted;
        }
        for (took, asked) in taken.values() {
            prop_assert_eq!(*took, (*asked).min(per_second as usize));
        }
    }
}
