//! Says where it is. A vnode that stores nothing needs no merge policy.

use guest_sdk::prelude::*;

/// Counts its own calls. Fields are a cache: a restart or a swap begins again at zero.
#[derive(Default)]
pub struct Ping {
    calls: i64,
}

guest_sdk::export!(Ping);

impl Vnode for Ping {
    const NAME: &'static str = "{{name}}";
    const COMMANDS: &'static [CommandSpec] = &[
        // Without a key a random partition answers; with one, always the same.
        any("PING").arity(-1).key(1).syntax("[key]").summary("Ask a vnode where it is"),
        any("CALLS").arity(-1).key(1).syntax("[key]").summary("Ask it how often it was asked"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        self.calls += 1;
        let place = command.context();
        match command.name() {
            "PING" => {
                log::debug!("ping at partition {}", place.partition);
                let pong = Reply::simple("pong");
                let partition = place.partition.into();
                Ok(Reply::array([pong, partition, place.node.into()]))
            }
            "CALLS" => Ok(Reply::int(self.calls)),
            _ => command.unknown(),
        }
    }
}
