//! A store that says in the log what it is told of its partition's moves, in the words of the first tutorial.
//!
//! It refuses to go when it is asked for the first time, as a vnode may that is busy with something else.

use guest_sdk::prelude::*;

/// The vnode.
#[derive(Default)]
pub struct Traveller {
    asked: bool,
}

guest_sdk::export!(Traveller, lifecycle);

impl Vnode for Traveller {
    const NAME: &'static str = "traveller";
    const MERGE: Merge = Merge::LastWrite;
    const COMMANDS: &'static [CommandSpec] = &[
        write("PACK").arity(3).key(1).syntax("key value").summary("Set a value"),
        read("UNPACK").arity(2).key(1).syntax("key").summary("The value"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        match command.name() {
            "PACK" => {
                store::put(key, command.bytes(2)?)?;
                Ok(Reply::ok())
            }
            "UNPACK" => Ok(store::get(key)?.into()),
            _ => command.unknown(),
        }
    }
}

impl Lifecycle for Traveller {
    fn handoff_starting(&mut self, node: &str) -> std::result::Result<(), String> {
        if !self.asked {
            self.asked = true;
            return Err("not packed yet".into());
        }
        log::info!("starting handoff to {node}");
        Ok(())
    }

    fn handoff_finished(&mut self, node: &str) {
        log::info!("handoff finished: {node} has it");
    }

    fn handoff_cancelled(&mut self, node: &str) {
        log::info!("handoff cancelled: not to {node}");
    }

    fn deleted(&mut self) {
        log::info!("deleted");
    }

    fn terminate(&mut self, reason: &str) {
        log::info!("terminate: {reason}");
    }
}
