//! `host transfers`: the partitions that are on their way, and why they are not there yet.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::args;
use super::output::Session;
use super::report::Exit;
use super::table::{Table, count, optional, size};

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
    limits: Limits,
}

/// What holds on the node that was asked.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Limits {
    r#in: Option<u16>,
    out: Option<u16>,
    bytes_per_second: Option<u64>,
    paused: bool,
}

impl Limits {
    /// `limit 2 in, 2 out, 20.0 MiB/s`; nothing if nothing is known.
    fn text(&self) -> String {
        let count = |number: Option<u16>, way| number.map(|number| format!("{number} {way}"));
        let rate = self.bytes_per_second.filter(|bytes| *bytes > 0);
        let rate = rate.map(|bytes| format!("{}/s", size(bytes)));
        let parts = [count(self.r#in, "in"), count(self.out, "out"), rate];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => String::new(),
            false => format!("limit {}", parts.join(", ")),
        }
    }
}

/// One partition on its way.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Transfer {
    /// None for hints, which have no attempts.
    id: Option<u64>,
    pub(super) kind: String,
    /// None for a node that divides its own rows.
    partition: Option<u32>,
    pub(super) from: String,
    pub(super) to: String,
    state: String,
    phase: Option<String>,
    done_ratio: Option<f64>,
    objects: Option<u64>,
    rate_bytes_per_second: Option<f64>,
    eta_seconds: Option<f64>,
    since: Option<String>,
    next_try: Option<String>,
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

/// Limits, holds or repairs.
pub(super) fn say(session: &mut Session<'_>, command: &args::Transfers) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let (path, body) = match command {
        args::Transfers::Limit {
            n,
            inbound,
            out,
            rate,
            here,
        } => {
            let body = json!({
                "in": inbound.or(*n), "out": out.or(*n),
                "bytes_per_second": rate.map(|rate| rate.as_u64()), "here": here,
            });
            ("limit", body)
        }
        args::Transfers::Pause { here } => ("pause", json!({ "here": here })),
        args::Transfers::Resume { here } => ("resume", json!({ "here": here })),
        args::Transfers::Repair { partition } => ("repair", json!({ "partition": partition })),
    };
    let answer = client.post(&format!("/v1/transfers/{path}"), &body)?;
    if session.wants_json() {
        session.print_json(&answer)?;
        return Ok(Exit::Ok);
    }
    let list: Transfers = client.view(answer.clone())?;
    let text = match command {
        args::Transfers::Repair { partition } => {
            let node = answer.get("node").and_then(Value::as_str);
            let node = node.unwrap_or("its owner");
            format!(
                "{node} repairs partition {partition}; `host transfers --watch` shows how far it is\n"
            )
        }
        _ if list.limits.paused => "transfers are paused\n".into(),
        _ => format!("transfers go on, {}\n", list.limits.text()),
    };
    session.print(&text)?;
    Ok(Exit::Ok)
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
        ">RATE",
        ">ETA",
        "SINCE",
        "REASON",
    ]);
    for transfer in &list.transfers {
        let phase = transfer
            .phase
            .as_ref()
            .filter(|_| transfer.state == "running");
        let rate = transfer.rate_bytes_per_second.filter(|rate| *rate >= 1.0);
        let next_try = transfer.next_try.as_deref().map(clock);
        table.row([
            optional(transfer.id),
            transfer.kind.clone(),
            optional(transfer.partition),
            format!("{} -> {}", transfer.from, transfer.to),
            phase.unwrap_or(&transfer.state).clone(),
            transfer
                .done_ratio
                .map(|ratio| format!("{:.0}%", ratio * 100.0))
                .unwrap_or_default(),
            optional(transfer.objects),
            rate.map(|rate| format!("{}/s", size(whole(rate))))
                .unwrap_or_default(),
            optional(transfer.eta_seconds.map(|eta| format!("{eta:.0}s"))),
            transfer.since.as_deref().map(clock).unwrap_or_default(),
            match (&transfer.reason, next_try) {
                (Some(reason), Some(next)) => format!("{reason}; next try at {next}"),
                (reason, _) => reason.clone().unwrap_or_default(),
            },
        ]);
    }
    let mut head = vec![
        count(list.transfers.len(), "transfer"),
        format!("{} running", list.running),
    ];
    if list.limits.paused {
        head.push("paused".into());
    }
    let limits = list.limits.text();
    head.extend((!limits.is_empty()).then_some(limits));
    format!("{}\n{table}", head.join(", "))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is at least one, and for people"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

/// The time of day in a time as RFC 3339 has it, to the second.
fn clock(time: &str) -> String {
    let day = time.split_once('T').map_or(time, |(_, day)| day);
    day.split(['.', 'Z']).next().unwrap_or(day).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::FakeNode;
    use super::*;

    fn three() -> Value {
        json!({"running": 1, "limits": {"in": 2, "out": 2, "bytes_per_second": 1 << 20, "paused": false}, "transfers": [
            {"id": 118, "kind": "ownership", "service": null, "partition": 17, "from": "a", "to": "b", "state": "running",
             "phase": "copying", "done_ratio": 0.61, "objects": 1204, "rate_bytes_per_second": 9_542_042.0, "eta_seconds": 4.2,
             "since": "2026-11-22T18:36:56.120Z", "next_try": null, "reason": null},
            {"id": 7, "kind": "ownership", "partition": 3, "from": "a", "to": "c", "state": "waiting", "phase": "waiting",
             "done_ratio": 0.0, "objects": null, "reason": "c: it receives 2 of 2 at once", "since": "2026-11-22T18:36:58.000Z",
             "next_try": "2026-11-22T18:37:00.500Z"},
            {"id": null, "kind": "hinted", "service": "kv", "partition": 5, "from": "a", "to": "d", "state": "waiting",
             "done_ratio": 0.0, "objects": 12, "bytes": 400, "reason": "d is not up"},
        ]})
    }

    const THREE: &str = "\
3 transfers, 1 running, limit 2 in, 2 out, 1.0 MiB/s
 ID  KIND       PARTITION  FROM -> TO  STATE    DONE  OBJECTS       RATE  ETA  SINCE     REASON
118  ownership         17  a -> b      copying   61%     1204  9.1 MiB/s   4s  18:36:56  -
  7  ownership          3  a -> c      waiting    0%        -          -    -  18:36:58  c: it receives 2 of 2 at once; next try at 18:37:00
  -  hinted             5  a -> d      waiting    0%       12          -    -  -         d is not up
";

    #[test]
    fn what_an_operator_says_is_sent_and_what_holds_then_is_shown() {
        let limits = json!({"limits": {"in": 4, "out": 2, "bytes_per_second": 0, "paused": false}});
        let node = FakeNode::with(std::slice::from_ref(&limits));
        let (exit, output, asked) = node.run("host transfers limit --in 4 --rate 0 --here");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "transfers go on, limit 4 in, 2 out\n");
        assert_eq!(asked[0].0, "POST /v1/transfers/limit");
        let sent: Value = serde_json::from_str(&asked[0].1).unwrap();
        assert_eq!(
            sent,
            json!({"in": 4, "out": null, "bytes_per_second": 0, "here": true})
        );
        let paused = json!({"limits": {"paused": true}});
        let (_, output, asked) = FakeNode::with(&[paused]).run("host transfers pause");
        assert_eq!(output, "transfers are paused\n");
        assert_eq!(asked[0].0, "POST /v1/transfers/pause");
        let (_, output, _) =
            FakeNode::with(&[json!({"node": "b"})]).run("host transfers repair 17");
        assert!(output.starts_with("b repairs partition 17"), "{output}");
    }

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
