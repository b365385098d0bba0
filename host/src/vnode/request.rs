//! One command on its way to a vnode, and what comes back.

use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vnode_ring::quorum::Quorum;
use vnode_ring::{PartitionId, Role};

use super::failure::Failure;
use super::words::Words;
use crate::coordinator::trace::Trace;
use crate::store::Commit;
use crate::wasm::Placement;

/// How many replicas a command has and waits for, and for how long. The names are riak's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Replicas of each key.
    pub n: u8,
    /// Replicas that a read waits for.
    pub r: u8,
    /// Replicas that a write waits for.
    pub w: u8,
    /// How many of `r` have to be primaries.
    pub pr: u8,
    /// How many of `w` have to be primaries.
    pub pw: u8,
    /// How many of `w` have to have it on disk, whatever `sync` says.
    pub dw: u8,
    /// On how many different nodes the replicas that are waited for have to be. 0: a read does not care, and a write wants as
    /// many as `w`, or all that can be reached where those are fewer.
    pub node_confirms: u8,
    /// Time for the reply, milliseconds.
    pub timeout_ms: u32,
}

impl Consistency {
    /// One replica, and no longer than that.
    pub fn single(within: Duration) -> Consistency {
        Consistency {
            n: 1,
            r: 1,
            w: 1,
            pr: 0,
            pw: 0,
            dw: 0,
            node_confirms: 0,
            timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// Time for the reply.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    /// What a write waits for.
    pub fn of_write(&self) -> Quorum {
        Quorum {
            n: self.n,
            need: self.w,
            primaries: self.pw,
            durable: self.dw,
            nodes: self.node_confirms,
            spread: self.node_confirms == 0,
        }
    }

    /// What a read waits for.
    pub fn of_read(&self) -> Quorum {
        Quorum {
            n: self.n,
            need: self.r,
            primaries: self.pr,
            durable: 0,
            nodes: self.node_confirms,
            spread: false,
        }
    }

    /// What a write waits for, in words: `w=2 pw=1`.
    pub fn write_words(&self) -> String {
        words(&[
            ("w", self.w),
            ("pw", self.pw),
            ("dw", self.dw),
            ("node_confirms", self.node_confirms),
        ])
    }

    /// What a read waits for, in words.
    pub fn read_words(&self) -> String {
        words(&[
            ("r", self.r),
            ("pr", self.pr),
            ("node_confirms", self.node_confirms),
        ])
    }

    /// Whether a read has to hear of other replicas than the one that runs it.
    pub fn looks(&self) -> bool {
        self.n > 1 && (self.r > 1 || self.pr > 1 || self.node_confirms > 1)
    }
}

fn words(parts: &[(&str, u8)]) -> String {
    let named = parts.iter().filter(|(_, count)| *count > 0);
    let named: Vec<String> = named
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    named.join(" ")
}

/// What a vnode is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run the command, and bring what it writes to the other replicas.
    Command,
    /// Run the command, as every replica does.
    Each,
    /// Say what it holds under the command's keys, before the others are asked and the command runs.
    Look,
    /// Take in these objects: one word, the rows of a [`Batch`](crate::store::Batch), and maybe their
    /// [checksum](super::replica::page_checksum).
    Merge,
    /// Give its objects under these keys: pairs of words, a key and what is held there already ([`Held`]).
    Fetch,
    /// Give its next rows, whatever their range: one word, where to go on, empty at first. See
    /// [`page`](super::replica::page).
    Page,
    /// Remove these rows if they are still as said: pairs of words as in a fetch.
    Forget,
    /// Sum up the rows of the range: one word, the root of the asker's hash tree, or none. See
    /// [`leaves`](super::replica::leaves).
    Leaves,
    /// List the rows of one leaf of the range's hash tree: one word, its number. See [`leaf`](super::replica::leaf).
    Leaf,
    /// List the next tombstones of the range: two words, where to go on, empty at first, and the wall clock (milliseconds, u64) before
    /// which they were written. See [`tombstones`](super::replica::tombstones).
    Tombstones,
    /// Remove these tombstones, which nobody needs any more: pairs of words as in a fetch.
    Reap,
}

impl Work {
    /// Whether it changes nothing and needs no guest.
    pub fn only_shows(self) -> bool {
        match self {
            Work::Fetch | Work::Page | Work::Leaves | Work::Leaf | Work::Tombstones => true,
            Work::Command | Work::Each | Work::Look => false,
            Work::Merge | Work::Forget | Work::Reap => false,
        }
    }

    /// Whether doing it twice is the same as doing it once.
    pub fn may_repeat(self) -> bool {
        !self.is_named()
    }

    /// Whether it may leave something that was not there before.
    pub fn brings(self) -> bool {
        self.runs() || self == Work::Merge
    }

    /// Whether it is about one of the guest's commands.
    pub fn is_named(self) -> bool {
        self.runs() || self == Work::Look
    }

    /// Whether the guest runs.
    pub fn runs(self) -> bool {
        matches!(self, Work::Command | Work::Each)
    }
}

/// What the asking replica holds under a key, on its way in a [`Work::Fetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Hash prefix of the key.
    pub hash: u64,
    /// Digest of the object; 0 without one.
    pub digest: u64,
}

impl Held {
    /// As a word.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.hash) << 64 | u128::from(self.digest)).to_le_bytes()
    }

    /// From a word.
    pub fn from_bytes(word: &[u8]) -> Option<Held> {
        let both = u128::from_le_bytes(word.try_into().ok()?);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the halves are what they were"
        )]
        Some(Held {
            hash: (both >> 64) as u64,
            digest: both as u64,
        })
    }
}

/// A command for one vnode.
#[derive(Debug)]
pub struct Request {
    /// Which service.
    pub service: u16,
    /// What to do. The command is looked at for [`Work::Command`] and [`Work::Look`] only.
    pub work: Work,
    /// Position of the command in its descriptor.
    pub command: u16,
    /// The vnode's partition.
    pub partition: PartitionId,
    /// Part of the ring that the command belongs to, named by its first replica.
    pub range: PartitionId,
    /// Hash prefix of its first key as it is stored; 0 without a key.
    pub hash: u64,
    /// Name and arguments.
    pub words: Words,
    /// Wall clock of the coordinator, milliseconds.
    pub now_ms: u64,
    /// Name of the command in the cluster.
    pub id: u64,
    /// It runs through the typed door, whatever others of its kind do.
    pub alone: bool,
    /// As what the vnode serves it.
    pub role: Role,
    /// How many replicas it has and waits for.
    pub consistency: Consistency,
    /// What is known of it so far, if somebody wants to hear of that.
    pub trace: Option<Box<Trace>>,
    /// How often it went to a node that was not the right one any more.
    pub tries: u8,
    /// When it arrived.
    pub arrived: Instant,
    /// Who waits for the reply.
    pub reply_to: ReplyTo,
}

impl Request {
    /// The same request for somebody else. Nobody waits for its reply.
    pub fn copy(&self) -> Request {
        Request {
            words: self.words.clone(),
            reply_to: ReplyTo::Nobody,
            trace: None,
            ..*self
        }
    }

    /// Hash prefix of the key that is the `nth` of its keys: that of the first is known.
    pub fn hash_of(&self, nth: usize, key: &[u8], placement: &Placement) -> u64 {
        match nth {
            0 => self.hash,
            _ => placement.hash_of(key),
        }
    }

    /// Whether what it writes goes to other replicas.
    pub fn replicates(&self) -> bool {
        self.work == Work::Command && self.consistency.n > 1
    }

    /// Whether nobody waits for it any more, at `now`.
    pub fn is_late(&self, now: Instant) -> bool {
        let closed = matches!(&self.reply_to, ReplyTo::Task(task) if task.is_closed());
        closed || now.saturating_duration_since(self.arrived) > self.consistency.within()
    }
}

/// Who waits for a reply.
#[derive(Debug)]
pub enum ReplyTo {
    /// A place in the pipeline of a client's connection.
    Connection {
        /// The executor that serves the connection.
        executor: u16,
        /// The connection there.
        connection: u64,
        /// The place.
        seq: u32,
    },
    /// A node that sent the command on, by its link.
    Peer {
        /// The executor that serves the link.
        executor: u16,
        /// The link there.
        link: u64,
        /// The command's name on that link.
        id: u64,
    },
    /// A task of the coordinator. Gets the RESP3 value, errors included.
    Task(oneshot::Sender<Vec<u8>>),
    /// A request that waits for several replicas.
    Flight {
        /// The executor that holds it.
        executor: u16,
        /// The flight there.
        flight: u64,
        /// Position of the replica among those that were asked.
        holder: u8,
    },
    /// Nobody.
    Nobody,
}

/// What a run of commands produced: replies, RESP3 values in one buffer, and what other replicas have to hear.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    entries: Vec<Reply>,
    /// What was written here and is to be written to other replicas before the replies in it are sent.
    pub written: Vec<Written>,
    /// Commands that may run when other replicas have been heard.
    pub looked: Vec<Looked>,
}

/// What one run of commands wrote.
#[derive(Debug)]
pub struct Written {
    /// The service.
    pub service: u16,
    /// The partition whose vnode ran them.
    pub partition: PartitionId,
    /// The part of the ring to which they belong.
    pub range: PartitionId,
    /// The same for all of them.
    pub consistency: Consistency,
    /// The rows of the batch.
    pub rows: Vec<u8>,
    /// When it is on disk here.
    pub commit: Commit,
    /// When the first of the commands arrived.
    pub arrived: Instant,
    /// The replies of those that wrote.
    pub replies: HeldReplies,
    /// Of the only command, if it is traced.
    pub trace: Option<Box<Trace>>,
}

/// Replies that are not sent yet: RESP3 values in one buffer.
#[derive(Debug, Default)]
pub struct HeldReplies {
    bytes: Vec<u8>,
    /// Who waits, and where his reply ends.
    waiting: Vec<(ReplyTo, usize)>,
}

impl HeldReplies {
    /// Adds the reply of a command.
    pub fn add(&mut self, to: ReplyTo, reply: &[u8]) {
        self.bytes.extend_from_slice(reply);
        self.waiting.push((to, self.bytes.len()));
    }

    /// Takes them all out.
    pub fn each(self, mut take: impl FnMut(ReplyTo, &[u8])) {
        let mut start = 0;
        for (to, end) in self.waiting {
            take(to, self.bytes.get(start..end).unwrap_or_default());
            start = end;
        }
    }
}

/// A command that waits until other replicas have been heard.
#[derive(Debug)]
pub struct Looked {
    /// The command.
    pub request: Request,
    /// What is held here under each of its keys.
    pub held: SmallVec<[Held; 1]>,
}

/// One reply in `Replies`.
#[derive(Debug)]
pub struct Reply {
    /// Who waits for it.
    pub to: ReplyTo,
    /// It may only be sent once this is durable.
    pub after: Option<Commit>,
    /// On disk, whatever `sync` says.
    pub on_disk: bool,
    range: Range<usize>,
}

impl Replies {
    /// Adds a reply; `write` appends one RESP3 value to the buffer.
    pub fn push(&mut self, to: ReplyTo, after: Option<Commit>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.entries.push(Reply {
            to,
            after,
            on_disk: false,
            range: start..self.bytes.len(),
        });
    }

    /// Adds the answer of a replica. `on_disk` has it wait for the disk, whatever `sync` says.
    pub fn answer(&mut self, to: ReplyTo, after: Option<Commit>, on_disk: bool, answer: &[u8]) {
        self.push(to, after, |out| out.extend_from_slice(answer));
        if let Some(reply) = self.entries.last_mut() {
            reply.on_disk = on_disk;
        }
    }

    /// Adds an error.
    pub fn fail(&mut self, to: ReplyTo, failure: &Failure) {
        self.push(to, None, |out| failure.write(out));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.written.is_empty() && self.looked.is_empty()
    }

    /// Takes all replies out, each with its bytes, and keeps the memory.
    pub fn drain(&mut self, mut each: impl FnMut(Reply, &[u8])) {
        for reply in self.entries.drain(..) {
            let bytes = self.bytes.get(reply.range.clone()).unwrap_or_default();
            each(reply, bytes);
        }
        self.bytes.clear();
        // One huge reply must not pin its memory for ever.
        self.bytes.shrink_to(256 * 1024);
    }
}
