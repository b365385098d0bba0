//! A model of the vnodes of a node: a partition has rows or not, and commands for it run, wait or are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use vnode_cluster::Vnodes;
use vnode_ring::{NodeName, PartitionId, View};

/// How long a command takes.
const COMMAND: Duration = Duration::from_millis(3);

/// What a node keeps on its disk: partitions with rows.
pub(crate) type Disk = Arc<Mutex<BTreeSet<PartitionId>>>;

/// The vnodes of one run of a node.
pub(crate) struct Model {
    state: Mutex<State>,
    pub(crate) disk: Disk,
}

struct State {
    view: Arc<View>,
    frozen: BTreeSet<PartitionId>,
    /// Commands that run now.
    running: BTreeMap<PartitionId, usize>,
    /// Grows with each change of what is served.
    version: u64,
}

impl Model {
    pub(crate) fn new(view: View, disk: Disk) -> Model {
        let state = State {
            view: Arc::new(view),
            frozen: BTreeSet::new(),
            running: BTreeMap::new(),
            version: 0,
        };
        Model {
            state: Mutex::new(state),
            disk,
        }
    }

    /// Grows with each change of what is served.
    pub(crate) fn version(&self) -> u64 {
        self.state.lock().unwrap().version
    }

    /// The partitions for which commands run.
    pub(crate) fn served(&self) -> Vec<PartitionId> {
        let state = self.state.lock().unwrap();
        let me = state.view.me();
        let open = |partition: &PartitionId| !state.frozen.contains(partition);
        state.view.ring().partitions_of(me).filter(open).collect()
    }

    /// A command: afterwards the partition has rows, or none. False: it does not run here, or waits.
    pub(crate) async fn command(&self, partition: PartitionId, rows: bool) -> bool {
        {
            let mut state = self.state.lock().unwrap();
            let mine = state.view.ring().owner(partition) == state.view.me();
            if !mine || state.frozen.contains(&partition) {
                return false;
            }
            *state.running.entry(partition).or_default() += 1;
        }
        sleep(COMMAND).await;
        let mut disk = self.disk.lock().unwrap();
        match rows {
            true => disk.insert(partition),
            false => disk.remove(&partition),
        };
        let mut state = self.state.lock().unwrap();
        let mine = state.view.ring().owner(partition) == state.view.me();
        let in_time = mine || !disk.contains(&partition) || state.forced();
        assert!(
            in_time,
            "{} wrote to {partition}, which had gone",
            state.view.me()
        );
        if let Some(running) = state.running.get_mut(&partition) {
            *running -= 1;
        }
        true
    }

    fn runs(&self, partition: PartitionId) -> bool {
        let state = self.state.lock().unwrap();
        state
            .running
            .get(&partition)
            .is_some_and(|count| *count > 0)
    }
}

impl State {
    /// Whether the node was removed against its will.
    fn forced(&self) -> bool {
        !self.view.map().members().contains_key(self.view.me())
    }
}

fn owns(view: &View, node: &NodeName, partition: PartitionId) -> bool {
    view.ring().owner(partition) == node
}

impl Vnodes for Model {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.state.lock().unwrap().view)
    }

    fn publish(&self, view: View) {
        let mut state = self.state.lock().unwrap();
        let (me, old) = (view.me().clone(), Arc::clone(&state.view));
        for partition in view.ring().size().partitions() {
            if owns(&view, &me, partition) != owns(&old, &me, partition) {
                state.frozen.remove(&partition);
            }
        }
        if old.map().cluster() != view.map().cluster() {
            self.disk.lock().unwrap().clear();
        }
        state.view = Arc::new(view);
        state.version += 1;
    }

    fn freeze(&self, partition: PartitionId) {
        let mut state = self.state.lock().unwrap();
        state.frozen.insert(partition);
        state.version += 1;
    }

    fn thaw(&self, partition: PartitionId) {
        let mut state = self.state.lock().unwrap();
        state.frozen.remove(&partition);
        state.version += 1;
    }

    fn holds_hints(&self) -> bool {
        false
    }

    fn is_carried(&self, _partition: PartitionId, _to: &NodeName) -> bool {
        true
    }

    async fn carried(&self) {
        std::future::pending::<()>().await;
    }

    /// Rows stay where they are here: what is simulated is who owns what.
    async fn carry_rest(&self, partition: PartitionId, _to: &NodeName) -> bool {
        while self.runs(partition) {
            sleep(Duration::from_millis(1)).await;
        }
        !self.disk.lock().unwrap().contains(&partition)
    }

    async fn answer(&self, request: Vec<u8>) -> Vec<u8> {
        request
    }
}
