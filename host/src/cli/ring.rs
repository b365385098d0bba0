//! `host ring`: owners as letters, the replicas of a key, one partition.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::Preflist;
use super::output::Session;
use super::report::{Exit, Failure};
use super::table::{Table, banner, percent};
use super::vnode;

/// Width of the tutorials' banners.
const WIDTH: usize = 79;
/// Partitions in one line of letters: sixteen groups of four.
const LINE: usize = 64;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Ring {
    pub(super) size: usize,
    pub(super) epoch: u64,
    pub(super) owners: Vec<String>,
    pub(super) pending: Vec<Pending>,
    pub(super) letters: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Pending {
    pub(super) partition: usize,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) phase: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Replicas {
    service: String,
    hash: String,
    partition: u32,
    replicas: Vec<Replica>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Replica {
    partition: u32,
    node: String,
    kind: String,
    up: Option<bool>,
}

/// Owner of each partition.
pub(super) fn show(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/ring", &[])?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        let ring: Ring = client.view(body)?;
        session.print(&text(&ring))?;
    }
    Ok(Exit::Ok)
}

/// The legend, then all partitions in groups of four, then what moves.
pub(super) fn text(ring: &Ring) -> String {
    let letters = letters(ring);
    let letter = |owner: &String| letters.get(owner).map_or("?", String::as_str);
    let mut text = format!(
        "{} partitions, ring v{}\n{}",
        ring.size,
        ring.epoch,
        banner("Nodes", WIDTH)
    );
    let width = letters.values().map(String::len).max().unwrap_or(1);
    for (owner, letter) in &letters {
        let count = ring.owners.iter().filter(|other| *other == owner).count();
        // Partitions are at most 4096, so the share is exact enough as a double.
        #[allow(clippy::cast_precision_loss, reason = "counts of partitions are small")]
        let share = percent(count as f64 / ring.size.max(1) as f64);
        text.push_str(&format!(
            "Node {letter:<width$}: {count} ({share}%) {owner}\n"
        ));
    }
    text.push_str(&banner("Ring", WIDTH));
    // One letter needs no room around it; where there are two, words must stay apart.
    let between = if width > 1 { " " } else { "" };
    for line in ring.owners.chunks(LINE) {
        for group in line.chunks(4) {
            let group: Vec<String> = group
                .iter()
                .map(|owner| format!("{:<width$}", letter(owner)))
                .collect();
            text.push_str(&group.join(between));
            text.push('|');
        }
        text.push('\n');
    }
    if !ring.pending.is_empty() {
        let moves: Vec<String> = ring
            .pending
            .iter()
            .map(|pending| {
                let (from, to) = (letter(&pending.from), letter(&pending.to));
                format!("{} {from}->{to} ({})", pending.partition, pending.phase)
            })
            .collect();
        text.push_str(&format!("moving: {}\n", moves.join(", ")));
    }
    text
}

/// A letter for each owner, and for who is to be one: the node's choice where it has one, else the next that is free.
fn letters(ring: &Ring) -> BTreeMap<String, String> {
    let heirs = ring.pending.iter().map(|pending| &pending.to);
    let names: BTreeSet<&String> = ring.owners.iter().chain(heirs).collect();
    let taken: BTreeSet<&String> = names
        .iter()
        .filter_map(|name| ring.letters.get(*name))
        .collect();
    let single = ('a'..='z').map(String::from);
    let double =
        ('a'..='z').flat_map(|first| ('a'..='z').map(move |second| format!("{first}{second}")));
    let mut free = single
        .chain(double)
        .filter(|letter| !taken.contains(letter));
    names
        .into_iter()
        .map(|name| {
            let given = ring.letters.get(name).cloned();
            (
                name.clone(),
                given.or_else(|| free.next()).unwrap_or_else(|| "*".into()),
            )
        })
        .collect()
}

/// The replicas of one key.
pub(super) fn preflist(session: &mut Session<'_>, args: &Preflist) -> anyhow::Result<Exit> {
    let Some(key) = args.key.to_str() else {
        // A query string is text; the contract has no form for other bytes there.
        return Err(Failure::usage("the key is not UTF-8")
            .next("use VNODE.PREFLIST in a Redis client for binary keys")
            .into());
    };
    let mut query = vec![("key", key.to_owned())];
    query.extend(
        args.service
            .iter()
            .map(|service| ("service", service.clone())),
    );
    query.extend(args.n.iter().map(|n| ("n", n.to_string())));
    let client = session.client()?;
    let body = client.get("/v1/ring/preflist", &query)?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let found: Replicas = client.view(body)?;
    let text = preflist_text(session, key, &found);
    session.print(&text)?;
    Ok(Exit::Ok)
}

fn preflist_text(session: &Session<'_>, key: &str, found: &Replicas) -> String {
    let short: String = found.hash.chars().take(12).collect();
    let cut = if short.len() < found.hash.len() {
        "…"
    } else {
        ""
    };
    let of = if found.service.is_empty() {
        String::new()
    } else {
        format!(" of {}", found.service)
    };
    let mut text = format!(
        "key {key:?}{of} -> hash {short}{cut}, partition {}\n",
        found.partition
    );
    let mut table = Table::new(&[">", ">", "", "", ""]).indented(2);
    for (at, replica) in found.replicas.iter().enumerate() {
        let up = match replica.up {
            Some(true) => "up",
            Some(false) => "DOWN",
            None => "",
        };
        table.row([
            (at + 1).to_string(),
            replica.partition.to_string(),
            replica.node.clone(),
            replica.kind.clone(),
            up.into(),
        ]);
    }
    text.push_str(&table.to_string());
    if found.replicas.is_empty() {
        text.push_str(&format!("  {}\n", session.bad("no replica")));
    }
    text
}

/// One partition: who owns it, which hashes it holds, and its vnodes at the asked node.
pub(super) fn partition(session: &mut Session<'_>, id: u32) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/ring", &[])?;
    let ring: Ring = client.view(body)?;
    let at = id as usize;
    let Some(owner) = ring.owners.get(at) else {
        let last = ring.owners.len().saturating_sub(1);
        return Err(Failure::usage(format!(
            "there is no partition {id}; the ring has 0 to {last}"
        ))
        .into());
    };
    let vnodes: vnode::Body = client.view(client.get("/v1/vnodes", &[])?)?;
    let own: Vec<Value> = vnodes
        .vnodes
        .into_iter()
        .filter(|vnode| vnode["partition"] == json!(id))
        .collect();
    let pending: Vec<&Pending> = ring
        .pending
        .iter()
        .filter(|pending| pending.partition == at)
        .collect();
    let size = ring.owners.len();
    let before = (at + size - 1) % size.max(1);
    let (from, to) = (index(before, size), index(at, size));
    if session.wants_json() {
        let moves: Vec<Value> = pending
            .iter()
            .map(
                |p| json!({"partition": p.partition, "from": p.from, "to": p.to, "phase": p.phase}),
            )
            .collect();
        let body = json!({
            "partition": id, "owner": owner, "hash_from": from, "hash_to": to, "epoch": ring.epoch,
            "pending": moves, "vnodes": own,
        });
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let mut text = format!("partition {id} of {size}, ring v{}\n", ring.epoch);
    text.push_str(&format!(
        "owner    {owner}\nhashes   from {from}\n         up to, not with, {to}\n"
    ));
    for p in pending {
        text.push_str(&format!("moving   {} -> {} ({})\n", p.from, p.to, p.phase));
    }
    if !own.is_empty() {
        text.push_str(&vnode::table(&own).to_string());
    }
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// The place of a partition on the ring of 2^160, in hexadecimal: `id * 2^160 / size`.
fn index(id: usize, size: usize) -> String {
    // The size is a power of two of at most 2^12, so everything below the top 128 bits is zero.
    let bits = size.max(1).ilog2();
    let top = (id as u128).checked_shl(128 - bits).unwrap_or_default();
    format!("{top:032x}{:08x}", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(letters: &str) -> Ring {
        let owners: Vec<String> = letters
            .chars()
            .map(|c| format!("rc_example{c}@127.0.0.1"))
            .collect();
        Ring {
            size: owners.len(),
            epoch: 9,
            owners,
            ..Ring::default()
        }
    }

    #[test]
    fn letters_are_those_of_the_tutorial() {
        let owners = format!("{}{}{}", "1233".repeat(10), "12231221", "1221".repeat(4));
        assert_eq!(
            text(&ring(&owners)),
            "\
64 partitions, ring v9
==================================== Nodes ====================================
Node a: 21 ( 32.8%) rc_example1@127.0.0.1
Node b: 22 ( 34.4%) rc_example2@127.0.0.1
Node c: 21 ( 32.8%) rc_example3@127.0.0.1
==================================== Ring =====================================
abcc|abcc|abcc|abcc|abcc|abcc|abcc|abcc|abcc|abcc|abbc|abba|abba|abba|abba|abba|
"
        );
    }

    #[test]
    fn one_node_owns_all_and_large_rings_wrap() {
        let text = text(&ring(&"1".repeat(128)));
        assert!(
            text.contains("Node a: 128 (100.0%) rc_example1@127.0.0.1\n"),
            "{text}"
        );
        let line = format!("{}\n", "aaaa|".repeat(16));
        assert!(text.ends_with(&format!("=\n{line}{line}")), "{text}");
    }

    #[test]
    fn the_nodes_own_letters_win_and_heirs_get_one() {
        let mut ring = ring("12121212");
        ring.letters = BTreeMap::from([("rc_example2@127.0.0.1".into(), "a".into())]);
        ring.pending = vec![Pending {
            partition: 3,
            from: "rc_example2@127.0.0.1".into(),
            to: "new".into(),
            phase: "copying".into(),
        }];
        let text = text(&ring);
        assert!(
            text.contains("caca|caca|\nmoving: 3 a->b (copying)\n"),
            "{text}"
        );
    }

    #[test]
    fn more_nodes_than_letters_stay_apart() {
        let mut many = ring("1");
        many.owners = (0..28).map(|n| format!("{n:03}")).collect();
        let text = text(&many);
        assert!(text.contains("\na  b  c  d |e  f  g  h |"), "{text}");
        assert!(text.contains("|y  z  aa ab|\n"), "{text}");
        many.owners = (0..1000).map(|n| format!("{n:04}")).collect();
        assert!(super::text(&many).contains(" * "));
    }

    #[test]
    fn indices_are_exact() {
        assert_eq!(index(0, 64), "0".repeat(40));
        // riak_core's 1438665674247607560106752257205091097473808596992 is 63 * 2^154.
        assert_eq!(index(63, 64), format!("fc{}", "0".repeat(38)));
        assert_eq!(index(1, 4096), format!("001{}", "0".repeat(37)));
        assert_eq!(index(0, 0), "0".repeat(40));
    }
}
