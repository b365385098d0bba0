//! Flipped bits, cut files: an error or the right bytes, never others, and never the end of the process.

use super::*;
use crate::store::catalog::Place;
use crate::store::journal::{Head, RECORD_HEAD, SEGMENT_HEAD};
use crate::store::sealed::checksum;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows in tables and in the journal, as a crash leaves them; gives the model.
fn image(path: &Path) -> Model {
    let engine = Engine::disk(path, tiny(Durability::Always)).unwrap();
    let mut store = engine.open("kv", 5).unwrap();
    let mut model = Model::new();
    let mut batch = Batch::new();
    for n in 0..150_u64 {
        batch.clear();
        for part in 0..3 {
            let object = vec![part; 40 + (n % 50) as usize];
            batch.put(key(n % 60, &[part]), &object, ADDED).unwrap();
            model.insert((n % 60, vec![part]), object);
        }
        store.apply(&batch).unwrap();
        if n == 100 {
            engine.close().unwrap();
            return image_of_the_rest(path, (engine, store), model);
        }
    }
    model
}

/// Goes on after a close, and ends without one.
fn image_of_the_rest(path: &Path, closed: (Engine, Box<dyn Store>), mut model: Model) -> Model {
    drop(closed);
    let engine = Engine::disk(path, tiny(Durability::Always)).unwrap();
    let mut store = engine.open("kv", 5).unwrap();
    for n in 0..20_u64 {
        put(&mut *store, n, b"late", b"late");
        model.insert((n, b"late".to_vec()), b"late".to_vec());
    }
    wait_durable(&engine, put(&mut *store, 20, b"late", b"late"));
    model.insert((20, b"late".to_vec()), b"late".to_vec());
    // The journal is quiet, so it notes what is durable; then the files are taken as they are.
    let copy = path.with_extension("copy");
    eventually("the journal says what is durable", || {
        std::thread::sleep(Duration::from_millis(150));
        let _ = fs::remove_dir_all(&copy);
        copy_all(path, &copy);
        let segments: Vec<_> = files(&copy.join("journal"));
        segments.iter().any(|segment| {
            let bytes = fs::read(segment).unwrap();
            bytes.windows(4).any(|window| window == [u8::MAX; 4])
        })
    });
    drop((engine, store));
    fs::remove_dir_all(path).unwrap();
    fs::rename(&copy, path).unwrap();
    model
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Reads everything there is in every way; true when it is all there.
fn check(path: &Path, model: &Model) -> bool {
    let Ok(engine) = Engine::disk(path, tiny(Durability::Never)) else {
        return false;
    };
    let Ok(mut store) = engine.open("kv", 5) else {
        return false;
    };
    let mut whole = true;
    for ((hash, name), object) in model {
        match store.get(key(*hash, name)) {
            Ok(Some(found)) => assert_eq!(found, object),
            Ok(None) => panic!("row {hash} {name:?} is gone without an error"),
            Err(_) => whole = false,
        }
    }
    match read_all(&mut *store, 17) {
        Ok(found) => assert_eq!(&found, model),
        Err(_) => whole = false,
    }
    whole
}

#[test]
fn flipped_bits_never_give_other_rows() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good");
    let model = image(&good);
    assert!(
        check_copy(directory.path(), &good, None, &model),
        "the image itself is fine"
    );
    let mut noticed = 0;
    let mut tried = 0;
    for file in files(&good) {
        let len = fs::metadata(&file).unwrap().len();
        let step = (len / 24).max(1);
        for at in (0..len).step_by(usize::try_from(step).unwrap()) {
            tried += 1;
            let damage = Damage {
                file: file.strip_prefix(&good).unwrap().to_owned(),
                at,
                bit: (at % 8) as u8,
            };
            if !check_copy(directory.path(), &good, Some(&damage), &model) {
                noticed += 1;
            }
        }
    }
    assert!(noticed > 20, "{noticed} of {tried}");
}

#[derive(Debug)]
struct Damage {
    file: PathBuf,
    at: u64,
    bit: u8,
}

fn check_copy(directory: &Path, good: &Path, damage: Option<&Damage>, model: &Model) -> bool {
    let bad = directory.join("bad");
    let _ = fs::remove_dir_all(&bad);
    copy_all(good, &bad);
    if let Some(damage) = damage {
        let file = bad.join(&damage.file);
        let mut bytes = fs::read(&file).unwrap();
        bytes[usize::try_from(damage.at).unwrap()] ^= 1 << damage.bit;
        fs::write(&file, bytes).unwrap();
    }
    let whole = std::panic::catch_unwind(|| check(&bad, model));
    whole.unwrap_or_else(|_| panic!("wrong after {damage:?}"))
}

#[test]
fn a_torn_tail_costs_whole_batches_from_the_end_only() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good");
    let engine = Engine::disk(
        &good,
        DiskSettings {
            durability: Durability::Always,
            ..DiskSettings::default()
        },
    )
    .unwrap();
    let mut store = engine.open("kv", 5).unwrap();
    let mut batch = Batch::new();
    let mut ends = Vec::new();
    let mut end = SEGMENT_HEAD;
    for n in 0..12_u8 {
        batch.clear();
        for part in 0..3_u8 {
            batch
                .put(key(n.into(), &[part]), &[n + 1; 30], ADDED)
                .unwrap();
        }
        end += RECORD_HEAD + 3 * (15 + 1 + 30);
        ends.push(end);
        let commit = store.apply(&batch).unwrap();
        wait_durable(&engine, commit);
    }
    let bad = directory.path().join("bad");
    copy_all(&good, &bad);
    let segment = bad.join("journal/0000000000000001.log");
    let bytes = fs::read(&segment).unwrap();
    for cut in (SEGMENT_HEAD..end).step_by(41).chain([end]) {
        let _ = fs::remove_dir_all(&bad);
        copy_all(&good, &bad);
        // Half the time the tail is missing, half the time it is zeros.
        let mut torn = bytes[..cut].to_vec();
        if cut % 2 == 0 {
            torn.resize(cut + 500, 0);
        }
        fs::write(&segment, torn).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        for _ in 0..2 {
            let engine = Engine::disk(&bad, tiny(Durability::Never)).unwrap();
            let rows = read_all(&mut *engine.open("kv", 5).unwrap(), 10).unwrap();
            assert_eq!(rows.len(), whole * 3, "cut at {cut}");
        }
    }
}

/// A client stores what looks like a record that was made after everything was safe. Cut off behind it, it must not pass
/// for one.
#[test]
fn a_value_does_not_pass_for_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (
        directory.path().join("data"),
        directory.path().join("crashed"),
    );
    let forged = Head {
        len: 0,
        commit: 3,
        durable: u64::MAX,
        place: Place {
            service: 0,
            partition: 5,
        },
    };
    let mut object = vec![7; 100];
    object.extend(forged.encode(0, checksum(0, &[])));
    object.extend([7; 100]);
    {
        let engine = Engine::disk(&path, tiny(Durability::Always)).unwrap();
        let mut store = engine.open("kv", 5).unwrap();
        for (n, object) in [(1, &[1; 30][..]), (2, &object)] {
            let mut batch = Batch::new();
            batch.put(key(n, b"k"), object, ADDED).unwrap();
            let commit = store.apply(&batch).unwrap();
            wait_durable(&engine, commit);
        }
        copy_all(&path, &crashed);
    }
    let segment = crashed.join("journal/0000000000000001.log");
    let bytes = fs::read(&segment).unwrap();
    let torn = bytes
        .windows(RECORD_HEAD)
        .position(|window| window == &object[100..100 + RECORD_HEAD])
        .unwrap();
    // As a crash leaves it: the end of the record is not there.
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len((torn + RECORD_HEAD + 10) as u64).unwrap();
    let engine = Engine::disk(&crashed, tiny(Durability::Always)).unwrap();
    let rows = read_all(&mut *engine.open("kv", 5).unwrap(), 10).unwrap();
    assert_eq!(rows.len(), 1);
}
