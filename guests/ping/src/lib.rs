//! The smallest vnode: it stores nothing and says where it is.

use guest_sdk::prelude::*;

/// The vnode. It remembers its place, because the index is no part of a command's context.
#[derive(Default)]
pub struct Ping {
    partition_index: String,
}

guest_sdk::export!(Ping);

impl Vnode for Ping {
    const NAME: &'static str = "ping";
    const COMMANDS: &'static [CommandSpec] = &[
        // The number is hashed as `ping<n>`, so each number has its partition; without one, any will do.
        any("PING").arity(-1).key(1).prefix("ping").syntax("[n]").summary("Ask where it is"),
    ];

    fn init(&mut self, identity: &Identity) -> Result<(), String> {
        self.partition_index.clone_from(&identity.partition_index);
        Ok(())
    }

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let pong = Reply::simple("pong");
        let place = command.context();
        match command.words() {
            1 => {
                let partition = place.partition.into();
                Ok(Reply::array([pong, partition, place.node.into()]))
            }
            2 => {
                let next = command.int(1)?.checked_add(1).ok_or_else(Error::overflow)?;
                let index = Reply::big_number(&*self.partition_index);
                Ok(Reply::array([pong, next.into(), place.node.into(), index]))
            }
            _ => Err(command.wrong_arity()),
        }
    }
}
