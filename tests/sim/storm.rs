//! Faults at random while clients work, and what must hold afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tests::checkers::History;
use tests::dice::Dice;
use tests::nemesis::{Limits, Schedule};
use tests::resp::Reply;
use tests::workload::commands::{End, keys};
use tokio::time::sleep;
use vnode_host::wasm::Guest;

use crate::client::Connection;
use crate::node::{NODES, guests};
use crate::world::World;
use crate::{judge, number};

/// Runs without a number in the environment.
const SEEDS: u64 = 4;
/// How long things go wrong, milliseconds.
const STORM_MS: u64 = 20_000;
/// From the heal until all replicas are equal.
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);
/// Time for everything to be read in the end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What one run was like.
pub(crate) struct Told {
    pub(crate) trace: Vec<String>,
    pub(crate) counts: BTreeMap<String, u64>,
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        length_ms: STORM_MS,
        gap_ms: 200..=1_500,
        lasts_ms: 300..=6_000,
        down_max: 1 + u32::from(dice.percent(40)),
        ..Limits::new(NODES.len() as u32)
    }
}

/// One run.
pub(crate) fn run(seed: u64, guests: &[Arc<Guest>]) -> Told {
    let mut dice = Dice::new(seed);
    let schedule = Schedule::new(seed, &limits(&mut dice));
    let mut world = World::formed(seed, guests);
    world.start_clients();
    world.run_for(Duration::from_millis(500));
    let begun = world.sim.elapsed();
    for step in &schedule.steps {
        let at = begun + Duration::from_millis(step.at_ms);
        world.run_for(at.saturating_sub(world.sim.elapsed()));
        world.suffer(step.fault, dice.percent(50));
    }
    let healed = world.sim.elapsed();
    world.stop_clients();
    let took = world.converge(healed, CONVERGE_WITHIN);
    world.note(&format!("converged in {took:?}"));
    let history = world.run.recorder.history(format!("seed {seed}"));
    let end = read(&mut world, &history);
    let ledger = world.book.lock().unwrap().ledger();
    let verdicts = match judge::judge(&history, &end, &ledger) {
        Ok(verdicts) => verdicts,
        Err(why) => {
            let path = std::env::temp_dir().join(format!("history-sim-{seed}.jsonl"));
            history.save(&path).unwrap();
            panic!("seed {seed}: {why}\nthe history is in {}", path.display());
        }
    };
    let lost = world.rows_lost() as u64;
    let mut board = world.board();
    board
        .trace
        .extend(history.operations.iter().map(ToString::to_string));
    board.trace.extend(verdicts);
    board.add("faults", schedule.faults() as u64);
    board.add("operations", history.operations.len() as u64);
    let unknown = history.operations.iter().filter(|one| one.is_unknown());
    board.add("operations of unknown outcome", unknown.count() as u64);
    let ok = history.operations.iter().filter(|one| one.is_ok()).count();
    board.add("operations acknowledged", ok as u64);
    board.add("unsynced rows lost in crashes", lost);
    board.add("convergence ms", took.as_millis() as u64);
    Told {
        trace: std::mem::take(&mut board.trace),
        counts: std::mem::take(&mut board.counts),
    }
}

/// What clients read when all is well.
fn read(world: &mut World, history: &History) -> End {
    let end: Rc<RefCell<Option<End>>> = Rc::default();
    let (keys, read) = (keys(history), Rc::clone(&end));
    world.start_reader(async move {
        let mut found = End::default();
        let mut connection = Connection::open(NODES[1]).await?;
        for (service, key) in keys {
            let words = End::command(service, &key);
            let reply = loop {
                match connection.call(&words).await? {
                    // A link that was cut may take a moment more until it is used again.
                    Reply::Error(_) => sleep(Duration::from_millis(50)).await,
                    reply => break reply,
                }
            };
            found.take(service, &key, reply);
        }
        *read.borrow_mut() = Some(found);
        Ok(())
    });
    let read = Rc::clone(&end);
    world.until("all is read", END_WITHIN, |_| read.borrow().is_some());
    end.take().unwrap()
}

/// Seeds that failed once, unless the environment asks for others.
fn known() -> Vec<u64> {
    if std::env::var("SIM_FROM").is_ok() {
        return Vec::new();
    }
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    include_str!("seeds.txt")
        .lines()
        .filter_map(first)
        .collect()
}

#[test]
fn whatever_breaks_nothing_acknowledged_is_lost_and_replicas_become_equal() {
    let first = number("SIM_FROM", 1);
    let mut seeds = known();
    seeds.extend(first..first + number("SIM_SEEDS", SEEDS));
    let guests = guests();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in &seeds {
        let begun = std::time::Instant::now();
        let told = run(*seed, &guests);
        println!("seed {seed}: {:.1} s", begun.elapsed().as_secs_f64());
        for (what, count) in told.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{} seeds: {counts:#?}", seeds.len());
}
