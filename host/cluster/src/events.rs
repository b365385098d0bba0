//! The feed of what happens to the cluster as this node sees it: members, plans, transfers.
//!
//! The last events are kept, so that whoever looks a little late sees how things came about.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

/// Events that are kept.
const KEPT_MAX: usize = 1000;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number; grows by one.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// `member`, `plan`, `transfer` or `claimant`.
    pub kind: &'static str,
    /// What, for people.
    pub text: String,
    /// The node that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The epoch of the map after it.
    pub epoch: u64,
}

/// Events, oldest first.
pub struct Feed {
    kept: Mutex<VecDeque<Arc<Event>>>,
    last: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }
}

impl Feed {
    /// Adds one.
    pub fn add(&self, kind: &'static str, node: Option<&str>, epoch: u64, text: String) {
        tracing::info!(kind, epoch, "{text}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.last.borrow() + 1;
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Event {
            id,
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind,
            text,
            node: node.map(str::to_owned),
            epoch,
        }));
        self.last.send_replace(id);
    }

    /// Those that are kept and newer than the one of that number.
    pub fn since(&self, id: u64) -> Vec<Arc<Event>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|event| event.id > id).cloned().collect()
    }

    /// Changes with each event, to its number.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}
