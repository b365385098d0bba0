//! The rules for voters, as cases and as properties of random clusters.

use super::*;
use proptest::prelude::*;

const LONG: Contact = Contact::Lost(VOTER_UNREACHABLE_MAX);
const SHORT: Contact = Contact::Lost(Duration::from_secs(30));

fn member(status: MemberStatus, location: &str, contact: Contact) -> Member {
    Member {
        status,
        location: (!location.is_empty()).then(|| location.into()),
        contact,
    }
}

fn valid(location: &str) -> Member {
    member(MemberStatus::Valid, location, Contact::Current)
}

fn cluster(members: impl IntoIterator<Item = Member>) -> BTreeMap<u64, Member> {
    (1..).zip(members).collect()
}

fn seats(voters: &[u64], learners: &[u64]) -> Seats {
    Seats {
        leader: voters[0],
        voters: voters.iter().copied().collect(),
        learners: learners.iter().copied().collect(),
        strangers: BTreeSet::new(),
    }
}

fn votes(voters: &[u64]) -> Option<Change> {
    Some(Change::Vote(voters.iter().copied().collect()))
}

#[test]
fn a_new_member_learns_and_then_votes() {
    let members = cluster([valid(""), valid("")]);
    assert_eq!(
        next_change(&seats(&[1], &[]), &members),
        Some(Change::Learn(2))
    );
    assert_eq!(next_change(&seats(&[1], &[2]), &members), votes(&[1, 2]));
    let behind = cluster([valid(""), member(MemberStatus::Valid, "", Contact::Behind)]);
    assert_eq!(next_change(&seats(&[1], &[2]), &behind), None);
    let joining = cluster([
        valid(""),
        member(MemberStatus::Joining, "", Contact::Current),
    ]);
    assert_eq!(
        next_change(&seats(&[1], &[]), &joining),
        Some(Change::Learn(2))
    );
    assert_eq!(next_change(&seats(&[1], &[2]), &joining), None);
}

#[test]
fn a_sixth_member_only_learns() {
    let members = cluster((0..6).map(|_| valid("")));
    assert_eq!(next_change(&seats(&[1, 2, 3, 4, 5], &[6]), &members), None);
}

#[test]
fn a_voter_that_leaves_is_replaced_in_one_change() {
    for (status, contact) in [
        (MemberStatus::Leaving, Contact::Current),
        (MemberStatus::Exiting, Contact::Current),
        (MemberStatus::Down, SHORT),
    ] {
        let mut members = cluster((0..4).map(|_| valid("")));
        members.insert(2, member(status, "", contact));
        assert_eq!(
            next_change(&seats(&[1, 2, 3], &[4]), &members),
            votes(&[1, 3, 4])
        );
        // Without anybody to replace it the voters become fewer, if they can go on.
        members.remove(&4);
        assert_eq!(
            next_change(&seats(&[1, 2, 3], &[]), &members),
            votes(&[1, 3])
        );
    }
}

#[test]
fn a_replacement_that_is_on_its_way_is_waited_for() {
    let mut members = cluster((0..4).map(|_| valid("")));
    members.insert(2, member(MemberStatus::Leaving, "", Contact::Current));
    members.insert(4, member(MemberStatus::Valid, "", Contact::Behind));
    assert_eq!(
        next_change(&seats(&[1, 2, 3], &[]), &members),
        Some(Change::Learn(4))
    );
    assert_eq!(next_change(&seats(&[1, 2, 3], &[4]), &members), None);
    members.insert(4, member(MemberStatus::Valid, "", SHORT));
    assert_eq!(
        next_change(&seats(&[1, 2, 3], &[4]), &members),
        votes(&[1, 3])
    );
}

#[test]
fn nothing_changes_without_a_majority() {
    let members = cluster([valid(""), member(MemberStatus::Down, "", LONG), valid("")]);
    assert_eq!(next_change(&seats(&[1, 2], &[3]), &members), None);
}

#[test]
fn the_votes_left_must_be_able_to_go_on() {
    // Two of three are there. Without the one that leaves it would be one of two.
    let members = cluster([
        valid(""),
        member(MemberStatus::Leaving, "", Contact::Current),
        member(MemberStatus::Valid, "", SHORT),
    ]);
    assert_eq!(next_change(&seats(&[1, 2, 3], &[]), &members), None);
}

#[test]
fn the_last_voter_hands_over() {
    let members = cluster([
        member(MemberStatus::Leaving, "", Contact::Current),
        valid(""),
    ]);
    assert_eq!(next_change(&seats(&[1], &[2]), &members), votes(&[2]));
    let alone = cluster([member(MemberStatus::Leaving, "", Contact::Current)]);
    assert_eq!(next_change(&seats(&[1], &[]), &alone), None);
}

#[test]
fn a_vote_moves_after_a_long_silence_but_is_never_dropped_for_it() {
    let mut members = cluster((0..6).map(|_| valid("")));
    members.insert(3, member(MemberStatus::Valid, "", SHORT));
    let seats_now = seats(&[1, 2, 3, 4, 5], &[6]);
    assert_eq!(next_change(&seats_now, &members), None);
    members.insert(3, member(MemberStatus::Valid, "", LONG));
    assert_eq!(next_change(&seats_now, &members), votes(&[1, 2, 4, 5, 6]));
    members.remove(&6);
    assert_eq!(next_change(&seats(&[1, 2, 3, 4, 5], &[]), &members), None);
}

#[test]
fn votes_spread_over_locations_and_the_leader_keeps_its_own() {
    let members = cluster(["a", "a", "a", "b", "b", "c"].map(valid));
    assert_eq!(
        next_change(&seats(&[1, 2, 3, 4], &[5, 6]), &members),
        votes(&[1, 2, 3, 4, 6])
    );
    assert_eq!(
        next_change(&seats(&[1, 2, 3, 4, 5], &[6]), &members),
        votes(&[1, 2, 4, 5, 6])
    );
    assert_eq!(
        next_change(&seats(&[3, 1, 2, 4, 5], &[6]), &members),
        votes(&[1, 3, 4, 5, 6])
    );
    assert_eq!(next_change(&seats(&[1, 2, 4, 5, 6], &[3]), &members), None);
}

#[test]
fn those_who_are_no_members_any_more_vote_for_their_own_end() {
    let members = cluster([valid("")]);
    let mut seats = seats(&[1, 8, 9], &[]);
    assert_eq!(next_change(&seats, &members), None);
    seats.strangers.insert(8);
    assert_eq!(next_change(&seats, &members), votes(&[1, 8]));
}

#[test]
fn nodes_that_are_no_members_are_forgotten() {
    let members = cluster([valid("")]);
    assert_eq!(
        next_change(&seats(&[1], &[2]), &members),
        Some(Change::Forget(2))
    );
    // As a voter it first becomes a learner.
    let members = cluster([valid(""), valid(""), valid("")]);
    assert_eq!(
        next_change(&seats(&[1, 2, 3, 9], &[]), &members),
        votes(&[1, 2, 3])
    );
}

fn any_member() -> impl Strategy<Value = Member> {
    let status = prop_oneof![
        6 => Just(MemberStatus::Valid),
        1 => Just(MemberStatus::Joining),
        1 => Just(MemberStatus::Leaving),
        1 => Just(MemberStatus::Exiting),
        1 => Just(MemberStatus::Down),
    ];
    let contact = prop_oneof![5 => Just(Contact::Current), 1 => Just(Contact::Behind), 1 => Just(SHORT), 1 => Just(LONG)];
    (status, "[abc]?", contact)
        .prop_map(|(status, location, contact)| member(status, &location, contact))
}

prop_compose! {
    /// Members, some of which vote or learn, and perhaps nodes that are no members any more.
    fn any_cluster()(
        members in prop::collection::btree_map(0_u64..12, any_member(), 1..10),
        roles in prop::collection::btree_map(0_u64..14, prop::bool::weighted(0.6), 1..12),
        leader in 0_u64..12,
    ) -> (Seats, BTreeMap<u64, Member>) {
        let pick = |votes: bool| roles.iter().filter(|(_, role)| **role == votes).map(|(id, _)| *id).collect();
        let mut seats = Seats { leader, voters: pick(true), learners: pick(false), strangers: BTreeSet::new() };
        seats.voters.insert(leader);
        seats.learners.remove(&leader);
        (seats, members)
    }
}

fn perform(seats: &mut Seats, change: &Change) {
    match change {
        Change::Learn(id) => assert!(seats.learners.insert(*id)),
        Change::Forget(id) => assert!(seats.learners.remove(id)),
        Change::Vote(voters) => {
            let left: Vec<u64> = seats.voters.difference(voters).copied().collect();
            seats.learners.extend(left);
            seats.learners.retain(|id| !voters.contains(id));
            seats.voters.clone_from(voters);
        }
    }
}

fn there(seats: &Seats, members: &BTreeMap<u64, Member>) -> usize {
    let is_there = |id: &&u64| {
        let member = members.get(id);
        let answers = member.is_some_and(|member| !matches!(member.contact, Contact::Lost(_)));
        answers || **id == seats.leader
    };
    seats.voters.iter().filter(is_there).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_change_is_small_and_leaves_a_majority((mut seats, members) in any_cluster()) {
        for _ in 0..100 {
            let Some(change) = next_change(&seats, &members) else { break };
            let before = seats.clone();
            perform(&mut seats, &change);
            prop_assert!(there(&before, &members) * 2 > before.voters.len(), "nobody to decide it");
            let after = there(&seats, &members) * 2 > seats.voters.len();
            prop_assert!(after, "nobody to go on");
            let came: Vec<_> = seats.voters.difference(&before.voters).collect();
            let left: Vec<_> = before.voters.difference(&seats.voters).collect();
            prop_assert!(came.len() <= 1 && left.len() <= 1);
            for id in came {
                prop_assert!(before.learners.contains(id));
                prop_assert_eq!(members[id].status, MemberStatus::Valid);
                prop_assert_eq!(members[id].contact, Contact::Current);
            }
            // Fewer votes only if the one that goes may not vote, or there are too many.
            if seats.voters.len() < before.voters.len() {
                let fit = members.get(left[0]).is_some_and(|member| member.status == MemberStatus::Valid);
                prop_assert!(!fit || before.voters.len() > VOTERS_MAX);
            }
            if !seats.voters.contains(&seats.leader) {
                // It made the change, and now one of the others leads.
                seats.leader = *seats.voters.iter().find(|id| {
                    members.get(id).is_some_and(|member| !matches!(member.contact, Contact::Lost(_)))
                }).unwrap();
            }
        }
        prop_assert_eq!(next_change(&seats, &members), None, "it never comes to rest");
    }

    #[test]
    fn when_all_are_there_the_best_of_them_vote((mut seats, mut members) in any_cluster()) {
        for member in members.values_mut() {
            member.contact = Contact::Current;
        }
        seats.voters.retain(|id| members.contains_key(id));
        seats.leader = *seats.voters.first().unwrap_or_else(|| members.keys().next().unwrap());
        seats.voters.insert(seats.leader);
        seats.learners.remove(&seats.leader);
        let fit = |(_, member): &(&u64, &Member)| member.status == MemberStatus::Valid;
        let valid: BTreeSet<u64> = members.iter().filter(fit).map(|(id, _)| *id).collect();
        prop_assume!(!valid.is_empty());
        while let Some(change) = next_change(&seats, &members) {
            perform(&mut seats, &change);
            seats.leader = *seats.voters.iter().find(|id| members.contains_key(id)).unwrap();
        }
        prop_assert!(seats.voters.is_subset(&valid));
        prop_assert_eq!(seats.voters.len(), valid.len().min(VOTERS_MAX));
        for (id, member) in &members {
            let seated = seats.voters.contains(id) || seats.learners.contains(id);
            prop_assert!(seated || member.status == MemberStatus::Exiting);
        }
        prop_assert!(seats.learners.iter().all(|id| members.contains_key(id)));
        // No location has two votes more than one that could have another, but for the leader's own.
        let votes_at = |location: &Option<String>| seats.voters.iter().filter(|id| members[id].location == *location).count();
        let rest = valid.difference(&seats.voters).map(|id| votes_at(&members[id].location)).min();
        let most = seats.voters.iter().filter(|id| **id != seats.leader).map(|id| votes_at(&members[id].location)).max();
        if let (Some(rest), Some(most)) = (rest, most) {
            prop_assert!(most <= rest + 1, "{most} votes at one location, {rest} at another");
        }
    }
}
