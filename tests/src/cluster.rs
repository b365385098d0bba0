//! Several nodes as processes, and the one cluster that they become.

use std::path::Path;

use serde_json::Value;

use crate::node::{Node, Starter};
use crate::{eventually, text};

/// Nodes named `node1@test`, `node2@test` and on, in directories that last as long as this.
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    args: Vec<String>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// So many nodes with these flags, each a cluster of its own.
    pub fn apart(count: usize, args: &[&str]) -> Cluster {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        for _ in 0..count {
            cluster.add(&[]);
        }
        cluster
    }

    /// So many nodes that have become one cluster.
    pub fn of(count: usize, args: &[&str]) -> Cluster {
        let cluster = Cluster::apart(count, args);
        for number in 2..=count {
            cluster.join(number);
        }
        cluster.commit();
        cluster
    }

    /// Starts one more node, with these flags besides. Returns its number.
    pub fn add(&mut self, args: &[&str]) -> usize {
        let number = self.nodes.len() + 1;
        self.nodes.push(None);
        self.start(number, args);
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
        let starter = Starter::three(&[&args[..], more].concat());
        let starter = starter.named(&name).data(&data);
        let starter = match more.contains(&"--peer") {
            true => starter.own_ports(),
            false => starter,
        };
        self.nodes[number - 1] = Some(starter.start());
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

    /// Has a node ask the first one to be let in.
    pub fn join(&self, number: usize) {
        let first = self.node(1).http.to_string();
        let output = self.node(number).cli(&["cluster", "join", &first]);
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Plans and commits on the first node, and waits until nothing moves any more.
    pub fn commit(&self) {
        let first = self.node(1);
        assert!(first.cli(&["cluster", "plan"]).status.success());
        let output = first.cli(&["cluster", "commit", "--wait", "60s"]);
        assert!(output.status.success(), "{}", text(&output));
        self.agree();
    }

    /// Waits until every node that runs sees the same map, and all that run up.
    pub fn agree(&self) {
        let count = self.nodes().count();
        eventually("the nodes to agree", || {
            let views: Vec<Value> = self.nodes().map(|node| node.json("/v1/cluster")).collect();
            let first = views.first()?;
            let same = |view: &Value| {
                let up = view["members"].as_array().map_or(0, |members| {
                    members.iter().filter(|member| member["up"] == true).count()
                });
                view["epoch"] == first["epoch"]
                    && view["cluster"] == first["cluster"]
                    && up == count
            };
            views.iter().all(same).then_some(())
        });
    }

    /// Ends a node at once, as a crash does.
    pub fn kill(&mut self, number: usize) {
        self.node_mut(number).kill();
    }

    /// Starts a node again that has ended, at the same addresses.
    pub fn restart(&mut self, number: usize) {
        let old = self.nodes[number - 1].take().expect("it ran before");
        let [resp, http, peer] = [old.resp, old.http, old.peer].map(|address| address.to_string());
        drop(old);
        self.start(number, &["--resp", &resp, "--http", &http, "--peer", &peer]);
    }

    /// The folder with the nodes' data directories.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
