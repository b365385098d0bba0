//! Where a command goes: the descriptor says where its keys are, the hash says which partition.

use vnode_ring::{PartitionId, RingSize};

use super::Coordinator;
use super::front::Front;
use crate::descriptor::{Aggregate, CommandKind, CommandSpec};
use crate::resp::catalog::GuestCommand;
use crate::vnode::failure::Failure;
use crate::vnode::seed;
use crate::vnode::service::Service;
use crate::vnode::words::Words;

/// Where a command goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// To one vnode.
    One {
        /// Its partition.
        partition: PartitionId,
        /// Hash prefix of the first key as it is stored.
        hash: u64,
    },
    /// To one vnode for each key, the replies joined.
    EachKey,
    /// To a set of vnodes that covers the ring.
    Coverage,
}

impl Coordinator {
    /// Where the command goes. The words already agree with the arity.
    pub fn route(
        &self,
        front: &Front,
        target: GuestCommand,
        words: &Words,
    ) -> Result<Route, Failure> {
        let route = self.route_any(front, target, words)?;
        let range = match route {
            Route::One { partition, .. } => Some(partition),
            Route::EachKey | Route::Coverage => None,
        };
        front.check_active(target, range)?;
        Ok(route)
    }

    fn route_any(
        &self,
        front: &Front,
        target: GuestCommand,
        words: &Words,
    ) -> Result<Route, Failure> {
        let (Some(service), Some(edition), Some(spec)) = (
            self.services.get(target.service),
            front.edition(target.service),
            front.spec(target),
        ) else {
            return Err(Failure::Usage("no such command".into()));
        };
        if matches!(
            spec.kind,
            CommandKind::Coverage | CommandKind::CoverageWrite
        ) {
            return Ok(Route::Coverage);
        }
        let mut positions = spec.key_positions(words.len());
        let Some(first) = positions.next() else {
            return match spec.kind {
                CommandKind::Any => Ok(self.anywhere(front.ring_size())),
                _ => Err(Failure::Usage("the command needs a key".into())),
            };
        };
        let key_bytes_max = edition.guest.limits().key_bytes_max;
        let longest = spec
            .key_positions(words.len())
            .map(|position| words.get(position).len())
            .max();
        if let Some(bytes) = longest.filter(|bytes| *bytes > key_bytes_max) {
            return Err(Failure::TooBig(format!(
                "key of {bytes} bytes, the limit is {key_bytes_max} (key_bytes_max)"
            )));
        }
        let size = front.ring_size();
        let located = locate(service, spec, size, words.get(first));
        if positions.next().is_none() {
            return Ok(located);
        }
        if spec.aggregate != Aggregate::Single {
            return Ok(Route::EachKey);
        }
        let elsewhere = spec
            .key_positions(words.len())
            .map(|position| locate(service, spec, size, words.get(position)))
            .any(|other| !same_partition(&other, &located));
        if elsewhere {
            return Err(Failure::Usage(format!(
                "keys of '{}' are in different partitions; give them one {{tag}}",
                spec.name.to_ascii_lowercase()
            )));
        }
        Ok(located)
    }

    fn anywhere(&self, size: RingSize) -> Route {
        let draw = seed(self.next_id()) % u64::from(size.get());
        let partition = size.at(u16::try_from(draw).unwrap_or(0));
        Route::One { partition, hash: 0 }
    }
}

fn locate(service: &Service, spec: &CommandSpec, size: RingSize, key: &[u8]) -> Route {
    let prefix = spec.keys.as_ref().map_or("", |keys| keys.prefix.as_str());
    let hash = service.placement.hash_of(key);
    let place = if prefix.is_empty() {
        hash
    } else {
        let prefixed = [prefix.as_bytes(), key].concat();
        service.placement.hash_of(&prefixed)
    };
    let partition = size.range_of(place);
    Route::One { partition, hash }
}

fn same_partition(a: &Route, b: &Route) -> bool {
    matches!((a, b), (Route::One { partition: a, .. }, Route::One { partition: b, .. }) if a == b)
}
