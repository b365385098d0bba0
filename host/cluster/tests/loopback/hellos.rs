//! How nodes greet each other, and whom they turn away.

use vnode_cluster::hello::{self, DialError};
use vnode_cluster::peers::PeerError;
use vnode_cluster::wire::{Hello, PROTOCOL, Purpose};
use vnode_ring::ClusterId;

use super::nodes::{CLUSTER, Served, name, pair, peers_in, soon, until};

#[tokio::test]
async fn connections_for_data_are_handed_on_with_their_hello() {
    let (a, desk, served) = pair().await;
    for purpose in [Purpose::Requests, Purpose::Bulk] {
        let dialled = hello::dial(
            &served.address,
            &a.me().hello(purpose, Some(name("b"))),
            None,
        )
        .await
        .unwrap();
        assert_eq!((dialled.node, dialled.cluster), (name("b"), Some(CLUSTER)));
        until("it is handed on", async || {
            desk.handed_on
                .lock()
                .unwrap()
                .iter()
                .any(|hello| hello.purpose == purpose && hello.node == name("a"))
        })
        .await;
    }
}

async fn refusal(served: &Served, hello: Hello) -> String {
    match hello::dial(&served.address, &hello, None).await {
        Err(DialError::Refused { address, reason }) => {
            assert_eq!(address, served.address);
            reason
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn hellos_at_the_wrong_place_are_refused_with_a_reason() {
    let (a, _desk, served) = pair().await;
    let good = a.me().hello(Purpose::Control, Some(name("b")));
    let (mut newer, mut stranger) = (good.clone(), good.clone());
    newer.protocol = PROTOCOL + 1;
    stranger.cluster = Some(ClusterId([2; 16]));
    let (mut elsewhere, mut namesake) = (good.clone(), good.clone());
    elsewhere.to = Some(name("c"));
    namesake.node = name("b");
    let table: [(_, &[&str]); 4] = [
        (
            newer,
            &["b speaks protocol 1, you speak 2; run the same version on both nodes"],
        ),
        (
            stranger,
            &["b belongs to cluster 01010101", "must leave its cluster"],
        ),
        (
            elsewhere,
            &["this is the address of b, not of c; correct the address of c"],
        ),
        (namesake, &["you and I are both b"]),
    ];
    for (hello, words) in table {
        let reason = refusal(&served, hello).await;
        assert!(reason.starts_with(words[0]), "{reason}");
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    }
    // A joiner belongs to no cluster and may not know who answers.
    let joiner = Hello {
        cluster: None,
        to: None,
        ..good
    };
    assert_eq!(
        hello::dial(&served.address, &joiner, None)
            .await
            .unwrap()
            .node,
        name("b")
    );
}

#[tokio::test]
async fn a_refused_link_says_why_to_its_callers() {
    let (_, _desk, served) = pair().await;
    let (stranger, _) = peers_in(Some(ClusterId([9; 16])), "s");
    stranger.set_address(&name("b"), &served.address);
    let error = stranger
        .call(&name("b"), Vec::new(), soon())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("b belongs to cluster"),
        "{error}"
    );
    assert_eq!(
        stranger.call(&name("x"), Vec::new(), soon()).await,
        Err(PeerError::Unknown { node: name("x") })
    );
}
