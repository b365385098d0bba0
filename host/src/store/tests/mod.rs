//! Tests of the store as its callers see it. Those of one layer stand beside the layer.

mod crash;
mod damage;
mod disk;
mod model;

use super::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows as a test expects them.
type Model = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

const ADDED: Liveness = Liveness {
    before: false,
    after: true,
};

/// Buffers so small that a few hundred rows go through every layer.
fn tiny(durability: Durability) -> DiskSettings {
    DiskSettings {
        durability,
        object_cache_bytes: 16 * 1024,
        block_cache_bytes: 64 * 1024,
        write_buffer_bytes: 16 * 1024,
        journal_bytes: 64 * 1024,
    }
}

fn key(hash: u64, key: &[u8]) -> RowKey<'_> {
    RowKey { hash, key }
}

fn put(store: &mut dyn Store, hash: u64, name: &[u8], object: &[u8]) -> Commit {
    let mut batch = Batch::new();
    batch.put(key(hash, name), object, ADDED).unwrap();
    store.apply(&batch).unwrap()
}

/// Everything a store has, read page by page.
fn read_all(store: &mut dyn Store, max_rows: usize) -> Result<Model, StoreError> {
    let mut rows = Model::new();
    let mut last: Option<(u64, Vec<u8>)> = None;
    loop {
        let from = match &last {
            None => Bound::Unbounded,
            Some((hash, name)) => Bound::Excluded(key(*hash, name)),
        };
        let scan = Scan {
            from,
            to_hash: u64::MAX,
            max_rows,
            max_bytes: usize::MAX,
        };
        let mut next = None;
        let page = store.scan(&scan, &mut |row, object| {
            next = Some((row.hash, row.key.to_vec()));
            rows.insert((row.hash, row.key.to_vec()), object.to_vec());
            ControlFlow::Continue(())
        })?;
        if page == Page::Last {
            return Ok(rows);
        }
        last = next;
    }
}

/// Waits for a condition that another thread brings about.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_durable(engine: &Engine, commit: Commit) {
    let durable = engine.durable();
    eventually("the commit is durable", || {
        durable.borrow().commit >= commit
    });
}
