//! Two nodes, a and b, as far as links know them: what is asked of them, and how they are waited for.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use vnode_cluster::hello::Me;
use vnode_cluster::link::{BoxFuture, IN_FLIGHT_MAX};
use vnode_cluster::peers::{Doors, PeerError, Peers};
use vnode_cluster::wire::{self, Answer, HELLO_BYTES_MAX, Hello};
use vnode_ring::{ClusterId, NodeName};

pub(super) const CLUSTER: ClusterId = ClusterId([1; 16]);

pub(super) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let limit = soon();
    while !check().await {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

pub(super) fn peers_in(
    cluster: Option<ClusterId>,
    node: &str,
) -> (Arc<Peers>, mpsc::Receiver<NodeName>) {
    Peers::new(
        Arc::new(Me::new(name(node), cluster, None)),
        SmallRng::seed_from_u64(1),
    )
}

pub(super) fn peers(node: &str) -> Arc<Peers> {
    peers_in(Some(CLUSTER), node).0
}

/// Takes what a node is asked and told.
pub(super) struct Desk {
    pub(super) told: Mutex<Vec<Vec<u8>>>,
    pub(super) handed_on: Mutex<Vec<Hello>>,
    /// Requests whose reply waits for `go`.
    pub(super) held: AtomicU32,
    pub(super) go: Notify,
}

impl Desk {
    pub(super) fn new() -> Arc<Desk> {
        Arc::new(Desk {
            told: Mutex::default(),
            handed_on: Mutex::default(),
            held: AtomicU32::new(0),
            go: Notify::new(),
        })
    }

    /// Answers with what was asked; a request that begins with `h` is held until it may go.
    pub(super) fn doors(self: &Arc<Desk>) -> Doors {
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
pub(super) struct Served {
    pub(super) address: String,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn serve_at(address: &str, peers: &Arc<Peers>, desk: &Arc<Desk>) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(Arc::clone(peers).serve(listener, desk.doors())).abort_handle();
    Served { address, task }
}

/// Nodes a and b; a knows where b is.
pub(super) async fn pair() -> (Arc<Peers>, Arc<Desk>, Served) {
    let (a, b, desk) = (peers("a"), peers("b"), Desk::new());
    let served = serve_at("127.0.0.1:0", &b, &desk).await;
    a.set_address(&name("b"), &served.address);
    (a, desk, served)
}

/// Node a, and the door that it takes for that of b.
pub(super) async fn a_and_door() -> (Arc<Peers>, TcpListener) {
    let a = peers("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_address(&name("b"), &listener.local_addr().unwrap().to_string());
    (a, listener)
}

/// Calls b with time enough.
pub(super) async fn call(a: &Peers, body: &[u8]) -> Result<Vec<u8>, PeerError> {
    a.call(&name("b"), body.to_vec(), soon()).await
}

/// As many calls as may be under way, all of them held.
pub(super) async fn hold_all(a: &Arc<Peers>, desk: &Desk) -> JoinSet<Result<Vec<u8>, PeerError>> {
    let mut calls = JoinSet::new();
    for _ in 0..IN_FLIGHT_MAX {
        let a = Arc::clone(a);
        calls.spawn(async move { call(&a, b"held").await });
    }
    until("all are held", async || {
        desk.held.load(Ordering::SeqCst) as usize == IN_FLIGHT_MAX
    })
    .await;
    calls
}

/// Reads one frame.
pub(super) async fn frame(stream: &mut TcpStream, bytes_max: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let whole = wire::read_frame(stream, bytes_max, &mut frame);
    assert!(whole.await.unwrap());
    frame
}

/// Accepts one connection and welcomes it as node b.
pub(super) async fn welcome(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    frame(&mut stream, HELLO_BYTES_MAX).await;
    let welcome = Answer::Welcome {
        node: name("b"),
        cluster: Some(CLUSTER),
    };
    let mut answer = Vec::new();
    wire::put_answer(&welcome, &mut answer).unwrap();
    stream.write_all(&answer).await.unwrap();
    stream
}
