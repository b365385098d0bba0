//! Nodes become one cluster: joins, plans, commits, and any node answers for every key.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::resp::{Client, Reply};
use tests::{Cluster, eventually, signal, text};

const MEMORY: &[&str] = &["--storage", "memory"];

/// Asserts that a command of the command line is refused, with these words.
fn refused(output: &std::process::Output, words: &[&str]) {
    let said = text(output);
    assert!(!output.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

/// Sets so many keys through one node, and asserts that each node has them all.
fn set_and_get_everywhere(cluster: &Cluster, prefix: &str, count: usize) {
    let mut first = cluster.node(1).client();
    for n in 0..count {
        assert_eq!(first.run(&format!("SET {prefix}{n} v{n}")), Reply::ok());
    }
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..count {
            let value = client.run(&format!("GET {prefix}{n}"));
            assert_eq!(value, format!("v{n}").as_str().into(), "{} {n}", node.name);
        }
    }
}

/// Partitions that each node owns, as one node sees it.
fn shares(view: &Value) -> Vec<(String, u64)> {
    let members = view["members"].as_array().expect("members");
    let share = |member: &Value| {
        let name = member["name"].as_str().expect("a name").to_owned();
        (name, member["partitions"].as_u64().expect("a number"))
    };
    members.iter().map(share).collect()
}

#[test]
fn three_nodes_join_and_each_answers_for_every_key() {
    let cluster = Cluster::apart(3, MEMORY);
    cluster.join(2);
    cluster.join(3);
    let first = cluster.node(1);
    let staged = text(&first.cli(&["cluster", "status"]));
    assert!(staged.contains("joining     0.0%"), "{staged}");
    let plan = text(&first.cli(&["cluster", "plan"]));
    for words in [
        "node2@test",
        "Transfers: 42",
        "62 of 64",
        "host cluster commit",
    ] {
        assert!(plan.contains(words), "{words:?} is not in {plan}");
    }
    let begun = Instant::now();
    let committed = first.cli(&["cluster", "commit", "--wait", "60s"]);
    assert!(committed.status.success(), "{}", text(&committed));
    assert!(begun.elapsed() < Duration::from_secs(60));
    cluster.agree();
    let table = text(&first.cli(&["cluster", "status"]));
    for words in [
        "valid      34.4%      --      'node1@test' (C)",
        "valid      32.8%      --      'node2@test'",
        "Valid:3 / Leaving:0 / Exiting:0 / Joining:0 / Down:0",
    ] {
        assert!(table.contains(words), "{words:?} is not in {table}");
    }
    let letters = text(&first.cli(&["ring", "show"]));
    assert!(
        letters.contains("Node c: 21 ( 32.8%) node3@test"),
        "{letters}"
    );
    set_and_get_everywhere(&cluster, "k", 200);
    let mut third = cluster.node(3).client();
    assert_eq!(third.run("DBSIZE"), Reply::Int(200));
    assert_eq!(third.run("KEYS *").items().len(), 200);
    assert_eq!(third.run("DEL k1 k2 k3 k10").int(), 4);
    assert_eq!(cluster.node(1).client().run("DBSIZE"), Reply::Int(196));
}

#[test]
fn pings_are_answered_by_every_node_of_the_cluster() {
    let cluster = Cluster::of(3, MEMORY);
    for node in cluster.nodes() {
        let mut client = node.client();
        let mut answered = BTreeSet::new();
        for n in 0..300 {
            let reply = client.run(&format!("PING.PING {n}")).items();
            assert_eq!(reply[1], Reply::Int(n + 1));
            answered.insert(reply[2].text());
        }
        let all: Vec<_> = cluster.nodes().map(|node| node.name.clone()).collect();
        assert_eq!(answered.into_iter().collect::<Vec<_>>(), all);
    }
}

#[test]
fn pipelines_over_several_nodes_keep_the_order_of_their_replies() {
    let cluster = Cluster::of(3, MEMORY);
    let mut client = cluster.node(2).client();
    let commands: Vec<_> = (0..2000)
        .flat_map(|n| [format!("INCR c{}", n % 50), format!("COUNT c{}", n % 50)])
        .map(|words| tests::resp::line(&words))
        .collect();
    let replies = client.pipeline(&commands);
    for (n, pair) in replies.chunks(2).enumerate() {
        let expected = Reply::Int((n / 50 + 1).try_into().expect("a small number"));
        assert_eq!(pair, [expected.clone(), expected], "{n}");
    }
}

#[test]
fn members_ring_and_data_outlive_the_end_of_all_nodes() {
    let mut cluster = Cluster::of(3, &["--sync", "always"]);
    set_and_get_everywhere(&cluster, "k", 60);
    let before = shares(&cluster.node(1).json("/v1/cluster"));
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.restart(number);
    }
    cluster.agree();
    assert_eq!(shares(&cluster.node(2).json("/v1/cluster")), before);
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..60 {
            let value = client.run(&format!("GET k{n}"));
            assert_eq!(value, format!("v{n}").as_str().into(), "{}", node.name);
        }
    }
    // Changes are made again, too.
    let located = cluster
        .node(3)
        .cli(&["cluster", "location", "node1@test", "rack 1"]);
    assert!(located.status.success(), "{}", text(&located));
    assert!(cluster.node(2).cli(&["cluster", "clear"]).status.success());
}

/// Runs a command until its reply is no error.
fn insist(client: &mut Client, words: &str) -> Reply {
    eventually(words, || {
        let reply = client.run(words);
        (!matches!(reply, Reply::Error(_))).then_some(reply)
    })
}

#[test]
fn a_node_that_dies_takes_no_other_with_it_and_has_its_data_when_it_is_back() {
    let mut cluster = Cluster::of(3, &["--sync", "always"]);
    set_and_get_everywhere(&cluster, "k", 100);
    cluster.kill(3);
    eventually("the others to see it", || {
        let seen = |number| cluster.node(number).json("/v1/cluster")["members"][2]["up"] == false;
        (seen(1) && seen(2)).then_some(())
    });
    // Another node stands in for it: every key can be written and read.
    let mut client = cluster.node(1).client();
    for n in 0..100 {
        assert_eq!(insist(&mut client, &format!("SET new{n} v")), Reply::ok());
        assert_eq!(insist(&mut client, &format!("GET new{n}")), "v".into());
    }
    let status = cluster.node(2).cli(&["status"]);
    assert_eq!(status.status.code(), Some(3), "{}", text(&status));
    assert!(text(&status).contains("node3@test is unreachable"));
    cluster.restart(3);
    cluster.agree();
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..100 {
            let value = insist(&mut client, &format!("GET k{n}"));
            assert_eq!(value, format!("v{n}").as_str().into(), "{} {n}", node.name);
        }
    }
}

#[test]
fn a_node_that_is_stopped_slows_nobody_once_it_is_seen() {
    let cluster = Cluster::of(3, MEMORY);
    let stopped = cluster.node(3).pid().to_string();
    signal("STOP", &stopped);
    let mut client = cluster.node(1).client();
    for n in 0..300 {
        insist(&mut client, &format!("SET k{n} v"));
    }
    // Whatever was sent to it before that is answered too, at its deadline at the latest.
    let begun = Instant::now();
    for n in 0..300 {
        assert_eq!(client.run(&format!("GET k{n}")), "v".into());
    }
    let took = begun.elapsed();
    signal("CONT", &stopped);
    assert!(took < Duration::from_secs(20), "{took:?} for 300 reads");
    cluster.agree();
}

#[test]
fn a_minority_serves_on_and_changes_nothing_and_agrees_afterwards() {
    let mut cluster = Cluster::of(3, &["--sync", "always"]);
    set_and_get_everywhere(&cluster, "k", 30);
    cluster.kill(1);
    cluster.kill(2);
    let mut client = cluster.node(3).client();
    for n in 0..30 {
        insist(&mut client, &format!("SET alone{n} v"));
        assert_eq!(client.run(&format!("GET alone{n}")), "v".into());
    }
    let asked = cluster.node(3).cli(&["cluster", "leave", "node1@test"]);
    refused(&asked, &["majority of the voters"]);
    let epoch = cluster.node(3).json("/v1/cluster")["epoch"].as_u64();
    cluster.restart(1);
    cluster.restart(2);
    cluster.agree();
    assert!(cluster.node(3).json("/v1/cluster")["epoch"].as_u64() >= epoch);
    let staged = cluster.node(3).json("/v1/cluster")["staged"].clone();
    assert!(
        staged.as_array().is_some_and(|staged| staged.len() <= 1),
        "{staged}"
    );
}

#[test]
fn five_nodes_join_at_once_and_one_of_them_twice() {
    let cluster = Cluster::apart(6, MEMORY);
    std::thread::scope(|scope| {
        for number in 2..=6 {
            let cluster = &cluster;
            scope.spawn(move || cluster.join(number));
        }
    });
    let first = cluster.node(1).http.to_string();
    let again = cluster.node(4).cli(&["cluster", "join", &first]);
    refused(&again, &["is a member of that cluster already"]);
    cluster.commit();
    let view = cluster.node(6).json("/v1/cluster");
    let owned: Vec<u64> = shares(&view).into_iter().map(|(_, owned)| owned).collect();
    assert_eq!(owned.iter().sum::<u64>(), 64);
    assert!(
        owned.iter().all(|owned| (10..=11).contains(owned)),
        "{owned:?}"
    );
    set_and_get_everywhere(&cluster, "k", 60);
}

#[test]
fn a_node_that_leaves_without_data_hands_over_and_ends_by_itself() {
    let mut cluster = Cluster::of(4, MEMORY);
    let left = cluster.node(2).cli(&["cluster", "leave", "node4@test"]);
    assert!(left.status.success(), "{}", text(&left));
    assert!(cluster.node(2).cli(&["cluster", "plan"]).status.success());
    let leaver = cluster.take(4);
    let committed = cluster.node(2).cli(&["cluster", "commit", "--wait", "60s"]);
    assert!(committed.status.success(), "{}", text(&committed));
    let ended = leaver.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    cluster.agree();
    assert_eq!(shares(&cluster.node(1).json("/v1/cluster")).len(), 3);
    set_and_get_everywhere(&cluster, "k", 60);
}

#[test]
fn the_claimant_may_leave_as_well() {
    let mut cluster = Cluster::of(3, MEMORY);
    let claimant = cluster.node(1).json("/v1/cluster")["claimant"].clone();
    let name = claimant.as_str().expect("there is one").to_owned();
    let number = (1..=3).find(|number| cluster.node(*number).name == name);
    let number = number.expect("it is one of the three");
    assert!(
        cluster
            .node(number)
            .cli(&["cluster", "leave"])
            .status
            .success()
    );
    assert!(
        cluster
            .node(number)
            .cli(&["cluster", "plan"])
            .status
            .success()
    );
    assert!(
        cluster
            .node(number)
            .cli(&["cluster", "commit"])
            .status
            .success()
    );
    let ended = cluster.take(number).ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.printed);
    cluster.agree();
    let other = cluster.nodes().next().expect("two are left");
    let view = other.json("/v1/cluster");
    assert_eq!(shares(&view).len(), 2);
    assert_ne!(view["claimant"], claimant);
}

#[test]
fn one_that_joins_replaces_another_in_order_or_by_force() {
    let mut cluster = Cluster::of(3, MEMORY);
    cluster.add(&[]);
    cluster.join(4);
    let first = cluster.node(1);
    let staged = first.cli(&["cluster", "replace", "node2@test", "node4@test"]);
    assert!(staged.status.success(), "{}", text(&staged));
    cluster.node(1).cli(&["cluster", "plan"]);
    let replaced = cluster.take(2);
    let committed = cluster.node(1).cli(&["cluster", "commit", "--wait", "60s"]);
    assert!(committed.status.success(), "{}", text(&committed));
    assert_eq!(replaced.ended().status.code(), Some(0));
    cluster.agree();
    // The next one is dead, and its data is given up.
    cluster.kill(3);
    cluster.add(&[]);
    cluster.join(5);
    let staged = cluster
        .node(1)
        .cli(&["cluster", "force-replace", "node3@test", "node5@test"]);
    assert!(staged.status.success(), "{}", text(&staged));
    let plan = text(&cluster.node(1).cli(&["cluster", "plan"]));
    assert!(plan.contains('!'), "{plan}");
    let committed = cluster.node(1).cli(&["cluster", "commit", "--wait", "60s"]);
    assert!(committed.status.success(), "{}", text(&committed));
    let names: Vec<String> = shares(&cluster.node(4).json("/v1/cluster"))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["node1@test", "node4@test", "node5@test"]);
}

#[test]
fn what_cannot_join_is_told_why() {
    let mut cluster = Cluster::apart(2, MEMORY);
    let first = cluster.node(1).http.to_string();
    let own = cluster.node(1).cli(&["cluster", "join", &first]);
    refused(&own, &["own address"]);
    let nobody = cluster.node(2).cli(&["cluster", "join", "127.0.0.1:1"]);
    refused(&nobody, &["127.0.0.1:1"]);
    cluster.join(2);
    cluster.commit();
    // A ring of another size takes in no rows of this one.
    let other = Cluster::apart(3, &["--storage", "memory", "--ring-size", "16"]);
    let sized = other.node(3).cli(&["cluster", "join", &first]);
    refused(&sized, &["64 partitions", "has 16", "new data directory"]);
    // Nor is there room for two of one name.
    let namesake = other.node(2).cli(&["cluster", "join", &first]);
    refused(&namesake, &["another node named node2@test"]);
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
    let nothing = cluster.node(1).cli(&["cluster", "plan"]);
    refused(&nothing, &["nothing is staged"]);
    cluster.join(2);
    assert!(cluster.node(1).cli(&["cluster", "plan"]).status.success());
    cluster.join(3);
    let stale = cluster.node(1).cli(&["cluster", "commit"]);
    assert_eq!(stale.status.code(), Some(5), "{}", text(&stale));
    assert!(cluster.node(1).cli(&["cluster", "clear"]).status.success());
    let view = cluster.node(1).json("/v1/cluster");
    assert_eq!(shares(&view).len(), 1);
}

#[test]
fn what_holds_data_stays_where_it_is_and_is_served_on() {
    let cluster = Cluster::apart(2, MEMORY);
    let mut first = cluster.node(1).client();
    assert_eq!(first.run("SET here v"), Reply::ok());
    cluster.join(2);
    assert!(cluster.node(1).cli(&["cluster", "plan"]).status.success());
    assert!(cluster.node(1).cli(&["cluster", "commit"]).status.success());
    let transfers = eventually("all but one partition to move", || {
        let body = cluster.node(1).json("/v1/transfers");
        let left = body["transfers"].as_array()?.len();
        (left <= 1).then_some(body)
    });
    cluster.agree();
    for node in cluster.nodes() {
        assert_eq!(node.client().run("GET here"), "v".into(), "{transfers}");
    }
}

#[test]
fn a_trace_names_the_node_and_the_partition_of_each_step() {
    let cluster = Cluster::of(3, MEMORY);
    set_and_get_everywhere(&cluster, "k", 40);
    let ring = cluster.node(1).json("/v1/ring");
    for node in cluster.nodes() {
        let mut client = node.client();
        for n in 0..40 {
            let traced = client.run(&format!("VNODE.TRACE GET k{n}")).items();
            assert_eq!(traced[0], format!("v{n}").as_str().into());
            let step = traced[1].clone().items()[0].clone().items();
            let partition = usize::try_from(step[1].int()).expect("a partition");
            assert_eq!(
                ring["owners"][partition].as_str(),
                Some(step[0].text().as_str())
            );
            assert_eq!(step[2], Reply::Simple("primary".into()));
            assert_eq!(step[3], "ok".into());
        }
        let keys = client.run("VNODE.TRACE KEYS *").items();
        assert_eq!(keys[0].clone().items().len(), 40);
        let parts = keys[1].clone().items();
        assert_eq!(parts.len(), 64);
        let in_parts = |part: &Reply| part.clone().items()[2].clone().items().len();
        assert_eq!(parts.iter().map(in_parts).sum::<usize>(), 40);
    }
    let told = cluster.node(1).cli(&["call", "--trace", "get", "k1"]);
    let told = text(&told);
    assert!(
        told.starts_with("v1\n") && told.contains("primary") && told.contains("@test"),
        "{told}"
    );
    let mut client = cluster.node(1).client();
    let counted = client.run("VNODE.TRACE EXISTS k1 k2 nokey").items();
    assert_eq!(counted[0], Reply::Int(2));
    // Three keys, and the three replicas of each.
    assert_eq!(counted[1].clone().items().len(), 9);
    assert!(client.run("VNODE.TRACE PING").is_error("ERR"));
}

#[test]
fn one_node_goes_on_when_the_others_are_lost_for_good() {
    let mut cluster = Cluster::of(3, &["--sync", "always"]);
    set_and_get_everywhere(&cluster, "k", 60);
    let data = cluster.node(1).data.clone();
    let running = tests::run(&["recover", "--force", "--data", tests::arg(&data)]);
    refused(&running, &["another process"]);
    for number in 1..=3 {
        cluster.kill(number);
    }
    let asked = tests::run(&["recover", "--data", tests::arg(&data)]);
    assert_eq!(asked.status.code(), Some(5), "{}", text(&asked));
    let recovered = tests::run(&["recover", "--force", "--data", tests::arg(&data)]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    cluster.restart(1);
    drop((cluster.take(2), cluster.take(3)));
    let first = cluster.node(1);
    for lost in ["node2@test", "node3@test"] {
        let removed = eventually("the node to decide alone", || {
            let output = first.cli(&["cluster", "force-remove", lost]);
            output.status.success().then_some(output)
        });
        assert!(text(&removed).contains(lost));
    }
    assert!(first.cli(&["cluster", "plan"]).status.success());
    let committed = first.cli(&["cluster", "commit", "--wait", "60s"]);
    assert!(committed.status.success(), "{}", text(&committed));
    let view = first.json("/v1/cluster");
    assert_eq!(shares(&view), [("node1@test".to_owned(), 64)]);
    // What it held is there; what the lost ones held is not.
    let mut client = first.client();
    let kept = (0..60).filter(|n| client.run(&format!("GET k{n}")) != Reply::Nil);
    assert!((1..60).contains(&kept.count()));
}
