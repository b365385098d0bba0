//! Waiting for the cluster: until no partition moves, or until the node is ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::Goal;
use super::client::{Client, ClientError};
use super::output::{ANSWER, Session};
use super::report::{Exit, Failure};
use super::transfers::{Transfer, Transfers};
use vnode_cluster::raft::voters::VOTERS_MAX;

/// How often the node is asked.
const EVERY: Duration = Duration::from_millis(100);
/// How long `cluster wait` waits when nobody says.
const LIMIT: Duration = Duration::from_secs(60);
/// What the node gets for an answer even if less time is left.
const ANSWER_LEAST: Duration = Duration::from_secs(1);
/// Cells of a bar.
const CELLS: usize = 22;

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    as_seen_by: String,
    ring_size: usize,
    ready: bool,
    members: Vec<Member>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    status: String,
    up: bool,
    /// A node of an older version does not say.
    votes: Option<bool>,
    addresses: Addresses,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Addresses {
    http: String,
}

/// What was found at one look.
enum Look {
    /// It is as it should be; the node's answer.
    Done(Value),
    /// Not yet: why, how many partitions still move, and who else may be asked when the node is gone because it leaves.
    Open {
        why: String,
        moving: usize,
        others: Vec<String>,
    },
}

/// `host cluster wait`.
pub(super) fn wait(session: &mut Session<'_>, goal: Goal) -> anyhow::Result<Exit> {
    let limit = session.timeout().unwrap_or(LIMIT);
    let client = session.client_within(limit.clamp(ANSWER_LEAST, ANSWER))?;
    let body = until(session, client, goal, limit)?;
    if session.wants_json() {
        session.print_json(&body)?;
    } else {
        session.print(&format!("{}\n", goal.word()))?;
    }
    Ok(Exit::Ok)
}

/// Asks again and again until the goal is reached. Shows how far it is, unless JSON is wanted.
pub(super) fn until(
    session: &mut Session<'_>,
    mut client: Client,
    goal: Goal,
    limit: Duration,
) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let mut progress = Progress::new(session.is_live());
    let mut others = Vec::new();
    loop {
        let (why, moving) = match look(&client, goal) {
            Ok(Look::Done(body)) => {
                show(session, &progress.end())?;
                return Ok(body);
            }
            Ok(Look::Open {
                why,
                moving,
                others: more,
            }) => {
                others = more;
                (why, moving)
            }
            Err(error) if error.is_passing() => match others.pop() {
                Some(other) => {
                    client = client.elsewhere(&other)?;
                    (format!("the node has left; {other} is asked"), 0)
                }
                None => (first_line(&error), 0),
            },
            Err(error) => return Err(error.into()),
        };
        show(session, &progress.step(&why, moving))?;
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            show(session, &progress.end())?;
            let limit = humantime::format_duration(limit);
            return Err(
                Failure::ran_out(format!("not {} within {limit}: {why}", goal.word()))
                    .next(goal.next())
                    .into(),
            );
        }
        std::thread::sleep(EVERY.min(left));
    }
}

/// Waits until so many nodes are members, which they are when their joins are committed.
pub(super) fn members(client: &Client, count: usize, limit: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let view = match client.get("/v1/cluster", &[]) {
            Ok(body) => client.view(body)?,
            Err(error) if error.is_passing() => View::default(),
            Err(error) => return Err(error.into()),
        };
        let valid = view.members.iter().filter(|one| one.status == "valid");
        let found = valid.count();
        if found >= count {
            return Ok(());
        }
        if begin.elapsed() >= limit {
            let limit = humantime::format_duration(limit);
            let what = format!("{found} of {count} nodes are members after {limit}");
            let next = "`host cluster status` and `host cluster plan` tell what is staged";
            return Err(Failure::ran_out(what).next(next).into());
        }
        std::thread::sleep(EVERY);
    }
}

impl Goal {
    fn word(self) -> &'static str {
        match self {
            Goal::Ready => "ready",
            Goal::Settled => "settled",
        }
    }

    fn next(self) -> &'static str {
        match self {
            Goal::Ready => "`host status` says what is wrong with the node",
            Goal::Settled => {
                "`host transfers` says what holds them up; `host cluster wait` goes on waiting"
            }
        }
    }
}

fn look(client: &Client, goal: Goal) -> Result<Look, ClientError> {
    match goal {
        Goal::Ready => ready(client),
        Goal::Settled => settled(client),
    }
}

fn ready(client: &Client) -> Result<Look, ClientError> {
    let (ready, words) = client.readiness()?;
    if ready {
        return Ok(Look::Done(json!({ "ready": true })));
    }
    let failed: Vec<&str> = words
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .collect();
    let why = if failed.is_empty() {
        "the node says that it is not".into()
    } else {
        failed.join(", ")
    };
    Ok(Look::Open {
        why,
        moving: 0,
        others: Vec::new(),
    })
}

/// Settled is: nothing moves, nobody is on the way out, and all vote who are to. So whoever goes on with the next step, and be it to
/// stop a node, finds the majority that he expects. Changes that are only staged do not matter.
fn settled(client: &Client) -> Result<Look, ClientError> {
    let body = client.get("/v1/cluster", &[])?;
    let view: View = client.view(body.clone())?;
    let mut open: Vec<String> = view
        .members
        .iter()
        .filter(|member| matches!(member.status.as_str(), "leaving" | "exiting"))
        .map(|member| format!("{} is {}", member.name, member.status))
        .collect();
    open.extend(silent_voters(&view.members));
    if view.ready && open.is_empty() {
        return Ok(Look::Done(body));
    }
    let moves: Transfers = client.view(client.get("/v1/transfers", &[])?)?;
    let (resizing, moves): (Vec<_>, Vec<_>) = moves
        .transfers
        .into_iter()
        .partition(|transfer: &Transfer| transfer.kind == "resize");
    if !resizing.is_empty() {
        open.insert(0, "the ring is being resized".into());
    }
    let moving = moves.len();
    if moving > 0 {
        let text = format!(
            "{moving} of {} partitions still move: {}",
            view.ring_size,
            pairs(&moves)
        );
        open.insert(0, text);
    } else if open.is_empty() {
        open.push("the node says that it is not ready".into());
    }
    Ok(Look::Open {
        why: open.join("; "),
        moving,
        others: view.others(),
    })
}

impl View {
    /// The addresses of those who stay, if the node that was asked does not.
    fn others(&self) -> Vec<String> {
        let leaves = |member: &Member| matches!(member.status.as_str(), "leaving" | "exiting");
        let mut members = self.members.iter();
        if !members.any(|member| member.name == self.as_seen_by && leaves(member)) {
            return Vec::new();
        }
        let others = self
            .members
            .iter()
            .filter(|member| member.up && !leaves(member));
        others.map(|member| member.addresses.http.clone()).collect()
    }
}

/// Who is still to vote: everybody who is valid and up (the node is not ready before it has looked for all), until the most vote that may. One that is lost keeps its vote for a while.
fn silent_voters(members: &[Member]) -> Option<String> {
    let valid = || members.iter().filter(|member| member.status == "valid");
    let votes = valid().filter(|member| member.votes == Some(true)).count();
    if votes >= VOTERS_MAX {
        return None;
    }
    let silent: Vec<&str> = valid()
        .filter(|member| member.up && member.votes == Some(false))
        .map(|member| member.name.as_str())
        .collect();
    let names = silent.join(", ");
    match silent.len() {
        0 => None,
        1 => Some(format!("{names} does not vote on changes yet")),
        _ => Some(format!("{names} do not vote on changes yet")),
    }
}

/// `a -> b 12, a -> c 9`.
fn pairs(moves: &[Transfer]) -> String {
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for transfer in moves {
        *pairs.entry((&transfer.from, &transfer.to)).or_default() += 1;
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|((from, to), count)| format!("{from} -> {to} {count}"))
        .collect();
    pairs.join(", ")
}

/// What is wrong, without where and what next: the error of the wait has its own.
fn first_line(error: &ClientError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn show(session: &mut Session<'_>, text: &str) -> anyhow::Result<()> {
    if !text.is_empty() && !session.wants_json() {
        session.print(text)?;
        session.out.flush()?;
    }
    Ok(())
}

/// How far a wait is: a bar that is drawn over on a terminal, else a line whenever something has changed.
struct Progress {
    live: bool,
    /// The most partitions that moved at once.
    most: usize,
    shown: String,
}

impl Progress {
    fn new(live: bool) -> Self {
        Self {
            live,
            most: 0,
            shown: String::new(),
        }
    }

    /// What to print now.
    fn step(&mut self, why: &str, moving: usize) -> String {
        self.most = self.most.max(moving);
        let line = if self.live && moving > 0 {
            bar(self.most - moving, self.most)
        } else {
            why.to_owned()
        };
        if line == self.shown {
            return String::new();
        }
        self.shown.clone_from(&line);
        if self.live {
            format!("\r\u{1b}[K{line}")
        } else {
            format!("{line}\n")
        }
    }

    /// What to print when the wait is over: a line that was drawn over goes.
    fn end(&self) -> String {
        if self.live && !self.shown.is_empty() {
            "\r\u{1b}[K".into()
        } else {
            String::new()
        }
    }
}

/// ` transfers  ██████░░░░  27/42`.
fn bar(done: usize, all: usize) -> String {
    let full = done * CELLS / all.max(1);
    format!(
        " transfers  {}{}  {done}/{all}",
        "█".repeat(full),
        "░".repeat(CELLS - full)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeNode;
    use super::super::{exit_of, render};
    use super::*;

    fn cluster(ready: bool, statuses: &[(&str, &str)]) -> Value {
        let members: Vec<Value> = statuses
            .iter()
            .map(|(name, status)| json!({"name": name, "status": status}))
            .collect();
        json!({"as_seen_by": "a", "epoch": 9, "ring_size": 64, "ready": ready, "members": members, "staged": []})
    }

    fn moves(pairs: &[(&str, &str, usize)]) -> Value {
        let one = |(from, to, count): &(&str, &str, usize)| {
            vec![json!({"id": 1, "from": from, "to": to}); *count]
        };
        json!({"running": 0, "transfers": pairs.iter().flat_map(one).collect::<Vec<_>>()})
    }

    const VALID: &[(&str, &str)] = &[("a", "valid"), ("b", "valid")];

    #[test]
    fn settled_is_when_all_vote_who_may() {
        let view = |voters: usize, members: usize, up: bool| {
            let member = |n| json!({"name": format!("n{n}"), "status": "valid", "up": up || n < voters, "votes": n < voters});
            let members: Vec<Value> = (0..members).map(member).collect();
            json!({"ring_size": 64, "ready": true, "members": members})
        };
        let node = FakeNode::with(&[view(1, 3, true), moves(&[]), view(3, 3, true)]);
        let (exit, output, _) = node.run("host cluster wait");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "n1, n2 do not vote on changes yet\nsettled\n");
        // Five are the most, and nobody waits for one that is not there.
        for settled in [view(5, 7, true), view(2, 3, false)] {
            let (_, output, _) = FakeNode::with(&[settled]).run("host cluster wait");
            assert_eq!(output, "settled\n");
        }
    }

    #[test]
    fn settled_is_when_nothing_moves_and_nobody_goes() {
        let staged = cluster(true, &[("a", "valid"), ("b", "joining"), ("c", "down")]);
        let node = FakeNode::with(std::slice::from_ref(&staged));
        let (exit, output, asked) = node.run("host cluster wait");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "settled\n");
        assert_eq!(asked, [("GET /v1/cluster".into(), String::new())]);

        let node = FakeNode::with(&[
            cluster(false, &[("a", "valid"), ("b", "leaving")]),
            moves(&[("b", "a", 2), ("b", "c", 1)]),
            cluster(false, &[("a", "valid"), ("b", "leaving")]),
            moves(&[("b", "a", 2), ("b", "c", 1)]),
            cluster(true, &[("a", "valid"), ("b", "exiting")]),
            moves(&[]),
            cluster(true, VALID),
        ]);
        let (exit, output, asked) = node.run("host cluster wait --for settled --timeout 1m");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(
            output,
            "3 of 64 partitions still move: b -> a 2, b -> c 1; b is leaving\nb is exiting\nsettled\n"
        );
        assert_eq!(asked[1].0, "GET /v1/transfers");
    }

    #[test]
    fn who_leaves_ends_and_another_is_asked() {
        let leaving = |other: &str| {
            let member = |name: &str, status: &str, http: &str| json!({"name": name, "status": status, "up": true, "votes": true, "addresses": {"http": http}});
            let members = [member("a", "leaving", ""), member("b", "valid", other)];
            json!({"as_seen_by": "a", "ring_size": 64, "ready": false, "members": members})
        };
        let other = FakeNode::with(&[cluster(true, &[("b", "valid")])]);
        let node = FakeNode::with(&[leaving(other.url()), moves(&[("a", "b", 1)])]);
        let (exit, output, _) = node.run("host cluster wait");
        assert_eq!(exit.unwrap(), Exit::Ok);
        let left = format!("the node has left; {} is asked", other.url());
        assert_eq!(
            output,
            format!("1 of 64 partitions still move: a -> b 1; a is leaving\n{left}\nsettled\n")
        );
        assert_eq!(other.asked().len(), 1);
    }

    #[test]
    fn json_is_the_answer_that_ended_the_wait() {
        let node = FakeNode::with(&[
            cluster(false, VALID),
            moves(&[("a", "b", 1)]),
            cluster(true, VALID),
        ]);
        let (_, output, _) = node.run("host cluster wait --format json");
        assert_eq!(
            serde_json::from_str::<Value>(&output).unwrap(),
            cluster(true, VALID)
        );
        let node = FakeNode::answering(vec![(200, "ready\n".into())]);
        let (_, output, _) = node.run("host cluster wait --for ready --format json");
        assert_eq!(output, "{\n  \"ready\": true\n}\n");
    }

    #[test]
    fn the_time_that_runs_out_says_what_is_open() {
        let node = FakeNode::with(&[cluster(false, VALID), moves(&[("a", "b", 12)])]);
        let error = node.run("host cluster wait --timeout 0s").0.unwrap_err();
        assert_eq!(exit_of(&error), Exit::WaitRanOut);
        assert_eq!(
            render(&error),
            "error: not settled within 0s: 12 of 64 partitions still move: a -> b 12\n  \
             next: `host transfers` says what holds them up; `host cluster wait` goes on waiting"
        );
        let node = FakeNode::with(&[cluster(false, VALID), moves(&[])]);
        let error = node.run("host cluster wait --timeout 0s").0.unwrap_err();
        let text = render(&error);
        assert!(
            text.contains("within 0s: the node says that it is not ready\n"),
            "{text}"
        );
    }

    #[test]
    fn ready_is_what_the_node_says() {
        let unready = (503, "[-]storage failed\nnot ready\n".to_owned());
        let node = FakeNode::answering(vec![unready.clone(), (200, "ready\n".into())]);
        let (exit, output, asked) = node.run("host cluster wait --for ready");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "storage failed\nready\n");
        assert_eq!(asked[0].0, "GET /readyz");
        let node = FakeNode::answering(vec![unready]);
        let line = "host cluster wait --for ready --timeout 0s";
        let error = node.run(line).0.unwrap_err();
        assert_eq!(exit_of(&error), Exit::WaitRanOut);
        assert!(render(&error).starts_with("error: not ready within 0s: storage failed\n  next: "));
    }

    #[test]
    fn a_node_that_is_not_there_yet_is_waited_for() {
        let busy = json!({"detail": "no claimant"}).to_string();
        let node = FakeNode::answering(vec![(503, busy), (200, cluster(true, VALID).to_string())]);
        let (exit, output, _) = node.run("host cluster wait");
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert_eq!(output, "no claimant\nsettled\n");

        let (exit, _, _) = FakeNode::with(&[]).run("host cluster wait --timeout 0s");
        let error = exit.unwrap_err();
        assert_eq!(exit_of(&error), Exit::WaitRanOut);
        let text = render(&error);
        assert!(
            text.starts_with("error: not settled within 0s: no node answers\n  next: "),
            "{text}"
        );

        let node = FakeNode::answering(vec![(404, json!({"detail": "no such route"}).to_string())]);
        let error = node.run("host cluster wait").0.unwrap_err();
        assert_eq!(exit_of(&error), Exit::Failed);
        assert_eq!(render(&error), "error: no such route");
    }

    #[test]
    fn a_terminal_gets_a_bar_that_goes() {
        let mut progress = Progress::new(true);
        assert_eq!(progress.end(), "");
        let empty = "░".repeat(22);
        assert_eq!(
            progress.step("why", 42),
            format!("\r\u{1b}[K transfers  {empty}  0/42")
        );
        assert_eq!(progress.step("why", 42), "");
        let half = format!("{}{}", "█".repeat(11), "░".repeat(11));
        assert_eq!(
            progress.step("why", 21),
            format!("\r\u{1b}[K transfers  {half}  21/42")
        );
        assert_eq!(progress.step("b is exiting", 0), "\r\u{1b}[Kb is exiting");
        assert_eq!(progress.end(), "\r\u{1b}[K");
    }
}
