//! A thread that makes load: many connections, one loop.
//!
//! It reads what has arrived, judges it, asks for more and writes once, connection by connection, with buffers that stay. It does
//! nothing else while it measures: windows that are over go to whoever collects them.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::pace::Pace;
use super::ticker::Ticker;
use super::windows::{Failures, Window};
use super::worker::{Shared, Tally, Worker};

/// Longest sleep: how late an end from outside or a timeout is noticed.
const NAP: Duration = Duration::from_millis(50);
/// How long a worker waits after a round of all nodes that did not take it.
const RETRY: Duration = Duration::from_millis(100);
/// How long a connection may take to be made.
const OPENING: Duration = Duration::from_secs(1);
/// How often it is looked for answers that take too long.
const LOOK: Duration = Duration::from_millis(20);
/// Room for answers at the start, which grows with the largest.
const INPUT: usize = 16 << 10;
/// Ready connections that are looked at in one go.
const EVENTS: usize = 1024;

/// What a thread needs besides its workers.
pub(super) struct Orders<'a> {
    pub(super) shared: &'a Shared,
    /// Operations that each worker has in flight at most.
    pub(super) pipeline: usize,
    /// Open loop; closed without it.
    pub(super) pace: Option<Pace>,
    pub(super) start: Instant,
    pub(super) duration: Duration,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
    /// All nodes: who loses its connection goes to the next one.
    pub(super) nodes: &'a [SocketAddr],
    /// Set from outside to end early.
    pub(super) stop: &'a AtomicBool,
}

/// What a thread tells while it runs.
pub(super) enum Told {
    /// A window is over.
    Window(Window),
    /// The thread is done.
    End(End),
}

/// What a thread tells at its end.
pub(super) struct End {
    pub(super) last: Window,
    pub(super) failures: Failures,
    /// Operations of an open loop that were meant to be sent and could not be.
    pub(super) not_sent: u64,
    /// Connections that were lost or could not be made.
    pub(super) connections_lost: u64,
}

/// A worker and its connection.
struct Seat {
    worker: Worker,
    link: Link,
    /// Position of the node among all.
    node: usize,
    input: Vec<u8>,
    /// Bytes of `input` that hold answers which are not whole yet.
    filled: usize,
    /// Attempts to connect that failed in a row.
    failed: usize,
}

enum Link {
    Open(TcpStream),
    /// Since then.
    Opening(TcpStream, Duration),
    /// None; to be made then.
    Gone(Duration),
}

impl Seat {
    /// The connection is made.
    fn opened(&mut self) {
        if let Link::Opening(stream, _) =
            std::mem::replace(&mut self.link, Link::Gone(Duration::ZERO))
        {
            // Small requests are to leave at once; it only costs time where that is refused.
            let _ = stream.set_nodelay(true);
            self.link = Link::Open(stream);
        }
        self.failed = 0;
    }
}

/// One thread.
pub(super) struct Generator<'a> {
    orders: Orders<'a>,
    poll: Poll,
    ticker: Option<Ticker>,
    /// When the ticker wakes the thread.
    wakes: Duration,
    seats: Vec<Seat>,
    tally: Tally,
    /// The seat that an open loop looks at first: everybody's turn comes.
    turn: usize,
    looked: Duration,
    lost: u64,
}

impl<'a> Generator<'a> {
    /// A thread with these workers, each with its connection to the node of that position.
    ///
    /// # Errors
    /// The system gives no way to wait for connections.
    pub(super) fn new(
        orders: Orders<'a>,
        tally: Tally,
        workers: Vec<(Worker, std::net::TcpStream, usize)>,
    ) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let mut seats = Vec::with_capacity(workers.len());
        for (worker, stream, node) in workers {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(
                &mut stream,
                Token(seats.len()),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            seats.push(Seat {
                worker,
                link: Link::Open(stream),
                node,
                input: vec![0; INPUT],
                filled: 0,
                failed: 0,
            });
        }
        let ticker = match &orders.pace {
            Some(_) => Ticker::new(poll.registry(), Token(seats.len()))?,
            None => None,
        };
        Ok(Self {
            orders,
            poll,
            ticker,
            wakes: Duration::MAX,
            seats,
            tally,
            turn: 0,
            looked: Duration::ZERO,
            lost: 0,
        })
    }

    /// Makes load until the time is over, then waits for the answers that are under way.
    ///
    /// # Errors
    /// The system fails to wait for connections; what was measured is lost.
    pub(super) fn run(mut self, tell: &Sender<Told>) -> std::io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut asking = true;
        let mut ended = self.orders.duration;
        loop {
            let now = self.now();
            if asking && (now >= self.orders.duration || self.orders.stop.load(Ordering::Relaxed)) {
                asking = false;
                ended = now.min(ended);
                // What came due since the last look is not left out.
                self.send_due();
            }
            // Nobody may listen any more; the run is over then, and the flag says so.
            while let Some(window) = self.tally.windows.next(now) {
                let _ = tell.send(Told::Window(window));
            }
            if !asking && self.seats.iter().all(|seat| seat.worker.in_flight() == 0) {
                break;
            }
            self.attend(now, asking);
            self.tick()?;
            match self.poll.poll(&mut events, Some(self.nap())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                self.serve(event, asking);
            }
        }
        let now = self.now();
        let left = |pace: &Pace| pace.left(ended);
        let not_sent = self.orders.pace.as_ref().map_or(0, left);
        let Tally { windows, failures } = self.tally;
        let end = End {
            last: windows.end(now),
            failures,
            not_sent,
            connections_lost: self.lost,
        };
        let _ = tell.send(Told::End(end));
        Ok(())
    }

    fn now(&self) -> Duration {
        self.orders.start.elapsed()
    }

    /// Has the thread woken when the next operation is due. What is overdue waits for answers, not for the clock.
    fn tick(&mut self) -> std::io::Result<()> {
        let (Some(pace), Some(ticker)) = (&self.orders.pace, &self.ticker) else {
            return Ok(());
        };
        let (next, now) = (pace.next(), self.now());
        if next > now && next != self.wakes {
            ticker.wake(next - now)?;
            self.wakes = next;
        }
        Ok(())
    }

    /// How long there is nothing to do but wait for answers.
    fn nap(&self) -> Duration {
        let now = self.now();
        let mut until = now + NAP;
        if let (Some(pace), true) = (&self.orders.pace, self.ticker.is_none()) {
            until = until.min(pace.next());
        }
        let ends = self.tally.windows.ends().unwrap_or(self.orders.duration);
        until = until.min(ends.max(now + Duration::from_millis(1)));
        until.saturating_sub(now)
    }

    /// What is to be done without anything having arrived.
    fn attend(&mut self, now: Duration, asking: bool) {
        if now.saturating_sub(self.looked) >= LOOK {
            self.looked = now;
            self.give_up(now);
        }
        if !asking {
            return;
        }
        for number in 0..self.seats.len() {
            let due = |seat: &Seat| matches!(seat.link, Link::Gone(at) if at <= now);
            if self.seats.get(number).is_some_and(due) {
                self.connect(number, now);
            }
        }
        match self.orders.pace {
            Some(_) => self.send_due(),
            None => (0..self.seats.len()).for_each(|number| self.refill(number)),
        }
    }

    /// Gives up answers that take too long, with their connections: what comes later could not be told from the next answers.
    fn give_up(&mut self, now: Duration) {
        for number in 0..self.seats.len() {
            let slow = |seat: &Seat| {
                seat.worker
                    .waits_since()
                    .is_some_and(|since| now.saturating_sub(since) > self.orders.timeout)
            };
            if self.seats.get(number).is_some_and(slow) {
                let words = format!(
                    "no answer within {}",
                    humantime::format_duration(self.orders.timeout)
                );
                self.lose(number, "timeout", &words);
            }
            let stuck = |seat: &Seat| matches!(seat.link, Link::Opening(_, since) if now.saturating_sub(since) > OPENING);
            if self.seats.get(number).is_some_and(stuck) {
                self.lose(number, "lost", "the node does not take the connection");
            }
        }
    }

    /// Something happened on a connection.
    fn serve(&mut self, event: &Event, asking: bool) {
        let number = event.token().0;
        let Some(seat) = self.seats.get_mut(number) else {
            // The ticker: an open loop has something to send, which is looked for in each round anyway.
            self.wakes = Duration::MAX;
            return;
        };
        if let Link::Opening(stream, _) = &seat.link {
            let outcome = stream
                .take_error()
                .and_then(|error| error.map_or_else(|| stream.peer_addr(), Err));
            match outcome {
                // Not yet.
                Err(error) if error.kind() == ErrorKind::NotConnected && !event.is_error() => {
                    return;
                }
                Err(error) => return self.lose(number, "lost", &error.to_string()),
                Ok(_) => seat.opened(),
            }
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(number, event.is_read_closed());
        }
        if asking && self.orders.pace.is_none() {
            self.refill(number);
        }
        self.flush(number);
    }

    /// Reads and judges what has arrived.
    fn read(&mut self, number: usize, closed: bool) {
        loop {
            let Some(seat) = self.seats.get_mut(number) else {
                return;
            };
            let Link::Open(stream) = &mut seat.link else {
                return;
            };
            if seat.filled == seat.input.len() {
                seat.input.resize(seat.input.len() * 2, 0);
            }
            let room = seat.input.get_mut(seat.filled..).unwrap_or_default();
            let space = room.len();
            let read = match stream.read(room) {
                Ok(0) => return self.lose(number, "lost", "the node closed the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.lose(number, "lost", &error.to_string()),
            };
            seat.filled += read;
            let now = self.orders.start.elapsed();
            let arrived = seat.input.get(..seat.filled).unwrap_or_default();
            match seat
                .worker
                .hear(arrived, now, self.orders.shared, &mut self.tally)
            {
                Ok(taken) => {
                    seat.input.copy_within(taken..seat.filled, 0);
                    seat.filled -= taken;
                }
                Err(error) => return self.lose(number, "malformed", &error.to_string()),
            }
            // Less than there was room for is all that there was.
            if read < space && !closed {
                return;
            }
        }
    }

    /// Closed loop: when all answers are there, the next ones are asked for together.
    fn refill(&mut self, number: usize) {
        let now = self.now();
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        if matches!(seat.link, Link::Open(_)) && seat.worker.in_flight() == 0 {
            for _ in 0..self.orders.pipeline {
                seat.worker.ask(self.orders.shared, now, now);
            }
            self.flush(number);
        }
    }

    /// Open loop: what is due goes to whoever has room, and what nobody has room for stays due. Nothing in a closed loop.
    fn send_due(&mut self) {
        let now = self.now();
        let count = self.seats.len();
        // Connections that have no room are passed once a round.
        let mut passed = 0;
        while passed < count {
            let number = self.turn % count.max(1);
            let Some(seat) = self.seats.get_mut(number) else {
                return;
            };
            let room = matches!(seat.link, Link::Open(_))
                && seat.worker.in_flight() < self.orders.pipeline;
            if room {
                let intended = self.orders.pace.as_mut().and_then(|pace| pace.take(now));
                let Some(intended) = intended.filter(|intended| *intended < self.orders.duration)
                else {
                    break;
                };
                seat.worker.ask(self.orders.shared, intended, now);
                self.flush(number);
                passed = 0;
            } else {
                passed += 1;
            }
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// Writes as much as the connection takes; the rest goes when it takes more.
    fn flush(&mut self, number: usize) {
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        let Link::Open(stream) = &mut seat.link else {
            return;
        };
        while !seat.worker.output.is_empty() {
            match stream.write(&seat.worker.output) {
                Ok(written) if written == seat.worker.output.len() => seat.worker.output.clear(),
                Ok(written) => drop(seat.worker.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(number, "lost", &error.to_string()),
            }
        }
    }

    /// A connection is of no more use: what had no answer failed, and the worker goes to the next node.
    fn lose(&mut self, number: usize, kind: &str, words: &str) {
        let now = self.now();
        let nodes = self.orders.nodes.len().max(1);
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        self.lost += 1;
        let words = match self.orders.nodes.get(seat.node) {
            Some(node) => format!("{node}: {words}"),
            None => words.to_owned(),
        };
        seat.worker.lose(kind, &words, &mut self.tally);
        seat.filled = 0;
        seat.node = (seat.node + 1) % nodes;
        seat.failed += 1;
        // Each node is tried once before anybody waits.
        let wait = if seat.failed % nodes == 0 {
            RETRY
        } else {
            Duration::ZERO
        };
        seat.link = Link::Gone(now + wait);
    }

    fn connect(&mut self, number: usize, now: Duration) {
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        let Some(node) = self.orders.nodes.get(seat.node) else {
            return;
        };
        let made = TcpStream::connect(*node).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(number), interest)?;
            Ok(stream)
        });
        match made {
            Ok(stream) => seat.link = Link::Opening(stream, now),
            Err(_) => seat.link = Link::Gone(now + RETRY),
        }
    }
}
