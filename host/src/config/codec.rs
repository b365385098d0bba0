//! How the text of a setting becomes its value and back.
//!
//! One codec per kind of value. A codec knows its range and says, in half a sentence, what would have been right; the
//! caller adds the key and where the text came from.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::{GuestSource, HashId, LogFormat, N_MAX, StorageKind, SyncMode};

/// What a setting looks like in the file and in help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of a few words.
    Word,
    /// A whole number.
    Number,
    /// A size in bytes, such as `64MiB`.
    Size,
    /// A length of time, such as `200ms`.
    Time,
    /// An IP address and a port.
    Address,
    /// True or false.
    Switch,
    /// A file or directory.
    Path,
    /// Several texts.
    List,
}

/// Both directions of one kind of value. `parse(show(v)) == v`.
pub(super) trait Codec {
    /// What the field of `Config` holds.
    type Value;
    /// Its look.
    const KIND: Kind;
    /// The value, or what would have been right.
    fn parse(text: &str) -> Result<Self::Value, String>;
    /// The text that gives this value; empty when there is none.
    fn show(value: &Self::Value) -> String;
}

/// A number of things, within MIN and MAX.
pub(super) struct Count<const MIN: usize, const MAX: usize>;
/// A number of bytes, within MIN and MAX.
pub(super) struct Bytes<const MIN: u64, const MAX: u64>;
/// A length of time, within MIN and MAX milliseconds.
pub(super) struct Time<const MIN: u64, const MAX: u64>;
/// Replicas, 1 to 8.
pub(super) struct Replicas;
/// The first of three ports.
pub(super) struct Port;
/// A power of two from 8 to 4096.
pub(super) struct RingSize;
/// ADDRESS:PORT to listen on.
pub(super) struct Address;
/// HOST:PORT to connect to, where the host may be a name.
pub(super) struct Endpoint;
/// The same of another node, as people copy it: `http://` before it does not matter.
pub(super) struct Contact;
/// True or false; a flag without a value says true.
pub(super) struct Switch;
/// The identity of a node.
pub(super) struct NodeName;
/// A directory.
pub(super) struct Directory;
/// A word for people.
pub(super) struct Label;
/// A filter of log lines.
pub(super) struct LogFilter;
/// One of the words of an enum.
pub(super) struct Word<T>(PhantomData<T>);

/// An enum whose variants have names in settings.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// All names.
    const WORDS: &'static [(&'static str, Self)];
}

impl Words for StorageKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("disk", Self::Disk), ("memory", Self::Memory)];
}

impl Words for SyncMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("always", Self::Always),
        ("interval", Self::Interval),
        ("never", Self::Never),
    ];
}

impl Words for HashId {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("etf-sha1", Self::EtfSha1)];
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("text", Self::Text),
        ("json", Self::Json),
    ];
}

impl<T: Words> Codec for Word<T> {
    type Value = T;
    const KIND: Kind = Kind::Word;

    fn parse(text: &str) -> Result<T, String> {
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
            format!("{text:?} is not one of {}", words.join(", "))
        })
    }

    fn show(value: &T) -> String {
        let found = T::WORDS.iter().find(|(_, other)| other == value);
        found
            .map(|(word, _)| (*word).to_owned())
            .unwrap_or_default()
    }
}

impl<const MIN: usize, const MAX: usize> Codec for Count<MIN, MAX> {
    type Value = usize;
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<usize, String> {
        text.parse()
            .ok()
            .filter(|count| (MIN..=MAX).contains(count))
            .ok_or_else(|| format!("{text:?} is not a whole number from {MIN} to {MAX}"))
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

impl<const MIN: u64, const MAX: u64> Codec for Bytes<MIN, MAX> {
    type Value = usize;
    const KIND: Kind = Kind::Size;

    fn parse(text: &str) -> Result<usize, String> {
        let bytes = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
        bytes
            .filter(|bytes| (MIN..=MAX).contains(bytes))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or_else(|| {
                let (min, max) = (show_bytes(MIN), show_bytes(MAX));
                format!("{text:?} is not a size from {min} to {max}, such as 64KiB or 1MiB")
            })
    }

    fn show(value: &usize) -> String {
        show_bytes(*value as u64)
    }
}

/// `64MiB`: the largest unit that loses nothing.
fn show_bytes(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, shift)| format!("{}{unit}", bytes >> shift),
        )
}

impl<const MIN: u64, const MAX: u64> Codec for Time<MIN, MAX> {
    type Value = Duration;
    const KIND: Kind = Kind::Time;

    fn parse(text: &str) -> Result<Duration, String> {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        humantime::parse_duration(text)
            .ok()
            .filter(|time| (min..=max).contains(time))
            .ok_or_else(|| {
                let (min, max) = (Self::show(&min), Self::show(&max));
                format!("{text:?} is not a time from {min} to {max}, such as 200ms or 5s")
            })
    }

    fn show(value: &Duration) -> String {
        humantime::format_duration(*value).to_string()
    }
}

impl Codec for Replicas {
    type Value = u32;
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<u32, String> {
        text.parse()
            .ok()
            .filter(|count| (1..=u32::from(N_MAX)).contains(count))
            .ok_or_else(|| format!("{text:?} is not a number of replicas from 1 to {N_MAX}"))
    }

    fn show(value: &u32) -> String {
        value.to_string()
    }
}

impl Codec for Port {
    type Value = u16;
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<u16, String> {
        if text.starts_with("tcp://") {
            // A service named `vnode` makes Kubernetes put this into the environment of every pod.
            return Err(format!(
                "{text:?} comes from a Kubernetes service link; set enableServiceLinks: false"
            ));
        }
        text.parse().ok().filter(|port| *port <= u16::MAX - 2).ok_or_else(|| {
            format!("{text:?} is not a port from 0 to 65533 (HTTP takes the next one, peers the one after)")
        })
    }

    fn show(value: &u16) -> String {
        value.to_string()
    }
}

impl Codec for RingSize {
    type Value = u32;
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<u32, String> {
        text.parse()
            .ok()
            .filter(|size: &u32| (8..=4096).contains(size) && size.is_power_of_two())
            .ok_or_else(|| format!("{text:?} is not a power of two from 8 to 4096"))
    }

    fn show(value: &u32) -> String {
        value.to_string()
    }
}

impl Codec for Address {
    type Value = SocketAddr;
    const KIND: Kind = Kind::Address;

    fn parse(text: &str) -> Result<SocketAddr, String> {
        let numeric = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        numeric.parse().map_err(|_| {
            format!(
                "{text:?} is not an IP address and a port, such as 127.0.0.1:7379 or [::1]:7379"
            )
        })
    }

    fn show(value: &SocketAddr) -> String {
        value.to_string()
    }
}

impl Codec for Endpoint {
    type Value = Option<String>;
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Option<String>, String> {
        let legal = text.rsplit_once(':').is_some_and(|(host, port)| {
            let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let plain = !host.is_empty() && host.chars().all(name);
            (plain || text.parse::<SocketAddr>().is_ok())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if legal {
            Ok(Some(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a host and a port, such as node1.example:7381"
            ))
        }
    }

    fn show(value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

impl Codec for Contact {
    type Value = Option<String>;
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Option<String>, String> {
        Endpoint::parse(text.trim_start_matches("http://").trim_end_matches('/'))
    }

    fn show(value: &Option<String>) -> String {
        Endpoint::show(value)
    }
}

impl Codec for Switch {
    type Value = bool;
    const KIND: Kind = Kind::Switch;

    fn parse(text: &str) -> Result<bool, String> {
        text.parse()
            .map_err(|_| format!("{text:?} is neither true nor false"))
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

impl Codec for NodeName {
    type Value = Option<String>;
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Option<String>, String> {
        let legal = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':' | '[' | ']')
        };
        // The name is also a directory under ./data, so it may not be or begin with a dot.
        if (1..=128).contains(&text.len()) && !text.starts_with('.') && text.chars().all(legal) {
            Ok(Some(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a node name: 1 to 128 letters, digits and .-_@:[], not starting with a dot"
            ))
        }
    }

    fn show(value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

impl Codec for Directory {
    type Value = Option<PathBuf>;
    const KIND: Kind = Kind::Path;

    fn parse(text: &str) -> Result<Option<PathBuf>, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(format!("{text:?} is not a directory"));
        }
        Ok(Some(text.into()))
    }

    fn show(value: &Option<PathBuf>) -> String {
        value
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    }
}

impl Codec for Label {
    type Value = Option<String>;
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Option<String>, String> {
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return Err(format!(
                "{text:?} is not a place: 1 to 128 printable characters"
            ));
        }
        Ok(Some(text.to_owned()))
    }

    fn show(value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

impl Codec for LogFilter {
    type Value = String;
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<String, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!(
                "{text:?} is not a filter such as info or warn,vnode_host::node=debug"
            )),
        }
    }

    fn show(value: &String) -> String {
        value.clone()
    }
}

/// The guests of a node.
pub(super) fn guests(values: &[String]) -> Result<Vec<GuestSource>, String> {
    let mut guests = Vec::new();
    for text in values {
        if text.is_empty() {
            return Err(
                "an empty text names no guest; give a FILE.wasm or a built-in name such as kv"
                    .into(),
            );
        }
        let guest = GuestSource::parse(text);
        if guests.contains(&guest) {
            return Err(format!(
                "{text:?} is given twice; each guest is one service"
            ));
        }
        guests.push(guest);
    }
    Ok(guests)
}
