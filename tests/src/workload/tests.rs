use std::cell::Cell;
use std::collections::BTreeSet;

use super::*;
use crate::checkers::{
    AckedSet, Counter, History, Judgement, Lineage, Linearizable, Sessions, Verdict,
};

/// A store of one copy that forgets nothing, unless it is told to.
#[derive(Default)]
struct Store {
    values: BTreeMap<String, BTreeSet<u64>>,
    counts: BTreeMap<String, u64>,
    asked: u64,
    /// After how many requests each it acknowledges a write without doing it; never if none.
    loses: Option<u64>,
}

impl Store {
    fn ask(&mut self, request: &Request) -> Outcome {
        self.asked += 1;
        // One in thirteen times nobody hears the answer, and half of those times nothing was done.
        let silent = self.asked.is_multiple_of(13);
        let forgets = self
            .loses
            .is_some_and(|loses| self.asked.is_multiple_of(loses));
        let does = !(forgets || silent && self.asked.is_multiple_of(2));
        let answer = self.apply(request, does);
        match silent {
            true => Outcome::Unknown("no answer".into()),
            false => Outcome::Ok(answer),
        }
    }

    fn apply(&mut self, request: &Request, does: bool) -> Answer {
        let values = self.values.entry(request.key.clone()).or_default();
        let count = self.counts.entry(request.key.clone()).or_default();
        match &request.action {
            Action::Read if request.key.starts_with("counter") => return Answer::Count(*count),
            Action::Read => return Answer::Values(values.iter().copied().collect()),
            _ if !does => {}
            Action::Add { element } => drop(values.insert(*element)),
            Action::Increment { by } => *count += by,
            Action::Write { value } => *values = BTreeSet::from([*value]),
            Action::Put { id, read } => {
                values.retain(|value| !read.contains(value));
                values.insert(*id);
            }
            Action::Delete { read, .. } => values.retain(|value| !read.contains(value)),
        }
        Answer::Done
    }
}

/// Four clients that take turns on one store, which is what it comes to.
fn run(plan: &Plan, loses: Option<u64>) -> (History, Store) {
    let (recorder, clock) = (Recorder::new(), Cell::new(0));
    let now = || {
        clock.set(clock.get() + 1);
        clock.get()
    };
    let mut store = Store {
        loses,
        ..Store::default()
    };
    let mut clients: Vec<Workload> = (1..=4).map(|each| Workload::new(plan, 7, each)).collect();
    for _ in 0..500 {
        for client in &mut clients {
            client.turn(&recorder, now, |request| store.ask(request));
        }
    }
    (recorder.history("seed 7"), store)
}

#[test]
fn a_good_store_holds_and_one_that_loses_writes_does_not() {
    for (loses, expected) in [(None, Judgement::Holds), (Some(97), Judgement::Violated)] {
        let (history, store) = run(&Plan::new(Kind::Set), loses);
        let verdict = AckedSet::check(&history, &store.values);
        assert_eq!(verdict.judgement(), expected, "{verdict}");

        let (history, store) = run(&Plan::new(Kind::Causal), loses);
        let verdict = Lineage::check(&history, &store.values);
        assert_eq!(verdict.judgement(), expected, "{verdict}");
        assert!(verdict.superseded > 100, "{verdict}");
        assert!(verdict.siblings_max > 1, "{verdict}");

        let (history, store) = run(&Plan::new(Kind::Counter), loses);
        let counts = Counter::check(&history, &store.counts);
        assert!(counts.acked > 1_500, "{counts}");

        let (history, _) = run(&Plan::new(Kind::Register), loses);
        let verdict = Linearizable::check(&history);
        assert_eq!(verdict.judgement(), expected, "{verdict}");
        let verdict = Sessions::check(&history);
        assert_eq!(verdict.judgement(), expected, "{verdict}");
    }
}

#[test]
fn a_good_counter_holds_and_one_that_runs_twice_does_not() {
    let (history, mut store) = run(&Plan::new(Kind::Counter), None);
    Counter::check(&history, &store.counts).require();
    Sessions::check(&history).require();
    for count in store.counts.values_mut() {
        *count += 50;
    }
    let verdict = Counter::check(&history, &store.counts);
    assert_eq!(verdict.judgement(), Judgement::Violated, "{verdict}");
}

#[test]
fn the_same_seed_asks_the_same_and_another_does_not() {
    let plan = Plan::new(Kind::Causal);
    let requests = |seed, client| {
        let mut workload = Workload::new(&plan, seed, client);
        let each = |_| {
            let request = workload.request();
            workload.learn(&request, &Outcome::Ok(Answer::Values(vec![5])));
            request
        };
        (0..100).map(each).collect::<Vec<_>>()
    };
    assert_eq!(requests(1, 1), requests(1, 1));
    assert_ne!(requests(1, 1), requests(2, 1));
    let keys = |client| requests(1, client).into_iter().map(|request| request.key);
    assert!(keys(1).ne(keys(2)));
}

#[test]
fn clients_go_on_to_new_keys_together() {
    let plan = Plan {
        keys: 2,
        turns_per_round: Some(10),
        ..Plan::new(Kind::Register)
    };
    let mut workload = Workload::new(&plan, 1, 1);
    let keys: Vec<String> = (0..30).map(|_| workload.request().key).collect();
    let of_round = |round: usize| keys[round * 10..][..10].iter().collect::<BTreeSet<_>>();
    let names = [
        "register-0",
        "register-1",
        "register-2",
        "register-3",
        "register-4",
        "register-5",
    ];
    for round in 0..3 {
        let expected = &names[round * 2..][..2];
        assert!(of_round(round).into_iter().eq(expected), "{keys:?}");
    }
}

#[test]
fn values_are_unique_among_clients() {
    let plan = Plan::new(Kind::Set);
    let mut written = BTreeSet::new();
    for client in 0..4 {
        let mut workload = Workload::new(&plan, 1, client);
        let requests = (0..100).map(|_| workload.request());
        for number in requests.filter_map(|request| request.action.written()) {
            assert!(written.insert(number), "{number}");
        }
    }
}

#[test]
fn a_task_takes_the_same_turns_as_a_thread() {
    let plan = Plan::new(Kind::Counter);
    let (recorder, mut workload) = (Recorder::new(), Workload::new(&plan, 1, 1));
    let mut store = Store::default();
    let turn = workload.turn_async(&recorder, || 5, async |request| store.ask(request));
    let mut turn = std::pin::pin!(turn);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(turn.as_mut().poll(&mut context).is_ready());
    let (other, mut workload) = (Recorder::new(), Workload::new(&plan, 1, 1));
    let mut store = Store::default();
    workload.turn(&other, || 5, |request| store.ask(request));
    assert_eq!(recorder.history(""), other.history(""));
}
