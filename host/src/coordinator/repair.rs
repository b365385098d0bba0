//! Repair: a partition is filled again from the other replicas of its ranges, because an operator asks for it.
//!
//! Anti-entropy does the same in its turn; this does it now, for one partition, one neighbour after the other, within the limits of
//! transfers (riak's `riak_core_repair`). Nothing is taken away: what this replica holds beyond the others stays.

use std::sync::Arc;
use std::time::Duration;

use vnode_ring::{Holder, NodeName, PartitionId, View};

use super::Coordinator;
use super::asks::Ask;
use super::entropy::Pair;
use super::replicas::To;
use super::sending::Stop;
use super::transfers::{Amount, Kind, Phase, Which};
use crate::vnode::service::Service;

/// How often it is looked whether a repair that waits may go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time for another node to take a repair on.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// One replica of a range, of which this node may lack rows.
struct Source {
    service: Arc<Service>,
    range: PartitionId,
    holder: Holder,
    node: NodeName,
}

fn repair(partition: PartitionId) -> Which {
    Which {
        kind: Kind::Repair,
        partition,
        service: None,
    }
}

impl Coordinator {
    /// Has the owner of a partition fill it again. Returns the owner, which goes on by itself.
    ///
    /// # Errors
    /// Why it does not, in words for an operator.
    pub async fn repair(&self, partition: PartitionId) -> Result<NodeName, String> {
        let view = self.view();
        if !view.ring().size().contains(partition) {
            return Err(format!("there is no partition {partition} any more"));
        }
        let owner = view.ring().owner(partition).clone();
        if owner == *view.me() {
            self.repair_here(partition)?;
            return Ok(owner);
        }
        let deadline = tokio::time::Instant::now() + ASK_WITHIN;
        let ask = Ask::Repair(partition);
        match self.ask_node(&owner, &ask, deadline).await {
            Ok(answer) => answer.map(|()| owner),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Begins to fill a partition of this node.
    pub(super) fn repair_here(&self, partition: PartitionId) -> Result<(), String> {
        let view = self.view();
        let (which, me) = (repair(partition), view.me());
        if !view.ring().is_owner(me, partition) {
            return Err(format!(
                "partition {partition} belongs to another node by now; ask again"
            ));
        }
        if self.transfers().all().contains_key(&which) {
            return Err(format!("partition {partition} is being repaired"));
        }
        let sources = self.sources(partition);
        let Some(first) = sources.first() else {
            return Err(format!(
                "partition {partition} has no other replica that is up: there is nothing to repair it from"
            ));
        };
        // What it would be held up by it waits for.
        let parties = (&first.node, me);
        let begun = self
            .transfers()
            .begin(which, parties, 0, Amount::default(), self.steady_ms());
        drop(begun);
        self.transfers().rest(which);
        let Some(this) = self.me.upgrade() else {
            return Err("the node ends".into());
        };
        tokio::spawn(async move { this.see_through(which).await });
        Ok(())
    }

    async fn see_through(&self, which: Which) {
        let mine = |view: &View| view.ring().is_owner(view.me(), which.partition);
        while mine(&self.view()) {
            let due = self.transfers().is_due(which, self.steady_ms());
            if due {
                match self.try_to_repair(which).await {
                    Ok(()) => {
                        self.tell_of(which, "is over: it has what the others have");
                        self.transfers().finish(which);
                        return;
                    }
                    Err(stop) => self.stopped(which, stop),
                }
                self.transfers().rest(which);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.transfers().forget(which);
    }

    async fn try_to_repair(&self, which: Which) -> Result<(), Stop> {
        let sources = self.sources(which.partition);
        let view = self.view();
        let count = sources.len();
        for (done, source) in sources.into_iter().enumerate() {
            let parties = (&source.node, view.me());
            {
                let mut transfers = self.transfers();
                transfers
                    .begin(which, parties, 0, Amount::default(), self.steady_ms())
                    .map_err(Stop::Held)?;
                transfers.enter(which, Phase::Copying, self.steady_ms());
                transfers.share(which, done, count);
            }
            let pair = Pair {
                coordinator: self,
                service: &source.service,
                range: source.range,
                first: To::Holder(source.holder),
                other: To::Here(which.partition),
            };
            let amount = pair.push().await?;
            self.healing().exchanged(amount.objects);
            let wait = self
                .transfers()
                .moved(which, amount, None, self.steady_ms());
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// The other replicas of what a partition holds, as far as they are up.
    fn sources(&self, partition: PartitionId) -> Vec<Source> {
        let view = self.view();
        let mut sources = Vec::new();
        for service in self.services.iter().filter(|service| service.n() > 1) {
            for range in self.ranges_of(service, partition) {
                let others = view.holders(range, service.n()).iter();
                for holder in others.filter(|other| other.partition != partition) {
                    if let Some(node) = view.nodes().get(usize::from(holder.node)) {
                        sources.push(Source {
                            service: Arc::clone(service),
                            range,
                            holder: *holder,
                            node: node.clone(),
                        });
                    }
                }
            }
        }
        sources
    }
}
