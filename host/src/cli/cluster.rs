//! `host cluster status`: the member table, as the tutorials show it.

use serde::Deserialize;

use super::output::Session;
use super::report::Exit;
use super::table::{banner, percent};

/// Columns of the tutorials' table.
const WIDTH: usize = 79;

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    claimant: Option<String>,
    members: Vec<Member>,
    staged: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    status: String,
    up: Option<bool>,
    ring_share: f64,
    pending_share: Option<f64>,
}

/// Members with their share of the ring.
pub(super) fn status(session: &mut Session<'_>) -> anyhow::Result<Exit> {
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
    let mut text = banner("Membership", WIDTH);
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
        let mut notes = String::new();
        if view.claimant.as_ref() == Some(&member.name) {
            notes.push_str(" (C)");
        }
        if member.up == Some(false) && member.status != "down" {
            notes.push_str(" unreachable");
        }
        let ring = percent(member.ring_share);
        text.push_str(&format!(
            "{:<8}  {ring}%    {pending}    '{}'{notes}\n",
            member.status, member.name
        ));
    }
    text.push_str(&format!("{}\n", "-".repeat(WIDTH)));
    let count = |status| {
        view.members
            .iter()
            .filter(|member| member.status == status)
            .count()
    };
    text.push_str(&format!(
        "Valid:{} / Leaving:{} / Exiting:{} / Joining:{} / Down:{}\n",
        count("valid"),
        count("leaving"),
        count("exiting"),
        count("joining"),
        count("down")
    ));
    if !view.staged.is_empty() {
        text.push_str(&format!(
            "{} staged changes, not committed\n",
            view.staged.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, ring_share: f64, pending_share: Option<f64>) -> Member {
        Member {
            name: name.into(),
            status: "valid".into(),
            up: Some(true),
            ring_share,
            pending_share,
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
            staged: vec![serde_json::json!({})],
        };
        let text = text(&view);
        assert!(
            text.contains("valid     100.0%     50.0%    'b' (C) unreachable\n"),
            "{text}"
        );
        assert!(
            text.ends_with("1 staged changes, not committed\n"),
            "{text}"
        );
    }
}
