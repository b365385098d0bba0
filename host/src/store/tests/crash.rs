//! kill -9 at any moment: what was reported as durable is there, and every batch is there as a whole or not at all.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";
const ALWAYS: &str = "STORE_CRASH_ALWAYS";
const PARTITIONS: u16 = 3;
const ROUNDS: u64 = 10;

fn durability(always: bool) -> Durability {
    if always {
        Durability::Always
    } else {
        Durability::Interval(Duration::from_millis(10))
    }
}

fn open_all(engine: &Engine) -> Vec<Box<dyn Store>> {
    let wanted: Vec<_> = (0..PARTITIONS).map(|partition| ("kv", partition)).collect();
    engine.open_all(&wanted).unwrap()
}

/// Rows of batch `n`, which differ in number and size.
fn rows_of(n: u64) -> impl Iterator<Item = ([u8; 9], Vec<u8>)> {
    (0..2 + (n % 4) as u8).map(move |part| {
        let mut name = [0; 9];
        name[..8].copy_from_slice(&n.to_be_bytes());
        name[8] = part;
        let mut object = n.to_be_bytes().to_vec();
        object.resize(8 + (n * 37 % 400) as usize, part);
        (name, object)
    })
}

/// Batches that are there, of all partitions; fails when one is there in part.
fn batches(stores: &mut [Box<dyn Store>]) -> Vec<u64> {
    let mut found = Model::new();
    for store in stores {
        found.extend(read_all(&mut **store, 100).unwrap());
    }
    let mut numbers: Vec<_> = found
        .keys()
        .map(|(_, name)| u64::from_be_bytes(name[..8].try_into().unwrap()))
        .collect();
    numbers.dedup();
    for n in &numbers {
        for (name, object) in rows_of(*n) {
            assert_eq!(
                found.get(&(*n, name.to_vec())),
                Some(&object),
                "batch {n} is there in part"
            );
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Runs only as a child of the tests below, until it is killed.
#[test]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let always = std::env::var_os(ALWAYS).is_some();
    let engine = Engine::disk(directory.as_ref(), tiny(durability(always))).unwrap();
    let mut stores = open_all(&engine);
    let mut next = batches(&mut stores).last().map_or(0, |last| last + 1);
    let durable = engine.durable();
    let mut pending = std::collections::VecDeque::new();
    let mut batch = Batch::new();
    let mut out = std::io::stdout();
    loop {
        let index = usize::try_from(next % u64::from(PARTITIONS)).unwrap();
        let store = &mut stores[index];
        batch.clear();
        for (name, object) in rows_of(next) {
            batch.put(key(next, &name), &object, ADDED).unwrap();
        }
        let dot = store.next_dot().unwrap();
        let commit = store.apply(&batch).unwrap();
        pending.push_back((commit, next, dot));
        next += 1;
        while always && engine.must_wait(commit) {
            std::thread::yield_now();
        }
        let reached = durable.borrow().commit;
        while let Some((_, n, dot)) = pending.pop_front_if(|(commit, _, _)| *commit <= reached) {
            writeln!(out, "durable {n} {:x} {}", dot.actor, dot.seq).unwrap();
        }
    }
}

/// What children have said.
#[derive(Default)]
struct Heard {
    /// Last sequence number of each actor.
    dots: BTreeMap<u64, u64>,
    last_durable: Option<u64>,
}

impl Heard {
    /// Takes a line in; whether it was a report.
    fn line(&mut self, line: &str) -> bool {
        // The test harness writes into the first line.
        let Some((_, report)) = line.split_once("durable ") else {
            return false;
        };
        let words: Vec<_> = report.split(' ').collect();
        let [n, actor, seq] = words[..] else {
            return false;
        };
        let actor = u64::from_str_radix(actor, 16).unwrap();
        let seq = seq.parse().unwrap();
        let before = self.dots.insert(actor, seq);
        assert!(
            before.is_none_or(|before| before < seq),
            "dot {seq} came twice"
        );
        self.last_durable = self.last_durable.max(Some(n.parse().unwrap()));
        true
    }
}

/// Lets a child write until it has reported so many batches, and kills it.
fn write_and_kill(path: &std::path::Path, always: bool, mut reports: u64, heard: &mut Heard) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "store::tests::crash::writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if always {
        command.env(ALWAYS, "1");
    }
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    while reports > 0 {
        let line = lines.next().expect("the child goes on until it is killed");
        reports -= u64::from(heard.line(&line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest: Vec<_> = lines.collect();
    // The last line may be cut.
    rest.pop();
    for line in &rest {
        heard.line(line);
    }
}

fn kill_many_times(always: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut heard = Heard::default();
    for round in 0..ROUNDS {
        // A moment that differs from round to round, counted in work that was done.
        write_and_kill(&path, always, 3 + round * round * 29 % 700, &mut heard);
        let engine = Engine::disk(&path, tiny(durability(always))).unwrap();
        let mut stores = open_all(&engine);
        let found = batches(&mut stores);
        let expected: Vec<_> = (0..found.len() as u64).collect();
        assert_eq!(
            found, expected,
            "round {round}: a batch is missing before the last one"
        );
        assert!(
            found.last().copied() >= heard.last_durable,
            "round {round}: {:?} was durable, {:?} is left",
            heard.last_durable,
            found.last()
        );
        let live: u64 = stores.iter().map(|store| store.stats().live).sum();
        let rows: usize = found.iter().map(|n| rows_of(*n).count()).sum();
        assert_eq!(live, rows as u64);
        if round % 3 == 0 {
            engine.close().unwrap();
        }
    }
    // Each child has names of its own, since the one before was not closed.
    assert!(heard.dots.len() > usize::from(PARTITIONS));
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    kill_many_times(true);
}

#[test]
fn nothing_durable_is_lost_by_kill_9_between_syncs() {
    kill_many_times(false);
}
