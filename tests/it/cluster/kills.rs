//! A node is killed in the middle of a change. Whatever it had done by then, the cluster is as it was before the change or as it
//! is after it, what was acknowledged is there, and the change can be brought to its end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tests::resp::Reply;
use tests::{Cluster, Node, eventually, up};

use super::DISK;
use super::registers::Registers;

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Claimant,
    Voter,
    Joiner,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The request is on its way; the node starts again at once.
    Sent,
    /// Another node has seen the first effect; the node starts again once it is missed.
    Seen,
    /// The same, once partitions have moved and hold something.
    Moved,
}

/// Keys that hold something from the beginning, those that are written all the time, and those that are written once partitions
/// have moved.
const SEEDED: usize = 15;
const WRITTEN: usize = 30;
const KEYS: usize = 45;

#[test]
fn the_claimant_may_be_killed_during_each_step_of_a_change() {
    grow_while_killing(Victim::Claimant);
}

#[test]
fn another_voter_may_be_killed_during_each_step_of_a_change() {
    grow_while_killing(Victim::Voter);
}

#[test]
fn the_node_that_joins_may_be_killed_during_each_step_of_its_change() {
    grow_while_killing(Victim::Joiner);
}

/// Three nodes join three others, one after the other, and each step of that is disturbed.
fn grow_while_killing(victim: Victim) {
    let mut story = Story {
        cluster: Cluster::of(3, &[DISK, &["--n", "1"]].concat()),
        victim,
        joiner: 0,
        registers: Registers::new(KEYS),
    };
    story.cluster.seated();
    let first = story.cluster.node(1).resp;
    story.registers.write(first, 0..SEEDED);
    for moment in [Moment::Sent, Moment::Seen, Moment::Moved] {
        println!("{victim:?} {moment:?}");
        story.joiner = story.cluster.add(&[]);
        story.join(moment);
        story.plan();
        story.commit(moment);
    }
}

/// A request, and the node that is asked.
struct Request<'a> {
    through: usize,
    method: &'a str,
    path: &'a str,
    body: &'a str,
}

struct Story {
    cluster: Cluster,
    victim: Victim,
    joiner: usize,
    registers: Registers,
}

impl Story {
    /// The number of whoever is killed next.
    fn victim(&self) -> usize {
        let claimant = self.cluster.claimant();
        match self.victim {
            Victim::Claimant => claimant,
            Victim::Voter if claimant == 1 => 2,
            Victim::Voter => 1,
            Victim::Joiner => self.joiner,
        }
    }

    /// A member that is not killed.
    fn witness(&self, victim: usize) -> &Node {
        let number = if victim == 3 { 2 } else { 3 };
        self.cluster.node(number)
    }

    /// Kills the victim while a request is dealt with, and starts it again. Returns the status of the answer, if one came.
    fn disturb(&mut self, victim: usize, moment: Moment, request: &Request<'_>) -> Option<u16> {
        let witness = self.witness(victim);
        let epoch = epoch(witness);
        let mut events = witness.events();
        let at = witness.resp;
        let writer = self.registers.write_through(at, WRITTEN);
        let through = self.cluster.node(request.through);
        let pending = through.begin(request.method, request.path, request.body);
        if moment != Moment::Sent {
            events.after(epoch);
        }
        if moment == Moment::Moved && request.path.ends_with("/commit") {
            events.find(|event| event["kind"] == "transfer");
            self.registers = writer.stop_before(|| {});
            self.registers.write(at, WRITTEN..KEYS);
            self.cluster.kill(victim);
        } else {
            self.registers = writer.stop_before(|| self.cluster.kill(victim));
        }
        let status = pending.status();
        let name = format!("node{victim}@test");
        if moment != Moment::Sent {
            let witness = self.witness(victim);
            eventually("the node to be missed", || {
                let view = witness.json("/v1/cluster");
                (!up(&view).contains(&name.as_str())).then_some(())
            });
        }
        self.cluster.restart(victim);
        println!("{request} of {name}: {status:?}");
        status
    }

    /// The joiner asks the victim to be let in; if it is the victim itself, the first node.
    fn join(&mut self, moment: Moment) {
        let victim = self.victim();
        let contact = if victim == self.joiner { 1 } else { victim };
        let address = self.cluster.node(contact).peer;
        let before = self.witness(victim).json("/v1/ring");
        let request = Request {
            through: self.joiner,
            method: "POST",
            path: "/v1/changes",
            body: &format!(r#"{{"action": "join", "address": "{address}"}}"#),
        };
        let status = self.disturb(victim, moment, &request);
        let home = self.witness(victim).json("/v1/cluster")["cluster"].clone();
        let joiner = self.cluster.node(self.joiner);
        // One that was let in may have to wait for a claimant who tells it of the cluster.
        if status != Some(200) && joiner.json("/v1/cluster")["cluster"] != home {
            // It is outside, and the others do without it.
            let others: Vec<&Node> = self.cluster.nodes().collect();
            eventually("the members to be back", || {
                let view = self.witness(victim).json("/v1/cluster");
                let back = |node: &&Node| up(&view).contains(&node.name.as_str());
                others[..others.len() - 1].iter().all(back).then_some(())
            });
            // Members that are back may still be about to agree on who decides, and then say "try again".
            let first = self.cluster.node(1).http.to_string();
            eventually("the node to be let in", || {
                joiner.cli(&["cluster", "join", &first]);
                (joiner.json("/v1/cluster")["cluster"] == home).then_some(())
            });
        }
        self.cluster.agree();
        let view = joiner.json("/v1/cluster");
        assert_eq!(staged(&view), [("join", joiner.name.as_str())]);
        assert_eq!(joiner.json("/v1/ring")["owners"], before["owners"]);
        self.all_is_served();
    }

    /// A plan changes nothing, so nothing has changed.
    fn plan(&mut self) {
        let victim = self.victim();
        let before = self.witness(victim).json("/v1/cluster");
        let request = Request {
            through: victim,
            method: "GET",
            path: "/v1/plan",
            body: "",
        };
        self.disturb(victim, Moment::Sent, &request);
        self.cluster.agree();
        let after = self.witness(victim).json("/v1/cluster");
        for what in ["epoch", "staged"] {
            assert_eq!(after[what], before[what], "{what}");
        }
        self.all_is_served();
    }

    fn commit(&mut self, moment: Moment) {
        let victim = self.victim();
        let before = Owners::of(self.witness(victim));
        let plan = self.witness(victim).json("/v1/plan");
        let expected = before.after(&plan);
        let id = plan["id"].as_str().expect("a name");
        let request = Request {
            through: victim,
            method: "POST",
            path: &format!("/v1/plan/{id}/commit"),
            body: "",
        };
        let status = self.disturb(victim, moment, &request);
        self.cluster.agree();
        let witness = self.witness(victim);
        if !staged(&witness.json("/v1/cluster")).is_empty() {
            // It was not committed, so nothing has moved.
            assert_ne!(status, Some(200));
            let now = Owners::of(witness);
            assert_eq!((&now.now, &now.next), (&before.now, &before.next));
            // What is written meanwhile makes them larger.
            let again = before.after(&witness.json("/v1/plan"));
            assert_eq!(again, expected);
            witness.must(&["cluster", "plan"]);
            witness.must(&["cluster", "commit"]);
        }
        self.moved_to(&expected);
        self.all_is_served();
    }

    /// Waits until everything has moved that is to.
    fn moved_to(&self, expected: &[String]) {
        eventually("everything to move", || {
            let settled = |node: &Node| Owners::of(node).pending().is_empty();
            self.cluster.nodes().all(settled).then_some(())
        });
        self.cluster.agree();
        assert_eq!(Owners::of(self.cluster.node(1)).now, expected);
        for node in self.cluster.nodes() {
            let view = node.json("/v1/cluster");
            let members = view["members"].as_array().expect("members");
            assert!(members.iter().all(|member| member["status"] == "valid"));
            assert_eq!(members.len(), self.cluster.nodes().count());
        }
    }

    /// Every node has every key of the node that owns it, with what was acknowledged last.
    fn all_is_served(&self) {
        let owners = Owners::of(self.cluster.node(1)).now;
        for node in self.cluster.nodes() {
            let mut client = node.client();
            for key in self.registers.keys() {
                // A link that broke may cost a command, and a node that got no time for a while is stood in for until it is
                // heard again, and what was written meanwhile has come home.
                eventually(&format!("{key} by {}", node.name), || {
                    let traced = client.run(&format!("VNODE.TRACE GET {key}")).items();
                    let right = !matches!(traced[0], Reply::Error(_)) && {
                        let step = traced[1].clone().items()[0].clone().items();
                        let partition = usize::try_from(step[1].int()).expect("a partition");
                        let owner = step[0].text() == owners[partition];
                        owner && step[2].text() == "primary" && self.registers.fit(key, &traced[0])
                    };
                    if !right {
                        println!("{key} by {}: {traced:?}", node.name);
                    }
                    right.then_some(())
                });
            }
        }
    }
}

impl std::fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, path) = (self.method, self.path);
        write!(f, "{method} {path} through {}, end", self.through)
    }
}

fn epoch(node: &Node) -> u64 {
    let view = node.json("/v1/cluster");
    view["epoch"].as_u64().expect("a number")
}

fn staged(view: &Value) -> Vec<(&str, &str)> {
    let staged = view["staged"].as_array().expect("a list");
    staged
        .iter()
        .map(|change| {
            let action = change["action"].as_str().expect("text");
            (action, change["node"].as_str().expect("text"))
        })
        .collect()
}

/// Who owns each partition, and who is to own it.
struct Owners {
    now: Vec<String>,
    next: Vec<String>,
}

impl Owners {
    fn of(node: &Node) -> Owners {
        let ring = node.json("/v1/ring");
        let owners = ring["owners"].as_array().expect("owners");
        let now: Vec<String> = owners.iter().map(name).collect();
        let mut next = now.clone();
        for transfer in ring["pending"].as_array().expect("transfers") {
            next[partition(transfer)] = name(&transfer["to"]);
        }
        Owners { now, next }
    }

    /// Who is to own each partition once a plan is committed.
    fn after(&self, plan: &Value) -> Vec<String> {
        let moves = plan["moves"].as_array().expect("moves");
        let to: BTreeMap<usize, String> = moves
            .iter()
            .map(|step| (partition(step), name(&step["to"])))
            .collect();
        assert!(!to.is_empty());
        let next = self.next.iter().enumerate();
        next.map(|(partition, next)| to.get(&partition).unwrap_or(next).clone())
            .collect()
    }

    /// The partitions that are to move.
    fn pending(&self) -> BTreeSet<usize> {
        (0..self.now.len())
            .filter(|partition| self.now[*partition] != self.next[*partition])
            .collect()
    }
}

fn name(value: &Value) -> String {
    value.as_str().expect("a name").to_owned()
}

fn partition(value: &Value) -> usize {
    let number = value["partition"].as_u64().expect("a number");
    usize::try_from(number).expect("a small number")
}
