//! How a connection between nodes begins: the one that dials says who it is and what for, the other answers.
//!
//! Neither side believes an address: the answer names who answered, and a connection to the wrong node, another cluster,
//! another version or oneself ends here, with a text for people on both sides. So does one between a node with certificates and one
//! without, or one that does not trust the other; with certificates the hello goes over TLS, and each side has to be a node that its
//! certificate names.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vnode_ring::{ClusterId, NodeName};

use super::wire::{self, Answer, HELLO_BYTES_MAX, Hello, PROTOCOL, Purpose, WireError};
use crate::net::TcpStream;
use crate::stream::{self, HEAD_BYTES, PeerStream, Session, ShakeError};
use crate::tls::{self, Tls};

/// Time for a connection to be made and its hello answered.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for whoever connects to send its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the other side to read why a connection ends.
const PARTING: Duration = Duration::from_millis(100);

/// Who this node is to others.
#[derive(Debug)]
pub struct Me {
    name: NodeName,
    cluster: Mutex<Option<ClusterId>>,
    tls: Option<Arc<Tls>>,
}

impl Me {
    /// A node and its cluster; none if it belongs to none yet. With certificates it talks only to nodes that have some, too.
    #[must_use]
    pub fn new(name: NodeName, cluster: Option<ClusterId>, tls: Option<Arc<Tls>>) -> Me {
        Me {
            name,
            cluster: Mutex::new(cluster),
            tls,
        }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The node's cluster.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's certificates, if it has some.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// Says that the node has joined a cluster, or left it. Connections that are open stay.
    pub fn set_cluster(&self, cluster: Option<ClusterId>) {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    /// What to say to `to`; none asks who answers.
    #[must_use]
    pub fn hello(&self, purpose: Purpose, to: Option<NodeName>) -> Hello {
        Hello {
            protocol: PROTOCOL,
            cluster: self.cluster(),
            node: self.name.clone(),
            purpose,
            to,
        }
    }
}

/// Why a dialled connection was not opened. Nothing was asked of the other node; trying again is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error(
        "{address} does not accept connections ({kind}); is the node running, and is this its address?"
    )]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// No answer in time.
    #[error(
        "{address} did not answer a hello within {DIAL_TIMEOUT:?}; it may be stopped or cut off"
    )]
    Timeout {
        /// Where.
        address: String,
    },
    /// The other side closed, or does not speak the protocol.
    #[error("{address} gave no answer to a hello: {why}")]
    Garbled {
        /// Where.
        address: String,
        /// What came instead.
        why: WireError,
    },
    /// Whoever answers speaks something else.
    #[error("{address} {what}; give the address that a member's banner calls peer or http")]
    Stranger {
        /// Where.
        address: String,
        /// What it is instead.
        what: &'static str,
    },
    /// The other side said no.
    #[error("{address} refused this node: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// What it said.
        reason: String,
    },
    /// One of both nodes has certificates and the other has none.
    #[error(
        "{address} does not speak TLS, and this node does; start every node of the cluster with --tls-dir, or none"
    )]
    NoTls {
        /// Where.
        address: String,
    },
    /// One of both nodes does not trust the other.
    #[error("no TLS with {address}: {why}")]
    Untrusted {
        /// Where.
        address: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The certificate is that of another node.
    #[error(
        "{address} says that it is {node}, and shows a certificate for {names}; give it one for {node}"
    )]
    OtherCertificate {
        /// Where.
        address: String,
        /// Who answered.
        node: NodeName,
        /// Whom the certificate names.
        names: String,
    },
    /// Somebody else lives there.
    #[error(
        "{address} is the address of {found}, not of {wanted}; correct the address of {wanted}"
    )]
    OtherNode {
        /// Where.
        address: String,
        /// Who answered.
        found: NodeName,
        /// Who should have.
        wanted: NodeName,
    },
}

/// A connection whose hello was answered.
#[derive(Debug)]
pub struct Dialled {
    /// The connection, ready for what the hello said.
    pub stream: PeerStream,
    /// Who answered.
    pub node: NodeName,
    /// Its cluster; none if it belongs to none yet.
    pub cluster: Option<ClusterId>,
}

/// Opens a connection to `host:port` and says hello, over TLS if this node has certificates. Takes at most [`DIAL_TIMEOUT`].
///
/// # Errors
/// Says where and what next. Nothing was asked of the other node.
pub async fn dial(address: &str, hello: &Hello, tls: Option<&Tls>) -> Result<Dialled, DialError> {
    let reached = timeout(DIAL_TIMEOUT, exchange(address, hello, tls)).await;
    let (stream, answer) = reached.map_err(|_| DialError::Timeout {
        address: address.to_owned(),
    })??;
    let address = || address.to_owned();
    let (node, cluster) = match answer {
        Answer::Welcome { node, cluster } => (node, cluster),
        Answer::Refused { reason } => {
            let address = address();
            return Err(DialError::Refused { address, reason });
        }
    };
    if let Some(wanted) = hello.to.as_ref().filter(|wanted| **wanted != node) {
        return Err(DialError::OtherNode {
            address: address(),
            found: node,
            wanted: wanted.clone(),
        });
    }
    if let Some(certificate) = stream.certificate()
        && let Err(names) = tls::is_for(&certificate, &node)
    {
        let address = address();
        return Err(DialError::OtherCertificate {
            address,
            node,
            names,
        });
    }
    Ok(Dialled {
        stream,
        node,
        cluster,
    })
}

async fn exchange(
    address: &str,
    hello: &Hello,
    tls: Option<&Tls>,
) -> Result<(PeerStream, Answer), DialError> {
    let connect = |error: io::Error| DialError::Connect {
        address: address.to_owned(),
        kind: error.kind(),
    };
    let garbled = |why| DialError::Garbled {
        address: address.to_owned(),
        why,
    };
    let mut socket = TcpStream::connect(address).await.map_err(connect)?;
    socket.set_nodelay(true).map_err(connect)?;
    let session = match tls {
        None => None,
        Some(tls) => Some(secure(address, &mut socket, tls).await?),
    };
    let mut stream = PeerStream::new(socket, session);
    let mut frame = Vec::new();
    wire::put_hello(hello, &mut frame).map_err(garbled)?;
    let sent = stream.write_all(&frame).await;
    let read = match sent {
        Ok(()) => wire::read_frame(&mut stream, HELLO_BYTES_MAX, &mut frame).await,
        Err(error) => Err(WireError::Broken(error.kind())),
    };
    match (read, tls.zip(stream.fault())) {
        // The other side judges last: that it does not trust this one is what its answer says.
        (Err(_), Some((tls, fault))) => Err(untrusted(address, tls, &fault)),
        (Err(why), None) => Err(no_answer(address, why)),
        (Ok(false), _) => Err(garbled(WireError::FrameCut {
            found: 0,
            expected: HEAD_BYTES,
        })),
        (Ok(true), _) => {
            let answer = wire::answer(&frame).map_err(garbled)?;
            Ok((stream, answer))
        }
    }
}

/// Shakes hands with whoever answers at an address.
async fn secure(address: &str, socket: &mut TcpStream, tls: &Tls) -> Result<Session, DialError> {
    let error = match tls.connect(socket).await {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    Err(match error {
        ShakeError::Broken(kind) => DialError::Garbled {
            address: address.to_owned(),
            why: WireError::Broken(kind),
        },
        ShakeError::Tls(error) => {
            part(socket).await;
            untrusted(address, tls, &error)
        }
        // The length of a frame that may be an answer, or what another program says.
        ShakeError::Plain(head) => match usize::try_from(u32::from_le_bytes(head)) {
            Ok(..=HELLO_BYTES_MAX) => DialError::NoTls {
                address: address.to_owned(),
            },
            found => no_answer(
                address,
                WireError::FrameTooLong {
                    found: found.unwrap_or(usize::MAX),
                    max: HELLO_BYTES_MAX,
                },
            ),
        },
    })
}

fn untrusted(address: &str, tls: &Tls, error: &rustls::Error) -> DialError {
    DialError::Untrusted {
        address: address.to_owned(),
        why: tls.explain(error),
    }
}

/// Waits a moment for the other side to read why the connection ends: to close it on unread bytes would take that away.
async fn part(socket: &mut TcpStream) {
    let mut unread = [0; 1024];
    let hear = async {
        if socket.shutdown().await.is_ok() {
            while matches!(socket.read(&mut unread).await, Ok(1..)) {}
        }
    };
    // Out of patience or out of words: either way it ends here.
    let _ = timeout(PARTING, hear).await;
}

/// What came instead of an answer. Other protocols begin with letters, which make a length that no hello has.
fn no_answer(address: &str, why: WireError) -> DialError {
    let address = address.to_owned();
    let WireError::FrameTooLong { found, .. } = why else {
        return DialError::Garbled { address, why };
    };
    let what = match &head(found) {
        b"HTTP" => "speaks HTTP, and did not say where its node is reached by others",
        [b'+' | b'-', ..] => FOR_CLIENTS,
        _ => "is that of another program than a node",
    };
    DialError::Stranger { address, what }
}

/// The bytes that were read as the length of a frame.
fn head(length: usize) -> [u8; HEAD_BYTES] {
    u32::try_from(length).unwrap_or_default().to_le_bytes()
}

const FOR_CLIENTS: &str = "is for Redis clients";

/// Says of a node that gave no answer to a hello whether its address is that for clients: to them a hello is the beginning of a
/// command, and they wait for the rest.
pub(crate) async fn explain(error: DialError) -> DialError {
    let (DialError::Timeout { address } | DialError::Garbled { address, .. }) = &error else {
        return error;
    };
    match timeout(DIAL_TIMEOUT, answers_ping(address)).await {
        Ok(Ok(true)) => DialError::Stranger {
            address: address.clone(),
            what: FOR_CLIENTS,
        },
        _ => error,
    }
}

async fn answers_ping(address: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut sign = [0];
    stream.read_exact(&mut sign).await?;
    Ok(matches!(sign, [b'+' | b'-']))
}

/// Why a connection that was accepted was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetError {
    /// No hello in time.
    #[error("no hello within {HELLO_TIMEOUT:?}; whoever connected is stopped, cut off or no node")]
    Timeout,
    /// No hello at all.
    #[error("no hello: {0}")]
    Garbled(#[from] WireError),
    /// One of both sides does not trust the other.
    #[error("no TLS: {0}")]
    Untrusted(String),
    /// It was told why.
    #[error("refused: {0}")]
    Refused(String),
}

/// Reads the hello of an accepted connection and answers it, over TLS if this node has certificates.
///
/// # Errors
/// Says why it was not let in; the connection has ended then.
pub async fn greet(socket: TcpStream, me: &Me) -> Result<(Hello, PeerStream), GreetError> {
    timeout(HELLO_TIMEOUT, greet_unhurried(socket, me))
        .await
        .unwrap_or(Err(GreetError::Timeout))
}

async fn greet_unhurried(
    mut socket: TcpStream,
    me: &Me,
) -> Result<(Hello, PeerStream), GreetError> {
    socket.set_nodelay(true).map_err(broken)?;
    let session = match me.tls() {
        None => None,
        Some(tls) => Some(admit(&mut socket, me, tls).await?),
    };
    let mut stream = PeerStream::new(socket, session);
    let mut frame = Vec::new();
    match wire::read_frame(&mut stream, HELLO_BYTES_MAX, &mut frame).await {
        Ok(true) => {}
        Ok(false) => {
            return Err(GreetError::Garbled(WireError::FrameCut {
                found: 0,
                expected: HEAD_BYTES,
            }));
        }
        Err(WireError::FrameTooLong { found, .. }) if stream::is_tls(head(found)) => {
            let reason = format!(
                "{} does not speak TLS, and you do; start every node of the cluster with --tls-dir, or none",
                me.name
            );
            return Err(refuse(&mut stream.into_socket(), reason).await);
        }
        Err(error) => return Err(error.into()),
    }
    let judged = judge(&frame, me, &stream)?;
    frame.clear();
    let answer = match &judged {
        Ok(_) => Answer::Welcome {
            node: me.name.clone(),
            cluster: me.cluster(),
        },
        Err(reason) => Answer::Refused {
            reason: reason.clone(),
        },
    };
    wire::put_answer(&answer, &mut frame)?;
    stream.write_all(&frame).await.map_err(broken)?;
    let hello = judged.map_err(GreetError::Refused)?;
    Ok((hello, stream))
}

fn broken(error: io::Error) -> WireError {
    WireError::Broken(error.kind())
}

/// Shakes hands with whoever has connected, who has to show a certificate.
async fn admit(socket: &mut TcpStream, me: &Me, tls: &Tls) -> Result<Session, GreetError> {
    match tls.accept(socket).await {
        Ok(session) => Ok(session),
        Err(ShakeError::Broken(kind)) => Err(GreetError::Garbled(WireError::Broken(kind))),
        Err(ShakeError::Tls(error)) => {
            part(socket).await;
            Err(GreetError::Untrusted(tls.explain(&error)))
        }
        Err(ShakeError::Plain(_)) => {
            let reason = format!(
                "{} takes nodes over TLS only; start every node of the cluster with --tls-dir, or none",
                me.name
            );
            Err(refuse(socket, reason).await)
        }
    }
}

/// Answers somebody without TLS in kind: whoever he is, nothing else is said to him.
async fn refuse(socket: &mut TcpStream, reason: String) -> GreetError {
    let mut frame = Vec::new();
    let answer = Answer::Refused {
        reason: reason.clone(),
    };
    if wire::put_answer(&answer, &mut frame).is_ok() && socket.write_all(&frame).await.is_ok() {
        part(socket).await;
    }
    GreetError::Refused(reason)
}

/// Whether a hello is let in; if not, what to tell the sender.
fn judge(frame: &[u8], me: &Me, stream: &PeerStream) -> Result<Result<Hello, String>, WireError> {
    let name = &me.name;
    let protocol = wire::protocol_of(frame)?;
    if protocol != PROTOCOL {
        return Ok(Err(format!(
            "{name} speaks protocol {PROTOCOL}, you speak {protocol}; run the same version on both nodes"
        )));
    }
    let hello = wire::hello(frame)?;
    if let Some(certificate) = stream.certificate()
        && let Err(names) = tls::is_for(&certificate, &hello.node)
    {
        let you = &hello.node;
        return Ok(Err(format!(
            "you say that you are {you}, and your certificate is for {names}; use one for {you}"
        )));
    }
    if hello.node == *name {
        return Ok(Err(format!(
            "you and I are both {name}; either this is your own address, or two nodes have one name: rename one of them"
        )));
    }
    if let Some(to) = hello.to.as_ref().filter(|to| *to != name) {
        return Ok(Err(format!(
            "this is the address of {name}, not of {to}; correct the address of {to}"
        )));
    }
    if let (Some(theirs), Some(mine)) = (hello.cluster, me.cluster())
        && theirs != mine
    {
        return Ok(Err(format!(
            "{name} belongs to cluster {mine}, you belong to {theirs}; a node must leave its cluster before it joins another"
        )));
    }
    Ok(Ok(hello))
}
