//! Nodes that run and do not hear each other, in a network that is cut and healed.

use serde_json::Value;
use tests::resp::Reply;
use tests::{Cluster, Node, agree, eventually, up};

use super::{get_everywhere, insist, set_and_get_everywhere};

/// With one replica it shows which node a key went to.
const ONE_REPLICA: &[&str] = &["--storage", "memory", "--n", "1"];

/// A cluster with keys, in a network, in which as many vote as may. None where networks cannot be made.
fn settled(count: usize) -> Option<Cluster> {
    let cluster = Cluster::in_network(count, ONE_REPLICA)?;
    cluster.seated();
    set_and_get_everywhere(&cluster, "k", 60);
    Some(cluster)
}

/// The numbers of all nodes but these.
fn others(cluster: &Cluster, some: &[usize]) -> Vec<usize> {
    let all = 1..=cluster.nodes().count();
    all.filter(|number| !some.contains(number)).collect()
}

fn nodes<'a>(cluster: &'a Cluster, numbers: &[usize]) -> Vec<&'a Node> {
    let node = |number: &usize| cluster.node(*number);
    numbers.iter().map(node).collect()
}

fn epoch(node: &Node) -> u64 {
    let view = node.json("/v1/cluster");
    view["epoch"].as_u64().expect("a number")
}

/// Waits until each of these nodes sees exactly these up.
fn alone(nodes: &[&Node]) {
    eventually("the others to be missed", || {
        let alone = |node: &&Node| {
            let view = node.json("/v1/cluster");
            let up = up(&view);
            up.len() == nodes.len() && nodes.iter().all(|node| up.contains(&node.name.as_str()))
        };
        nodes.iter().all(alone).then_some(())
    });
}

/// Writes and reads through each of these nodes, none of which may refuse. Returns the keys that the owner itself has.
fn written(nodes: &[&Node], side: &str) -> Vec<String> {
    let mut with_owner = Vec::new();
    for node in nodes {
        let mut client = node.client();
        for n in 0..40 {
            let key = format!("{side}-{}-{n}", node.name);
            let traced = client.run(&format!("VNODE.TRACE SET {key} v")).items();
            assert_eq!(traced[0], Reply::ok(), "{key}");
            assert_eq!(client.run(&format!("GET {key}")), "v".into(), "{key}");
            let step = traced[1].clone().items()[0].clone().items();
            if step[2].text() == "primary" {
                with_owner.push(key);
            }
        }
    }
    with_owner
}

fn location(node: &Node, of: &str) -> Value {
    let view = node.json("/v1/cluster");
    let members = view["members"].as_array().expect("members");
    let found = members.iter().find(|member| member["name"] == of);
    found.expect("a member")["location"].clone()
}

/// The claimant is in the minority, so the others need another one.
#[test]
fn a_minority_that_is_cut_off_serves_on_changes_nothing_and_follows_after_the_heal() {
    let Some(cluster) = settled(5) else { return };
    let claimant = cluster.claimant();
    let minority = [claimant, claimant % 5 + 1];
    let majority = others(&cluster, &minority);
    let (few, many) = (nodes(&cluster, &minority), nodes(&cluster, &majority));
    let about = cluster.node(majority[0]).name.as_str();
    few[0].must(&["cluster", "location", about, "rack 1"]);
    for node in [few[0], few[1], many[0]] {
        node.must(&["cluster", "plan"]);
    }
    let before = epoch(few[0]);
    cluster.network().cut(&minority, &majority);
    alone(&few);
    alone(&many);
    std::thread::scope(|scope| {
        for node in &few {
            // Each waits for as long as a majority might take.
            scope.spawn(|| node.refuses(&["cluster", "commit"], &["majority of the voters"]));
        }
        scope.spawn(|| {
            let committed = || many[0].cli(&["cluster", "commit"]).status.success();
            eventually("a new claimant", || committed().then_some(()));
        });
    });
    let mut kept = written(&few, "few");
    kept.extend(written(&many, "many"));
    agree(&many);
    assert!(epoch(many[0]) > before);
    assert_eq!(location(many[0], about), "rack 1");
    for node in &few {
        assert_eq!(epoch(node), before);
        assert!(location(node, about).is_null());
    }
    cluster.network().heal();
    cluster.agree();
    assert_eq!(location(few[0], about), "rack 1");
    get_everywhere(&cluster, "k", 60);
    for node in cluster.nodes() {
        let mut client = node.client();
        for key in &kept {
            let value = insist(&mut client, &format!("GET {key}"));
            assert_eq!(value, "v".into(), "{key} through {}", node.name);
        }
    }
}

#[test]
fn a_claimant_that_nobody_hears_any_more_loses_its_office() {
    let Some(cluster) = settled(3) else { return };
    let claimant = cluster.claimant();
    let others = others(&cluster, &[claimant]);
    let (mute, rest) = (cluster.node(claimant), nodes(&cluster, &others));
    let before = epoch(mute);
    for other in &others {
        cluster.network().cut_way(claimant, *other);
    }
    alone(&rest);
    alone(&[mute]);
    agree(&rest);
    rest[0].must(&["cluster", "location", "node2@test", "rack 1"]);
    mute.refuses(
        &["cluster", "location", "node2@test", "rack 2"],
        &["majority of the voters"],
    );
    written(&rest, "rest");
    written(&[mute], "mute");
    assert_eq!(epoch(mute), before);
    cluster.network().heal();
    cluster.agree();
    for node in cluster.nodes() {
        let staged = node.json("/v1/cluster")["staged"].clone();
        assert_eq!(staged[0]["location"], "rack 1");
        assert_eq!(staged.as_array().map(Vec::len), Some(1), "{staged}");
    }
    get_everywhere(&cluster, "k", 60);
}

/// A third node hears both, so nobody is missed, and whoever asks there is served.
#[test]
fn two_nodes_one_of_which_does_not_hear_the_other_stay_members_of_one_cluster() {
    let Some(cluster) = settled(3) else { return };
    let claimant = cluster.claimant();
    let [deaf, between] = others(&cluster, &[claimant])[..] else {
        panic!("three nodes");
    };
    cluster.network().cut_way(claimant, deaf);
    let mut client = cluster.node(claimant).client();
    eventually("the cut to be felt", || {
        let mut keys = (0..60).map(|n| client.run(&format!("GET k{n}")));
        keys.find(|reply| matches!(reply, Reply::Error(_)))
    });
    written(&[cluster.node(between)], "between");
    let before = epoch(cluster.node(between));
    let change = ["cluster", "location", "node2@test", "rack 1"];
    cluster.node(between).must(&change);
    assert!(epoch(cluster.node(between)) > before);
    cluster.network().heal();
    cluster.agree();
    get_everywhere(&cluster, "k", 60);
    // What each saw is read up to something that all have seen.
    let leaver = cluster.node(deaf).name.as_str();
    cluster.node(between).must(&["cluster", "leave", leaver]);
    cluster.node(between).must(&["cluster", "plan"]);
    cluster.node(between).must(&["cluster", "commit"]);
    let last = format!("{leaver} is leaving");
    for node in cluster.nodes() {
        let texts = node.events().map(|event| event["text"].to_string());
        let texts: Vec<_> = texts.take_while(|text| !text.contains(&last)).collect();
        let missed = texts.iter().filter(|text| text.contains("unreachable"));
        assert!(missed.count() <= 2, "{} flaps: {texts:?}", node.name);
    }
}
