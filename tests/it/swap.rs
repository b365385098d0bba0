//! Another version of a guest on a cluster that serves: nothing fails, nothing is lost, and a bad version goes back by itself.

mod bad;
mod crashes;
mod good;
mod languages;
mod schemas;
mod shadow;
mod versions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use tests::resp::{Client, Reply};
use tests::{Cluster, Node, eventually};

/// Accounts of one teller.
const ACCOUNTS: usize = 20;

const AT_ANY_PACE: &[&str] = &[
    "--rollout-p99-percent",
    "1000000",
    "--rollout-time-percent",
    "1000000",
];

fn guest(make: &str) -> String {
    tests::guest(make).display().to_string()
}

/// So many nodes that serve the first version of the clerk, with these flags too.
fn cluster(count: usize, flags: &[&str]) -> Cluster {
    let one = guest("clerk");
    // How busy the machine is decides nothing, unless a test is about that.
    let own_pace =
        flags.contains(&"--rollout-p99-percent") || flags.contains(&"--rollout-time-percent");
    let pace = if own_pace { &[][..] } else { AT_ANY_PACE };
    let flags = [&["--vnode", &one], pace, flags].concat();
    if count == 1 {
        return Cluster::apart(1, &flags);
    }
    let cluster = Cluster::of(count, &flags);
    cluster.seated();
    cluster
}

/// What `GET …/rollouts/current` says.
fn rollout(node: &Node) -> Value {
    node.json("/v1/services/clerk/rollouts/current")
}

/// Waits until a rollout is done, which must not go back.
fn done(node: &Node) {
    eventually("the rollout to be done", || {
        let rollout = rollout(node);
        assert_ne!(rollout["state"], "rolled-back", "{rollout}");
        (rollout["state"] == "done").then_some(())
    });
}

/// How many partitions are to run each version, as a node sees it.
fn running(node: &Node) -> BTreeMap<String, u64> {
    let services = node.json("/v1/services");
    let mut services = services["services"].as_array().expect("services").iter();
    let clerk = services.find(|service| service["name"] == "clerk");
    let running = clerk.expect("the clerk")["versions"]["running"].clone();
    serde_json::from_value(running).expect("counts")
}

/// Has every partition run a version at once, watched for so long. Returns what was shown.
fn replace_at_once(node: &Node, make: &str, soak: &str) -> String {
    let file = guest(make);
    let how = ["--all-at-once", "--soak", soak, "--wait"];
    node.must(&[&["guest", "upgrade", &file][..], &how].concat())
}

/// Waits until every vnode of these nodes really runs that version.
fn all_run<'a>(nodes: impl Iterator<Item = &'a Node>, version: &str) {
    all_of_run(nodes, "clerk", version);
}

/// The same of another service than the clerk.
fn all_of_run<'a>(nodes: impl Iterator<Item = &'a Node>, service: &str, version: &str) {
    for node in nodes {
        eventually(&format!("{} to run {version}", node.name), || {
            let vnodes = node.json("/v1/vnodes");
            let vnodes = vnodes["vnodes"].as_array()?.iter();
            let mut vnodes = vnodes.filter(|vnode| vnode["service"] == service);
            vnodes
                .all(|vnode| vnode["version"] == version)
                .then_some(())
        });
    }
}

/// A client that counts on accounts that nobody else touches, and looks whether each answer is what it has to be.
struct Teller {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Vec<i64>>,
}

impl Teller {
    /// One at that node, whose accounts have this name.
    fn at(address: SocketAddr, name: String) -> Teller {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let stream = std::net::TcpStream::connect(address).expect("the node takes clients");
            let mut client = Client::new(stream);
            let mut accounts = vec![0_i64; ACCOUNTS];
            while !stopped.load(Ordering::Relaxed) {
                for (n, account) in accounts.iter_mut().enumerate() {
                    let reply = client.run(&format!("ADD {name}-{n} 1"));
                    assert_eq!(reply, Reply::Int(*account + 1), "{name}-{n}");
                    *account += 1;
                    let reply = client.run(&format!("BALANCE {name}-{n}"));
                    assert_eq!(reply, Reply::Int(*account), "{name}-{n}");
                    counted.fetch_add(2, Ordering::Relaxed);
                }
            }
            accounts
        });
        Teller { stop, done, thread }
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until it has done so many commands more.
    fn does(&self, more: u64) {
        let wanted = self.count() + more;
        eventually("a teller to go on", || {
            (self.count() >= wanted).then_some(())
        });
    }

    /// Ends it: what it has counted on all accounts.
    fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        let accounts = self.thread.join().expect("every answer was right");
        accounts.iter().sum()
    }
}

/// Tellers, so many at each node.
fn tellers(cluster: &Cluster, each: usize) -> Vec<Teller> {
    let nodes = cluster.nodes();
    let at =
        nodes.flat_map(|node| (0..each).map(move |n| (node.resp, format!("{}-{n}", node.name))));
    at.map(|(address, name)| Teller::at(address, name))
        .collect()
}

/// Ends them all, and asserts that the cluster has counted what they have.
fn settle(cluster: &Cluster, tellers: Vec<Teller>) {
    let counted: i64 = tellers.into_iter().map(Teller::end).sum();
    for node in cluster.alive() {
        assert_eq!(
            node.client().run("TOTAL"),
            Reply::Int(counted),
            "at {}",
            node.name
        );
    }
}
