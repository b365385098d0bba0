//! What only the `disk` backend promises: names, durability, refusals, and what happens when the disk is full.

use super::*;
use std::fs;

fn open(path: &std::path::Path, durability: Durability) -> Engine {
    Engine::disk(path, tiny(durability)).unwrap()
}

#[test]
fn rows_names_and_counts_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Never);
    let mut store = engine.open("kv", 3).unwrap();
    for n in 0..500_u64 {
        put(&mut *store, n << 50, &n.to_be_bytes(), &[7; 100]);
    }
    let dot = store.next_dot().unwrap();
    let stats = store.stats();
    assert_eq!((stats.live, stats.bytes), (500, 500 * 108));
    engine.close().unwrap();
    let mut batch = Batch::new();
    batch.put(key(0, b"k"), b"v", ADDED).unwrap();
    assert!(matches!(store.apply(&batch), Err(StoreError::Closed)));
    drop((engine, store));

    let engine = open(directory.path(), Durability::Never);
    assert_eq!(engine.partitions(), [("kv".to_owned(), 3)]);
    let mut store = engine.open("kv", 3).unwrap();
    assert_eq!(store.stats(), stats);
    assert_eq!(
        store.get(key(9 << 50, &9_u64.to_be_bytes())).unwrap(),
        Some([7; 100].as_slice())
    );
    let later = store.next_dot().unwrap();
    assert_eq!(later.actor, dot.actor);
    assert!(later.seq > dot.seq);
}

#[test]
fn a_partition_has_one_store_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Never);
    let store = engine.open("kv", 3).unwrap();
    assert!(matches!(
        engine.open("kv", 3),
        Err(StoreError::AlreadyOpen { partition: 3, .. })
    ));
    assert!(engine.open_all(&[("kv", 4), ("kv", 3)]).is_err());
    assert!(engine.forget("kv", 3).is_err());
    drop(store);
    engine.open_all(&[("kv", 4), ("kv", 3)]).unwrap();
}

#[test]
fn a_dropped_partition_comes_back_empty_under_another_actor() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Never);
    let mut stores = engine.open_all(&[("kv", 3), ("kv", 4)]).unwrap();
    for n in 0..300_u64 {
        put(&mut *stores[0], n, b"k", &[7; 100]);
        put(&mut *stores[1], n, b"k", &[8; 100]);
    }
    let mut neighbour = stores.pop().unwrap();
    let mut store = stores.pop().unwrap();
    let actor = store.next_dot().unwrap().actor;
    while store.drop_rows(50).unwrap() == Page::More {}
    drop(store);
    engine.forget("kv", 3).unwrap();
    assert_eq!(engine.partitions(), [("kv".to_owned(), 4)]);
    let mut store = engine.open("kv", 3).unwrap();
    assert_ne!(store.next_dot().unwrap().actor, actor);
    assert_eq!(store.stats(), Stats::default());
    assert!(read_all(&mut *store, 10).unwrap().is_empty());
    assert_eq!(read_all(&mut *neighbour, 10).unwrap().len(), 300);
}

#[test]
fn a_row_after_many_flushes_does_not_start_another() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(
        directory.path(),
        Durability::Interval(Duration::from_millis(20)),
    );
    let mut store = engine.open("kv", 3).unwrap();
    let segments = || -> Vec<String> {
        let files = fs::read_dir(directory.path().join("journal")).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    for n in 0..2000_u64 {
        let commit = put(&mut *store, n, b"k", &[7; 100]);
        if n % 100 == 0 {
            wait_durable(&engine, commit);
        }
    }
    eventually("the last flush is over", || segments().len() == 1);
    let before = segments();
    for n in 0..20_u64 {
        let commit = put(&mut *store, n, b"k", &[8; 100]);
        wait_durable(&engine, commit);
    }
    let number = |names: &[String]| -> u64 {
        let number = |name: &String| name.trim_end_matches(".log").parse().unwrap();
        names.iter().map(number).max().unwrap()
    };
    let flushes = number(&segments()) - number(&before);
    assert!(flushes <= 2, "{flushes} flushes of 20 rows");
    // Also of what is on disk: a count that went below nothing would be more than any disk holds.
    assert!(engine.disk_bytes() < 1 << 30, "{}", engine.disk_bytes());
}

#[test]
fn only_always_makes_acknowledgements_wait() {
    for (durability, waits) in [
        (Durability::Always, true),
        (Durability::Interval(Duration::from_millis(5)), false),
        (Durability::Never, false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), durability);
        let mut store = engine.open("kv", 0).unwrap();
        let commit = put(&mut *store, 1, b"k", b"v");
        assert!(waits || !engine.must_wait(commit));
        if durability == Durability::Never {
            engine.close().unwrap();
        } else {
            wait_durable(&engine, commit);
        }
        assert!(!engine.must_wait(commit));
    }
    let engine = Engine::memory();
    let commit = put(&mut *engine.open("kv", 0).unwrap(), 1, b"k", b"v");
    assert!(!engine.must_wait(commit));
}

#[test]
fn a_disk_that_refuses_stops_writes_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(
        directory.path(),
        Durability::Interval(Duration::from_millis(1)),
    );
    let mut store = engine.open("kv", 0).unwrap();
    put(&mut *store, 1, b"k", b"v");
    // The next segment cannot be started: every write to this device says that the disk is full.
    let segment = directory.path().join("journal/0000000000000002.log");
    std::os::unix::fs::symlink("/dev/full", &segment).unwrap();
    let mut batch = Batch::new();
    let mut taken = 0_u64;
    let refused = loop {
        batch.clear();
        batch.put(key(taken, b"k"), &[1; 1000], ADDED).unwrap();
        match store.apply(&batch) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    assert!(
        refused.to_string().contains("No space left on device"),
        "{refused}"
    );
    assert!(refused.to_string().contains("journal"), "{refused}");
    assert!(matches!(engine.health(), Health::ReadOnly { .. }));
    assert!(!engine.durable().borrow().healthy);
    assert_eq!(store.get(key(0, b"k")).unwrap(), Some([1; 1000].as_slice()));

    fs::remove_file(&segment).unwrap();
    eventually("writes are taken again", || store.apply(&batch).is_ok());
    engine.close().unwrap();
    drop((engine, store));
    let engine = open(directory.path(), Durability::Never);
    assert_eq!(
        read_all(&mut *engine.open("kv", 0).unwrap(), 100)
            .unwrap()
            .len() as u64,
        taken + 1
    );
}

#[test]
fn missing_parts_are_noticed() {
    for part in ["catalog.toml", "journal", "tables"] {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), Durability::Never);
        put(&mut *engine.open("kv", 0).unwrap(), 1, b"k", b"v");
        engine.close().unwrap();
        drop(engine);
        let path = directory.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        // Refusing leaves nothing behind that would pass the next time.
        for _ in 0..2 {
            let refused = Engine::disk(directory.path(), tiny(Durability::Never));
            assert!(
                matches!(&refused, Err(StoreError::Corrupt { path, .. }) if path.ends_with(part)),
                "{part}: {refused:?}"
            );
        }
    }
}

#[test]
fn stores_may_be_used_from_several_threads() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(
        directory.path(),
        Durability::Interval(Duration::from_millis(1)),
    );
    std::thread::scope(|scope| {
        for partition in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                let mut store = engine.open("kv", partition).unwrap();
                for n in 0..2000_u64 {
                    put(&mut *store, n % 97, &[1], &n.to_be_bytes());
                    assert_eq!(
                        store.get(key(n % 97, &[1])).unwrap(),
                        Some(n.to_be_bytes().as_slice())
                    );
                }
                assert_eq!(read_all(&mut *store, 10).unwrap().len(), 97);
            });
        }
    });
    engine.close().unwrap();
    assert_eq!(engine.health(), Health::Good);
}
