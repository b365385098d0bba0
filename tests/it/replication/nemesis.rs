//! Five nodes that are killed, stopped and cut off while clients write, and what is left of the writes.
//!
//! `NEMESIS_SEED` runs one seed in place of the fixed ones and `NEMESIS_SECONDS` makes a run longer; for a campaign, run it
//! with one seed after the other. A history that is judged bad is written to a file that the test names.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Duration;

use tests::checkers::{AckedSet, Counter, History, Judgement, Lineage, Verdict};
use tests::nemesis::{Fault, Limits, Schedule, Trouble};
use tests::{Cluster, Node, signal};

use super::healing::{End, end, healed, keys};
use super::sessions::Run;

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

fn campaign(seed: u64, seconds: u64) {
    let nodes = usize::try_from(NODES).expect("a small number");
    let networked = Cluster::in_network(nodes, &[]);
    let cuts = networked.is_some();
    let mut cluster = networked.unwrap_or_else(|| Cluster::of(nodes, &[]));
    cluster.seated();
    let schedule = Schedule::new(seed, &limits(seconds, cuts));
    println!("{schedule}");
    let run = Run::new(cluster.nodes().map(|node| node.resp).collect(), seed);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            for (nth, plan) in (0..).zip(Run::plans()) {
                let run = &run;
                scope.spawn(move || run.client(&plan, nth * CLIENTS + client));
            }
        }
        // Clients that would wait for ever for the end of a schedule that panics.
        let _stop = StopAtEnd(&run);
        follow(&schedule, &run, &mut cluster);
    });
    let history = run.recorder.history(format!("seed {seed}\n{schedule}"));
    judge(&cluster, &history, seed);
}

struct StopAtEnd<'a>(&'a Run);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
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

/// Does what the schedule says, each at its time.
fn follow(schedule: &Schedule, run: &Run, cluster: &mut Cluster) {
    for step in &schedule.steps {
        let at = Duration::from_millis(step.at_ms);
        std::thread::sleep(at.saturating_sub(run.now()));
        inflict(step.fault, cluster);
    }
}

fn inflict(fault: Fault, cluster: &mut Cluster) {
    let number = |node: u32| usize::try_from(node).expect("a small number");
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

/// Waits until the cluster has healed, and judges.
fn judge(cluster: &Cluster, history: &History, seed: u64) {
    let (convergence, took) = healed(cluster, &keys(history));
    let End {
        sets,
        registers,
        counters,
    } = end(cluster, history, true);
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
        println!("the history is in {}", saved(history, seed).display());
    }
    for verdict in verdicts {
        verdict.require();
    }
}

/// How many operations ended how, and the most frequent reasons.
fn outcomes(history: &History) -> String {
    let all = &history.operations;
    let count =
        |is: fn(&tests::checkers::Operation) -> bool| all.iter().filter(|one| is(one)).count();
    let (ok, fail) = (count(|one| one.is_ok()), count(|one| one.is_fail()));
    let unknown = count(|one| one.is_unknown());
    format!(
        "{} operations: {ok} ok, {fail} failed, {unknown} unknown",
        all.len()
    )
}

fn saved(history: &History, seed: u64) -> PathBuf {
    let path = std::env::temp_dir().join(format!("nemesis-{seed}-{}.jsonl", std::process::id()));
    let file = File::create(&path).expect("a file");
    history.write(BufWriter::new(file)).expect("it is written");
    path
}
