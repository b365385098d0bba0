//! `host status` and `host node drain`: how the node is, and asking it to stop taking work.

use serde::Deserialize;
use serde_json::json;

use super::output::Session;
use super::report::Exit;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    verdict: String,
    problems: Vec<Problem>,
    as_seen_by: String,
    epoch: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    text: String,
    since: Option<String>,
    hint: Option<String>,
}

/// Verdict and problems; the exit code says whether all is well.
pub(super) fn status(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let client = session.client()?;
    let body = client.get("/v1/status", &[])?;
    let status: Status = client.view(body.clone())?;
    let well = status.verdict == "ok";
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        let text = text(session, &status, well);
        session.print(&text)?;
    }
    Ok(if well { Exit::Ok } else { Exit::Unhealthy })
}

fn text(session: &Session<'_>, status: &Status, well: bool) -> String {
    let verdict = status.verdict.to_uppercase();
    let verdict = if well {
        session.good(&verdict)
    } else {
        session.bad(&verdict)
    };
    let problems = match (status.problems.len(), status.verdict.as_str()) {
        (0, "ok" | "degraded") => "serving, no problems".to_owned(),
        (0, _) => "not serving".to_owned(),
        (1, "down") => "not serving, 1 problem".to_owned(),
        (count, "down") => format!("not serving, {count} problems"),
        (1, _) => "serving, 1 problem".to_owned(),
        (count, _) => format!("serving, {count} problems"),
    };
    let mut text = format!(
        "{verdict}  {problems}   as seen by {}, ring v{}\n",
        status.as_seen_by, status.epoch
    );
    for problem in &status.problems {
        let since = problem
            .since
            .as_ref()
            .map(|since| format!(" (since {since})"));
        text.push_str(&format!(
            " {} {}{}\n",
            session.bad("!"),
            problem.text,
            since.unwrap_or_default()
        ));
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("   {hint}\n"));
        }
    }
    text
}

/// Asks the node to drain.
pub(super) fn drain(session: &mut Session<'_>) -> anyhow::Result<Exit> {
    let body = session.client()?.post("/v1/node/drain", &json!({}))?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        session.print(
            "draining: no new commands, those in flight are finished; ownership stays as it is\n",
        )?;
    }
    Ok(Exit::Ok)
}
