//! Which schemas a vnode is asked to go between, and which it refuses.

use guest_sdk::door::migrate;
use guest_sdk::migration_bindings::exports::vnode::host::migration::Row;
use guest_sdk::prelude::*;

#[derive(Default)]
struct Ledger;

impl Vnode for Ledger {
    const NAME: &'static str = "ledger";
    const COMMANDS: &'static [CommandSpec] = &[read("GET").arity(2).key(1).syntax("key")];
    const SCHEMA: std::ops::RangeInclusive<u32> = 2..=4;

    fn handle(&mut self, command: &Command) -> Result<Reply> {
        Ok(store::get(command.bytes(1)?)?.into())
    }
}

impl Migrate for Ledger {
    const BACK_TO: u32 = 3;

    fn newer(from: u32, key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        Ok([b"up from ", from.to_string().as_bytes(), key, value].concat())
    }

    fn older(to: u32, _: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        match value {
            b"" => Err("nothing to put back".into()),
            value => Ok([b"down to ", to.to_string().as_bytes(), value].concat()),
        }
    }
}

/// Migrates one value under the key `k`, as text.
fn one(written: u32, wanted: u32, value: &str) -> Result<String, String> {
    let row = Row {
        key: b"k".to_vec(),
        value: value.into(),
    };
    let values = migrate::<Ledger>(written, wanted, &[row])?;
    Ok(String::from_utf8_lossy(&values.concat()).into_owned())
}

#[test]
fn values_go_to_the_last_schema_and_back_as_far_as_the_vnode_says() {
    assert_eq!(one(2, 4, "v"), Ok("up from 2kv".into()));
    assert_eq!(one(4, 3, "v"), Ok("down to 3v".into()));
    assert_eq!(one(4, 3, ""), Err("nothing to put back".into()));
    for (written, wanted) in [(1, 4), (5, 4), (4, 2), (2, 3), (4, 5)] {
        let refused = one(written, wanted, "v").expect_err("no such way");
        assert!(refused.contains("ledger goes"), "{refused}");
    }
}

#[test]
fn without_values_it_says_what_it_can() {
    let can = |written, wanted| migrate::<Ledger>(written, wanted, &[]).is_ok();
    assert!(can(2, 4) && can(4, 3));
    assert!(!can(1, 4) && !can(4, 2));
}
