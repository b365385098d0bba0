//! The pure core of a vnode host: where keys live, who answers for them, and how copies of a value come together again.
//!
//! Everything here is a function of its arguments. The crate reads no clock, draws no random number, does no I/O, starts no
//! thread, and iterates in one order everywhere, so that every node computes the same from the same ring and a simulated
//! cluster repeats itself. Whoever is up, and whatever time it is, is handed in.
//!
//! - [`index`]: hashing a key, ring sizes, partition ids and the hash range of each; [`etf`] reproduces Erlang's placement.
//! - [`ring`]: node names and the ring value, the owner of every partition at one epoch.
//! - [`preflist`](mod@preflist): the vnodes that hold a key's replicas, with fallbacks for owners that are not up.
//! - [`claim`](mod@claim): which node should own which partition, and how safe that is.
//! - [`member`] and [`map`]: the members of a cluster, changes, plans and commits, as one state machine.
//! - [`rollout`]: how a service goes from one version of its guest to another, stage by stage, and back.
//! - [`view`]: what one node knows of its cluster at one moment, and where that sends a command.
//! - [`quorum`]: when enough replicas have answered a request, and when they no longer can.
//! - [`split`]: how a ring doubles and halves while every key keeps its nodes.
//! - [`tree`]: where two replicas of a range differ, without sending the range.
//! - [`coverage`]: the vnodes that together hold every key once.
//! - [`object`]: what a key holds, merged without losing concurrent writes, and its bytes.
//!
//! Start with [`Ring`], then [`preflist()`]; [`Object`] stands on its own.
#![forbid(unsafe_code)]

pub mod claim;
pub mod coverage;
pub mod etf;
pub mod hash;
pub mod index;
pub mod map;
pub mod member;
pub mod object;
pub mod preflist;
pub mod quorum;
pub mod ring;
pub mod rollout;
pub mod split;
pub mod tree;
pub mod view;

pub use claim::{ClaimError, Claimer, Cure, Safety, Spread, claim, safety};
pub use coverage::{
    CoverageError, CoveragePlan, CoverageVnode, coverage_plan, partial_coverage_plan,
};
pub use hash::{HashId, KeyHash};
pub use index::{IndexError, PartitionId, RingSize};
pub use map::change::{Change, Staged};
pub use map::limits::TransferLimits;
pub use map::plan::{Move, NotPlanId, Plan, PlanId};
pub use map::resize::{Resize, ResizeError, ResizeEvent, ResizeStage};
pub use map::{ClusterId, ClusterMap, MapError, MapEvent, NotClusterId, Transfer};
pub use member::{Addresses, Card, GuestCard, Member, MemberStatus, WEIGHT};
pub use object::{
    Actor, CONTEXT_ACTORS_MAX, Context, Dot, FIRST_SCHEMA, Hlc, Merged, Object, ObjectError,
    ObjectRef, VERSIONS_MAX, Version, VersionRef, encode_successor, merge_encoded,
};
pub use preflist::{Replica, ReplicaKind, preflist, preflist_from, primaries};
pub use quorum::{Answer, Collector, Outcome, Quorum, QuorumError, Requirement, Shortage};
pub use ring::{NodeName, Ring, RingError};
pub use rollout::{Order, Release, Rollout, RolloutError, RolloutEvent, Stage, Terms, Versions};
pub use split::Split;
pub use tree::{LEAVES, Leaves, Tree, TreeError, TreeRow};
pub use view::{Holder, Place, REPLICAS_MAX, Role, View};
