//! What the vnodes of a partition hold, here and on other nodes, for those who plan to move it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vnode_ring::{NodeName, PartitionId};

use super::asks::{Ask, from_bytes, to_bytes};
use super::transfers::Amount;
use super::{Coordinator, join_all};

/// Time for a node to say what it holds. Whoever does not is left out.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// What a node holds of what it owns.
pub type Holdings = BTreeMap<PartitionId, Amount>;

impl Coordinator {
    /// What these nodes hold of the partitions that they own, as they say themselves. One that does not answer is missing.
    pub async fn holdings(&self, nodes: &BTreeSet<NodeName>) -> BTreeMap<NodeName, Holdings> {
        let mut asked = Vec::new();
        for node in nodes {
            asked.push(self.holdings_of(node));
        }
        let said = nodes.iter().cloned().zip(join_all(asked).await);
        said.filter_map(|(node, said)| Some((node, said?)))
            .collect()
    }

    async fn holdings_of(&self, node: &NodeName) -> Option<Holdings> {
        if node == self.view().me() {
            return Some(self.holdings_here());
        }
        let deadline = tokio::time::Instant::now() + SAY_WITHIN;
        let question = to_bytes(&Ask::Holdings);
        let answer = self.cluster.ask_vnodes(node, question, deadline).await;
        from_bytes(&answer.ok()?).ok()
    }

    pub(super) fn holdings_here(&self) -> Holdings {
        let view = self.view();
        let mine = view.ring().partitions_of(view.me());
        mine.map(|partition| (partition, self.held(partition)))
            .collect()
    }
}
