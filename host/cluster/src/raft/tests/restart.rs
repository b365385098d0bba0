//! What a node has after a restart, as openraft sees it when it starts.

use super::{entries, event, id, network};
use crate::raft::log::{LOG_FILE, Log};
use crate::raft::machine::{self, Machine, OpenError};
use crate::raft::{Peer, Raft, SNAPSHOT_EVERY_ENTRIES, TypeConfig};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, StorageHelper};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::tempdir;
use vnode_ring::ClusterMap;

/// Ten entries, all committed, with snapshots of the first four and the first eight; the first three are purged.
async fn written(directory: &Path) {
    let (mut log, mut machine) = machine::open(directory).unwrap();
    log.blocking_append(entries(0, 10)).await.unwrap();
    log.save_committed(Some(id(9))).await.unwrap();
    for (from, to) in [(0, 4), (4, 8), (8, 10)] {
        machine.apply(entries(from, to)).await.unwrap();
        if to < 10 {
            let mut builder = machine.get_snapshot_builder().await;
            builder.build_snapshot().await.unwrap();
        }
    }
    log.purge(id(2)).await.unwrap();
}

/// The map once openraft has applied again what the snapshot lacks.
async fn started(directory: &Path) -> Result<Arc<ClusterMap>, OpenError> {
    let (mut log, mut machine) = machine::open(directory)?;
    let maps = machine.maps();
    let mut storage = StorageHelper::<TypeConfig, Log, Machine>::new(&mut log, &mut machine);
    storage.get_initial_state().await.unwrap();
    let map = maps.borrow().clone();
    Ok(map.unwrap())
}

fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| !path.ends_with(LOG_FILE)).collect();
    paths.sort();
    paths
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[30] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn the_map_is_the_newest_snapshot_and_the_entries_behind_it() {
    let directory = tempdir().unwrap();
    written(directory.path()).await;
    assert_eq!(started(directory.path()).await.unwrap().epoch(), 10);
    // With the newest one damaged, more entries are applied to the one before.
    damage(&snapshots(directory.path())[1]);
    assert_eq!(started(directory.path()).await.unwrap().epoch(), 10);
}

#[tokio::test]
async fn a_node_does_not_start_when_entries_are_missing_behind_its_snapshot() {
    let directory = tempdir().unwrap();
    written(directory.path()).await;
    for path in snapshots(directory.path()) {
        damage(&path);
    }
    let error = started(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Snapshots(_)), "{error:?}");
}

#[tokio::test]
async fn a_node_does_not_start_without_its_vote() {
    let directory = tempdir().unwrap();
    written(directory.path()).await;
    fs::remove_file(directory.path().join(LOG_FILE)).unwrap();
    let error = started(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::LogMissing { .. }), "{error:?}");
}

/// As in production: several threads, the usual settings, and a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_writes_snapshots_and_restarts() {
    let directory = tempdir().unwrap();
    let config = crate::raft::config("one").unwrap();
    let changes = SNAPSHOT_EVERY_ENTRIES + 20;
    for restart in 0..2 {
        let (log, machine) = machine::open(directory.path()).unwrap();
        let mut maps = machine.maps();
        let raft = Raft::new(1, config.clone(), network(), log, machine)
            .await
            .unwrap();
        if restart == 0 {
            raft.initialize(BTreeMap::from([(1, Peer::default())]))
                .await
                .unwrap();
            raft.wait(None).current_leader(1, "it leads").await.unwrap();
            for index in 0..changes {
                raft.client_write(event(index)).await.unwrap().data.unwrap();
            }
            let wait = raft.wait(None);
            wait.metrics(|now| now.snapshot.is_some(), "a snapshot")
                .await
                .unwrap();
        }
        maps.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch() == changes))
            .await
            .unwrap();
        raft.shutdown().await.unwrap();
    }
    assert_eq!(snapshots(directory.path()).len(), 1);
}
