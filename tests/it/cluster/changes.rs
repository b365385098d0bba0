//! Changes of the cluster: who joins, leaves or replaces another, and what is refused.

use tests::{Cluster, eventually, text};

use super::{MEMORY, set_and_get_everywhere, shares};

#[test]
fn three_nodes_join_and_each_answers_for_every_key() {
    let cluster = Cluster::apart(3, MEMORY);
    cluster.join(2);
    cluster.join(3);
    let first = cluster.node(1);
    let staged = first.must(&["cluster", "status"]);
    assert!(staged.contains("joining     0.0%"), "{staged}");
    let plan = cluster.commit_on(1);
    for words in [
        "node2@test",
        "Transfers: 42",
        "62 of 64",
        "host cluster commit",
    ] {
        assert!(plan.contains(words), "{words:?} is not in {plan}");
    }
    cluster.agree();
    let table = first.must(&["cluster", "status"]);
    for words in [
        "valid      34.4%      --      'node1@test' (C)",
        "valid      32.8%      --      'node2@test'",
        "Valid:3 / Leaving:0 / Exiting:0 / Joining:0 / Down:0",
    ] {
        assert!(table.contains(words), "{words:?} is not in {table}");
    }
    let letters = first.must(&["ring", "show"]);
    assert!(
        letters.contains("Node c: 21 ( 32.8%) node3@test"),
        "{letters}"
    );
    set_and_get_everywhere(&cluster, "k", 200);
    let mut third = cluster.node(3).client();
    assert_eq!(third.run("DBSIZE").int(), 200);
    assert_eq!(third.run("KEYS *").items().len(), 200);
    assert_eq!(third.run("DEL k1 k2 k3 k10").int(), 4);
    assert_eq!(cluster.node(1).client().run("DBSIZE").int(), 196);
}

#[test]
fn five_nodes_join_at_once_and_one_of_them_twice() {
    let cluster = Cluster::apart(6, MEMORY);
    let first = cluster.node(1).http.to_string();
    let twice: Vec<_> = std::thread::scope(|scope| {
        let ask = |number| {
            let (cluster, first) = (&cluster, &first);
            scope.spawn(move || cluster.node(number).cli(&["cluster", "join", first]))
        };
        let others = [2, 3, 5, 6].map(ask);
        let twice = [4, 4].map(ask);
        for asked in others {
            let output = asked.join().expect("it does not panic");
            assert!(output.status.success(), "{}", text(&output));
        }
        let asked = twice.map(|asked| asked.join().expect("it does not panic"));
        asked.into()
    });
    let refused: Vec<_> = twice.iter().filter(|one| !one.status.success()).collect();
    let [refused] = refused[..] else {
        panic!("one of the two, not {refused:?}");
    };
    let said = text(refused);
    let already = [
        "is a member of that cluster already",
        "is joining a cluster already",
    ];
    assert!(already.iter().any(|words| said.contains(words)), "{said}");
    cluster.commit();
    let view = cluster.node(6).json("/v1/cluster");
    let owned: Vec<u64> = shares(&view).into_iter().map(|(_, owned)| owned).collect();
    assert_eq!((owned.len(), owned.iter().sum()), (6, 64));
    assert!(
        owned.iter().all(|owned| (10..=11).contains(owned)),
        "{owned:?}"
    );
    set_and_get_everywhere(&cluster, "k", 60);
}

#[test]
fn a_node_that_leaves_hands_over_and_ends_by_itself() {
    let mut cluster = Cluster::of(4, MEMORY);
    cluster.node(2).must(&["cluster", "leave", "node4@test"]);
    cluster.commit_on(2);
    let ended = cluster.take(4).ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    cluster.agree();
    assert_eq!(shares(&cluster.node(1).json("/v1/cluster")).len(), 3);
    set_and_get_everywhere(&cluster, "k", 60);
}

#[test]
fn the_claimant_may_leave_as_well() {
    let mut cluster = Cluster::of(3, MEMORY);
    let number = cluster.claimant();
    let claimant = cluster.node(number);
    let name = claimant.name.clone();
    claimant.must(&["cluster", "leave"]);
    claimant.must(&["cluster", "plan"]);
    claimant.must(&["cluster", "commit"]);
    let ended = cluster.take(number).ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    cluster.agree();
    let other = cluster.nodes().next().expect("two are left");
    let view = other.json("/v1/cluster");
    assert_eq!(shares(&view).len(), 2);
    assert_ne!(view["claimant"].as_str(), Some(name.as_str()));
}

#[test]
fn one_that_joins_replaces_another_in_order_or_by_force() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.add(&[]);
    cluster.join(4);
    let first = cluster.node(1);
    first.must(&["cluster", "replace", "node2@test", "node4@test"]);
    cluster.commit_on(1);
    assert_eq!(cluster.take(2).ended().status.code(), Some(0));
    cluster.agree();
    // The next one is dead, and its data is given up.
    cluster.kill(3);
    cluster.add(&[]);
    cluster.join(5);
    let first = cluster.node(1);
    first.must(&["cluster", "force-replace", "node3@test", "node5@test"]);
    let plan = cluster.commit_on(1);
    assert!(plan.contains('!'), "{plan}");
    // It settled where it was committed; the others hear of it a little later.
    eventually("another node to know who is left", || {
        let view = cluster.node(4).json("/v1/cluster");
        let names: Vec<String> = shares(&view).into_iter().map(|(name, _)| name).collect();
        (names == ["node1@test", "node4@test", "node5@test"]).then_some(())
    });
}

#[test]
fn what_cannot_join_is_told_why() {
    let mut cluster = Cluster::apart(2, MEMORY);
    let first = cluster.node(1).http.to_string();
    let join = ["cluster", "join", &first];
    cluster.node(1).refuses(&join, &["own address"]);
    let nobody = ["cluster", "join", "127.0.0.1:1"];
    cluster.node(2).refuses(&nobody, &["127.0.0.1:1"]);
    cluster.join(2);
    cluster.commit();
    // A ring of another size takes in no rows of this one.
    let other = Cluster::apart(3, &["--storage", "memory", "--ring-size", "16"]);
    let sizes = ["64 partitions", "has 16", "new data directory"];
    other.node(3).refuses(&join, &sizes);
    // Nor is there room for two of one name.
    other
        .node(2)
        .refuses(&join, &["another node named node2@test"]);
    let number = cluster.add(&["--join", &first, "--auto-commit"]);
    eventually("the third node to get its share", || {
        let view = cluster.node(number).json("/v1/cluster");
        (shares(&view).len() == 3 && view["ready"] == true).then_some(())
    });
    cluster.agree();
}

#[test]
fn a_stale_plan_is_refused_and_staged_changes_can_be_given_up() {
    let cluster = Cluster::apart(3, MEMORY);
    let first = cluster.node(1);
    first.refuses(&["cluster", "plan"], &["nothing is staged"]);
    cluster.join(2);
    first.must(&["cluster", "plan"]);
    cluster.join(3);
    let stale = first.cli(&["cluster", "commit"]);
    assert_eq!(stale.status.code(), Some(5), "{}", text(&stale));
    first.must(&["cluster", "clear"]);
    assert_eq!(shares(&first.json("/v1/cluster")).len(), 1);
}
