//! `host dev`: nodes to try a guest on, which run what its author has saved last.
//!
//! One thread builds, starts, watches and swaps (`follow`); the other says what comes of it and waits for the end: a signal, a node that
//! ends by itself, or something that cannot be gone on with. Whatever it is, the nodes end and their data goes (`fleet`). What counts as
//! a change of the sources is decided in `watch`.

mod fleet;
mod watch;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use self::fleet::{Fleet, Started};
use self::watch::{Source, Watch};
use super::args::{Dev, Global, Goal, Terms};
use super::build;
use super::client::Client;
use super::guest::{self, Inspection};
use super::output::{ANSWER, Session};
use super::report::{Exit, Failure, render};
use super::{rollout, services, wait};

/// How often the sources are looked at. Two looks in a row have to see the same, so a save is noticed within twice that.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time of the nodes to become one cluster, and of a version to run on all of them.
const WITHIN: Duration = Duration::from_secs(60);
/// Ports of a node are so far from those of the one before.
const PORTS_APART: u16 = 10;
/// RESP, HTTP and peers have one each.
const PORTS_EACH: u16 = 3;

/// What the thread that waits is told.
enum News {
    /// To be printed.
    Said(Vec<u8>),
    /// The user wants to end it.
    Interrupted,
    /// A node ended by itself.
    Ended(String),
    /// The other thread cannot go on.
    Failed(anyhow::Error),
}

/// Prints by way of the thread that has standard output.
struct Teller(Sender<News>);

impl Write for Teller {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let told = self.0.send(News::Said(text.to_vec()));
        told.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves a guest until the user ends it, each time as it was saved last.
pub(super) fn dev(session: &mut Session<'_>, args: &Dev) -> anyhow::Result<Exit> {
    let ports = ports(args.port, args.nodes)?;
    let source = Source::of(&args.source)?;
    let (tell, news) = mpsc::channel();
    end_on_signals(tell.clone())?;
    let fleet = Arc::new(Fleet::new(tell.clone(), args.nodes > 1)?);
    let (nodes, global) = (Arc::clone(&fleet), session.global().clone());
    std::thread::spawn(move || {
        let mut out = Teller(tell.clone());
        let mut session = Session::new(&global, &mut out);
        let Err(error) = follow(&mut session, &global, &source, &nodes, &ports);
        // Nobody listens any more when it is over.
        drop(tell.send(News::Failed(error)));
    });
    let outcome = listen(session, &news);
    let gone = outcome.as_ref().ok().and_then(Option::as_deref);
    let status = fleet.end(gone);
    match outcome? {
        None => Ok(Exit::Ok),
        Some(node) => {
            let status = status.map_or_else(String::new, |status| status.to_string());
            Err(Failure::new(format!("{node} ended by itself: {status}"))
                .next("what it said last is above; the other nodes have ended, too")
                .into())
        }
    }
}

/// Prints what there is to say until it is over: whose end that was, if it was a node's.
fn listen(session: &mut Session<'_>, news: &Receiver<News>) -> anyhow::Result<Option<String>> {
    for one in news {
        match one {
            News::Said(text) => {
                session.out.write_all(&text)?;
                session.out.flush()?;
            }
            News::Interrupted => break,
            News::Ended(node) => return Ok(Some(node)),
            News::Failed(error) => return Err(error),
        }
    }
    Ok(None)
}

fn end_on_signals(tell: Sender<News>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(inside);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        drop(tell.send(News::Interrupted));
    });
    Ok(())
}

/// First port of each of so many nodes.
fn ports(first: u16, nodes: u16) -> Result<Vec<u16>, Failure> {
    if first == 0 {
        return Ok(vec![0; nodes.into()]);
    }
    let last = nodes.saturating_sub(1).checked_mul(PORTS_APART);
    let end = last.and_then(|last| first.checked_add(last)?.checked_add(PORTS_EACH - 1));
    if end.is_none() {
        let what = format!("from port {first} on there is no room for {nodes} nodes");
        return Err(Failure::usage(what).next("--port 0 takes ports that are free"));
    }
    Ok((0..nodes).map(|nth| first + nth * PORTS_APART).collect())
}

/// Builds the guest, starts the nodes with it, and then swaps it whenever it was saved. Ends when that cannot be gone on with.
fn follow(
    session: &mut Session<'_>,
    global: &Global,
    source: &Source,
    fleet: &Fleet,
    ports: &[u16],
) -> anyhow::Result<std::convert::Infallible> {
    let mut watch = Watch::new(source.look());
    let file = make(source)?;
    let inspection = match source {
        Source::Project(_) => build::report(session, &file)?,
        Source::Component(_) => {
            let inspection = Inspection::of(&file)?;
            let text = guest::text(session, &inspection);
            session.print(&text)?;
            inspection
        }
    };
    let nodes = start(session, fleet, &file, ports)?;
    let text = greeting(session, &inspection, &nodes, source);
    session.print(&text)?;
    let first = nodes.first().map(|node| node.http.clone());
    let swapping = Swapping {
        client: Client::new(&first.unwrap_or_default(), WITHIN)?,
        service: inspection.name,
        global: Global {
            timeout: Some(WITHIN),
            ..global.clone()
        },
    };
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(changed) = watch.look(source.look()) else {
            continue;
        };
        session.print(&format!("{}\n", source.tell(&changed)))?;
        let began = Instant::now();
        let text = match make(source).and_then(|file| swapping.swap(&file)) {
            Ok(Some(digest)) => outcome(session, &digest, began.elapsed()),
            Ok(None) => "the component is the same as before\n".into(),
            Err(error) => format!(
                "{}\n{}\n",
                render(&error),
                session.bad("not swapped: the one before serves on")
            ),
        };
        session.print(&text)?;
    }
}

/// The component as it is now.
fn make(source: &Source) -> anyhow::Result<PathBuf> {
    match source {
        Source::Project(folder) => build::component_of(folder, build::Purpose::Dev),
        Source::Component(file) => Ok(file.clone()),
    }
}

/// Starts a node on each of these ports and makes one cluster of them.
fn start(
    session: &mut Session<'_>,
    fleet: &Fleet,
    file: &Path,
    ports: &[u16],
) -> anyhow::Result<Vec<Started>> {
    let mut nodes: Vec<Started> = Vec::new();
    for port in ports {
        let member = nodes.first().map(|first| first.http.as_str());
        let node = fleet.start(file, *port, member)?;
        nodes.push(node);
        if let Some(first) = nodes.first().filter(|_| nodes.len() > 1) {
            let client = Client::new(&first.http, ANSWER)?;
            wait::members(&client, nodes.len(), WITHIN)?;
            wait::until(session, client, Goal::Settled, WITHIN)?;
        }
    }
    Ok(nodes)
}

/// How to talk to the nodes.
fn greeting(
    session: &Session<'_>,
    inspection: &Inspection,
    nodes: &[Started],
    source: &Source,
) -> String {
    let command = inspection.descriptor.commands.first();
    let try_it = command.map_or_else(String::new, |command| {
        let text = format!("{}.{} {}", inspection.name, command.name, command.syntax);
        text.trim_end().to_owned()
    });
    let mut text = String::from("\n");
    for node in nodes {
        text.push_str(&format!(
            "{}     redis-cli -p {} {try_it}     {}\n",
            node.name,
            node.port(),
            node.http
        ));
    }
    text.push_str(&format!(
        "{}     {} is watched: save to swap; Ctrl-C ends the nodes and their data\n",
        session.good("ready"),
        source.path().display()
    ));
    text
}

fn outcome(session: &Session<'_>, digest: &str, took: Duration) -> String {
    let digest = digest.get(..12).unwrap_or(digest);
    let swapped = session.good("swapped");
    format!(
        "{swapped} to sha256 {digest} in {:.1} s\n",
        took.as_secs_f64()
    )
}

/// Where another version goes.
struct Swapping {
    client: Client,
    service: String,
    global: Global,
}

impl Swapping {
    /// Has all nodes run a component at once, whatever it changes, and waits until they do. Returns its digest; none if it is what
    /// runs already.
    fn swap(&self, file: &Path) -> anyhow::Result<Option<String>> {
        let terms = Terms {
            service: Some(self.service.clone()),
            canary: None,
            expect_divergence: None,
            all_at_once: true,
            soak: Some(Duration::ZERO),
            force: true,
        };
        let bytes = rollout::component(file)?;
        let digest = Sha256::digest(&bytes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let served: services::Body = self.client.view(self.client.get("/v1/services", &[])?)?;
        if served.services.iter().any(|one| one.digest == digest) {
            return Ok(None);
        }
        let body = rollout::send(&self.client, &self.service, &bytes, &terms, false)?;
        let begun = self.client.view(body)?;
        // How far it is does not matter in the time that it takes.
        let mut nobody = io::sink();
        let mut session = Session::new(&self.global, &mut nobody);
        rollout::follow(&mut session, &self.client, &begun)?;
        Ok(Some(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_ports_of_its_own() {
        assert_eq!(ports(7379, 1).unwrap(), [7379]);
        assert_eq!(ports(7379, 3).unwrap(), [7379, 7389, 7399]);
        assert_eq!(ports(0, 3).unwrap(), [0, 0, 0]);
        assert_eq!(ports(65_513, 3).unwrap(), [65_513, 65_523, 65_533]);
        for (first, nodes) in [(65_514, 3), (65_534, 1), (1, 65_535)] {
            let error = ports(first, nodes).unwrap_err().to_string();
            assert!(
                error.contains("no room") && error.contains("next: --port 0"),
                "{error}"
            );
        }
    }
}
