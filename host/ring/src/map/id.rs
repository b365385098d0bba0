//! The name of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of a cluster: drawn when its first node starts, and never changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClusterId {
    type Err = NotClusterId;

    fn from_str(text: &str) -> Result<ClusterId, NotClusterId> {
        if text.len() != 32 {
            return Err(NotClusterId);
        }
        match u128::from_str_radix(text, 16) {
            Ok(number) => Ok(ClusterId(number.to_be_bytes())),
            Err(_) => Err(NotClusterId),
        }
    }
}

/// Not the name of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a cluster has 32 hexadecimal digits")]
pub struct NotClusterId;

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
