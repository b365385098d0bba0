//! What the log does after a crash or with a damaged file, and that it is the same log after each reopening.

use crate::raft::frames::FrameError;
use crate::raft::log::{Content, LOG_FILE, Log, LogError};
use crate::raft::{Entry, LogId, Vote};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::tempdir;
use vnode_ring::MapEvent;

const MARK_BYTES: usize = 16;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    let node = format!("entry-{index}-of-term-{term}").parse().unwrap();
    let event = MapEvent::MarkedDown(node);
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(event),
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// All that the log holds, as bytes.
fn content(log: &Log) -> Vec<u8> {
    log.content().encoded().unwrap()
}

/// A log with every kind of record, and what it held at each length of its file.
fn written(directory: &Path) -> Vec<(usize, Vec<u8>)> {
    let path = directory.join(LOG_FILE);
    let mut log = Log::create(directory).unwrap();
    wait(log.blocking_append((0..5).map(|index| entry(1, index)))).unwrap();
    wait(log.truncate(id(1, 3))).unwrap();
    wait(log.purge(id(1, 0))).unwrap();
    let mut held = vec![(fs::read(&path).unwrap().len(), content(&log))];
    for step in 0..4 {
        match step {
            0 => wait(log.save_vote(&Vote::new(2, 1))).unwrap(),
            1 => wait(log.blocking_append([entry(2, 3), entry(2, 4)])).unwrap(),
            2 => wait(log.save_committed(Some(id(2, 4)))).unwrap(),
            _ => wait(log.blocking_append([entry(2, 5)])).unwrap(),
        }
        held.push((fs::read(&path).unwrap().len(), content(&log)));
    }
    held
}

#[test]
fn a_file_that_ends_anywhere_holds_what_was_complete_by_then() {
    let directory = tempdir().unwrap();
    let held = written(directory.path());
    let path = directory.path().join(LOG_FILE);
    let whole = fs::read(&path).unwrap();
    for len in 0..=whole.len() {
        for tail in [&[][..], &[0; 7], &[0; 40], b"\xf5FRM\xff\0\0\0"] {
            let bytes = [&whole[..len], tail].concat();
            fs::write(&path, &bytes).unwrap();
            // The tail may happen to begin with what was cut off.
            let len = whole
                .iter()
                .zip(&bytes)
                .take_while(|(one, other)| one == other)
                .count();
            let complete = |(end, _): &&(usize, Vec<u8>)| end - MARK_BYTES <= len;
            let expected = held.iter().rev().find(complete);
            match (Log::open(directory.path()), expected) {
                (Ok(Some(mut log)), Some((_, expected))) => {
                    assert_eq!(content(&log), *expected, "{len} bytes");
                    wait(log.save_vote(&Vote::new(9, 1))).unwrap();
                    let again = Log::open(directory.path()).unwrap().unwrap();
                    assert_eq!(content(&again), content(&log), "{len} bytes, then a vote");
                }
                (Err(LogError::Frames(FrameError::Damaged { .. })), None) => {}
                (other, _) => panic!("{len} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_loses_nothing() {
    let directory = tempdir().unwrap();
    let held = written(directory.path());
    let path = directory.path().join(LOG_FILE);
    let whole = fs::read(&path).unwrap();
    let in_mark = |at: usize| {
        let mark = |(end, _): &(usize, Vec<u8>)| (end - MARK_BYTES..*end).contains(&at);
        held.iter().any(mark)
    };
    let expected = &held.last().unwrap().1;
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        match Log::open(directory.path()) {
            Ok(Some(log)) => {
                assert_eq!(content(&log), *expected, "bit {at}");
                assert!(in_mark(at / 8), "bit {at} is not in a mark");
            }
            Err(LogError::Frames(FrameError::Damaged {
                path: named,
                offset,
                ..
            })) => {
                assert_eq!(named, path);
                assert!(offset <= at / 8, "bit {at} reported at byte {offset}");
                assert_eq!(
                    fs::read(&path).unwrap(),
                    bytes,
                    "a damaged file is left as it is"
                );
            }
            other => panic!("bit {at}: {other:?}"),
        }
    }
}

#[test]
fn any_byte_of_a_frame_may_be_wrong_and_the_same_holds() {
    let directory = tempdir().unwrap();
    let held = written(directory.path());
    let path = directory.path().join(LOG_FILE);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for to in [0, 0xff, whole[at].wrapping_add(1)] {
            let mut bytes = whole.clone();
            bytes[at] = to;
            fs::write(&path, &bytes).unwrap();
            if let Ok(Some(log)) = Log::open(directory.path()) {
                assert_eq!(content(&log), held.last().unwrap().1, "byte {at}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    /// Removes one more than this many at the end.
    Truncate(usize),
    /// Removes one more than this many at the front.
    Purge(usize),
    Vote,
    /// This many before the end.
    Commit(usize),
    Reopen,
    /// A crash in the middle of an append, which leaves such bytes.
    Tear(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..6).prop_map(Step::Append),
        1 => (0_usize..4).prop_map(Step::Truncate),
        1 => (0_usize..4).prop_map(Step::Purge),
        1 => Just(Step::Vote),
        2 => (0_usize..3).prop_map(Step::Commit),
        2 => Just(Step::Reopen),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::Tear),
    ]
}

/// Does one step to the log and the same to a model of it.
fn take(step: Step, term: u64, directory: &Path, log: &mut Log, model: &mut Content) {
    let next = model.last().map_or(0, |id| id.index + 1);
    match step {
        Step::Append(count) => {
            let entries = (next..next + count).map(|index| entry(term, index));
            model
                .entries
                .extend(entries.clone().map(|entry| (entry.log_id.index, entry)));
            wait(log.blocking_append(entries)).unwrap();
        }
        Step::Truncate(count) => {
            let from = model.entries.keys().rev().nth(count).copied();
            if let Some(from) = from {
                let removed = model.entries.split_off(&from);
                wait(log.truncate(removed[&from].log_id)).unwrap();
            }
        }
        Step::Purge(count) => {
            let upto = model.entries.values().nth(count).map(|entry| entry.log_id);
            if let Some(upto) = upto {
                model.entries = model.entries.split_off(&(upto.index + 1));
                model.purged = Some(upto);
                wait(log.purge(upto)).unwrap();
            }
        }
        Step::Vote => {
            model.vote = Some(Vote::new(term, 2));
            wait(log.save_vote(&Vote::new(term, 2))).unwrap();
        }
        Step::Commit(back) => {
            let entry = model.entries.values().rev().nth(back);
            model.committed = entry.map(|entry| entry.log_id);
            wait(log.save_committed(model.committed)).unwrap();
        }
        Step::Reopen => *log = Log::open(directory).unwrap().unwrap(),
        Step::Tear(tail) => {
            let path = directory.join(LOG_FILE);
            let torn = [fs::read(&path).unwrap(), tail].concat();
            fs::write(&path, torn).unwrap();
            *log = Log::open(directory).unwrap().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_log_is_what_was_done_to_it(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempdir().unwrap();
        let mut log = Log::create(directory.path()).unwrap();
        let mut model = Content::default();
        for (term, step) in (1..).zip(steps) {
            take(step, term, directory.path(), &mut log, &mut model);
            prop_assert_eq!(content(&log), model.encoded().unwrap());
            let state = wait(log.get_log_state()).unwrap();
            prop_assert_eq!(state.last_log_id, model.last());
            prop_assert_eq!(state.last_purged_log_id, model.purged);
            let all = wait(log.try_get_log_entries(..)).unwrap();
            prop_assert_eq!(all.len(), model.entries.len());
        }
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "a caller may compute one")]
fn ranges_may_be_empty_or_turned_around() {
    let directory = tempdir().unwrap();
    let mut log = Log::create(directory.path()).unwrap();
    wait(log.blocking_append((0..5).map(|index| entry(1, index)))).unwrap();
    let mut count =
        |range: std::ops::Range<u64>| wait(log.try_get_log_entries(range)).unwrap().len();
    assert_eq!(
        (count(3..3), count(4..2), count(0..0), count(1..9)),
        (0, 0, 0, 4)
    );
}

#[test]
fn entries_cannot_leave_a_gap() {
    let directory = tempdir().unwrap();
    let mut log = Log::create(directory.path()).unwrap();
    wait(log.blocking_append([entry(1, 0)])).unwrap();
    assert!(wait(log.blocking_append([entry(1, 2)])).is_err());
    let log = Log::open(directory.path()).unwrap().unwrap();
    assert_eq!(wait(log.clone().try_get_log_entries(..)).unwrap().len(), 1);
}
