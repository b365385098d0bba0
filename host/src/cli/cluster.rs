//! `host cluster`: which command goes where, and the member table, as the tutorials show it.

use serde::Deserialize;

use super::changes::{self, Change};
use super::output::Session;
use super::report::Exit;
use super::table::{banner, count, percent};
use super::{args, plan, wait};

/// Columns of the tutorials' table.
const WIDTH: usize = 79;
/// The weight of a member that says nothing of it.
const WEIGHT: u16 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    as_seen_by: Option<String>,
    epoch: u64,
    ready: Option<bool>,
    claimant: Option<String>,
    members: Vec<Member>,
    staged: Vec<Change>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    status: String,
    up: Option<bool>,
    ring_share: f64,
    pending_share: Option<f64>,
    location: Option<String>,
    weight: Option<u16>,
}

/// Any command about the cluster.
pub(super) fn run(session: &mut Session<'_>, command: &args::Cluster) -> anyhow::Result<Exit> {
    if let Some(wish) = changes::wish(command) {
        return changes::stage(session, &wish);
    }
    match command {
        args::Cluster::Plan => plan::show(session),
        args::Cluster::Commit(commit) => plan::commit(session, commit),
        args::Cluster::Clear => changes::clear(session),
        args::Cluster::Wait { goal } => wait::wait(session, *goal),
        _ => status(session),
    }
}

/// Members with their share of the ring.
fn status(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/cluster", &[])?;
    if session.wants_json() {
        session.print_json(&body)?;
        return Ok(Exit::Ok);
    }
    let view: View = client.view(body)?;
    session.print(&text(&view))?;
    Ok(Exit::Ok)
}

fn text(view: &View) -> String {
    let mut text = heading(view);
    text.push_str(&banner("Membership", WIDTH));
    text.push_str("Status     Ring    Pending    Node\n");
    text.push_str(&format!("{}\n", "-".repeat(WIDTH)));
    for member in &view.members {
        let moves = member
            .pending_share
            .filter(|pending| (pending - member.ring_share).abs() > 1e-9);
        let pending = moves.map_or_else(
            || "  --  ".to_owned(),
            |share| format!("{}%", percent(share)),
        );
        let notes = notes(view, member);
        let ring = percent(member.ring_share);
        text.push_str(&format!(
            "{:<8}  {ring}%    {pending}    '{}'{notes}\n",
            member.status, member.name
        ));
    }
    text.push_str(&format!("{}\n", "-".repeat(WIDTH)));
    let of = |status| {
        view.members
            .iter()
            .filter(|member| member.status == status)
            .count()
    };
    text.push_str(&format!(
        "Valid:{} / Leaving:{} / Exiting:{} / Joining:{} / Down:{}\n",
        of("valid"),
        of("leaving"),
        of("exiting"),
        of("joining"),
        of("down")
    ));
    if !view.staged.is_empty() {
        let changes = count(view.staged.len(), "staged change");
        text.push_str(&format!("{changes}, not committed:\n"));
        for change in &view.staged {
            text.push_str(&format!("  {change}\n"));
        }
        text.push_str("Look at them with:  host cluster plan\n");
    }
    text
}

/// Whose view it is; nothing for a node that does not say.
fn heading(view: &View) -> String {
    let Some(node) = &view.as_seen_by else {
        return String::new();
    };
    let ready = match view.ready {
        Some(true) => ", ready",
        Some(false) => ", not ready",
        None => "",
    };
    format!("as seen by {node}, ring v{}{ready}\n", view.epoch)
}

/// What is out of the ordinary about a member.
fn notes(view: &View, member: &Member) -> String {
    let mut notes = String::new();
    if view.claimant.as_ref() == Some(&member.name) {
        notes.push_str(" (C)");
    }
    if member.up == Some(false) && member.status != "down" {
        notes.push_str(" unreachable");
    }
    if let Some(location) = &member.location {
        notes.push_str(&format!(" in {location}"));
    }
    if let Some(weight) = member.weight.filter(|weight| *weight != WEIGHT) {
        notes.push_str(&format!(" weight {weight}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::FakeNode;
    use super::*;

    fn member(name: &str, ring_share: f64, pending_share: Option<f64>) -> Member {
        Member {
            name: name.into(),
            status: "valid".into(),
            up: Some(true),
            ring_share,
            pending_share,
            ..Member::default()
        }
    }

    #[test]
    fn the_table_is_that_of_the_tutorial() {
        let members = vec![
            member("node1@127.0.0.1", 0.375, None),
            member("node2@127.0.0.1", 0.3125, Some(0.3125)),
            member("node3@127.0.0.1", 0.3125, None),
        ];
        let view = View {
            members,
            ..View::default()
        };
        assert_eq!(
            text(&view),
            "\
================================= Membership ==================================
Status     Ring    Pending    Node
-------------------------------------------------------------------------------
valid      37.5%      --      'node1@127.0.0.1'
valid      31.3%      --      'node2@127.0.0.1'
valid      31.3%      --      'node3@127.0.0.1'
-------------------------------------------------------------------------------
Valid:3 / Leaving:0 / Exiting:0 / Joining:0 / Down:0
"
        );
    }

    #[test]
    fn shares_that_change_and_members_that_are_away_show() {
        let away = Member {
            up: Some(false),
            ..member("b", 1.0, Some(0.5))
        };
        let view = View {
            claimant: Some("b".into()),
            members: vec![away],
            ..View::default()
        };
        let text = text(&view);
        assert!(
            text.contains("valid     100.0%     50.0%    'b' (C) unreachable\n"),
            "{text}"
        );
    }

    #[test]
    fn staged_changes_are_listed_below_the_table() {
        let body = json!({
            "as_seen_by": "a", "cluster": "c1", "epoch": 7, "claimant": "a", "ring_size": 64, "n": 3, "ready": true,
            "members": [
                {"name": "a", "status": "valid", "up": true, "ring_share": 1.0, "pending_share": null, "partitions": 64,
                 "next_partitions": 64, "location": "rack1", "weight": 100, "addresses": {}, "guests": []},
                {"name": "b", "status": "joining", "up": true, "ring_share": 0.0, "pending_share": null, "partitions": 0,
                 "next_partitions": 0, "location": null, "weight": 200, "addresses": {}, "guests": []},
            ],
            "staged": [{"action": "join", "node": "b"}, {"action": "location", "node": "a", "location": null}],
        });
        let node = FakeNode::with(std::slice::from_ref(&body));
        let (exit, output, asked) = node.run("host cluster status");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(asked, [("GET /v1/cluster".into(), String::new())]);
        assert_eq!(
            output,
            "\
as seen by a, ring v7, ready
================================= Membership ==================================
Status     Ring    Pending    Node
-------------------------------------------------------------------------------
valid     100.0%      --      'a' (C) in rack1
joining     0.0%      --      'b' weight 200
-------------------------------------------------------------------------------
Valid:1 / Leaving:0 / Exiting:0 / Joining:1 / Down:0
2 staged changes, not committed:
  + join b
  ~ location a none
Look at them with:  host cluster plan
"
        );
        let node = FakeNode::with(std::slice::from_ref(&body));
        let (_, output, _) = node.run("host cluster status --format json");
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), body);
    }
}
