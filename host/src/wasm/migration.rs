//! A guest that puts stored values from one schema into another: what it can do, and doing it.
//!
//! It runs in an instance beside the vnode's own, without rows, because this is also asked while the vnode's instance is in the middle
//! of a call. The instance is kept from one value to the next, and made again when it fails.

use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings;
use super::doors::{MigrationDoor, MigrationDoorIndices, Row};
use super::engine::{Engine, ticks};
use super::guest::{Guest, LoadError};
use super::imports::Scratch;
use super::{Frames, GuestError, one_line};
use crate::descriptor::Descriptor;

/// Older schemas that a guest is asked about.
const BACK_MAX: u32 = 64;

/// What a guest can do for values of other schemas.
pub(super) struct Migration {
    indices: MigrationDoorIndices,
    /// The oldest schema into which it puts what it writes.
    back_to: u32,
}

impl Migration {
    /// Asks a guest what it can.
    pub(super) fn probe(
        engine: &Engine,
        pre: &bindings::GuestPre<Scratch>,
        descriptor: &Descriptor,
    ) -> Result<Migration, LoadError> {
        let indices = MigrationDoorIndices::new(pre.instance_pre()).map_err(super::guest::types)?;
        let (oldest, own) = (descriptor.schema_reads_from, descriptor.schema_writes);
        let budget = engine.limits().command_budget;
        let failed = |schema: u32| {
            move |error| LoadError::Migrate {
                from: schema,
                to: own,
                error,
            }
        };
        let mut migrator = Migrator::start(engine, pre.instance_pre(), &indices, budget)
            .map_err(failed(oldest))?;
        if oldest < own {
            let able = migrator.call(oldest, own, Vec::new(), budget);
            able.map_err(failed(oldest))?;
        }
        let mut back_to = own;
        while let Some(older) = back_to.checked_sub(1)
            && own - older <= BACK_MAX
            && migrator.call(own, older, Vec::new(), budget).is_ok()
        {
            back_to = older;
        }
        Ok(Migration { indices, back_to })
    }

    /// The oldest schema into which the guest puts what it writes.
    pub(super) fn back_to(&self) -> u32 {
        self.back_to
    }
}

/// An instance that migrates.
pub(super) struct Migrator {
    store: Store<Scratch>,
    door: MigrationDoor,
}

impl Migrator {
    /// One of a guest that migrates.
    pub(super) fn of(guest: &Guest, budget: Duration) -> Result<Migrator, GuestError> {
        let Some(migration) = guest.migration() else {
            return Err(GuestError::Contract("it does not migrate".into()));
        };
        let pre = guest.scratch().instance_pre();
        Migrator::start(guest.engine(), pre, &migration.indices, budget)
    }

    fn start(
        engine: &Engine,
        pre: &InstancePre<Scratch>,
        indices: &MigrationDoorIndices,
        budget: Duration,
    ) -> Result<Migrator, GuestError> {
        let mut store = Scratch::store(engine, budget);
        let mut start = || -> wasmtime::Result<MigrationDoor> {
            let instance = pre.instantiate(&mut store)?;
            indices.load(&mut store, &instance)
        };
        match start() {
            Ok(door) => Ok(Migrator { store, door }),
            Err(error) => Err(failed(&mut store, &error)),
        }
    }

    /// The values of rows, given with their keys, in another schema. Whoever gets an error should not use the instance again.
    pub(super) fn call(
        &mut self,
        written: u32,
        wanted: u32,
        rows: Vec<Row>,
        budget: Duration,
    ) -> Result<Vec<Vec<u8>>, GuestError> {
        self.store.set_epoch_deadline(ticks(budget));
        self.store.data_mut().hear();
        let migrated =
            self.door
                .vnode_host_migration()
                .call_migrate(&mut self.store, written, wanted, &rows);
        match migrated {
            Ok(Ok(values)) if values.len() == rows.len() => Ok(values),
            Ok(Ok(values)) => Err(GuestError::Contract(format!(
                "it migrated {} values into {}",
                rows.len(),
                values.len()
            ))),
            Ok(Err(why)) => Err(GuestError::Trap {
                why: format!("migrate refused: {}", one_line(&why)),
                frames: Frames::default(),
            }),
            Err(error) => Err(failed(&mut self.store, &error)),
        }
    }
}

fn failed(store: &mut Store<Scratch>, error: &wasmtime::Error) -> GuestError {
    let said = store.data_mut().take_said();
    GuestError::from_wasmtime(error, said)
}
