//! Rows of one partition: reading one, applying a batch.

use divan::Bencher;
use divan::counter::ItemsCount;
use vnode_host::ring::{Actor, Dot, FIRST_SCHEMA, HashId, Hlc, VersionRef, encode_successor};
use vnode_host::store::{Batch, DiskSettings, Engine, Liveness, RowKey, Store};

use crate::rig::{Backend, KEYS, Storage, VALUE, key};

/// Rows of one commit while filling.
const FILL: usize = 1000;
const STRIDE: usize = 7919;

/// Rows ready to be written: hash and key, and the bytes of an object with one version.
struct Rows {
    keys: Vec<(u64, Vec<u8>)>,
    object: Vec<u8>,
    next: usize,
}

impl Rows {
    fn new() -> Rows {
        let keyed = |number| {
            let key = key(number);
            (HashId::V1.hash(b"kv", &key).prefix(), key)
        };
        let (mut object, dot) = (
            Vec::new(),
            Dot {
                actor: Actor(7),
                seq: 7,
            },
        );
        let clock = Hlc::next(Hlc::default(), 1_700_000_000_000);
        let version = VersionRef {
            dot,
            hlc: clock,
            schema: FIRST_SCHEMA,
            value: Some(&VALUE),
        };
        encode_successor(None, version, &mut object);
        Rows {
            keys: (0..KEYS).map(keyed).collect(),
            object,
            next: 0,
        }
    }

    fn next(&mut self) -> RowKey<'_> {
        self.next = (self.next + STRIDE) % KEYS;
        let (hash, key) = &self.keys[self.next];
        RowKey { hash: *hash, key }
    }

    fn put(&mut self, store: &mut dyn Store, batch: &mut Batch, rows: usize, before: bool) {
        let live = Liveness {
            before,
            after: true,
        };
        batch.clear();
        for _ in 0..rows {
            let object = std::mem::take(&mut self.object);
            batch.put(self.next(), &object, live).unwrap();
            self.object = object;
        }
        store.apply(batch).unwrap();
    }

    fn fill(&mut self, store: &mut dyn Store) {
        let mut batch = Batch::new();
        for _ in 0..KEYS / FILL {
            self.put(store, &mut batch, FILL, false);
        }
    }
}

#[divan::bench(args = [Backend::Memory, Backend::Disk])]
fn get(bencher: Bencher, backend: Backend) {
    let storage = Storage::new(backend);
    let (mut rows, mut store) = (Rows::new(), storage.open());
    rows.fill(store.as_mut());
    bencher.bench_local(|| store.get(rows.next()).unwrap().unwrap().len());
}

/// After a restart, when the rows have left the write buffer and the cache is too small for them.
#[divan::bench]
fn get_from_tables(bencher: Bencher) {
    let storage = Storage::new(Backend::Disk);
    let mut rows = Rows::new();
    rows.fill(storage.open().as_mut());
    storage.engine.close().unwrap();
    let folder = storage.folder.unwrap();
    drop(storage.engine);
    let settings = DiskSettings {
        object_cache_bytes: 1 << 20,
        ..DiskSettings::default()
    };
    let engine = Engine::disk(folder.path(), settings).unwrap();
    let mut store = engine.open("kv", 0).unwrap();
    bencher.bench_local(|| store.get(rows.next()).unwrap().unwrap().len());
}

#[divan::bench(args = [1, 16, 64])]
fn apply_memory(bencher: Bencher, batch: usize) {
    apply(bencher, Backend::Memory, batch);
}

#[divan::bench(args = [1, 16, 64])]
fn apply_disk(bencher: Bencher, batch: usize) {
    apply(bencher, Backend::Disk, batch);
}

fn apply(bencher: Bencher, backend: Backend, size: usize) {
    let storage = Storage::new(backend);
    let (mut rows, mut store) = (Rows::new(), storage.open());
    rows.fill(store.as_mut());
    let mut batch = Batch::new();
    bencher
        .counter(ItemsCount::new(size))
        .bench_local(|| rows.put(store.as_mut(), &mut batch, size, true));
}
