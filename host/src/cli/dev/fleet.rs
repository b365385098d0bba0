//! The nodes of `host dev`: processes of this program, in a directory that goes with them.
//!
//! None of them outlives [`Fleet::end`], not even one that another thread is about to start.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use tempfile::TempDir;

use super::super::report::Failure;
use super::News;

/// What goes wrong, and whatever the guest writes or refuses. How nodes find each other is nothing that its author has to know.
const LOG: &str = "warn,openraft=off,vnode_cluster=error,guest=debug";

/// All nodes that were started.
pub(super) struct Fleet {
    tell: Sender<News>,
    /// Whether lines say whose they are.
    named: bool,
    /// Nobody needs to hear what the others say of a node that has ended.
    quiet: Arc<AtomicBool>,
    inside: Mutex<Inside>,
}

struct Inside {
    /// None once it is over.
    data: Option<TempDir>,
    nodes: Vec<Process>,
}

/// A node as the system sees it.
struct Process {
    name: String,
    child: Child,
    log: Option<JoinHandle<()>>,
}

/// A node that is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Started {
    /// `node1`.
    pub(super) name: String,
    /// Where Redis clients connect.
    pub(super) resp: String,
    /// Where HTTP is served, with `http://`.
    pub(super) http: String,
}

impl Started {
    /// The port for Redis clients.
    pub(super) fn port(&self) -> &str {
        self.resp.rsplit(':').next().unwrap_or_default()
    }

    /// What a banner says of it, once that has come to its end.
    fn hear(&mut self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let place = match words.next() {
            Some("resp") => &mut self.resp,
            Some("http") => &mut self.http,
            word => return word == Some("ready"),
        };
        *place = words.next().unwrap_or_default().to_owned();
        false
    }
}

impl Fleet {
    /// A directory, and no nodes yet.
    pub(super) fn new(tell: Sender<News>, named: bool) -> anyhow::Result<Fleet> {
        let data = tempfile::Builder::new().prefix("host-dev-").tempdir();
        let data = data.context("cannot make a directory for the data of the nodes")?;
        Ok(Fleet {
            tell,
            named,
            quiet: Arc::default(),
            inside: Mutex::new(Inside {
                data: Some(data),
                nodes: Vec::new(),
            }),
        })
    }

    /// Starts the next node and waits until it is ready. It joins the cluster of the node with that HTTP address, if one is given.
    pub(super) fn start(
        &self,
        file: &Path,
        port: u16,
        join: Option<&str>,
    ) -> anyhow::Result<Started> {
        let (ready, heard) = mpsc::channel();
        let name = self.spawn(file, port, join, ready)?;
        heard.recv().map_err(|_| {
            Failure::new(format!("{name} ended before it was ready"))
                .next("what it said is above")
                .into()
        })
    }

    fn spawn(
        &self,
        file: &Path,
        port: u16,
        join: Option<&str>,
        ready: Sender<Started>,
    ) -> anyhow::Result<String> {
        let mut inside = self.inside();
        let data = inside.data.as_ref().context("it is over")?;
        let name = format!("node{}", inside.nodes.len() + 1);
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["run", "--storage", "memory", "--color", "never"])
            .args(["--log", LOG, "--log-format", "text"])
            .args(["--name", &format!("{name}@127.0.0.1")])
            .args(["--port", &port.to_string()])
            .arg("--data")
            .arg(data.path().join(&name))
            .arg("--vnode")
            .arg(file)
            // Ctrl-C on the terminal is not for them: they end when this command ends.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(member) = join {
            command.args(["--join", member, "--auto-commit"]);
        }
        let mut child = command.spawn().context("cannot start a node")?;
        let (banner, log) = (child.stdout.take(), child.stderr.take());
        let log = log.map(|log| self.pass_on(log, &name));
        inside.nodes.push(Process {
            name: name.clone(),
            child,
            log,
        });
        if let Some(banner) = banner {
            hear_of(banner, &name, ready, self.tell.clone());
        }
        Ok(name)
    }

    /// Passes the lines of a log on as they come.
    fn pass_on(&self, log: impl Read + Send + 'static, name: &str) -> JoinHandle<()> {
        let quiet = Arc::clone(&self.quiet);
        let whose = match self.named {
            true => format!("{name}: "),
            false => String::new(),
        };
        std::thread::spawn(move || {
            let mut log = BufReader::new(log);
            let mut line = Vec::new();
            while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if !quiet.load(Ordering::Relaxed) {
                    let text = String::from_utf8_lossy(&line);
                    // Who closed our standard error does not want to see it.
                    drop(writeln!(std::io::stderr(), "{whose}{}", text.trim_end()));
                }
                line.clear();
            }
        })
    }

    /// Ends all nodes at once and removes their data. Of one that has ended by itself it passes on the last words, and returns how
    /// it ended.
    pub(super) fn end(&self, gone: Option<&str>) -> Option<ExitStatus> {
        let mut inside = self.inside();
        let mut nodes = std::mem::take(&mut inside.nodes);
        let gone = nodes
            .iter_mut()
            .find(|node| Some(node.name.as_str()) == gone);
        let status = gone.and_then(Process::ended);
        self.quiet.store(true, Ordering::Relaxed);
        // What they hold is to be thrown away, so they need not finish anything.
        for node in &mut nodes {
            drop(node.child.kill());
        }
        for node in &mut nodes {
            node.ended();
        }
        drop(inside.data.take());
        status
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Waits until it has ended and all that it said was passed on.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.wait().ok();
        if let Some(log) = self.log.take() {
            drop(log.join());
        }
        status
    }
}

/// Reads what a node prints: its banner, and nothing until it ends.
fn hear_of(
    banner: impl Read + Send + 'static,
    name: &str,
    ready: Sender<Started>,
    tell: Sender<News>,
) {
    let mut node = Started {
        name: name.to_owned(),
        ..Started::default()
    };
    std::thread::spawn(move || {
        for line in BufReader::new(banner).lines().map_while(Result::ok) {
            if node.hear(&line) {
                drop(ready.send(node.clone()));
            }
        }
        // Before `ready` goes: that a node has ended is what there is to say, not that it was not ready.
        drop(tell.send(News::Ended(node.name)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_tells_where_a_node_is() {
        let banner = "\
node      node1@127.0.0.1   (new data directory /tmp/x)
guest     hits 0.1.0  sha256 9f2c  vnode:host@0.1.0  2 commands: INCR COUNT
resp      127.0.0.1:7379     try: redis-cli -p 7379 vnode.help
http      http://127.0.0.1:7380   dashboard, /metrics, /v1
peer      127.0.0.1:7381
ready     64/64 vnodes in 12 ms";
        let mut node = Started::default();
        let heard: Vec<bool> = banner.lines().map(|line| node.hear(line)).collect();
        assert_eq!(heard, [false, false, false, false, false, true]);
        assert_eq!(node.port(), "7379");
        assert_eq!(node.http, "http://127.0.0.1:7380");
    }
}
