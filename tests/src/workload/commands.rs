//! What a workload's requests are in the commands of the built-in guests, and what their replies mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Kind, Plan, Request};
use crate::checkers::{Action, Answer, History, Outcome};
use crate::resp::Reply;

/// The sets each element of which is a key of its own.
pub const BAG: &str = "bag-";
/// The sets each of which is one key.
pub const SET: &str = "set-";
/// The registers with siblings.
pub const CAUSAL: &str = "causal-";
/// The registers that have one value.
pub const REGISTER: &str = "register-";
/// The counters.
pub const COUNTER: &str = "counter-";

/// The plans of the four workloads. Clients go on to other keys after so many turns.
pub fn plans(turns_per_round: u64) -> [Plan; 4] {
    let plan = |kind, prefix: &str, reads_percent| Plan {
        prefix: prefix.into(),
        reads_percent,
        // Deletions have no context in the store's commands, so what they supersede cannot be judged.
        deletes_percent: 0,
        turns_per_round: Some(turns_per_round),
        ..Plan::new(kind)
    };
    [
        plan(Kind::Set, BAG, 0),
        plan(Kind::Set, SET, 10),
        plan(Kind::Causal, CAUSAL, 10),
        plan(Kind::Counter, COUNTER, 10),
    ]
}

/// A client of the built-in guests.
#[derive(Default)]
pub struct Session {
    /// What it read last of each register.
    contexts: BTreeMap<String, String>,
}

impl Session {
    /// Asks with as many commands as it takes. `call` runs one command; its error says that nobody knows what came of it.
    ///
    /// # Panics
    /// At replies that no guest gives, and at requests of no workload here.
    pub async fn ask(
        &mut self,
        request: &Request,
        mut call: impl AsyncFnMut(&[&str]) -> io::Result<Reply>,
    ) -> Outcome {
        let key = request.key.as_str();
        let asked = match &request.action {
            Action::Add { element } if key.starts_with(BAG) => {
                let (key, element) = (format!("{key}:{element}"), element.to_string());
                let reply = call(&["SET", &key, &element]).await;
                written(reply).map(|_| Answer::Done)
            }
            Action::Add { element } => add(key, *element, &mut call).await,
            Action::Put { id, read } => {
                let context = self.contexts.get(key).filter(|_| !read.is_empty());
                let context = context.cloned().unwrap_or_default();
                let reply = call(&["VPUT", key, &id.to_string(), &context]).await;
                written(reply).map(|_| Answer::Done)
            }
            Action::Write { value } => {
                let reply = call(&["SET", key, &value.to_string()]).await;
                written(reply).map(|_| Answer::Done)
            }
            Action::Increment { .. } => {
                written(call(&["INCR", key]).await).map(|reply| count(&reply))
            }
            Action::Read if key.starts_with(COUNTER) => {
                read(call(&["COUNT", key]).await).map(|reply| count(&reply))
            }
            Action::Read if key.starts_with(REGISTER) => {
                read(call(&["GET", key]).await).map(|reply| {
                    let value = match reply {
                        Reply::Nil => None,
                        value => Some(value.text().parse().expect("a number")),
                    };
                    Answer::Values(value.into_iter().collect())
                })
            }
            Action::Read => read(call(&["VGET", key]).await).map(|reply| {
                let (context, values) = versions(reply);
                self.contexts.insert(key.to_owned(), context);
                Answer::Values(values.into_iter().flatten().collect())
            }),
            other => panic!("no workload has {other}"),
        };
        match asked {
            Ok(answer) => Outcome::Ok(answer),
            Err(outcome) => outcome,
        }
    }
}

/// Adds to a set that is one key: all that is there and the element take the place of what is there.
async fn add(
    key: &str,
    element: u64,
    call: &mut impl AsyncFnMut(&[&str]) -> io::Result<Reply>,
) -> Result<Answer, Outcome> {
    let (context, mut values) = versions(read(call(&["VGET", key]).await)?);
    values.push(BTreeSet::from([element]));
    let all: BTreeSet<u64> = values.into_iter().flatten().collect();
    let all: Vec<String> = all.iter().map(u64::to_string).collect();
    written(call(&["VPUT", key, &all.join(" "), &context]).await)?;
    Ok(Answer::Done)
}

/// What came of something that changes nothing, so whatever went wrong it failed.
fn read(reply: io::Result<Reply>) -> Result<Reply, Outcome> {
    written(reply).map_err(|outcome| match outcome {
        Outcome::Unknown(why) => Outcome::Fail(why),
        other => other,
    })
}

fn written(reply: io::Result<Reply>) -> Result<Reply, Outcome> {
    match reply {
        Ok(Reply::Error(text)) if has_no_effect(&text) => Err(Outcome::Fail(text)),
        Ok(Reply::Error(text)) => Err(Outcome::Unknown(text)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Outcome::Unknown(error.to_string())),
    }
}

/// Whether an error says that nothing was written: nobody ran the command, or too few answered before it would have.
fn has_no_effect(error: &str) -> bool {
    let says = |words: &str| error.contains(words);
    says("cannot be reached; retry") || says("NOREPLICAS wanted r=") || error.starts_with("BUSY")
}

/// What INCR and COUNT return.
///
/// # Panics
/// At anything else than a number from 0 on.
pub fn count(reply: &Reply) -> Answer {
    Answer::Count(u64::try_from(reply.int()).expect("nobody counts down"))
}

/// What VGET returns: the context, and the numbers in each of the values.
///
/// # Panics
/// At anything else.
pub fn versions(reply: Reply) -> (String, Vec<BTreeSet<u64>>) {
    let parts = reply.items();
    let numbers = |value: &Reply| {
        let text = value.text();
        let numbers = text.split(' ').map(|number| number.parse::<u64>());
        numbers.map(|number| number.expect("a number")).collect()
    };
    let values = parts[1].clone().items().iter().map(numbers).collect();
    (parts[0].text(), values)
}

/// The keys of the cluster, by service: those of the history that are keys themselves, and the elements of bags.
pub fn keys(history: &History) -> Vec<(&'static str, String)> {
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        let key = operation.key.clone();
        match operation.action.written() {
            Some(element) if key.starts_with(BAG) => {
                keys.insert(("kv", format!("{key}:{element}")));
            }
            _ if key.starts_with(COUNTER) => {
                keys.insert(("counter", key));
            }
            _ => {
                keys.insert(("kv", key));
            }
        }
    }
    keys.into_iter().collect()
}

/// What all keys of a run hold at its end, by the checker that judges them.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The elements of each bag and each set.
    pub sets: BTreeMap<String, BTreeSet<u64>>,
    /// The values of each causal register.
    pub registers: BTreeMap<String, BTreeSet<u64>>,
    /// The sum of each counter.
    pub counters: BTreeMap<String, u64>,
}

impl End {
    /// The command that reads a key of [`keys`].
    pub fn command<'a>(service: &str, key: &'a str) -> [&'a str; 2] {
        match service {
            "counter" => ["COUNT", key],
            _ => ["VGET", key],
        }
    }

    /// Takes the reply to that command down.
    ///
    /// # Panics
    /// At a reply that no guest gives.
    pub fn take(&mut self, service: &str, key: &str, reply: Reply) {
        if service == "counter" {
            let count = u64::try_from(reply.int()).expect("nobody counts down");
            self.counters.insert(key.to_owned(), count);
            return;
        }
        let values: BTreeSet<u64> = versions(reply).1.into_iter().flatten().collect();
        match key.split_once(':') {
            Some((bag, _)) => self.sets.entry(bag.to_owned()).or_default().extend(values),
            None if key.starts_with(CAUSAL) => {
                self.registers.insert(key.to_owned(), values);
            }
            None => {
                self.sets.insert(key.to_owned(), values);
            }
        }
    }
}
