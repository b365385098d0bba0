//! The store without a host: rows are in memory, commands are transactions.

use guest_sdk::prelude::*;
use guest_sdk::testing::{TestVnode, sorted};
use {{crate}}::Kv;

#[test]
fn values_come_back_until_they_are_deleted() -> Result<()> {
    let mut kv = TestVnode::<Kv>::new();
    assert_eq!(kv.call("GET greeting")?, Reply::nil());
    assert_eq!(kv.call(["SET", "greeting", "hello world"])?, "OK");
    kv.restart();
    assert_eq!(kv.call("GET greeting")?, "hello world");
    assert_eq!(kv.call("DEL greeting nothing")?, 1);
    assert_eq!(kv.call("GET greeting")?, Reply::nil());
    Ok(())
}

#[test]
fn keys_come_from_all_pages() -> Result<()> {
    let mut kv = TestVnode::<Kv>::new();
    for key in 0..2500 {
        kv.call(format!("SET {key} x"))?;
    }
    assert_eq!(sorted(&kv.call("KEYS")?).len(), 2500);
    Ok(())
}
