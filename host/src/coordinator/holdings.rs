//! What the vnodes of a partition hold, here and on other nodes, for those who plan to move it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vnode_ring::{NodeName, PartitionId};

use super::distant::{Question, from_bytes, to_bytes};
use super::{Coordinator, join_all};

/// Time for a node to say what it holds. Whoever does not is left out.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// What the vnodes of one partition hold, all services together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Live objects.
    pub objects: u64,
    /// Bytes of keys and objects, tombstones included.
    pub bytes: u64,
}

/// What a node holds of what it owns.
pub type Holdings = BTreeMap<PartitionId, Holding>;

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
        let question = to_bytes(&Question::Holdings);
        let answer = self.cluster.ask_vnodes(node, question, deadline).await;
        from_bytes(&answer.ok()?).ok()
    }

    fn holdings_here(&self) -> Holdings {
        let view = self.view();
        let mine = view.ring().partitions_of(view.me());
        mine.map(|partition| (partition, self.holding(partition)))
            .collect()
    }

    fn holding(&self, partition: PartitionId) -> Holding {
        let mut all = Holding::default();
        for number in self.seats_of(partition) {
            if let Some(seat) = self.seats.lock(number) {
                let store = seat.figures().store;
                all.objects += store.live;
                all.bytes += store.bytes;
            }
        }
        all
    }

    /// Answers what another node asks of the vnodes here.
    pub(super) async fn answer_question(&self, question: &[u8]) -> Vec<u8> {
        match from_bytes(question) {
            Ok(Question::Page(asked)) => self.answer_page(asked).await,
            Ok(Question::Holdings) => to_bytes(&self.holdings_here()),
            Err(failure) => super::distant::encode(&Err(failure)),
        }
    }
}
