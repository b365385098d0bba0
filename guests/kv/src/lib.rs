//! A key-value store with the commands that every Redis client knows.
//!
//! A plain write replaces what its coordinator sees. Writes that truly did not know of each other stay side by side:
//! GET answers the latest, VGET all of them with the causal context that VPUT takes back.

mod glob;
mod hex;
mod scan;

use guest_sdk::prelude::*;

/// The store's vnode. All that it knows is in the rows.
#[derive(Default)]
pub struct Kv;

guest_sdk::export!(Kv);

const SOME_KEYS: &str = "key [key ...]";
const SCAN_SYNTAX: &str = "cursor [MATCH pattern] [COUNT count]";

impl Vnode for Kv {
    const NAME: &'static str = "kv";
    const MERGE: Merge = Merge::Siblings;
    const COMMANDS: &'static [CommandSpec] = &[
        read("GET").arity(2).key(1).syntax("key").summary("Get a value"),
        // More words than three are refused as Redis refuses options, not as a wrong number.
        write("SET").arity(-3).key(1).blind().syntax("key value").summary("Set a value"),
        write("PUT").arity(3).key(1).blind().syntax("key value").summary("Set a value"),
        write("DEL").arity(-2).keys(1, -1, 1).sum().syntax(SOME_KEYS).summary("Delete keys"),
        write("DELETE").arity(2).key(1).syntax("key").summary("Delete a key and get its value"),
        read("EXISTS").arity(-2).keys(1, -1, 1).sum().syntax(SOME_KEYS).summary("Count keys"),
        read("MGET").arity(-2).keys(1, -1, 1).concat().syntax(SOME_KEYS).summary("Get values"),
        read("VGET").arity(2).key(1).syntax("key").summary("Get concurrent values and context"),
        write("VPUT").arity(4).key(1).syntax("key value context").summary("Replace what VGET saw"),
        coverage("KEYS").arity(-1).concat().syntax("[pattern]").summary("List matching keys"),
        coverage("VALUES").arity(1).concat().summary("List all values"),
        coverage("DBSIZE").arity(1).sum().summary("Count all keys"),
        coverage("SCAN").arity(-2).cursor().syntax(SCAN_SYNTAX).summary("List keys by pages"),
        coverage_write("CLEAR").arity(1).all_ok().summary("Delete all keys"),
    ];

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        match command.name() {
            "GET" => Ok(store::get(key)?.into()),
            "SET" if command.words() > 3 => Err(Error::syntax()),
            "SET" | "PUT" => {
                store::put(key, command.bytes(2)?)?;
                Ok(Reply::ok())
            }
            "DEL" => count(command, |key| store::delete(key)),
            "DELETE" => {
                let old = store::get(key)?;
                store::delete(key)?;
                Ok(old.into())
            }
            "EXISTS" => count(command, |key| Ok(store::get(key)?.is_some())),
            "MGET" => {
                let values: Result<Vec<_>> = command.keys().map(store::get).collect();
                Ok(Reply::array(values?))
            }
            "VGET" => {
                let object = store::get_object(key)?;
                let context = hex::encode(&object.context).into();
                Ok(Reply::array([context, Reply::array(object.values)]))
            }
            "VPUT" => {
                let context = hex::decode(command.bytes(3)?)?;
                let context = store::put_object(key, command.bytes(2)?, context)?;
                Ok(hex::encode(&context).into())
            }
            _ => command.unknown(),
        }
    }

    fn coverage(&mut self, command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
        match command.name() {
            "KEYS" => scan::keys(command, cursor),
            "VALUES" => scan::values(cursor),
            "DBSIZE" => scan::size(),
            "SCAN" => scan::page(command, cursor),
            "CLEAR" => scan::clear(cursor),
            _ => command.unknown().map(|reply| Page::last([reply])),
        }
    }
}

/// Counts the keys of `command` for which `holds`.
fn count(command: &Command, holds: impl Fn(&[u8]) -> Result<bool>) -> Result<Reply> {
    let mut count = 0;
    for key in command.keys() {
        count += i64::from(holds(key)?);
    }
    Ok(Reply::int(count))
}
