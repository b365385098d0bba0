//! Counting in one place and in several.

use counter::Counter;
use guest_sdk::prelude::*;
use guest_sdk::testing::{Door, TestVnode};

fn replica(actor: u64) -> TestVnode<Counter> {
    TestVnode::with(Identity {
        actor,
        ..Identity::default()
    })
}

#[test]
fn counts_up_and_down() -> Result<()> {
    for door in [Door::Batch, Door::Typed] {
        let mut counter = replica(1).through(door);
        assert_eq!(counter.call("COUNT hits")?, 0);
        assert_eq!(counter.call("INCR hits")?, 1);
        assert_eq!(counter.call("INCRBY hits 41")?, 42);
        assert_eq!(counter.call("DECR hits")?, 41);
        assert_eq!(counter.call("DECRBY hits -9")?, 50);
        counter.restart();
        assert_eq!(counter.call("INCRBY hits -100")?, -50);
        assert_eq!(counter.call("COUNT hits")?, -50);
    }
    Ok(())
}

#[test]
fn refuses_what_does_not_fit() -> Result<()> {
    let mut counter = replica(1);
    counter.call("INCRBY a 9223372036854775807")?;
    assert_eq!(counter.call("INCR a"), Err(Error::overflow()));
    assert_eq!(counter.call("COUNT a")?, i64::MAX);
    assert_eq!(counter.call("INCRBY a one"), Err(Error::not_an_integer()));
    counter.call("DECRBY b -9223372036854775808").unwrap_err();
    counter.call("INCRBY b -9223372036854775808")?;
    assert_eq!(counter.call("DECR b"), Err(Error::overflow()));
    Ok(())
}

#[test]
fn concurrent_increments_all_count() -> Result<()> {
    let (mut east, mut west) = (replica(1), replica(2));
    east.call("INCRBY hits 3")?;
    west.call("INCRBY hits 4")?;
    west.call("DECR hits")?;
    east.merge_from(&west);
    assert_eq!(east.call("COUNT hits")?, 6);
    // Merging again, or the other way round, counts nothing twice.
    east.merge_from(&west);
    west.merge_from(&east);
    assert_eq!(east.call("INCR hits")?, 7);
    west.merge_from(&east);
    assert_eq!(west.call("COUNT hits")?, 7);
    Ok(())
}
