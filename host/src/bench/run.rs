//! A run from its beginning to its end: connections, keys, threads, windows, faults.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::BenchError;
use super::client::{self, NodeFacts};
use super::draw::Keys;
use super::faults::{Fault, Mark};
use super::generator::{End, Generator, Orders, Told};
use super::pace::Pace;
use super::values::Values;
use super::windows::{Cell, Failures, Window, Windows};
use super::worker::{Shared, Tally, Worker};
use super::workload::Workload;

/// How late a fault may come.
const NAP: Duration = Duration::from_millis(5);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) workload: Workload,
    /// Where clients connect; workers are spread over them in turn.
    pub(crate) nodes: Vec<SocketAddr>,
    /// Connections, each with operations of its own.
    pub(crate) workers: u16,
    /// Threads that they share.
    pub(crate) threads: u16,
    /// Operations that a worker has in flight.
    pub(crate) pipeline: usize,
    /// Keys are numbers below this.
    pub(crate) keys: u64,
    /// Exponent of the Zipf distribution that keys are drawn from; without it each is as likely as any other.
    pub(crate) zipf: Option<f64>,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Operations a second in an open loop; a closed loop without it.
    pub(crate) rate: Option<u64>,
    pub(crate) duration: Duration,
    /// What is counted together in graphs and CSV.
    pub(crate) window: Duration,
    /// Longest wait for an answer.
    pub(crate) timeout: Duration,
    /// Decides operations and keys.
    pub(crate) seed: u64,
    /// What goes wrong meanwhile.
    pub(crate) faults: Vec<Fault>,
}

/// What is told while it runs.
pub(crate) enum Progress<'a> {
    /// All keys have been filled, which took so long.
    Filled(u64, Duration),
    /// A window is over.
    Window(&'a Window),
    /// Something was done to the nodes.
    Mark(&'a Mark),
}

/// What came of it.
pub(crate) struct Outcome {
    /// The nodes as they were before.
    pub(super) nodes: Vec<NodeFacts>,
    /// How long it took to fill the keys, if they were.
    pub(super) filled: Option<Duration>,
    /// In order.
    pub(super) windows: Vec<Window>,
    pub(super) failures: Failures,
    pub(super) not_sent: u64,
    pub(super) connections_lost: u64,
    pub(super) marks: Vec<Mark>,
    /// Whether it was ended before its time.
    pub(super) interrupted: bool,
}

/// Runs it. `stop` ends it early; `tell` hears of each window, while answers are waited for elsewhere.
///
/// # Errors
/// A node cannot be reached or does not take the keys, a fault cannot be done, the system refuses; nothing is measured then.
pub(crate) fn run(
    settings: &Settings,
    stop: &AtomicBool,
    mut tell: impl FnMut(Progress<'_>),
) -> Result<Outcome, BenchError> {
    let nodes = look(settings)?;
    for fault in &settings.faults {
        fault.check(&nodes).map_err(|why| BenchError::Fault {
            label: fault.label(),
            why,
        })?;
    }
    let shared = Shared {
        workload: settings.workload.clone(),
        values: Values::new(run_number(), settings.value_bytes),
        keys: Keys::new(settings.keys, settings.zipf).map_err(BenchError::Keys)?,
        seed: settings.seed,
        workers: settings.workers,
    };
    let filled = fill(settings, &shared)?;
    if let Some(took) = filled {
        tell(Progress::Filled(settings.keys, took));
    }
    let mut teams = teams(settings, &shared)?;
    let empty =
        vec![Cell::empty().map_err(BenchError::histogram)?; shared.workload.operations.len()];
    let start = Instant::now();
    let threads = teams.len();
    let mut generators = Vec::with_capacity(threads);
    for (lane, team) in teams.drain(..).enumerate() {
        let orders = Orders {
            shared: &shared,
            pipeline: settings.pipeline,
            pace: settings
                .rate
                .map(|rate| Pace::new(rate, lane as u64, threads as u64)),
            start,
            duration: settings.duration,
            timeout: settings.timeout,
            nodes: &settings.nodes,
            stop,
        };
        let windows = Windows::new(empty.clone(), settings.window, settings.duration);
        let tally = Tally {
            windows,
            failures: Failures::default(),
        };
        generators.push(Generator::new(orders, tally, team).map_err(BenchError::System)?);
    }
    let (sender, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(threads);
        for generator in generators {
            let sender: Sender<Told> = sender.clone();
            running.push(scope.spawn(move || generator.run(&sender)));
        }
        drop(sender);
        let mut collected = Collected::new(threads);
        let marks = collect(&heard, settings, &nodes, start, &mut collected, &mut tell);
        for thread in running {
            let ended = thread.join().map_err(|_| BenchError::Thread)?;
            ended.map_err(BenchError::System)?;
        }
        Ok(Outcome {
            nodes,
            filled,
            windows: collected.finish(&mut tell),
            failures: collected.failures,
            not_sent: collected.not_sent,
            connections_lost: collected.connections_lost,
            marks,
            interrupted: stop.load(Ordering::Relaxed) && start.elapsed() < settings.duration,
        })
    })
}

/// All nodes, which have to answer.
fn look(settings: &Settings) -> Result<Vec<NodeFacts>, BenchError> {
    settings
        .nodes
        .iter()
        .map(|node| client::facts(*node, settings.timeout))
        .collect()
}

/// A number that no other run has: values of an earlier one are not to pass for this one's.
fn run_number() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or_default()
        ^ u64::from(std::process::id()) << 48
}

/// Fills all keys if the workload reads them, through all nodes at once.
fn fill(settings: &Settings, shared: &Shared) -> Result<Option<Duration>, BenchError> {
    if shared.workload.load.is_none() {
        return Ok(None);
    }
    let start = Instant::now();
    let lanes = settings.nodes.len() as u64;
    std::thread::scope(|scope| {
        let fill = |(lane, node): (usize, &SocketAddr)| {
            let node = *node;
            scope.spawn(move || client::fill(node, shared, lane as u64, lanes, settings.timeout))
        };
        let threads: Vec<_> = settings.nodes.iter().enumerate().map(fill).collect();
        for thread in threads {
            thread.join().map_err(|_| BenchError::Thread)??;
        }
        Ok(Some(start.elapsed()))
    })
}

/// The workers of one thread: each with its connection, and the position of its node.
type Team = Vec<(Worker, TcpStream, usize)>;

/// The workers with their connections, spread over threads.
fn teams(settings: &Settings, shared: &Shared) -> Result<Vec<Team>, BenchError> {
    let threads = settings.threads.min(settings.workers).max(1);
    let mut teams: Vec<Team> = (0..threads).map(|_| Vec::new()).collect();
    for number in 0..settings.workers {
        let position = usize::from(number) % settings.nodes.len().max(1);
        let Some(node) = settings.nodes.get(position) else {
            return Err(BenchError::NoNode);
        };
        let member = (
            Worker::new(number, shared),
            client::connect(*node)?,
            position,
        );
        if let Some(team) = teams.get_mut(usize::from(number % threads)) {
            team.push(member);
        }
    }
    Ok(teams)
}

/// Collects what threads tell until all are done, and does what is to go wrong meanwhile.
fn collect(
    heard: &Receiver<Told>,
    settings: &Settings,
    nodes: &[NodeFacts],
    start: Instant,
    collected: &mut Collected,
    tell: &mut impl FnMut(Progress<'_>),
) -> Vec<Mark> {
    let mut faults = settings.faults.clone();
    faults.sort_by_key(|fault| fault.at);
    let mut faults = faults.into_iter().peekable();
    let mut marks = Vec::new();
    loop {
        while let Some(fault) = faults.next_if(|fault| fault.at <= start.elapsed()) {
            let at = start.elapsed();
            let mark = Mark {
                at,
                label: fault.label(),
                error: fault.act(nodes).err(),
            };
            tell(Progress::Mark(&mark));
            marks.push(mark);
        }
        let due = faults
            .peek()
            .map(|fault| fault.at.saturating_sub(start.elapsed()));
        match heard.recv_timeout(due.map_or(settings.window, |due| due.max(NAP))) {
            Ok(Told::Window(window)) => collected.window(window, tell),
            Ok(Told::End(end)) => collected.end(end),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return marks,
        }
    }
}

/// What all threads have told so far.
struct Collected {
    threads: usize,
    whole: Vec<Window>,
    /// Windows that not all threads have closed, and how many have.
    open: BTreeMap<usize, (usize, Window)>,
    failures: Failures,
    not_sent: u64,
    connections_lost: u64,
}

impl Collected {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            whole: Vec::new(),
            open: BTreeMap::new(),
            failures: Failures::default(),
            not_sent: 0,
            connections_lost: 0,
        }
    }

    /// Takes a thread's window in; one that all threads have closed is whole.
    fn window(&mut self, window: Window, tell: &mut impl FnMut(Progress<'_>)) {
        self.add(window);
        while let Some(entry) = self
            .open
            .first_entry()
            .filter(|entry| entry.get().0 == self.threads)
        {
            let (_, window) = entry.remove();
            tell(Progress::Window(&window));
            self.whole.push(window);
        }
    }

    fn end(&mut self, end: End) {
        self.add(end.last);
        self.failures.merge(end.failures);
        self.not_sent += end.not_sent;
        self.connections_lost += end.connections_lost;
    }

    fn add(&mut self, window: Window) {
        match self.open.get_mut(&window.number) {
            Some((count, known)) => {
                *count += 1;
                known.add(&window);
            }
            None => {
                self.open.insert(window.number, (1, window));
            }
        }
    }

    /// All windows, in order: the last one, and what a run that was ended early left open. One without time or answers is none.
    fn finish(&mut self, tell: &mut impl FnMut(Progress<'_>)) -> Vec<Window> {
        for (_, (_, window)) in std::mem::take(&mut self.open) {
            let answers = window
                .cells
                .iter()
                .any(|cell| cell.successful + cell.failed > 0);
            if answers || window.until > window.from {
                tell(Progress::Window(&window));
                self.whole.push(window);
            }
        }
        std::mem::take(&mut self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(number: usize, successful: u64, until_ms: u64) -> Window {
        let mut cell = Cell::empty().unwrap();
        cell.successful = successful;
        let from = Duration::from_secs(1) * u32::try_from(number).unwrap();
        Window {
            number,
            from,
            until: Duration::from_millis(until_ms),
            cells: vec![cell],
        }
    }

    fn end(last: Window) -> End {
        End {
            last,
            failures: Failures::default(),
            not_sent: 1,
            connections_lost: 2,
        }
    }

    #[test]
    fn windows_of_several_threads_become_one_row_each_in_order() {
        let mut collected = Collected::new(2);
        let mut shown = Vec::new();
        let mut tell = |progress: Progress<'_>| {
            if let Progress::Window(window) = progress {
                shown.push((window.number, window.cells[0].successful));
            }
        };
        collected.window(window(0, 1, 1000), &mut tell);
        collected.window(window(1, 2, 2000), &mut tell);
        collected.window(window(0, 10, 1000), &mut tell);
        // One thread was ended in its third window, the other in its second.
        collected.end(end(window(2, 4, 2010)));
        collected.end(end(window(1, 20, 1990)));
        let all = collected.finish(&mut tell);
        assert_eq!(shown, [(0, 11), (1, 22), (2, 4)]);
        let ends: Vec<u128> = all.iter().map(|window| window.until.as_millis()).collect();
        assert_eq!(ends, [1000, 2000, 2010]);
        assert_eq!((collected.not_sent, collected.connections_lost), (2, 4));
    }

    #[test]
    fn a_window_without_time_or_answers_is_none() {
        let mut collected = Collected::new(1);
        collected.end(end(window(3, 0, 3000)));
        assert!(collected.finish(&mut |_| {}).is_empty());
    }
}
