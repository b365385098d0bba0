use super::*;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn which(partition: u16) -> Which {
    Which {
        kind: Kind::Ownership,
        partition: PartitionId::from_id(partition),
        service: None,
    }
}

fn amount(objects: u64) -> Amount {
    let bytes = 100 * objects;
    Amount { objects, bytes }
}

fn transfers() -> Transfers {
    Transfers::new(Limits {
        out_max: 2,
        in_max: 1,
        bytes_per_second: 0,
    })
}

fn begin(all: &mut Transfers, partition: u16, now: u64) -> Result<(), String> {
    let (a, b) = (node("a"), node("b"));
    all.begin(which(partition), (&a, &b), 1, amount(10), now)
}

#[test]
fn no_more_are_sent_at_once_than_may_be_and_each_says_why_it_waits() {
    let mut all = transfers();
    assert_eq!(begin(&mut all, 0, 5), Ok(()));
    assert_eq!(begin(&mut all, 1, 5), Ok(()));
    let why = begin(&mut all, 2, 5).unwrap_err();
    assert_eq!(why, "this node sends 2 of 2 at once");
    assert_eq!(all.all()[&which(2)].reason.as_ref(), Some(&why));
    assert!(!all.all()[&which(2)].is_running());
    all.rest(which(0));
    assert_eq!(begin(&mut all, 2, 6), Ok(()));
    all.set_own_limits(TransferLimits {
        out_max: Some(3),
        ..TransferLimits::default()
    });
    assert_eq!(begin(&mut all, 3, 6), Ok(()));
}

#[test]
fn who_pauses_pauses_both_ways_until_he_resumes() {
    let mut all = transfers();
    let paused = TransferLimits {
        paused: true,
        ..TransferLimits::default()
    };
    all.set_cluster_limits(paused);
    assert!(begin(&mut all, 0, 5).unwrap_err().contains("paused"));
    let nothing = (Amount::default(), Amount::default());
    assert!(all.receive(&node("c"), which(9), nothing, 5).is_err());
    all.set_cluster_limits(TransferLimits::default());
    assert_eq!(begin(&mut all, 0, 6), Ok(()));
    assert_eq!(all.receive(&node("c"), which(9), nothing, 6), Ok(()));
}

#[test]
fn it_goes_on_where_it_was_unless_it_goes_elsewhere() {
    let mut all = transfers();
    begin(&mut all, 0, 0).unwrap();
    assert_eq!(all.cursor(which(0), 0), Some(Vec::new()));
    all.enter(which(0), Phase::Copying, 0);
    all.moved(which(0), amount(4), Some((0, Some(b"here".to_vec()))), 1);
    all.fail(which(0), "c is gone".into(), 2);
    all.rest(which(0));
    assert!(!all.is_due(which(0), 2 + PAUSE_MIN - 1) && all.is_due(which(0), 2 + PAUSE_MIN));
    begin(&mut all, 0, 300).unwrap();
    assert_eq!(all.cursor(which(0), 0), Some(b"here".to_vec()));
    assert!((all.all()[&which(0)].done_ratio() - 0.4).abs() < 1e-9);
    all.moved(which(0), amount(6), Some((0, None)), 301);
    assert_eq!(all.cursor(which(0), 0), None);
    all.rest(which(0));
    let (a, c) = (node("a"), node("c"));
    all.begin(which(0), (&a, &c), 2, amount(10), 302).unwrap();
    assert_eq!(all.cursor(which(0), 0), Some(Vec::new()));
    assert_eq!(all.totals(Kind::Ownership).sent, amount(10));
}

#[test]
fn a_sender_that_falls_silent_gives_its_place_to_another() {
    let mut all = transfers();
    let some = (amount(10), amount(1));
    assert_eq!(all.receive(&node("a"), which(0), some, 0), Ok(()));
    let why = all.receive(&node("b"), which(1), some, 10).unwrap_err();
    assert_eq!(why, "it receives 1 of 1 at once");
    assert_eq!(all.receive(&node("a"), which(0), some, LEASE - 1), Ok(()));
    assert!(all.receive(&node("b"), which(1), some, LEASE).is_err());
    let later = 2 * LEASE;
    assert_eq!(all.receive(&node("b"), which(1), some, later), Ok(()));
    assert_eq!(all.incoming(later).count(), 1);
    all.received(&node("b"), which(1));
    assert_eq!(all.incoming(later).count(), 0);
}

#[test]
fn nothing_of_a_partition_comes_while_something_of_it_goes() {
    let mut all = transfers();
    begin(&mut all, 0, 0).unwrap();
    let nothing = (Amount::default(), Amount::default());
    assert!(all.receive(&node("c"), which(0), nothing, 1).is_err());
    all.rest(which(0));
    assert_eq!(all.receive(&node("c"), which(0), nothing, 2), Ok(()));
}

#[test]
fn a_phase_that_is_entered_again_is_no_news() {
    let mut all = transfers();
    begin(&mut all, 0, 0).unwrap();
    assert!(all.enter(which(0), Phase::Copying, 1));
    assert!(!all.enter(which(0), Phase::Copying, 2));
    assert_eq!(all.all()[&which(0)].since_ms, 1);
    assert!(all.enter(which(0), Phase::Dual, 3));
    assert!(all.finish(which(0)).is_some());
    assert!(!all.enter(which(0), Phase::Flip, 4));
    assert_eq!(all.totals(Kind::Ownership).finished, 1);
}
