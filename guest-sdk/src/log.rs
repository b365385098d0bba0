//! Lines for the node's log. They carry the service, partition and version on their own; never put values of users in
//! them.
//!
//! ```
//! use guest_sdk::prelude::*;
//!
//! log::info!("{} rows to look at", 12);
//! ```

use std::fmt;

pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace,
    __log_warn as warn,
};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something will fail unless someone looks.
    Warn,
    /// Something worth knowing happened.
    Info,
    /// For the author of the vnode.
    Debug,
    /// For the author of the vnode, in every command.
    Trace,
}

/// Writes one line; the macros of this module are shorter.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let message = message.to_string();
    #[cfg(target_family = "wasm")]
    {
        use crate::bindings::vnode::host::log as host;
        let level = match level {
            Level::Error => host::Level::Error,
            Level::Warn => host::Level::Warn,
            Level::Info => host::Level::Info,
            Level::Debug => host::Level::Debug,
            Level::Trace => host::Level::Trace,
        };
        host::write(level, &message);
    }
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {message}");
}

/// Something failed.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, ::std::format_args!($($line)+)) };
}

/// Something will fail unless someone looks.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($line)+)) };
}

/// Something worth knowing happened.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, ::std::format_args!($($line)+)) };
}

/// For the author of the vnode.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::std::format_args!($($line)+)) };
}

/// For the author of the vnode, in every command.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::std::format_args!($($line)+)) };
}
