//! A key-value store.

use guest_sdk::prelude::*;

/// Has no fields: what must last is in the store.
#[derive(Default)]
pub struct Kv;

guest_sdk::export!(Kv);

impl Vnode for Kv {
    const NAME: &'static str = "{{name}}";
    // Values that were written without knowing of each other stay until the next write; GET answers the latest.
    const MERGE: Merge = Merge::Siblings;
    const COMMANDS: &'static [CommandSpec] = &[
        read("GET").arity(2).key(1).syntax("key").summary("The value of a key"),
        write("SET").arity(3).key(1).syntax("key value").summary("Store a value"),
        write("DEL").arity(-2).keys(1, -1, 1).sum().syntax("key [key ...]").summary("Delete keys"),
        coverage("KEYS").arity(1).concat().summary("All keys of the cluster"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        match command.name() {
            "GET" => Ok(store::get(command.bytes(1)?)?.into()),
            "SET" => {
                store::put(command.bytes(1)?, command.bytes(2)?)?;
                Ok(Reply::ok())
            }
            "DEL" => {
                let mut deleted = 0;
                for key in command.keys() {
                    deleted += i64::from(store::delete(key)?);
                }
                Ok(Reply::int(deleted))
            }
            _ => command.unknown(),
        }
    }

    /// Runs on as many vnodes as cover the ring; the host joins the pages.
    fn coverage(&mut self, _command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
        let scan = store::scan(cursor, 1000, Projection::Keys)?;
        let keys = scan.rows.into_iter().map(|row| row.key);
        Ok(Page::new(keys, scan.next))
    }
}
