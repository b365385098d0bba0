#![doc = include_str!("../README.md")]
//!
//! Where to read on: [`Vnode`] is what a guest implements, [`store`] what it remembers with, [`Command`] and [`Reply`]
//! what goes in and out, [`CommandSpec`] what it declares, [`testing`] how it is tested without a host.

#[doc(hidden)]
pub mod batch;
mod bytes;
mod command;
mod convert;
#[doc(hidden)]
pub mod door;
mod error;
mod frame;
#[cfg(target_family = "wasm")]
mod imports;
pub mod log;
#[cfg(not(target_family = "wasm"))]
mod memory;
mod reply;
mod resp;
mod spec;
pub mod store;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod vnode;

pub use bytes::Bytes;
pub use command::{Command, Context, Identity, Replica};
pub use error::{Error, Result};
pub use reply::{Format, Reply};
pub use spec::{
    Aggregate, CommandSpec, Keys, Kind, Quorum, any, coverage, coverage_write, each, read, write,
};
#[doc(hidden)]
pub use vnode::check;
pub use vnode::{Lifecycle, Merge, MergeFn, Migrate, Page, Vnode};

/// Everything that a guest usually needs.
pub mod prelude {
    pub use crate::spec::{any, coverage, coverage_write, each, read, write};
    pub use crate::store::Projection;
    pub use crate::{
        Bytes, Command, CommandSpec, Error, Identity, Lifecycle, Merge, Migrate, Page, Reply,
        Result, Vnode, log, store,
    };
}

/// The contract, as generated from `wit/`.
#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "guest-batch",
        pub_export_macro: true,
        export_macro_name: "export_vnode",
        default_bindings_module: "guest_sdk::bindings",
    });
}

/// The optional part of the contract. It is apart from the rest so that only the guests that ask for it export it.
#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod lifecycle_bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package vnode:sdk; world hooks { export vnode:host/lifecycle@0.1.0; }",
        world: "vnode:sdk/hooks",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "guest_sdk::lifecycle_bindings",
        type_section_suffix: "hooks",
    });
}

/// The other optional part of the contract.
#[doc(hidden)]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod migration_bindings {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package vnode:sdk; world migrates { export vnode:host/migration@0.1.0; }",
        world: "vnode:sdk/migrates",
        pub_export_macro: true,
        export_macro_name: "export_migration",
        default_bindings_module: "guest_sdk::migration_bindings",
        type_section_suffix: "migrates",
    });
}

/// Exports a [`Vnode`] from the guest's crate: once, at the top of `lib.rs`.
///
/// `export!(Kv)` exports the two doors for commands, `export!(Kv, lifecycle)` also what [`Lifecycle`] hears,
/// `export!(Kv, migration)` what [`Migrate`] does, and `export!(Kv, lifecycle, migration)` both. A vnode that the host would refuse
/// does not compile:
///
/// ```compile_fail
/// use guest_sdk::prelude::*;
///
/// #[derive(Default)]
/// struct Forgetful;
///
/// impl Vnode for Forgetful {
///     const NAME: &'static str = "forgetful";
///     // It writes, and does not say what becomes of concurrent versions.
///     const COMMANDS: &'static [CommandSpec] = &[write("SET").key(1).arity(3)];
///
///     fn handle(&mut self, command: &Command) -> Result<Reply> {
///         store::put(command.bytes(1)?, command.bytes(2)?)?;
///         Ok(Reply::ok())
///     }
/// }
/// guest_sdk::export!(Forgetful);
/// ```
#[macro_export]
macro_rules! export {
    ($vnode:ty) => {
        $crate::export!(@vnode $vnode, {});
    };
    ($vnode:ty, lifecycle) => {
        $crate::export!(@vnode $vnode, {
            $crate::lifecycle_bindings::export_lifecycle!(Exported with_types_in $crate::lifecycle_bindings);
        });
    };
    ($vnode:ty, migration) => {
        $crate::export!(@vnode $vnode, {
            $crate::migration_bindings::export_migration!(Exported with_types_in $crate::migration_bindings);
        });
    };
    ($vnode:ty, lifecycle, migration) => {
        $crate::export!(@vnode $vnode, {
            $crate::lifecycle_bindings::export_lifecycle!(Exported with_types_in $crate::lifecycle_bindings);
            $crate::migration_bindings::export_migration!(Exported with_types_in $crate::migration_bindings);
        });
    };
    (@vnode $vnode:ty, {$($more:tt)*}) => {
        const _: () = $crate::check::<$vnode>();

        // A native build has no host to export to.
        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<Option<$crate::door::Instance<$vnode>>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            struct Exported;

            impl $crate::door::Export for Exported {
                type Vnode = $vnode;

                const VERSION: &'static str = env!("CARGO_PKG_VERSION");

                fn with<R>(f: impl FnOnce(&mut Option<$crate::door::Instance<$vnode>>) -> R) -> R {
                    INSTANCE.with_borrow_mut(f)
                }
            }

            $crate::bindings::export_vnode!(Exported with_types_in $crate::bindings);
            $($more)*
        };
    };
}
