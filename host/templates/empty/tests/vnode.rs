//! The vnode without a host.

use guest_sdk::prelude::*;
use guest_sdk::testing::TestVnode;
use {{crate}}::Service;

#[test]
fn greets() -> Result<()> {
    let mut service = TestVnode::<Service>::new();
    assert_eq!(service.call("GREET world")?, "hello world");
    Ok(())
}
