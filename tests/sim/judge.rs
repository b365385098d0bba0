//! What the disks of all nodes hold and what clients read in the end, for the checkers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tests::checkers::{
    AckedSet, Convergence, Counter, Expected, History, Judgement, Ledger, Lineage, NodeState,
    Replica, Verdict,
};
use tests::workload::commands::End;
use vnode_ring::{ClusterMap, ObjectRef, PartitionId, RingSize};

use crate::disk::Disk;
use crate::node::{COPIES, Wish};

const SERVICES: [&str; 2] = ["kv", "counter"];

/// Every node that runs, with its map and its disk.
pub(crate) type Looked<'a> = BTreeMap<&'static str, (&'a ClusterMap, &'a Disk)>;

/// Whether what the nodes hold is what it must be when all is well and the cluster is as wished.
pub(crate) fn converged(wish: &Wish, nodes: &Looked<'_>) -> Convergence {
    let states: Vec<NodeState> = nodes
        .iter()
        .map(|(node, (map, disk))| state(node, map, disk))
        .collect();
    let expected = Expected {
        nodes: wish.members.len(),
        ranges: u32::from(wish.ring) * SERVICES.len() as u32,
        copies: COPIES.into(),
    };
    Convergence::check(expected, &states)
}

fn state(node: &str, map: &ClusterMap, disk: &Disk) -> NodeState {
    let size = map.ring().size();
    let owns = |partition| size.contains(partition) && map.ring().owner(partition).as_str() == node;
    let mut replicas = Vec::new();
    for (nth, service) in (0..).zip(SERVICES) {
        for range in size.partitions() {
            let holders = (0..COPIES).map(|behind| size.after(range, behind));
            for partition in holders.filter(|partition| owns(*partition)) {
                replicas.push(Replica {
                    range: nth * u32::from(size.get()) + u32::from(range.number()),
                    partition: partition.id().into(),
                    digest: digest(disk, service, partition, (size, range)),
                });
            }
        }
    }
    let foreign = disk
        .places
        .iter()
        .filter(|(place, _)| !owns(PartitionId::from_id(place.1)));
    let bytes = foreign.flat_map(|(_, rows)| rows.rows.values().map(|object| object.len() as u64));
    NodeState {
        node: node.to_owned(),
        ring: map.epoch().to_string(),
        fallback_bytes: bytes.sum(),
        replicas,
    }
}

/// All that a partition holds of a range: each key with the digest of its object.
fn digest(
    disk: &Disk,
    service: &str,
    partition: PartitionId,
    (size, range): (RingSize, PartitionId),
) -> String {
    let Some(rows) = disk.places.get(&(service.to_owned(), partition.id())) else {
        return "0 rows".into();
    };
    let (first, last) = size.hash_range(range);
    let rows = rows.rows.range((first, Vec::new())..);
    let rows = rows.take_while(|((hash, _), _)| *hash <= last);
    let row = |((_, key), object): (&(u64, Vec<u8>), &Vec<u8>)| {
        let object = ObjectRef::parse(object).unwrap();
        (key.clone(), object.digest())
    };
    let rows: Vec<_> = rows.map(row).collect();
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    format!("{} rows {:016x}", rows.len(), hasher.finish())
}

/// Judges what clients saw. Returns what the checkers say, a line each.
pub(crate) fn judge(history: &History, end: &End, ledger: &Ledger) -> Result<Vec<String>, String> {
    let verdicts: [&dyn Verdict; 4] = [
        &AckedSet::check(history, &end.sets),
        &Lineage::check(history, &end.registers),
        &Counter::check(history, &end.counters),
        ledger,
    ];
    for verdict in verdicts {
        if verdict.judgement() != Judgement::Holds {
            return Err(format!("{verdict}\n{}", verdict.explanation()));
        }
    }
    Ok(verdicts.map(|verdict| verdict.to_string()).into())
}
