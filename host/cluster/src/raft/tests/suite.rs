//! Openraft's own tests of a log and a state machine.

use crate::raft::log::Log;
use crate::raft::machine::{self, Machine};
use crate::raft::{StorageError, TypeConfig};
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

struct OnDisk;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let (log, machine) = machine::open(directory.path()).unwrap();
        Ok((directory, log, machine))
    }
}

#[test]
fn openraft_finds_nothing_wrong_with_log_and_machine() {
    Suite::test_all(OnDisk).unwrap();
}
