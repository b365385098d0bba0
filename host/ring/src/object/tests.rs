//! The scenarios that broke other stores, told with one or two replicas.

use super::*;

const A: Actor = Actor(1);
const B: Actor = Actor(2);

fn dot(actor: Actor, seq: u64) -> Dot {
    Dot { actor, seq }
}

fn write(object: &mut Object, seen: &Context, by: (Actor, u64), value: &str) {
    let value = (FIRST_SCHEMA, Some(value.as_bytes().to_vec()));
    let dot = dot(by.0, by.1);
    object.put(seen, dot, Hlc(by.1), value).unwrap();
}

fn delete(object: &mut Object, seen: &Context, by: (Actor, u64)) {
    let dot = dot(by.0, by.1);
    object
        .put(seen, dot, Hlc(by.1), (FIRST_SCHEMA, None))
        .unwrap();
}

fn values(object: &Object) -> Vec<&str> {
    object
        .live()
        .map(|value| std::str::from_utf8(value).unwrap())
        .collect()
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut merged = a.clone();
    merged.merge(b.clone());
    merged
}

#[test]
fn no_update_is_lost_when_two_clients_read_the_same_value() {
    let mut object = Object::default();
    write(&mut object, &Context::default(), (A, 1), "milk");
    let seen = object.context().clone();
    write(&mut object, &seen, (A, 2), "milk, eggs");
    write(&mut object, &seen, (A, 3), "milk, flour");
    assert_eq!(values(&object), ["milk, flour", "milk, eggs"]);
    assert_eq!(object.latest(), Some(&b"milk, flour"[..]));
}

#[test]
fn a_writer_that_passes_contexts_back_never_piles_up_siblings() {
    let mut object = Object::default();
    let mut slow = Context::default();
    for round in 0..50 {
        let seen = object.context().clone();
        write(&mut object, &seen, (A, 2 * round + 1), "quick");
        write(&mut object, &slow, (A, 2 * round + 2), "slow");
        slow = object.context().clone();
        assert_eq!(values(&object), ["slow", "quick"], "round {round}");
    }
    assert_eq!(object.context().len(), 1);
}

#[test]
fn a_write_without_context_on_an_existing_key_makes_a_sibling() {
    let mut object = Object::default();
    write(&mut object, &Context::default(), (A, 1), "x");
    write(&mut object, &Context::default(), (B, 2), "y");
    assert_eq!(values(&object), ["y", "x"]);
    object.keep_latest();
    assert_eq!(values(&object), ["y"]);
    assert!(object.context().covers(dot(A, 1)), "x stays superseded");
}

#[test]
fn a_deleted_and_recreated_key_does_not_bring_the_old_value_back() {
    let mut object = Object::default();
    write(&mut object, &Context::default(), (A, 1), "old");
    let hint = object.clone();
    let seen = object.context().clone();
    delete(&mut object, &seen, (A, 2));
    assert!(object.is_deleted());
    assert_eq!(object.latest(), None);
    assert!(
        merged(&object, &hint).is_deleted(),
        "a late hint changes nothing"
    );
    let seen = object.context().clone();
    write(&mut object, &seen, (A, 3), "new");
    assert_eq!(values(&merged(&hint, &object)), ["new"]);
}

#[test]
fn a_deletion_concurrent_with_a_write_does_not_hide_the_value() {
    let mut object = Object::default();
    write(&mut object, &Context::default(), (A, 1), "v");
    let seen = object.context().clone();
    let mut elsewhere = object.clone();
    write(&mut object, &seen, (A, 2), "w");
    delete(&mut elsewhere, &seen, (B, 3));
    let both = merged(&object, &elsewhere);
    assert_eq!(both.versions().len(), 2);
    assert_eq!(values(&both), ["w"]);
    assert!(!both.is_deleted());
    let mut last_write = both;
    last_write.keep_latest();
    assert!(last_write.is_deleted(), "the deletion was later");
}

#[test]
fn a_vnode_that_lost_its_store_writes_on_under_a_new_actor() {
    let mut here = Object::default();
    write(&mut here, &Context::default(), (A, 1), "one");
    let seen = here.context().clone();
    write(&mut here, &seen, (A, 2), "two");
    let replica = here;
    // The store is gone; counting from 1 again under A would name a write the replica has already seen and dropped.
    let mut amnesiac = Object::default();
    write(&mut amnesiac, &Context::default(), (A, 1), "three");
    assert_eq!(values(&merged(&replica, &amnesiac)), ["two"], "kv679");
    let mut reborn = Object::default();
    write(&mut reborn, &Context::default(), (B, 1), "three");
    assert_eq!(
        merged(&replica, &reborn).versions().len(),
        2,
        "nothing is lost"
    );
}

#[test]
fn a_tombstone_reaped_on_one_side_does_not_doom_later_writes() {
    let mut here = Object::default();
    write(&mut here, &Context::default(), (A, 7), "v");
    let seen = here.context().clone();
    delete(&mut here, &seen, (A, 8));
    let not_reaped = here;
    // The sequence is vnode-wide, so a write after the reaping still gets a dot that the old tombstone has not seen.
    let mut fresh = Object::default();
    write(&mut fresh, &Context::default(), (A, 9), "again");
    for both in [merged(&not_reaped, &fresh), merged(&fresh, &not_reaped)] {
        assert_eq!(values(&both), ["again"]);
    }
}

#[test]
fn replicas_agree_even_on_two_writes_with_one_name() {
    let mut one = Object::default();
    let mut two = Object::default();
    write(&mut one, &Context::default(), (A, 1), "one");
    write(&mut two, &Context::default(), (A, 1), "two");
    assert_eq!(merged(&one, &two), merged(&two, &one));
    assert_eq!(values(&merged(&one, &two)), ["two"]);
}

#[test]
fn a_write_is_refused_above_the_sibling_limit_but_a_merge_is_not() {
    let (mut object, mut elsewhere) = (Object::default(), Object::default());
    for seq in 1..=100 {
        write(&mut object, &Context::default(), (A, seq), "v");
        write(&mut elsewhere, &Context::default(), (B, seq), "v");
    }
    let full = object.clone();
    let refused = object.put(
        &Context::default(),
        dot(A, 101),
        Hlc(1),
        (FIRST_SCHEMA, None),
    );
    assert!(matches!(
        refused,
        Err(ObjectError::TooManyVersions { count: 101 })
    ));
    assert_eq!(object, full, "unchanged");

    object.merge(elsewhere);
    assert_eq!(object.versions().len(), 200);
    let mut bytes = Vec::new();
    object.encode(&mut bytes);
    assert_eq!(
        Object::decode(&bytes).unwrap(),
        object,
        "what was merged must stay readable"
    );
    let seen = object.context().clone();
    write(&mut object, &seen, (A, 101), "the way out");
    assert_eq!(values(&object), ["the way out"]);
}

#[test]
fn a_client_cannot_grow_a_context_without_bound() {
    let crowd = |actors: std::ops::Range<u64>| -> Context {
        actors.map(|actor| dot(Actor(actor), 1)).collect()
    };
    let mut object = Object::default();
    write(&mut object, &crowd(0..1024), (A, 2), "v");
    let full = object.clone();
    let refused = object.put(&crowd(2000..2001), dot(A, 3), Hlc(1), (FIRST_SCHEMA, None));
    assert!(matches!(
        refused,
        Err(ObjectError::TooManyActors { count: 1025 })
    ));
    assert_eq!(object, full, "unchanged");
    // A new incarnation of a vnode must still be able to write.
    let seen = object.context().clone();
    write(&mut object, &seen, (Actor(3000), 1), "w");
    let seen = object.context().clone();
    write(&mut object, &seen, (Actor(3000), 2), "x");
    assert_eq!(values(&object), ["x"]);
}

#[test]
fn repeating_a_write_changes_nothing() {
    let mut object = Object::default();
    write(&mut object, &Context::default(), (A, 1), "v");
    let once = object.clone();
    write(&mut object, &Context::default(), (A, 1), "v");
    assert_eq!(object, once);
}
