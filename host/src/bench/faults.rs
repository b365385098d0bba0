//! What goes wrong on purpose while a run lasts: `10s:kill node2`.

use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use super::client::NodeFacts;

/// One thing that is done at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From the start of the run.
    pub at: Duration,
    /// What is done.
    pub action: Action,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A signal to a node of this machine: `KILL`, `STOP` or `CONT`.
    Signal(&'static str, String),
    /// A line for the shell, which nobody waits for.
    Run(String),
}

/// What was done, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// From the start of the run.
    pub(crate) at: Duration,
    /// As on the graphs.
    pub(crate) label: String,
    /// Why it did not work.
    pub(crate) error: Option<String>,
}

/// The grammar, for errors.
const FORM: &str = "write it as TIME:kill NODE, TIME:stop NODE, TIME:cont NODE or TIME:run COMMAND, such as \"10s:kill node2\"";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; {FORM}");
        let (time, action) = text
            .split_once(':')
            .ok_or_else(|| wrong("there is no time"))?;
        let at = humantime::parse_duration(time.trim())
            .map_err(|error| wrong(&format!("{time:?} is no time: {error}")))?;
        let (word, rest) = action
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((action.trim(), ""));
        let rest = rest.trim().to_owned();
        if rest.is_empty() {
            return Err(wrong("it does not say to whom or what"));
        }
        let action = match word {
            "kill" => Action::Signal("KILL", rest),
            "stop" => Action::Signal("STOP", rest),
            "cont" => Action::Signal("CONT", rest),
            "run" => Action::Run(rest),
            _ => return Err(wrong(&format!("{word:?} is nothing that can be done"))),
        };
        Ok(Self { at, action })
    }
}

impl Fault {
    /// In a few words.
    pub(crate) fn label(&self) -> String {
        match &self.action {
            Action::Signal(signal, node) => format!("{} {node}", signal.to_lowercase()),
            Action::Run(line) => line.clone(),
        }
    }

    /// Whether it can be done to these nodes.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, nodes: &[NodeFacts]) -> Result<(), String> {
        match &self.action {
            Action::Signal(_, node) => process(nodes, node).map(drop),
            Action::Run(_) => Ok(()),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// Why it did not work.
    pub(crate) fn act(&self, nodes: &[NodeFacts]) -> Result<(), String> {
        match &self.action {
            Action::Signal(signal, node) => send(signal, process(nodes, node)?),
            Action::Run(line) => start(line),
        }
    }
}

/// The process of a node: by its name, by what stands before its `@`, or by its address.
fn process(nodes: &[NodeFacts], wanted: &str) -> Result<u32, String> {
    let is = |node: &&NodeFacts| {
        let name = node.name.as_deref().unwrap_or_default();
        let short = name.split('@').next().unwrap_or_default();
        wanted == name || wanted == node.address || (!short.is_empty() && wanted == short)
    };
    let found: Vec<&NodeFacts> = nodes.iter().filter(is).collect();
    match found.as_slice() {
        [node] => node.process_id.ok_or_else(|| {
            format!("{wanted} does not run on this machine, so no signal reaches it")
        }),
        [] => {
            let name = |node: &NodeFacts| node.name.clone().unwrap_or_else(|| node.address.clone());
            let names: Vec<String> = nodes.iter().map(name).collect();
            Err(format!(
                "there is no node {wanted:?} among {}",
                names.join(", ")
            ))
        }
        _ => Err(format!(
            "{wanted:?} may be any of {} nodes; write the whole name",
            found.len()
        )),
    }
}

fn send(signal: &str, process: u32) -> Result<(), String> {
    let output = Command::new("kill")
        .args([&format!("-{signal}"), &process.to_string()])
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("kill does not run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// In a group of its own: Ctrl-C ends the run and not what was started.
fn start(line: &str) -> Result<(), String> {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .spawn()
        .map(drop)
        .map_err(|error| format!("sh does not run: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, process_id: Option<u32>) -> NodeFacts {
        NodeFacts {
            address: format!("{name}:7379"),
            name: Some(format!("{name}@test")),
            version: None,
            process_id,
        }
    }

    #[test]
    fn a_fault_is_a_time_and_what_is_done() {
        let signal = |signal, node: &str| Action::Signal(signal, node.into());
        for (text, seconds, action, label) in [
            ("10s:kill node2", 10, signal("KILL", "node2"), "kill node2"),
            (
                "1m 5s: stop  a@b:1 ",
                65,
                signal("STOP", "a@b:1"),
                "stop a@b:1",
            ),
            ("0s:cont a", 0, signal("CONT", "a"), "cont a"),
            (
                "3s:run host --vnode kv &",
                3,
                Action::Run("host --vnode kv &".into()),
                "host --vnode kv &",
            ),
        ] {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(
                fault,
                Fault {
                    at: Duration::from_secs(seconds),
                    action
                },
                "{text}"
            );
            assert_eq!(fault.label(), label);
        }
    }

    #[test]
    fn what_is_no_fault_is_refused_with_the_form() {
        for (text, why) in [
            ("kill node2", "there is no time"),
            ("soon:kill a", "\"soon\" is no time"),
            ("1s:kill", "does not say to whom"),
            ("1s:run ", "does not say to whom"),
            ("1s:hug a", "\"hug\" is nothing that can be done"),
            ("", "there is no time"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(
                error.contains(why) && error.contains("10s:kill node2"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_node_is_found_by_name_short_name_or_address() {
        let nodes = [node("a", Some(1)), node("b", Some(2)), node("far", None)];
        for wanted in ["b", "b@test", "b:7379"] {
            assert_eq!(process(&nodes, wanted), Ok(2), "{wanted}");
        }
        assert!(
            process(&nodes, "far")
                .unwrap_err()
                .contains("does not run on this machine")
        );
        assert_eq!(
            process(&nodes, "c").unwrap_err(),
            "there is no node \"c\" among a@test, b@test, far@test"
        );
        let twins = [node("a", Some(1)), node("a", Some(2))];
        assert!(process(&twins, "a").unwrap_err().contains("any of 2 nodes"));
    }
}
