//! Threads without which a node only looks alive.

/// Held by such a thread. When it panics the process ends at once: what was acknowledged is on disk, clients go to other
/// nodes, and whoever watches the process starts it again.
#[derive(Debug)]
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                thread = self.0,
                "a thread that the node needs has panicked; the node ends"
            );
            std::process::abort();
        }
    }
}
