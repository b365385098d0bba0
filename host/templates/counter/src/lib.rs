//! Counters.

use guest_sdk::prelude::*;

/// Has no fields: what must last is in the store.
#[derive(Default)]
pub struct Counter;

guest_sdk::export!(Counter);

impl Vnode for Counter {
    const NAME: &'static str = "{{name}}";
    const MERGE: Merge = Merge::LastWrite;
    const COMMANDS: &'static [CommandSpec] = &[
        write("INCR").arity(2).key(1).syntax("key").summary("Add one"),
        read("COUNT").arity(2).key(1).syntax("key").summary("The number so far"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        let count = store::get_int(key)?;
        match command.name() {
            "INCR" => {
                let next = count.checked_add(1).ok_or_else(Error::overflow)?;
                store::put(key, next.to_string())?;
                Ok(Reply::int(next))
            }
            "COUNT" => Ok(Reply::int(count)),
            _ => command.unknown(),
        }
    }
}
