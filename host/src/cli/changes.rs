//! Changes of the cluster: how they are staged, forgotten, and put in words.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use super::args;
use super::output::Session;
use super::report::Exit;

/// How a location that is none is written.
const NOWHERE: &str = "none";

/// A change that waits for its commit; the same keys in every answer that has one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Change {
    action: String,
    node: String,
    by: Option<String>,
    location: Option<String>,
    weight: Option<u16>,
    ring_size: Option<u16>,
    epoch: Option<u64>,
    /// Its join was taken back.
    withdrawn: bool,
    /// It ends, whether or not the cluster knows.
    gives_up: bool,
}

impl fmt::Display for Change {
    /// `+` comes, `-` goes, `~` changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, node, .. } = self;
        let mark = match action.as_str() {
            "join" => '+',
            "leave" | "force-remove" => '-',
            _ => '~',
        };
        if let Some(partitions) = self.ring_size {
            return write!(f, "{mark} {action} the ring to {partitions} partitions");
        }
        write!(f, "{mark} {action} {node}")?;
        if let Some(by) = &self.by {
            write!(f, " by {by}")?;
        }
        match (action.as_str(), &self.location, self.weight) {
            ("location", place, _) => write!(f, " {}", place.as_deref().unwrap_or(NOWHERE)),
            (_, _, Some(weight)) => write!(f, " {weight}"),
            _ => Ok(()),
        }
    }
}

/// What a command asks of `POST /v1/changes`, if it is one that changes something.
pub(super) fn wish(command: &args::Cluster) -> Option<Value> {
    use args::Cluster;
    Some(match command {
        Cluster::Join { address } => json!({ "action": "join", "address": address }),
        Cluster::Leave { node: None } => json!({ "action": "leave" }),
        Cluster::Leave { node: Some(node) } => json!({ "action": "leave", "node": node }),
        Cluster::Replace(args::Pair { old, new }) => {
            json!({ "action": "replace", "node": old, "by": new })
        }
        Cluster::ForceReplace(args::Pair { old, new }) => {
            json!({ "action": "force-replace", "node": old, "by": new })
        }
        Cluster::ForceRemove { node } => json!({ "action": "force-remove", "node": node }),
        Cluster::Down { node } => json!({ "action": "down", "node": node }),
        Cluster::Location { node, place } => {
            let place = Some(place).filter(|place| !place.is_empty() && *place != NOWHERE);
            json!({ "action": "location", "node": node, "location": place })
        }
        Cluster::Weight { node, weight } => {
            json!({ "action": "weight", "node": node, "weight": weight })
        }
        Cluster::Resize { partitions } => json!({ "action": "resize", "ring_size": partitions }),
        Cluster::Status
        | Cluster::Plan
        | Cluster::Commit(_)
        | Cluster::Clear
        | Cluster::Wait { .. } => return None,
    })
}

/// Sends one change.
pub(super) fn stage(session: &mut Session<'_>, wish: &Value) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.post("/v1/changes", wish)?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let change: Change = client.view(body)?;
    let text = match change.action.as_str() {
        "down" => format!(
            "{} is down{}: nobody waits for it; what it owns stays its own\n",
            change.node,
            change
                .epoch
                .map(|epoch| format!(", ring v{epoch}"))
                .unwrap_or_default()
        ),
        _ if change.gives_up => {
            let node = &change.node;
            let listed = match change.withdrawn {
                true => String::new(),
                false => format!(
                    "No member of that cluster answered: if it is listed there, `host cluster leave {node}` takes it off\n"
                ),
            };
            format!(
                "{node} gives up joining and ends; started again, it is a cluster of its own that holds what it held\n{listed}"
            )
        }
        _ if change.withdrawn => format!("{} does not join any more; it ends\n", change.node),
        _ => format!("staged: {change}\nLook at it with:  host cluster plan\n"),
    };
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// Forgets what is staged.
pub(super) fn clear(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let body = session.client()?.delete("/v1/changes")?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        session.print("nothing is staged any more\n")?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeNode;
    use super::super::{exit_of, render};
    use super::*;

    /// Runs a command: what it sent, and what it printed for the answer.
    fn staged(line: &str, answer: Value) -> (Value, String) {
        let (exit, output, asked) = FakeNode::with(&[answer]).run(line);
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(asked[0].0, "POST /v1/changes");
        (serde_json::from_str(&asked[0].1).unwrap(), output)
    }

    #[test]
    fn every_change_is_sent_and_told_in_words() {
        for (line, sent, told) in [
            (
                "join h:1",
                json!({"action": "join", "address": "h:1"}),
                "+ join b",
            ),
            ("leave", json!({"action": "leave"}), "- leave b"),
            (
                "leave b",
                json!({"action": "leave", "node": "b"}),
                "- leave b",
            ),
            (
                "replace b d",
                json!({"action": "replace", "node": "b", "by": "d"}),
                "~ replace b by d",
            ),
            (
                "force-replace b d",
                json!({"action": "force-replace", "node": "b", "by": "d"}),
                "~ force-replace b by d",
            ),
            (
                "force-remove b",
                json!({"action": "force-remove", "node": "b"}),
                "- force-remove b",
            ),
            (
                "location b rack1",
                json!({"action": "location", "node": "b", "location": "rack1"}),
                "~ location b rack1",
            ),
            (
                "location b none",
                json!({"action": "location", "node": "b", "location": null}),
                "~ location b none",
            ),
            (
                "weight b 0",
                json!({"action": "weight", "node": "b", "weight": 0}),
                "~ weight b 0",
            ),
            (
                "resize 32",
                json!({"action": "resize", "ring_size": 32}),
                "~ resize the ring to 32 partitions",
            ),
        ] {
            let mut answer = sent.clone();
            answer["node"] = json!("b");
            answer["staged"] = json!(true);
            let (asked, output) = staged(&format!("host cluster {line}"), answer.clone());
            assert_eq!(asked, sent, "{line}");
            assert_eq!(
                output,
                format!("staged: {told}\nLook at it with:  host cluster plan\n")
            );
            let line = format!("host cluster {line} --format json");
            let (_, output) = staged(&line, answer.clone());
            assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), answer);
        }
    }

    #[test]
    fn an_empty_place_is_none() {
        let command = args::Cluster::Location {
            node: "b".into(),
            place: String::new(),
        };
        let expected = json!({"action": "location", "node": "b", "location": null});
        assert_eq!(wish(&command), Some(expected));
    }

    #[test]
    fn down_is_done_at_once() {
        let answer = json!({"action": "down", "node": "b", "epoch": 9});
        let (asked, output) = staged("host cluster down b", answer);
        assert_eq!(asked, json!({"action": "down", "node": "b"}));
        assert_eq!(
            output,
            "b is down, ring v9: nobody waits for it; what it owns stays its own\n"
        );
    }

    #[test]
    fn a_join_is_taken_back() {
        let answer = json!({"action": "leave", "node": "b", "withdrawn": true, "epoch": 9});
        let (_, output) = staged("host cluster leave b", answer);
        assert_eq!(output, "b does not join any more; it ends\n");
        for (withdrawn, more) in [
            (true, ""),
            (
                false,
                "No member of that cluster answered: if it is listed there, `host cluster leave b` takes it off\n",
            ),
        ] {
            let answer =
                json!({"action": "leave", "node": "b", "gives_up": true, "withdrawn": withdrawn});
            let (_, output) = staged("host cluster leave", answer);
            let ends = "b gives up joining and ends; started again, it is a cluster of its own that holds what it held\n";
            assert_eq!(output, format!("{ends}{more}"));
        }
    }

    #[test]
    fn clear_forgets_all() {
        let answer = json!({"staged": [], "epoch": 9});
        let node = FakeNode::with(std::slice::from_ref(&answer));
        let (exit, output, asked) = node.run("host cluster clear");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "nothing is staged any more\n");
        assert_eq!(asked, [("DELETE /v1/changes".into(), String::new())]);
        let node = FakeNode::with(std::slice::from_ref(&answer));
        let (_, output, _) = node.run("host cluster clear --format json");
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), answer);
    }

    #[test]
    fn refusals_are_the_nodes_words() {
        for (status, exit) in [
            (404, Exit::Failed),
            (409, Exit::Refused),
            (502, Exit::Failed),
            (503, Exit::Failed),
        ] {
            let problem =
                json!({"title": "T", "status": status, "detail": "it cannot be", "hint": "try b"});
            for line in ["leave x", "join h:1", "down x", "clear"] {
                let node = FakeNode::answering(vec![(status, problem.to_string())]);
                let error = node.run(&format!("host cluster {line}")).0.unwrap_err();
                assert_eq!(render(&error), "error: it cannot be\n  next: try b");
                assert_eq!(exit_of(&error), exit, "{status}");
            }
        }
    }
}
