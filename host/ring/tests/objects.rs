//! Laws of causal objects, on random histories and on random bytes.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what goes wrong here fails the test, as it should"
)]

use proptest::prelude::*;
use vnode_ring::{
    Actor, Context, Dot, FIRST_SCHEMA, Hlc, Merged, Object, ObjectRef, VERSIONS_MAX, Version,
    VersionRef, encode_successor, merge_encoded,
};

const REPLICAS: usize = 3;
const CLIENTS: usize = 3;

/// One step of a history on a single key.
#[derive(Clone, Debug)]
enum Step {
    /// A client remembers what a replica shows it.
    Read { client: usize, replica: usize },
    /// A client writes with what it remembers; `blind` forgets that.
    Write {
        client: usize,
        replica: usize,
        blind: bool,
        delete: bool,
    },
    /// One replica's object arrives at another, maybe again, maybe late.
    Deliver { from: usize, to: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, replica) = (0..CLIENTS, 0..REPLICAS);
    prop_oneof![
        (client.clone(), replica.clone())
            .prop_map(|(client, replica)| Step::Read { client, replica }),
        (
            client,
            replica.clone(),
            proptest::bool::weighted(0.2),
            any::<bool>()
        )
            .prop_map(|(client, replica, blind, delete)| Step::Write {
                client,
                replica,
                blind,
                delete
            }),
        (replica.clone(), replica).prop_map(|(from, to)| Step::Deliver { from, to }),
    ]
}

/// Plays a history and returns the replicas, with every write that no later write had seen.
fn play(steps: &[Step]) -> (Vec<Object>, Vec<Dot>) {
    let mut replicas = vec![Object::default(); REPLICAS];
    let mut remembered = vec![Context::default(); CLIENTS];
    let mut writes: Vec<Dot> = Vec::new();
    let mut superseded: Vec<Dot> = Vec::new();
    for (seq, step) in (1u64..).zip(steps) {
        match *step {
            Step::Read { client, replica } => {
                remembered[client] = replicas[replica].context().clone();
            }
            Step::Write {
                client,
                replica,
                blind,
                delete,
            } => {
                let nothing = Context::default();
                let seen = if blind { &nothing } else { &remembered[client] };
                superseded.extend(writes.iter().filter(|&&dot| seen.covers(dot)));
                let actor = Actor(replica as u64);
                let dot = Dot { actor, seq };
                // Stamps are far from the order of writing, as clocks may be.
                let hlc = Hlc(seq * 7 % 13);
                let value = (!delete).then(|| seq.to_be_bytes().to_vec());
                let value = (FIRST_SCHEMA, value);
                replicas[replica].put(seen, dot, hlc, value).unwrap();
                writes.push(dot);
            }
            Step::Deliver { from, to } => {
                let arrived = replicas[from].clone();
                replicas[to].merge(arrived);
            }
        }
    }
    writes.retain(|dot| !superseded.contains(dot));
    (replicas, writes)
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut merged = a.clone();
    merged.merge(b.clone());
    merged
}

fn encoded(object: &Object) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.encode(&mut bytes);
    bytes
}

/// Any object at all: small numbers, so that dots collide, and contents that may disagree about a dot.
fn object() -> impl Strategy<Value = Object> {
    let version = (
        0..3u32,
        0..4u64,
        1..6u64,
        0..5u64,
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3)),
    );
    let versions = proptest::collection::vec(version, 0..5);
    let extra = proptest::collection::vec((0..5u64, 0..8u64), 0..4);
    (versions, extra).prop_map(|(versions, extra)| {
        let mut object = Object::default();
        let nothing = Context::default();
        for (schema, actor, seq, hlc, value) in versions {
            let actor = Actor(actor);
            object
                .put(&nothing, Dot { actor, seq }, Hlc(hlc), (schema, value))
                .unwrap();
        }
        let mut seen = Object::default();
        let dots = extra.into_iter().map(|(actor, seq)| Dot {
            actor: Actor(actor),
            seq,
        });
        let actor = Actor(9);
        // A write that has seen the extra dots and is itself superseded: only its context remains.
        seen.put(
            &dots.collect(),
            Dot { actor, seq: 1 },
            Hlc(0),
            (FIRST_SCHEMA, None),
        )
        .unwrap();
        object.merge(seen);
        object
    })
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(a in object(), b in object(), c in object()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
    }

    #[test]
    fn every_merge_can_be_written_and_read_back(a in object(), b in object()) {
        let both = merged(&a, &b);
        prop_assert_eq!(Object::decode(&encoded(&both)).unwrap(), both);
    }

    #[test]
    fn supersedes_says_whether_a_merge_would_change_anything(a in object(), b in object()) {
        let (a_bytes, b_bytes) = (encoded(&a), encoded(&b));
        let (a_ref, b_ref) = (ObjectRef::parse(&a_bytes).unwrap(), ObjectRef::parse(&b_bytes).unwrap());
        prop_assert_eq!(a_ref.supersedes(&b_ref), merged(&a, &b) == a);
        let both = encoded(&merged(&a, &b));
        prop_assert!(ObjectRef::parse(&both).unwrap().supersedes(&a_ref));
    }

    #[test]
    fn merging_bytes_equals_merging_objects(a in object(), b in object()) {
        let (a_bytes, b_bytes) = (encoded(&a), encoded(&b));
        let (ours, theirs) = (ObjectRef::parse(&a_bytes).unwrap(), ObjectRef::parse(&b_bytes).unwrap());
        let both = encoded(&merged(&a, &b));
        let mut out = b"before".to_vec();
        let found = merge_encoded(&ours, &theirs, &mut out);
        let written = out.strip_prefix(b"before").unwrap();
        let expected = match &both {
            both if *both == a_bytes => Merged::Ours,
            both if *both == b_bytes => Merged::Theirs,
            _ => Merged::Both,
        };
        prop_assert_eq!(found, expected);
        prop_assert_eq!(written, if found == Merged::Both { &both[..] } else { &[] });
    }

    #[test]
    fn digests_are_equal_exactly_for_equal_histories(a in object(), b in object()) {
        let history = |object: &Object| {
            let versions = object.versions().iter().map(|v| (v.dot, v.hlc));
            (object.context().clone(), versions.collect::<Vec<_>>())
        };
        let (a_bytes, b_bytes) = (encoded(&a), encoded(&b));
        let (ours, theirs) = (ObjectRef::parse(&a_bytes).unwrap(), ObjectRef::parse(&b_bytes).unwrap());
        prop_assert_eq!(ours.digest() == theirs.digest(), history(&a) == history(&b));
        let both = encoded(&merged(&a, &b));
        let both = ObjectRef::parse(&both).unwrap();
        prop_assert_eq!(both.digest() == ours.digest(), history(&merged(&a, &b)) == history(&a));
    }

    #[test]
    fn replicas_converge_and_keep_exactly_the_writes_nobody_superseded(steps in proptest::collection::vec(step(), 0..40)) {
        let (replicas, current) = play(&steps);
        let together = replicas.iter().fold(Object::default(), |all, one| merged(&all, one));
        let backwards = replicas.iter().rev().fold(Object::default(), |all, one| merged(&all, one));
        prop_assert_eq!(&together, &backwards);
        let mut kept: Vec<Dot> = together.versions().iter().map(|v| v.dot).collect();
        let mut current = current;
        kept.sort();
        current.sort();
        prop_assert_eq!(kept, current);
    }

    #[test]
    fn a_borrowed_view_answers_as_the_object_does(object in object()) {
        let bytes = encoded(&object);
        let view = ObjectRef::parse(&bytes).unwrap();
        prop_assert_eq!(view.versions_len(), object.versions().len());
        prop_assert_eq!(view.latest(), object.latest());
        prop_assert_eq!(view.latest(), object.live().next());
        prop_assert_eq!(view.is_deleted(), object.is_deleted());
        prop_assert_eq!(&view.context(), object.context());
        let single = match object.versions() {
            [one] => Some(one.as_ref()),
            _ => None,
        };
        prop_assert_eq!(view.single(), single);
        let dots = |versions: &[Version]| versions.iter().map(|v| (v.dot, v.hlc)).collect::<Vec<_>>();
        prop_assert_eq!(view.versions().map(|v| (v.dot, v.hlc)).collect::<Vec<_>>(), dots(object.versions()));
        for actor in (0..10).map(Actor) {
            prop_assert_eq!(view.seq(actor), object.context().seq(actor));
        }
    }

    #[test]
    fn a_successor_equals_put_with_the_full_context(
        old in proptest::option::of(object()),
        actor in 0..7u64,
        seq in 1..20u64,
        schema in 0..4u32,
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
    ) {
        let dot = Dot { actor: Actor(actor), seq };
        let old_bytes = old.as_ref().map(encoded);
        let mut fast = b"before".to_vec();
        let old_ref = old_bytes.as_deref().map(|bytes| ObjectRef::parse(bytes).unwrap());
        let version = VersionRef { dot, hlc: Hlc(3), schema, value: value.as_deref() };
        encode_successor(old_ref.as_ref(), version, &mut fast);
        let mut object = old.unwrap_or_default();
        let seen = object.context().clone();
        object.put(&seen, dot, Hlc(3), (schema, value)).unwrap();
        let mut slow = b"before".to_vec();
        object.encode(&mut slow);
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn keeping_the_latest_leaves_one_version_that_merging_respects(object in object()) {
        let mut latest = object.clone();
        latest.keep_latest();
        prop_assert!(latest.versions().len() <= 1);
        prop_assert_eq!(merged(&latest, &object), latest);
    }

    #[test]
    fn random_bytes_are_refused_or_read_consistently(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert_eq!(Object::decode(&encoded(&object)).unwrap(), object);
        }
        prop_assert!(Context::from_token(&bytes).is_err(), "a random token passed its checksum");
    }

    #[test]
    fn damaged_objects_never_panic(
        object in object(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&object);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert!(object.versions().iter().all(|v| object.context().covers(v.dot)));
        }
    }

    #[test]
    fn tokens_round_trip(dots in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
        let context: Context = dots.into_iter().map(|(actor, seq)| Dot { actor: Actor(actor), seq }).collect();
        prop_assert_eq!(Context::from_token(&context.to_token()).unwrap(), context);
    }

    #[test]
    fn stamps_never_go_back(start in any::<u64>(), clocks in proptest::collection::vec(0..1u64 << 49, 1..50)) {
        let mut last = Hlc(start / 2);
        for now_ms in clocks {
            let next = Hlc::next(last, now_ms);
            prop_assert!(next > last || last.0 == u64::MAX);
            last = next;
        }
    }
}

#[test]
fn clients_that_pass_contexts_back_stay_far_below_the_sibling_limit() {
    // Each client reads, waits for the others to read too, then writes: the worst interleaving there is.
    let mut object = Object::default();
    let mut seq = 0;
    for _round in 0..200 {
        let seen = object.context().clone();
        for _client in 0..CLIENTS {
            seq += 1;
            let actor = Actor(1);
            object
                .put(
                    &seen,
                    Dot { actor, seq },
                    Hlc(seq),
                    (FIRST_SCHEMA, Some(vec![0; 8])),
                )
                .unwrap();
        }
        assert_eq!(object.versions().len(), CLIENTS);
        assert!(object.versions().len() < VERSIONS_MAX);
    }
}
