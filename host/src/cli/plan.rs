//! `host cluster plan` and `commit`: what the staged changes would do, and doing it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::args::{Commit, Goal};
use super::changes::Change;
use super::output::Session;
use super::report::Exit;
use super::safety::Safety;
use super::table::{Table, percent, size};
use super::wait;

/// The plan that the node has shown last.
const SHOWN: &str = "shown";
/// Pairs of nodes in one line.
const PAIRS: usize = 6;
#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    id: String,
    epoch: u64,
    changes: Vec<Change>,
    members: Vec<Member>,
    transfers: Vec<Pair>,
    warnings: Vec<String>,
    total: Total,
    resize: Option<Copies>,
    safety: Safety,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    status: Option<String>,
    ring_share: f64,
    next_share: f64,
    partitions: usize,
    next_partitions: usize,
}

/// Partitions that go from one node to another.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pair {
    from: String,
    to: String,
    partitions: usize,
    unknown_partitions: usize,
    bytes: u64,
    lossy: bool,
}

/// What each node copies of its own rows, because the ring is resized.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Copies {
    objects: u64,
    bytes: u64,
    estimated_seconds: f64,
}

/// What all that is copied weighs, as far as the owners have said.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Total {
    unknown_partitions: usize,
    objects: u64,
    bytes: u64,
    estimated_seconds: f64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Committed {
    id: String,
    epoch: u64,
}

/// Before and after, what moves, and how safe it is.
pub(super) fn show(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/plan", &[])?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let plan: Plan = client.view(body)?;
    let text = text(session, &plan);
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// Commits a plan, and waits if asked to until it is carried out.
pub(super) fn commit(session: &mut Session<'_>, args: &Commit) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let plan = args.plan.as_deref().unwrap_or(SHOWN);
    let body = client.post(&format!("/v1/plan/{plan}/commit"), &json!({}))?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        let done: Committed = client.view(body)?;
        session.print(&format!(
            "committed plan {} at ring v{}\n",
            done.id, done.epoch
        ))?;
    }
    session.out.flush()?;
    if let Some(limit) = args.wait {
        wait::until(session, client, Goal::Settled, limit)?;
        if !session.wants_json() {
            session.print("settled\n")?;
        }
    }
    Ok(Exit::Ok)
}

fn text(session: &Session<'_>, plan: &Plan) -> String {
    let title = session.strong(&format!("Plan {}", plan.id));
    let mut text = format!(
        "{title} (ring v{}, expires when the ring changes)\n\n",
        plan.epoch
    );
    for change in &plan.changes {
        text.push_str(&format!("  {change}\n"));
    }
    text.push_str(&format!("\n{}\n", members(&plan.members)));
    text.push_str(&transfers(session, &plan.transfers));
    text.push_str(&plan.total.text());
    text.push_str(&plan.resize.as_ref().map(Copies::text).unwrap_or_default());
    let all = plan.members.iter().map(|member| member.next_partitions);
    text.push_str(&plan.safety.text(session, all.sum()));
    for warning in &plan.warnings {
        text.push_str(&format!("{} {warning}\n", session.bad("note:")));
    }
    text.push_str(&format!(
        "\nCommit with:  host cluster commit {}\n",
        plan.id
    ));
    text
}

fn members(members: &[Member]) -> Table {
    let most = members.iter().map(|member| member.partitions).max();
    let width = most.unwrap_or_default().to_string().len();
    let mut table = Table::new(&["NODE", ">NOW", ">AFTER", "PARTITIONS", "STATUS"]).indented(2);
    for member in members {
        table.row([
            member.name.clone(),
            format!("{}%", percent(member.ring_share)),
            format!("{}%", percent(member.next_share)),
            format!(
                "{:>width$} -> {}",
                member.partitions, member.next_partitions
            ),
            member.status.clone().unwrap_or_else(|| "gone".into()),
        ]);
    }
    table
}

impl Pair {
    /// `a -> b 21 (1.2 MiB)`; without the size when nothing is held, or nobody says.
    fn text(&self) -> String {
        let text = format!("{} -> {} {}", self.from, self.to, self.partitions);
        match self.bytes {
            0 => text,
            bytes if self.unknown_partitions > 0 => format!("{text} (over {})", size(bytes)),
            bytes => format!("{text} ({})", size(bytes)),
        }
    }
}

impl Copies {
    fn text(&self) -> String {
        format!(
            "  Copies:    {} in {} objects that stay on their nodes, about {:.0}s; commands go on\n",
            size(self.bytes),
            self.objects,
            self.estimated_seconds.max(1.0)
        )
    }
}

impl Total {
    fn text(&self) -> String {
        let mut text = match self.bytes {
            0 => String::new(),
            bytes => {
                // To whole seconds, up: nobody plans in less.
                let seconds = Duration::from_secs_f64(self.estimated_seconds.clamp(0.0, 1e9));
                let seconds = seconds.as_millis().div_ceil(1000).max(1);
                let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
                format!(
                    "  Data:      {} in {} objects, about {}\n",
                    size(bytes),
                    self.objects,
                    humantime::format_duration(time)
                )
            }
        };
        if self.unknown_partitions > 0 {
            text.push_str(&format!(
                "  Unknown:   what {} of them hold, as their owners do not answer\n",
                self.unknown_partitions
            ));
        }
        text
    }
}

/// What is copied from node to node, then what is given up.
fn transfers(session: &Session<'_>, pairs: &[Pair]) -> String {
    let (lossy, copied): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(|pair| pair.lossy);
    let total: usize = copied.iter().map(|pair| pair.partitions).sum();
    let lines: Vec<String> = copied
        .chunks(PAIRS)
        .map(|line| {
            let line: Vec<String> = line.iter().map(|pair| pair.text()).collect();
            line.join(", ")
        })
        .collect();
    let text = format!("  Transfers: {total}   {}", lines.join(",\n             "));
    let mut text = format!("{}\n", text.trim_end());
    for pair in lossy {
        text.push_str(&format!(
            "  {} {} -> {} {}: at once and without data, the replicas on {} are given up\n",
            session.bad("!"),
            pair.from,
            pair.to,
            pair.partitions,
            pair.from
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::testing::FakeNode;
    use super::super::{exit_of, render};
    use super::*;

    fn grown() -> Value {
        let member = |name: &str, now: u32, next: u32| {
            json!({"name": name, "status": "valid", "ring_share": f64::from(now) / 64.0, "next_share": f64::from(next) / 64.0,
                "partitions": now, "next_partitions": next})
        };
        let spread = json!({"wanted": 3, "bad": [62, 63], "unavoidable": 2, "bad_after_loss": 64});
        json!({
            "id": "1a2b3c4d", "epoch": 7,
            "changes": [{"action": "join", "node": "b"}, {"action": "join", "node": "c"}],
            "members": [member("a", 64, 22), member("b", 0, 21), member("c", 0, 21)],
            "transfers": [{"from": "a", "to": "b", "partitions": 21, "lossy": false, "bytes": 2_097_152},
                          {"from": "a", "to": "c", "partitions": 21, "lossy": false, "bytes": 2_097_152}],
            "total": {"partitions": 42, "unknown_partitions": 0, "objects": 9000, "bytes": 4_194_304,
                "estimated_seconds": 83.1, "rate_bytes_per_second": 50_000},
            "moves": [{"partition": 1, "from": "a", "to": "b", "lossy": false}],
            "safety": {"n": 3, "nodes": spread, "locations": spread, "cures": ["1 more node", "n=2"]},
        })
    }

    /// The text of a plan that differs in some keys.
    fn changed(change: impl FnOnce(&mut Value)) -> String {
        let mut plan = grown();
        change(&mut plan);
        FakeNode::with(&[plan]).run("host cluster plan").1
    }

    #[test]
    fn a_plan_shows_before_and_after_and_what_stays_unsafe() {
        let (exit, output, asked) = FakeNode::with(&[grown()]).run("host cluster plan");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(asked, [("GET /v1/plan".into(), String::new())]);
        assert_eq!(
            output,
            "\
Plan 1a2b3c4d (ring v7, expires when the ring changes)

  + join b
  + join c

  NODE     NOW   AFTER  PARTITIONS  STATUS
  a     100.0%   34.4%  64 -> 22    valid
  b       0.0%   32.8%   0 -> 21    valid
  c       0.0%   32.8%   0 -> 21    valid

  Transfers: 42   a -> b 21 (2.0 MiB), a -> c 21 (2.0 MiB)
  Data:      4.0 MiB in 9000 objects, about 1m 24s
  Replicas:  n=3 on distinct nodes for 62 of 64 partitions
  ! partitions 62, 63 keep two or more replicas on one node, unavoidable with these members; 1 more node or n=2 would fix this

Commit with:  host cluster commit 1a2b3c4d
"
        );
        let (_, output, _) = FakeNode::with(&[grown()]).run("host cluster plan --format json");
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), grown());
    }

    #[test]
    fn what_is_given_up_is_marked() {
        let text = changed(|plan| {
            plan["changes"] = json!([{"action": "force-replace", "node": "a", "by": "d"}]);
            plan["members"][0]["status"] = Value::Null;
            plan["transfers"] = json!([{"from": "a", "to": "d", "partitions": 64, "lossy": true}]);
            plan["total"] = json!({"bytes": 0});
        });
        assert!(text.contains("\n  ~ force-replace a by d\n"), "{text}");
        assert!(text.contains("  64 -> 22    gone\n"), "{text}");
        assert!(
            text.contains("  Transfers: 0\n  ! a -> d 64: at once and without data, the replicas on a are given up\n"),
            "{text}"
        );
    }

    #[test]
    fn what_nobody_says_is_said_to_be_unknown() {
        let text = changed(|plan| {
            plan["transfers"][1]["unknown_partitions"] = json!(20);
            plan["total"]["unknown_partitions"] = json!(20);
        });
        assert!(
            text.contains("a -> b 21 (2.0 MiB), a -> c 21 (over 2.0 MiB)\n"),
            "{text}"
        );
        let unknown = "  Unknown:   what 20 of them hold, as their owners do not answer\n";
        assert!(text.contains(unknown), "{text}");
        let none = changed(|plan| plan["total"] = json!({"bytes": 0, "unknown_partitions": 0}));
        assert!(
            !none.contains("Data:") && !none.contains("Unknown:"),
            "{none}"
        );
    }

    #[test]
    fn many_pairs_take_many_lines() {
        let pairs = vec![json!({"from": "a", "to": "b", "partitions": 1}); 7];
        let text = changed(|plan| plan["transfers"] = json!(pairs));
        let line = "a -> b 1, ".repeat(6);
        let expected = format!(
            "  Transfers: 7   {},\n             a -> b 1\n",
            line.trim_end_matches(", ")
        );
        assert!(text.contains(&expected), "{text}");
    }

    #[test]
    fn a_commit_names_its_plan() {
        let answer = json!({"id": "1a2b3c4d", "epoch": 8});
        for (line, path) in [("commit 1a2b3c4d", "1a2b3c4d"), ("commit", "shown")] {
            let node = FakeNode::with(std::slice::from_ref(&answer));
            let (exit, output, asked) = node.run(&format!("host cluster {line}"));
            assert_eq!(exit.unwrap(), Exit::Ok);
            assert_eq!(output, "committed plan 1a2b3c4d at ring v8\n");
            assert_eq!(
                asked,
                [(format!("POST /v1/plan/{path}/commit"), "{}".into())]
            );
        }
        let node = FakeNode::with(std::slice::from_ref(&answer));
        let (_, output, _) = node.run("host cluster commit --format json");
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), answer);
    }

    #[test]
    fn a_commit_waits_if_asked_to() {
        let answer = json!({"id": "1a2b3c4d", "epoch": 8});
        let cluster = |ready: bool| json!({"ring_size": 64, "ready": ready, "members": []});
        let moves =
            |count: usize| json!({"transfers": vec![json!({"from": "a", "to": "b"}); count]});
        let all = [
            answer.clone(),
            cluster(false),
            moves(21),
            cluster(false),
            moves(3),
            cluster(true),
        ];
        let (exit, output, _) = FakeNode::with(&all).run("host cluster commit --wait 1m");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(
            output,
            "committed plan 1a2b3c4d at ring v8\n21 of 64 partitions still move: a -> b 21\n\
             3 of 64 partitions still move: a -> b 3\nsettled\n"
        );
        let line = "host cluster commit --wait 1m --format json";
        let (_, output, _) = FakeNode::with(&all).run(line);
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), answer);

        let node = FakeNode::with(&[answer, cluster(false), moves(12)]);
        let (exit, output, _) = node.run("host cluster commit --wait 0s");
        assert!(output.starts_with("committed plan 1a2b3c4d"), "{output}");
        let error = exit.unwrap_err();
        assert_eq!(exit_of(&error), Exit::WaitRanOut);
        assert!(render(&error).contains("12 of 64 partitions still move: a -> b 12\n"));
    }

    #[test]
    fn stale_plans_and_empty_ones_are_refused() {
        for line in ["plan", "commit", "commit 1a2b3c4d --wait 1m"] {
            let problem = json!({"status": 409, "detail": "it is stale", "hint": null}).to_string();
            let node = FakeNode::answering(vec![(409, problem)]);
            let error = node.run(&format!("host cluster {line}")).0.unwrap_err();
            assert_eq!(render(&error), "error: it is stale");
            assert_eq!(exit_of(&error), Exit::Refused);
        }
    }
}
