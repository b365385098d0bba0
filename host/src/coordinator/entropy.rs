//! Active anti-entropy: replicas that differ are brought together even if nobody reads what differs.
//!
//! The owner of a range's first partition compares its own replica with each other one, all ranges in turn: the roots of two
//! hash trees, then their leaves, then the rows of the leaves that differ, as in Dynamo (§4.7) and riak_kv (`riak_kv_index_hashtree`,
//! `riak_kv_exchange_fsm`). Writes that are under way make trees differ for a moment, so leaves are asked for a second time and
//! only those that differ both times are looked into. Differing objects are merged in both directions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use vnode_ring::{Leaves, PartitionId};

use super::Coordinator;
use super::carry::LET_GO_MAX;
use super::join_all;
use super::replicas::{To, page_words};
use super::transfers::Amount;
use crate::store::{Batch, RowKey};
use crate::vnode::failure::Failure;
use crate::vnode::replica::{Fetched, Summed, fetched, leaf, leaves};
use crate::vnode::request::{Held, Work};
use crate::vnode::service::Service;
use crate::vnode::words::Words;
use crate::wasm::Digests;

/// How long it takes to compare all ranges, if there is nothing to mend.
const ROUND: Duration = Duration::from_secs(15);
/// Between two looks at leaves that differ: writes that were under way have arrived by then.
const SETTLE: Duration = Duration::from_secs(2);
/// A comparison that failed is tried once more after so long. That a link is dead may show only when it is used, and it takes
/// a moment until there is another one.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Ranges that are compared at the same time.
const AT_ONCE: usize = 8;
/// Looks at a tree that is being built before an exchange gives up until the next round.
const LOOKS_MAX: usize = 16_000;

/// Compares the ranges of this node with their other replicas, some at a time, for as long as the node runs.
pub async fn exchange(coordinator: Arc<Coordinator>) {
    // The range that was compared last: whose they are may change between two turns.
    let mut last = None;
    let mut due = Instant::now();
    loop {
        let turns = coordinator.led().len().div_ceil(AT_ONCE).max(1);
        // A turn that took long, because somebody did not answer, is made up for.
        due = (due + ROUND / u32::try_from(turns).unwrap_or(u32::MAX)).max(Instant::now());
        tokio::time::sleep_until(due).await;
        // What came to this node since the last turn is not left to the next one.
        let mine = coordinator.led();
        let place = |(service, range): &(Arc<Service>, PartitionId)| Some((service.index, *range));
        let first = mine.partition_point(|one| place(one) <= last);
        let turn = mine
            .iter()
            .cycle()
            .skip(first)
            .take(AT_ONCE.min(mine.len()));
        let turn: Vec<_> = turn.collect();
        last = turn.last().and_then(|one| place(one));
        let compared = turn
            .into_iter()
            .map(|(service, range)| coordinator.compare(service, *range, SETTLE));
        join_all(compared.collect()).await;
    }
}

impl Coordinator {
    /// The ranges that this node compares: those whose first replica it owns, of services with several.
    fn led(&self) -> Vec<(Arc<Service>, PartitionId)> {
        let view = self.view();
        let mine = |range: &PartitionId| view.ring().is_owner(view.me(), *range);
        let several = self.services().iter().filter(|service| service.n() > 1);
        several
            .flat_map(|service| {
                let ranges = view.ring().size().partitions().filter(mine);
                ranges.map(|range| (Arc::clone(service), range))
            })
            .collect()
    }

    /// Brings the replica that runs the commands of a range together with all others that are up. What cannot be compared now is
    /// compared another time.
    pub(super) async fn compare(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        settle: Duration,
    ) {
        let view = self.view();
        let Some(first) = view.coordinator(range, service.n()) else {
            return;
        };
        let others = view.holders(range, service.n()).iter();
        let others = others.filter(|other| other.is_primary() && **other != first);
        let pairs: Vec<Pair<'_>> = others
            .map(|other| Pair {
                coordinator: self,
                service,
                range,
                first: To::Holder(first),
                other: To::Holder(*other),
            })
            .collect();
        let exchange = async |pair: &Pair<'_>| {
            let mut exchanged = pair.exchange(settle).await;
            if exchanged.is_err() {
                tokio::time::sleep(AGAIN_AFTER).await;
                exchanged = pair.exchange(settle).await;
            }
            exchanged.unwrap_or_else(|error| {
                let service = service.name();
                tracing::debug!(service, %range, %error, "replicas were not compared");
                0
            })
        };
        let learned = join_all(pairs.iter().map(exchange).collect()).await;
        if learned.into_iter().any(|rows| rows > 0) {
            // What one of them knew alone the others lack as well, though they did not differ from the first.
            join_all(pairs.iter().map(exchange).collect()).await;
        }
    }
}

/// Two replicas of a range.
pub(super) struct Pair<'a> {
    pub(super) coordinator: &'a Coordinator,
    pub(super) service: &'a Arc<Service>,
    pub(super) range: PartitionId,
    pub(super) first: To,
    pub(super) other: To,
}

impl Pair<'_> {
    async fn ask(&self, of: To, work: Work, words: Words) -> Result<Vec<u8>, Failure> {
        self.coordinator
            .ask_replica(self.service, self.range, of, work, words)
            .await
    }

    /// Has both begin their trees. They are kept up to date with what is read and merged from then on, so that not all rows have to
    /// be read again when they are asked for.
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        for of in [self.first, self.other] {
            let no_root = Words::one(Bytes::new());
            self.ask(of, Work::Leaves, no_root).await?;
        }
        Ok(())
    }

    /// Sends the other one what the first one holds and it does not, and nothing back. Returns how much.
    pub(super) async fn push(&self) -> Result<Amount, Failure> {
        let mut sent = Amount::default();
        for number in self.differing().await? {
            let own = self.rows(self.first, number).await?;
            let other = self.rows(self.other, number).await?;
            let differs = |place: &&Vec<u8>| own.get(*place) != other.get(*place);
            let places: Vec<&Vec<u8>> = own.keys().filter(differs).collect();
            if !places.is_empty() {
                let more = self.send(&places, &other, self.first, self.other).await?;
                sent.objects += more.objects;
                sent.bytes += more.bytes;
            }
        }
        Ok(sent)
    }

    /// Mends the leaves that differ now and still do when writes have had that time to settle. Returns how many rows the first one
    /// got.
    async fn exchange(&self, settle: Duration) -> Result<u64, Failure> {
        let mut differing = self.differing().await?;
        if differing.is_empty() {
            return Ok(0);
        }
        if !settle.is_zero() {
            tokio::time::sleep(settle).await;
            let still = self.differing().await?;
            differing.retain(|leaf| still.binary_search(leaf).is_ok());
        }
        let mut learned = 0;
        for leaf in differing {
            learned += self.mend(leaf).await?;
        }
        Ok(learned)
    }

    /// The leaves in which the two differ.
    async fn differing(&self) -> Result<Vec<u16>, Failure> {
        let Some(own) = self.summed(self.first, b"").await? else {
            return Ok(Vec::new());
        };
        let root = own.root().to_le_bytes();
        let other = self.summed(self.other, &root).await?;
        Ok(other.map_or(Vec::new(), |other| own.differing(&other)))
    }

    /// The leaves of one of the two, unless its root is that one.
    async fn summed(&self, of: To, root: &[u8]) -> Result<Option<Leaves>, Failure> {
        for _ in 0..LOOKS_MAX {
            let begun = Instant::now();
            let answer = self.ask(of, Work::Leaves, Words::copy([root])).await?;
            match leaves(&answer) {
                Some(Summed::Leaves(leaves)) => return Ok(Some(leaves)),
                Some(Summed::Same) => return Ok(None),
                // Each look takes its tree further, and lets clients have the node to themselves for as long as it took.
                Some(Summed::NotYet) => {
                    tokio::time::sleep(begun.elapsed().min(LET_GO_MAX)).await;
                }
                None => return Err(Failure::of_answer(&answer)),
            }
        }
        Err(Failure::Incomplete(
            "a hash tree is still being built".into(),
        ))
    }

    /// Merges what differs in one leaf, in both directions. Returns how many rows the first one got.
    async fn mend(&self, number: u16) -> Result<u64, Failure> {
        let own = self.rows(self.first, number).await?;
        let other = self.rows(self.other, number).await?;
        let differs = |place: &&Vec<u8>| own.get(*place) != other.get(*place);
        let mut places: Vec<&Vec<u8>> = own.keys().chain(other.keys()).filter(differs).collect();
        places.sort();
        places.dedup();
        if places.is_empty() {
            return Ok(0);
        }
        let lent = self.send(&places, &own, self.other, self.first).await?;
        let given = self.send(&places, &other, self.first, self.other).await?;
        let rows = lent.objects + given.objects;
        tracing::info!(
            service = self.service.name(),
            range = %self.range,
            rows,
            "replicas differed and were brought together"
        );
        self.coordinator.healing().exchanged(rows);
        Ok(lent.objects)
    }

    async fn rows(&self, of: To, number: u16) -> Result<Digests, Failure> {
        let words = Words::copy([number.to_le_bytes().as_slice()]);
        let answer = self.ask(of, Work::Leaf, words).await?;
        leaf(&answer).ok_or_else(|| Failure::of_answer(&answer))
    }

    /// Sends what `from` holds under these places, where it differs from what `to` `has`, to `to`. Returns how much.
    async fn send(
        &self,
        places: &[&Vec<u8>],
        has: &Digests,
        from: To,
        to: To,
    ) -> Result<Amount, Failure> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut keys = Vec::new();
        for place in places {
            let Some((hash, key)) = place.split_first_chunk::<8>() else {
                continue;
            };
            let hash = u64::from_be_bytes(*hash);
            let digest = has.get(*place).copied().unwrap_or(0);
            words.push(key.to_vec());
            words.push(Held { hash, digest }.to_bytes().to_vec());
            keys.push((hash, key));
        }
        let words = Words::copy(words.iter().map(Vec::as_slice));
        let answer = self.ask(from, Work::Fetch, words).await?;
        let said = fetched(&answer, keys.len()).ok_or_else(|| Failure::of_answer(&answer))?;
        let mut rows = Batch::new();
        for ((hash, key), said) in keys.into_iter().zip(said) {
            if let Fetched::Object(object) = said {
                rows.pass_on(RowKey { hash, key }, object);
            }
        }
        if !rows.is_empty() {
            self.ask(to, Work::Merge, page_words(rows.as_bytes()))
                .await?;
        }
        Ok(Amount {
            objects: rows.len() as u64,
            bytes: rows.as_bytes().len() as u64,
        })
    }
}
