//! Keeps accounts: a number under each key. The second version has one command more; what else it does depends on its make.

use guest_sdk::prelude::*;

/// The vnode.
#[derive(Default)]
pub struct Clerk;

guest_sdk::export!(Clerk);

/// Commands that every make has.
const ADD: CommandSpec = write("ADD").arity(3).key(1).syntax("key n").summary("Add to an account");
const BALANCE: CommandSpec = read("BALANCE").arity(2).key(1).syntax("key").summary("An account");
const TOTAL: CommandSpec = coverage("TOTAL").arity(1).sum().summary("All accounts together");
#[cfg(not(feature = "less"))]
const WHO: CommandSpec = read("WHO").arity(2).key(1).syntax("key").summary("Version that answers");

impl Vnode for Clerk {
    const NAME: &'static str = "clerk";
    const VERSION: Option<&'static str> = Some(if cfg!(feature = "two") {
        "2.0.0"
    } else {
        "1.0.0"
    });
    const MERGE: Merge = Merge::LastWrite;
    const SCHEMA: std::ops::RangeInclusive<u32> = if cfg!(feature = "schema") {
        1..=2
    } else {
        1..=1
    };
    #[cfg(feature = "two")]
    const COMMANDS: &'static [CommandSpec] = &[
        // In another order than in the first version: positions mean nothing across versions.
        write("DOUBLE").arity(2).key(1).syntax("key").summary("Twice as much"),
        WHO,
        TOTAL,
        BALANCE,
        ADD,
    ];
    #[cfg(all(not(feature = "two"), not(feature = "less")))]
    const COMMANDS: &'static [CommandSpec] = &[ADD, BALANCE, TOTAL, WHO];
    #[cfg(feature = "less")]
    const COMMANDS: &'static [CommandSpec] = &[ADD, BALANCE, TOTAL];

    fn init(&mut self, _: &Identity) -> Result<(), String> {
        // An instance on no rows starts: only one that is to serve somebody fails.
        if cfg!(feature = "trap-init") {
            let rows = store::scan(None, 1, store::Projection::Keys);
            if !rows.map_err(|error| error.to_string())?.rows.is_empty() {
                panic!("this make cannot read what is there");
            }
        }
        Ok(())
    }

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        let key = command.bytes(1)?;
        if cfg!(feature = "trap-all") || cfg!(feature = "trap-key") && key.starts_with(b"bad") {
            panic!("this make fails");
        }
        if cfg!(feature = "loop") && key.starts_with(b"bad") {
            loop {
                std::hint::black_box(key);
            }
        }
        if cfg!(feature = "refuse") {
            return Err(Error::new("ERR", "this make refuses everything"));
        }
        if cfg!(feature = "slow") {
            for n in 0..400_000_000_u64 {
                std::hint::black_box(n);
            }
        }
        match command.name() {
            "WHO" => Ok(Reply::bulk(Self::VERSION.unwrap_or_default())),
            "BALANCE" => Ok(Reply::int(balance(key)?)),
            "ADD" => change(key, |balance| Ok(balance + command.int(2)?)),
            "DOUBLE" => change(key, |balance| Ok(balance * 2)),
            _ => command.unknown(),
        }
    }

    fn coverage(&mut self, _: &Command, cursor: Option<&[u8]>) -> Result<Page> {
        let page = store::scan(cursor, 100, store::Projection::Rows)?;
        let mut sum = 0;
        for row in &page.rows {
            sum += number(&row.value)?;
        }
        Ok(Page {
            items: vec![Reply::int(sum)],
            next: page.next,
        })
    }
}

fn balance(key: &[u8]) -> Result<i64> {
    store::get(key)?.map_or(Ok(0), |value| number(&value))
}

fn change(key: &[u8], change: impl Fn(i64) -> Result<i64>) -> Result<Reply> {
    let balance = change(balance(key)?)?;
    store::put(key, balance.to_string().as_bytes())?;
    Ok(Reply::int(balance))
}

fn number(value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::new("ERR", "an account is no number"))
}
