//! Where a vnode says it is.

use guest_sdk::prelude::*;
use guest_sdk::testing::TestVnode;
use ping::Ping;

const INDEX: &str = "639406966332270026714112114313373821099470487552";

fn vnode() -> TestVnode<Ping> {
    TestVnode::with(Identity {
        partition: 28,
        partition_index: INDEX.into(),
        node: "node1@127.0.0.1".into(),
        ..Identity::default()
    })
}

#[test]
fn pong_and_the_place() -> Result<()> {
    let reply = vnode().call("PING")?;
    assert_eq!(
        reply,
        Reply::array([Reply::simple("pong"), 28.into(), "node1@127.0.0.1".into()])
    );
    Ok(())
}

#[test]
fn pong_and_the_next_number() -> Result<()> {
    let reply = vnode().call("PING.PING 3")?;
    let expected = [
        Reply::simple("pong"),
        4.into(),
        "node1@127.0.0.1".into(),
        Reply::big_number(INDEX),
    ];
    assert_eq!(reply, Reply::array(expected));
    Ok(())
}

#[test]
fn what_is_no_number_is_refused() {
    assert_eq!(vnode().call("PING three"), Err(Error::not_an_integer()));
    assert_eq!(
        vnode().call("PING 9223372036854775807"),
        Err(Error::overflow())
    );
    assert!(vnode().call("PING 1 2").is_err());
}
