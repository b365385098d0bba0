//! Counters that lose no increment, wherever in the cluster it is counted.

mod tally;

use guest_sdk::prelude::*;
use tally::Tally;

/// The vnode. It counts under a name of its own, so that nobody else overwrites what it counted.
#[derive(Default)]
pub struct Counter {
    actor: u64,
}

guest_sdk::export!(Counter);

impl Vnode for Counter {
    const NAME: &'static str = "counter";
    const MERGE: Merge = Merge::Custom(tally::merge);
    const COMMANDS: &'static [CommandSpec] = &[
        write("INCR").arity(2).key(1).syntax("key").summary("Add one"),
        write("INCRBY").arity(3).key(1).syntax("key increment").summary("Add a number"),
        write("DECR").arity(2).key(1).syntax("key").summary("Subtract one"),
        write("DECRBY").arity(3).key(1).syntax("key decrement").summary("Subtract a number"),
        read("COUNT").arity(2).key(1).syntax("key").summary("The sum so far"),
    ];

    fn init(&mut self, identity: &Identity) -> Result<(), String> {
        self.actor = identity.actor;
        Ok(())
    }

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        let amount = match command.name() {
            "INCR" => 1,
            "DECR" => -1,
            "INCRBY" => i128::from(command.int(2)?),
            "DECRBY" => -i128::from(command.int(2)?),
            "COUNT" => {
                let sum = stored(key)?.sum();
                // Increments that did not know of each other may leave the range together.
                let sum = sum.clamp(i64::MIN.into(), i64::MAX.into());
                return i64::try_from(sum).map(Reply::int).map_err(|_| Error::overflow());
            }
            _ => return command.unknown(),
        };
        let mut tally = stored(key)?;
        tally.add(self.actor, amount)?;
        let sum = i64::try_from(tally.sum()).map_err(|_| Error::overflow())?;
        store::put(key, tally.encode())?;
        Ok(Reply::int(sum))
    }
}

fn stored(key: &[u8]) -> Result<Tally> {
    match store::get(key)? {
        Some(value) => Tally::decode(&value)
            .ok_or_else(|| Error::new("WRONGTYPE", "this key does not hold a counter")),
        None => Ok(Tally::default()),
    }
}
