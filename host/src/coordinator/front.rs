//! What clients may ask this node for: the commands of every service, as the version has them that is in force.
//!
//! While versions change, the old one is in force until every partition is to run the new one. A command that only the new one
//! has is known from the start, and refused where not all replicas run that yet: whoever of them serves next could not.
//! A snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use vnode_ring::{ClusterMap, PartitionId, RingSize, Versions};

use crate::descriptor::{CommandSpec, Descriptor};
use crate::resp::catalog::{Catalog, GuestCommand};
use crate::vnode::edition::Edition;
use crate::vnode::failure::Failure;
use crate::vnode::request::Consistency;
use crate::vnode::service::Service;

/// The commands of all services.
#[derive(Clone)]
pub struct Front {
    catalog: Catalog,
    offers: Vec<Offer>,
    size: RingSize,
}

/// A service as clients see it.
#[derive(Clone)]
struct Offer {
    edition: Arc<Edition>,
    next: Option<Next>,
    size: RingSize,
    n: u16,
}

/// A version on its way.
#[derive(Clone)]
struct Next {
    edition: Arc<Edition>,
    /// Where it is to run.
    moved: BTreeSet<PartitionId>,
}

impl Front {
    /// What these services offer at this map.
    pub fn new(services: &[Arc<Service>], map: &ClusterMap) -> Front {
        let size = map.ring().size();
        let offers: Vec<Offer> = services
            .iter()
            .map(|service| Offer::new(service, size, map.versions().get(service.name())))
            .collect();
        let described = services.iter().zip(&offers);
        let described = described.map(|(service, offer)| offer.descriptor(service));
        let offered = |target: GuestCommand| {
            let offer = offers.get(target.service);
            offer.is_some_and(|offer| offer.of(number(target)).is_some())
        };
        Front {
            catalog: Catalog::offering(described.collect(), offered),
            offers,
            size,
        }
    }

    /// The same for a ring of another size.
    #[must_use]
    pub fn at_size(mut self, size: RingSize) -> Front {
        self.size = size;
        self.offers.iter_mut().for_each(|offer| offer.size = size);
        self
    }

    /// Size of the ring by which commands are sent.
    pub fn ring_size(&self) -> RingSize {
        self.size
    }

    /// Every name that a client may use.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The version of a service that is in force.
    pub fn edition(&self, service: usize) -> Option<&Arc<Edition>> {
        self.offers.get(service).map(|offer| &offer.edition)
    }

    /// What a command is.
    pub fn spec(&self, target: GuestCommand) -> Option<&CommandSpec> {
        let edition = self.offers.get(target.service)?.of(number(target))?;
        edition.command(number(target))
    }

    /// How many replicas a command has and waits for, unless its client wishes otherwise.
    pub fn consistency(&self, target: GuestCommand) -> Option<Consistency> {
        let edition = self.offers.get(target.service)?.of(number(target))?;
        Some(edition.consistency(number(target)))
    }

    /// Refuses a command of the version to come where not all replicas of the range run that; without a range, unless all do.
    ///
    /// # Errors
    /// Says so.
    pub fn check_active(
        &self,
        target: GuestCommand,
        range: Option<PartitionId>,
    ) -> Result<(), Failure> {
        let Some(offer) = self.offers.get(target.service) else {
            return Ok(());
        };
        let Some(next) = &offer.next else {
            return Ok(());
        };
        if offer.edition.position(number(target)).is_some() {
            return Ok(());
        }
        let serves = match range {
            Some(range) => {
                let mut replicas = (0..offer.n).map(|nth| offer.size.after(range, nth));
                replicas.all(|replica| next.moved.contains(&replica))
            }
            None => false,
        };
        match serves {
            true => Ok(()),
            false => Err(Failure::NotActive(format!(
                "the command comes with version {}, which not all replicas run yet; `host guest show` tells how far it is",
                next.edition.guest.descriptor().version
            ))),
        }
    }
}

fn number(target: GuestCommand) -> u16 {
    u16::try_from(target.command).unwrap_or(u16::MAX)
}

impl Offer {
    fn new(service: &Service, size: RingSize, versions: Option<&Versions>) -> Offer {
        let n = service.n();
        let of =
            |edition: Option<Arc<Edition>>| edition.unwrap_or_else(|| Arc::clone(service.first()));
        let Some(versions) = versions else {
            return Offer {
                edition: of(None),
                next: None,
                size,
                n,
            };
        };
        let current = service.edition(&versions.current().digest);
        let moving = versions.under_way();
        let next = moving.and_then(|rollout| {
            Some(Next {
                edition: service.edition(&rollout.to.digest)?,
                moved: rollout.moved().iter().copied().collect(),
            })
        });
        match next {
            Some(next) if next.moved.len() >= usize::from(size.get()) => Offer {
                edition: next.edition,
                next: None,
                size,
                n,
            },
            next => Offer {
                edition: of(current),
                next,
                size,
                n,
            },
        }
    }

    /// The version that says what a command is.
    fn of(&self, command: u16) -> Option<&Arc<Edition>> {
        let next = self.next.as_ref().map(|next| &next.edition);
        let mut editions = std::iter::once(&self.edition).chain(next);
        editions.find(|edition| edition.position(command).is_some())
    }

    /// The service with its commands under their numbers. Those that no version at hand has keep their places and are never found.
    fn descriptor(&self, service: &Service) -> Arc<Descriptor> {
        let own = self.edition.guest.descriptor();
        let known = service.commands();
        let names = known.iter().map(|spec| &spec.name);
        let alike = own.commands.iter().map(|spec| &spec.name).eq(names);
        if alike {
            return Arc::clone(own);
        }
        let spec = |(number, retired): (u16, CommandSpec)| {
            let offered = self.of(number).and_then(|edition| edition.command(number));
            offered.cloned().unwrap_or(retired)
        };
        Arc::new(Descriptor {
            commands: (0..).zip(known).map(spec).collect(),
            ..Descriptor::clone(own)
        })
    }
}
