//! What operators say of transfers for the whole cluster, on top of the settings of each node.

use serde::{Deserialize, Serialize};

/// Limits of transfers. What is `None` is left to whoever else says something: the node's operator, then the cluster's, then
/// the node's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLimits {
    /// Transfers that a node sends at once.
    #[serde(rename = "out")]
    pub out_max: Option<u16>,
    /// Transfers that a node receives at once.
    #[serde(rename = "in")]
    pub in_max: Option<u16>,
    /// Bytes that a node sends in a second; 0 is as many as it can.
    pub bytes_per_second: Option<u64>,
    /// Whether nothing moves for now.
    pub paused: bool,
}

impl TransferLimits {
    /// These, and where they say nothing, what `others` say. Who pauses one of the two pauses both.
    #[must_use]
    pub fn or(self, others: TransferLimits) -> TransferLimits {
        TransferLimits {
            out_max: self.out_max.or(others.out_max),
            in_max: self.in_max.or(others.in_max),
            bytes_per_second: self.bytes_per_second.or(others.bytes_per_second),
            paused: self.paused || others.paused,
        }
    }
}
