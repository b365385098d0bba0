//! Nodes that die at a place in their code (`vnode_cluster::failpoint`), as by `kill -9` or a loss of power there.
//!
//! A node cannot be stopped in the middle of a step, so it goes on until the step ends, and nothing of that counts: its links carry
//! no more, its disk and its directory go back to what they were. Then the world crashes it like any other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::runtime::Handle;
use vnode_cluster::failpoint::tell_this_thread;

use crate::{board, disk};

/// Which node dies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Victim {
    /// The one that is there.
    Here,
    /// That one, wherever it is itself.
    Node(&'static str),
    /// The claimant, whoever is there.
    Claimant,
}

/// What waits for a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    /// The failpoint.
    pub(crate) place: &'static str,
    /// How often nodes pass it before.
    pub(crate) passes: u64,
    pub(crate) victim: Victim,
}

/// All that is needed for a death, and what has become of it.
pub(crate) struct Deaths {
    board: board::Shared,
    disks: BTreeMap<&'static str, disk::Shared>,
    /// Has the directory of each node.
    directory: PathBuf,
    /// Everybody who may hear of a node.
    machines: RefCell<Vec<&'static str>>,
    trap: RefCell<Option<Trap>>,
    /// Who has died in this step.
    dead: RefCell<Option<&'static str>>,
}

impl Deaths {
    /// Watches what comes to failpoints on this thread from now on.
    pub(crate) fn watch(
        board: &board::Shared,
        disks: &BTreeMap<&'static str, disk::Shared>,
        directory: &Path,
    ) -> Rc<Deaths> {
        let deaths = Rc::new(Deaths {
            board: board.clone(),
            disks: disks.clone(),
            directory: directory.to_path_buf(),
            machines: RefCell::default(),
            trap: RefCell::default(),
            dead: RefCell::default(),
        });
        let watching = Rc::clone(&deaths);
        tell_this_thread(Some(Rc::new(move |place| watching.reached(place))));
        deaths
    }

    /// Nobody is watched any more.
    pub(crate) fn end() {
        tell_this_thread(None);
    }

    /// Lays a trap. It is gone when a node has died in it.
    pub(crate) fn lay(&self, trap: Trap, machines: &[&'static str]) {
        *self.machines.borrow_mut() = machines.to_vec();
        *self.trap.borrow_mut() = Some(trap);
    }

    /// Who has died in the step that ended. Its directory is what it was when it died once [`Deaths::bury`] was called.
    pub(crate) fn take_dead(&self) -> Option<&'static str> {
        self.dead.borrow_mut().take()
    }

    /// Takes back what a crashed node did to its directory after its death.
    pub(crate) fn bury(&self, node: &str) {
        let path = self.directory.join(node);
        fs::remove_dir_all(&path).unwrap();
        fs::rename(self.kept(node), path).unwrap();
    }

    fn kept(&self, node: &str) -> PathBuf {
        self.directory.join(format!("{node} at its death"))
    }

    fn reached(&self, place: &str) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut board = self.board.lock().unwrap();
        let Some(node) = board.on(runtime.id()) else {
            return;
        };
        if self.dead.borrow().is_some() {
            return;
        }
        board.add(&format!("at {place}"), 1);
        let mut trap = self.trap.borrow_mut();
        let Some(here) = trap.as_mut().filter(|trap| trap.place == place) else {
            return;
        };
        if here.passes > 0 {
            here.passes -= 1;
            return;
        }
        let victim = match here.victim {
            Victim::Here => Some(node),
            Victim::Node(node) => Some(node),
            Victim::Claimant => board.claimant(),
        };
        // There may be no claimant just now; the next one who comes here finds one.
        if let Some(victim) = victim {
            board.note(node, &format!("is at {place}; {victim} dies"));
            *trap = None;
            self.die(victim);
        }
    }

    /// From now on nothing that the node does reaches anybody.
    fn die(&self, node: &'static str) {
        *self.dead.borrow_mut() = Some(node);
        self.disks[node].lock().unwrap().halt();
        copy(&self.directory.join(node), &self.kept(node));
        for other in self.machines.borrow().iter().filter(|one| **one != node) {
            turmoil::partition_oneway(node, *other);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}
