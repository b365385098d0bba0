//! One fault at each moment of one change.

use std::time::Duration;

use vnode_ring::Change;

use crate::node::{Action, name};
use crate::world::World;

#[test]
fn a_cluster_forms_and_all_see_all() {
    let world = World::formed(1, 5);
    let map = world.newest().unwrap();
    assert_eq!(map.members().len(), 5);
    let owns = |node: &&str| map.ring().partitions_of(&name(node)).count() >= 3;
    assert!(world.nodes.iter().all(owns));
}

#[test]
fn a_node_that_crashes_while_it_joins_is_in_or_is_not() {
    for moment in (0..60).step_by(3) {
        let mut world = World::new(moment, 3);
        world.act("n2", Action::Join("n1"));
        world.act("n3", Action::Join("n1"));
        world.run_for(Duration::from_millis(moment));
        world.crash("n2");
        world.run_for(Duration::from_millis(300));
        world.act("n1", Action::Commit);
        world.run_for(Duration::from_millis(300));
        world.settle();
        assert!(world.members().contains(&"n3"));
        assert!(!world.board().counts.contains_key("stranded"));
    }
}

#[test]
fn a_claimant_that_crashes_while_it_commits_has_committed_or_has_not() {
    for moment in (0..60).step_by(3) {
        let mut world = World::formed(moment, 4);
        world.act("n2", Action::Stage("n3", Change::Leave));
        world.run_for(Duration::from_millis(200));
        world.act("n1", Action::Commit);
        world.run_for(Duration::from_millis(moment));
        world.crash("n1");
        world.run_for(Duration::from_secs(3));
        world.settle();
        let members = world.members();
        assert!(members.len() >= 3, "{members:?}");
    }
}

#[test]
fn an_owner_that_crashes_while_it_hands_over_does_not_serve_what_may_have_gone() {
    for moment in (0..60).step_by(2) {
        let mut world = World::formed(moment, 3);
        world.act("n1", Action::Stage("n3", Change::Leave));
        world.run_for(Duration::from_millis(100));
        world.act("n1", Action::Commit);
        world.run_for(Duration::from_millis(moment));
        world.crash("n3");
        world.run_for(Duration::from_millis(500));
        world.start("n3");
        // It does not hear what came of its offers.
        world.between(&["n3"], &["n1", "n2"], |sim, one, other| {
            sim.hold(one, other)
        });
        world.run_for(Duration::from_millis(1500));
        world.settle();
        assert_eq!(world.members(), ["n1", "n2"]);
    }
}

#[test]
fn a_minority_commits_nothing_and_agrees_after_the_heal() {
    for seed in 0..8 {
        let mut world = World::formed(seed, 5);
        let (few, many) = (["n1", "n4"], ["n2", "n3", "n5"]);
        world.between(&few, &many, |sim, one, other| match seed % 2 {
            0 => sim.partition(one, other),
            _ => sim.hold(one, other),
        });
        let before = world.map("n4").unwrap().epoch();
        let place = |text: &str| Change::Location(Some(text.into()));
        world.act("n1", Action::Stage("n1", place("few")));
        world.act("n4", Action::Stage("n4", place("few")));
        world.run_for(Duration::from_secs(4));
        world.act("n2", Action::Stage("n2", place("many")));
        world.run_for(Duration::from_secs(6));
        for node in few {
            assert_eq!(
                world.map(node).unwrap().epoch(),
                before,
                "{node} of the minority"
            );
        }
        assert!(
            world.map("n2").unwrap().epoch() > before,
            "the majority goes on"
        );
        world.settle();
        assert!(world.newest().unwrap().epoch() > before);
    }
}

#[test]
fn a_node_that_crashes_as_it_first_starts_begins_a_cluster_all_the_same() {
    for moment in (0..700).step_by(35) {
        let mut world = World::asleep(moment, 2);
        world.run_for(Duration::from_millis(moment));
        world.crash("n2");
        world.awake();
        world.act("n2", Action::Join("n1"));
        world.run_for(Duration::from_secs(2));
        world.settle();
        assert_eq!(world.members(), ["n1", "n2"]);
    }
}

#[test]
fn a_join_that_is_cleared_at_any_moment_leaves_the_node_in_or_out() {
    for moment in (0..120).step_by(6) {
        let mut world = World::formed(moment, 3);
        world.act("n3", Action::Stage("n3", Change::Leave));
        world.run_for(Duration::from_millis(100));
        world.act("n1", Action::Commit);
        world.until("n3 is gone", Duration::from_secs(20), |world| {
            world.board().gone.contains("n3")
        });
        world.start("n3");
        world.run_for(Duration::from_secs(1));
        world.act("n3", Action::Join("n2"));
        world.run_for(Duration::from_millis(moment));
        world.act("n1", Action::Clear);
        world.run_for(Duration::from_secs(6));
        world.settle();
    }
}
