//! Clients over simulated sockets: each asks a random node what a workload says, and takes down what came of it.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::checkers::Recorder;
use tests::dice::Dice;
use tests::resp::{Reply, encode};
use tests::workload::commands::Session;
use tests::workload::{Plan, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use crate::node::RESP;

/// Longer than a node lets a client wait: whoever is not answered by then asks a node that is stopped or cut off.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Longest pause between two turns of a client, milliseconds.
const PACE_MS_MAX: u64 = 60;

/// What all clients of a run share.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) recorder: Recorder,
    pub(crate) stop: AtomicBool,
    /// The nodes that clients ask.
    pub(crate) doors: Mutex<Vec<&'static str>>,
    /// Clients that have ended.
    pub(crate) ended: AtomicUsize,
}

impl Run {
    fn door(&self, dice: &mut Dice) -> &'static str {
        let doors = self.doors.lock().unwrap();
        doors[dice.index(doors.len())]
    }
}

/// Nanoseconds since the beginning, for all alike.
fn now() -> u64 {
    turmoil::sim_elapsed().unwrap_or_default().as_nanos() as u64
}

/// One client of one workload, until the run is stopped.
pub(crate) async fn run(run: Arc<Run>, plan: Plan, number: u32) -> turmoil::Result {
    let mut dice = Dice::of(run.seed, u64::from(number) + 1_000);
    let mut workload = Workload::new(&plan, run.seed, number);
    let mut session = Session::default();
    let mut connection: Option<Connection> = None;
    while !run.stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(dice.number() % PACE_MS_MAX)).await;
        let mut open = match connection.take().filter(|_| !dice.percent(2)) {
            Some(open) => open,
            // Nobody is asked before somebody listens, so what is unknown was at least sent.
            None => match Connection::open(run.door(&mut dice)).await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        let turn = workload.turn_async(&run.recorder, now, async |request| {
            let call = async |words: &[&str]| open.call(words).await;
            session.ask(request, call).await
        });
        turn.await;
        connection = (!open.broken).then_some(open);
    }
    run.ended.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A connection to one node.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    /// An answer did not come.
    broken: bool,
}

impl Connection {
    pub(crate) async fn open(node: &str) -> io::Result<Connection> {
        let stream = timeout(PATIENCE, TcpStream::connect((node, RESP))).await??;
        Ok(Connection {
            stream,
            unread: Vec::new(),
            broken: false,
        })
    }

    /// Runs one command. After an error nobody knows what became of it, and the connection is of no more use.
    pub(crate) async fn call(&mut self, words: &[&str]) -> io::Result<Reply> {
        if self.broken {
            return Err(ErrorKind::NotConnected.into());
        }
        self.broken = true;
        let reply = timeout(PATIENCE, self.exchange(words)).await??;
        self.broken = false;
        Ok(reply)
    }

    async fn exchange(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.stream.write_all(&encode(words)).await?;
        loop {
            let mut rest = self.unread.as_slice();
            match Reply::read(&mut rest) {
                Ok(reply) => {
                    self.unread = rest.to_vec();
                    return Ok(reply);
                }
                Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
                Err(_) => {}
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(ErrorKind::ConnectionReset.into());
            }
        }
    }
}
