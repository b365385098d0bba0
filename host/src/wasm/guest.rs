//! One guest: a component that was checked, compiled and asked to describe itself.
//!
//! The checks go from cheap to dear, and each refusal names what is wrong: size, kind of file, imports against the
//! allow-list, exports and their version, types, and last the descriptor. Nothing of the guest runs before its imports
//! are known to be harmless.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::Store;
use wasmtime::component::{Component, Instance, InstancePre, Linker};

use super::bindings;
use super::cache::CompileCache;
use super::engine::{Engine, Limits};
use super::imports::{self, Scratch};
use super::instance::Bound;
use super::migration::Migration;
use super::state::VnodeState;
use super::{GuestError, doors, one_line, wasi};
use crate::descriptor::{Descriptor, DescriptorError, MergePolicy};
use crate::resp::wire::ReplyLimits;

/// The contract's package and version.
pub mod interface {
    /// As people read it.
    pub const NAME: &str = "vnode:host@0.1.0";
    pub(super) const VNODE: &str = "vnode:host/vnode@0.1.0";
    pub(super) const BATCH: &str = "vnode:host/batch@0.1.0";
    pub(super) const LIFECYCLE: &str = "vnode:host/lifecycle@0.1.0";
    pub(super) const MIGRATION: &str = "vnode:host/migration@0.1.0";
    pub(super) const OFFERED: [&str; 3] = [
        "vnode:host/types@0.1.",
        "vnode:host/store@0.1.",
        "vnode:host/log@0.1.",
    ];
}

/// Why a component is not served. The display says what is wrong; the caller adds which file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is larger than the node takes.
    #[error("the component has {bytes} bytes, the limit is {max} (component_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not WebAssembly at all.
    #[error("this is not a WebAssembly component: it does not start with \\0asm")]
    NotWasm,
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component; build it with --target wasm32-wasip2"
    )]
    CoreModule,
    /// wasmtime refuses it.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It imports what no guest may have.
    #[error(
        "it imports {import:?}, which this host does not offer; a guest may import vnode:host/store, vnode:host/log and what the standard library needs"
    )]
    Import {
        /// The import.
        import: String,
    },
    /// It exports no vnode, or one of another version.
    #[error("{found}; this host serves {expected}")]
    World {
        /// What was found instead.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// Names fit, types do not.
    #[error("its imports or exports have other types than {expected}: {why}")]
    Types {
        /// The contract.
        expected: &'static str,
        /// Which type, in wasmtime's words.
        why: String,
    },
    /// It failed while describing itself.
    #[error("it failed in describe: {0}")]
    Describe(GuestError),
    /// It cannot migrate from the oldest schema that it reads.
    #[error("it does not migrate from schema {from} to {to}, as it says that it does: {error}")]
    Migrate {
        /// The oldest schema that it reads.
        from: u32,
        /// The one that it writes.
        to: u32,
        /// What happened.
        error: GuestError,
    },
    /// It describes something that cannot be served.
    #[error("its descriptor cannot be served: {0}")]
    Descriptor(#[from] DescriptorError),
}

/// A guest ready to make instances.
pub struct Guest {
    engine: Engine,
    pre: InstancePre<VnodeState>,
    indices: bindings::GuestIndices,
    scratch: bindings::GuestPre<Scratch>,
    batch: Option<doors::BatchDoorIndices>,
    lifecycle: Option<doors::LifecycleDoorIndices>,
    migration: Option<Migration>,
    digest: String,
    bytes: usize,
    imports: Vec<String>,
    exports: Vec<String>,
    descriptor: Arc<Descriptor>,
}

impl Guest {
    /// Checks and compiles `bytes`, and asks the guest what it is.
    pub fn load(
        engine: &Engine,
        cache: Option<&CompileCache>,
        bytes: &[u8],
    ) -> Result<Guest, LoadError> {
        let digest = check_file(bytes, engine.limits())?;
        let component = match cache {
            Some(cache) => cache.component(engine, &digest, bytes),
            None => Component::from_binary(engine.wasmtime(), bytes),
        };
        let component = component
            .map_err(|error| LoadError::Invalid(one_line(&error.root_cause().to_string())))?;
        let wasmtime = engine.wasmtime();
        let component_type = component.component_type();
        let imports: Vec<String> = component_type
            .imports(wasmtime)
            .map(|(name, _)| name.to_owned())
            .collect();
        let exports: Vec<String> = component_type
            .exports(wasmtime)
            .map(|(name, _)| name.to_owned())
            .collect();
        check_imports(&imports)?;
        check_exports(&exports)?;

        let pre = link::<VnodeState>(engine, &component, imports::add_to_linker)?;
        let indices = bindings::GuestIndices::new(&pre).map_err(types)?;
        let scratch = link::<Scratch>(engine, &component, imports::add_scratch_to_linker)?;
        let scratch = bindings::GuestPre::new(scratch).map_err(types)?;
        let descriptor = describe(engine, &scratch)?;
        descriptor.check()?;
        let has = |interface: &str| exports.iter().any(|name| name == interface);
        let batch = has(interface::BATCH)
            .then(|| doors::BatchDoorIndices::new(&pre))
            .transpose()
            .map_err(types)?;
        let lifecycle = has(interface::LIFECYCLE)
            .then(|| doors::LifecycleDoorIndices::new(&pre))
            .transpose()
            .map_err(types)?;
        let migration = has(interface::MIGRATION)
            .then(|| Migration::probe(engine, &scratch, &descriptor))
            .transpose()?;
        Ok(Guest {
            engine: engine.clone(),
            pre,
            indices,
            scratch,
            batch,
            lifecycle,
            migration,
            digest,
            bytes: bytes.len(),
            imports,
            exports,
            descriptor: Arc::new(descriptor),
        })
    }

    /// What it says of itself; checked.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// Keeps the later of concurrent writes alone, whatever its descriptor says.
    pub fn keep_last_write(&mut self) {
        Arc::make_mut(&mut self.descriptor).merge = MergePolicy::LastWrite;
    }

    /// SHA-256 of the component, hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size of the component, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Names of what it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Names of what it exports.
    pub fn exports(&self) -> &[String] {
        &self.exports
    }

    /// Whether it has the packed door.
    pub fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether it wants to hear about handoff and its end.
    pub fn has_lifecycle(&self) -> bool {
        self.lifecycle.is_some()
    }

    /// Whether it puts stored values from one schema into another.
    pub fn migrates(&self) -> bool {
        self.migration.is_some()
    }

    /// The oldest schema in which it can have stored what it writes.
    pub fn stores_from(&self) -> u32 {
        let own = self.descriptor.schema_writes;
        self.migration.as_ref().map_or(own, Migration::back_to)
    }

    pub(super) fn migration(&self) -> Option<&Migration> {
        self.migration.as_ref()
    }

    pub(super) fn scratch(&self) -> &bindings::GuestPre<Scratch> {
        &self.scratch
    }

    /// What one of its replies may weigh.
    pub fn reply_limits(&self) -> ReplyLimits {
        ReplyLimits {
            bytes_max: self.limits().reply_bytes_max,
            ..ReplyLimits::default()
        }
    }

    /// What its instances may use.
    pub fn limits(&self) -> &Limits {
        self.engine.limits()
    }

    /// What compiled it and runs it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn pre(&self) -> &InstancePre<VnodeState> {
        &self.pre
    }

    /// Looks the exports up in a fresh instance.
    pub(super) fn bind(
        &self,
        store: &mut Store<VnodeState>,
        instance: &Instance,
    ) -> wasmtime::Result<Bound> {
        Ok(Bound {
            vnode: self.indices.load(&mut *store, instance)?,
            batch: match &self.batch {
                Some(door) => Some(door.load(&mut *store, instance)?),
                None => None,
            },
            lifecycle: match &self.lifecycle {
                Some(door) => Some(door.load(&mut *store, instance)?),
                None => None,
            },
        })
    }

    /// Joins concurrent values as the merge policy says, within `budget`; `values` come latest first and are not empty.
    ///
    /// The guest's own merge runs in a throw-away instance, because this is also asked while the vnode's instance is in
    /// the middle of a call.
    pub fn join(
        &self,
        key: &[u8],
        values: &[&[u8]],
        budget: Duration,
    ) -> Result<Vec<u8>, GuestError> {
        match (self.descriptor.merge, values) {
            (MergePolicy::Custom, [_, _, ..]) => {
                let values: Vec<Vec<u8>> = values.iter().map(|v| v.to_vec()).collect();
                let mut scratch = Scratch::store(&self.engine, budget);
                let mut call = || {
                    let guest = self.scratch.instantiate(&mut scratch)?;
                    guest
                        .vnode_host_vnode()
                        .call_merge(&mut scratch, key, &values)
                };
                let joined = call();
                joined.map_err(|error| {
                    GuestError::from_wasmtime(&error, scratch.into_data().into_said())
                })
            }
            (_, [latest, ..]) => Ok(latest.to_vec()),
            (_, []) => Ok(Vec::new()),
        }
    }
}

fn check_file(bytes: &[u8], limits: &Limits) -> Result<String, LoadError> {
    if bytes.len() > limits.component_bytes_max {
        return Err(LoadError::TooLarge {
            bytes: bytes.len(),
            max: limits.component_bytes_max,
        });
    }
    // A core module has version 1 and layer 0 after the magic, a component has layer 1.
    match bytes.split_at_checked(8) {
        Some((b"\0asm\x01\0\0\0", _)) => return Err(LoadError::CoreModule),
        Some((head, _)) if head.starts_with(b"\0asm") => {}
        _ => return Err(LoadError::NotWasm),
    }
    let digest = Sha256::digest(bytes);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn check_imports(imports: &[String]) -> Result<(), LoadError> {
    let offered = |name: &str| {
        interface::OFFERED
            .iter()
            .chain(wasi::ALLOWED)
            .any(|prefix| name.starts_with(prefix))
    };
    match imports.iter().find(|name| !offered(name)) {
        None => Ok(()),
        Some(import) => Err(LoadError::Import {
            import: import.clone(),
        }),
    }
}

fn check_exports(exports: &[String]) -> Result<(), LoadError> {
    if exports.iter().any(|name| name == interface::VNODE) {
        return Ok(());
    }
    let found = match exports
        .iter()
        .find(|name| name.starts_with("vnode:host/vnode"))
    {
        Some(other) => format!("it exports {other:?}"),
        None if exports.is_empty() => "it exports nothing".to_owned(),
        None => format!("it exports {}, but no vnode", exports.join(", ")),
    };
    Err(LoadError::World {
        found,
        expected: interface::VNODE,
    })
}

pub(super) fn types(error: wasmtime::Error) -> LoadError {
    LoadError::Types {
        expected: interface::NAME,
        why: one_line(&format!("{error:#}")),
    }
}

fn link<T: wasi::Stderr + 'static>(
    engine: &Engine,
    component: &Component,
    add: fn(&mut Linker<T>) -> wasmtime::Result<()>,
) -> Result<InstancePre<T>, LoadError> {
    let mut linker = Linker::new(engine.wasmtime());
    add(&mut linker).map_err(types)?;
    // Under the very names that the component imports: what is not found under them becomes a trap below.
    let component_type = component.component_type();
    let versions: BTreeSet<&str> = component_type
        .imports(engine.wasmtime())
        .filter_map(|(name, _)| name.strip_prefix("wasi:")?.split_once('@'))
        .map(|(_, version)| version)
        .collect();
    for version in versions {
        wasi::add_to_linker(&mut linker, version).map_err(types)?;
    }
    // What remains is inside the allowed interfaces, and traps when called: no guest needs it to serve.
    linker
        .define_unknown_imports_as_traps(component)
        .map_err(types)?;
    linker.instantiate_pre(component).map_err(types)
}

fn describe(engine: &Engine, pre: &bindings::GuestPre<Scratch>) -> Result<Descriptor, LoadError> {
    let mut scratch = Scratch::store(engine, engine.limits().command_budget);
    let call = |scratch: &mut Store<Scratch>| {
        let guest = pre.instantiate(&mut *scratch)?;
        guest.vnode_host_vnode().call_describe(&mut *scratch)
    };
    match call(&mut scratch) {
        Ok(descriptor) => Ok(descriptor.into()),
        Err(error) => {
            let said = scratch.into_data().into_said();
            Err(LoadError::Describe(GuestError::from_wasmtime(&error, said)))
        }
    }
}
