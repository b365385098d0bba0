//! Requests that go to particular replicas, one by one, from tasks outside the executors.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use vnode_ring::{Holder, NodeName, Object, PartitionId, Role};

use super::trace::signed;
use super::{Coordinator, PATIENCE};
use crate::executor::Message;
use crate::vnode::failure::Failure;
use crate::vnode::replica::{Fetched, fetched, is_done, page, page_checksum};
use crate::vnode::request::{Consistency, Held, ReplyTo, Request, Work};
use crate::vnode::service::Service;
use crate::vnode::words::Words;

/// Counts as tried often enough: nobody else is asked in its stead.
const TRIED: u8 = u8::MAX - 1;

/// Which vnode is asked.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// One of a preference list.
    Holder(Holder),
    /// This one, whatever the preference lists say. Nobody else is asked in its stead.
    Vnode(Holder),
    /// The one of this node for a partition, whoever owns that.
    Here(PartitionId),
}

/// What a vnode is asked.
struct Asked {
    work: Work,
    words: Words,
    /// The answer is to wait for the disk.
    on_disk: bool,
    /// The answer is to say from which version it is.
    traced: bool,
}

impl Asked {
    fn of(work: Work, words: Words) -> Asked {
        Asked {
            work,
            words,
            on_disk: false,
            traced: false,
        }
    }
}

/// What one replica holds under a key.
pub struct Replica {
    /// Its node.
    pub node: NodeName,
    /// Its partition.
    pub partition: PartitionId,
    /// As what it holds the key.
    pub role: Role,
    /// The live values, oldest dot first.
    pub values: Result<Vec<Vec<u8>>, Failure>,
    /// The version of the guest on its vnode, if it has answered.
    pub version: Option<String>,
}

impl Coordinator {
    /// What each replica of a key holds right now, in the order of preference.
    pub async fn replicas(
        &self,
        service: &Arc<Service>,
        key: &[u8],
    ) -> Result<Vec<Replica>, Failure> {
        let view = self.view();
        let hash = service.placement.hash_of(key);
        let range = view.ring().size().range_of(hash);
        let held = Held { hash, digest: 0 };
        let mut replicas = Vec::new();
        for holder in &view.preferred(range, service.n()) {
            let words = Words::copy([key, &held.to_bytes()]);
            let asked = Asked {
                traced: true,
                ..Asked::of(Work::Fetch, words)
            };
            let answer = self.send(service, range, To::Holder(*holder), asked).await;
            let (version, values) = match &answer {
                Ok(answer) => {
                    let (version, answer) = signed(answer);
                    (version.map(str::to_owned), live_values(answer))
                }
                Err(failure) => (None, Err(failure.clone())),
            };
            let node = view.nodes().get(usize::from(holder.node));
            replicas.push(Replica {
                node: node.unwrap_or(view.me()).clone(),
                partition: holder.partition,
                role: holder.role,
                values,
                version,
            });
        }
        Ok(replicas)
    }

    /// Asks one replica and waits until it has done what it was asked. Returns its answer, which can be read with the functions of
    /// [`replica`](crate::vnode::replica).
    pub(super) async fn ask_replica(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        to: To,
        work: Work,
        words: Words,
    ) -> Result<Vec<u8>, Failure> {
        let asked = Asked::of(work, words);
        self.send(service, range, to, asked).await
    }

    /// Has one replica take in these rows, and waits until it has them on disk.
    pub(super) async fn entrust(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        to: To,
        rows: &[u8],
    ) -> Result<(), Failure> {
        let asked = Asked {
            on_disk: true,
            ..Asked::of(Work::Merge, page_words(rows))
        };
        self.send(service, range, to, asked).await.map(drop)
    }

    /// The same as a fetch, answered when what the replica holds is on its disk.
    pub(super) async fn confirm(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        of: Holder,
        words: Words,
    ) -> Result<Vec<u8>, Failure> {
        let asked = Asked {
            on_disk: true,
            ..Asked::of(Work::Fetch, words)
        };
        self.send(service, range, To::Holder(of), asked).await
    }

    /// The rows of the vnode here from a place on, packed as in a [`Batch`](crate::store::Batch), and where the next ones begin;
    /// empty after the last.
    pub(super) async fn rows_here(
        &self,
        service: &Arc<Service>,
        partition: PartitionId,
        place: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let words = Words::copy([place]);
        let answer = self
            .ask_replica(service, partition, To::Here(partition), Work::Page, words)
            .await?;
        let (rows, next) = page(&answer).ok_or_else(|| Failure::of_answer(&answer))?;
        Ok((rows.to_vec(), next.to_vec()))
    }

    async fn send(
        &self,
        service: &Arc<Service>,
        range: PartitionId,
        to: To,
        asked: Asked,
    ) -> Result<Vec<u8>, Failure> {
        let (partition, role) = match to {
            To::Holder(holder) | To::Vnode(holder) => (holder.partition, holder.role),
            To::Here(partition) => (partition, Role::Fallback),
        };
        let within = self.limits.request_timeout;
        let (reply_to, reply) = oneshot::channel();
        let request = Request {
            service: service.index,
            work: asked.work,
            command: 0,
            partition,
            range,
            hash: 0,
            words: asked.words,
            now_ms: self.now_ms(),
            id: 0,
            alone: false,
            role,
            consistency: Consistency {
                n: u8::try_from(service.n()).unwrap_or(u8::MAX),
                dw: asked.on_disk.into(),
                ..Consistency::single(within)
            },
            trace: asked.traced.then(Box::default),
            tries: match to {
                To::Vnode(_) => TRIED,
                To::Holder(_) | To::Here(_) => 0,
            },
            arrived: Instant::now(),
            reply_to: ReplyTo::Task(reply_to),
        };
        let seat = self.seat(usize::from(service.index), partition);
        let Some(inbox) = self.inboxes.get(self.executor_of(seat)) else {
            return Err(Failure::Draining);
        };
        inbox.send(match to {
            To::Holder(_) => Message::Request(Box::new(request)),
            To::Vnode(holder) => Message::Send(holder, Box::new(request)),
            To::Here(_) => Message::Here(Box::new(request)),
        });
        match tokio::time::timeout(within + PATIENCE, reply).await {
            Ok(Ok(answer)) if is_done(signed(&answer).1).is_some() => Ok(answer),
            Ok(Ok(refusal)) => Err(Failure::of_answer(&refusal)),
            Ok(Err(_)) => Err(Failure::Draining),
            Err(_) => Err(Failure::Timeout {
                within,
                limit: "request_timeout",
            }),
        }
    }
}

/// Rows as they go to another vnode, with their checksum.
pub(super) fn page_words(rows: &[u8]) -> Words {
    Words::copy([rows, &page_checksum(rows).to_le_bytes()])
}

fn live_values(answer: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let said = fetched(answer, 1).ok_or_else(|| Failure::of_answer(answer))?;
    match said.first() {
        Some(Fetched::Object(object)) => {
            let object = Object::decode(object)
                .map_err(|error| Failure::Usage(format!("a replica's object: {error}")))?;
            Ok(object.live().map(<[u8]>::to_vec).collect())
        }
        _ => Ok(Vec::new()),
    }
}
