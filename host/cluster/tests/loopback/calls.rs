//! Calls and messages between nodes that do what they should.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use vnode_cluster::peers::{PeerError, Verdict};
use vnode_cluster::wire::BODY_BYTES_MAX;

use super::nodes::{call, hold_all, name, pair, soon, until};

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_reply() {
    let (a, _desk, _served) = pair().await;
    let mut calls = JoinSet::new();
    for number in 0..500_u32 {
        let a = Arc::clone(&a);
        calls.spawn(async move {
            let body = format!("number {number}").into_bytes();
            assert_eq!(call(&a, &body).await, Ok(body));
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test]
async fn the_longest_request_and_reply_pass_and_longer_ones_are_refused() {
    let (a, _desk, _served) = pair().await;
    let body = vec![7; BODY_BYTES_MAX];
    assert_eq!(call(&a, &body).await.as_ref(), Ok(&body));
    let refused = call(&a, &vec![7; BODY_BYTES_MAX + 100]).await;
    assert_eq!(
        refused,
        Err(PeerError::TooLong {
            node: name("b"),
            bytes: BODY_BYTES_MAX + 100
        })
    );
    assert_eq!(call(&a, &body).await, Ok(body));
}

#[tokio::test]
async fn a_reply_overtakes_one_that_takes_longer_and_a_late_one_is_dropped() {
    let (a, desk, _served) = pair().await;
    let node = name("b");
    let deadline = Instant::now() + Duration::from_millis(200);
    let (held, quick) = tokio::join!(
        a.call(&node, b"held".to_vec(), deadline),
        call(&a, b"quick"),
    );
    assert_eq!(quick, Ok(b"quick".to_vec()));
    assert_eq!(held, Err(PeerError::Timeout { node: node.clone() }));
    assert!(Instant::now() >= deadline);
    desk.go.notify_one();
    assert_eq!(call(&a, b"next").await, Ok(b"next".to_vec()));
}

#[tokio::test]
async fn calls_past_the_bound_are_busy_at_once() {
    let (a, desk, _served) = pair().await;
    let mut calls = hold_all(&a, &desk).await;
    let before = Instant::now();
    let refused = call(&a, b"more").await;
    assert_eq!(refused, Err(PeerError::Busy { node: name("b") }));
    assert!(before.elapsed() < Duration::from_millis(100));
    desk.go.notify_waiters();
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap(), Ok(b"held".to_vec()));
    }
    assert_eq!(call(&a, b"more").await, Ok(b"more".to_vec()));
}

#[tokio::test]
async fn a_call_that_is_dropped_makes_room() {
    let (a, desk, _served) = pair().await;
    let mut calls = hold_all(&a, &desk).await;
    calls.shutdown().await;
    desk.go.notify_waiters();
    until("there is room", async || call(&a, b"more").await.is_ok()).await;
}

#[tokio::test]
async fn messages_arrive_without_a_reply() {
    let (a, desk, _served) = pair().await;
    until("a message has arrived", async || {
        a.tell(&name("b"), b"psst");
        desk.told
            .lock()
            .unwrap()
            .first()
            .is_some_and(|first| first == b"psst")
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_said_to_be_down_is_not_called() {
    let (a, _desk, _served) = pair().await;
    let node = name("b");
    a.set_down(&node, Verdict::Down);
    assert!(matches!(
        call(&a, b"").await,
        Err(PeerError::Unreachable { .. })
    ));
    a.set_down(&node, Verdict::Up);
    assert!(call(&a, b"").await.is_ok());
}

#[tokio::test]
async fn nothing_is_left_running_when_nodes_are_dropped() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let (a, desk, served) = pair().await;
    a.set_address(&name("x"), "127.0.0.1:1");
    assert!(a.call(&name("x"), Vec::new(), soon()).await.is_err());
    let (b, deadline) = (name("b"), Instant::now() + Duration::from_millis(100));
    let held = a.call(&b, b"held".to_vec(), deadline);
    assert!(held.await.is_err());
    assert!(metrics.num_alive_tasks() > before);
    drop((a, desk, served));
    until("all tasks have ended", async || {
        metrics.num_alive_tasks() == before
    })
    .await;
}
