//! How a connection between nodes begins: the one that dials says who it is and what for, the other answers.
//!
//! Neither side believes an address: the answer names who answered, and a connection to the wrong node, another cluster,
//! another version or oneself ends here, with a text for people on both sides.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vnode_ring::{ClusterId, NodeName};

use super::wire::{self, Answer, HELLO_BYTES_MAX, Hello, PROTOCOL, Purpose, WireError};
use crate::net::TcpStream;

/// Time for a connection to be made and its hello answered.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for whoever connects to send its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// Who this node is to others.
#[derive(Debug)]
pub struct Me {
    name: NodeName,
    cluster: Mutex<Option<ClusterId>>,
}

impl Me {
    /// A node and its cluster; none if it belongs to none yet.
    #[must_use]
    pub fn new(name: NodeName, cluster: Option<ClusterId>) -> Me {
        Me {
            name,
            cluster: Mutex::new(cluster),
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
    pub stream: TcpStream,
    /// Who answered.
    pub node: NodeName,
    /// Its cluster; none if it belongs to none yet.
    pub cluster: Option<ClusterId>,
}

/// Opens a connection to `host:port` and says hello. Takes at most [`DIAL_TIMEOUT`].
///
/// # Errors
/// Says where and what next. Nothing was asked of the other node.
pub async fn dial(address: &str, hello: &Hello) -> Result<Dialled, DialError> {
    let reached = timeout(DIAL_TIMEOUT, exchange(address, hello)).await;
    let (stream, answer) = reached.map_err(|_| DialError::Timeout {
        address: address.to_owned(),
    })??;
    match answer {
        Answer::Refused { reason } => Err(DialError::Refused {
            address: address.to_owned(),
            reason,
        }),
        Answer::Welcome { node, cluster } => match &hello.to {
            Some(wanted) if *wanted != node => Err(DialError::OtherNode {
                address: address.to_owned(),
                found: node,
                wanted: wanted.clone(),
            }),
            _ => Ok(Dialled {
                stream,
                node,
                cluster,
            }),
        },
    }
}

async fn exchange(address: &str, hello: &Hello) -> Result<(TcpStream, Answer), DialError> {
    let connect = |error: io::Error| DialError::Connect {
        address: address.to_owned(),
        kind: error.kind(),
    };
    let garbled = |why| DialError::Garbled {
        address: address.to_owned(),
        why,
    };
    let mut stream = TcpStream::connect(address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    let mut frame = Vec::new();
    wire::put_hello(hello, &mut frame).map_err(garbled)?;
    stream
        .write_all(&frame)
        .await
        .map_err(|error| garbled(WireError::Broken(error.kind())))?;
    let read = wire::read_frame(&mut stream, HELLO_BYTES_MAX, &mut frame);
    if !read.await.map_err(|why| no_answer(address, why))? {
        return Err(garbled(WireError::FrameCut {
            found: 0,
            expected: 4,
        }));
    }
    let answer = wire::answer(&frame).map_err(garbled)?;
    Ok((stream, answer))
}

/// What came instead of an answer. Other protocols begin with letters, which make a length that no hello has.
fn no_answer(address: &str, why: WireError) -> DialError {
    let address = address.to_owned();
    let WireError::FrameTooLong { found, .. } = why else {
        return DialError::Garbled { address, why };
    };
    let head = u32::try_from(found).unwrap_or_default().to_le_bytes();
    let what = match &head {
        b"HTTP" => "speaks HTTP, and did not say where its node is reached by others",
        [b'+' | b'-', ..] => FOR_CLIENTS,
        _ => "is that of another program than a node",
    };
    DialError::Stranger { address, what }
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
    /// It was told why.
    #[error("refused: {0}")]
    Refused(String),
}

/// Reads the hello of an accepted connection and answers it.
///
/// # Errors
/// Says why it was not let in. The connection is of no use then.
pub async fn greet(stream: &mut TcpStream, me: &Me) -> Result<Hello, GreetError> {
    timeout(HELLO_TIMEOUT, greet_unhurried(stream, me))
        .await
        .unwrap_or(Err(GreetError::Timeout))
}

async fn greet_unhurried(stream: &mut TcpStream, me: &Me) -> Result<Hello, GreetError> {
    let broken = |error: io::Error| WireError::Broken(error.kind());
    stream.set_nodelay(true).map_err(broken)?;
    let mut frame = Vec::new();
    if !wire::read_frame(stream, HELLO_BYTES_MAX, &mut frame).await? {
        return Err(GreetError::Garbled(WireError::FrameCut {
            found: 0,
            expected: 4,
        }));
    }
    let judged = judge(&frame, me)?;
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
    judged.map_err(GreetError::Refused)
}

/// Whether a hello is let in; if not, what to tell the sender.
fn judge(frame: &[u8], me: &Me) -> Result<Result<Hello, String>, WireError> {
    let name = &me.name;
    let protocol = wire::protocol_of(frame)?;
    if protocol != PROTOCOL {
        return Ok(Err(format!(
            "{name} speaks protocol {PROTOCOL}, you speak {protocol}; run the same version on both nodes"
        )));
    }
    let hello = wire::hello(frame)?;
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
