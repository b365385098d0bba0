//! A network that can be cut: every node has a network namespace of its own, and all hang on one switch.
//!
//! A namespace lasts as long as a process in it, here a `cat` that ends when the test does, even if it is killed. With the last
//! namespace its cables go, so nothing is left behind and nothing has a name that two tests could both want. Only the cable
//! to the tests' own network has one, which the system gives to one of those who ask.
//!
//! A way is cut by a wrong hardware address: what is sent there is lost without a word, like on a broken cable, also for
//! connections that are open. That needs no firewall.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use crate::tool;

/// Networks of 16 addresses in 198.18.0.0/15, which is set apart for tests of networks.
const SLOTS: u32 = 8192;
const FIRST: u32 = 0xc612_0000;
/// Places for nodes in a network; the address after the last one is that of the tests.
const PLACES: u32 = 13;
/// A hardware address that nobody has.
const NOWHERE: &str = "02:00:00:00:00:00";

/// A switch with cables to as many places as were asked for.
pub struct Network {
    slot: u32,
    places: Vec<Namespace>,
    // Its end ends the cables.
    switch: Namespace,
}

impl Network {
    /// With so many places for nodes. None, and a loud word, where this is not allowed or the tools are missing.
    pub fn new(places: usize) -> Option<Network> {
        for name in ["ip", "unshare", "nsenter"] {
            tool(name)?;
        }
        let switch = Namespace::new()?;
        let laid = try_ip(&switch.entry(), "link add name bridge type bridge")
            .and_then(|()| claim(&switch));
        let slot = match laid {
            Ok(slot) => slot,
            Err(why) => return skipped(&why),
        };
        ip(&switch, "link set bridge up");
        let mut network = Network {
            slot,
            places: Vec::new(),
            switch,
        };
        for _ in 0..places {
            network.plug_in();
        }
        Some(network)
    }

    fn plug_in(&mut self) {
        let number = self.places.len() + 1;
        let place = Namespace::new().expect("there was one before");
        let switch = &self.switch;
        let pid = place.pid();
        ip(
            switch,
            &format!("link add to{number} type veth peer name eth0 netns {pid}"),
        );
        ip(switch, &format!("link set to{number} master bridge up"));
        self.places.push(place);
        let address = self.address(number);
        let place = self.place(number);
        ip(place, &format!("address add {address}/28 dev eth0"));
        ip(place, "link set eth0 up");
        ip(place, "link set lo up");
    }

    fn place(&self, number: usize) -> &Namespace {
        self.places.get(number - 1).expect("a place")
    }

    /// The address of a place, counted from 1.
    pub fn address(&self, number: usize) -> Ipv4Addr {
        let number = u32::try_from(number).expect("a small number");
        assert!((1..=PLACES).contains(&number), "no place {number}");
        address(self.slot, number)
    }

    /// Words that have a program run at a place.
    pub fn entry(&self, number: usize) -> [String; 2] {
        self.place(number).entry()
    }

    /// Loses from now on what one place sends to another. What comes back still arrives.
    pub fn cut_way(&self, from: usize, to: usize) {
        let to = self.address(to);
        let change = format!("neighbour replace {to} lladdr {NOWHERE} dev eth0 nud permanent");
        ip(self.place(from), &change);
    }

    /// Cuts all ways between some places and some others.
    pub fn cut(&self, some: &[usize], others: &[usize]) {
        for one in some {
            for other in others {
                self.cut_way(*one, *other);
                self.cut_way(*other, *one);
            }
        }
    }

    /// Mends both ways between two places.
    pub fn mend(&self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let to = self.address(to);
            let change = format!("neighbour flush to {to} dev eth0 nud permanent");
            ip(self.place(from), &change);
        }
    }

    /// Mends all ways.
    pub fn heal(&self) {
        for place in &self.places {
            ip(place, "neighbour flush dev eth0 nud permanent");
        }
    }
}

fn address(slot: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST + slot * 16 + number)
}

/// Lays the cable from the switch to the tests' own network, by a name that nobody else has, and returns which.
fn claim(switch: &Namespace) -> Result<u32, String> {
    let pid = switch.pid();
    let begin = std::process::id();
    let mut slots = (0..SLOTS).map(|step| (begin + step) % SLOTS);
    let slot = loop {
        let slot = slots.next().ok_or("all networks are in use")?;
        let add = format!("link add vnt{slot} type veth peer name tests netns {pid}");
        match try_ip(HERE, &add) {
            Ok(()) => break slot,
            Err(why) if why.contains("File exists") => {}
            Err(why) => return Err(why),
        }
    };
    ip(switch, "link set tests master bridge up");
    let here = address(slot, PLACES + 1);
    try_ip(HERE, &format!("address add {here}/28 dev vnt{slot}"))?;
    try_ip(HERE, &format!("link set vnt{slot} up"))?;
    Ok(slot)
}

fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("\n*** SKIPPED: no network to cut, so this test checked nothing: {why} ***\n");
    None
}

/// A network namespace, and the process that keeps it.
struct Namespace {
    keeper: Child,
}

impl Namespace {
    /// None, and a loud word, where this is not allowed.
    fn new() -> Option<Namespace> {
        let mut keeper = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let (stdin, stdout) = (keeper.stdin.as_mut(), keeper.stdout.as_mut());
        // It is in its namespace once it repeats what it is told.
        let mut echo = [0];
        drop(stdin.expect("a pipe").write_all(b"\n"));
        if stdout.expect("a pipe").read_exact(&mut echo).is_ok() {
            return Some(Namespace { keeper });
        }
        let output = keeper.wait_with_output().expect("it has ended");
        skipped(String::from_utf8_lossy(&output.stderr).trim())
    }

    fn pid(&self) -> u32 {
        self.keeper.id()
    }

    fn entry(&self) -> [String; 2] {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        ["nsenter".to_owned(), net]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing else ends it before.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

/// `ip` in a namespace.
fn ip(inside: &Namespace, words: &str) {
    let done = try_ip(&inside.entry(), words);
    done.unwrap_or_else(|why| panic!("ip {words}: {why}"));
}

/// In the tests' own network.
const HERE: &[String] = &[];

/// `ip`, run by a program or by itself; its words are separated by single spaces.
fn try_ip(entry: &[String], words: &str) -> Result<(), String> {
    let all: Vec<&str> = entry.iter().map(String::as_str).collect();
    let all = [&all[..], &["ip"], &words.split(' ').collect::<Vec<_>>()].concat();
    let (program, args) = all.split_first().expect("at least ip");
    let output = Command::new(program).args(args).output();
    let output = output.expect("the program runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(crate::text(&output).trim().to_owned()),
    }
}
