//! Handing over partitions.
//!
//! When all that a partition holds has been carried to its next owner, the present one writes down that it will offer it, has the
//! commands for it wait, carries the rest over, and offers the partition to the cluster. Once the map says that another node owns
//! it, the commands go there. If it cannot know whether the offer was taken, they wait until it can: it withdraws the offer, and
//! whatever of the two comes first in the log holds (`TransfersRenewed` against `HandedOver`).
//! What is offered is on disk before anybody can take it, so that a restart does not serve a partition that another node may own.

use std::collections::BTreeMap;
use std::time::Duration;

use vnode_ring::{ClusterMap, MapEvent, PartitionId};

use tokio::time::Instant;

use crate::cluster::{Cluster, ProposeError, Vnodes};
use crate::failpoint::failpoint;

/// After so long no more partitions are frozen for one offer: the first ones wait for it.
const FROZEN_MAX: Duration = Duration::from_millis(10);

impl Cluster {
    /// Has the commands wait for what was offered before this node ended, unless it is known that another node owns it by now.
    pub(crate) fn freeze_offered(&self, vnodes: &impl Vnodes) {
        let view = vnodes.view();
        for partition in self.offered().keys() {
            if view.ring().is_owner(&self.name, *partition) {
                vnodes.freeze(*partition);
            }
        }
    }

    fn offered(&self) -> BTreeMap<PartitionId, u64> {
        self.standing().now().offered.clone()
    }

    fn set_offered(&self, offered: BTreeMap<PartitionId, u64>) -> bool {
        let changed = self
            .standing()
            .change(|standing| standing.offered = offered);
        if let Err(error) = &changed {
            tracing::error!(%error, "offers of partitions cannot be kept");
        }
        changed.is_ok()
    }

    /// Hands over what this node owns, is to go elsewhere, and has been carried there.
    pub(crate) async fn hand_over(&self, map: &ClusterMap, vnodes: &impl Vnodes) {
        if !self.settle_offers(vnodes).await {
            return;
        }
        let view = vnodes.view();
        let transfers = map.transfers().iter();
        let carried = transfers.filter(|(partition, transfer)| {
            map.ring().is_owner(&self.name, **partition)
                && view.is_up(&transfer.to)
                && vnodes.is_carried(**partition, &transfer.to)
        });
        let carried: BTreeMap<PartitionId, u64> = carried
            .map(|(partition, transfer)| (*partition, transfer.attempt))
            .collect();
        // Before commands wait, since the disk may take its time: what is written down and not offered costs nothing.
        if carried.is_empty() || !self.set_offered(carried.clone()) {
            return;
        }
        failpoint("offer-kept");
        let mut offer = BTreeMap::new();
        let begun = Instant::now();
        for (partition, attempt) in carried {
            let Some(transfer) = map.transfers().get(&partition) else {
                continue;
            };
            vnodes.freeze(partition);
            failpoint("frozen");
            if vnodes.carry_rest(partition, &transfer.to).await {
                failpoint("rest-sent");
                offer.insert(partition, attempt);
            } else {
                vnodes.thaw(partition);
            }
            if begun.elapsed() > FROZEN_MAX {
                break;
            }
        }
        if offer.is_empty() {
            self.set_offered(offer);
            return;
        }
        let thaw = || offer.keys().for_each(|partition| vnodes.thaw(*partition));
        match self.propose(MapEvent::HandedOver(offer.clone())).await {
            // The new view, which comes with the map, opens what was frozen.
            Ok(epoch) => {
                failpoint("flip-agreed");
                self.wait_for_epoch(epoch).await;
                self.set_offered(BTreeMap::new());
            }
            Err(ProposeError::Refused(_) | ProposeError::NoClaimant) => {
                if self.set_offered(BTreeMap::new()) {
                    thaw();
                }
            }
            // The commands wait until it is known.
            Err(ProposeError::Unknown) => {}
        }
    }

    /// Finds out what became of offers whose outcome is not known. False: it still is not.
    async fn settle_offers(&self, vnodes: &impl Vnodes) -> bool {
        let offered = self.offered();
        if offered.is_empty() {
            return true;
        }
        match self
            .propose(MapEvent::TransfersRenewed(offered.clone()))
            .await
        {
            Ok(epoch) => {
                self.wait_for_epoch(epoch).await;
                if !self.set_offered(BTreeMap::new()) {
                    return false;
                }
                let map = self.map();
                let still_ours = |partition: &&PartitionId| {
                    map.as_ref()
                        .is_some_and(|map| map.ring().is_owner(&self.name, **partition))
                };
                for partition in offered.keys().filter(still_ours) {
                    vnodes.thaw(*partition);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Waits until this node knows that epoch.
    async fn wait_for_epoch(&self, epoch: u64) {
        let known = |map: &Option<std::sync::Arc<ClusterMap>>| {
            map.as_ref().is_some_and(|map| map.epoch() >= epoch)
        };
        // The sender is ours.
        let _ = self.maps.subscribe().wait_for(known).await;
    }
}
