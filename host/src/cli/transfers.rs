//! `host transfers`: the partitions that are on their way, and why they are not there yet.

use std::time::Duration;

use serde::Deserialize;

use super::output::Session;
use super::report::Exit;
use super::table::{Table, count, optional};

/// How often a list that is watched is asked for.
const EVERY: Duration = Duration::from_millis(500);
/// Erases a terminal, so that a list takes the place of the one before.
const ERASE: &str = "\u{1b}[H\u{1b}[2J";

/// The answer of `/v1/transfers`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Transfers {
    running: usize,
    pub(super) transfers: Vec<Transfer>,
}

/// One partition on its way.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Transfer {
    /// None for hints, which have no attempts.
    id: Option<u64>,
    kind: String,
    partition: u32,
    pub(super) from: String,
    pub(super) to: String,
    state: String,
    done_ratio: Option<f64>,
    objects: Option<u64>,
    reason: Option<String>,
}

/// Lists the transfers, and if they are watched, again whenever the list changes, until none is left.
pub(super) fn transfers(session: &mut Session<'_>, watch: bool) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let mut shown = None;
    loop {
        let body = client.get("/v1/transfers", &[])?;
        let list: Transfers = client.view(body.clone())?;
        let left = list.transfers.len();
        if shown.as_ref() != Some(&body) {
            if session.wants_json() {
                session.print_json(&body)?;
            } else {
                let before = match (&shown, watch && session.is_live()) {
                    (_, true) => ERASE,
                    (Some(_), false) => "\n",
                    (None, false) => "",
                };
                session.print(&format!("{before}{}", text(&list)))?;
            }
            session.out.flush()?;
            shown = Some(body);
        }
        if left == 0 || !watch {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(EVERY);
    }
}

fn text(list: &Transfers) -> String {
    if list.transfers.is_empty() {
        return "no transfers\n".into();
    }
    let mut table = Table::new(&[
        ">ID",
        "KIND",
        ">PARTITION",
        "FROM -> TO",
        "STATE",
        ">DONE",
        ">OBJECTS",
        "REASON",
    ]);
    for transfer in &list.transfers {
        table.row([
            optional(transfer.id),
            transfer.kind.clone(),
            transfer.partition.to_string(),
            format!("{} -> {}", transfer.from, transfer.to),
            transfer.state.clone(),
            transfer
                .done_ratio
                .map(|ratio| format!("{:.0}%", ratio * 100.0))
                .unwrap_or_default(),
            optional(transfer.objects),
            transfer.reason.clone().unwrap_or_default(),
        ]);
    }
    let transfers = count(list.transfers.len(), "transfer");
    format!("{transfers}, {} running\n{table}", list.running)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::FakeNode;
    use super::*;

    fn three() -> Value {
        json!({"running": 1, "limits": {}, "transfers": [
            {"id": 118, "kind": "ownership", "service": null, "partition": 17, "from": "a", "to": "b", "state": "running",
             "done_ratio": 0.61, "objects": 1204, "reason": null},
            {"id": 7, "kind": "ownership", "partition": 3, "from": "a", "to": "c", "state": "waiting", "done_ratio": 0.0,
             "objects": null, "reason": "c is unreachable"},
            {"id": null, "kind": "hinted", "service": "kv", "partition": 5, "from": "a", "to": "d", "state": "waiting",
             "done_ratio": 0.0, "objects": 12, "bytes": 400, "reason": "d is not up"},
        ]})
    }

    const THREE: &str = "\
3 transfers, 1 running
 ID  KIND       PARTITION  FROM -> TO  STATE    DONE  OBJECTS  REASON
118  ownership         17  a -> b      running   61%     1204  -
  7  ownership          3  a -> c      waiting    0%        -  c is unreachable
  -  hinted             5  a -> d      waiting    0%       12  d is not up
";

    #[test]
    fn they_are_listed_once() {
        let (exit, output, asked) = FakeNode::with(&[three()]).run("host transfers");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, THREE);
        assert_eq!(asked, [("GET /v1/transfers".into(), String::new())]);
        let (_, output, _) = FakeNode::with(&[three()]).run("host transfers --format json");
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), three());
    }

    #[test]
    fn watching_ends_when_none_is_left() {
        let none = json!({"running": 0, "transfers": [], "limits": {}});
        let node = FakeNode::with(&[three(), three(), none.clone()]);
        let (exit, output, _) = node.run("host transfers --watch");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, format!("{THREE}\nno transfers\n"));
        let (_, output, _) = FakeNode::with(&[none]).run("host transfers --watch");
        assert_eq!(output, "no transfers\n");
    }
}
