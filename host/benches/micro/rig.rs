//! What the benchmarks share: keys and values as redis-benchmark makes them, engines, and batches of requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;
use vnode_host::config::{Demands, Replication};
use vnode_host::node::BUILT_IN;
use vnode_host::ring::{HashId, PartitionId, RingSize};
use vnode_host::store::{DiskSettings, Engine, Store};
use vnode_host::vnode::request::{Consistency, Replies, ReplyTo, Request, Work};
use vnode_host::vnode::service::{CommandStats, Service};
use vnode_host::vnode::words::Words;
use vnode_host::wasm::{self, Guest, Placement, Values, VnodeState};

/// Keys in the one vnode that is measured: as many as do not fit the processor's caches.
pub(crate) const KEYS: usize = 100_000;
/// Time for a call of the guest, far more than it takes.
pub(crate) const BUDGET: Duration = Duration::from_secs(1);
/// The value of every key.
pub(crate) const VALUE: [u8; 100] = [b'x'; 100];

/// Steps through the keys so that neighbours are far apart and none repeats within a batch.
const STRIDE: usize = 7919;
const PARTITION: PartitionId = PartitionId::from_id(0);

/// 16 bytes, such as `key:000000000042`.
pub(crate) fn key(number: usize) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Where rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In memory.
    Memory,
    /// On disk with syncs every 100 ms.
    Disk,
}

/// An engine with a folder of its own, if it needs one.
pub(crate) struct Storage {
    pub(crate) engine: Engine,
    pub(crate) folder: Option<TempDir>,
}

impl Storage {
    pub(crate) fn new(backend: Backend) -> Storage {
        let folder = match backend {
            Backend::Memory => None,
            Backend::Disk => Some(tempfile::tempdir().unwrap()),
        };
        let engine = match &folder {
            None => Engine::memory(),
            Some(folder) => Engine::disk(folder.path(), DiskSettings::default()).unwrap(),
        };
        Storage { engine, folder }
    }

    pub(crate) fn open(&self) -> Box<dyn Store> {
        self.engine.open("kv", PARTITION.id()).unwrap()
    }
}

/// The service kv on a ring so small that one vnode holds many keys.
pub(crate) fn kv() -> Arc<Service> {
    let (_, component) = BUILT_IN.iter().find(|(name, _)| *name == "kv").unwrap();
    let engine = wasm::Engine::new(wasm::Limits {
        memory_bytes_max: 64 << 20,
        table_elements_max: 10_000,
        stack_bytes_max: 512 << 10,
        command_budget: BUDGET,
        host_calls_max: 100_000,
        reply_bytes_max: 4 << 20,
        component_bytes_max: 16 << 20,
        key_bytes_max: 4 << 10,
        value_bytes_max: 1 << 20,
    });
    let guest = Guest::load(&engine.unwrap(), None, component).unwrap();
    let placement = Placement {
        service: "kv".into(),
        hash: HashId::V1,
        n: 1,
    };
    Arc::new(Service::new(
        0,
        Arc::new(guest),
        placement,
        Replication {
            n: 1,
            r: 1,
            w: 1,
            demands: Demands::default(),
        },
        Duration::from_secs(1),
        0,
    ))
}

/// A vnode's state with empty rows in `storage`.
pub(crate) fn state(service: &Service, storage: &Storage) -> VnodeState {
    let (guest, placement) = (
        Arc::clone(&service.first().guest),
        service.placement.clone(),
    );
    let values = Values::new(guest, Arc::default());
    let size = RingSize::new(RingSize::MIN).unwrap();
    let place = (size, PARTITION);
    VnodeState::new(values, placement, place, "bench".into(), storage.open()).unwrap()
}

/// Something that runs commands of kv from a mailbox, as a vnode does.
pub(crate) trait Runner {
    /// Runs all of it.
    fn run(
        &mut self,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
        stats: &[CommandStats],
    );
}

/// Makes batches of one command over keys of one vnode.
pub(crate) struct Load {
    keys: Vec<(u64, Vec<u8>)>,
    stats: Vec<CommandStats>,
    next: usize,
    get: u16,
    set: u16,
}

impl Load {
    pub(crate) fn new(service: &Service) -> Load {
        let here = |number| {
            let key = key(number);
            let hash = service.placement.hash_of(&key);
            let size = RingSize::new(RingSize::MIN).unwrap();
            (size.range_of(hash) == PARTITION).then_some((hash, key))
        };
        let descriptor = service.first().guest.descriptor();
        let position = |name| u16::try_from(descriptor.command(name).unwrap().0).unwrap();
        Load {
            keys: (0..).filter_map(here).take(KEYS).collect(),
            stats: descriptor
                .commands
                .iter()
                .map(|_| CommandStats::default())
                .collect(),
            next: 0,
            get: position("GET"),
            set: position("SET"),
        }
    }

    /// Stores a value under every key.
    pub(crate) fn fill(&mut self, runner: &mut impl Runner) {
        let mut replies = Replies::default();
        for _ in 0..KEYS.div_ceil(100) {
            let mut mailbox = self.batch("SET", 100);
            self.run(runner, &mut mailbox, &mut replies);
        }
    }

    /// The next `size` commands. Their words lie in one buffer, as they would in a connection's.
    pub(crate) fn batch(&mut self, command: &str, size: usize) -> VecDeque<Request> {
        let mut buffer = Vec::new();
        let mut places = Vec::new();
        for _ in 0..size {
            self.next = (self.next + STRIDE) % KEYS;
            let (hash, key) = &self.keys[self.next];
            let mut word = |bytes: &[u8]| {
                let start = buffer.len();
                buffer.extend_from_slice(bytes);
                start..buffer.len()
            };
            let mut ranges = vec![word(command.as_bytes()), word(key)];
            if command == "SET" {
                ranges.push(word(&VALUE));
            }
            places.push((*hash, ranges));
        }
        let buffer = Bytes::from(buffer);
        let position = if command == "SET" { self.set } else { self.get };
        let request = |(seq, (hash, ranges)): (u32, (u64, Vec<_>))| Request {
            service: 0,
            command: position,
            partition: PARTITION,
            range: PARTITION,
            hash,
            words: Words::new(buffer.clone(), &ranges),
            now_ms: 1_700_000_000_000,
            id: u64::from(seq),
            alone: false,
            role: vnode_ring::Role::Primary,
            work: Work::Command,
            consistency: Consistency::single(Duration::from_secs(1)),
            trace: None,
            tries: 0,
            arrived: Instant::now(),
            reply_to: ReplyTo::Connection {
                executor: 0,
                connection: 0,
                seq,
            },
        };
        (0..).zip(places).map(request).collect()
    }

    /// Runs a batch and throws the replies away. Stops the benchmark at an error.
    pub(crate) fn run(
        &self,
        runner: &mut impl Runner,
        mailbox: &mut VecDeque<Request>,
        replies: &mut Replies,
    ) {
        runner.run(mailbox, replies, &self.stats);
        replies.drain(|_, bytes| assert_ne!(bytes.first(), Some(&b'-')));
    }
}
