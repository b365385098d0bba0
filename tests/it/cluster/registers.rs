//! Keys whose values only grow: what a key holds says how much of what was acknowledged is there.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tests::PATIENCE;
use tests::resp::{Client, Reply};

/// What a key may hold.
#[derive(Clone, Copy, Default)]
struct Register {
    /// The newest value that was acknowledged; 0 for none.
    acked: u64,
    /// The newest value that was sent.
    tried: u64,
}

/// The keys, named by their numbers, and the last value that was given out.
#[derive(Clone)]
pub(super) struct Registers {
    registers: Vec<Register>,
    last: u64,
}

impl Registers {
    /// So many keys without values.
    pub(super) fn new(count: usize) -> Registers {
        Registers {
            registers: vec![Register::default(); count],
            last: 0,
        }
    }

    /// Gives these keys new values.
    pub(super) fn write(&mut self, at: SocketAddr, keys: Range<usize>) {
        let mut client = connect(at);
        for number in keys {
            let reply = self.set(&mut client, number);
            assert_eq!(reply, Reply::ok());
            self.acknowledge(number);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        (0..self.registers.len()).map(Key)
    }

    /// Whether this may be what the key holds.
    pub(super) fn fit(&self, key: Key, value: &Reply) -> bool {
        let Register { acked, tried } = self.registers[key.0];
        let held: u64 = match value {
            Reply::Nil => 0,
            value => value.text().parse().expect("a number"),
        };
        (acked..=tried).contains(&held)
    }

    /// Writes one after the other of the first keys, those without a value first, until it is told to stop.
    pub(super) fn write_through(&self, at: SocketAddr, count: usize) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut registers = self.clone();
        let begin = registers.registers.iter().position(|one| one.acked == 0);
        let thread = std::thread::spawn(move || {
            let mut client = connect(at);
            for number in (0..count).cycle().skip(begin.unwrap_or(0)) {
                if told.load(Ordering::SeqCst) {
                    break;
                }
                let reply = registers.set(&mut client, number);
                // What is answered later may be in a node that only stood in for another one.
                if told.load(Ordering::SeqCst) {
                    break;
                }
                assert_eq!(reply, Reply::ok(), "while all nodes are up");
                registers.acknowledge(number);
            }
            registers
        });
        Writer { stop, thread }
    }

    fn set(&mut self, client: &mut Client, number: usize) -> Reply {
        self.last += 1;
        self.registers[number].tried = self.last;
        client.run(&format!("SET {} {}", Key(number), self.last))
    }

    fn acknowledge(&mut self, number: usize) {
        self.registers[number].acked = self.registers[number].tried;
    }
}

fn connect(at: SocketAddr) -> Client {
    let stream = TcpStream::connect(at).expect("the node takes clients");
    let patience = stream.set_read_timeout(Some(PATIENCE));
    patience.expect("a timeout can be set");
    Client::new(stream)
}

/// Somebody who writes all the time.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Registers>,
}

impl Writer {
    /// Counts nothing any more that is acknowledged after this began, and returns what was.
    pub(super) fn stop_before(self, event: impl FnOnce()) -> Registers {
        self.stop.store(true, Ordering::SeqCst);
        event();
        self.thread.join().expect("the writer is answered")
    }
}

/// The name of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(usize);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.0)
    }
}
