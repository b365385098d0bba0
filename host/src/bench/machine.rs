//! The machine that a report was made on: figures of another one are figures of something else.

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// Processors that this program may use.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    /// Operating system and release of its kernel.
    pub(crate) kernel: String,
}

impl Machine {
    /// This one. What the system does not say is `unknown`.
    pub(super) fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default() * 1024,
            kernel: format!("{} {}", std::env::consts::OS, release.trim())
                .trim()
                .to_owned(),
        }
    }
}

/// The first `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "processor\t: 0\nmodel name\t: Best CPU @ 2.00GHz\nmodel\t: 1\n";
        assert_eq!(
            field(info, "model name").as_deref(),
            Some("Best CPU @ 2.00GHz")
        );
        assert_eq!(field(info, "model").as_deref(), Some("1"));
        assert_eq!(kibibytes("MemTotal:  16384 kB\n", "MemTotal"), Some(16384));
        assert_eq!(kibibytes("MemFree: 1 kB\n", "MemTotal"), None);
    }
}
