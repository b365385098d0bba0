//! Why something does not happen to a rollout.

use serde::{Deserialize, Serialize};

use crate::ring::NodeName;

/// Why something does not happen to a rollout. The words are for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RolloutError {
    /// One at a time.
    #[error(
        "a rollout of {service} to {version} is under way ({stage}); wait for it, or `host guest rollback`"
    )]
    UnderWay {
        /// The service.
        service: String,
        /// What it goes to.
        version: String,
        /// How far it is, in words.
        stage: String,
    },
    /// There is none, or another one by now.
    #[error("{service} has no such rollout under way; `host guest show` tells what it runs")]
    None {
        /// The service.
        service: String,
    },
    /// It is what runs already.
    #[error("{service} runs {digest} already")]
    Same {
        /// The service.
        service: String,
        /// The version.
        digest: String,
    },
    /// What is served now is something else.
    #[error(
        "{node} serves {found} of {service}, not {wanted}; a rollout begins where all nodes serve one version"
    )]
    OtherVersion {
        /// The service.
        service: String,
        /// Who serves something else; the cluster, if it has agreed on a version before.
        node: String,
        /// What it serves.
        found: String,
        /// What was expected.
        wanted: String,
    },
    /// The new version cannot read what is stored.
    #[error(
        "{version} reads schemas from {reads_from} on, and {written} is stored; values would be lost to it. --force says that this is known"
    )]
    Unreadable {
        /// The new version.
        version: String,
        /// Oldest schema that it reads.
        reads_from: u32,
        /// What the old version writes.
        written: u32,
    },
    /// The new version is older than what is stored.
    #[error(
        "{version} reads schemas up to {reads}, and {stored} is stored; it would be refused these values. Let a version that stores schema {reads} come first, or say --force"
    )]
    Older {
        /// The new version.
        version: String,
        /// The newest schema that it reads.
        reads: u32,
        /// What the old version stores.
        stored: u32,
    },
    /// The old version cannot read what the new one stores.
    #[error(
        "{version} stores schema {writes}, which the version before reads only up to {read}: there would be no way back, and replicas of both versions could not read each other. Let a version that reads both come first, one that migrates back, or say --force"
    )]
    OneWay {
        /// The new version.
        version: String,
        /// The oldest schema that it stores.
        writes: u32,
        /// The newest that the old version reads.
        read: u32,
    },
    /// Another step has begun.
    #[error("the rollout is at step {current}, not {found}")]
    Stale {
        /// What was said.
        found: u32,
        /// Where it is.
        current: u32,
    },
    /// A node has not done what the step asks.
    #[error("{node} has not done yet what this step asks")]
    NotReady {
        /// The node.
        node: NodeName,
    },
    /// It stays where it is.
    #[error("the rollout is paused: {why}; `host guest advance` goes on")]
    Paused {
        /// Why.
        why: String,
    },
    /// Not everything runs the new version.
    #[error("the rollout is not done ({stage}): only what runs everywhere can be final")]
    NotDone {
        /// How far it is, in words.
        stage: String,
    },
    /// There is nothing after it.
    #[error("everything runs the new version; `host guest finalize` or `host guest rollback`")]
    AtTheEnd,
    /// Partitions are on their way.
    #[error(
        "{count} partitions are on their way to other owners; a rollout is made final when they have arrived"
    )]
    Transfers {
        /// How many.
        count: usize,
    },
}
