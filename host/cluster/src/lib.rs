//! The control plane of a vnode host: one map of members and partitions on which all nodes agree, and who of them is up.
//!
//! It knows nothing of guests, commands or rows: what it asks of the vnodes of its node is the trait [`Vnodes`]. So the simulator
//! runs this crate as it is, over a network and a clock of its own (feature `sim`).
//!
//! - [`cluster`] is the node in its cluster: the place to start.
//! - [`raft`] agrees on the order of the events of the cluster map, and keeps them on disk.
//! - [`stream`] is a connection between nodes, plain or with TLS; [`tls`] is whom a node trusts for that.
//! - [`wire`], [`hello`], [`link`], `keeper`, [`peers`] carry requests between nodes; `ask` is what they say.
//! - [`liveness`] tells who is up as seen here; [`damping`] keeps its answer calm.
//! - [`driver`] does what follows from the map: views, voters, handing partitions over, going.
//! - [`join`] makes this node a member of another cluster; `handover` moves partitions.
//! - [`recovery`] goes on with one node when the majority of the voters is lost for good.
//! - `standing` is what the node is to its cluster, on disk; [`events`] is the feed for those who watch.
//! - [`mod@failpoint`] ends the node where a test wants it to, or has something fail there.
//! - [`net`] is the network: the machine's or the simulator's.
//!
//! Only the consensus changes the map. Everybody else proposes, and reads snapshots (`vnode_ring::View`).
#![forbid(unsafe_code)]

mod ask;
pub mod cluster;
pub mod damping;
pub mod driver;
pub mod events;
pub mod failpoint;
mod handover;
pub mod hello;
pub mod join;
mod keeper;
pub mod link;
pub mod liveness;
pub mod net;
pub mod peers;
pub mod raft;
pub mod recovery;
mod standing;
pub mod stream;
pub mod tls;
pub mod wire;

pub use cluster::{Cluster, ClusterError, Founding, Greeter, ProposeError, Vnodes};
pub use failpoint::{failpoint, fails};
