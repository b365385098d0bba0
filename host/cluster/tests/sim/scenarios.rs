//! Things that happen to clusters, one at a time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vnode_cluster::raft::Peer;
use vnode_cluster::raft::recover::force_new_cluster;
use vnode_ring::{Change, PartitionId};

use crate::node::{Action, RING, address, name};
use crate::world::World;

fn place(text: &str) -> Change {
    Change::Location(Some(text.to_owned()))
}

fn is_gone(world: &mut World, node: &'static str) {
    world.until("it is gone", Duration::from_secs(30), |world| {
        world.board().gone.contains(node)
    });
}

#[test]
fn the_claimant_may_leave_and_another_takes_over() {
    for seed in 0..4 {
        let mut world = World::formed(seed, 4);
        let claimant = world.board().live["n2"].cluster.claimant().unwrap();
        let claimant = *world
            .nodes
            .iter()
            .find(|node| **node == claimant.as_str())
            .unwrap();
        world.act(claimant, Action::Stage(claimant, Change::Leave));
        world.run_for(Duration::from_millis(200));
        world.act("n3", Action::Commit);
        is_gone(&mut world, claimant);
        world.settle();
    }
}

#[test]
fn two_of_two_become_one() {
    for seed in 0..4 {
        let mut world = World::formed(seed, 2);
        world.act("n1", Action::Stage("n1", Change::Leave));
        world.run_for(Duration::from_millis(200));
        world.act("n2", Action::Commit);
        is_gone(&mut world, "n1");
        let before = world.map("n2").unwrap().epoch();
        world.act("n2", Action::Stage("n2", place("alone")));
        world.until("the other goes on alone", Duration::from_secs(5), |world| {
            world.map("n2").unwrap().epoch() > before
        });
    }
}

#[test]
fn a_node_that_was_removed_while_it_was_cut_off_goes_when_it_finds_out() {
    for seed in 0..4 {
        let mut world = World::formed(seed, 4);
        let others = ["n1", "n2", "n3"];
        world.between(&["n4"], &others, |sim, one, other| sim.hold(one, other));
        world.run_for(Duration::from_secs(3));
        world.act("n2", Action::Stage("n4", Change::ForceRemove));
        world.run_for(Duration::from_secs(2));
        world.act("n2", Action::Commit);
        world.run_for(Duration::from_secs(5));
        assert!(!world.board().gone.contains("n4"), "it cannot know");
        world.heal();
        is_gone(&mut world, "n4");
        world.settle();
    }
}

#[test]
fn most_voters_may_be_removed_by_force_at_once() {
    for seed in 0..4 {
        let mut world = World::formed(seed, 3);
        for node in ["n1", "n3"] {
            world.act("n2", Action::Stage(node, Change::ForceRemove));
        }
        world.run_for(Duration::from_millis(300));
        world.act("n2", Action::Commit);
        for node in ["n1", "n3"] {
            is_gone(&mut world, node);
        }
        world.settle();
        assert_eq!(world.members(), ["n2"]);
    }
}

#[test]
fn a_partition_with_rows_stays_until_it_is_empty() {
    let mut world = World::formed(3, 3);
    let partitions = || (0..RING as u16).map(PartitionId::from_id);
    for partition in partitions() {
        world.act("n3", Action::Command(partition, true));
    }
    world.run_for(Duration::from_millis(100));
    let owned = world
        .newest()
        .unwrap()
        .ring()
        .partitions_of(&name("n3"))
        .count();
    world.act("n1", Action::Stage("n3", Change::Leave));
    world.run_for(Duration::from_millis(200));
    world.act("n1", Action::Commit);
    world.run_for(Duration::from_secs(10));
    let map = world.newest().unwrap();
    assert_eq!(map.ring().partitions_of(&name("n3")).count(), owned);
    for partition in partitions() {
        world.act("n3", Action::Command(partition, false));
    }
    is_gone(&mut world, "n3");
}

#[test]
fn a_node_that_joins_late_gets_a_snapshot() {
    let mut world = World::new(5, 3);
    for count in 0..1200 {
        world.act("n1", Action::Stage("n1", place(&format!("rack {count}"))));
    }
    world.until("all is changed", Duration::from_secs(60), |world| {
        world.map("n1").unwrap().epoch() == 1201
    });
    for node in ["n2", "n3"] {
        world.act(node, Action::Join("n1"));
    }
    world.until("both have joined", Duration::from_secs(20), |world| {
        world.members().len() == 3
    });
    world.act("n1", Action::Commit);
    world.settle();
}

#[test]
fn a_node_that_comes_back_serves_nothing_that_it_owned_before() {
    let mut world = World::formed(8, 2);
    for count in 0..100 {
        world.act("n1", Action::Stage("n1", place(&format!("rack {count}"))));
    }
    world.act("n1", Action::Stage("n2", Change::Leave));
    world.run_for(Duration::from_secs(2));
    world.act("n1", Action::Commit);
    is_gone(&mut world, "n2");
    world.start("n2");
    world.run_for(Duration::from_secs(1));
    world.act("n2", Action::Join("n1"));
    world.run_for(Duration::from_secs(2));
    world.settle();
    assert_eq!(world.members(), ["n1", "n2"]);
}

#[test]
fn a_lone_node_begins_a_new_cluster_when_the_others_are_lost() {
    let mut world = World::formed(6, 3);
    let number = world.newest().unwrap().members()[&name("n1")].card.number;
    for node in ["n1", "n2", "n3"] {
        world.crash(node);
    }
    for node in ["n2", "n3"] {
        fs::remove_dir_all(world.directory(node)).unwrap();
        world.board().forced.insert(node);
    }
    let me = Peer {
        name: "n1".into(),
        peer_address: address("n1"),
    };
    let log = world.directory("n1").join(format!("{number:016x}"));
    let recovered = force_new_cluster(&log, number, me).unwrap();
    world.settle();
    assert_eq!(world.members(), ["n1"]);
    assert!(world.newest().unwrap().epoch() > recovered.epoch);
    for node in ["n2", "n3"] {
        world.act(node, Action::Join("n1"));
    }
    world.run_for(Duration::from_secs(2));
    world.settle();
    assert_eq!(world.members(), ["n1", "n2", "n3"]);
}

#[test]
fn a_node_that_is_told_to_join_two_clusters_at_once_joins_one() {
    for seed in 0..8 {
        let mut world = World::new(seed, 3);
        let (one, other) = if seed % 2 == 0 {
            ("n1", "n3")
        } else {
            ("n3", "n1")
        };
        world.act("n2", Action::Join(one));
        world.act("n2", Action::Join(other));
        world.act("n2", Action::Join(one));
        world.run_for(Duration::from_secs(3));
        let in_them = |node: &&&str| world.map(node).unwrap().members().contains_key(&name("n2"));
        assert_eq!(["n1", "n3"].iter().filter(in_them).count(), 1);
        assert_eq!(world.map("n2"), world.map(one));
    }
}

#[test]
fn nodes_that_join_each_other_at_once_are_not_left_behind() {
    for moment in 0..30 {
        let mut world = World::new(moment, 3);
        world.act("n3", Action::Join("n1"));
        world.run_for(Duration::from_millis(moment));
        world.act("n1", Action::Join("n2"));
        world.act("n2", Action::Join("n1"));
        world.run_for(Duration::from_secs(5));
        for (node, live) in &world.board().live {
            assert!(live.cluster.claimant().is_some(), "{node} at {moment}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_node_with_an_old_directory_catches_up_and_changes_nothing() {
    let mut world = World::formed(7, 3);
    let (now, old) = (world.directory("n3"), world.directory("old"));
    world.crash("n3");
    copy(&now, &old);
    world.start("n3");
    world.settle();
    for count in 0..20 {
        world.act("n1", Action::Stage("n2", place(&format!("rack {count}"))));
        world.run_for(Duration::from_millis(50));
    }
    let epoch = world.newest().unwrap().epoch();
    world.crash("n3");
    fs::remove_dir_all(&now).unwrap();
    copy(&old, &now);
    world.board().may_go_back("n3");
    world.start("n3");
    world.settle();
    let map = world.map("n3").unwrap();
    assert!(map.epoch() >= epoch);
    assert_eq!(
        map.members()[&name("n2")].location.as_deref(),
        Some("rack 19")
    );
}

#[test]
fn a_node_that_had_started_again_and_left_comes_back_with_nothing() {
    for seed in 0..4 {
        let mut world = World::formed(seed, 3);
        for _ in 0..3 {
            world.crash("n3");
            world.run_for(Duration::from_secs(1));
            world.start("n3");
            world.settle();
        }
        world.act("n1", Action::Stage("n3", Change::Leave));
        world.run_for(Duration::from_millis(200));
        world.act("n1", Action::Commit);
        is_gone(&mut world, "n3");
        world.start("n3");
        world.run_for(Duration::from_secs(1));
        world.act("n3", Action::Join("n1"));
        world.until("it is in and is seen", Duration::from_secs(5), |world| {
            let sees = |node: &str| world.board().live[node].sight.borrow().up.len() == 3;
            world.members().len() == 3 && world.nodes.iter().all(|node| sees(node))
        });
    }
}
