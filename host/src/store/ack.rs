//! When a write may be acknowledged.
//!
//! Under `always` an acknowledgement waits until its commit is on disk; under every other durability it does not wait.

use super::{Commit, Durable};
use tokio::sync::watch;

/// Follows the disk for those who hold acknowledgements back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acknowledge {
    progress: Option<watch::Receiver<Durable>>,
    /// The same for acknowledgements that wait for the disk whatever the durability is; none where nothing is ever synced.
    disk: Option<watch::Receiver<Durable>>,
}

/// What may be said of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be acknowledged.
    Now,
    /// Not yet.
    Wait,
    /// The disk failed before it got there: it may be lost.
    Failed,
}

impl Acknowledge {
    /// Each acknowledgement waits until `disk` has reached its commit.
    pub fn following(disk: watch::Receiver<Durable>) -> Self {
        Self::new(Some(disk.clone()), Some(disk))
    }

    /// Acknowledgements that wait for this progress, and those that wait for the disk in any case; none never wait.
    pub(super) fn new(
        progress: Option<watch::Receiver<Durable>>,
        disk: Option<watch::Receiver<Durable>>,
    ) -> Self {
        Self { progress, disk }
    }

    /// What may be said of a commit at this moment.
    pub fn verdict(&self, commit: Commit) -> Verdict {
        Self::judge(self.progress.as_ref(), commit)
    }

    /// The same for somebody who wants to hear when it is on disk, if `on_disk`.
    pub fn verdict_for(&self, commit: Commit, on_disk: bool) -> Verdict {
        match on_disk {
            true => Self::judge(self.disk.as_ref(), commit),
            false => self.verdict(commit),
        }
    }

    fn judge(progress: Option<&watch::Receiver<Durable>>, commit: Commit) -> Verdict {
        let Some(progress) = progress else {
            return Verdict::Now;
        };
        let now = *progress.borrow();
        if commit <= now.commit {
            Verdict::Now
        } else if now.healthy {
            Verdict::Wait
        } else {
            Verdict::Failed
        }
    }

    /// Waits until some verdict may have changed; for ever when none does.
    pub async fn changed(&mut self) {
        let gone = match &mut self.progress {
            Some(progress) => progress.changed().await.is_err(),
            None => true,
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until more is on disk; for ever when nothing is ever synced.
    pub async fn disk_changed(&mut self) {
        let gone = match &mut self.disk {
            Some(disk) => disk.changed().await.is_err(),
            None => true,
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a commit; false when the disk failed before it got there.
    pub async fn wait_for(&mut self, commit: Commit) -> bool {
        loop {
            match self.verdict(commit) {
                Verdict::Now => return true,
                Verdict::Failed => return false,
                Verdict::Wait => self.changed().await,
            }
        }
    }
}
