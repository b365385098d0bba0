//! An executor's own task: what it waits for, and when it makes passes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use vnode_cluster::Greeter;

use super::inbox::Inbox;
use super::{Arrival, Executor, client, inbound, outbound};

/// Before a thread sleeps it lets others run so many times: a client on the same core often sends just then, and nobody
/// has to wake anybody. (Seen: a tenth more commands per second with 50 clients that wait for each reply.)
const YIELDS: u32 = 3;
/// How often an executor looks for commands that have waited for another node for too long, while any waits.
const OVERDUE_EVERY: Duration = Duration::from_millis(100);

/// Gives this core to whoever else is ready, then looks at the sockets again.
async fn let_others_run() {
    std::thread::yield_now();
    tokio::task::yield_now().await;
}

/// The executor's own task: waits for something to do, then makes passes until nothing is due.
pub(super) async fn drive(
    executor: Rc<RefCell<Executor>>,
    inbox: Arc<Inbox>,
    greeter: Arc<Greeter>,
) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut overdue = tokio::time::interval(OVERDUE_EVERY);
    // It is looked at only while something waits: what was missed before is not made up for.
    overdue.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acknowledge = executor.borrow().acknowledge.clone();
    let mut disk = acknowledge.clone();
    let mut views = executor.borrow().views.clone();
    let mut connect = Vec::new();
    let mut yields = 0;
    loop {
        let waits_for_others = executor.borrow().waits_for_others();
        let waits_for_disk = !executor.borrow().parked.is_empty();
        tokio::select! {
            biased;
            () = inbox.woken() => yields = YIELDS,
            () = let_others_run(), if yields > 0 => {
                yields -= 1;
                continue;
            }
            () = acknowledge.changed() => {}
            () = disk.disk_changed(), if waits_for_disk => {}
            // The coordinator lives as long as its executors.
            _ = views.changed() => {}
            _ = overdue.tick(), if waits_for_others => executor.borrow_mut().refuse_overdue(),
            _ = second.tick() => executor.borrow_mut().connections.check_timeouts(),
        }
        loop {
            executor.borrow_mut().receive(&inbox, &mut connect);
            for arrival in connect.drain(..) {
                match arrival {
                    Arrival::Client(stream) => client::accept(&executor, &inbox, stream),
                    Arrival::Moved(moving) => client::start(&executor, &inbox, *moving),
                    Arrival::Peer(node, stream) => inbound::accept(&executor, &inbox, node, stream),
                }
            }
            executor.borrow_mut().pass();
            let wanted = executor.borrow_mut().outbound.wanted();
            for link in wanted {
                outbound::start(&executor, &inbox, &greeter, link);
            }
            if executor.borrow().is_through() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut now = executor.borrow_mut();
        if now.draining.is_some()
            && now.idle()
            && let Some(done) = now.draining.take()
        {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
        if now.ended {
            now.terminate();
            now.connections.close_all();
            now.inbound.close_all();
            now.outbound.close_all();
            inbox.connections.store(0, Ordering::Relaxed);
            return;
        }
    }
}
