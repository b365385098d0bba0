use std::collections::BTreeMap;

use super::super::draw::Keys;
use super::super::windows::Cell;
use super::*;

fn shared(workload: Workload) -> Shared {
    Shared {
        workload,
        values: Values::new(1, 100),
        keys: Keys::new(50, None).unwrap(),
        seed: 1,
        workers: 1,
    }
}

fn tally(shared: &Shared) -> Tally {
    let cells = vec![Cell::empty().unwrap(); shared.workload.operations.len()];
    let second = Duration::from_secs(1);
    Tally {
        windows: Windows::new(cells, second, second),
        failures: Failures::default(),
    }
}

/// A store that answers requests, as wrongly as it is told to.
#[derive(Default)]
struct Store {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    fn answer(&mut self, requests: &[u8]) -> Vec<u8> {
        let (mut args, mut at, mut out) = (crate::resp::codec::Args::default(), 0, Vec::new());
        let limits = crate::resp::codec::Limits::default();
        while at < requests.len() {
            let rest = &requests[at..];
            let crate::resp::codec::Progress::Complete { consumed } =
                crate::resp::codec::parse(rest, &limits, &mut args).unwrap()
            else {
                panic!("a request ends with its bytes");
            };
            let words = args.of(rest).to_vec();
            match words[0] {
                b"PUT" => {
                    self.rows.insert(words[1].to_vec(), words[2].to_vec());
                    out.extend(b"+OK\r\n");
                }
                _ => match self.rows.get(words[1]) {
                    Some(value) => {
                        out.extend(format!("${}\r\n", value.len()).bytes());
                        out.extend(value);
                        out.extend(b"\r\n");
                    }
                    None => out.extend(b"$-1\r\n"),
                },
            }
            at += consumed;
        }
        out
    }
}

/// Some rounds of the tutorial's driver against the store, in pipelines.
fn rounds(
    worker: &mut Worker,
    shared: &Shared,
    store: &mut Store,
    tally: &mut Tally,
    rounds: usize,
) {
    for round in 0..rounds {
        let now = Duration::from_micros(round as u64);
        for _ in 0..8 {
            worker.ask(shared, now, now);
        }
        let requests = std::mem::take(&mut worker.output);
        let answers = store.answer(&requests);
        let heard = worker
            .hear(&answers, now + Duration::from_micros(5), shared, tally)
            .unwrap();
        assert_eq!((heard, worker.in_flight()), (answers.len(), 0));
    }
}

#[test]
fn a_true_store_gives_no_failure_and_a_store_that_loses_puts_is_found_out() {
    let shared = shared(Workload::named("rkv").unwrap());
    let (mut worker, mut store, mut tally) =
        (Worker::new(0, &shared), Store::default(), tally(&shared));
    rounds(&mut worker, &shared, &mut store, &mut tally, 500);
    assert_eq!(tally.failures, Failures::default());
    store.rows.clear();
    rounds(&mut worker, &shared, &mut store, &mut tally, 5);
    let kinds: Vec<&str> = tally
        .failures
        .0
        .keys()
        .map(|(_, kind)| kind.as_str())
        .collect();
    assert!(kinds.contains(&"missing"), "{kinds:?}");
    let total = tally.windows.end(Duration::from_secs(1));
    let all: u64 = total
        .cells
        .iter()
        .map(|cell| cell.successful + cell.failed)
        .sum();
    assert_eq!(all, 505 * 8);
}

#[test]
fn a_store_that_goes_back_or_mixes_keys_up_is_found_out() {
    let shared = shared(Workload::named("rkv").unwrap());
    for (kind, falsify) in [
        (
            "stale",
            (|old: &BTreeMap<_, _>, _| old.clone())
                as fn(
                    &BTreeMap<Vec<u8>, Vec<u8>>,
                    &BTreeMap<Vec<u8>, Vec<u8>>,
                ) -> BTreeMap<Vec<u8>, Vec<u8>>,
        ),
        ("wrong", |_, new| {
            new.keys()
                .cloned()
                .zip(new.values().rev().cloned())
                .collect()
        }),
    ] {
        let (mut worker, mut store, mut tally) =
            (Worker::new(0, &shared), Store::default(), tally(&shared));
        rounds(&mut worker, &shared, &mut store, &mut tally, 100);
        let old = store.rows.clone();
        rounds(&mut worker, &shared, &mut store, &mut tally, 100);
        store.rows = falsify(&old, &store.rows);
        rounds(&mut worker, &shared, &mut store, &mut tally, 3);
        assert!(
            tally.failures.0.keys().any(|(_, found)| found == kind),
            "{kind}: {:?}",
            tally.failures
        );
    }
}

#[test]
fn errors_are_counted_by_their_first_word_and_lost_answers_by_what_happened() {
    let shared = shared(Workload::named("write").unwrap());
    let (mut worker, mut tally) = (Worker::new(0, &shared), tally(&shared));
    (0..4).for_each(|_| worker.ask(&shared, Duration::ZERO, Duration::ZERO));
    let heard = worker.hear(
        b"-NOREPLICAS wanted w=2\r\n+OK\r\n-NO",
        Duration::from_millis(1),
        &shared,
        &mut tally,
    );
    assert_eq!((heard, worker.in_flight()), (Ok(29), 2));
    worker.lose("lost", "connection reset", &mut tally);
    assert_eq!((worker.in_flight(), worker.output.len()), (0, 0));
    let failures: Vec<_> = tally
        .failures
        .0
        .iter()
        .map(|((_, kind), (count, words))| (kind.as_str(), *count, words.as_str()))
        .collect();
    assert_eq!(
        failures,
        [
            ("NOREPLICAS", 1, "NOREPLICAS wanted w=2"),
            ("lost", 2, "connection reset")
        ]
    );
}

#[test]
fn answers_that_nobody_asked_for_end_the_connection() {
    let shared = shared(Workload::named("write").unwrap());
    let (mut worker, mut tally) = (Worker::new(0, &shared), tally(&shared));
    assert_eq!(
        worker.hear(b"+OK\r\n", Duration::ZERO, &shared, &mut tally),
        Err(Malformed)
    );
    worker.ask(&shared, Duration::ZERO, Duration::ZERO);
    assert_eq!(
        worker.hear(b"HTTP/1.1 400\r\n", Duration::ZERO, &shared, &mut tally),
        Err(Malformed)
    );
}

#[test]
fn a_scan_goes_on_where_the_page_ended() {
    let shared = shared(Workload::named("scan").unwrap());
    let (mut worker, mut tally) = (Worker::new(0, &shared), tally(&shared));
    worker.ask(&shared, Duration::ZERO, Duration::ZERO);
    assert!(
        worker
            .output
            .starts_with(b"*4\r\n$4\r\nSCAN\r\n$1\r\n0\r\n")
    );
    worker.output.clear();
    worker
        .hear(
            b"*2\r\n$2\r\n42\r\n*1\r\n$1\r\nk\r\n",
            Duration::ZERO,
            &shared,
            &mut tally,
        )
        .unwrap();
    worker.ask(&shared, Duration::ZERO, Duration::ZERO);
    assert!(
        worker
            .output
            .starts_with(b"*4\r\n$4\r\nSCAN\r\n$2\r\n42\r\n")
    );
    worker
        .hear(b"*0\r\n", Duration::ZERO, &shared, &mut tally)
        .unwrap();
    assert_eq!(
        tally
            .failures
            .0
            .keys()
            .next()
            .map(|(_, kind)| kind.as_str()),
        Some("unexpected")
    );
}

#[test]
fn the_same_seed_asks_the_same() {
    let shared = shared(Workload::named("rkv").unwrap());
    let asked = |number| {
        let mut worker = Worker::new(number, &shared);
        (0..100).for_each(|_| worker.ask(&shared, Duration::ZERO, Duration::ZERO));
        worker.output
    };
    assert_eq!(asked(3), asked(3));
    assert_ne!(asked(3), asked(4));
}
