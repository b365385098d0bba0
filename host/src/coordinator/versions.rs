//! Which version of a guest each vnode of this node runs: the one that the cluster map says, or none.
//!
//! Whatever was decided while this node was away, joining or starting, it does the same: it gets the components that it lacks from
//! other nodes, gives each vnode its version, and says so. A vnode whose version is not here serves nothing until it is.
//! Who decides is `rollouts`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vnode_ring::{
    ClusterMap, FIRST_SCHEMA, MapEvent, NodeName, PartitionId, Release, RingSize, Rollout,
    RolloutEvent, Versions, View,
};

use super::Coordinator;
use super::asks::{Ask, from_bytes, to_bytes};
use crate::library::LibraryError;
use crate::store::{Engine, Store, StoreError};
use crate::vnode::edition::Edition;
use crate::vnode::service::Service;
use crate::vnode::{Figures, Vnode};
use crate::wasm::{Guest, Instance, Values, VnodeState};
use vnode_cluster::failpoint;

/// How often it is looked whether something is left to do, besides at each change of the map.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a component that are asked for at once: few, since what nodes have to tell each other about who is up waits behind them.
const PART_BYTES: usize = 64 << 10;
/// Time of a node for one part.
const PART_WITHIN: Duration = Duration::from_secs(10);

/// Why a vnode does not run its version.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// It may later.
    #[error("{0}")]
    Passing(String),
    /// The version is here and cannot serve it.
    #[error("{0}")]
    Unfit(String),
}

/// Sees to the versions of this node's vnodes until the node ends.
pub async fn follow(coordinator: Arc<Coordinator>) {
    let mut views = coordinator.views();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut kept = BTreeSet::new();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        for service in coordinator.services() {
            if let Some(versions) = view.map().versions().get(service.name()) {
                coordinator.follow_one(&view, service, versions).await;
            }
        }
        let needed = coordinator.needed_versions(view.map());
        if needed != kept && !view.map().versions().is_empty() {
            coordinator.forget_versions(&needed);
            kept = needed;
        }
        coordinator.follow_shadows(&view).await;
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = coordinator.shadows.changed() => {}
            _ = look.tick() => {}
        }
    }
}

/// A part of a component that another node is asked for.
#[derive(Serialize, Deserialize)]
pub(super) struct PartAsk {
    digest: String,
    from: u64,
}

impl Coordinator {
    /// Opens what is here of the versions that the map asks for; before the vnodes start.
    pub fn open_versions(&self, map: &ClusterMap) {
        for service in &self.services {
            let versions = map.versions().get(service.name());
            if let Some(versions) = versions {
                service.schemas.set_ceiling(versions.ceiling());
            }
            for release in versions.iter().flat_map(|versions| versions.at_hand()) {
                if service.edition(&release.digest).is_some() {
                    continue;
                }
                match self.library.open(&release.digest) {
                    Ok(guest) => drop(service.add(guest)),
                    Err(error) => {
                        tracing::warn!(%error, service = service.name(), version = release.version, "other nodes will be asked for a version");
                    }
                }
            }
        }
        self.renew_front(map);
    }

    /// A vnode of a partition of a ring of that size. The guest of one that the node owns starts at once, that of another when there
    /// is a command for it. One whose version is not here serves nothing.
    ///
    /// # Errors
    /// When its store cannot give it a name.
    pub fn vnode(
        &self,
        service: &Arc<Service>,
        (size, partition): (RingSize, PartitionId),
        store: Box<dyn Store>,
    ) -> Result<Vnode, StoreError> {
        let view = self.view();
        let owned = view.ring().is_owner(view.me(), partition) && !self.is_filling(partition);
        let assigned = self.assigned(view.map(), service, partition);
        let edition = Arc::clone(assigned.as_ref().unwrap_or(service.first()));
        let values = Values::new(Arc::clone(&edition.guest), Arc::clone(&service.schemas));
        let state = VnodeState::new(
            values,
            service.placement.clone(),
            (size, partition),
            view.me().as_str().into(),
            store,
        )?;
        let service = Arc::clone(service);
        Ok(match assigned {
            Ok(_) if owned => Vnode::start(service, edition, state),
            Ok(_) => Vnode::resting(service, edition, state),
            Err(why) => {
                let mut vnode = Vnode::resting(service, edition, state);
                vnode.withhold(&why);
                vnode
            }
        })
    }

    /// The version that a vnode is to run, or that it is not here.
    pub fn assigned(
        &self,
        map: &ClusterMap,
        service: &Service,
        partition: PartitionId,
    ) -> Result<Arc<Edition>, String> {
        let Some(release) = map.assigned(service.name(), partition) else {
            return Ok(Arc::clone(service.first()));
        };
        service
            .edition(&release.digest)
            .ok_or_else(|| not_here(release))
    }

    async fn follow_one(&self, view: &View, service: &Arc<Service>, versions: &Versions) {
        // Before anything runs a version that could store something else.
        service.schemas.set_ceiling(versions.ceiling());
        let rollout = versions.rollout();
        let reports = |rollout: &&Rollout| {
            view.map().members().contains_key(view.me()) && !rollout.has_reported(view.me())
        };
        let report = rollout.filter(reports);
        self.withhold_strangers(service, versions).await;
        let mut passing = None;
        for release in versions.at_hand() {
            let Err(obstacle) = self.obtain(view, service, release).await else {
                continue;
            };
            let version = &release.version;
            tracing::warn!(
                service = service.name(),
                version,
                why = %obstacle,
                "a version is not here"
            );
            match (obstacle, report) {
                (Obstacle::Unfit(why), Some(rollout)) if rollout.to == *release => {
                    let why = format!("version {version} is not served: {why}");
                    return self.report(service, rollout, Err(why)).await;
                }
                (why, _) => passing = Some(why.to_string()),
            }
        }
        let mut unfit = None;
        for partition in self.order(rollout) {
            match self.follow_vnode(service, versions, partition).await {
                Ok(()) => {}
                Err(Obstacle::Passing(why)) => {
                    passing = Some(format!("partition {partition}: {why}"));
                }
                Err(Obstacle::Unfit(why)) => {
                    unfit = Some(format!("partition {partition}: {why}"));
                    break;
                }
            }
        }
        match (report, unfit, passing) {
            (Some(rollout), Some(why), _) => self.report(service, rollout, Err(why)).await,
            (Some(rollout), None, None) => {
                failpoint("swap-done");
                self.report(service, rollout, Ok(())).await;
            }
            // Nothing is said yet: it is tried again.
            (_, None, Some(why)) | (None, Some(why), _) => tracing::warn!(
                service = service.name(),
                why,
                "a vnode does not run its version"
            ),
            (None, None, None) => {}
        }
    }

    /// Has the vnodes serve nothing whose version the cluster does not know, until the right one is here: those of a node that comes
    /// from a cluster of its own.
    async fn withhold_strangers(&self, service: &Arc<Service>, versions: &Versions) {
        let is_missing = |release: &Release| service.edition(&release.digest).is_none();
        if !versions.at_hand().into_iter().any(is_missing) {
            return;
        }
        for partition in self.ring_size().partitions() {
            let release = versions.assigned(partition);
            let number = self.seat(usize::from(service.index), partition);
            let stranger = self.seats.lock(number).is_some_and(|seat| {
                let figures = seat.figures();
                !figures.withheld && !knows(versions, figures)
            });
            if stranger && is_missing(release) {
                self.withhold(number, &not_here(release)).await;
            }
        }
    }

    /// Whether a node was started with another version of some guest than a partition runs: then it has to say that it has that one,
    /// too, before the partition goes there.
    pub(super) fn came_with_other_versions(&self, node: &NodeName, partition: PartitionId) -> bool {
        let view = self.view();
        let Some(member) = view.map().members().get(node) else {
            return false;
        };
        member.card.guests.iter().any(|(service, guest)| {
            let versions = view.map().versions().get(service);
            versions.is_some_and(|versions| versions.assigned(partition).digest != guest.digest)
        })
    }

    /// Why a vnode of this partition could not serve it if it came here now: the version of its guest is not here yet.
    pub(super) fn lacks_version(&self, partition: PartitionId) -> Option<String> {
        let view = self.view();
        let lacking = self.services.iter().find(|service| {
            let versions = view.map().versions().get(service.name());
            let number = self.seat(usize::from(service.index), partition);
            let seat = self.seats.lock(number);
            versions.zip(seat).is_some_and(|(versions, seat)| {
                let figures = seat.figures();
                figures.withheld || *versions.assigned(partition).digest != *figures.digest
            })
        })?;
        let name = lacking.name();
        Some(format!(
            "it does not run the cluster's version of {name} yet"
        ))
    }

    /// The partitions in the order in which they get their versions: those that go back, the newest first.
    fn order(&self, rollout: Option<&Rollout>) -> Vec<PartitionId> {
        let size = self.ring_size();
        let in_use = |rollout: &Rollout| {
            let mut partitions = rollout.order().partitions.iter();
            partitions.all(|partition| size.contains(*partition))
        };
        match rollout {
            // The ring may have been resized since.
            Some(rollout) if rollout.moved().is_empty() && in_use(rollout) => {
                let order = rollout.order().partitions.iter();
                order.rev().copied().collect()
            }
            _ => size.partitions().collect(),
        }
    }

    /// Gives a vnode the version that it is to run.
    async fn follow_vnode(
        &self,
        service: &Arc<Service>,
        versions: &Versions,
        partition: PartitionId,
    ) -> Result<(), Obstacle> {
        let release = versions.assigned(partition);
        let number = self.seat(usize::from(service.index), partition);
        let runs = self.seats.lock(number).is_some_and(|seat| {
            let figures = seat.figures();
            *figures.digest == *release.digest && !figures.withheld
        });
        if runs {
            return Ok(());
        }
        failpoint("swap-next");
        if versions.under_way().is_none() {
            failpoint("swap-back");
        }
        match service.edition(&release.digest) {
            Some(edition) => {
                if let Some(rollout) = versions.under_way()
                    && rollout.to == *release
                    && rehearses(rollout, &edition.guest)
                {
                    self.rehearse(service, partition, &edition).await?;
                }
                self.swap(number, &edition).await
            }
            None => {
                let why = not_here(release);
                self.withhold(number, &why).await;
                Err(Obstacle::Passing(why))
            }
        }
    }

    /// Sees to it that a version is here, checked and compiled.
    async fn obtain(
        &self,
        view: &View,
        service: &Arc<Service>,
        release: &Release,
    ) -> Result<(), Obstacle> {
        if service.edition(&release.digest).is_some() {
            return Ok(());
        }
        let (library, digest) = (Arc::clone(&self.library), release.digest.clone());
        let opened = tokio::task::spawn_blocking(move || library.open(&digest)).await;
        let guest = match opened {
            Ok(Ok(guest)) => guest,
            Ok(Err(LibraryError::Load(error))) => return Err(Obstacle::Unfit(error.to_string())),
            _ => {
                let bytes = self.fetch(view, release).await.map_err(Obstacle::Passing)?;
                failpoint("version-fetched");
                let (library, digest) = (Arc::clone(&self.library), release.digest.clone());
                let taken =
                    tokio::task::spawn_blocking(move || library.take_in(&digest, &bytes)).await;
                match taken {
                    Ok(Ok(guest)) => guest,
                    Ok(Err(LibraryError::Load(error))) => {
                        return Err(Obstacle::Unfit(error.to_string()));
                    }
                    Ok(Err(error)) => return Err(Obstacle::Passing(error.to_string())),
                    Err(error) => return Err(Obstacle::Passing(error.to_string())),
                }
            }
        };
        self.check_version(service, &guest)
            .await
            .map_err(Obstacle::Unfit)?;
        failpoint("version-here");
        self.add_version(service, guest);
        Ok(())
    }

    /// Checks that an instance of a version starts, on no rows.
    ///
    /// # Errors
    /// Why it does not, or why it is no version of the service.
    pub async fn check_version(
        &self,
        service: &Arc<Service>,
        guest: &Arc<Guest>,
    ) -> Result<(), String> {
        let descriptor = guest.descriptor();
        if descriptor.name != service.name() {
            return Err(format!(
                "it is a guest of {}, not of {}",
                descriptor.name,
                service.name()
            ));
        }
        let (service, guest) = (Arc::clone(service), Arc::clone(guest));
        let view = self.view();
        let started = tokio::task::spawn_blocking(move || {
            let node: Arc<str> = view.me().as_str().into();
            let store = Engine::memory().open(service.name(), 0);
            let store = store.map_err(|error| error.to_string())?;
            let placement = service.placement.clone();
            let values = Values::new(guest, Arc::default());
            let size = view.ring().size();
            let state = VnodeState::new(values, placement, (size, size.at(0)), node, store);
            let state = state.map_err(|error| error.to_string())?;
            Instance::start(state)
                .map(drop)
                .map_err(|failed| format!("it does not start: {}", failed.1))
        });
        started.await.map_err(|error| error.to_string())?
    }

    /// Takes a version in that was checked.
    pub fn add_version(&self, service: &Service, guest: Arc<Guest>) {
        service.add(guest);
        self.renew_front(self.view().map());
    }

    /// Gets a component from whoever has it, part by part.
    async fn fetch(&self, view: &View, release: &Release) -> Result<Vec<u8>, String> {
        let mut why = "no other node is up".to_owned();
        let others = view.map().members().keys();
        for node in others.filter(|node| *node != view.me() && view.is_up(node)) {
            match self.fetch_from(node, release).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => why = format!("{node}: {error}"),
            }
        }
        Err(why)
    }

    async fn fetch_from(&self, node: &NodeName, release: &Release) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        loop {
            let ask = Ask::Component(PartAsk {
                digest: release.digest.clone(),
                from: bytes.len() as u64,
            });
            let deadline = Instant::now() + PART_WITHIN;
            let answer = self.cluster.ask_vnodes(node, to_bytes(&ask), deadline);
            let answer = answer.await.map_err(|error| error.to_string())?;
            let part: Result<(u64, Vec<u8>), String> =
                from_bytes(&answer).map_err(|error| error.to_string())?;
            let (size, part) = part?;
            if size > self.library.bytes_max() as u64 {
                return Err(format!("it has {size} bytes (component_bytes_max)"));
            }
            if part.is_empty() {
                return Err("it ends early".into());
            }
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 >= size {
                return Ok(bytes);
            }
        }
    }

    /// Answers another node that asks for a part of a component.
    pub(super) async fn component_part(&self, ask: PartAsk) -> Result<(u64, Vec<u8>), String> {
        let library = Arc::clone(&self.library);
        let read =
            tokio::task::spawn_blocking(move || library.read(&ask.digest, ask.from, PART_BYTES));
        let read = read.await.map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())
    }

    async fn report(&self, service: &Service, rollout: &Rollout, outcome: Result<(), String>) {
        let event = RolloutEvent::Reported {
            id: rollout.id,
            step: rollout.step,
            node: self.view().me().clone(),
            outcome,
        };
        let event = MapEvent::Rollout {
            service: service.name().to_owned(),
            event,
        };
        if let Err(error) = self.cluster.propose(event).await {
            tracing::debug!(%error, "a step of a rollout could not be reported; it is tried again");
        }
    }

    /// What clients may ask for has changed.
    pub(super) fn renew_front(&self, map: &ClusterMap) {
        let front = Arc::new(super::Front::new(&self.services, map));
        let place = self.front.write();
        *place.unwrap_or_else(std::sync::PoisonError::into_inner) = front;
        // Executors look when there is a view to take over.
        self.views.send_modify(|_| {});
    }

    /// The digests of what vnodes run or may go back to.
    fn needed_versions(&self, map: &ClusterMap) -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        for service in &self.services {
            needed.insert(service.first().digest().to_string());
            let Some(versions) = map.versions().get(service.name()) else {
                continue;
            };
            let next = versions.rollout().map(|rollout| &rollout.to);
            let releases = versions.past().iter().chain(versions.at_hand()).chain(next);
            needed.extend(releases.map(|release| release.digest.clone()));
        }
        needed
    }

    fn forget_versions(&self, needed: &BTreeSet<String>) {
        for service in &self.services {
            service.retain(needed);
        }
        self.library.retain(needed);
    }
}

/// Whether the version that a vnode runs is one that the cluster may run now.
fn knows(versions: &Versions, figures: &Figures) -> bool {
    let mut known = versions.at_hand().into_iter();
    known.any(|release| *release.digest == *figures.digest)
}

/// Whether what is stored may be something that the new version cannot read, and no operator has said that this is known.
fn rehearses(rollout: &Rollout, guest: &Guest) -> bool {
    let unread = rollout.to.schema_reads_from > FIRST_SCHEMA && !rollout.terms.forced;
    guest.migrates() || unread
}

fn not_here(release: &Release) -> String {
    format!(
        "version {} is assigned, and its component is not on this node yet; it is fetched",
        release.version
    )
}
