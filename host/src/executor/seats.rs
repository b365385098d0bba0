//! The places of a node's vnodes, shared by its executors.
//!
//! A vnode belongs to no thread. An executor that has commands for it takes it out of its seat, runs them and brings it
//! back. One that finds the seat empty leaves its commands in the mailbox, and whoever brings the vnode back looks there.
//! So the commands of a vnode are serial and in the order in which they came to its seat, no executor waits for another,
//! and a command crosses threads only when two of them want the same vnode at once.

mod table;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::table::{NO_SEAT, SeatView, Seats};
use super::slow::{PageRequest, Work};
use crate::store::Ahead;
use crate::vnode::failure::Failure;
use crate::vnode::request::{Request, Work as Todo};
use crate::vnode::{Figures, Vnode};
use tokio::time::Instant;
use vnode_ring::Role;

/// A vnode whose guest overran stays on the slow threads for so long after.
const APART_FOR: Duration = Duration::from_secs(1);
/// Commands of one loan.
const LOAN_COMMANDS_MAX: usize = 64;

/// One vnode's place.
#[derive(Default)]
pub(crate) struct Seat {
    /// The vnode, unless somebody has it.
    vnode: Option<Box<Vnode>>,
    /// Whether there is one at all.
    seated: bool,
    /// Commands for whoever has the vnode next.
    mailbox: VecDeque<Request>,
    pages: VecDeque<Box<PageRequest>>,
    /// Whether the last errand was a page.
    paged: bool,
    /// Its guest overran; until then it runs on the slow threads.
    apart_until: Option<Instant>,
    /// Whether it is on a slow thread.
    lent: bool,
    /// Whether the node owns the partition. If not, the vnode serves as a fallback only.
    owned: bool,
    /// Commands wait: the partition is being handed over.
    frozen: bool,
    /// Nobody gets the vnode in turn: it is to have another version.
    held: bool,
    /// Its rows were handed over to another owner, which has them all; until then they stay here in case of need.
    kept_until: Option<Instant>,
    /// Nobody gets the vnode in turn: what it is to hold is not all there yet.
    filling: bool,
    /// The ring has other partitions now: nothing is taken in any more.
    closed: bool,
    figures: Figures,
}

/// What is not taken in.
#[derive(Default)]
pub(super) struct Rejected {
    /// For these there is no room.
    pub(super) too_many: VecDeque<Request>,
    /// These belong to another node.
    pub(super) elsewhere: VecDeque<Request>,
}

/// What a vnode was taken for.
pub(super) enum Errand {
    /// These commands, here and now.
    Run(VecDeque<Request>),
    /// Something that may take long.
    Lend(Work),
}

impl Seat {
    /// Takes commands in, behind those that wait. Gives back what is too much.
    pub(super) fn hand_in(&mut self, commands: &mut VecDeque<Request>, max: usize) -> Rejected {
        let elsewhere = match (self.closed, self.owned) {
            (true, _) => {
                self.mailbox.append(commands);
                std::mem::take(&mut self.mailbox)
            }
            (_, true) => VecDeque::new(),
            (_, false) => primaries(commands),
        };
        if self.owned {
            // It was asked for when another node had the partition, and had these rows.
            commands.retain(|request| request.work != Todo::Forget);
        }
        if commands.iter().any(|request| request.work.brings()) {
            // From now on it holds more than its owner has.
            self.kept_until = None;
        }
        if self.mailbox.is_empty() {
            std::mem::swap(&mut self.mailbox, commands);
        } else {
            self.mailbox.append(commands);
        }
        Rejected {
            too_many: self.mailbox.split_off(max.min(self.mailbox.len())),
            elsewhere,
        }
    }

    /// The node owns the partition from now on.
    pub(crate) fn own(&mut self) {
        self.owned = true;
        self.frozen = false;
        self.kept_until = None;
        self.mailbox.retain(|request| request.work != Todo::Forget);
    }

    /// Another node owns the partition from now on. Returns the commands that now belong elsewhere.
    #[must_use = "whoever sent a command waits for its answer"]
    pub(crate) fn disown(&mut self) -> VecDeque<Request> {
        self.shut();
        self.kept_until = None;
        primaries(&mut self.mailbox)
    }

    /// No page is served here any more, and no command that only an owner may run.
    fn shut(&mut self) {
        self.owned = false;
        self.frozen = false;
        for page in self.pages.drain(..) {
            let partition = page.command.scope.range;
            drop(page.reply.send(Err(Failure::Moving { partition })));
        }
    }

    /// Has commands wait until the vnode holds what it is to hold, or no longer.
    pub(crate) fn set_filling(&mut self, filling: bool) {
        self.filling = filling;
    }

    /// Whether it does not hold yet what it is to hold.
    pub(crate) fn is_filling(&self) -> bool {
        self.filling
    }

    /// The ring has other partitions from now on, and nobody gets the vnode in turn any more. Until when its rows are kept stays known.
    /// Returns all that waits for it.
    #[must_use = "whoever sent a command waits for its answer"]
    pub(crate) fn close(&mut self) -> VecDeque<Request> {
        self.shut();
        self.closed = true;
        std::mem::take(&mut self.mailbox)
    }

    /// Its rows were handed over; they are kept until then, unless there will be more.
    pub(crate) fn keep_until(&mut self, until: Instant) {
        if !self.mailbox.iter().any(|request| request.work.brings()) {
            self.kept_until = Some(until);
        }
    }

    /// Until when rows are kept that their owner has; none if it may lack some.
    pub(crate) fn kept_until(&self) -> Option<Instant> {
        self.kept_until
    }

    /// Takes a page of a coverage command in. One that asks the wrong node gets it back: what lies here may not be all.
    pub(super) fn add_page(&mut self, page: Box<PageRequest>) -> Result<(), Box<PageRequest>> {
        match self.owned && !self.closed {
            true => self.pages.push_back(page),
            false => return Err(page),
        }
        Ok(())
    }

    /// Has commands wait, or no longer.
    pub(crate) fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Has the vnode stay for whoever takes it out of turn, or no longer.
    pub(crate) fn set_held(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether the node owns the partition.
    pub(crate) fn is_owned(&self) -> bool {
        self.owned
    }

    /// Whether commands wait.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether commands run here as at the owner of the partition.
    pub(crate) fn serves(&self) -> bool {
        self.owned && !self.frozen && !self.filling && !self.closed
    }

    /// Whether the vnode is here.
    pub(crate) fn is_taken(&self) -> bool {
        self.vnode.is_none()
    }

    /// The vnode, out of turn.
    pub(crate) fn take_away(&mut self) -> Option<Box<Vnode>> {
        self.vnode.take()
    }

    /// What the vnode held when it last came back.
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What has waited for too long at `now` and is to be refused, if nothing here runs in turn: nobody knows how long that lasts. Nor
    /// does a page stay that nobody waits for any more.
    pub(super) fn take_late(&mut self, now: Instant) -> VecDeque<Request> {
        if !self.frozen && !self.filling {
            return VecDeque::new();
        }
        self.pages.retain(|page| !page.reply.is_closed());
        if !self.mailbox.iter().any(|request| request.is_late(now)) {
            return VecDeque::new();
        }
        let all = std::mem::take(&mut self.mailbox).into_iter();
        let (late, rest) = all.partition(|request| request.is_late(now));
        self.mailbox = rest;
        late
    }

    /// The vnode, if it is here, and what waits for it, if anything does.
    pub(super) fn take(&mut self) -> Option<(Box<Vnode>, Errand)> {
        if self.held || self.filling || self.closed {
            return None;
        }
        if self.frozen {
            return self.take_frozen();
        }
        if !self.has_work() {
            return None;
        }
        let vnode = self.vnode.take()?;
        // Pages and commands take turns, so that neither waits for all of the other.
        let page_next = self.mailbox.is_empty() || !self.paged;
        if page_next && let Some(page) = self.pages.pop_front() {
            self.paged = true;
            self.lent = true;
            return Some((vnode, Errand::Lend(Work::Page(page))));
        }
        self.paged = false;
        if self.apart_until.is_some_and(|until| Instant::now() < until) {
            self.lent = true;
            let count = self.mailbox.len().min(LOAN_COMMANDS_MAX);
            let commands = self.mailbox.drain(..count).collect();
            return Some((vnode, Errand::Lend(Work::Commands(commands))));
        }
        self.apart_until = None;
        Some((vnode, Errand::Run(std::mem::take(&mut self.mailbox))))
    }

    /// The vnode, if it is here, and what waits for it that changes nothing.
    fn take_frozen(&mut self) -> Option<(Box<Vnode>, Errand)> {
        let shows = |request: &Request| request.work.only_shows();
        if !self.mailbox.iter().any(shows) {
            return None;
        }
        let vnode = self.vnode.take()?;
        let all = std::mem::take(&mut self.mailbox).into_iter();
        let (shows, rest) = all.partition(shows);
        self.mailbox = rest;
        Some((vnode, Errand::Run(shows)))
    }

    /// Takes back commands that were not run: they came before what has come meanwhile. Leaves `commands` empty.
    pub(super) fn unread(&mut self, commands: &mut VecDeque<Request>) {
        if !commands.is_empty() {
            commands.append(&mut self.mailbox);
            std::mem::swap(&mut self.mailbox, commands);
        }
    }

    /// The vnode goes to a slow thread.
    pub(super) fn lend(&mut self) {
        self.lent = true;
    }

    /// Its guest took too long on an executor and stays off them for a while.
    pub(super) fn keep_apart(&mut self) {
        self.apart_until = Some(Instant::now() + APART_FOR);
    }

    /// Brings the vnode back.
    pub(super) fn put_back(&mut self, mut vnode: Box<Vnode>) {
        vnode.note(&mut self.figures);
        self.vnode = Some(vnode);
        self.lent = false;
    }

    /// Has the rows come nearer that these commands want, if the vnode is here.
    pub(super) fn expect(&self, commands: &VecDeque<Request>, ahead: Ahead) {
        if let Some(vnode) = &self.vnode {
            vnode.expect(commands, ahead);
        }
    }

    /// Whether somebody has to take the vnode again.
    pub(super) fn has_work(&self) -> bool {
        match self.frozen {
            _ if self.closed => !self.mailbox.is_empty(),
            _ if self.held || self.filling => false,
            true => self.mailbox.iter().any(|request| request.work.only_shows()),
            false => !self.mailbox.is_empty() || !self.pages.is_empty(),
        }
    }
}

/// Takes the commands out that only the partition's owner may run.
fn primaries(commands: &mut VecDeque<Request>) -> VecDeque<Request> {
    let (primaries, rest) = std::mem::take(commands)
        .into_iter()
        .partition(|request| request.role == Role::Primary);
    *commands = rest;
    primaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnode::request::{Consistency, ReplyTo};
    use crate::vnode::words::Words;
    use crate::wasm::{Scope, TypedCommand};
    use proptest::prelude::*;
    use vnode_ring::PartitionId;

    fn request(id: u64) -> Request {
        Request {
            service: 0,
            command: 0,
            partition: PartitionId::from_id(0),
            range: PartitionId::from_id(0),
            hash: 0,
            words: Words::copy([b"x".as_slice()]),
            now_ms: 0,
            id,
            alone: false,
            role: Role::Primary,
            work: Todo::Command,
            consistency: Consistency::single(Duration::from_secs(1)),
            trace: None,
            tries: 0,
            arrived: Instant::now(),
            reply_to: ReplyTo::Connection {
                executor: 0,
                connection: 0,
                seq: 0,
            },
        }
    }

    /// The empty seat of a partition that the node owns.
    fn seat() -> Seat {
        Seat {
            owned: true,
            ..Seat::default()
        }
    }

    fn ids(requests: &VecDeque<Request>) -> Vec<u64> {
        requests.iter().map(|request| request.id).collect()
    }

    proptest! {
        /// However handing in, running a part and bringing the rest back are mixed, the order stays.
        #[test]
        fn commands_run_in_the_order_in_which_they_were_handed_in(
            steps in prop::collection::vec((0_usize..5, 0_usize..8), 1..60),
        ) {
            let mut seat = seat();
            let (mut next, mut ran) = (0, Vec::new());
            for (handed_in, run) in steps {
                let mut commands: VecDeque<_> = (next..).take(handed_in).map(request).collect();
                next += handed_in as u64;
                // Somebody has the vnode and its commands meanwhile.
                let mut taken = std::mem::take(&mut seat.mailbox);
                prop_assert!(seat.hand_in(&mut commands, usize::MAX).too_many.is_empty());
                prop_assert!(commands.is_empty());
                let count = run.min(taken.len());
                ran.extend(taken.drain(..count).map(|request| request.id));
                seat.unread(&mut taken);
                prop_assert!(taken.is_empty());
            }
            ran.extend(ids(&seat.mailbox));
            prop_assert_eq!(ran, (0..next).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_full_mailbox_gives_the_last_ones_back() {
        let mut seat = seat();
        let mut commands: VecDeque<_> = (0..3).map(request).collect();
        assert!(seat.hand_in(&mut commands, 4).too_many.is_empty());
        let mut commands: VecDeque<_> = (3..6).map(request).collect();
        assert_eq!(ids(&seat.hand_in(&mut commands, 4).too_many), [4, 5]);
        assert_eq!(ids(&seat.mailbox), [0, 1, 2, 3]);
    }

    #[test]
    fn commands_of_a_held_seat_wait_in_their_order() {
        let mut seat = seat();
        seat.set_held(true);
        seat.hand_in(&mut VecDeque::from([request(1)]), 10);
        seat.hand_in(&mut VecDeque::from([request(2)]), 10);
        assert!(!seat.has_work(), "nobody is to look for the vnode in vain");
        assert!(seat.take().is_none());
        seat.set_held(false);
        assert!(seat.has_work());
        assert_eq!(ids(&seat.mailbox), [1, 2]);
    }

    #[test]
    fn whoever_waits_for_rows_or_a_new_owner_is_refused_in_time() {
        let states: [fn(&mut Seat); 2] =
            [|seat| seat.set_filling(true), |seat| seat.set_frozen(true)];
        for wait in states {
            let (mut seat, now) = (seat(), Instant::now());
            let patient = Request {
                consistency: Consistency::single(Duration::from_secs(60)),
                ..request(2)
            };
            seat.hand_in(&mut VecDeque::from([request(1), patient, request(3)]), 10);
            let later = now + Duration::from_secs(5);
            assert!(seat.take_late(later).is_empty(), "they have their turn");
            wait(&mut seat);
            assert!(seat.take_late(now).is_empty());
            assert_eq!(ids(&seat.take_late(later)), [1, 3]);
            assert_eq!(ids(&seat.mailbox), [2]);
        }
    }

    #[test]
    fn a_page_that_nobody_waits_for_any_more_does_not_wait_for_rows() {
        let mut seat = seat();
        let page = || {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let command = TypedCommand {
                name: "KEYS".into(),
                args: Vec::new(),
                request_id: 0,
                fallback: false,
                scope: Scope {
                    range: PartitionId::from_id(0),
                    writes: false,
                    now_ms: 0,
                    seed: 0,
                },
            };
            let page = PageRequest {
                command,
                cursor: None,
                reply,
            };
            (Box::new(page), answer)
        };
        seat.set_filling(true);
        let ((gone, answer), (stays, _answer)) = (page(), page());
        assert!(seat.add_page(gone).is_ok() && seat.add_page(stays).is_ok());
        drop(answer);
        seat.take_late(Instant::now());
        assert_eq!(seat.pages.len(), 1);
    }

    #[test]
    fn nobody_gets_a_vnode_that_is_away() {
        let mut seat = seat();
        seat.hand_in(&mut VecDeque::from([request(1)]), 10);
        assert!(seat.take().is_none());
        assert!(seat.has_work());
    }

    #[test]
    fn commands_of_another_nodes_partition_are_given_back_but_for_those_of_a_fallback() {
        let mut seat = seat();
        seat.hand_in(&mut VecDeque::from([request(1)]), 10);
        let fallback = |id| Request {
            role: Role::Fallback,
            ..request(id)
        };
        seat.hand_in(&mut VecDeque::from([fallback(2)]), 10);
        assert_eq!(ids(&seat.disown()), [1]);
        let rejected = seat.hand_in(&mut VecDeque::from([request(3), fallback(4)]), 10);
        assert_eq!(ids(&rejected.elsewhere), [3]);
        assert_eq!(ids(&seat.mailbox), [2, 4]);
    }

    #[test]
    fn a_seat_that_closes_gives_everything_back_that_waits() {
        let mut seat = seat();
        let fallback = |id| Request {
            role: Role::Fallback,
            ..request(id)
        };
        seat.hand_in(
            &mut VecDeque::from([request(1), fallback(2), request(3)]),
            10,
        );
        assert_eq!(ids(&seat.close()), [1, 2, 3]);
        let rejected = seat.hand_in(&mut VecDeque::from([fallback(4), request(5)]), 10);
        assert_eq!(ids(&rejected.elsewhere), [4, 5]);
        assert!(!seat.has_work() && !seat.is_owned());
    }

    #[test]
    fn rows_are_kept_until_something_is_written_besides_and_an_owner_forgets_none() {
        let of = |work| Request {
            work,
            role: Role::Fallback,
            ..request(1)
        };
        let (mut seat, later) = (seat(), Instant::now() + Duration::from_secs(60));
        seat.hand_in(&mut VecDeque::from([of(Todo::Forget), of(Todo::Page)]), 10);
        assert_eq!(seat.mailbox.len(), 1);
        assert!(seat.disown().is_empty());
        seat.keep_until(later);
        seat.hand_in(&mut VecDeque::from([of(Todo::Forget), of(Todo::Page)]), 10);
        assert_eq!(seat.kept_until(), Some(later));
        seat.hand_in(&mut VecDeque::from([of(Todo::Merge)]), 10);
        assert_eq!(seat.kept_until(), None);
        seat.keep_until(later);
        assert_eq!(seat.kept_until(), None, "what waits is not at the owner");
    }
}
