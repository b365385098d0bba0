//! Five nodes that are killed, stopped and cut off while clients write and the ring is resized, and what is left of the writes.
//!
//! `NEMESIS_SEED` runs one seed in place of the fixed ones and `NEMESIS_SECONDS` makes a run longer; for a campaign, run it
//! with one seed after the other. A history that is judged bad is written to a file that the test names.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tests::checkers::{Judgement, Linearizable, Verdict};
use tests::nemesis::{Fault, Limits, Schedule, Trouble};
use tests::workload::{Kind, Plan};
use tests::{Cluster, Node, eventually, signal, up};

use super::ALWAYS;
use super::healing::judge;
use super::sessions::{Run, kept};

/// Seeds of the ordinary run.
const SEEDS: [u64; 2] = [3, 11];
const SECONDS: u64 = 10;
const NODES: u32 = 5;
/// Of each workload.
const CLIENTS: u32 = 2;

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_whatever_happens_to_the_nodes() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let number = |name| number(name).map(|number| number.expect("a number"));
    let seconds = number("NEMESIS_SECONDS").unwrap_or(SECONDS);
    let seeds = match number("NEMESIS_SEED") {
        Some(seed) => vec![seed],
        None => SEEDS.to_vec(),
    };
    for seed in seeds {
        campaign(seed, seconds);
    }
}

/// The ring of the beginning has 64 partitions. Of these sizes each is asked for in turn, until the cluster takes it.
const SIZES: [u16; 4] = [128, 64, 32, 64];

fn campaign(seed: u64, seconds: u64) {
    let nodes = usize::try_from(NODES).expect("a small number");
    let networked = Cluster::in_network(nodes, ALWAYS);
    let cuts = networked.is_some();
    let mut cluster = networked.unwrap_or_else(|| Cluster::of(nodes, ALWAYS));
    cluster.seated();
    let schedule = Schedule::new(seed, &limits(seconds, cuts));
    println!("{schedule}");
    let run = Run::new(addresses(&cluster), kept(), seed);
    let note = format!("seed {seed}\n{schedule}");
    let history = run.meanwhile(CLIENTS, note, || follow(&schedule, &run, &mut cluster));
    resized(&cluster);
    judge(&cluster, &history);
}

fn limits(seconds: u64, cuts: bool) -> Limits {
    let mut troubles = vec![Trouble::Kill, Trouble::Pause];
    if cuts {
        troubles.extend([Trouble::Cut, Trouble::CutOneWay, Trouble::Split]);
    }
    Limits {
        length_ms: seconds * 1_000,
        gap_ms: 300..=2_000,
        lasts_ms: 800..=6_000,
        troubles,
        ..Limits::new(NODES)
    }
}

/// Does what the schedule says, each at its time, and has the ring resized meanwhile.
fn follow(schedule: &Schedule, run: &Run, cluster: &mut Cluster) {
    let mut sizes = SIZES.iter().cycle().copied().peekable();
    let mut paused = BTreeSet::new();
    for step in &schedule.steps {
        let at = Duration::from_millis(step.at_ms);
        std::thread::sleep(at.saturating_sub(run.now()));
        if let Some(size) = sizes.peek()
            && resize(cluster, &paused, *size)
        {
            println!("{:?}: the ring is to have {size} partitions", run.now());
            sizes.next();
        }
        inflict(step.fault, cluster);
        match step.fault {
            Fault::Pause { node } => drop(paused.insert(node)),
            Fault::Resume { node } => drop(paused.remove(&node)),
            _ => {}
        }
    }
}

/// Asks for a ring of that size at a node that runs. Whether the cluster takes it: nobody may decide just now, or the last resize
/// may not be over.
fn resize(cluster: &Cluster, paused: &BTreeSet<u32>, size: u16) -> bool {
    let runs = |number: &u32| !paused.contains(number) && !cluster.node(index(*number)).is_killed();
    let Some(number) = (1..=NODES).find(runs) else {
        return false;
    };
    let node = cluster.node(index(number));
    let view = node.json("/v1/cluster");
    let to_be = match &view["resize"] {
        Value::Null => &view["ring_size"],
        resize => &resize["to"],
    };
    let size_text = size.to_string();
    let steps = [&["resize", &size_text][..], &["plan"], &["commit"]];
    let taken = |words: &[&str]| node.cli(&[&["cluster"], words].concat()).status.success();
    // It may have been taken when nobody was there to say so.
    *to_be == size || steps.into_iter().all(taken)
}

/// Waits until the last resize is over.
fn resized(cluster: &Cluster) {
    eventually("the resize to be over", || {
        let over = |node: &Node| node.json("/v1/cluster")["resize"] == Value::Null;
        cluster.nodes().all(over).then_some(())
    });
}

fn index(node: u32) -> usize {
    usize::try_from(node).expect("a small number")
}

fn inflict(fault: Fault, cluster: &mut Cluster) {
    let number = index;
    let pid = |node: &Node| node.pid().to_string();
    match fault {
        Fault::Kill { node } => cluster.kill(number(node)),
        Fault::Restart { node } => cluster.restart(number(node)),
        Fault::Pause { node } => signal("STOP", &pid(cluster.node(number(node)))),
        Fault::Resume { node } => signal("CONT", &pid(cluster.node(number(node)))),
        Fault::Cut { one, other } => cluster.network().cut(&[number(one)], &[number(other)]),
        Fault::CutOneWay { from, to } => cluster.network().cut_way(number(from), number(to)),
        Fault::Heal { one, other } => cluster.network().mend(number(one), number(other)),
        Fault::ClockStep { .. } => panic!("no clock of a process can be moved here"),
    }
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.nodes().map(|node| node.resp).collect()
}

/// What shows that the faults and the judges are worth something: a mode that promises less is found out.
#[test]
fn where_the_last_write_wins_a_split_network_is_seen_not_to_hold_one_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("lossy.toml");
    std::fs::write(&config, "[service.kv]\nlast_write_wins = true\n").expect("it is written");
    let config = config.to_str().expect("a path in UTF-8");
    let Some(cluster) = Cluster::in_network(3, &["--storage", "memory", "--config", config]) else {
        return;
    };
    let run = Run::new(addresses(&cluster), vec![Plan::new(Kind::Register)], 1);
    let history = run.meanwhile(4 * CLIENTS, String::new(), || {
        run.go_on(200);
        cluster.network().cut(&[1], &[2, 3]);
        eventually("the sides to miss each other", || {
            let seen = |number: usize| up(&cluster.node(number).json("/v1/cluster")).len();
            (seen(1) == 1 && seen(2) == 2).then_some(())
        });
        // Both sides serve, and neither sees what the other acknowledges.
        run.go_on(500);
        cluster.network().heal();
        run.go_on(200);
    });
    let verdict = Linearizable::check(&history);
    println!("{verdict}");
    assert_eq!(verdict.judgement(), Judgement::Violated);
}
