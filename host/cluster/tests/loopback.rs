//! Links over real sockets. Nothing here sleeps: each test waits for what it wants to see, and fails after a while.
#![cfg(not(feature = "sim"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use vnode_cluster::hello::{self, DialError, Me};
use vnode_cluster::link::{BoxFuture, IN_FLIGHT_MAX, SILENCE_MAX};
use vnode_cluster::peers::{Doors, PeerError, Peers, Verdict};
use vnode_cluster::wire::{
    self, Answer, BODY_BYTES_MAX, HELLO_BYTES_MAX, Hello, Message, PROTOCOL, Purpose,
};
use vnode_ring::{ClusterId, NodeName};

const CLUSTER: ClusterId = ClusterId([1; 16]);

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let limit = soon();
    while !check().await {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

fn peers_in(cluster: Option<ClusterId>, node: &str) -> (Arc<Peers>, mpsc::Receiver<NodeName>) {
    Peers::new(
        Arc::new(Me::new(name(node), cluster)),
        SmallRng::seed_from_u64(1),
    )
}

fn peers(node: &str) -> Arc<Peers> {
    peers_in(Some(CLUSTER), node).0
}

/// Takes what a node is asked and told.
struct Desk {
    told: Mutex<Vec<Vec<u8>>>,
    handed_on: Mutex<Vec<Hello>>,
    /// Requests whose reply waits for `go`.
    held: AtomicU32,
    go: Notify,
}

impl Desk {
    fn new() -> Arc<Desk> {
        Arc::new(Desk {
            told: Mutex::default(),
            handed_on: Mutex::default(),
            held: AtomicU32::new(0),
            go: Notify::new(),
        })
    }

    /// Answers with what was asked; a request that begins with `h` is held until it may go.
    fn doors(self: &Arc<Desk>) -> Doors {
        let (asked, told, handed_on) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        Doors {
            request: Arc::new(move |_, body| {
                let desk = Arc::clone(&asked);
                Box::pin(async move {
                    if body.first() == Some(&b'h') {
                        desk.held.fetch_add(1, Ordering::SeqCst);
                        desk.go.notified().await;
                    }
                    body
                }) as BoxFuture<Vec<u8>>
            }),
            message: Arc::new(move |_, body| told.told.lock().unwrap().push(body)),
            connection: Arc::new(move |hello, _| handed_on.handed_on.lock().unwrap().push(hello)),
        }
    }
}

/// A node that answers. Dropping it closes its door and its connections.
struct Served {
    address: String,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_at(address: &str, peers: &Arc<Peers>, desk: &Arc<Desk>) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(Arc::clone(peers).serve(listener, desk.doors())).abort_handle();
    Served { address, task }
}

/// Nodes a and b; a knows where b is.
async fn pair() -> (Arc<Peers>, Arc<Desk>, Served) {
    let (a, b, desk) = (peers("a"), peers("b"), Desk::new());
    let served = serve_at("127.0.0.1:0", &b, &desk).await;
    a.set_address(&name("b"), &served.address);
    (a, desk, served)
}

/// Accepts one connection and welcomes it as node b.
async fn welcome(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut frame = Vec::new();
    assert!(
        wire::read_frame(&mut stream, HELLO_BYTES_MAX, &mut frame)
            .await
            .unwrap()
    );
    frame.clear();
    wire::put_answer(
        &Answer::Welcome {
            node: name("b"),
            cluster: Some(CLUSTER),
        },
        &mut frame,
    )
    .unwrap();
    stream.write_all(&frame).await.unwrap();
    stream
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_reply() {
    let (a, _desk, _served) = pair().await;
    let mut calls = JoinSet::new();
    for number in 0..500_u32 {
        let a = Arc::clone(&a);
        calls.spawn(async move {
            let body = format!("number {number}").into_bytes();
            assert_eq!(a.call(&name("b"), body.clone(), soon()).await, Ok(body));
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
    assert_eq!(
        a.call(&name("b"), body.clone(), soon()).await,
        Ok(body.clone())
    );
    let longer = vec![7; BODY_BYTES_MAX + 100];
    let refused = a.call(&name("b"), longer, soon()).await;
    assert_eq!(
        refused,
        Err(PeerError::TooLong {
            node: name("b"),
            bytes: BODY_BYTES_MAX + 100
        })
    );
    assert_eq!(a.call(&name("b"), body.clone(), soon()).await, Ok(body));
}

#[tokio::test]
async fn a_reply_overtakes_one_that_takes_longer_and_a_late_one_is_dropped() {
    let (a, desk, _served) = pair().await;
    let node = name("b");
    let deadline = Instant::now() + Duration::from_millis(200);
    let (held, quick) = tokio::join!(
        a.call(&node, b"held".to_vec(), deadline),
        a.call(&node, b"quick".to_vec(), soon()),
    );
    assert_eq!(quick, Ok(b"quick".to_vec()));
    assert_eq!(held, Err(PeerError::Timeout { node: node.clone() }));
    assert!(Instant::now() >= deadline);
    desk.go.notify_one();
    assert_eq!(
        a.call(&node, b"next".to_vec(), soon()).await,
        Ok(b"next".to_vec())
    );
}

#[tokio::test]
async fn calls_past_the_bound_are_busy_at_once() {
    let (a, desk, _served) = pair().await;
    let mut calls = JoinSet::new();
    for _ in 0..IN_FLIGHT_MAX {
        let a = Arc::clone(&a);
        calls.spawn(async move { a.call(&name("b"), b"held".to_vec(), soon()).await });
    }
    until("all are held", async || {
        desk.held.load(Ordering::SeqCst) as usize == IN_FLIGHT_MAX
    })
    .await;
    let before = Instant::now();
    let refused = a.call(&name("b"), b"more".to_vec(), soon()).await;
    assert_eq!(refused, Err(PeerError::Busy { node: name("b") }));
    assert!(before.elapsed() < Duration::from_millis(100));
    desk.go.notify_waiters();
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap(), Ok(b"held".to_vec()));
    }
    assert_eq!(
        a.call(&name("b"), b"more".to_vec(), soon()).await,
        Ok(b"more".to_vec())
    );
}

#[tokio::test]
async fn a_call_that_is_dropped_makes_room() {
    let (a, desk, _served) = pair().await;
    let mut calls = JoinSet::new();
    for _ in 0..IN_FLIGHT_MAX {
        let a = Arc::clone(&a);
        calls.spawn(async move { a.call(&name("b"), b"held".to_vec(), soon()).await });
    }
    until("all are held", async || {
        desk.held.load(Ordering::SeqCst) as usize == IN_FLIGHT_MAX
    })
    .await;
    calls.shutdown().await;
    desk.go.notify_waiters();
    until("there is room", async || {
        a.call(&name("b"), b"more".to_vec(), soon()).await.is_ok()
    })
    .await;
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
async fn connections_for_data_are_handed_on_with_their_hello() {
    let (a, desk, served) = pair().await;
    for purpose in [Purpose::Requests, Purpose::Bulk] {
        let dialled = hello::dial(&served.address, &a.me().hello(purpose, Some(name("b"))))
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
    match hello::dial(&served.address, &hello).await {
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
    let reason = refusal(
        &served,
        Hello {
            protocol: PROTOCOL + 1,
            ..good.clone()
        },
    )
    .await;
    assert_eq!(
        reason,
        "b speaks protocol 1, you speak 2; run the same version on both nodes"
    );
    let reason = refusal(
        &served,
        Hello {
            cluster: Some(ClusterId([2; 16])),
            ..good.clone()
        },
    )
    .await;
    assert!(
        reason.starts_with("b belongs to cluster 01010101"),
        "{reason}"
    );
    assert!(reason.contains("must leave its cluster"), "{reason}");
    let reason = refusal(
        &served,
        Hello {
            to: Some(name("c")),
            ..good.clone()
        },
    )
    .await;
    assert_eq!(
        reason,
        "this is the address of b, not of c; correct the address of c"
    );
    let reason = refusal(
        &served,
        Hello {
            node: name("b"),
            ..good.clone()
        },
    )
    .await;
    assert!(reason.starts_with("you and I are both b"), "{reason}");
    // A joiner belongs to no cluster and may not know who answers.
    let joiner = Hello {
        cluster: None,
        to: None,
        ..good
    };
    assert_eq!(
        hello::dial(&served.address, &joiner).await.unwrap().node,
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

#[tokio::test]
async fn a_peer_that_restarts_is_found_again_also_elsewhere() {
    let (a, desk, served) = pair().await;
    let node = name("b");
    assert!(a.call(&node, Vec::new(), soon()).await.is_ok());
    let address = served.address.clone();
    drop(served);
    until("the link is broken", async || !a.is_open(&node)).await;
    let b = peers("b");
    let served = serve_at(&address, &b, &desk).await;
    until("a call succeeds", async || {
        a.call(&node, Vec::new(), soon()).await.is_ok()
    })
    .await;
    drop(served);
    let served = serve_at("127.0.0.1:0", &b, &desk).await;
    a.set_address(&node, &served.address);
    until("a call succeeds elsewhere", async || {
        a.call(&node, Vec::new(), soon()).await.is_ok()
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
        a.call(&name("b"), Vec::new(), soon()).await.is_ok()
            && begin.elapsed() > Duration::from_millis(1100)
    })
    .await;
    drop(served);
    let reported = tokio::time::timeout(Duration::from_secs(2), gone.recv())
        .await
        .unwrap();
    assert_eq!(reported, Some(name("b")));
}

#[tokio::test]
async fn a_node_that_is_said_to_be_down_is_not_called() {
    let (a, _desk, _served) = pair().await;
    let node = name("b");
    a.set_down(&node, Verdict::Down);
    assert!(matches!(
        a.call(&node, Vec::new(), soon()).await,
        Err(PeerError::Unreachable { .. })
    ));
    a.set_down(&node, Verdict::Up);
    assert!(a.call(&node, Vec::new(), soon()).await.is_ok());
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
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
    let begin = Instant::now();
    let node = name("b");
    let (lost, _silent) = tokio::join!(a.call(&node, Vec::new(), soon()), welcome(&listener));
    assert!(matches!(lost, Err(PeerError::Lost { .. })), "{lost:?}");
    let seen = begin.elapsed();
    assert!(
        seen >= SILENCE_MAX && seen < SILENCE_MAX + Duration::from_secs(1),
        "{seen:?}"
    );
    let before = Instant::now();
    assert!(matches!(
        a.call(&name("b"), Vec::new(), soon()).await,
        Err(PeerError::Unreachable { .. })
    ));
    assert!(before.elapsed() < Duration::from_millis(50));
}

#[tokio::test]
async fn a_peer_that_closes_inside_a_frame_loses_its_link() {
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
    let half = async {
        let mut stream = welcome(&listener).await;
        let mut frame = Vec::new();
        assert!(
            wire::read_frame(&mut stream, 1000, &mut frame)
                .await
                .unwrap()
        );
        let Message::Request { id, .. } = wire::message(&frame).unwrap() else {
            panic!("no request")
        };
        let mut reply = Vec::new();
        wire::put_message(&Message::Reply { id, body: b"whole" }, &mut reply).unwrap();
        stream.write_all(&reply[..reply.len() - 2]).await.unwrap();
    };
    let node = name("b");
    let (lost, ()) = tokio::join!(a.call(&node, Vec::new(), soon()), half);
    let error = lost.unwrap_err().to_string();
    assert!(error.contains("connection ended after"), "{error}");
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_loses_its_link() {
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
    let nonsense = async {
        let mut stream = welcome(&listener).await;
        stream.write_all(b"\x03\0\0\0abc").await.unwrap();
        stream
    };
    let node = name("b");
    let (lost, _stream) = tokio::join!(a.call(&node, Vec::new(), soon()), nonsense);
    // The link may be gone before the call was sent.
    let error = lost.unwrap_err().to_string();
    assert!(error.contains("bytes are no message"), "{error}");
}

#[tokio::test]
async fn a_dropped_node_closes_its_connections() {
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
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
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
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
