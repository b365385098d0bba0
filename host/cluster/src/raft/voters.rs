//! Which members vote in the consensus. Pure: a function from what is known to the next change to make.
//!
//! Up to five valid members vote, spread over the locations; all others learn. Voters stay voters as long as that is fine.
//! One change is made at a time, and none that the voters who are up could not carry through, or could not go on after.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vnode_ring::MemberStatus;

/// How many members vote at most. Five go on when two are lost; more would only make each change slower.
pub const VOTERS_MAX: usize = 5;
/// After this time without contact a voter's vote goes to another member, if there is one. Its status stays as it is: only an
/// operator calls a member down.
pub const VOTER_UNREACHABLE_MAX: Duration = Duration::from_mins(10);

/// Whether a member is there, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It answers and has about all of the log.
    Current,
    /// It answers, and the log is still being sent to it.
    Behind,
    /// It has not answered for this time.
    Lost(Duration),
}

/// What matters of a member here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its status in the map.
    pub status: MemberStatus,
    /// What it would fail together with. Members without one count as being at one place.
    pub location: Option<String>,
    /// Whether it is there.
    pub contact: Contact,
}

/// Who takes part in the consensus now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// The voter that leads, and makes the change.
    pub leader: u64,
    /// Who votes.
    pub voters: BTreeSet<u64>,
    /// Who gets the log without voting.
    pub learners: BTreeSet<u64>,
    /// Those of both who are no members any more, and answer.
    pub strangers: BTreeSet<u64>,
}

/// One change of who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This member begins to learn.
    Learn(u64),
    /// These vote from now on. At most one comes and at most one goes, which then learns.
    Vote(BTreeSet<u64>),
    /// This node is no member any more, and stops learning.
    Forget(u64),
}

/// The next change to make; `None` when all is well, or nothing can be done now.
#[must_use]
pub fn next_change(seats: &Seats, members: &BTreeMap<u64, Member>) -> Option<Change> {
    let view = View { seats, members };
    if !view.majority_is_there(&seats.voters) {
        return None;
    }
    view.vote()
        .or_else(|| view.learn())
        .or_else(|| view.forget())
}

struct View<'a> {
    seats: &'a Seats,
    members: &'a BTreeMap<u64, Member>,
}

impl View<'_> {
    fn vote(&self) -> Option<Change> {
        self.retire()
            .or_else(|| self.relieve())
            .or_else(|| self.resize())
            .or_else(|| self.spread())
            .map(Change::Vote)
    }

    /// Takes the vote from one that may not vote, and gives it to another if one is ready or about to be.
    fn retire(&self) -> Option<BTreeSet<u64>> {
        let unfit = |id: &&u64| !self.may_vote(**id);
        // Those that are gone first, since they count against the majority. The leader last: it makes the changes.
        let order = |id: &&u64| (**id == self.seats.leader, self.is_there(**id));
        let leaving = *self.seats.voters.iter().filter(unfit).min_by_key(order)?;
        if let Some(coming) = self.candidate(Some(leaving)) {
            return self.sound(Some(leaving), Some(coming));
        }
        if self.someone_gets_ready() {
            return None;
        }
        self.sound(Some(leaving), None)
    }

    /// Gives the vote of one that has been lost for long to another. The number of votes stays.
    fn relieve(&self) -> Option<BTreeSet<u64>> {
        let lost_for = |id: &u64| match self.members.get(id)?.contact {
            Contact::Lost(time) if time >= VOTER_UNREACHABLE_MAX => Some((time, Reverse(*id))),
            _ => None,
        };
        let (_, Reverse(lost)) = self.seats.voters.iter().filter_map(lost_for).max()?;
        let coming = self.candidate(Some(lost))?;
        self.sound(Some(lost), Some(coming))
    }

    /// Adds a voter where one is missing, or removes one that is too many.
    fn resize(&self) -> Option<BTreeSet<u64>> {
        if self.seats.voters.len() < VOTERS_MAX {
            return self.sound(None, Some(self.candidate(None)?));
        }
        if self.seats.voters.len() > VOTERS_MAX {
            return self.sound(Some(self.crowded()?), None);
        }
        None
    }

    /// Moves one vote to a location with at least two fewer.
    fn spread(&self) -> Option<BTreeSet<u64>> {
        let crowded = self.crowded()?;
        let coming = self.candidate(Some(crowded))?;
        let votes = self.votes_at(coming, None) + 2 <= self.votes_at(crowded, None);
        if votes {
            self.sound(Some(crowded), Some(coming))
        } else {
            None
        }
    }

    /// Also one that exits: it has to know who leads, to say that it has gone.
    fn learn(&self) -> Option<Change> {
        let outside = |id: &&u64| !self.takes_part(**id) && self.is_there(**id);
        self.members
            .keys()
            .find(outside)
            .copied()
            .map(Change::Learn)
    }

    fn forget(&self) -> Option<Change> {
        let gone = |id: &&u64| !self.members.contains_key(id);
        self.seats
            .learners
            .iter()
            .find(gone)
            .copied()
            .map(Change::Forget)
    }

    /// Who should vote next when `leaving` no longer does: where the fewest votes are.
    fn candidate(&self, leaving: Option<u64>) -> Option<u64> {
        let ready = |id: &&u64| self.may_vote(**id) && self.contact(**id) == Some(Contact::Current);
        let order = |id: &u64| (self.votes_at(*id, leaving), *id);
        self.seats
            .learners
            .iter()
            .filter(ready)
            .copied()
            .min_by_key(order)
    }

    /// Whether a candidate will be there soon, so that it is better to wait.
    fn someone_gets_ready(&self) -> bool {
        let on_its_way =
            |id: &u64| self.may_vote(*id) && self.is_there(*id) && !self.seats.voters.contains(id);
        self.members.keys().any(on_its_way)
    }

    /// A voter, not the leader, where the most votes are. Of those one that is not there, if any.
    fn crowded(&self) -> Option<u64> {
        let others = self
            .seats
            .voters
            .iter()
            .copied()
            .filter(|id| *id != self.seats.leader);
        others.max_by_key(|id| (self.votes_at(*id, None), !self.is_there(*id), *id))
    }

    /// The voters after a change, if the change can be made and they can go on after it.
    fn sound(&self, leaving: Option<u64>, coming: Option<u64>) -> Option<BTreeSet<u64>> {
        let stay = self
            .seats
            .voters
            .iter()
            .copied()
            .filter(|id| Some(*id) != leaving);
        let voters: BTreeSet<u64> = stay.chain(coming).collect();
        self.majority_is_there(&voters).then_some(voters)
    }

    fn majority_is_there(&self, voters: &BTreeSet<u64>) -> bool {
        let there = voters.iter().filter(|id| self.is_there(**id)).count();
        there * 2 > voters.len()
    }

    /// Votes at the location of `id`, but for the one of `leaving`.
    fn votes_at(&self, id: u64, leaving: Option<u64>) -> usize {
        let location = |id: u64| {
            self.members
                .get(&id)
                .and_then(|member| member.location.as_ref())
        };
        let counts = |voter: &&u64| Some(**voter) != leaving && location(**voter) == location(id);
        self.seats.voters.iter().filter(counts).count()
    }

    fn takes_part(&self, id: u64) -> bool {
        self.seats.voters.contains(&id) || self.seats.learners.contains(&id)
    }

    fn may_vote(&self, id: u64) -> bool {
        let member = self.members.get(&id);
        member.is_some_and(|member| member.status == MemberStatus::Valid)
    }

    fn contact(&self, id: u64) -> Option<Contact> {
        self.members.get(&id).map(|member| member.contact)
    }

    /// The leader is there whatever it says of itself.
    fn is_there(&self, id: u64) -> bool {
        let answers = matches!(self.contact(id), Some(Contact::Current | Contact::Behind));
        answers || id == self.seats.leader || self.seats.strangers.contains(&id)
    }
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
