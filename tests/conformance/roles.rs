//! What a guest is told of its vnode: whether it serves a key as its owner or for a node that is not up.

use std::collections::BTreeMap;

use tests::{Cluster, arg, eventually};

use crate::guests::rust;

#[test]
fn a_guest_knows_whether_its_vnode_is_a_primary_or_a_fallback() {
    let hostile = rust("hostile");
    let one = ["--n", "1", "--r", "1", "--w", "1", "--storage", "memory"];
    let mut cluster = Cluster::of(2, &[&["--vnode", arg(&hostile)], &one[..]].concat());
    let mut client = cluster.node(1).client();
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let owner = |key: &String| {
        let list = client.call(&["VNODE.PREFLIST", key, "SERVICE", "hostile"]);
        let first = list.items().remove(0);
        (key.clone(), first.items().remove(1).text())
    };
    let owners: BTreeMap<String, String> = keys.iter().map(owner).collect();
    for key in &keys {
        assert_eq!(client.run(&format!("ROLE {key}")), "primary".into());
    }
    cluster.kill(2);
    for (key, owner) in owners {
        let expected = match owner.as_str() {
            "node1@test" => "primary",
            _ => "fallback",
        };
        // Until the node is missed.
        eventually("the right role", || {
            (client.run(&format!("ROLE {key}")) == expected.into()).then_some(())
        });
        // A traced command goes by the other door.
        let traced = client.run(&format!("VNODE.TRACE ROLE {key}"));
        assert_eq!(traced.items().remove(0), expected.into());
    }
}
