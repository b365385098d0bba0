//! Faults at random while clients work, and what must hold afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tests::dice::Dice;
use tests::nemesis::{Limits, Schedule};
use vnode_host::wasm::Guest;

use crate::end::{Told, end};
use crate::node::{NODES, RING, guests};
use crate::number;
use crate::world::World;

/// Runs without a number in the environment.
const SEEDS: u64 = 4;
/// How long things go wrong, milliseconds.
const STORM_MS: u64 = 20_000;
/// From the heal until a resize is done that has begun.
const RESIZE_WITHIN: Duration = Duration::from_secs(60);

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        length_ms: STORM_MS,
        gap_ms: 200..=1_500,
        lasts_ms: 300..=6_000,
        down_max: 1 + u32::from(dice.percent(40)),
        ..Limits::new(NODES.len() as u32)
    }
}

/// When the ring is to have how many partitions: in half of the runs it is resized, and in half of those that is taken back, or
/// it is resized again if it is too late for that.
fn rings(seed: u64) -> Vec<(u64, u16)> {
    let mut dice = Dice::of(seed, 2);
    let mut rings = Vec::new();
    if dice.percent(50) {
        let at_ms = dice.within(&(0..=STORM_MS / 2));
        rings.push((at_ms, [RING / 2, RING * 2][dice.index(2)]));
        if dice.percent(50) {
            rings.push((at_ms + dice.within(&(100..=STORM_MS / 3)), RING));
        }
    }
    rings
}

fn until(world: &World, begun: Duration, at_ms: u64) -> Duration {
    (begun + Duration::from_millis(at_ms)).saturating_sub(world.sim.elapsed())
}

/// One run.
pub(crate) fn run(seed: u64, guests: &[Arc<Guest>]) -> Told {
    let mut dice = Dice::new(seed);
    let schedule = Schedule::new(seed, &limits(&mut dice));
    let mut world = World::formed(seed, guests, &NODES);
    world.start_clients();
    world.run_for(Duration::from_millis(500));
    let begun = world.sim.elapsed();
    let mut rings = rings(seed).into_iter().peekable();
    for step in &schedule.steps {
        while let Some((at_ms, ring)) = rings.next_if(|(at_ms, _)| *at_ms <= step.at_ms) {
            world.run_for(until(&world, begun, at_ms));
            world.wish_ring(ring);
        }
        world.run_for(until(&world, begun, step.at_ms));
        world.suffer(step.fault, dice.percent(50));
    }
    world.until(
        "the ring that is wished for",
        RESIZE_WITHIN,
        World::has_its_ring,
    );
    let healed = world.sim.elapsed();
    let mut told = end(world, healed);
    let faults = schedule.faults() as u64;
    told.counts.insert("faults".into(), faults);
    told
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
