//! A key-value store that serves the same commands as its twins in Python and JavaScript, and stores what they can read: each
//! is a version of one guest. See tests/conformance/guests.

use guest_sdk::prelude::*;

/// The vnode.
#[derive(Default)]
pub struct Polyglot;

guest_sdk::export!(Polyglot);

const PAGE_ROWS: u32 = 100;
const SCAN_COUNT: u32 = 10;
const SCAN_COUNT_MAX: u32 = 1000;

impl Vnode for Polyglot {
    const NAME: &'static str = "polyglot";
    const VERSION: Option<&'static str> = Some("1.0.0");
    const MERGE: Merge = Merge::LastWrite;
    const COMMANDS: &'static [CommandSpec] = &[
        read("GET").arity(2).key(1).syntax("key").summary("Get a value"),
        write("SET").arity(-3).key(1).blind().syntax("key value").summary("Set a value"),
        write("DEL").arity(-2).keys(1, -1, 1).sum().syntax("key [key ...]").summary("Delete keys"),
        write("INCR").arity(2).key(1).syntax("key").summary("Add one to a number"),
        write("BOOM").arity(2).key(1).syntax("key").summary("Write a key, then fail"),
        coverage("KEYS").arity(1).concat().summary("List all keys"),
        coverage("DBSIZE").arity(1).sum().summary("Count all keys"),
        coverage("SCAN")
            .arity(-2)
            .cursor()
            .syntax("cursor [COUNT n]")
            .summary("List keys by pages"),
    ];

    fn init(&mut self, identity: &Identity) -> Result<(), String> {
        match identity.service.as_str() {
            Self::NAME => Ok(()),
            other => Err(format!("started as {other}")),
        }
    }

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        match command.name() {
            "GET" => Ok(store::get(key)?.into()),
            "SET" if command.words() > 3 => Err(Error::syntax()),
            "SET" => {
                store::put(key, command.bytes(2)?)?;
                Ok(Reply::ok())
            }
            "DEL" => {
                let mut count = 0;
                for key in command.keys() {
                    count += i64::from(store::delete(key)?);
                }
                Ok(Reply::int(count))
            }
            "INCR" => {
                let next = store::get_int(key)?.checked_add(1).ok_or_else(Error::overflow)?;
                store::put(key, next.to_string())?;
                Ok(Reply::int(next))
            }
            "BOOM" => {
                store::put(key, b"never seen")?;
                panic!("boom");
            }
            _ => command.unknown(),
        }
    }

    fn coverage(&mut self, command: &Command, cursor: Option<&[u8]>) -> Result<Page> {
        let rows = match command.name() {
            "DBSIZE" => {
                let count = i64::try_from(store::count()?).unwrap_or(i64::MAX);
                return Ok(Page::last([count]));
            }
            "KEYS" => PAGE_ROWS,
            _ => scan_count(command)?,
        };
        let page = store::scan(cursor, rows, Projection::Keys)?;
        Ok(Page::new(
            page.rows.into_iter().map(|row| row.key),
            page.next,
        ))
    }
}

fn scan_count(command: &Command) -> Result<u32> {
    match command.words() {
        2 => Ok(SCAN_COUNT),
        4 if command.is(2, "COUNT") => match command.int(3)? {
            ..1 => Err(Error::not_an_integer()),
            asked => Ok(u32::try_from(asked).unwrap_or(SCAN_COUNT_MAX).min(SCAN_COUNT_MAX)),
        },
        _ => Err(Error::syntax()),
    }
}
