//! Which services and partitions a node ever stored, and the names that their writes may use.
//!
//! One sealed text file. Rows carry the two-byte number of their service instead of its name. Each partition has an actor,
//! random for each incarnation, and a lease: every sequence number below it may have been used, so after a crash
//! counting goes on at the lease. A lease is durable before its first number is handed out.
//!
//! A node that was not closed in good order may have lost its last writes while other nodes have them, so its partitions begin
//! new incarnations: a causal context says "everything of this actor up to here" and would cover what was lost (riak_kv 679).

use super::sealed;
use super::{Dot, StoreError, random};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Numbers reserved at a time: one sync in so many writes, and 2^44 restarts until 64 bits are used up.
const LEASE: u64 = 1_000_000;
const FORMAT: u32 = 1;

/// A partition of a service by number, in the order of its rows on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) service: u16,
    pub(super) partition: u16,
}

/// Sequence numbers that may be used without asking the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) actor: u64,
    pub(super) next: u64,
    pub(super) end: u64,
}

impl Lease {
    /// The next name, while there is one.
    pub(super) fn take(&mut self) -> Option<Dot> {
        if self.next >= self.end {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        Some(Dot {
            actor: self.actor,
            seq,
        })
    }
}

/// The table. What is in memory is what is on disk.
#[derive(Debug)]
pub(super) struct Catalog {
    path: PathBuf,
    services: Vec<String>,
    partitions: BTreeMap<Place, Incarnation>,
    /// Nothing was leased since everything was brought to disk.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Incarnation {
    actor: u64,
    leased: u64,
}

impl Incarnation {
    fn new() -> Result<Incarnation, StoreError> {
        Ok(Incarnation {
            actor: random()?,
            leased: 1,
        })
    }
}

/// The file: TOML has no unsigned 64-bit numbers, so they are text.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    #[serde(default)]
    closed: bool,
    services: Vec<String>,
    partitions: Vec<Line>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    service: u16,
    partition: u16,
    actor: String,
    leased: String,
}

impl Catalog {
    /// Reads the table, or starts one. Writes nothing.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let Some(text) = sealed::read(&path)? else {
            return Ok(Self {
                path,
                services: Vec::new(),
                partitions: BTreeMap::new(),
                closed: false,
            });
        };
        let file = parse(&path, &text)?;
        let mut partitions = BTreeMap::new();
        for line in &file.partitions {
            let place = Place {
                service: line.service,
                partition: line.partition,
            };
            let known = Incarnation {
                actor: number(&path, &line.actor)?,
                leased: number(&path, &line.leased)?,
            };
            let incarnation = match file.closed {
                true => known,
                false => Incarnation::new()?,
            };
            partitions.insert(place, incarnation);
        }
        Ok(Self {
            path,
            services: file.services,
            partitions,
            closed: file.closed,
        })
    }

    /// Notes that everything that was written under these names is on disk. To be called when no more is written.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.closed = true;
        self.write()
    }

    /// Writes the table for the first time.
    pub(super) fn create(&self) -> Result<(), StoreError> {
        self.write()
    }

    /// Every partition that was opened and not forgotten.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&str, u16)> {
        self.partitions
            .keys()
            .filter_map(|place| Some((self.name(*place)?, place.partition)))
    }

    /// The service's name.
    pub(super) fn name(&self, place: Place) -> Option<&str> {
        self.services
            .get(usize::from(place.service))
            .map(String::as_str)
    }

    /// The number of a partition, if it was ever opened here.
    pub(super) fn find(&self, service: &str, partition: u16) -> Option<Place> {
        let service = self.services.iter().position(|name| name == service)?;
        let service = u16::try_from(service).ok()?;
        Some(Place { service, partition })
    }

    /// Places and leases for all of `wanted`, with one write to disk.
    pub(super) fn lease(
        &mut self,
        wanted: &[(&str, u16)],
    ) -> Result<Vec<(Place, Lease)>, StoreError> {
        self.closed = false;
        let before = (self.services.clone(), self.partitions.clone());
        let leased = self.lease_in_memory(wanted).and_then(|leased| {
            self.write()?;
            Ok(leased)
        });
        if leased.is_err() {
            (self.services, self.partitions) = before;
        }
        leased
    }

    /// The next lease of an open partition.
    pub(super) fn renew(&mut self, place: Place) -> Result<Lease, StoreError> {
        let Some(name) = self.name(place).map(str::to_owned) else {
            return Err(StoreError::Closed);
        };
        let mut leased = self.lease(&[(&name, place.partition)])?;
        match leased.pop() {
            Some((_, lease)) => Ok(lease),
            None => Err(StoreError::Closed),
        }
    }

    /// A lease under a new actor for an open partition.
    pub(super) fn change_actor(&mut self, place: Place) -> Result<Lease, StoreError> {
        let Some(old) = self.partitions.remove(&place) else {
            return Err(StoreError::Closed);
        };
        self.renew(place).inspect_err(|_| {
            self.partitions.insert(place, old);
        })
    }

    /// Ends an incarnation: who opens the partition again gets another actor.
    pub(super) fn forget(&mut self, place: Place) -> Result<(), StoreError> {
        let Some(old) = self.partitions.remove(&place) else {
            return Ok(());
        };
        self.write().inspect_err(|_| {
            self.partitions.insert(place, old);
        })
    }

    fn lease_in_memory(
        &mut self,
        wanted: &[(&str, u16)],
    ) -> Result<Vec<(Place, Lease)>, StoreError> {
        let mut leases = Vec::with_capacity(wanted.len());
        for (service, partition) in wanted {
            let place = match self.find(service, *partition) {
                Some(place) => place,
                None => self.add(service, *partition)?,
            };
            let incarnation = match self.partitions.get(&place) {
                Some(known) => *known,
                None => Incarnation::new()?,
            };
            let lease = Lease {
                actor: incarnation.actor,
                next: incarnation.leased,
                end: incarnation.leased.saturating_add(LEASE),
            };
            let grown = Incarnation {
                actor: lease.actor,
                leased: lease.end,
            };
            self.partitions.insert(place, grown);
            leases.push((place, lease));
        }
        Ok(leases)
    }

    fn add(&mut self, service: &str, partition: u16) -> Result<Place, StoreError> {
        match u16::try_from(self.services.len()) {
            // The last number stays free, so that there is always a place after every row.
            Ok(number) if number < u16::MAX => {
                self.services.push(service.to_owned());
                Ok(Place {
                    service: number,
                    partition,
                })
            }
            _ => Err(StoreError::Services {
                service: service.to_owned(),
                path: self.path.clone(),
            }),
        }
    }

    fn write(&self) -> Result<(), StoreError> {
        let lines = self.partitions.iter().map(|(place, incarnation)| Line {
            service: place.service,
            partition: place.partition,
            actor: format!("{:016x}", incarnation.actor),
            leased: format!("{:016x}", incarnation.leased),
        });
        let file = File {
            format: FORMAT,
            closed: self.closed,
            services: self.services.clone(),
            partitions: lines.collect(),
        };
        let text = toml::to_string(&file).map_err(|error| StoreError::Corrupt {
            path: self.path.clone(),
            what: error.to_string(),
        })?;
        sealed::write(&self.path, &text)
    }
}

fn parse(path: &Path, text: &str) -> Result<File, StoreError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: toml::de::Error| StoreError::Corrupt {
        path: path.to_path_buf(),
        what: error.message().to_owned(),
    };
    let Format { format } = toml::from_str(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(StoreError::Newer {
            path: path.to_path_buf(),
            found: format,
            known: FORMAT,
        });
    }
    toml::from_str(text).map_err(damaged)
}

fn number(path: &Path, text: &str) -> Result<u64, StoreError> {
    u64::from_str_radix(text, 16).map_err(|error| StoreError::Corrupt {
        path: path.to_path_buf(),
        what: format!("number {text:?}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_never_handed_out_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.toml");
        let mut catalog = Catalog::open(path.clone()).unwrap();
        let first = catalog.lease(&[("kv", 3), ("kv", 4), ("ping", 3)]).unwrap();
        let renewed = catalog.renew(first[0].0).unwrap();
        catalog.close().unwrap();
        drop(catalog);
        let mut catalog = Catalog::open(path).unwrap();
        let again = catalog.lease(&[("ping", 3), ("kv", 3)]).unwrap();
        assert_eq!(again[0].0, first[2].0);
        assert_eq!(again[0].1.next, first[2].1.end);
        assert_eq!(again[1].1.actor, first[0].1.actor);
        assert_eq!(again[1].1.next, renewed.end);
        catalog.forget(first[0].0).unwrap();
        let fresh = catalog.lease(&[("kv", 3)]).unwrap();
        assert_ne!(fresh[0].1.actor, first[0].1.actor);
        let other = catalog.change_actor(first[0].0).unwrap();
        assert_ne!(other.actor, fresh[0].1.actor);
    }

    #[test]
    fn who_was_not_closed_goes_on_under_other_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.toml");
        let mut actors = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut catalog = Catalog::open(path.clone()).unwrap();
            let leases = catalog.lease(&[("kv", 3), ("kv", 4)]).unwrap();
            for (place, lease) in leases {
                assert!(actors.insert(lease.actor), "{place:?}");
            }
            // What was closed once and used again counts as not closed.
            catalog.close().unwrap();
            catalog.lease(&[("kv", 3)]).unwrap();
        }
    }
}
