//! Nodes that end, fall silent or talk nonsense.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vnode_cluster::link::SILENCE_MAX;
use vnode_cluster::peers::PeerError;
use vnode_cluster::wire::{self, BODY_BYTES_MAX, Message};

use super::nodes::{
    CLUSTER, Desk, a_and_door, call, frame, name, pair, peers, peers_in, serve_at, soon, until,
    welcome,
};

#[tokio::test]
async fn a_peer_that_restarts_is_found_again_also_elsewhere() {
    let (a, desk, served) = pair().await;
    let node = name("b");
    assert!(call(&a, b"").await.is_ok());
    let address = served.address.clone();
    drop(served);
    until("the link is broken", async || !a.is_open(&node)).await;
    let b = peers("b");
    let served = serve_at(&address, &b, &desk).await;
    until("a call succeeds", async || call(&a, b"").await.is_ok()).await;
    drop(served);
    let served = serve_at("127.0.0.1:0", &b, &desk).await;
    a.set_address(&node, &served.address);
    until("a call succeeds elsewhere", async || {
        call(&a, b"").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_gone_is_reported_once_its_link_was_steady() {
    let (a, mut gone) = peers_in(Some(CLUSTER), "a");
    let b = peers("b");
    let desk = Desk::new();
    let served = serve_at("127.0.0.1:0", &b, &desk).await;
    a.set_address(&name("b"), &served.address);
    let begin = Instant::now();
    until("the link is steady", async || {
        call(&a, b"").await.is_ok() && begin.elapsed() > Duration::from_millis(1100)
    })
    .await;
    drop(served);
    let reported = tokio::time::timeout(Duration::from_secs(2), gone.recv())
        .await
        .unwrap();
    assert_eq!(reported, Some(name("b")));
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_slows_only_itself() {
    let (a, _desk, _served) = pair().await;
    // The system accepts; nobody reads.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("s"), &stopped.local_addr().unwrap().to_string());
    let deadline = Instant::now() + Duration::from_millis(300);
    let (to_stopped, to_other) = tokio::join!(
        async {
            (
                a.call(&name("s"), Vec::new(), deadline).await,
                Instant::now(),
            )
        },
        async {
            (
                a.call(&name("b"), Vec::new(), deadline).await,
                Instant::now(),
            )
        },
    );
    assert!(
        matches!(to_stopped.0, Err(PeerError::Unreachable { .. })),
        "{to_stopped:?}"
    );
    assert!(to_stopped.1 < deadline + Duration::from_millis(200));
    assert!(to_other.0.is_ok());
    assert!(to_other.1 < deadline);
    until("calls to it fail at once", async || {
        let before = Instant::now();
        assert!(a.call(&name("s"), Vec::new(), soon()).await.is_err());
        before.elapsed() < Duration::from_millis(50)
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_stops_answering_later_loses_its_link() {
    let (a, listener) = a_and_door().await;
    let begin = Instant::now();
    let (lost, _silent) = tokio::join!(call(&a, b""), welcome(&listener));
    assert!(matches!(lost, Err(PeerError::Lost { .. })), "{lost:?}");
    let seen = begin.elapsed();
    assert!(
        seen >= SILENCE_MAX && seen < SILENCE_MAX + Duration::from_secs(1),
        "{seen:?}"
    );
    let before = Instant::now();
    assert!(matches!(
        call(&a, b"").await,
        Err(PeerError::Unreachable { .. })
    ));
    assert!(before.elapsed() < Duration::from_millis(50));
}

#[tokio::test]
async fn a_peer_that_closes_inside_a_frame_loses_its_link() {
    let (a, listener) = a_and_door().await;
    let half = async {
        let mut stream = welcome(&listener).await;
        let frame = frame(&mut stream, 1000).await;
        let Message::Request { id, .. } = wire::message(&frame).unwrap() else {
            panic!("no request")
        };
        let mut reply = Vec::new();
        wire::put_message(&Message::Reply { id, body: b"whole" }, &mut reply).unwrap();
        stream.write_all(&reply[..reply.len() - 2]).await.unwrap();
    };
    let (lost, ()) = tokio::join!(call(&a, b""), half);
    let error = lost.unwrap_err().to_string();
    assert!(error.contains("connection ended after"), "{error}");
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_loses_its_link() {
    let (a, listener) = a_and_door().await;
    let nonsense = async {
        let mut stream = welcome(&listener).await;
        stream.write_all(b"\x03\0\0\0abc").await.unwrap();
        stream
    };
    let (lost, _stream) = tokio::join!(call(&a, b""), nonsense);
    // The link may be gone before the call was sent.
    let error = lost.unwrap_err().to_string();
    assert!(error.contains("bytes are no message"), "{error}");
}

#[tokio::test]
async fn a_dropped_node_closes_its_connections() {
    let (a, listener) = a_and_door().await;
    a.tell(&name("b"), b"hello");
    let mut stream = welcome(&listener).await;
    until("the link is open", async || a.is_open(&name("b"))).await;
    drop(a);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_its_callers_busy() {
    let (a, listener) = a_and_door().await;
    a.tell(&name("b"), b"hello");
    let _unread = welcome(&listener).await;
    until("the link is open", async || a.is_open(&name("b"))).await;
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let a = Arc::clone(&a);
        calls.spawn(async move {
            a.call(&name("b"), vec![0; BODY_BYTES_MAX / 2], deadline)
                .await
        });
    }
    let outcomes = calls.join_all().await;
    assert!(
        outcomes.contains(&Err(PeerError::Busy { node: name("b") })),
        "{outcomes:?}"
    );
    assert!(
        outcomes.contains(&Err(PeerError::Timeout { node: name("b") })),
        "{outcomes:?}"
    );
}
