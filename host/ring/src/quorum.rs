//! Quorums: when enough replicas have answered a request, and when they no longer can.
//!
//! Owns the counting, after riak_kv (`riak_kv_get_core`, `riak_kv_put_core`): a request succeeds as soon as that is certain and
//! fails as soon as success is impossible. It sends nothing, knows no time and merges no answers; who gives up waiting says
//! so with [`Answer::Failed`].

use std::fmt;

use crate::view::{Holder, REPLICAS_MAX};

/// What a request asks of the replicas of its key. All requirements must be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// How many replicas a key has.
    pub n: u8,
    /// How many must answer: r of a read, w of a write.
    pub need: u8,
    /// How many primaries must be among them: pr or pw.
    pub primaries: u8,
    /// How many must have the write where a crash does not lose it: dw; 0 for reads.
    pub durable: u8,
    /// On how many different nodes the answers must be: node_confirms.
    pub nodes: u8,
    /// The answers must besides be on as many different nodes as there have to be answers, or on all that have not failed where
    /// those are fewer: the loss of one node then takes no more than one of the answers with it.
    pub spread: bool,
}

impl Quorum {
    /// Checks that the numbers can be met when all nodes are up.
    ///
    /// # Errors
    /// Refuses an `n` outside 1 to [`REPLICAS_MAX`], a `need` of 0, and any requirement above `n`.
    pub fn check(&self) -> Result<(), QuorumError> {
        let n = self.n;
        if !(1..=REPLICAS_MAX).contains(&n.into()) {
            return Err(QuorumError::Replicas { n });
        }
        if self.need == 0 {
            return Err(QuorumError::NothingNeeded);
        }
        let mut all = Requirement::ALL.into_iter();
        match all.find(|&requirement| self.wanted(requirement) > n) {
            Some(requirement) => Err(QuorumError::AboveReplicas {
                requirement,
                wanted: self.wanted(requirement),
                n,
            }),
            None => Ok(()),
        }
    }

    /// How much of one requirement is asked for.
    #[must_use]
    pub fn wanted(&self, requirement: Requirement) -> u8 {
        match requirement {
            Requirement::Answers => self.need,
            Requirement::Primaries => self.primaries,
            Requirement::Durable => self.durable,
            Requirement::Nodes => self.nodes,
        }
    }
}

/// One of the things a quorum asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// r or w.
    Answers,
    /// pr or pw.
    Primaries,
    /// dw.
    Durable,
    /// node_confirms.
    Nodes,
}

impl Requirement {
    /// All of them, in the order in which shortages are told.
    pub const ALL: [Requirement; 4] = [
        Requirement::Answers,
        Requirement::Primaries,
        Requirement::Durable,
        Requirement::Nodes,
    ];
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Requirement::Answers => "replicas",
            Requirement::Primaries => "primaries",
            Requirement::Durable => "durable replicas",
            Requirement::Nodes => "nodes",
        })
    }
}

/// Why a quorum was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// A key cannot have that many replicas.
    #[error("n={n} is not a number of replicas from 1 to {REPLICAS_MAX}")]
    Replicas {
        /// The number found.
        n: u8,
    },
    /// No answer is waited for.
    #[error("a quorum of 0 replicas waits for nobody; ask for at least 1")]
    NothingNeeded,
    /// Some requirement cannot be met even when all nodes are up.
    #[error("a quorum of {wanted} {requirement} cannot be met with n={n}; ask for at most {n}")]
    AboveReplicas {
        /// What is asked for.
        requirement: Requirement,
        /// How much of it.
        wanted: u8,
        /// How many replicas a key has.
        n: u8,
    },
}

/// What a vnode says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has done what was asked; a write is in memory. Whether a missing object counts as this is the reader's choice
    /// (riak's notfound_ok).
    Applied,
    /// As [`Answer::Applied`], and a crash does not lose it.
    Durable,
    /// It was asked to read and holds nothing. Of a primary this is [`Answer::Applied`]. A fallback has missed all that was
    /// written before it stood in, so what it lacks says nothing until every primary has answered or failed.
    Absent,
    /// It refused, failed, or will not be waited for. After [`Answer::Applied`]: it will not become durable.
    Failed,
}

/// How a request stands. [`Outcome::Enough`] and [`Outcome::Impossible`] are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It depends on answers that are still to come.
    Waiting,
    /// The quorum is met.
    Enough,
    /// Whatever the others answer, the quorum will not be met.
    Impossible,
}

/// A requirement that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Which.
    pub requirement: Requirement,
    /// How much of it is asked for.
    pub wanted: u8,
    /// How much of it there is so far.
    pub got: u8,
}

/// Counts the answers to one request. Holders are named by their position in the list it was made with.
///
/// A vnode may answer twice, first that it has applied a write and later that the write is durable (or never will be); it
/// counts once for each requirement. Other repetitions change nothing. Answers that arrive after the outcome is settled are
/// still recorded, for whoever heals stragglers. Allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    quorum: Quorum,
    /// Everybody who was asked.
    asked: Set,
    /// The primaries among them.
    primaries: Set,
    /// For each holder, the first holder on the same node.
    first_on_node: [u8; REPLICAS_MAX as usize],
    applied: Set,
    durable: Set,
    /// Fallbacks that said [`Answer::Absent`].
    absent: Set,
    /// Those that said [`Answer::Failed`].
    failed: Set,
}

impl Collector {
    /// Starts to count. `holders` is the list that was asked, of at most [`REPLICAS_MAX`]; any further are left out.
    ///
    /// If the list cannot meet the quorum whatever it answers, being too short or having too few primaries, the outcome is
    /// [`Outcome::Impossible`] at once.
    #[must_use]
    pub fn new(quorum: Quorum, holders: &[Holder]) -> Collector {
        let mut collector = Collector {
            quorum,
            asked: Set::default(),
            primaries: Set::default(),
            first_on_node: [0; REPLICAS_MAX as usize],
            applied: Set::default(),
            durable: Set::default(),
            absent: Set::default(),
            failed: Set::default(),
        };
        let slots = (0..).zip(&mut collector.first_on_node);
        for ((at, slot), holder) in slots.zip(holders) {
            let first = (0..at)
                .zip(holders)
                .find(|(_, other)| other.node == holder.node);
            *slot = first.map_or(at, |(first, _)| first);
            collector.asked.insert(at);
            if holder.is_primary() {
                collector.primaries.insert(at);
            }
        }
        collector
    }

    /// Records what the holder at a position of the list answers, and says how the request stands now.
    pub fn answer(&mut self, holder: usize, answer: Answer) -> Outcome {
        let holder = u8::try_from(holder).ok();
        if let Some(holder) = holder.filter(|&holder| self.asked.contains(holder)) {
            let last_words = self.failed.or(self.durable).or(self.absent);
            match answer {
                _ if last_words.contains(holder) => {}
                Answer::Absent if self.applied.or(self.primaries).contains(holder) => {
                    self.applied.insert(holder);
                }
                Answer::Absent => self.absent.insert(holder),
                Answer::Applied => self.applied.insert(holder),
                Answer::Durable => {
                    self.applied.insert(holder);
                    self.durable.insert(holder);
                }
                Answer::Failed => self.failed.insert(holder),
            }
        }
        self.outcome()
    }

    /// How the request stands.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let met = |requirement| self.got(requirement) >= self.wanted(requirement);
        let may_be_met = |requirement| self.at_best(requirement) >= self.wanted(requirement);
        if Requirement::ALL.into_iter().all(met) {
            Outcome::Enough
        } else if Requirement::ALL.into_iter().all(may_be_met) {
            Outcome::Waiting
        } else {
            Outcome::Impossible
        }
    }

    /// What is asked for.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// How much of a requirement is asked for, now that some may have failed.
    fn wanted(&self, requirement: Requirement) -> u8 {
        let wanted = self.quorum.wanted(requirement);
        match requirement {
            Requirement::Nodes if self.quorum.spread => {
                wanted.max(self.quorum.need.min(self.at_best(requirement)))
            }
            _ => wanted,
        }
    }

    /// How much of a requirement there is so far.
    #[must_use]
    pub fn got(&self, requirement: Requirement) -> u8 {
        let open = self.primaries.without(self.applied.or(self.failed));
        let applied = match open.len() {
            0 => self.applied.or(self.absent),
            _ => self.applied,
        };
        self.count(requirement, applied, self.durable)
    }

    /// The first requirement that cannot be met any more, else the first that is not met yet; `None` if all are met.
    #[must_use]
    pub fn missing(&self) -> Option<Shortage> {
        let hopeless = |one: &Requirement| self.at_best(*one) < self.wanted(*one);
        let unmet = |one: &Requirement| self.got(*one) < self.wanted(*one);
        let mut all = Requirement::ALL.into_iter();
        let requirement = all.clone().find(hopeless).or_else(|| all.find(unmet))?;
        Some(Shortage {
            requirement,
            wanted: self.wanted(requirement),
            got: self.got(requirement),
        })
    }

    /// What the holder at a position of the list has answered; `None` if nothing yet.
    ///
    /// One that applied a write and failed to make it durable has [`Answer::Applied`].
    #[must_use]
    pub fn answer_of(&self, holder: usize) -> Option<Answer> {
        let holder = u8::try_from(holder).ok()?;
        let answers = [
            (self.durable, Answer::Durable),
            (self.applied, Answer::Applied),
            (self.absent, Answer::Absent),
            (self.failed, Answer::Failed),
        ];
        let given = answers.into_iter().find(|(set, _)| set.contains(holder));
        given.map(|(_, answer)| answer)
    }

    /// How many holders have been asked.
    #[must_use]
    pub fn asked(&self) -> u8 {
        self.asked.len()
    }

    /// How many have answered, whatever they said.
    #[must_use]
    pub fn answered(&self) -> u8 {
        self.applied.or(self.absent).or(self.failed).len()
    }

    /// Whether every holder has answered.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.answered() == self.asked()
    }

    /// How much of a requirement there would be if all that may still come were good news.
    fn at_best(&self, requirement: Requirement) -> u8 {
        let open = self.asked.without(self.failed.or(self.absent));
        let applied = self.applied.or(self.absent).or(open);
        self.count(requirement, applied, self.durable.or(open))
    }

    fn count(&self, requirement: Requirement, applied: Set, durable: Set) -> u8 {
        match requirement {
            Requirement::Answers => applied.len(),
            Requirement::Primaries => self.primaries.common(applied).len(),
            Requirement::Durable => durable.len(),
            Requirement::Nodes => {
                let mut nodes = Set::default();
                for at in applied {
                    let first = self.first_on_node.get(usize::from(at));
                    nodes.insert(first.copied().unwrap_or(at));
                }
                nodes.len()
            }
        }
    }
}

/// A set of holders, a bit for each; iterates over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u64);

const _: () = assert!(REPLICAS_MAX as u32 <= u64::BITS);

impl Set {
    fn insert(&mut self, holder: u8) {
        self.0 |= Set::bit(holder);
    }

    fn contains(self, holder: u8) -> bool {
        self.0 & Set::bit(holder) != 0
    }

    fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    fn common(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    fn without(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    fn len(self) -> u8 {
        u8::try_from(self.0.count_ones()).unwrap_or(u8::MAX)
    }

    /// No bit for positions that do not exist.
    fn bit(holder: u8) -> u64 {
        1_u64.checked_shl(holder.into()).unwrap_or_default()
    }
}

impl Iterator for Set {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let first = u8::try_from(self.0.trailing_zeros()).ok()?;
        self.0 &= self.0.checked_sub(1)?;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PartitionId;
    use crate::view::Role;

    /// Holders as text: a letter for the node, upper case for a primary.
    fn holders(text: &str) -> Vec<Holder> {
        let holder = |(at, letter): (u16, char)| Holder {
            partition: PartitionId::from_id(at),
            node: u16::try_from(u32::from(letter.to_ascii_lowercase())).unwrap(),
            role: match letter.is_ascii_uppercase() {
                true => Role::Primary,
                false => Role::Fallback,
            },
        };
        (0..).zip(text.chars()).map(holder).collect()
    }

    fn quorum([n, need, primaries, durable, nodes]: [u8; 5]) -> Quorum {
        Quorum {
            n,
            need,
            primaries,
            durable,
            nodes,
            spread: false,
        }
    }

    /// The outcomes at the start and after each answer (`1a`: the holder at 1 has applied; d durable, n holds nothing, f
    /// failed), as letters.
    fn followed(quorum: Quorum, list: &str, answers: &str) -> String {
        let mut collector = Collector::new(quorum, &holders(list));
        let mut outcomes = vec![collector.outcome()];
        for answer in answers.split_whitespace() {
            let (holder, said) = answer.split_at(1);
            let said = match said {
                "a" => Answer::Applied,
                "d" => Answer::Durable,
                "n" => Answer::Absent,
                _ => Answer::Failed,
            };
            outcomes.push(collector.answer(holder.parse().unwrap(), said));
        }
        let letters = outcomes.iter().map(|outcome| match outcome {
            Outcome::Waiting => 'w',
            Outcome::Enough => 'E',
            Outcome::Impossible => 'I',
        });
        letters.collect()
    }

    #[test]
    fn requests_end_as_soon_as_they_can() {
        let table = [
            // n, r or w, pr or pw, dw, node_confirms; holders; answers; outcomes
            ([3, 2, 0, 0, 0], "ABC", "0a 1a 2f", "wwEE"),
            ([3, 2, 0, 0, 0], "ABC", "0f 1a 2f", "wwwI"),
            ([3, 2, 0, 0, 0], "ABC", "0f 1f 2a", "wwII"),
            ([3, 2, 0, 0, 0], "ABC", "0a 0a 0d 1a", "wwwwE"),
            ([3, 2, 0, 0, 0], "A", "0a", "II"),
            ([3, 2, 2, 0, 0], "ABc", "2a 0a 1a", "wwwE"),
            ([3, 2, 2, 0, 0], "ABc", "1f 0a 2a", "wIII"),
            ([3, 2, 2, 0, 0], "Abc", "", "I"),
            ([3, 2, 0, 2, 0], "ABC", "0d 1a 2a 1d", "wwwwE"),
            ([3, 2, 0, 2, 0], "ABC", "0d 1a 1f 2f", "wwwwI"),
            ([3, 2, 0, 1, 0], "ABC", "0a 1a 1f 2d", "wwwwE"),
            ([3, 2, 0, 0, 0], "ABC", "0n 1a", "wwE"),
            ([3, 2, 0, 0, 0], "ABc", "0a 2n 1a", "wwwE"),
            ([3, 2, 0, 0, 0], "ABc", "0a 2n 1f", "wwwE"),
            ([3, 2, 0, 0, 0], "Abc", "1n 2n 0f", "wwwE"),
            ([3, 2, 0, 0, 0], "Abc", "1n 2f 0f", "wwwI"),
            ([3, 2, 0, 0, 2], "AAb", "0a 1a 2a", "wwwE"),
            ([3, 2, 0, 0, 2], "AAb", "2f", "wI"),
            ([3, 1, 0, 0, 2], "AAa", "", "I"),
        ];
        for (asked, list, answers, expected) in table {
            let found = followed(quorum(asked), list, answers);
            assert_eq!(found, expected, "{asked:?} of {list}: {answers}");
        }
    }

    #[test]
    fn a_shortage_names_what_cannot_be_met_before_what_only_takes_longer() {
        let mut collector = Collector::new(quorum([3, 3, 2, 0, 0]), &holders("ABc"));
        let shortage = |requirement, wanted, got| {
            Some(Shortage {
                requirement,
                wanted,
                got,
            })
        };
        assert_eq!(collector.missing(), shortage(Requirement::Answers, 3, 0));
        let mut second = Collector::new(quorum([3, 1, 2, 0, 0]), &holders("ABc"));
        second.answer(0, Answer::Failed);
        assert_eq!(second.missing(), shortage(Requirement::Primaries, 2, 0));
        for holder in 0..3 {
            assert!(!collector.all_answered());
            collector.answer(holder, Answer::Applied);
        }
        assert_eq!(collector.missing(), None);
        assert!(collector.all_answered());
        assert_eq!(collector.answer_of(2), Some(Answer::Applied));
        assert_eq!(collector.answer_of(3), None);
        assert_eq!(second.answer_of(0), Some(Answer::Failed));
        assert_eq!((second.asked(), second.answered()), (3, 1));
    }

    #[test]
    fn answers_are_spread_over_as_many_nodes_as_there_are() {
        let table = [
            ("ABC", "0a 1a", "wwE"),
            ("ABb", "1a 2a 0a", "wwwE"),
            ("ABb", "1a 2a 0f", "wwwE"),
            ("ABb", "0f 1a 2a", "wwwE"),
            ("AAA", "0a 1a", "wwE"),
            ("AAb", "2f 0f 1a", "wwII"),
        ];
        for (list, answers, expected) in table {
            let quorum = Quorum {
                spread: true,
                ..quorum([3, 2, 0, 0, 0])
            };
            assert_eq!(
                followed(quorum, list, answers),
                expected,
                "{list}: {answers}"
            );
        }
    }

    #[test]
    fn quorums_that_cannot_be_met_are_refused_with_their_numbers() {
        let refusal = |numbers| quorum(numbers).check().unwrap_err().to_string();
        assert_eq!(quorum([3, 2, 3, 3, 3]).check(), Ok(()));
        assert_eq!(quorum([64, 64, 0, 0, 0]).check(), Ok(()));
        assert_eq!(
            refusal([0, 1, 0, 0, 0]),
            "n=0 is not a number of replicas from 1 to 64"
        );
        assert_eq!(
            refusal([65, 1, 0, 0, 0]),
            "n=65 is not a number of replicas from 1 to 64"
        );
        assert_eq!(
            refusal([3, 0, 0, 0, 0]),
            "a quorum of 0 replicas waits for nobody; ask for at least 1"
        );
        let table = [
            ([3, 4, 0, 0, 0], "4 replicas"),
            ([3, 1, 5, 0, 0], "5 primaries"),
            ([3, 1, 0, 6, 0], "6 durable replicas"),
            ([3, 1, 0, 0, 7], "7 nodes"),
        ];
        for (numbers, what) in table {
            let expected = format!("a quorum of {what} cannot be met with n=3; ask for at most 3");
            assert_eq!(refusal(numbers), expected);
        }
    }
}
