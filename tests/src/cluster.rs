//! Several nodes as processes, and the one cluster that they become.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::network::Network;
use crate::node::{Node, Starter};
use crate::{eventually, text};

/// Nodes named `node1@test`, `node2@test` and on, in directories that last as long as this.
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    args: Vec<String>,
    /// Whether the nodes end where a test wants them to.
    faulty: bool,
    folder: tempfile::TempDir,
    // After the nodes: it ends when they have.
    network: Option<Network>,
}

/// Nobody who waits for another node is refused because the machine is busy.
const PATIENT: &[&str] = &["--request-timeout", "20s", "--command-budget", "10s"];

impl Cluster {
    /// So many nodes with these flags, each a cluster of its own.
    pub fn apart(count: usize, args: &[&str]) -> Cluster {
        Cluster::start_all(count, args, None, false)
    }

    /// The same, of nodes that end at the places that [`Cluster::end_at`] says.
    pub fn faulty(count: usize, args: &[&str]) -> Cluster {
        Cluster::start_all(count, args, None, true)
    }

    /// So many nodes that have become one cluster.
    pub fn of(count: usize, args: &[&str]) -> Cluster {
        Cluster::apart(count, args).joined()
    }

    /// The same, each at a place of its own in a network that can be cut. None where there is none.
    pub fn in_network(count: usize, args: &[&str]) -> Option<Cluster> {
        let network = Network::new(count)?;
        let cluster = Cluster::start_all(count, args, Some(network), false);
        Some(cluster.joined())
    }

    fn start_all(count: usize, args: &[&str], network: Option<Network>, faulty: bool) -> Cluster {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            faulty,
            folder: tempfile::tempdir().expect("a temporary folder"),
            network,
        };
        for _ in 0..count {
            cluster.add(&[]);
        }
        cluster
    }

    fn joined(self) -> Cluster {
        for number in 2..=self.nodes.len() {
            self.join(number);
        }
        self.commit();
        self
    }

    /// The network that the nodes are in.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("they are in one")
    }

    /// Starts one more node, with these flags besides. Returns its number.
    pub fn add(&mut self, args: &[&str]) -> usize {
        let number = self.nodes.len() + 1;
        self.nodes.push(None);
        match &self.network {
            None => self.start(number, args),
            Some(network) => {
                let at = network.address(number);
                let [resp, http, peer] = [7379, 7380, 7381].map(|port| format!("{at}:{port}"));
                let own = ["--resp", &resp, "--http", &http, "--peer", &peer];
                self.start(number, &[&own, args].concat());
            }
        }
        number
    }

    fn start(&mut self, number: usize, more: &[&str]) {
        let name = format!("node{number}@test");
        let data = self.folder.path().join(&name);
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let own_ring = args.contains(&"--ring-size") || more.contains(&"--join");
        if !data.exists() && !own_ring {
            crate::template::seed_named(&data, &name);
        }
        let flags = [&args[..], more].concat();
        let own_time = flags.contains(&"--request-timeout");
        let time = if own_time { &[][..] } else { PATIENT };
        let starter = Starter::three(&[time, &flags].concat());
        let starter = starter.named(&name).data(&data);
        let starter = match self.faulty {
            true => starter.faulty(&self.places(number)),
            false => starter,
        };
        let starter = match more.contains(&"--peer") {
            true => starter.own_ports(),
            false => starter,
        };
        let starter = match &self.network {
            None => starter,
            Some(network) => starter.wrapped(&network.entry(number).each_ref().map(String::as_str)),
        };
        self.nodes[number - 1] = Some(starter.start());
    }

    fn places(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("places{number}"))
    }

    /// Has a node end as soon as it comes to that place, once it has passed it so often.
    pub fn end_at(&self, number: usize, place: &str, passes: usize) {
        self.mark(number, place, passes);
    }

    /// Has what a node does at that place fail so often.
    pub fn fail_at(&self, number: usize, place: &str, times: usize) {
        self.mark(number, place, times);
    }

    /// How often it will fail at that place yet.
    pub fn failures_left(&self, number: usize, place: &str) -> usize {
        let text = std::fs::read_to_string(self.places(number).join(place));
        text.expect("a file").trim().parse().expect("a number")
    }

    fn mark(&self, number: usize, place: &str, times: usize) {
        let places = self.places(number);
        std::fs::create_dir_all(&places).expect("a directory");
        std::fs::write(places.join(place), times.to_string()).expect("a file");
    }

    /// The node of that number, counted from 1, which must be running.
    pub fn node(&self, number: usize) -> &Node {
        self.nodes[number - 1].as_ref().expect("the node runs")
    }

    /// The same, to change it.
    pub fn node_mut(&mut self, number: usize) -> &mut Node {
        self.nodes[number - 1].as_mut().expect("the node runs")
    }

    /// Takes a node out, to watch its end.
    pub fn take(&mut self, number: usize) -> Node {
        self.nodes[number - 1].take().expect("the node runs")
    }

    /// The nodes that run.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Those of them that were not killed.
    pub fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes().filter(|node| !node.is_killed())
    }

    /// The number of the node that decides on changes, once the first one knows it.
    pub fn claimant(&self) -> usize {
        eventually("a claimant", || {
            let view = self.nodes().next()?.json("/v1/cluster");
            let is = |node: &Option<Node>| {
                let name = node.as_ref().map(|node| node.name.as_str());
                name.is_some() && view["claimant"].as_str() == name
            };
            Some(self.nodes.iter().position(is)? + 1)
        })
    }

    /// Has a node ask the first one to be let in.
    pub fn join(&self, number: usize) {
        let first = self.node(1).http.to_string();
        self.node(number).must(&["cluster", "join", &first]);
    }

    /// Plans and commits on the first node, and waits until nothing moves any more and all agree.
    pub fn commit(&self) {
        self.commit_on(1);
        self.agree();
    }

    /// Plans and commits on that node, and waits until nothing moves any more. Returns the plan as it was shown.
    pub fn commit_on(&self, number: usize) -> String {
        let plan = self.node(number).must(&["cluster", "plan"]);
        let committed = self
            .node(number)
            .cli(&["cluster", "commit", "--wait", "50s"]);
        if !committed.status.success() {
            let shown = |node: &Node| text(&node.cli(&["transfers"]));
            let transfers: String = self.alive().map(shown).collect();
            panic!("{}\n{transfers}", text(&committed));
        }
        plan
    }

    /// Waits until every node that runs sees the same map, and all that run up.
    pub fn agree(&self) {
        let nodes: Vec<&Node> = self.nodes().collect();
        agree(&nodes);
    }

    /// Waits until as many nodes vote as may, five at most: before that fewer losses may be too many.
    pub fn seated(&self) {
        let wanted = self.nodes().count().min(5);
        eventually("the nodes to vote", || {
            let all = |node: &Node| {
                let view = node.json("/v1/cluster");
                let members = view["members"].as_array().into_iter().flatten();
                members.filter(|member| member["votes"] == true).count() == wanted
            };
            self.nodes().all(all).then_some(())
        });
    }

    /// Ends a node at once, as a crash does.
    pub fn kill(&mut self, number: usize) {
        self.node_mut(number).kill();
    }

    /// Starts a node again that has ended, at the same addresses.
    pub fn restart(&mut self, number: usize) {
        self.restart_with(number, &[]);
    }

    /// The same with these flags besides.
    pub fn restart_with(&mut self, number: usize, more: &[&str]) {
        let old = self.nodes[number - 1].take().expect("it ran before");
        let [resp, http, peer] = [old.resp, old.http, old.peer].map(|address| address.to_string());
        drop(old);
        let own = ["--resp", &resp, "--http", &http, "--peer", &peer];
        self.start(number, &[&own, more].concat());
    }

    /// The folder with the nodes' data directories.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Waits until these nodes see the same map with the same claimant, and exactly these as up. Two nodes may never see different
/// owners at the same epoch.
pub fn agree(nodes: &[&Node]) {
    eventually("the nodes to agree", || {
        let views: Vec<Value> = nodes.iter().map(|node| node.json("/v1/cluster")).collect();
        let rings: Vec<Value> = nodes.iter().map(|node| node.json("/v1/ring")).collect();
        let (first, ring) = (views.first()?, rings.first()?);
        let same = |view: &Value| {
            let alike = |what: &str| view[what] == first[what];
            let mut up = up(view);
            up.sort_unstable();
            alike("epoch") && alike("cluster") && alike("claimant") && up == names(nodes)
        };
        if !views.iter().all(same) || rings.iter().any(|other| other["epoch"] != ring["epoch"]) {
            return None;
        }
        for other in &rings {
            assert_eq!(other["owners"], ring["owners"], "at one epoch");
        }
        first["claimant"].is_string().then_some(())
    });
}

fn names<'a>(nodes: &[&'a Node]) -> Vec<&'a str> {
    let mut names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// The members that a node sees up.
pub fn up(view: &Value) -> Vec<&str> {
    let members = view["members"].as_array().into_iter().flatten();
    let up = members.filter(|member| member["up"] == true);
    up.filter_map(|member| member["name"].as_str()).collect()
}
