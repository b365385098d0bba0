//! The quorum collector against a model that tries every future: all requests of up to three replicas in all orders of
//! answers, and random ones of up to five.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vnode_ring::{Answer, Collector, Holder, Outcome, PartitionId, Quorum, Role};

const ANSWERS: [Answer; 4] = [
    Answer::Applied,
    Answer::Durable,
    Answer::Absent,
    Answer::Failed,
];

/// What one holder has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Nothing,
    Applied,
    AppliedNeverDurable,
    Durable,
    Absent,
    Failed,
}

impl Said {
    fn then(self, answer: Answer, role: Role) -> Said {
        let answer = match (answer, role) {
            (Answer::Absent, Role::Primary) => Answer::Applied,
            _ => answer,
        };
        match (self, answer) {
            (Said::Nothing, Answer::Applied) => Said::Applied,
            (Said::Nothing, Answer::Failed) => Said::Failed,
            (Said::Nothing | Said::Applied, Answer::Durable) => Said::Durable,
            (Said::Nothing, Answer::Absent) => Said::Absent,
            (Said::Applied, Answer::Failed) => Said::AppliedNeverDurable,
            _ => self,
        }
    }

    /// Everything this may become, itself included.
    fn futures(self, role: Role) -> BTreeSet<Said> {
        let next = ANSWERS.map(|answer| self.then(answer, role));
        let after = next
            .into_iter()
            .flat_map(|said| ANSWERS.map(|answer| said.then(answer, role)));
        after.chain(next).chain([self]).collect()
    }

    fn applied(self) -> bool {
        matches!(
            self,
            Said::Applied | Said::AppliedNeverDurable | Said::Durable
        )
    }
}

/// How much there is of each requirement: answers, primaries, durable, nodes; and how many nodes have not failed.
type Counts = [u8; 5];

fn counts(holders: &[Holder], said: &[Said]) -> Counts {
    let pairs = holders.iter().zip(said);
    let primary_open =
        |(holder, said): (&Holder, &Said)| holder.is_primary() && *said == Said::Nothing;
    let heard = !pairs.clone().any(primary_open);
    let applied: Vec<&Holder> = pairs
        .filter(|(_, said)| said.applied() || (heard && **said == Said::Absent))
        .map(|(h, _)| h)
        .collect();
    let nodes: BTreeSet<u16> = applied.iter().map(|holder| holder.node).collect();
    let able = holders
        .iter()
        .zip(said)
        .filter(|(_, said)| **said != Said::Failed);
    let left: BTreeSet<u16> = able.map(|(holder, _)| holder.node).collect();
    let primaries = applied.iter().filter(|holder| holder.role == Role::Primary);
    let durable = said.iter().filter(|said| **said == Said::Durable);
    let counts = [
        applied.len(),
        primaries.count(),
        durable.count(),
        nodes.len(),
        left.len(),
    ];
    counts.map(|count| u8::try_from(count).unwrap())
}

/// The counts now, and in every future, found by trying all.
fn futures(holders: &[Holder], said: &[Said]) -> (Counts, BTreeSet<Counts>) {
    let mut futures = vec![Vec::new()];
    for (said, holder) in said.iter().zip(holders) {
        let longer = futures.into_iter().flat_map(|future: Vec<Said>| {
            let add = move |next| [&future[..], &[next]].concat();
            said.futures(holder.role).into_iter().map(add)
        });
        futures = longer.collect();
    }
    let all = futures.iter().map(|future| counts(holders, future));
    (counts(holders, said), all.collect())
}

fn expected(quorum: Quorum, (now, futures): &(Counts, BTreeSet<Counts>)) -> Outcome {
    let met = |&[answers, primaries, durable, nodes, left]: &Counts| {
        let spread = if quorum.spread {
            quorum.need.min(left)
        } else {
            0
        };
        answers >= quorum.need
            && primaries >= quorum.primaries
            && durable >= quorum.durable
            && nodes >= quorum.nodes.max(spread)
    };
    if met(now) {
        Outcome::Enough
    } else if futures.iter().any(met) {
        Outcome::Waiting
    } else {
        Outcome::Impossible
    }
}

fn holders(roles: u32, nodes: &[u16]) -> Vec<Holder> {
    let holder = |(at, &node): (u16, &u16)| Holder {
        partition: PartitionId::from_id(at),
        node,
        role: match roles >> at & 1 {
            0 => Role::Fallback,
            _ => Role::Primary,
        },
    };
    (0..).zip(nodes).map(holder).collect()
}

/// All valid quorums of n replicas.
fn quorums(n: u8) -> impl Iterator<Item = Quorum> {
    let base = u32::from(n) + 1;
    let numbers = (0..base.pow(4)).flat_map(|number| [(number, false), (number, true)]);
    numbers
        .map(move |(number, spread)| {
            let digit = |at: u32| u8::try_from(number / base.pow(at) % base).unwrap();
            Quorum {
                n,
                need: digit(0),
                primaries: digit(1),
                durable: digit(2),
                nodes: digit(3),
                spread,
            }
        })
        // Who names a number of nodes asks for no more.
        .filter(|quorum| quorum.check().is_ok() && !(quorum.spread && quorum.nodes > 0))
}

/// What some holders may have said, and where each answer of each leads.
struct State {
    futures: (Counts, BTreeSet<Counts>),
    next: Vec<(usize, Answer, usize)>,
}

/// All states of these holders; the first is the one in which nobody has said anything.
fn states(holders: &[Holder]) -> Vec<State> {
    let start = vec![Said::Nothing; holders.len()];
    let mut known = BTreeMap::from([(start.clone(), 0)]);
    let mut found = vec![start];
    let mut states = Vec::new();
    while let Some(said) = found.get(states.len()).cloned() {
        let mut next = Vec::new();
        for (holder, answer) in (0..holders.len()).flat_map(|at| ANSWERS.map(|one| (at, one))) {
            let mut after = said.clone();
            after[holder] = after[holder].then(answer, holders[holder].role);
            let number = *known.entry(after.clone()).or_insert(found.len());
            if number == found.len() {
                found.push(after);
            }
            next.push((holder, answer, number));
        }
        let futures = futures(holders, &said);
        states.push(State { futures, next });
    }
    states
}

/// Follows every order of answers to its end, meeting each state once: two orders that lead to one state must agree in
/// everything, so what holds of the state holds of both.
fn explore(quorum: Quorum, holders: &[Holder], states: &[State]) {
    let mut met: Vec<Option<Collector>> = vec![None; states.len()];
    met[0] = Some(Collector::new(quorum, holders));
    for (number, state) in states.iter().enumerate() {
        let collector = met[number].clone().unwrap();
        let outcome = collector.outcome();
        let expected = expected(quorum, &state.futures);
        assert_eq!(outcome, expected, "{quorum:?} {collector:?}");
        assert_eq!(collector.missing().is_none(), outcome == Outcome::Enough);
        for &(holder, answer, after) in &state.next {
            let mut collector = collector.clone();
            let next = collector.answer(holder, answer);
            assert!(
                outcome == Outcome::Waiting || next == outcome,
                "{outcome:?} is final"
            );
            let known = met[after].get_or_insert_with(|| collector.clone());
            assert_eq!(*known, collector, "two orders differ");
        }
    }
}

#[test]
fn every_request_of_up_to_three_replicas() {
    let lists: [&[u16]; 8] = [
        &[],
        &[1],
        &[1, 1],
        &[1, 2],
        &[1, 1, 1],
        &[1, 1, 2],
        &[1, 2, 1],
        &[1, 2, 3],
    ];
    for nodes in lists {
        for roles in 0..1 << nodes.len() {
            let holders = holders(roles, nodes);
            let states = states(&holders);
            // Those of fewer replicas ask for no other numbers.
            quorums(3).for_each(|quorum| explore(quorum, &holders, &states));
        }
    }
}

/// A request of up to five replicas: the quorum, who is asked, and answers, some repeated and some of nobody.
fn request() -> impl Strategy<Value = (Quorum, Vec<Holder>, Vec<(usize, Answer)>)> {
    (1..=5_u8).prop_flat_map(|n| {
        let numbers = (1..=n, 0..=n, 0..=n, 0..=n, any::<bool>());
        let quorum = numbers.prop_map(move |(need, primaries, durable, nodes, spread)| Quorum {
            n,
            need,
            primaries,
            durable,
            nodes,
            spread,
        });
        let nodes = proptest::collection::vec(0..5_u16, 0..=usize::from(n));
        let roles = prop_oneof![Just(u32::MAX), any::<u32>()];
        let holders = (roles, nodes).prop_map(|(roles, nodes)| holders(roles, &nodes));
        let answer = (0..6_usize, proptest::sample::select(&ANSWERS[..]));
        (quorum, holders, proptest::collection::vec(answer, 0..12))
    })
}

proptest! {
    #[test]
    fn larger_requests_agree_with_the_model((quorum, holders, answers) in request()) {
        let mut collector = Collector::new(quorum, &holders);
        let mut said = vec![Said::Nothing; holders.len()];
        prop_assert_eq!(collector.outcome(), expected(quorum, &futures(&holders, &said)));
        for (holder, answer) in answers {
            if let (Some(said), Some(holder)) = (said.get_mut(holder), holders.get(holder)) {
                *said = said.then(answer, holder.role);
            }
            let before = collector.outcome();
            let outcome = collector.answer(holder, answer);
            prop_assert_eq!(outcome, expected(quorum, &futures(&holders, &said)));
            prop_assert!(before == Outcome::Waiting || before == outcome, "{:?} is final", before);
            let all = said.iter().all(|said| *said != Said::Nothing);
            prop_assert_eq!(collector.all_answered(), all);
        }
    }
}
