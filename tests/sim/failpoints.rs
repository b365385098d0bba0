//! A node dies at each place of a transfer or a resize in turn, while clients work: sender, receiver or claimant. Once it is back
//! the change comes to its end, no partition has had two owners at any step, and nothing is lost or counted twice.
//!
//! `SIM_SEEDS` says how many seeds there are of each case, `SIM_FROM` the first one, and `SIM_PLACE` the only place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::dice::Dice;
use vnode_host::wasm::Guest;

use crate::deaths::{Trap, Victim};
use crate::end::{Told, end};
use crate::node::{NODES, RING, guests};
use crate::number;
use crate::world::World;

/// Seeds of each case without a number in the environment.
const SEEDS: u64 = 1;
/// Clients write for so long before the cluster changes, milliseconds.
const BEFORE_MS: u64 = 1_500;
/// Time from the change until a node is there.
const DIE_WITHIN: Duration = Duration::from_secs(30);
/// How long a node is dead at most, milliseconds.
const DEAD_MS_MAX: u64 = 4_000;
/// Time for the change to come to its end after that.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// Which part a node has in a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
    Claimant,
    /// Any member.
    Member,
}

/// A failpoint.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    /// Who comes there.
    of: Role,
    /// How often it is passed at most before somebody dies.
    passes: u64,
}

const fn place(name: &'static str, of: Role, passes: u64) -> Place {
    Place { name, of, passes }
}

impl Place {
    /// Whether a sender comes there when the receiver has it all. One that leaves takes what it has handed over along.
    fn is_after_flip(&self) -> bool {
        matches!(self.name, "owner-confirmed" | "rows-removed")
    }
}

/// Those of a transfer.
const TRANSFER: [Place; 17] = [
    place("copy-begins", Role::Sender, 1),
    place("page-sent", Role::Sender, 3),
    place("copy-ends", Role::Sender, 1),
    place("trees-equal", Role::Sender, 1),
    place("offer-kept", Role::Sender, 0),
    place("frozen", Role::Sender, 1),
    place("rest-sent", Role::Sender, 1),
    place("flip-agreed", Role::Sender, 0),
    place("given-up", Role::Sender, 1),
    place("owner-confirmed", Role::Sender, 3),
    place("rows-removed", Role::Sender, 3),
    place("place-given", Role::Receiver, 1),
    place("page-arrived", Role::Receiver, 3),
    place("page-merged", Role::Receiver, 3),
    place("taken-over", Role::Receiver, 1),
    place("claimant-asked", Role::Claimant, 0),
    place("claimant-agreed", Role::Claimant, 0),
];

/// Those of a resize.
const RESIZE: [Place; 7] = [
    place("resize-page", Role::Member, 60),
    place("resize-filled", Role::Member, 4),
    place("resize-flips", Role::Member, 0),
    place("resize-flipped", Role::Member, 4),
    place("resize-inherits", Role::Member, 4),
    place("resize-inherited", Role::Member, 4),
    place("resize-cleaned", Role::Member, 4),
];

/// Cases that failed once, unless the environment asks for others.
const KNOWN: [(&str, Role, u64); 2] = [
    // Who had just come to lead a range compared its replicas only in the round after the next.
    ("offer-kept", Role::Sender, 6),
    ("resize-flips", Role::Member, 3),
];

/// The seeds of a case.
fn seeds(place: &Place, dies: Role) -> Vec<u64> {
    let (first, count) = (number("SIM_FROM", 1), number("SIM_SEEDS", SEEDS));
    let known = KNOWN.iter().filter(|(name, role, _)| {
        std::env::var("SIM_FROM").is_err() && *name == place.name && *role == dies
    });
    let known = known.map(|(_, _, seed)| *seed);
    known.chain(first..first + count).collect()
}

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
enum Change {
    Join(&'static str),
    Leave(&'static str),
    Resize(u16),
}

/// Somebody dies when somebody comes to a place.
struct Case {
    place: Place,
    dies: Role,
    seed: u64,
}

impl Case {
    /// There is one receiver if a node joins, and one sender if it leaves. Where somebody else dies than who is there, it has to be
    /// known who that is.
    fn change(&self, dice: &mut Dice) -> Change {
        let joins = match (self.place.of, self.dies) {
            (Role::Member, _) => {
                return Change::Resize([RING / 2, RING * 2][dice.index(2)]);
            }
            (Role::Sender | Role::Claimant, Role::Receiver) => true,
            _ if self.place.is_after_flip() => true,
            (Role::Receiver | Role::Claimant, Role::Sender) => false,
            _ => dice.percent(50),
        };
        match joins {
            // The first node is the one that others join.
            true => Change::Join(NODES[1 + dice.index(NODES.len() - 1)]),
            false => Change::Leave(NODES[dice.index(NODES.len())]),
        }
    }

    fn victim(&self, change: Change) -> Victim {
        match (self.dies, change) {
            (dies, _) if dies == self.place.of => Victim::Here,
            (Role::Sender | Role::Receiver, Change::Join(one) | Change::Leave(one)) => {
                Victim::Node(one)
            }
            _ => Victim::Claimant,
        }
    }

    fn run(&self, guests: &[Arc<Guest>]) -> Told {
        let mut dice = Dice::of(self.seed, 1);
        let change = self.change(&mut dice);
        let without = |one| -> Vec<_> { NODES.into_iter().filter(|node| *node != one).collect() };
        let before = match change {
            Change::Join(one) => without(one),
            Change::Leave(_) | Change::Resize(_) => NODES.to_vec(),
        };
        let mut world = World::formed(self.seed, guests, &before);
        world.start_clients();
        world.run_for(Duration::from_millis(BEFORE_MS));
        world.lay(Trap {
            place: self.place.name,
            passes: dice.within(&(0..=self.place.passes)),
            victim: self.victim(change),
        });
        match change {
            Change::Join(one) => {
                world.wish(&NODES);
                world.until("it is let in", DIE_WITHIN, |world| world.is_member(one));
                world.run.doors.lock().unwrap().push(one);
            }
            Change::Leave(one) => world.wish(&without(one)),
            Change::Resize(ring) => world.wish_ring(ring),
        }
        let dies = format!("somebody dies at {}", self.place.name);
        world.until(&dies, DIE_WITHIN, |world| !world.died.is_empty());
        world.run_for(Duration::from_millis(dice.within(&(1..=DEAD_MS_MAX))));
        for node in std::mem::take(&mut world.died) {
            // Nobody starts a node again that has left.
            if world.is_member(node) {
                world.start(node);
            }
        }
        world.until("the end of the change", SETTLE_WITHIN, World::is_whole);
        let settled = world.sim.elapsed();
        end(world, settled)
    }
}

/// Runs each case with so many seeds.
fn run(places: &[Place], roles: &[Role], first_number: u64) {
    let only = std::env::var("SIM_PLACE").ok();
    let guests = guests();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let places = (first_number..).step_by(10).zip(places);
    for (first_of_place, place) in places {
        if only.as_ref().is_some_and(|only| *only != place.name) {
            continue;
        }
        for (number, dies) in (first_of_place..).zip(roles) {
            for seed in seeds(place, *dies) {
                let (place, dies, seed) = (*place, *dies, seed * 1_000 + number);
                println!("{dies:?} dies at {}, seed {seed}", place.name);
                let begun = Instant::now();
                let told = Case { place, dies, seed }.run(&guests);
                println!("{:.1} s", begun.elapsed().as_secs_f64());
                for (what, count) in told.counts {
                    *counts.entry(what).or_default() += count;
                }
                *counts.entry("deaths".into()).or_default() += 1;
            }
        }
    }
    println!("{counts:#?}");
}

#[test]
fn whoever_dies_at_any_place_of_a_transfer_it_ends_and_nothing_is_lost_or_done_twice() {
    run(
        &TRANSFER,
        &[Role::Sender, Role::Receiver, Role::Claimant],
        0,
    );
}

#[test]
fn whoever_dies_at_any_place_of_a_resize_it_ends_and_nothing_is_lost_or_done_twice() {
    run(&RESIZE, &[Role::Member, Role::Claimant], 500);
}
