//! Coverage: a command for the whole ring, asked of vnodes that together have every key once.
//!
//! The plan comes from the pure core. Vnodes are asked page by page, a few at a time and in ring order, so that what
//! waits here is bounded by a window of pages and by the limits on the whole reply.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use vnode_ring::{Holder, NodeName, PartitionId};

use super::distant::{self, Distant, PageAsk};
use super::{Call, Coordinator, Joined, UnderWay, join_all};
use crate::descriptor::{Aggregate, CommandSpec};
use crate::executor::slow::PageRequest;
use crate::executor::{Inbox, Message};
use crate::resp::catalog::GuestCommand;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::resp::write;
use crate::store::Acknowledge;
use crate::vnode::failure::Failure;
use crate::vnode::seed;
use crate::vnode::service::Ended;
use crate::vnode::words::Words;
use crate::wasm::{CoveragePage, Scope, TypedCommand};

/// A page of a client's scan goes on into the next range while it has fewer items.
const PAGE_ITEMS_MIN: usize = 10;
/// How long a range may be on its way before that is an error.
const MOVES_WITHIN: Duration = Duration::from_secs(5);
/// How often a range is asked for again that is on its way.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// Ranges that are asked at the same time.
const WINDOW: usize = 8;

/// A range, and the vnode that answers for it.
#[derive(Clone)]
pub(super) struct Covered {
    range: PartitionId,
    pub(super) partition: PartitionId,
    pub(super) node: NodeName,
    here: bool,
}

/// What one page of one range adds.
#[derive(Debug)]
pub struct Part {
    /// The range, named by its first replica.
    pub range: PartitionId,
    /// RESP3 values back to back.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
    /// The version of the guest that gave it.
    pub version: String,
}

impl Coordinator {
    /// Runs a coverage command and joins what the vnodes answer.
    pub(super) async fn cover(
        &self,
        target: GuestCommand,
        spec: &CommandSpec,
        words: &Words,
        call: &Call,
    ) -> Result<Vec<u8>, Failure> {
        let within = self.limits.coverage_timeout;
        let begun = Instant::now();
        let joined = async {
            loop {
                let size = self.ring_size();
                let joined = match spec.aggregate {
                    Aggregate::Cursor => self.scan_page(target, spec, words, call).await,
                    _ => self.join_parts(target, spec, words, (call, begun)).await,
                };
                if self.ring_size() == size {
                    return joined;
                }
                if let Some(ended) = over_two_rings(joined, spec.writes()) {
                    return ended;
                }
            }
        };
        match tokio::time::timeout(within, joined).await {
            Ok(reply) => reply,
            Err(_) => Err(Failure::Timeout {
                within,
                limit: "coverage_timeout",
            }),
        }
    }

    async fn join_parts(
        &self,
        target: GuestCommand,
        spec: &CommandSpec,
        words: &Words,
        (call, begun): (&Call, Instant),
    ) -> Result<Vec<u8>, Failure> {
        let mut joined = Joined::new(spec.aggregate, &self.limits);
        let plan = self.plan(target, call.wishes.partial)?;
        self.bring_together(target, &plan).await;
        let mut ranges: VecDeque<_> = plan.into();
        let mut window = VecDeque::new();
        loop {
            while window.len() < WINDOW
                && let Some(part) = ranges.pop_front()
            {
                let command = self.command(spec, words, part.range);
                window.push_back(self.pages(target, part, command, Vec::new()));
            }
            let Some(mut pages) = window.pop_front() else {
                return Ok(joined.finish());
            };
            let (mut part, mut part_of) = ((Vec::new(), 0), None);
            while let Some(page) = pages.recv().await {
                let (covered, page) = page?;
                joined.add_page(&page)?;
                if call.recorder.is_some() {
                    part.0.extend_from_slice(&page.items);
                    part.1 += page.count;
                }
                part_of = Some((covered, page.version));
            }
            if let (Some(recorder), Some(of)) = (&call.recorder, part_of) {
                self.record_part(recorder, of, begun, part);
            }
        }
    }

    /// Runs a coverage command and hands each part on as it comes; ends early when nobody takes them.
    pub async fn stream(
        &self,
        target: GuestCommand,
        words: &Words,
        parts: mpsc::Sender<Result<Part, Failure>>,
    ) {
        let _under_way = UnderWay::new(&self.calls);
        let begun = Instant::now();
        let sent = async {
            let front = self.front();
            let spec = front
                .spec(target)
                .ok_or_else(|| Failure::Usage("no such command".into()))?;
            self.plan(target, false)?;
            // Where to go on. A place means the same on every ring, so a resize changes nothing.
            let mut reached = Vec::new();
            loop {
                let size = self.ring_size();
                let from = reached
                    .first_chunk()
                    .map_or(0, |hash| u64::from_be_bytes(*hash));
                let range = size.range_of(from);
                let covered = self.covered(target, range);
                let covered = covered.ok_or_else(|| uncovered(&[range]))?;
                self.bring_together(target, std::slice::from_ref(&covered))
                    .await;
                let last = size.hash_range(range).1;
                let mut pages = self.pages(
                    target,
                    covered,
                    self.command(spec, words, range),
                    reached.clone(),
                );
                while let Some(page) = pages.recv().await {
                    let page = match self.ring_size() == size {
                        true => page,
                        false => match over_two_rings(page, spec.writes()) {
                            Some(page) => page,
                            None => break,
                        },
                    };
                    let (_, page) = page?;
                    let part = Part {
                        range,
                        items: page.items,
                        count: page.count,
                        version: page.version,
                    };
                    if parts.send(Ok(part)).await.is_err() {
                        return Ok(());
                    }
                    reached = match (page.next, last.checked_add(1)) {
                        (Some(place), _) => place,
                        (None, Some(next)) => next.to_be_bytes().to_vec(),
                        (None, None) => return Ok(()),
                    };
                }
            }
        };
        let ended = sent.await;
        self.count_coverage(target, ended.as_ref().err(), begun);
        if let Err(failure) = ended {
            drop(parts.send(Err(failure)).await);
        }
    }

    /// Counts a coverage command that began then and has ended.
    pub(super) fn count_coverage(
        &self,
        target: GuestCommand,
        failure: Option<&Failure>,
        begun: Instant,
    ) {
        let front = self.front();
        let edition = front.edition(target.service);
        if let Some(stats) = edition.and_then(|one| one.counters().coverage().get(target.command)) {
            let ended = failure.map_or(Ended::Ok, Failure::ended);
            stats.count(ended, begun.elapsed());
        }
    }

    /// The vnode that answers for a range, if a primary of it is up.
    fn covered(&self, target: GuestCommand, range: PartitionId) -> Option<Covered> {
        let view = self.view();
        let n = self.services.get(target.service)?.n();
        let holder = view.coordinator(range, n).filter(Holder::is_primary)?;
        Some(Covered {
            range,
            partition: holder.partition,
            node: view.nodes().get(usize::from(holder.node))?.clone(),
            here: view.is_here(&holder),
        })
    }

    /// Which vnode answers for which range, in ring order: the one that runs the commands of the range, since it has seen every
    /// write that was acknowledged.
    fn plan(&self, target: GuestCommand, partial: bool) -> Result<Vec<Covered>, Failure> {
        let (mut covered, mut missing) = (Vec::new(), Vec::new());
        let size = self.ring_size();
        for range in size.partitions() {
            match self.covered(target, range) {
                Some(one) => covered.push(one),
                None => missing.push(range),
            }
        }
        if !missing.is_empty() && !partial {
            return Err(uncovered(&missing));
        }
        covered.sort_by_key(|covered| size.hash_range(covered.range).0);
        Ok(covered)
    }

    /// Has the vnodes that answer know what the other replicas of their ranges know: one that was away may not, and reads wait for
    /// more than one as well.
    async fn bring_together(&self, target: GuestCommand, plan: &[Covered]) {
        let Some(service) = self.services.get(target.service) else {
            return;
        };
        if self.consistency(&self.front(), target).looks() {
            let ranges = plan.iter().map(|covered| covered.range);
            join_all(
                ranges
                    .map(|range| self.compare(service, range, Duration::ZERO))
                    .collect(),
            )
            .await;
        }
    }

    fn command(&self, spec: &CommandSpec, words: &Words, range: PartitionId) -> TypedCommand {
        let request_id = self.next_id();
        TypedCommand {
            name: spec.name.clone(),
            args: words.args().map(<[u8]>::to_vec).collect(),
            request_id,
            // Only primaries are asked for coverage.
            fallback: false,
            scope: Scope {
                range,
                writes: spec.writes(),
                now_ms: self.now_ms(),
                seed: seed(request_id),
            },
        }
    }

    /// Asks for all pages of a range from a place on, one after another; at most one waits to be taken.
    fn pages(
        &self,
        target: GuestCommand,
        covered: Covered,
        command: TypedCommand,
        from: Vec<u8>,
    ) -> mpsc::Receiver<Result<(Covered, CoveragePage), Failure>> {
        let (pages, received) = mpsc::channel(1);
        let Some(coordinator) = self.me.upgrade() else {
            return received;
        };
        tokio::spawn(async move {
            let mut reader = Reader {
                coordinator: &coordinator,
                target,
                covered,
                command,
            };
            let first = reader
                .coordinator
                .ring_size()
                .hash_range(reader.covered.range)
                .0;
            // At the beginning of the range, as a guest is used to, there is no place to go on from.
            let mut cursor =
                Some(from).filter(|from| from.as_slice() > first.to_be_bytes().as_slice());
            loop {
                let page = reader.page(cursor.as_deref()).await;
                let next = page.as_ref().ok().and_then(|page| page.next.clone());
                let page = page.map(|page| (reader.covered.clone(), page));
                if pages.send(page).await.is_err() || next.is_none() {
                    return;
                }
                cursor = next;
            }
        });
        received
    }

    fn asker(&self, target: GuestCommand, covered: &Covered, command: TypedCommand) -> Asker {
        if !covered.here {
            let name = self
                .services
                .get(target.service)
                .map(|service| service.name());
            return Asker::There(Distant {
                cluster: Arc::clone(&self.cluster),
                node: covered.node.clone(),
                service: name.unwrap_or_default().to_owned(),
                partition: covered.partition,
                command,
                within: self.limits.coverage_timeout,
            });
        }
        let seat = self.seat(target.service, covered.partition);
        Asker::Here(Near {
            seat,
            inbox: self.inboxes.get(self.executor_of(seat)).cloned(),
            command,
            acknowledge: self.acknowledge.clone(),
        })
    }

    /// Answers another node that asks for a page.
    pub(super) async fn answer_page(&self, asked: PageAsk) -> Vec<u8> {
        distant::encode(&self.page_for(asked).await)
    }

    async fn page_for(&self, asked: PageAsk) -> Result<CoveragePage, Failure> {
        let view = self.view();
        let partition = asked.partition;
        let owned = view.ring().is_owner(view.me(), partition);
        let service = self
            .services
            .iter()
            .position(|service| service.name() == asked.service);
        let (true, Some(service)) = (owned, service) else {
            return Err(Failure::Moving { partition });
        };
        let seat = self.seat(service, partition);
        let near = Near {
            seat,
            inbox: self.inboxes.get(self.executor_of(seat)).cloned(),
            command: asked.command(),
            acknowledge: self.acknowledge.clone(),
        };
        near.page(asked.cursor).await
    }

    /// One call of a command with a client's cursor, as Redis SCAN has it.
    ///
    /// The cursor is a place on the ring: the hash at which the next page starts, so it needs no memory here and outlives
    /// any change of the ring. Keys with one tag share a hash and therefore a page.
    async fn scan_page(
        &self,
        target: GuestCommand,
        spec: &CommandSpec,
        words: &Words,
        call: &Call,
    ) -> Result<Vec<u8>, Failure> {
        let cursor = std::str::from_utf8(words.get(1))
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| Failure::Usage("invalid cursor".into()))?;
        let size = self.ring_size();
        let mut joined = Joined::new(Aggregate::Concat, &self.limits);
        let mut next = cursor;
        let ahead = self
            .plan(target, call.wishes.partial)?
            .into_iter()
            .filter(|covered| size.hash_range(covered.range).1 >= cursor);
        for covered in ahead {
            self.bring_together(target, std::slice::from_ref(&covered))
                .await;
            let range = covered.range;
            let (first, last) = size.hash_range(range);
            let mut reader = Reader {
                coordinator: self,
                target,
                covered,
                command: self.command(spec, words, range),
            };
            let mut position = (next > first).then(|| next.to_be_bytes().to_vec());
            // 0 after the last range: the ring is done, as in Redis.
            next = last.wrapping_add(1);
            loop {
                let page = reader.page(position.take().as_deref()).await?;
                joined.append(&page.items, page.count)?;
                match page.next {
                    None => break,
                    // The page ended between two hashes: a place that a client's cursor can name.
                    Some(place) if place.len() == 8 => {
                        next = place.try_into().map_or(0, u64::from_be_bytes);
                        break;
                    }
                    // It ended among very many keys with one tag; they all belong to this call.
                    Some(place) => position = Some(place),
                }
            }
            let range_done = next == last.wrapping_add(1);
            if !range_done || joined.len() >= PAGE_ITEMS_MIN {
                break;
            }
        }
        let mut out = Vec::new();
        write::array(&mut out, 2);
        write::bulk(&mut out, next.to_string().as_bytes());
        out.extend_from_slice(&joined.finish());
        Ok(out)
    }
}

/// What became of a command, or a page of one, during which the ring was resized; none if it is asked for again by the new numbers.
///
/// What reads is: the parts of two rings do not fit together, and a vnode that had not heard of the new one may lack what was written by
/// that. What writes is never run twice: whatever is not certain to have happened is refused.
fn over_two_rings<T>(ended: Result<T, Failure>, writes: bool) -> Option<Result<T, Failure>> {
    match (writes, ended) {
        (false, _) => None,
        (true, Ok(done)) => Some(Ok(done)),
        (true, Err(_)) => Some(Err(Failure::Resized)),
    }
}

fn uncovered(ranges: &[PartitionId]) -> Failure {
    let names: Vec<String> = ranges.iter().map(PartitionId::to_string).collect();
    let names = names.join(", ");
    Failure::Incomplete(format!(
        "no replica is up of the keys of partitions {names}"
    ))
}

/// Reads the pages of a range, from whichever vnode answers for it by now.
struct Reader<'a> {
    coordinator: &'a Coordinator,
    target: GuestCommand,
    covered: Covered,
    command: TypedCommand,
}

impl Reader<'_> {
    /// The page that begins at a place. A range that has moved meanwhile, or whose node went away, is asked where it is now: the
    /// place means the same there.
    async fn page(&mut self, place: Option<&[u8]>) -> Result<CoveragePage, Failure> {
        let begun = Instant::now();
        loop {
            let command = self.command.clone();
            let asker = self.coordinator.asker(self.target, &self.covered, command);
            let page = asker.page(place.map(<[u8]>::to_vec)).await;
            match page {
                Err(failure) if failure.passes() && begun.elapsed() < MOVES_WITHIN => {
                    tokio::time::sleep(RETRY_EVERY).await;
                    let range = self.covered.range;
                    if !self.coordinator.ring_size().contains(range) {
                        return Err(failure);
                    }
                    if let Some(covered) = self.coordinator.covered(self.target, range) {
                        self.covered = covered;
                    }
                }
                page => return page,
            }
        }
    }
}

/// Asks one vnode for pages of one command.
enum Asker {
    Here(Near),
    There(Distant),
}

impl Asker {
    async fn page(&self, cursor: Option<Vec<u8>>) -> Result<CoveragePage, Failure> {
        match self {
            Asker::Here(near) => near.page(cursor).await,
            Asker::There(distant) => distant.page(cursor).await,
        }
    }
}

/// A vnode of this node.
struct Near {
    seat: usize,
    inbox: Option<Arc<Inbox>>,
    command: TypedCommand,
    acknowledge: Acknowledge,
}

impl Near {
    async fn page(&self, cursor: Option<Vec<u8>>) -> Result<CoveragePage, Failure> {
        let Some(inbox) = &self.inbox else {
            return Err(Failure::Draining);
        };
        let (reply, answer) = oneshot::channel();
        let request = PageRequest {
            command: self.command.clone(),
            cursor,
            reply,
        };
        inbox.send(Message::Page(self.seat, Box::new(request)));
        let (page, after, replicated) = answer.await.map_err(|_| Failure::Draining)??;
        if let Some(replicated) = replicated {
            let done = replicated.await.map_err(|_| Failure::Draining)?;
            if let Ok(Value::Error { code, message }) = Value::parse(&done, &ReplyLimits::default())
            {
                return Err(Failure::Elsewhere { code, message });
            }
            return Ok(page);
        }
        if let Some(after) = after
            && !self.acknowledge.clone().wait_for(after).await
        {
            return Err(Failure::NotDurable);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_two_rings_what_reads_begins_anew_and_what_writes_never_does() {
        let moving = || {
            let partition = PartitionId::from_id(1);
            Err(Failure::Moving { partition })
        };
        assert!(over_two_rings(Ok(1), false).is_none());
        assert!(over_two_rings::<()>(moving(), false).is_none());
        assert!(matches!(over_two_rings(Ok(1), true), Some(Ok(1))));
        let Some(Err(failure)) = over_two_rings::<()>(moving(), true) else {
            panic!("it began anew");
        };
        assert_eq!(failure.code(), "TRYAGAIN");
        assert!(failure.to_string().contains("may have happened in part"));
    }
}
