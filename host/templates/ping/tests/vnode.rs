//! The vnode without a host.

use guest_sdk::prelude::*;
use guest_sdk::testing::TestVnode;
use {{crate}}::Ping;

#[test]
fn pong_comes_with_the_place() -> Result<()> {
    let mut ping = TestVnode::<Ping>::with(Identity {
        partition: 28,
        node: "node1".into(),
        ..Identity::default()
    });
    let expected = Reply::array([Reply::simple("pong"), 28.into(), "node1".into()]);
    assert_eq!(ping.call("PING")?, expected);
    Ok(())
}

#[test]
fn fields_do_not_last() -> Result<()> {
    let mut ping = TestVnode::<Ping>::new();
    ping.call("PING somewhere")?;
    assert_eq!(ping.call("CALLS somewhere")?, 2);
    ping.restart();
    assert_eq!(ping.call("CALLS somewhere")?, 1);
    Ok(())
}
