//! The two doors of a guest as the host calls them, for any [`Vnode`]. Only `export!` and the test kit come here.

use crate::bindings::exports::vnode::host::{batch, vnode as wit};
use crate::bindings::vnode::host::types;
use crate::command::{Command, Context};
use crate::lifecycle_bindings::exports::vnode::host::lifecycle;
use crate::migration_bindings::exports::vnode::host::migration;
use crate::vnode::{Lifecycle, Merge, Migrate, Vnode, not_active};
use crate::{Error, Identity, Page, Result, convert};

/// A vnode at work.
#[derive(Debug)]
pub struct Instance<T> {
    pub(crate) vnode: T,
    pub(crate) identity: Identity,
}

/// What `export!` makes in the guest's crate: the place of the one instance, and the crate's version.
pub trait Export {
    /// The vnode exported.
    type Vnode: Vnode;

    /// Version of the crate.
    const VERSION: &'static str;

    /// Runs `f` on the instance, which is none before `init`.
    fn with<R>(f: impl FnOnce(&mut Option<Instance<Self::Vnode>>) -> R) -> R;
}

/// Describes the vnode.
pub fn describe<T: Vnode>(version: &str) -> wit::Descriptor {
    wit::Descriptor {
        name: T::NAME.to_owned(),
        version: T::VERSION.unwrap_or(version).to_owned(),
        schema_reads_from: *T::SCHEMA.start(),
        schema_writes: *T::SCHEMA.end(),
        merge: match T::MERGE {
            Merge::Nothing | Merge::LastWrite => wit::MergePolicy::LastWrite,
            Merge::Siblings => wit::MergePolicy::Siblings,
            Merge::Custom(_) => wit::MergePolicy::Custom,
        },
        commands: T::COMMANDS.iter().map(convert::spec).collect(),
        n: T::QUORUM.n,
        r: T::QUORUM.r,
        w: T::QUORUM.w,
    }
}

/// Makes the instance.
pub fn init<T: Vnode>(identity: Identity) -> Result<Instance<T>, String> {
    let mut vnode = T::default();
    vnode.init(&identity)?;
    Ok(Instance { vnode, identity })
}

/// Runs one command.
pub fn handle<T: Vnode>(
    instance: &mut Option<Instance<T>>,
    command: &types::Command,
) -> Result<types::Reply, types::Error> {
    let instance = instance.as_mut().ok_or_else(not_active);
    let reply = instance.and_then(|instance| {
        with_command::<T, _>(command, |command| instance.vnode.handle(command))
    });
    reply.map(convert::lower).map_err(convert::error)
}

/// Runs one page of a coverage command.
pub fn coverage<T: Vnode>(
    instance: &mut Option<Instance<T>>,
    command: &types::Command,
    cursor: Option<&[u8]>,
) -> Result<wit::CoveragePage, types::Error> {
    let instance = instance.as_mut().ok_or_else(not_active);
    let page = instance.and_then(|instance| {
        with_command::<T, _>(command, |command| instance.vnode.coverage(command, cursor))
    });
    let page = page.map_err(convert::error)?;
    let Page { items, next } = page;
    Ok(wit::CoveragePage {
        items: convert::lower_all(items),
        next,
    })
}

/// Joins concurrent values.
pub fn merge<T: Vnode>(key: &[u8], values: Vec<Vec<u8>>) -> Vec<u8> {
    match T::MERGE {
        Merge::Custom(join) => join(key, &values),
        _ => values.into_iter().next().unwrap_or_default(),
    }
}

/// Puts values from one schema into another.
pub fn migrate<T: Migrate>(
    written: u32,
    wanted: u32,
    rows: &[migration::Row],
) -> Result<Vec<Vec<u8>>, String> {
    let (oldest, own) = (*T::SCHEMA.start(), *T::SCHEMA.end());
    let rows = rows.iter();
    if wanted == own && (oldest..=own).contains(&written) {
        let newer = rows.map(|row| T::newer(written, &row.key, &row.value));
        return newer.collect();
    }
    if written == own && (T::BACK_TO..own).contains(&wanted) {
        let older = rows.map(|row| T::older(wanted, &row.key, &row.value));
        return older.collect();
    }
    Err(format!(
        "{} goes from schemas {oldest} to {own} to schema {own}, and back to {}, not from {written} to {wanted}",
        T::NAME,
        T::BACK_TO
    ))
}

fn with_command<T: Vnode, R>(
    command: &types::Command,
    f: impl FnOnce(&Command<'_>) -> Result<R>,
) -> Result<R> {
    let spec = T::COMMANDS.iter().find(|spec| spec.name == command.name);
    let spec = spec.ok_or_else(|| Error::err(format!("unknown command '{}'", command.name)))?;
    let mut words = Vec::with_capacity(command.args.len().saturating_add(1));
    words.push(spec.name.as_bytes());
    words.extend(command.args.iter().map(Vec::as_slice));
    let context = Context {
        now_ms: command.context.now_ms,
        seed: command.context.seed,
        request_id: command.context.request_id,
        partition: command.context.partition,
        node: &command.context.node,
        replica: convert::replica(command.context.replica),
    };
    f(&Command::new(spec, &words, context))
}

impl<E: Export> wit::Guest for E {
    fn describe() -> wit::Descriptor {
        describe::<E::Vnode>(E::VERSION)
    }

    fn init(identity: wit::Identity) -> Result<(), String> {
        let made = init(convert::identity(identity))?;
        E::with(|instance| *instance = Some(made));
        Ok(())
    }

    fn handle(command: types::Command) -> Result<types::Reply, types::Error> {
        E::with(|instance| handle(instance, &command))
    }

    fn handle_coverage(
        command: types::Command,
        cursor: Option<Vec<u8>>,
    ) -> Result<wit::CoveragePage, types::Error> {
        E::with(|instance| coverage(instance, &command, cursor.as_deref()))
    }

    fn merge(key: Vec<u8>, values: Vec<Vec<u8>>) -> Vec<u8> {
        merge::<E::Vnode>(&key, values)
    }
}

impl<E: Export> batch::Guest for E {
    fn handle_batch(frames: Vec<u8>) -> Vec<u8> {
        E::with(|instance| crate::batch::run(instance, frames))
    }
}

impl<E: Export> migration::Guest for E
where
    E::Vnode: Migrate,
{
    fn migrate(
        written: u32,
        wanted: u32,
        rows: Vec<migration::Row>,
    ) -> Result<Vec<Vec<u8>>, String> {
        migrate::<E::Vnode>(written, wanted, &rows)
    }
}

impl<E: Export> lifecycle::Guest for E
where
    E::Vnode: Lifecycle,
{
    fn handoff_starting(node: String) -> Result<(), String> {
        E::with(|instance| match instance {
            Some(instance) => instance.vnode.handoff_starting(&node),
            None => Ok(()),
        })
    }

    fn handoff_finished(node: String) {
        tell::<E>(|vnode| vnode.handoff_finished(&node));
    }

    fn handoff_cancelled(node: String) {
        tell::<E>(|vnode| vnode.handoff_cancelled(&node));
    }

    fn deleted() {
        tell::<E>(Lifecycle::deleted);
    }

    fn terminate(reason: String) {
        tell::<E>(|vnode| vnode.terminate(&reason));
    }
}

fn tell<E: Export>(f: impl FnOnce(&mut E::Vnode)) {
    E::with(|instance| {
        if let Some(instance) = instance {
            f(&mut instance.vnode);
        }
    });
}
