//! Does on demand what no guest should do. SET and GET work, so that a test can see that nothing is lost.
//!
//! Every misbehaving command first writes its key: none of that may ever be seen.

use std::hint::black_box;

use guest_sdk::prelude::*;

/// The vnode.
#[derive(Default)]
pub struct Hostile {
    /// Commands that this instance ran; starts anew with each instance.
    ran: i64,
    /// Rows that `init` saw.
    saw: usize,
}

guest_sdk::export!(Hostile);

impl Vnode for Hostile {
    const NAME: &'static str = "hostile";
    const MERGE: Merge = Merge::Custom(merge);
    const COMMANDS: &'static [CommandSpec] = &[
        read("GET").arity(2).key(1).syntax("key").summary("Get a value"),
        write("SET").arity(3).key(1).syntax("key value").summary("Set a value"),
        write("PANIC").arity(2).key(1).syntax("key").summary("Panic"),
        write("LOOP").arity(2).key(1).syntax("key").summary("Never return"),
        write("RECURSE").arity(2).key(1).syntax("key").summary("Call itself without end"),
        write("ALLOC").arity(2).key(1).syntax("key").summary("Take memory without end"),
        write("OOB").arity(2).key(1).syntax("key").summary("Write outside its memory"),
        write("EXIT").arity(2).key(1).syntax("key").summary("End the process"),
        write("HOSTCALLS").arity(2).key(1).syntax("key").summary("Ask the host without end"),
        write("LOGFLOOD").arity(2).key(1).syntax("key").summary("Log a thousand lines"),
        write("FOREIGNKEY").arity(3).key(1).syntax("key other").summary("Write another key"),
        write("BIGVALUE").arity(3).key(1).syntax("key bytes").summary("Store a value of a size"),
        write("BIGWRITES").arity(2).key(1).syntax("key").summary("Write without end"),
        read("BIGREPLY").arity(3).key(1).syntax("key bytes").summary("Reply with bytes"),
        read("WRITEREAD")
            .arity(2)
            .key(1)
            .syntax("key")
            .summary("Write where only reading is allowed"),
        read("SPELL").arity(4).key(1).syntax("key code message").summary("Refuse with any words"),
        write("FORK")
            .arity(3)
            .key(1)
            .syntax("key value")
            .summary("Store a value beside the others"),
        any("RAN").arity(-1).key(1).syntax("[key]").summary("Commands that this instance ran"),
        read("ROLE").arity(2).key(1).syntax("key").summary("What this vnode is to the key"),
        any("SAW").arity(2).key(1).syntax("key").summary("Rows that init of this instance saw"),
        coverage("PAGES").arity(1).concat().summary("Pages without end"),
        coverage("LOOPALL").arity(1).sum().summary("Never return, on every vnode"),
    ];

    fn init(&mut self, _: &Identity) -> Result<(), String> {
        let rows = store::scan(None, 100, store::Projection::Keys);
        let rows = rows.map_err(|error| error.to_string())?.rows;
        if rows.iter().any(|row| row.key == b"slow-init") {
            spin();
        }
        self.saw = rows.len();
        Ok(())
    }

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        self.ran += 1;
        if command.name() == "SAW" {
            return Ok(Reply::int(i64::try_from(self.saw).unwrap_or(i64::MAX)));
        }
        if command.name() == "RAN" {
            return Ok(Reply::int(self.ran));
        }
        let key = command.bytes(1)?;
        match command.name() {
            "ROLE" => {
                let role = match command.context().replica {
                    guest_sdk::Replica::Primary => "primary",
                    guest_sdk::Replica::Fallback => "fallback",
                };
                return Ok(Reply::bulk(role));
            }
            "GET" => return Ok(store::get(key)?.into()),
            "BIGREPLY" => {
                let bytes = usize::try_from(command.int(2)?).unwrap_or(0);
                return Ok(Reply::bulk(vec![b'x'; bytes]));
            }
            "SPELL" => {
                return Err(Error::new(
                    command.text(2)?.to_owned(),
                    command.text(3)?.to_owned(),
                ));
            }
            "FORK" => {
                store::put_object(key, command.bytes(2)?, [])?;
                return Ok(Reply::ok());
            }
            "SET" => store::put(key, command.bytes(2)?)?,
            _ => store::put(key, "never seen")?,
        }
        match command.name() {
            "PANIC" => panic!("hostile on purpose"),
            "LOOP" => spin(),
            "RECURSE" => return Ok(Reply::int(recurse(1))),
            "ALLOC" => hoard(),
            "OOB" => out_of_bounds(),
            "EXIT" => std::process::exit(3),
            "HOSTCALLS" => loop {
                store::get_object(key)?;
            },
            "BIGWRITES" => {
                let value = vec![b'x'; 1 << 20];
                loop {
                    store::put(key, &value)?;
                }
            }
            "LOGFLOOD" => (0..1000).for_each(|n| log::info!("line {n} {}", "long ".repeat(2000))),
            "FOREIGNKEY" => store::put(command.bytes(2)?, "never seen")?,
            "BIGVALUE" => {
                let bytes = usize::try_from(command.int(2)?).unwrap_or(0);
                store::put(key, vec![b'x'; bytes])?;
            }
            _ => {}
        }
        Ok(Reply::ok())
    }

    fn coverage(&mut self, command: &Command, _cursor: Option<&[u8]>) -> Result<Page> {
        if command.name() == "LOOPALL" {
            spin();
        }
        Ok(Page::new([Reply::bulk("more")], Some(b"and more".to_vec())))
    }
}

fn merge(key: &[u8], _values: &[Vec<u8>]) -> Vec<u8> {
    match key {
        key if key.ends_with(b"loop") => spin(),
        b"big" => vec![b'x'; 8 << 20],
        _ => panic!("merge on purpose"),
    }
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn recurse(depth: i64) -> i64 {
    let frame = black_box([depth; 64]);
    if depth == i64::MAX {
        0
    } else {
        recurse(depth + 1) + black_box(frame)[63]
    }
}

fn hoard() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(black_box(vec![0; 1 << 20]));
    }
}

fn out_of_bounds() {
    let place = black_box(usize::MAX - 64) as *mut u8;
    // SAFETY: it is not; the sandbox has to catch it.
    unsafe { place.write_volatile(1) }
}
