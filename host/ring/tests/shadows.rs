//! What is made of commands that two versions were given.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use vnode_ring::rollout::shadow::{
    Compared, Difference, Expected, Pace, Patience, Side, Tally, breach, slower,
};

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
    BTreeMap::from([(command.to_owned(), Compared { tally, example })])
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

#[test]
fn one_that_takes_longer_for_most_of_a_command_is_too_slow() {
    let took = |pairs: &[(u64, u64)]| {
        let mut tally = Tally::default();
        for (running, shadow) in pairs {
            tally.took(
                Duration::from_micros(*running),
                Duration::from_micros(*shadow),
            );
        }
        let compared = Compared {
            tally,
            example: None,
        };
        BTreeMap::from([("GET".to_owned(), compared)])
    };
    let three_times = took(&[(90, 30); 400]);
    assert_eq!(
        slower(&three_times, 200).unwrap(),
        "400 of 400 GET took more than 200 % of the time that the old version takes for the same"
    );
    assert_eq!(slower(&three_times, 300), None);
    assert_eq!(
        slower(&took(&[(60, 30); 400]), 200),
        None,
        "not more than twice"
    );
    assert_eq!(
        slower(&took(&[(19, 1); 400]), 200),
        None,
        "fast all the same"
    );
    assert_eq!(slower(&took(&[(90, 0); 199]), 200), None, "too few");
    let whims = [vec![(90, 3); 200], vec![(3, 3); 200]].concat();
    assert_eq!(slower(&took(&whims), 200), None, "no more than half");
    let beyond = took(&[(1_000_000, 1); 200]);
    assert!(slower(&beyond, 2000).is_some());
    assert_eq!(slower(&beyond, 1_000_000), None, "the setting for never");
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
        parts in prop::collection::vec((0_u64..50, 0_u64..50), 1..6),
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
        calls in prop::collection::vec((0_u64..2, 0_usize..10), 1..60),
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
