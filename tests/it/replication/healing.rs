//! The end of a run with faults: waits until replicas are equal, and tells what the keys hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tests::Cluster;
use tests::checkers::{Convergence, Expected, History, Judgement, NodeState, Replica, Verdict};
use tests::resp::{Client, Reply};

use super::sessions::{BAG, COUNTER, versions};
use super::{Held, equal, hints, hints_gone, replicas};

/// Longest time from the heal until replicas are equal.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
const RING_SIZE: u32 = 64;
const COPIES: usize = 3;

/// What all keys of a run hold at its end, by the checker that judges them.
#[derive(Default)]
pub(super) struct End {
    pub(super) sets: BTreeMap<String, BTreeSet<u64>>,
    pub(super) registers: BTreeMap<String, BTreeSet<u64>>,
    pub(super) counters: BTreeMap<String, u64>,
}

/// The keys of the cluster, by service: those of the history that are keys themselves, and the elements of the others.
pub(super) fn keys(history: &History) -> Vec<(&'static str, String)> {
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        let key = operation.key.clone();
        match operation.action.written() {
            Some(element) if key.starts_with(BAG) => {
                keys.insert(("kv", format!("{key}:{element}")));
            }
            _ if key.starts_with(COUNTER) => {
                keys.insert(("counter", key));
            }
            _ => {
                keys.insert(("kv", key));
            }
        }
    }
    keys.into_iter().collect()
}

/// Waits until hints have gone home, reads every key once so that replicas which differ are repaired, and waits until all are
/// equal. Returns how long that took.
pub(super) fn healed(
    cluster: &Cluster,
    keys: &[(&'static str, String)],
) -> (Convergence, Duration) {
    let begun = Instant::now();
    cluster.agree();
    hints_gone(cluster);
    let mut client = cluster.node(1).client();
    for (service, key) in keys {
        let command = match *service {
            "counter" => "COUNT",
            _ => "GET",
        };
        let reply = client.call(&["VNODE.WITH", "R", "3", "--", command, key]);
        assert!(!matches!(reply, Reply::Error(_)), "{key}: {reply:?}");
    }
    let mut held: BTreeMap<&str, Vec<Held>> = BTreeMap::new();
    loop {
        for (service, key) in keys {
            if held.get(key.as_str()).is_none_or(|held| !equal(held)) {
                held.insert(key, replicas(&mut client, key, service));
            }
        }
        let verdict = look(cluster, &held);
        let over = begun.elapsed() > HEALED_WITHIN;
        if over || verdict.judgement() == Judgement::Holds {
            for held in held.iter().filter(|(_, held)| !equal(held)).take(10) {
                println!("differs: {held:?}");
            }
            return (verdict, begun.elapsed());
        }
    }
}

/// Judges what the nodes hold.
fn look(cluster: &Cluster, held: &BTreeMap<&str, Vec<Held>>) -> Convergence {
    let mut contents: BTreeMap<(u32, u32), String> = BTreeMap::new();
    for (key, held) in held {
        for replica in held {
            let content = contents.entry((held[0].partition, replica.partition));
            let content = content.or_default();
            content.push_str(&format!("{key} {:?} {:?};", replica.values, replica.error));
        }
    }
    let owners = cluster.node(1).json("/v1/ring")["owners"].clone();
    let owner = |partition: u32| owners[partition as usize].as_str().expect("a name");
    let state = |node: &tests::Node| {
        let ring = node.json("/v1/ring");
        let bytes = |hint: &serde_json::Value| hint["bytes"].as_u64().expect("a number");
        let mut replicas = Vec::new();
        for range in 0..RING_SIZE {
            for partition in (range..range + 3).map(|partition| partition % RING_SIZE) {
                let content = contents.get(&(range, partition)).cloned();
                if owner(partition) == node.name {
                    replicas.push(Replica {
                        range,
                        partition,
                        digest: content.unwrap_or_default(),
                    });
                }
            }
        }
        NodeState {
            node: node.name.clone(),
            ring: format!("{} {}", ring["epoch"], ring["owners"]),
            fallback_bytes: hints(node).iter().map(bytes).sum(),
            replicas,
        }
    };
    let states: Vec<NodeState> = cluster.nodes().map(state).collect();
    let expected = Expected {
        nodes: states.len(),
        ranges: RING_SIZE,
        copies: COPIES,
    };
    Convergence::check(expected, &states)
}

/// Reads every key through another node than the one that healed them.
pub(super) fn end(cluster: &Cluster, history: &History, counts: bool) -> End {
    let mut client = cluster.node(2).client();
    let mut end = End::default();
    for (service, key) in keys(history) {
        if service == "counter" {
            if counts {
                let count = u64::try_from(client.run(&format!("COUNT {key}")).int());
                end.counters.insert(key, count.expect("nobody counts down"));
            }
            continue;
        }
        let values = elements(&mut client, &key);
        match key.split_once(':') {
            Some((bag, _)) => end.sets.entry(bag.to_owned()).or_default().extend(values),
            None if key.starts_with(super::sessions::CAUSAL) => {
                end.registers.insert(key, values);
            }
            None => {
                end.sets.insert(key, values);
            }
        }
    }
    end
}

fn elements(client: &mut Client, key: &str) -> BTreeSet<u64> {
    let (_, values) = versions(client.call(&["VGET", key]));
    values.into_iter().flatten().collect()
}
