//! A vnode to begin with.

use guest_sdk::prelude::*;

/// What one instance remembers. It is a cache: what must last goes into the `store`.
#[derive(Default)]
pub struct Service;

guest_sdk::export!(Service);

impl Vnode for Service {
    const NAME: &'static str = "{{name}}";
    // As soon as a command writes, say what becomes of concurrent versions:
    // const MERGE: Merge = Merge::Siblings;
    const COMMANDS: &'static [CommandSpec] = &[
        any("GREET").arity(2).key(1).syntax("name").summary("Say hello"),
        // read("GET").arity(2).key(1).syntax("key"),
        // write("SET").arity(3).key(1).syntax("key value"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        match command.name() {
            "GREET" => Ok(Reply::bulk(format!("hello {}", command.text(1)?))),
            // "GET" => Ok(store::get(command.bytes(1)?)?.into()),
            // "SET" => store::put(command.bytes(1)?, command.bytes(2)?).map(|()| Reply::ok()),
            _ => command.unknown(),
        }
    }
}
