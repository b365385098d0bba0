//! The majority is lost; one node goes on alone.

use std::collections::BTreeSet;
use std::path::Path;

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};

use super::{entries, event, id, network};
use crate::raft::log::Log;
use crate::raft::recover::{RecoverError, Recovered, force_new_cluster};
use crate::raft::{Peer, Raft, machine};

/// One of several voters has ten entries, and knows seven of them to be agreed on.
async fn written(directory: &Path, with_snapshot: bool) {
    let (mut log, mut machine) = machine::open(directory).unwrap();
    log.blocking_append(entries(0, 10)).await.unwrap();
    log.save_committed(Some(id(6))).await.unwrap();
    if with_snapshot {
        machine.apply(entries(0, 4)).await.unwrap();
        let mut builder = machine.get_snapshot_builder().await;
        builder.build_snapshot().await.unwrap();
        log.purge(id(2)).await.unwrap();
    }
}

#[tokio::test]
async fn a_lone_node_goes_on_with_its_last_map_as_the_only_voter() {
    for with_snapshot in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), with_snapshot).await;
        let recovered = force_new_cluster(directory.path(), 2, Peer::default()).unwrap();
        let (epoch, uncertain) = (10, 3);
        assert_eq!(recovered, Recovered { epoch, uncertain });
        // Once more, as after a failure to report: nothing else happens.
        let again = force_new_cluster(directory.path(), 2, Peer::default()).unwrap();
        let uncertain = 0;
        assert_eq!(again, Recovered { epoch, uncertain });

        let (log, machine) = machine::open(directory.path()).unwrap();
        let config = crate::raft::config("one").unwrap();
        let raft = Raft::new(2, config, network(), log, machine).await.unwrap();
        raft.wait(None).current_leader(2, "it leads").await.unwrap();
        let written = raft.client_write(event(10)).await.unwrap();
        assert_eq!(written.data, Ok(11));
        let metrics = raft.metrics().borrow().clone();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        assert_eq!(voters, BTreeSet::from([2]));
        raft.shutdown().await.unwrap();
    }
}

#[test]
fn a_directory_without_a_map_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let refused = force_new_cluster(directory.path(), 1, Peer::default());
    assert!(matches!(refused, Err(RecoverError::Nothing { .. })));
    assert!(Log::open(directory.path()).unwrap().is_none());
    drop(machine::open(directory.path()).unwrap());
    let refused = force_new_cluster(directory.path(), 1, Peer::default());
    assert!(matches!(refused, Err(RecoverError::Nothing { .. })));
}
