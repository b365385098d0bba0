//! Nodes that have asked to join a cluster of which nobody tells them the map, and do not want to any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Runtime;
use vnode_cluster::join::JoinError;
use vnode_cluster::net::TcpListener;
use vnode_cluster::peers::Doors;
use vnode_cluster::recovery::{Recovered, recover};
use vnode_cluster::{Cluster, Founding, Vnodes};
use vnode_ring::{Addresses, HashId, MemberStatus, NodeName, PartitionId, RingSize, View};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

async fn open(directory: &Path, node: &str, peer: &str) -> Arc<Cluster> {
    let founding = Founding {
        name: name(node),
        addresses: Addresses {
            peer: peer.to_owned(),
            ..Addresses::default()
        },
        guests: BTreeMap::new(),
        location: None,
        n: 3,
        ring: (RingSize::new(8).unwrap(), HashId::V1),
        tls: None,
    };
    // Numbers of their own, or they would be one cluster.
    let rng = SmallRng::seed_from_u64(u64::from(node.as_bytes()[0]));
    let (cluster, _) = Cluster::open(directory.join(node), founding, rng)
        .await
        .unwrap();
    cluster
}

/// Holds nothing.
struct Nothing(Arc<Cluster>);

impl Vnodes for Nothing {
    fn view(&self) -> Arc<View> {
        let view = self.0.view(&BTreeSet::new(), BTreeSet::new());
        Arc::new(view.unwrap())
    }
    fn publish(&self, _: View) {}
    fn freeze(&self, _: PartitionId) {}
    fn thaw(&self, _: PartitionId) {}
    fn is_carried(&self, _: PartitionId, _: &NodeName) -> bool {
        true
    }
    async fn carried(&self) {
        std::future::pending::<()>().await;
    }
    async fn carry_rest(&self, _: PartitionId, _: &NodeName) -> bool {
        true
    }
    fn holds_hints(&self) -> bool {
        false
    }
    async fn answer(&self, _: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }
}

/// A node that lets others in and never brings them the map: nobody tends to its voters. Returns its address, too.
async fn member(directory: &Path) -> (Arc<Cluster>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cluster = open(directory, "member", &address).await;
    let (answers, vnodes) = (
        Arc::clone(&cluster),
        Arc::new(Nothing(Arc::clone(&cluster))),
    );
    let doors = Doors {
        request: Arc::new(move |hello, request| {
            let (cluster, vnodes) = (Arc::clone(&answers), Arc::clone(&vnodes));
            Box::pin(async move { cluster.answer(&hello.node, &request, &*vnodes).await })
        }),
        message: Arc::new(|_, _| {}),
        connection: Arc::new(|_, _| {}),
    };
    tokio::spawn(Arc::clone(cluster.peers()).serve(listener, doors));
    (cluster, address)
}

/// A node that has asked that member to be let in.
async fn joiner(directory: &Path, member: &str) -> Arc<Cluster> {
    let joiner = open(directory, "joiner", "127.0.0.1:1").await;
    assert!(!joiner.is_joining());
    joiner.join(member).await.unwrap();
    assert!(joiner.is_joining());
    assert_eq!(joiner.awaits(), [member]);
    let again = joiner.join(member).await;
    assert!(matches!(again, Err(JoinError::AlreadyMember)), "{again:?}");
    joiner
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_answers_forgets_one_that_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let (member, address) = member(directory.path()).await;
    let joiner = joiner(directory.path(), &address).await;
    let status = |node: &str| {
        let map = member.map().unwrap();
        map.members().get(&name(node)).map(|member| member.status)
    };
    assert_eq!(status("joiner"), Some(MemberStatus::Joining));
    assert!(joiner.give_up_joining().await);
    assert_eq!(status("joiner"), None);
    assert_eq!(status("member"), Some(MemberStatus::Valid));
}

#[test]
fn one_whose_cluster_is_gone_gives_up_alone_also_when_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (theirs, ours) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let (_member, address) = theirs.block_on(member(directory.path()));
    let joiner = ours.block_on(joiner(directory.path(), &address));
    drop(theirs);
    assert!(!ours.block_on(joiner.give_up_joining()));
    drop((joiner, ours));
    let path = directory.path().join("joiner");
    let recovered = recover(&path, &name("joiner")).unwrap();
    assert_eq!(recovered, Recovered::Alone);
    let again = Runtime::new().unwrap();
    let alone = again.block_on(open(directory.path(), "joiner", "127.0.0.1:1"));
    assert!(!alone.is_joining());
    assert_eq!(alone.map().unwrap().members().len(), 1);
}
