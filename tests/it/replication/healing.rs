//! The end of a run with faults: waits until replicas are equal, and tells what the keys hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tests::checkers::{
    AckedSet, Convergence, Counter, Expected, History, Judgement, Lineage, NodeState, Operation,
    Replica, Verdict,
};
use tests::resp::{Client, Reply, encode};
use tests::workload::commands::{End, keys};
use tests::{Cluster, eventually};

use super::{Held, equal, hints, hints_gone, replicas};

/// Longest time from the heal until replicas are equal.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Keys that are read in one pipeline.
const READ_AT_ONCE: usize = 100;
const COPIES: usize = 3;

/// Waits until the cluster has healed, and judges.
pub(super) fn judge(cluster: &Cluster, history: &History) {
    let (convergence, took) = healed(cluster, &keys(history));
    let End {
        sets,
        registers,
        counters,
    } = end(cluster, history);
    let verdicts: [&dyn Verdict; 4] = [
        &AckedSet::check(history, &sets),
        &Lineage::check(history, &registers),
        &Counter::check(history, &counters),
        &convergence,
    ];
    println!("{}", outcomes(history));
    println!("healed in {took:?}");
    for verdict in verdicts {
        println!("{verdict}");
    }
    if verdicts
        .iter()
        .any(|verdict| verdict.judgement() != Judgement::Holds)
    {
        println!("the history is in {}", saved(history).display());
    }
    for verdict in verdicts {
        verdict.require();
    }
}

/// How many operations ended how.
fn outcomes(history: &History) -> String {
    let all = &history.operations;
    let count = |is: fn(&Operation) -> bool| all.iter().filter(|one| is(one)).count();
    let (ok, fail) = (count(|one| one.is_ok()), count(|one| one.is_fail()));
    let unknown = count(|one| one.is_unknown());
    format!(
        "{} operations: {ok} ok, {fail} failed, {unknown} unknown",
        all.len()
    )
}

fn saved(history: &History) -> PathBuf {
    let path = std::env::temp_dir().join(format!("history-{}.jsonl", std::process::id()));
    let file = File::create(&path).expect("a file");
    history.write(BufWriter::new(file)).expect("it is written");
    path
}

/// Waits until hints have gone home, reads every key once so that replicas which differ are repaired, and waits until all are
/// equal. Returns how long that took.
fn healed(cluster: &Cluster, keys: &[(&'static str, String)]) -> (Convergence, Duration) {
    let begun = Instant::now();
    let passed = |what: &str| println!("{what} after {:.1} s", begun.elapsed().as_secs_f64());
    cluster.agree();
    passed("the nodes agree");
    hints_gone(cluster);
    passed("the hints are home");
    let mut client = cluster.node(1).client();
    read_all(&mut client, keys);
    passed(&format!("all {} keys are read", keys.len()));
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

/// Reads each key from all of its replicas.
fn read_all(client: &mut Client, keys: &[(&'static str, String)]) {
    let read = |(service, key): &(&str, String)| {
        let command = match *service {
            "counter" => "COUNT",
            _ => "GET",
        };
        encode(&["VNODE.WITH", "R", "3", "--", command, key])
    };
    for some in keys.chunks(READ_AT_ONCE) {
        let mut left: Vec<Vec<u8>> = some.iter().map(read).collect();
        // A link that was cut may take a moment more until it is used again.
        eventually("all replicas to answer", || {
            let replies = client.pipeline(&left);
            let failed = |reply: &Reply| matches!(reply, Reply::Error(_));
            let again = left.drain(..).zip(&replies);
            left = again
                .filter(|(_, reply)| failed(reply))
                .map(|(read, _)| read)
                .collect();
            left.is_empty().then_some(())
        });
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
    let ring_size = owners.as_array().map_or(0, Vec::len);
    let ring_size = u32::try_from(ring_size).expect("a small ring");
    let owner = |partition: u32| owners[partition as usize].as_str().expect("a name");
    let state = |node: &tests::Node| {
        let ring = node.json("/v1/ring");
        let bytes = |hint: &serde_json::Value| hint["bytes"].as_u64().expect("a number");
        let mut replicas = Vec::new();
        for range in 0..ring_size {
            for partition in (range..range + 3).map(|partition| partition % ring_size) {
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
        ranges: ring_size,
        copies: COPIES,
    };
    Convergence::check(expected, &states)
}

/// Reads every key through another node than the one that healed them.
fn end(cluster: &Cluster, history: &History) -> End {
    let mut client = cluster.node(2).client();
    let mut end = End::default();
    for (service, key) in keys(history) {
        let reply = client.call(&End::command(service, &key));
        end.take(service, &key, reply);
    }
    end
}
