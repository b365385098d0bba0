//! Members of a cluster, and what may become of them.
//!
//! Owns the states of a member and the legal ways between them (`riak_core_claimant`, `riak_core_ring:member_status`). Who is up
//! is not known here: `Down` is an operator's word, never an inference.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The weight of a member that says nothing of it.
pub const WEIGHT: u16 = 100;

/// What a member is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberStatus {
    /// It knows the cluster and owns nothing yet; a commit lets it in.
    Joining,
    /// It may own partitions.
    Valid,
    /// It hands over what it owns, and serves until then.
    Leaving,
    /// It owns nothing any more and may stop.
    Exiting,
    /// An operator said that it will not come back soon: nobody waits for it.
    Down,
}

impl MemberStatus {
    /// Every status, in the order in which a member passes them.
    pub const ALL: [MemberStatus; 5] = [
        MemberStatus::Joining,
        MemberStatus::Valid,
        MemberStatus::Leaving,
        MemberStatus::Exiting,
        MemberStatus::Down,
    ];

    /// Whether a member of this status may become one of that. Whoever is removed has no status any more, which is always legal.
    #[must_use]
    pub fn may_become(self, next: MemberStatus) -> bool {
        use MemberStatus::{Down, Exiting, Joining, Leaving, Valid};
        matches!(
            (self, next),
            (Joining | Down, Valid)
                | (Valid, Leaving)
                | (Leaving, Exiting)
                | (Valid | Leaving | Exiting, Down)
        )
    }

    /// Whether a claim gives it partitions: as in riak also while it is down, since it is to come back.
    #[must_use]
    pub fn claims(self) -> bool {
        matches!(self, MemberStatus::Valid | MemberStatus::Down)
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MemberStatus::Joining => "joining",
            MemberStatus::Valid => "valid",
            MemberStatus::Leaving => "leaving",
            MemberStatus::Exiting => "exiting",
            MemberStatus::Down => "down",
        })
    }
}

/// Where a node can be reached, each as `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// By Redis clients.
    pub resp: String,
    /// By people and programs that manage it.
    pub http: String,
    /// By other nodes.
    pub peer: String,
}

/// A guest that a node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCard {
    /// The version that it says it is.
    pub version: String,
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
}

/// What a node says of itself when it joins and whenever it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its number among the voters: drawn anew for each membership, so that nobody takes one node for another.
    pub number: u64,
    /// Where it is.
    pub addresses: Addresses,
    /// The guests it serves, by the names of their services.
    pub guests: BTreeMap<String, GuestCard>,
}

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is to the cluster.
    pub status: MemberStatus,
    /// What it says of itself.
    pub card: Card,
    /// What it shares with other nodes that may fail together with it, such as a rack.
    pub location: Option<String>,
    /// Its share of the ring in relation to the weights of the others; with 0 it owns nothing.
    pub weight: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_between_the_states_are_those_of_riak() {
        let legal: Vec<String> = MemberStatus::ALL
            .into_iter()
            .flat_map(|from| MemberStatus::ALL.map(|to| (from, to)))
            .filter(|(from, to)| from.may_become(*to))
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect();
        assert_eq!(
            legal,
            [
                "joining -> valid",
                "valid -> leaving",
                "valid -> down",
                "leaving -> exiting",
                "leaving -> down",
                "exiting -> down",
                "down -> valid"
            ]
        );
    }
}
