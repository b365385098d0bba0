//! How a run ends: when all is well everything is read, and what clients saw is judged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tests::checkers::History;
use tests::resp::Reply;
use tests::workload::commands::{End, keys};
use tokio::time::sleep;

use crate::client::Connection;
use crate::judge;
use crate::world::World;

/// From the heal until all replicas are equal.
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);
/// Time for everything to be read in the end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What one run was like.
pub(crate) struct Told {
    pub(crate) trace: Vec<String>,
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Ends a run. Replicas have to be equal in time from `healed` on.
///
/// # Panics
/// Says what was lost, done twice or never became equal.
pub(crate) fn end(mut world: World, healed: Duration) -> Told {
    world.stop_clients();
    let took = world.converge(healed, CONVERGE_WITHIN);
    world.note(&format!("converged in {took:?}"));
    let seed = world.seed;
    let history = world.run.recorder.history(format!("seed {seed}"));
    let end = read(&mut world, &history);
    let ledger = world.book.lock().unwrap().ledger();
    let verdicts = match judge::judge(&history, &end, &ledger) {
        Ok(verdicts) => verdicts,
        Err(why) => {
            let path = std::env::temp_dir().join(format!("history-sim-{seed}.jsonl"));
            history.save(&path).unwrap();
            panic!("seed {seed}: {why}\nthe history is in {}", path.display());
        }
    };
    let lost = world.rows_lost() as u64;
    let mut board = world.board();
    board
        .trace
        .extend(history.operations.iter().map(ToString::to_string));
    board.trace.extend(verdicts);
    board.add("operations", history.operations.len() as u64);
    let unknown = history.operations.iter().filter(|one| one.is_unknown());
    board.add("operations of unknown outcome", unknown.count() as u64);
    let ok = history.operations.iter().filter(|one| one.is_ok()).count();
    board.add("operations acknowledged", ok as u64);
    board.add("unsynced rows lost in crashes", lost);
    board.add("convergence ms", took.as_millis() as u64);
    Told {
        trace: std::mem::take(&mut board.trace),
        counts: std::mem::take(&mut board.counts),
    }
}

/// What clients read when all is well.
fn read(world: &mut World, history: &History) -> End {
    let end: Rc<RefCell<Option<End>>> = Rc::default();
    let (keys, read) = (keys(history), Rc::clone(&end));
    let door = world.door();
    world.start_reader(async move {
        let mut found = End::default();
        let mut connection = Connection::open(door).await?;
        for (service, key) in keys {
            let words = End::command(service, &key);
            let reply = loop {
                match connection.call(&words).await? {
                    // A link that was cut may take a moment more until it is used again.
                    Reply::Error(_) => sleep(Duration::from_millis(50)).await,
                    reply => break reply,
                }
            };
            found.take(service, &key, reply);
        }
        *read.borrow_mut() = Some(found);
        Ok(())
    });
    let read = Rc::clone(&end);
    world.until("all is read", END_WITHIN, |_| read.borrow().is_some());
    end.take().unwrap()
}
