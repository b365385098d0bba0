//! Stored values and the schemas of versions that migrate: whether a version can take over what a vnode holds, and bringing what is
//! stored into the schema of a version that is final.
//!
//! Both read the rows in pages between the vnode's commands, and migrate them beside it. Trying writes nothing. What is brought up is merged
//! into the vnode under the histories that it had: what was written meanwhile stays, and a node that ends in between leaves
//! some values in one schema and some in the other, as they may be at any time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vnode_cluster::failpoint;
use vnode_ring::{PartitionId, View};

use super::Coordinator;
use super::replicas::{To, page_words};
use super::versions::Obstacle;
use crate::vnode::edition::Edition;
use crate::vnode::failure::Failure;
use crate::vnode::replica::is_done;
use crate::vnode::request::Work;
use crate::vnode::service::Service;
use crate::wasm::Values;

/// How often it is looked whether something is to be brought up, besides at each change of the map.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Clients have the node to themselves after each page for so many times as long as it took.
const LET_GO: u32 = 3;

/// What becomes of migrated rows.
#[derive(Clone, Copy)]
enum Then {
    /// Nothing: it was only tried.
    Nothing,
    /// The vnode takes them in.
    Merge,
}

/// Brings values into the schemas of versions that are final, until the node ends.
pub async fn keep_up(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    let mut look = tokio::time::interval(LOOK_EVERY);
    // By service: the version, and the epoch at which all that was here had its schema.
    let mut done: BTreeMap<u16, (Arc<str>, u64)> = BTreeMap::new();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        for service in coordinator.services() {
            let Some(edition) = coordinator.final_edition(&view, service) else {
                continue;
            };
            let now = (Arc::clone(edition.digest()), view.map().epoch());
            if !view.map().transfers().is_empty() {
                continue;
            }
            // What comes in from now on is taken down again.
            let came = service.schemas.take_older();
            if !came && done.get(&service.index) == Some(&now) {
                continue;
            }
            done.remove(&service.index);
            match coordinator.bring_up(service, &edition).await {
                Ok(()) => drop(done.insert(service.index, now)),
                Err(why) => tracing::warn!(
                    service = service.name(),
                    version = &**edition.version(),
                    why,
                    "values stay in an older schema for now"
                ),
            }
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
    }
}

impl Coordinator {
    /// The version of a service that is final and migrates, if it is here. What is stored from now on may be in its schema.
    fn final_edition(&self, view: &View, service: &Service) -> Option<Arc<Edition>> {
        let versions = view.map().versions().get(service.name())?;
        if versions.under_way().is_some() {
            return None;
        }
        service.schemas.set_ceiling(versions.ceiling());
        let edition = service.edition(&versions.current().digest)?;
        edition.guest.migrates().then_some(edition)
    }

    /// Has a version read all that the vnode of a partition holds, and write it back as it would have to. Nothing comes of it.
    ///
    /// # Errors
    /// Why it cannot take over, or that the rows cannot be had now.
    pub(super) async fn rehearse(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        edition: &Edition,
    ) -> Result<(), Obstacle> {
        let migrated = self.migrate(service, partition, edition, Then::Nothing);
        migrated.await.map(drop)
    }

    async fn bring_up(&self, service: &Arc<Service>, edition: &Edition) -> Result<(), String> {
        let (mut brought, mut failed) = (0_u64, None);
        for partition in self.ring_size().partitions() {
            let number = self.seat(usize::from(service.index), partition);
            let runs = self.seats.lock(number);
            let runs = runs.is_some_and(|seat| seat.figures().digest == *edition.digest());
            if !runs {
                return Err(format!("partition {partition} runs another version"));
            }
            match self.migrate(service, partition, edition, Then::Merge).await {
                Ok(pages) => brought += pages,
                // One value that cannot be brought up must not keep the others where they are.
                Err(why) => failed = failed.or(Some(format!("partition {partition}: {why}"))),
            }
        }
        if let Some(why) = failed {
            return Err(why);
        }
        if brought > 0 {
            let (name, version) = (service.name(), edition.version());
            let schema = edition.guest.descriptor().schema_writes;
            let text = format!("{name} {version}: all values here are in schema {schema} now");
            let me = self.view().me().clone();
            let epoch = self.view().map().epoch();
            self.cluster
                .feed()
                .add("rollout", Some(me.as_str()), epoch, text);
        }
        Ok(())
    }

    /// Migrates the rows of a vnode page by page. Returns how many pages had some of another schema.
    async fn migrate(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        edition: &Edition,
        then: Then,
    ) -> Result<u64, Obstacle> {
        let mut values = Values::new(Arc::clone(&edition.guest), Arc::clone(&service.schemas));
        let (mut place, mut pages) = (Vec::new(), 0);
        loop {
            let begun = Instant::now();
            let page = self.rows_here(service, partition, &place).await;
            let passing = |failure: Failure| Obstacle::Passing(failure.to_string());
            let (rows, next) = page.map_err(passing)?;
            // A guest must not keep a control thread.
            let migrated = tokio::task::spawn_blocking(move || {
                let migrated = values.bring_up(&rows);
                (values, migrated)
            });
            let unfit = |why: &dyn Display| Obstacle::Unfit(why.to_string());
            let (after, migrated) = migrated.await.map_err(|error| unfit(&error))?;
            values = after;
            let migrated = migrated.map_err(|refusal| unfit(&refusal))?;
            if !migrated.is_empty() {
                pages += 1;
                match then {
                    Then::Nothing => failpoint("migration-tried"),
                    Then::Merge => {
                        let merged = self.merge_here(service, partition, migrated.as_bytes());
                        merged.await.map_err(Obstacle::Passing)?;
                    }
                }
                tokio::time::sleep(begun.elapsed() * LET_GO).await;
            }
            if next.is_empty() {
                return Ok(pages);
            }
            place = next;
        }
    }

    async fn merge_here(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        rows: &[u8],
    ) -> Result<(), String> {
        failpoint("migration-half");
        let (here, words) = (To::Here(partition), page_words(rows));
        let answer = self.ask_replica(service, partition, here, Work::Merge, words);
        let answer = answer.await.map_err(|failure| failure.to_string())?;
        match is_done(&answer) {
            Some(_) => Ok(()),
            None => Err(Failure::of_answer(&answer).to_string()),
        }
    }
}
