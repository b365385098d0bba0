//! The counter without a host: rows are in memory, commands are transactions.

use guest_sdk::prelude::*;
use guest_sdk::testing::TestVnode;
use {{crate}}::Counter;

#[test]
fn counts_and_survives_a_restart() -> Result<()> {
    let mut counter = TestVnode::<Counter>::new();
    assert_eq!(counter.call("COUNT hits")?, 0);
    assert_eq!(counter.call("INCR hits")?, 1);
    counter.restart();
    assert_eq!(counter.call("INCR hits")?, 2);
    assert_eq!(counter.call("COUNT hits")?, 2);
    Ok(())
}

#[test]
fn other_calls_are_refused() {
    let mut counter = TestVnode::<Counter>::new();
    assert!(counter.call("INCR").is_err());
    assert!(counter.call("RESET hits").is_err());
}
