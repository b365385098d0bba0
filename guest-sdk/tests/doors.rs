//! Both doors give the same answers and leave the same rows, whatever a vnode does with its keys.

use guest_sdk::prelude::*;
use guest_sdk::testing::{Door, TestVnode};

/// Runs little programs over its keys, to reach every path of the store.
#[derive(Default)]
struct Machine;

impl Vnode for Machine {
    const NAME: &'static str = "machine";
    const MERGE: Merge = Merge::Siblings;
    const COMMANDS: &'static [CommandSpec] = &[
        read("LOOK")
            .arity(-3)
            .keys(2, -1, 1)
            .syntax("program key [key ...]"),
        write("RUN")
            .arity(-3)
            .keys(2, -1, 1)
            .syntax("program key [key ...]"),
    ];

    /// Each letter of word 1 is a step on the next key; its result is a member of the reply.
    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let mut keys = command.keys().cycle();
        let mut replies = Vec::new();
        for step in command.bytes(1)? {
            let key = keys.next().ok_or("no key")?;
            replies.push(match step {
                b'g' => store::get(key)?.into(),
                b'p' => store::put(
                    key,
                    format!("{}-{}", replies.len(), command.context().now_ms),
                )
                .map(|()| Reply::ok())?,
                b'd' => Reply::Bool(store::delete(key)?),
                b'o' => Reply::count(store::get_object(key)?.values.len()),
                // Contexts count writes, and the packed door makes one of two writes to one key.
                b'v' => store::put_object(key, "sibling", "").map(|_| Reply::ok())?,
                b's' => Reply::array(
                    store::scan(None, 2, Projection::Rows)?
                        .rows
                        .into_iter()
                        .map(|row| row.key),
                ),
                b'c' => Reply::text(store::count()?.to_string()),
                b'x' => store::get([key, b"x"].concat())?.into(),
                b't' => {
                    store::put([b"{", key, b"}:twin"].concat(), "twin").map(|()| Reply::ok())?
                }
                // A vnode that goes on after an error must not slip past the deferral.
                b'i' => Reply::Bool(store::count().is_ok()),
                b'e' => return Err(Error::new("WRONGTYPE", "told to fail")),
                _ => return command.unknown(),
            });
        }
        Ok(Reply::Array(replies))
    }
}

/// A generator good enough to mix steps, and the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let [high, ..] = self.0.to_be_bytes();
        usize::from(high) % sides
    }
}

#[test]
fn both_doors_have_one_meaning() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut batch = TestVnode::<Machine>::new().through(Door::Batch);
        let mut typed = TestVnode::<Machine>::new().through(Door::Typed);
        for time in 0..40 {
            // Mostly the steps that the packed door can do, so that it is not always the typed one that answers.
            let steps = if dice.roll(3) == 0 {
                &b"gpdovscxtie"[..]
            } else {
                b"ggppd"
            };
            let program: Vec<u8> = (0..=dice.roll(6))
                .map(|_| steps[dice.roll(steps.len())])
                .collect();
            let mut words = vec![
                if dice.roll(4) == 0 {
                    b"LOOK".to_vec()
                } else {
                    b"run".to_vec()
                },
                program,
            ];
            for _ in 0..=dice.roll(3) {
                words.push(vec![b'a' + u8::try_from(dice.roll(4)).unwrap()]);
            }
            for vnode in [&mut batch, &mut typed] {
                vnode.set_now(time);
            }
            let line = words.join(&b' ').escape_ascii().to_string();
            assert_eq!(
                batch.call(&words[..]),
                typed.call(&words[..]),
                "seed {seed}: {line}"
            );
            assert_eq!(batch.rows(), typed.rows(), "seed {seed}: {line}");
        }
    }
}

#[test]
fn a_failed_command_leaves_nothing() {
    for door in [Door::Batch, Door::Typed] {
        let mut vnode = TestVnode::<Machine>::new().through(door);
        vnode.call("RUN p a").unwrap();
        let before = vnode.rows();
        let error = vnode.call("RUN pdpe a b").unwrap_err();
        assert_eq!(error, Error::new("WRONGTYPE", "told to fail"));
        assert_eq!(vnode.rows(), before);
    }
}

#[test]
fn a_command_sees_its_own_writes() {
    let mut vnode = TestVnode::<Machine>::new();
    vnode.set_now(7);
    let reply = vnode.call("RUN gpgdgd a").unwrap();
    let expected = [
        Reply::nil(),
        Reply::ok(),
        Reply::bulk("1-7"),
        true.into(),
        Reply::nil(),
        false.into(),
    ];
    assert_eq!(reply, Reply::array(expected));
    assert_eq!(vnode.value("a"), None);
}

#[test]
fn a_key_given_twice_is_one_key() {
    for door in [Door::Batch, Door::Typed] {
        let mut vnode = TestVnode::<Machine>::new().through(door);
        assert_eq!(vnode.call("RUN pgdd a a"), vnode.call("RUN pgdd b b"));
        assert!(vnode.rows().is_empty());
    }
}

#[test]
fn writes_stay_within_the_keys_place() {
    let mut vnode = TestVnode::<Machine>::new();
    vnode.call("RUN t a").unwrap();
    assert_eq!(vnode.value("{a}:twin"), Some(b"twin".to_vec()));
    let refused = vnode.call("LOOK p a").unwrap_err();
    assert!(refused.message().contains("declared to read"), "{refused}");
    vnode.call(["RUN", "v", "k"]).unwrap();
    let far = vnode.call(["RUN", "t", "}"]).unwrap_err();
    assert!(far.message().contains("stored elsewhere"), "{far}");
}
