//! One node of the simulation: the real control plane around a model of vnodes, and an operator who works at it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use vnode_cluster::join::JoinError;
use vnode_cluster::liveness::Liveness;
use vnode_cluster::peers::Doors;
use vnode_cluster::{Cluster, ClusterError, Founding, driver, net};
use vnode_ring::{Addresses, Change, HashId, MapEvent, NodeName, PartitionId, RingSize, Staged};

use crate::board::{Board, Live, Shared};
use crate::vnodes::{Disk, Model};

/// Where nodes listen for each other.
const PORT: u16 = 7100;
/// Partitions of the ring.
pub(crate) const RING: u32 = 16;
/// How often a node looks for what its operator wants.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What an operator or a client does at a node.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Joins the cluster of that node.
    Join(&'static str),
    Stage(&'static str, Change),
    /// Looks at the plan and commits it.
    Commit,
    Clear,
    Down(&'static str),
    /// Takes back that it has asked to join.
    GiveUp,
    /// Writes rows to a partition, or deletes all that it has.
    Command(PartitionId, bool),
}

/// Actions that a node has not looked at yet.
pub(crate) type Inbox = Arc<Mutex<VecDeque<Action>>>;

/// What a node is whenever it starts.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) directory: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) inbox: Inbox,
    pub(crate) board: Shared,
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn address(node: &str) -> String {
    format!("{node}:{PORT}")
}

fn founding(node: &str) -> Founding {
    Founding {
        name: name(node),
        addresses: Addresses {
            peer: address(node),
            ..Addresses::default()
        },
        guests: std::collections::BTreeMap::new(),
        location: None,
        n: 3,
        ring: (RingSize::new(RING).unwrap(), HashId::V1),
        tls: None,
    }
}

/// The wall clock.
fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    1_700_000_000_000 + elapsed.as_millis() as u64
}

/// A run of the node, which ends when it is no member of its cluster any more.
pub(crate) async fn run(setup: Setup) -> turmoil::Result {
    let count = setup.board.lock().unwrap().starts(setup.name);
    let mut rng = SmallRng::seed_from_u64(setup.seed * 10_000 + setup.number * 100 + count);
    let opening = SmallRng::seed_from_u64(rng.random());
    let opened = Cluster::open(setup.directory.clone(), founding(setup.name), opening).await;
    let (cluster, gone) = match opened {
        Ok(opened) => opened,
        Err(error @ ClusterError::NobodyAnswers { .. }) => {
            let mut board = setup.board.lock().unwrap();
            board.is_stranded(setup.name, &error);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let view = cluster.first_view().unwrap();
    let vnodes = Arc::new(Model::new(view, Arc::clone(&setup.disk)));
    let peers = Arc::clone(cluster.peers());
    let incarnation = cluster.next_incarnation(now_ms())?;
    let liveness = Arc::new(Liveness::start(Arc::clone(&peers), gone, incarnation, rng));
    let sight = liveness.sight();
    let listener = net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(peers.serve(listener, doors(&cluster, &liveness, &vnodes)));
    let (cluster_too, vnodes_too) = (Arc::clone(&cluster), Arc::clone(&vnodes));
    tasks.spawn(driver::publish(cluster_too, vnodes_too, sight.clone()));
    tasks.spawn(driver::tend_voters(Arc::clone(&cluster), sight.clone()));
    let live = Live::new(Arc::clone(&cluster), Arc::clone(&vnodes), sight.clone());
    setup.board.lock().unwrap().lives(setup.name, live);
    tasks.spawn(obey(
        setup.clone(),
        Arc::clone(&cluster),
        Arc::clone(&vnodes),
    ));
    driver::tend(cluster, vnodes, sight).await;
    setup.board.lock().unwrap().is_gone(setup.name);
    setup.disk.lock().unwrap().clear();
    tasks.shutdown().await;
    Ok(())
}

fn doors(cluster: &Arc<Cluster>, liveness: &Arc<Liveness>, vnodes: &Arc<Model>) -> Doors {
    let (cluster, hears, vnodes) = (
        Arc::clone(cluster),
        Arc::clone(liveness),
        Arc::clone(vnodes),
    );
    Doors {
        request: Arc::new(move |hello, request| {
            let (cluster, vnodes) = (Arc::clone(&cluster), Arc::clone(&vnodes));
            Box::pin(async move { cluster.answer(&hello.node, &request, &*vnodes).await })
        }),
        message: Arc::new(move |_, packet| hears.hear(packet)),
        connection: Arc::new(|_, _| {}),
    }
}

/// Does what the operator wants, several things at once.
async fn obey(setup: Setup, cluster: Arc<Cluster>, vnodes: Arc<Model>) {
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        while let Some(action) = take(&setup.inbox) {
            let (setup, cluster, vnodes) =
                (setup.clone(), Arc::clone(&cluster), Arc::clone(&vnodes));
            running.spawn(async move {
                let outcome = act(&setup, &action, &cluster, &vnodes).await;
                let mut board = setup.board.lock().unwrap();
                board.done(setup.name, &action, outcome);
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn take(inbox: &Inbox) -> Option<Action> {
    inbox.lock().unwrap().pop_front()
}

/// Returns what came of it, in words if nothing did.
async fn act(
    setup: &Setup,
    action: &Action,
    cluster: &Arc<Cluster>,
    vnodes: &Model,
) -> Result<(), String> {
    let event = match action {
        Action::Join(node) => {
            let joined = cluster.join(&address(node)).await;
            if let Err(error @ JoinError::Cluster(_)) = &joined {
                panic!("{}: {error}", setup.name);
            }
            return joined.map_err(|error| error.to_string());
        }
        Action::Command(partition, rows) => {
            let ran = vnodes.command(*partition, *rows).await;
            return ran
                .then_some(())
                .ok_or_else(|| "it does not run here".into());
        }
        Action::GiveUp => {
            cluster.give_up_joining().await;
            return Ok(());
        }
        Action::Commit => return commit(&setup.board, cluster).await,
        Action::Stage(node, change) => MapEvent::ChangeStaged(Staged {
            node: name(node),
            change: change.clone(),
        }),
        Action::Clear => MapEvent::StagedCleared,
        Action::Down(node) => MapEvent::MarkedDown(name(node)),
    };
    let proposed = cluster.propose(event).await;
    proposed.map(drop).map_err(|error| error.to_string())
}

async fn commit(board: &Mutex<Board>, cluster: &Cluster) -> Result<(), String> {
    let map = cluster.map().unwrap();
    let plan = map.plan().map_err(|error| error.to_string())?;
    let proposed = cluster.propose(MapEvent::PlanCommitted(plan.id)).await;
    let epoch = proposed.map_err(|error| error.to_string())?;
    board.lock().unwrap().planned(map.cluster(), epoch, plan);
    Ok(())
}
