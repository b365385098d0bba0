//! Keeps accounts: a number under each key. The second version has one command more; what else it does depends on its make.

use guest_sdk::prelude::*;

/// The vnode.
#[derive(Default)]
pub struct Clerk;

#[cfg(not(feature = "migrates"))]
guest_sdk::export!(Clerk);
#[cfg(feature = "migrates")]
guest_sdk::export!(Clerk, migration);

/// In front of an account of schema 2. The first schema has the number alone, and each make reads its own schema only.
#[cfg(feature = "migrates")]
const MARK: &str = "n=";
#[cfg(not(feature = "migrates"))]
const MARK: &str = "";

/// What a make that hoards never gives back.
static HOARD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();

/// Commands that every make has.
const ADD: CommandSpec = write("ADD").arity(3).key(1).syntax("key n").summary("Add to an account");
const BALANCE: CommandSpec = read("BALANCE").arity(2).key(1).syntax("key").summary("An account");
const EACH: CommandSpec = each("EACH").arity(2).key(1).syntax("key").summary("An account, by all");
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
    const SCHEMA: std::ops::RangeInclusive<u32> =
        if cfg!(any(feature = "schema", feature = "migrates")) {
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
        EACH,
        BALANCE,
        ADD,
    ];
    #[cfg(all(not(feature = "two"), not(feature = "less")))]
    const COMMANDS: &'static [CommandSpec] = &[ADD, BALANCE, EACH, TOTAL, WHO];
    #[cfg(feature = "less")]
    const COMMANDS: &'static [CommandSpec] = &[ADD, BALANCE, EACH, TOTAL];

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
        if cfg!(feature = "hoard") {
            // Of 64 MiB. It is never given back, and commands still succeed.
            HOARD.get_or_init(|| vec![1; 56 << 20]);
        }
        if cfg!(feature = "refuse") {
            return Err(Error::new("ERR", "this make refuses everything"));
        }
        if cfg!(feature = "slow") {
            for n in 0..400_000_000_u64 {
                std::hint::black_box(n);
            }
        }
        if cfg!(feature = "slower") {
            for n in 0..200_000_u64 {
                std::hint::black_box(n);
            }
        }
        match command.name() {
            "WHO" => Ok(Reply::bulk(Self::VERSION.unwrap_or_default())),
            // One key in ten, and nothing fails.
            "BALANCE" if cfg!(feature = "wrong") && key.ends_with(b"7") => {
                Ok(Reply::int(balance(key)? + 1))
            }
            "BALANCE" | "EACH" => Ok(Reply::int(balance(key)?)),
            "ADD" if cfg!(feature = "stray") => {
                let right = balance(key)? + command.int(2)?;
                store::put(key, (right + 1000).to_string().as_bytes())?;
                Ok(Reply::int(right))
            }
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

#[cfg(feature = "migrates")]
impl Migrate for Clerk {
    const BACK_TO: u32 = if cfg!(feature = "migrates-one-way") {
        2
    } else {
        1
    };

    fn newer(_: u32, key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        if cfg!(feature = "migrates-trap") && key.starts_with(b"bad") {
            panic!("this make cannot migrate that");
        }
        while cfg!(feature = "migrates-loop") && key.starts_with(b"bad") {
            std::hint::black_box(key);
        }
        dawdle();
        Ok([MARK.as_bytes(), value].concat())
    }

    fn older(_: u32, _: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        dawdle();
        let number = value.strip_prefix(MARK.as_bytes());
        number.map(<[u8]>::to_vec).ok_or_else(|| "an account without its mark".into())
    }
}

/// Takes more time than an executor has for a command, in the make that does.
#[cfg(feature = "migrates")]
fn dawdle() {
    let rounds = if cfg!(feature = "migrates-slow") {
        100_000_000
    } else {
        0
    };
    for n in 0..rounds {
        std::hint::black_box::<u64>(n);
    }
}

fn balance(key: &[u8]) -> Result<i64> {
    store::get(key)?.map_or(Ok(0), |value| number(&value))
}

fn change(key: &[u8], change: impl Fn(i64) -> Result<i64>) -> Result<Reply> {
    let balance = change(balance(key)?)?;
    store::put(key, format!("{MARK}{balance}").as_bytes())?;
    Ok(Reply::int(balance))
}

fn number(value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.strip_prefix(MARK)?.parse().ok())
        .ok_or_else(|| Error::new("ERR", "an account is no number"))
}
