//! The ring is resized under a cluster that serves: no answer is wrong on the way, whoever ends in the middle of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tests::resp::{Client, Reply, line};
use tests::{Cluster, Node, eventually};

use super::insist;

const KEYS: usize = 600;
const COUNTERS: usize = 16;
/// Clients that count at once, so that commands wait for their vnodes.
const CLIENTS: usize = 3;
/// How often each of them counts each counter before it reads an answer.
const ROUNDS: usize = 2;
const FLAGS: &[&str] = &["--sync", "always", "--ring-size", "16"];

fn seed(node: &Node) {
    let mut client = node.client();
    for n in 0..KEYS {
        assert_eq!(client.run(&format!("SET k{n} v{n}")), Reply::ok());
    }
}

/// Asserts that each node has every key, and each of them once.
fn all_there(cluster: &Cluster) {
    for node in cluster.nodes() {
        all_there_on(node, KEYS);
    }
}

/// Asserts that a node has so many keys, each of them once, and no others.
fn all_there_on(node: &Node, count: usize) {
    let mut client = node.client();
    let keys = i64::try_from(count).expect("small");
    assert_eq!(insist(&mut client, "DBSIZE").int(), keys, "{}", node.name);
    let listed: Vec<String> = insist(&mut client, "KEYS *")
        .items()
        .iter()
        .map(Reply::text)
        .collect();
    let names: BTreeSet<&String> = listed.iter().collect();
    assert_eq!((listed.len(), names.len()), (count, count), "{}", node.name);
    for n in 0..count {
        let held = insist(&mut client, &format!("GET k{n}"));
        assert_eq!(held, format!("v{n}").as_str().into(), "{} k{n}", node.name);
    }
}

/// What clients have seen while something else went on.
#[derive(Default)]
struct Seen {
    /// What each counter was at first.
    before: Vec<i64>,
    /// Of each counter, so often somebody was told that it counted, and so often somebody was not told.
    counts: Vec<(i64, i64)>,
    /// Every size that was answered.
    sizes: BTreeSet<i64>,
    /// What was said instead of counting.
    refused: Vec<String>,
}

impl Seen {
    /// What another client has seen at the same time.
    fn and(mut self, other: Seen) -> Seen {
        for (mine, its) in self.counts.iter_mut().zip(other.counts) {
            *mine = (mine.0 + its.0, mine.1 + its.1);
        }
        self.sizes.extend(other.sizes);
        self.refused.extend(other.refused);
        self
    }
}

/// Counts, and asks for the number of keys, until it is told to stop.
fn watch(mut client: Client, stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        counts: vec![(0, 0); COUNTERS],
        ..Seen::default()
    };
    let counters = (0..COUNTERS).cycle().take(ROUNDS * COUNTERS);
    let pipeline: Vec<_> = counters
        .map(|n| line(&format!("INCR counter-{n}")))
        .collect();
    while !stop.load(Ordering::Relaxed) {
        for (at, reply) in client.pipeline(&pipeline).into_iter().enumerate() {
            let (sure, unsure) = &mut seen.counts[at % COUNTERS];
            match reply {
                Reply::Int(_) => *sure += 1,
                Reply::Error(why) => {
                    *unsure += 1;
                    seen.refused.push(why);
                }
                other => panic!("{other:?}"),
            }
        }
        if let Reply::Int(size) = client.run("DBSIZE") {
            seen.sizes.insert(size);
        }
    }
    seen
}

/// Does something while clients of a node count. Returns what they saw.
fn meanwhile(cluster: &mut Cluster, number: usize, act: impl FnOnce(&mut Cluster)) -> Seen {
    let stop = AtomicBool::new(false);
    let mut clients = [(); CLIENTS].map(|()| cluster.node(number).client());
    let before = (0..COUNTERS)
        .map(|n| insist(&mut clients[0], &format!("COUNT counter-{n}")).int())
        .collect();
    let seen = std::thread::scope(|scope| {
        let watching = clients.map(|client| scope.spawn(|| watch(client, &stop)));
        let stopping = Stop(&stop);
        act(cluster);
        drop(stopping);
        let seen = watching.map(|one| one.join().expect("a client"));
        seen.into_iter().reduce(Seen::and).expect("some")
    });
    Seen { before, ..seen }
}

/// Stops whoever watches, also when a test has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asserts that no counter has forgotten anything or counted twice, and that the number of keys was always the same.
fn sound(cluster: &Cluster, seen: &Seen) {
    let keys = i64::try_from(KEYS).expect("small");
    assert!(
        seen.sizes.iter().all(|size| *size == keys),
        "{:?}",
        seen.sizes
    );
    for node in cluster.nodes() {
        let mut client = node.client();
        for (n, (sure, unsure)) in seen.counts.iter().enumerate() {
            let sum = insist(&mut client, &format!("COUNT counter-{n}")).int() - seen.before[n];
            assert!(
                (*sure..=sure + unsure).contains(&sum),
                "counter-{n} is {sum} at {} and was counted {sure} times, perhaps {unsure} more",
                node.name
            );
        }
    }
}

fn stage(node: &Node, partitions: u16) {
    node.must(&["cluster", "resize", &partitions.to_string()]);
    node.must(&["cluster", "plan"]);
}

/// Waits until the ring has that size everywhere, nobody has rows by other numbers, and nothing moves.
fn settled(cluster: &Cluster, partitions: u16) {
    eventually(&format!("a ring of {partitions}"), || {
        let is = |node: &Node| {
            let view = node.json("/v1/cluster");
            view["ring_size"] == json!(partitions)
                && view["resize"] == Value::Null
                && view["ready"] == json!(true)
                && node.json("/v1/transfers")["transfers"] == json!([])
        };
        cluster.nodes().all(is).then_some(())
    });
    cluster.agree();
}

#[test]
fn one_node_doubles_its_ring_and_halves_it_again_and_starts_again_in_between() {
    let mut cluster = Cluster::apart(1, FLAGS);
    seed(cluster.node(1));
    for partitions in [32, 16, 8] {
        let seen = meanwhile(&mut cluster, 1, |cluster| {
            stage(cluster.node(1), partitions);
            cluster.node(1).must(&["cluster", "commit"]);
            settled(cluster, partitions);
        });
        assert!(seen.refused.is_empty(), "{:?}", seen.refused);
        sound(&cluster, &seen);
        all_there(&cluster);
        cluster.kill(1);
        cluster.restart(1);
        cluster.agree();
        all_there(&cluster);
    }
}

#[test]
fn three_nodes_resize_their_ring_under_clients_who_do_not_notice() {
    let mut cluster = Cluster::of(3, FLAGS);
    cluster.seated();
    seed(cluster.node(1));
    let seen = meanwhile(&mut cluster, 2, |cluster| {
        for partitions in [32, 16] {
            stage(cluster.node(3), partitions);
            cluster.node(3).must(&["cluster", "commit"]);
            settled(cluster, partitions);
        }
    });
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
    sound(&cluster, &seen);
    all_there(&cluster);
}

#[test]
fn a_resize_that_is_given_up_leaves_everything_as_it_was() {
    let mut cluster = Cluster::of(3, FLAGS);
    cluster.seated();
    seed(cluster.node(1));
    let before = cluster.node(1).json("/v1/ring")["owners"].clone();
    let seen = meanwhile(&mut cluster, 1, |cluster| {
        let node = cluster.node(2);
        // What a ring that halves has to move first never ends.
        node.must(&["transfers", "pause"]);
        stage(node, 8);
        node.must(&["cluster", "commit"]);
        node.refuses(
            &["cluster", "resize", "32"],
            &["being resized from 16 to 8"],
        );
        node.refuses(&["cluster", "leave"], &["being resized from 16 to 8"]);
        stage(node, 16);
        node.must(&["cluster", "commit"]);
        node.must(&["transfers", "resume"]);
        settled(cluster, 16);
    });
    let after = cluster.node(1).json("/v1/ring")["owners"].clone();
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
    assert_eq!(after, before);
    sound(&cluster, &seen);
    all_there(&cluster);
    let seen = meanwhile(&mut cluster, 3, |cluster| {
        stage(cluster.node(1), 8);
        cluster.node(1).must(&["cluster", "commit"]);
        settled(cluster, 8);
    });
    sound(&cluster, &seen);
    all_there(&cluster);
}

#[test]
fn a_node_that_was_down_resizes_what_it_has_when_it_is_back() {
    let mut cluster = Cluster::of(3, FLAGS);
    cluster.seated();
    seed(cluster.node(1));
    cluster.kill(3);
    let name = "node3@test";
    eventually("the node to be missed", || {
        let down = cluster.node(1).cli(&["cluster", "down", name]);
        down.status.success().then_some(())
    });
    let seen = meanwhile(&mut cluster, 1, |cluster| {
        let change = cluster.node(1).cli(&["cluster", "resize", "32"]);
        assert!(change.status.success());
        cluster
            .node(1)
            .refuses(&["cluster", "plan"], &["node3@test is down"]);
        cluster.restart(3);
        eventually("the node to be valid again", || {
            let plan = cluster.node(1).cli(&["cluster", "plan"]);
            plan.status.success().then_some(())
        });
        cluster.node(1).must(&["transfers", "pause"]);
        cluster.node(1).must(&["cluster", "commit"]);
        cluster.kill(3);
        cluster.restart(3);
        cluster.node(1).must(&["transfers", "resume"]);
        settled(cluster, 32);
    });
    sound(&cluster, &seen);
    all_there(&cluster);
}

#[test]
fn after_a_resize_partitions_go_by_their_positions_on_the_new_ring() {
    let cluster = Cluster::of(3, FLAGS);
    cluster.seated();
    stage(cluster.node(1), 32);
    cluster.node(1).must(&["cluster", "commit"]);
    settled(&cluster, 32);
    let node = cluster.node(1);
    let mut client = node.client();
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        // Traced, it is called alone, by the typed door; else with others, by the packed one.
        let traced = client.run("VNODE.TRACE PING.PING").items();
        let said = traced[0].clone().items()[1].int();
        let step = traced[1].clone().items()[0].clone().items();
        assert_eq!(step[1].int(), said, "{step:?}");
        seen.extend([said, client.run("PING.PING").items()[1].int()]);
    }
    assert!(
        seen.first() >= Some(&0) && seen.last() < Some(&32),
        "{seen:?}"
    );
    let repaired = node.must(&["transfers", "repair", "31"]);
    assert!(repaired.contains("repairs partition 31"), "{repaired}");
    node.refuses(
        &["transfers", "repair", "32"],
        &["partition 32 is not on a ring of 32"],
    );
    let owner = node.json("/v1/ring")["owners"][31].clone();
    let mut nodes = cluster.nodes();
    let owner = nodes.find(|node| owner == node.name.as_str());
    let kv = tests::guest("kv").display().to_string();
    let shadow = |partition| {
        let words = ["--partitions", partition, "--for", "100ms"];
        [&["guest", "shadow", &kv, "--service", "kv"], &words[..]].concat()
    };
    let owner = owner.expect("the owner");
    owner.refuses(&shadow("31"), &["no command was compared"]);
    assert_eq!(
        owner.json("/v1/services/kv/shadow")["partitions"],
        json!([31])
    );
    owner.refuses(&shadow("32"), &["there is no partition"]);
}

#[test]
fn a_node_that_was_removed_after_a_resize_begins_a_cluster_with_the_ring_that_it_knew() {
    let mut cluster = Cluster::of(3, FLAGS);
    cluster.seated();
    seed(cluster.node(1));
    stage(cluster.node(1), 32);
    cluster.node(1).must(&["cluster", "commit"]);
    settled(&cluster, 32);
    // Else it sends home what it has before it ends.
    cluster.node(1).must(&["transfers", "pause"]);
    let first = cluster.node(1);
    first.must(&["cluster", "force-remove", "node3@test"]);
    eventually("the removal to be committed", || {
        let done = |word| first.cli(&["cluster", word]).status.success();
        (done("plan") && done("commit")).then_some(())
    });
    eventually("the removed node to end", || {
        cluster.node_mut(3).has_ended().then_some(())
    });
    cluster.restart(3);
    let view = cluster.node(3).json("/v1/cluster");
    assert_eq!(view["ring_size"], json!(32));
    assert_eq!(view["members"].as_array().map(Vec::len), Some(1), "{view}");
    // Of some keys it had no replica: three nodes are not on all lists of a ring of 32.
    let mut client = cluster.node(3).client();
    let held = insist(&mut client, "KEYS k*").items();
    assert!(held.len() > KEYS / 2, "{} of {KEYS}", held.len());
    for key in held.iter().map(Reply::text) {
        let value = key.replacen('k', "v", 1);
        let found = insist(&mut client, &format!("GET {key}"));
        assert_eq!(found, value.as_str().into(), "{key}");
    }
}

#[test]
fn a_node_joins_a_ring_that_was_resized_there_and_back_with_what_it_has() {
    let mut cluster = Cluster::apart(3, FLAGS);
    seed(cluster.node(1));
    for partitions in [32, 16] {
        stage(cluster.node(1), partitions);
        cluster.node(1).must(&["cluster", "commit"]);
        eventually(&format!("a ring of {partitions}"), || {
            let view = cluster.node(1).json("/v1/cluster");
            (view["ring_size"] == json!(partitions) && view["resize"] == Value::Null).then_some(())
        });
    }
    // One is fresh, the other has rows by the numbers that its own ring has, which was never resized.
    let mut client = cluster.node(3).client();
    for n in KEYS..KEYS + 100 {
        assert_eq!(client.run(&format!("SET k{n} v{n}")), Reply::ok());
    }
    cluster.join(2);
    cluster.join(3);
    cluster.commit();
    cluster.seated();
    settled(&cluster, 16);
    let has_all = |cluster: &Cluster| {
        eventually("the rows of all to be with all", || {
            let size = insist(&mut cluster.node(1).client(), "DBSIZE").int();
            (size == i64::try_from(KEYS + 100).expect("small")).then_some(())
        });
        for node in cluster.nodes() {
            all_there_on(node, KEYS + 100);
        }
    };
    has_all(&cluster);
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.restart(number);
    }
    cluster.agree();
    has_all(&cluster);
}

#[test]
fn changes_that_could_not_be_stored_are_copied_again() {
    let cluster = &mut Cluster::faulty(1, FLAGS);
    seed(cluster.node(1));
    cluster.fail_at(1, "resize-changes", 3);
    let seen = meanwhile(cluster, 1, |cluster| {
        stage(cluster.node(1), 32);
        cluster.node(1).must(&["cluster", "commit"]);
        settled(cluster, 32);
    });
    assert_eq!(cluster.failures_left(1, "resize-changes"), 0);
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
    sound(cluster, &seen);
    all_there(cluster);
}

#[test]
fn whoever_waits_for_rows_of_the_ring_before_is_told_in_time() {
    let flags = [FLAGS, &["--request-timeout", "2s"]].concat();
    let cluster = &mut Cluster::faulty(1, &flags);
    seed(cluster.node(1));
    cluster.fail_at(1, "resize-changes", usize::MAX);
    let seen = meanwhile(cluster, 1, |cluster| {
        stage(cluster.node(1), 32);
        cluster.node(1).must(&["cluster", "commit"]);
        let mut client = cluster.node(1).client();
        eventually("a command to be refused", || {
            let late = |n| client.run(&format!("GET k{n}")).is_error("TIMEOUT");
            (0..KEYS).any(late).then_some(())
        });
        cluster.fail_at(1, "resize-changes", 0);
        settled(cluster, 32);
    });
    assert!(
        // Some wait for the rows themselves, some for replicas that do.
        seen.refused
            .iter()
            .all(|why| why.contains("TIMEOUT") || why.contains(" timeout")),
        "{:?}",
        seen.refused
    );
    sound(cluster, &seen);
    all_there(cluster);
}

/// Rows that a node keeps for a while that went to another one.
fn retained(node: &Node) -> u64 {
    let transfers = node.json("/v1/transfers");
    let rows = transfers["retained"].as_array().expect("a list").iter();
    rows.map(|row| row["objects"].as_u64().expect("a number"))
        .sum()
}

#[test]
fn rows_that_were_handed_over_are_kept_as_long_when_the_ring_is_resized() {
    let cluster = Cluster::apart(2, FLAGS);
    seed(cluster.node(1));
    cluster.join(2);
    cluster.commit();
    cluster.seated();
    settled(&cluster, 16);
    let before = retained(cluster.node(1));
    assert!(before > 0, "half of the partitions have moved");
    stage(cluster.node(1), 32);
    cluster.node(1).must(&["cluster", "commit"]);
    settled(&cluster, 32);
    assert_eq!(retained(cluster.node(1)), before);
    all_there(&cluster);
}

/// Which node ends.
#[derive(Clone, Copy)]
enum Who {
    Claimant,
    Other,
}

/// A node ends at that place while the ring goes from one size to another, once it has passed it so often.
fn a_node_ends(who: Who, (from, to): (u16, u16), place: &str, passes: usize) {
    let size = from.to_string();
    let mut cluster = Cluster::faulty(3, &["--sync", "always", "--ring-size", &size]);
    for number in 2..=3 {
        cluster.join(number);
    }
    cluster.commit();
    cluster.seated();
    seed(cluster.node(1));
    let claimant = cluster.claimant();
    let other = claimant % 3 + 1;
    let (number, stays) = match who {
        Who::Claimant => (claimant, other),
        Who::Other => (other, claimant),
    };
    let seen = meanwhile(&mut cluster, stays, |cluster| {
        stage(cluster.node(stays), to);
        cluster.end_at(number, place, passes);
        cluster.node(stays).must(&["cluster", "commit"]);
        eventually(&format!("the node to end at {place}"), || {
            cluster.node_mut(number).has_ended().then_some(())
        });
        cluster.restart(number);
        cluster.agree();
        settled(cluster, to);
    });
    sound(&cluster, &seen);
    all_there(&cluster);
}

macro_rules! failpoints {
    ($($test:ident: $who:ident $sizes:tt $place:literal $passes:literal)*) => {
        $(
            #[test]
            fn $test() {
                a_node_ends(Who::$who, $sizes, $place, $passes);
            }
        )*
    };
}

failpoints! {
    a_node_ends_after_a_page_was_copied: Other (16, 32) "resize-page" 3
    a_node_ends_when_its_rows_are_copied: Other (16, 32) "resize-filled" 0
    a_node_ends_when_it_knows_the_new_ring: Other (16, 32) "resize-flipped" 0
    a_node_ends_before_it_inherits: Other (32, 16) "resize-inherits" 0
    a_node_ends_when_it_has_inherited: Other (16, 32) "resize-inherited" 0
    a_node_ends_when_it_has_cleaned_up: Other (32, 16) "resize-cleaned" 0
    a_node_ends_while_a_ring_halves: Other (32, 16) "resize-page" 3
    the_claimant_ends_before_it_flips_the_ring: Claimant (16, 32) "resize-flips" 0
    the_claimant_ends_when_it_has_flipped_the_ring: Claimant (32, 16) "resize-flipped" 0
}
