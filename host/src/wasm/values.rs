//! What a guest reads of stored objects, and what is stored of what it writes: concurrent values joined, and values of other schemas
//! put into the right one.
//!
//! Reading writes nothing. A value that was migrated is migrated again when it is read again, until somebody writes it or it is
//! brought up in the background (`coordinator/schemas.rs`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use vnode_ring::{Object, ObjectRef, VersionRef};

use super::GuestError;
use super::doors::Row;
use super::guest::Guest;
use super::migration::Migrator;
use super::refusal::Refusal;
use crate::descriptor::MergePolicy;
use crate::store::{Batch, Changes};

/// Rows that a version migrates in the time of one command.
const ROWS_AT_ONCE: usize = 64;

/// What the vnodes of a service have to know of the schemas of others.
#[derive(Debug)]
pub struct Schemas {
    /// The newest in which values may be stored now: every version that may have to read them reads it.
    ceiling: AtomicU32,
    /// Whether a value of an older one than its vnode writes came from another replica.
    older: AtomicBool,
}

impl Default for Schemas {
    /// There is only one version, which knows best.
    fn default() -> Schemas {
        Schemas {
            ceiling: AtomicU32::new(u32::MAX),
            older: AtomicBool::new(false),
        }
    }
}

impl Schemas {
    /// What is stored from now on is in no newer schema.
    pub fn set_ceiling(&self, schema: u32) {
        self.ceiling.store(schema, Ordering::Relaxed);
    }

    fn ceiling(&self) -> u32 {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// Whether values of an older schema came in since this was asked.
    pub fn take_older(&self) -> bool {
        self.older.swap(false, Ordering::Relaxed)
    }
}

/// What is stored of a value that a guest writes, and its schema; no value is a deletion.
type Stored<'a> = (u32, Option<Cow<'a, [u8]>>);

/// Values between a guest and the store.
pub struct Values {
    guest: Arc<Guest>,
    schemas: Arc<Schemas>,
    /// When the time of the running call is over.
    deadline: Instant,
    migrator: Option<Migrator>,
}

impl Values {
    /// Those of a vnode of that guest, of a service with these schemas.
    pub fn new(guest: Arc<Guest>, schemas: Arc<Schemas>) -> Values {
        Values {
            guest,
            schemas,
            deadline: Instant::now(),
            migrator: None,
        }
    }

    /// Those of another version beside this one. What it writes is to be held against what this one stores, so it is stored in no newer
    /// schema.
    pub(super) fn rehearsal(&self, guest: Arc<Guest>) -> Values {
        let schema = self.guest.descriptor().schema_writes;
        let schemas = Schemas::default();
        schemas.set_ceiling(self.schemas.ceiling().min(schema));
        Values::new(guest, Arc::new(schemas))
    }

    pub(super) fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// They are another version's from now on.
    pub(super) fn set_guest(&mut self, guest: Arc<Guest>) {
        self.guest = guest;
        self.migrator = None;
    }

    /// What migrates is made again when it is needed.
    pub(super) fn rest(&mut self) {
        self.migrator = None;
    }

    /// Gives the next call so much time, which it shares with what its reads and writes need.
    pub(super) fn allow(&mut self, budget: Duration) {
        // Nobody else asks for the time.
        if self.joins() || self.guest.migration().is_some() {
            self.deadline = Instant::now() + budget;
        }
    }

    fn joins(&self) -> bool {
        self.guest.descriptor().merge == MergePolicy::Custom
    }

    fn left(&self) -> Result<Duration, GuestError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(GuestError::Deadline),
            false => Ok(left),
        }
    }

    /// Appends the one value that readers of an encoded object see; false when it is deleted.
    pub(super) fn read(
        &mut self,
        key: &[u8],
        object: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let object = ObjectRef::parse(object)?;
        if let Some(version) = object.single() {
            let value = self.readable(key, version)?;
            out.extend_from_slice(value.as_deref().unwrap_or_default());
            return Ok(value.is_some());
        }
        let values = self.read_all(key, &object.to_object())?;
        if values.is_empty() {
            return Ok(false);
        }
        let left = match self.joins() {
            true => self.left().map_err(Refusal::Join)?,
            false => Duration::ZERO,
        };
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let joined = self.guest.join(key, &values, left);
        out.extend_from_slice(&joined.map_err(Refusal::Join)?);
        Ok(true)
    }

    /// The live values of an object, latest first.
    pub(super) fn read_all(
        &mut self,
        key: &[u8],
        object: &Object,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut values = Vec::new();
        for version in object.live_versions() {
            let value = self.readable(key, version.as_ref())?;
            values.extend(value.map(Cow::into_owned));
        }
        Ok(values)
    }

    /// The value of a version as the guest reads it.
    fn readable<'a>(
        &mut self,
        key: &[u8],
        version: VersionRef<'a>,
    ) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let own = self.guest.descriptor().schema_writes;
        let Some(value) = version.value else {
            return Ok(None);
        };
        if version.schema == own {
            return Ok(Some(Cow::Borrowed(value)));
        }
        self.check_schema(version.schema)?;
        if self.guest.migration().is_none() {
            return Ok(Some(Cow::Borrowed(value)));
        }
        let migrated = self.migrate(version.schema, own, key, value)?;
        Ok(Some(Cow::Owned(migrated)))
    }

    fn check_schema(&self, schema: u32) -> Result<(), Refusal> {
        let descriptor = self.guest.descriptor();
        let (from, to) = (descriptor.schema_reads_from, descriptor.schema_writes);
        if (from..=to).contains(&schema) {
            return Ok(());
        }
        Err(Refusal::Schema {
            schema,
            version: descriptor.version.clone(),
            from,
            to,
        })
    }

    /// A value that the guest writes as it is to be stored, and its schema.
    pub(super) fn stored<'a>(
        &mut self,
        key: &[u8],
        value: Option<&'a [u8]>,
    ) -> Result<Stored<'a>, Refusal> {
        let own = self.guest.descriptor().schema_writes;
        let Some(value) = value else {
            return Ok((own, None));
        };
        let ceiling = self.schemas.ceiling();
        let back_to = self.guest.migration().map_or(own, |able| able.back_to());
        // One that cannot go back was let in by force, or is what the ceiling is raised for.
        if own <= ceiling || back_to > ceiling {
            return Ok((own, Some(Cow::Borrowed(value))));
        }
        let migrated = self.migrate(own, ceiling, key, value)?;
        let max = self.guest.limits().value_bytes_max;
        if migrated.len() > max {
            let bytes = migrated.len();
            return Err(Refusal::ValueTooBig { bytes, max });
        }
        Ok((ceiling, Some(Cow::Owned(migrated))))
    }

    /// Takes down what came from another replica, if some of it is to be brought up.
    pub(super) fn came(&self, object: &ObjectRef<'_>) {
        if self.guest.migration().is_none() {
            return;
        }
        let own = self.guest.descriptor().schema_writes;
        let older = |version: VersionRef<'_>| version.value.is_some() && version.schema < own;
        if object.versions().any(older) {
            self.schemas.older.store(true, Ordering::Relaxed);
        }
    }

    fn migrate(
        &mut self,
        written: u32,
        wanted: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let failed = |error| Refusal::Migrate {
            written,
            wanted,
            error,
        };
        let left = self.left().map_err(failed)?;
        let row = Row {
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let migrated = self.migrate_all(written, wanted, vec![row], left);
        Ok(migrated.map_err(failed)?.pop().unwrap_or_default())
    }

    fn migrate_all(
        &mut self,
        written: u32,
        wanted: u32,
        rows: Vec<Row>,
        budget: Duration,
    ) -> Result<Vec<Vec<u8>>, GuestError> {
        let mut migrator = match self.migrator.take() {
            Some(migrator) => migrator,
            None => Migrator::of(&self.guest, budget)?,
        };
        let migrated = migrator.call(written, wanted, rows, budget)?;
        self.migrator = Some(migrator);
        Ok(migrated)
    }

    /// Brings rows up to the schema that the guest writes, a few at a time within the time of a command, and has it write them
    /// back as it would have to. Returns those that were in another schema, with the histories that they had.
    ///
    /// # Errors
    /// Why some row cannot be read, brought up or written back.
    pub fn bring_up(&mut self, rows: &[u8]) -> Result<Batch, Refusal> {
        let budget = self.guest.limits().command_budget;
        let own = self.guest.descriptor().schema_writes;
        let mut older: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        let mut objects = Vec::new();
        for change in Changes::new(rows) {
            let object = change.object.map(ObjectRef::parse).transpose()?;
            let Some(object) = object else { continue };
            let mut differs = false;
            for version in object.versions() {
                let Some(value) = version.value.filter(|_| version.schema != own) else {
                    continue;
                };
                self.check_schema(version.schema)?;
                differs = true;
                older.entry(version.schema).or_default().push(Row {
                    key: change.row.key.to_vec(),
                    value: value.to_vec(),
                });
            }
            if differs {
                objects.push((change.row, object.to_object()));
            }
        }
        if self.guest.migration().is_none() {
            return Ok(Batch::new());
        }
        let mut brought: BTreeMap<u32, std::vec::IntoIter<Vec<u8>>> = BTreeMap::new();
        for (schema, rows) in older {
            let failed = |error| Refusal::Migrate {
                written: schema,
                wanted: own,
                error,
            };
            let keys: Vec<Vec<u8>> = rows.iter().map(|row| row.key.clone()).collect();
            let mut values = Vec::with_capacity(rows.len());
            let mut rows = rows.into_iter();
            while rows.len() > 0 {
                let some = rows.by_ref().take(ROWS_AT_ONCE).collect();
                let migrated = self.migrate_all(schema, own, some, budget);
                values.extend(migrated.map_err(failed)?);
            }
            let max = self.guest.limits().value_bytes_max;
            for (key, value) in keys.iter().zip(&values) {
                self.deadline = Instant::now() + budget;
                if value.len() > max {
                    let bytes = value.len();
                    return Err(Refusal::ValueTooBig { bytes, max });
                }
                self.stored(key, Some(value))?;
            }
            brought.insert(schema, values.into_iter());
        }
        let mut batch = Batch::new();
        let mut bytes = Vec::new();
        for (row, object) in objects {
            let object = object.map_values(|schema, value| {
                let next = brought.get_mut(&schema).filter(|_| schema != own);
                match next.and_then(Iterator::next) {
                    Some(brought) => (own, brought),
                    None => (schema, value),
                }
            });
            bytes.clear();
            object.encode(&mut bytes);
            batch.pass_on(row, &bytes);
        }
        Ok(batch)
    }
}
