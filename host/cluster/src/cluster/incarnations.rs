//! Under which incarnation a run of the node begins.

use super::{Cluster, ClusterError};

/// Incarnations that a millisecond has. A run begins with the first of its own, and takes further ones as it objects to being
/// called down: so many in a millisecond that it stays behind the clock. A later run then has a higher one also if all that the
/// node had written down is lost.
const PER_MS: u64 = 1 << 20;

impl Cluster {
    /// An incarnation for this run, higher than any that the node has had: from its wall clock, or more if that was set back.
    ///
    /// # Errors
    /// When it cannot be written down for the next run.
    pub fn next_incarnation(&self, now_ms: u64) -> Result<u64, ClusterError> {
        let mut standing = self.standing();
        let unused = standing.now().incarnation.saturating_add(PER_MS);
        let next = now_ms.saturating_mul(PER_MS).max(unused);
        standing.change(|standing| standing.incarnation = next)?;
        Ok(next)
    }
}
