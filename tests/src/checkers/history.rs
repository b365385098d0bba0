//! What clients did and saw: the only thing that most checkers know about a run.
//!
//! On disk it is one JSON object per line, first one about the whole, then one for each operation.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The format of the file; another one is refused.
const FORMAT: u32 = 1;

/// How many values of an answer a line shows; the file has all.
const SHOWN_MAX: usize = 12;

/// What a client asked for.
///
/// A key is of one kind for its whole life: set, causal register, counter or register. The numbers that stand for values are
/// unique within a key, except that registers may write a value again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// What is there, whatever the kind of the key.
    Read,
    /// One more element of a set that only grows.
    Add {
        /// The element.
        element: u64,
    },
    /// A version of a causal register, in place of those it read.
    Put {
        /// The version.
        id: u64,
        /// The versions that the write's causal context covers; none for a blind write.
        read: Vec<u64>,
    },
    /// An end of a causal register, in place of what it read. Nobody ever sees its id.
    Delete {
        /// The deletion.
        id: u64,
        /// The versions that the deletion's causal context covers.
        read: Vec<u64>,
    },
    /// So much more of a counter.
    Increment {
        /// How much.
        by: u64,
    },
    /// A register's new value.
    Write {
        /// The value.
        value: u64,
    },
}

impl Action {
    /// The number that the operation put into the key, if it is one that puts something there.
    pub fn written(&self) -> Option<u64> {
        match self {
            Action::Add { element: number }
            | Action::Put { id: number, .. }
            | Action::Delete { id: number, .. }
            | Action::Write { value: number } => Some(*number),
            Action::Read | Action::Increment { .. } => None,
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Read => write!(f, "read"),
            Action::Add { element } => write!(f, "add {element}"),
            Action::Put { id, read } => write!(f, "put {id} after {read:?}"),
            Action::Delete { id, read } => write!(f, "delete {id} after {read:?}"),
            Action::Increment { by } => write!(f, "increment by {by}"),
            Action::Write { value } => write!(f, "write {value}"),
        }
    }
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Done,
    /// What is there: a set's elements, a causal register's siblings, a register's value; empty for nothing.
    Values(Vec<u64>),
    /// What a counter has come to.
    Count(u64),
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => Ok(()),
            Answer::Values(values) => match values.split_at_checked(SHOWN_MAX) {
                Some((first, rest)) if !rest.is_empty() => {
                    write!(f, " -> {first:?} and {} more", rest.len())
                }
                _ => write!(f, " -> {values:?}"),
            },
            Answer::Count(count) => write!(f, " -> {count}"),
        }
    }
}

/// How an operation ended, as far as its client can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was acknowledged.
    Ok(Answer),
    /// It was refused and surely has no effect, for this reason. Not for a write that some replicas have applied, though too
    /// few: that one is unknown.
    Fail(String),
    /// Nobody knows, for this reason. It may take effect at any time after its invocation, or never.
    Unknown(String),
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client, whose operations are a session.
    pub client: u32,
    /// The key.
    pub key: String,
    /// What was asked.
    pub action: Action,
    /// When, in monotonic nanoseconds or any other count that all clients share. Taken before the request left.
    pub invoked: u64,
    /// When the answer had come or the client gave up, in the same unit; none while it still waits.
    pub completed: Option<u64>,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer of an acknowledged operation.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Fail(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.answer().is_some()
    }

    /// Whether it surely has no effect.
    pub fn is_fail(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }

    /// Whether it may or may not have had an effect.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, key, action) = (self.client, &self.key, &self.action);
        write!(f, "client {client}: {key:?} {action}")?;
        if let Some(answer) = self.answer() {
            write!(f, "{answer}")?;
        }
        match self.completed {
            Some(completed) => write!(f, "  [{}..{completed}]", self.invoked)?,
            None => write!(f, "  [{}..]", self.invoked)?,
        }
        match &self.outcome {
            Outcome::Ok(_) => write!(f, " ok"),
            Outcome::Fail(why) => write!(f, " fail: {why}"),
            Outcome::Unknown(why) => write!(f, " unknown: {why}"),
        }
    }
}

/// All operations of a run, in the order of their invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What whoever looks at it later has to know: seed, schedule, commit.
    pub note: String,
    /// The operations.
    pub operations: Vec<Operation>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    history: u32,
    operations: usize,
    note: String,
}

impl History {
    /// The operations on each key, in the order of their invocation.
    pub fn by_key(&self) -> BTreeMap<&str, Vec<&Operation>> {
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|operation| operation.invoked);
        }
        keys
    }

    /// The same for those keys only on which something was asked for that a checker is about.
    pub(crate) fn with(&self, about: fn(&Action) -> bool) -> BTreeMap<&str, Vec<&Operation>> {
        let mut keys = self.by_key();
        keys.retain(|_, operations| operations.iter().any(|each| about(&each.action)));
        keys
    }

    /// Writes it, a line for each operation after one about the whole.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let head = Head {
            history: FORMAT,
            operations: self.operations.len(),
            note: self.note.clone(),
        };
        serde_json::to_writer(&mut out, &head)?;
        out.write_all(b"\n")?;
        for operation in &self.operations {
            serde_json::to_writer(&mut out, operation)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Reads what [`History::write`] wrote. A file that is cut short is an error, not a shorter history.
    pub fn read(input: impl BufRead) -> io::Result<History> {
        let wrong = |number: usize, what: String| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("history, line {number}: {what}"),
            )
        };
        let mut lines = input.lines();
        let first = lines
            .next()
            .ok_or_else(|| wrong(1, "it is empty".into()))??;
        let head: Head =
            serde_json::from_str(&first).map_err(|error| wrong(1, error.to_string()))?;
        if head.history != FORMAT {
            let what = format!("its format is {}, not {FORMAT}", head.history);
            return Err(wrong(1, what));
        }
        let mut operations = Vec::new();
        for (number, line) in lines.enumerate() {
            let operation = serde_json::from_str(&line?);
            operations.push(operation.map_err(|error| wrong(number + 2, error.to_string()))?);
        }
        if operations.len() != head.operations {
            let (found, told) = (operations.len(), head.operations);
            let what = format!("it ends after {found} of {told} operations");
            return Err(wrong(found + 1, what));
        }
        Ok(History {
            note: head.note,
            operations,
        })
    }

    /// Writes it to a file, in place of what was there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        self.write(BufWriter::new(File::create(path)?))
    }

    /// Reads it from a file.
    pub fn load(path: &Path) -> io::Result<History> {
        History::read(BufReader::new(File::open(path)?))
    }
}

impl Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&Operation) -> bool| {
            let counted = self.operations.iter().filter(|each| is(each));
            counted.count()
        };
        write!(
            f,
            "{} operations on {} keys: {} ok, {} fail, {} unknown",
            self.operations.len(),
            self.by_key().len(),
            count(Operation::is_ok),
            count(Operation::is_fail),
            count(Operation::is_unknown),
        )
    }
}

#[cfg(test)]
pub(crate) mod made {
    //! Histories made by hand: `made::ok(client, "k", action, answer, from..to)`.

    use std::ops::Range;

    use super::{Action, Answer, History, Operation, Outcome};

    pub(crate) fn history(operations: impl IntoIterator<Item = Operation>) -> History {
        History {
            note: String::new(),
            operations: operations.into_iter().collect(),
        }
    }

    fn operation(client: u32, action: Action, outcome: Outcome, time: Range<u64>) -> Operation {
        Operation {
            client,
            key: "k".into(),
            action,
            invoked: time.start,
            completed: Some(time.end),
            outcome,
        }
    }

    pub(crate) fn done(client: u32, action: Action, time: Range<u64>) -> Operation {
        operation(client, action, Outcome::Ok(Answer::Done), time)
    }

    pub(crate) fn fail(client: u32, action: Action, time: Range<u64>) -> Operation {
        operation(client, action, Outcome::Fail("refused".into()), time)
    }

    pub(crate) fn unknown(client: u32, action: Action, time: Range<u64>) -> Operation {
        operation(client, action, Outcome::Unknown("timeout".into()), time)
    }

    pub(crate) fn read(client: u32, values: &[u64], time: Range<u64>) -> Operation {
        let answer = Answer::Values(values.to_vec());
        operation(client, Action::Read, Outcome::Ok(answer), time)
    }

    pub(crate) fn count(client: u32, action: Action, count: u64, time: Range<u64>) -> Operation {
        let answer = Answer::Count(count);
        operation(client, action, Outcome::Ok(answer), time)
    }

    pub(crate) fn add(element: u64) -> Action {
        Action::Add { element }
    }

    pub(crate) fn put(id: u64, read: &[u64]) -> Action {
        let read = read.to_vec();
        Action::Put { id, read }
    }

    pub(crate) fn delete(id: u64, read: &[u64]) -> Action {
        let read = read.to_vec();
        Action::Delete { id, read }
    }

    pub(crate) fn write(value: u64) -> Action {
        Action::Write { value }
    }
}

#[cfg(test)]
mod tests {
    use super::made::{add, count, delete, done, fail, history, put, read, unknown, write};
    use super::*;

    fn every_kind() -> History {
        let mut history = history([
            done(1, add(5), 0..4),
            fail(2, put(7, &[5, 6]), 1..9),
            unknown(3, delete(8, &[7]), 2..3),
            read(4, &[1, u64::MAX], 3..5),
            count(5, Action::Increment { by: 2 }, 12, 4..6),
            done(6, write(1), 5..7),
        ]);
        history.operations[5].completed = None;
        history.note = "seed 7\n\"quoted\"".into();
        history
    }

    fn written(history: &History) -> String {
        let mut bytes = Vec::new();
        history.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let history = every_kind();
        let text = written(&history);
        assert_eq!(text.lines().count(), 7);
        assert_eq!(History::read(text.as_bytes()).unwrap(), history);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        history.save(&path).unwrap();
        assert_eq!(History::load(&path).unwrap(), history);
    }

    #[test]
    fn a_file_that_is_cut_short_or_foreign_is_refused_with_its_line() {
        let text = written(&every_kind());
        let refused = |text: &str| History::read(text.as_bytes()).unwrap_err().to_string();
        let whole_lines: Vec<&str> = text.lines().collect();
        let short = whole_lines[..4].join("\n");
        assert_eq!(
            refused(&short),
            "history, line 4: it ends after 3 of 6 operations"
        );
        assert!(refused(&text[..text.len() - 9]).starts_with("history, line 7: "));
        assert_eq!(refused(""), "history, line 1: it is empty");
        let newer = text.replacen("\"history\":1", "\"history\":2", 1);
        assert_eq!(refused(&newer), "history, line 1: its format is 2, not 1");
    }

    #[test]
    fn a_long_answer_is_cut_in_a_line() {
        let all: Vec<u64> = (0..14).collect();
        let long = read(1, &all, 0..1).to_string();
        let shown = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] and 2 more";
        assert_eq!(long, format!("client 1: \"k\" read -> {shown}  [0..1] ok"));
        assert!(!read(1, &all[..12], 0..1).to_string().contains("more"));
    }

    #[test]
    fn an_operation_reads_as_a_line() {
        let history = every_kind();
        let lines: Vec<String> = history
            .operations
            .iter()
            .map(Operation::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "client 1: \"k\" add 5  [0..4] ok",
                "client 2: \"k\" put 7 after [5, 6]  [1..9] fail: refused",
                "client 3: \"k\" delete 8 after [7]  [2..3] unknown: timeout",
                "client 4: \"k\" read -> [1, 18446744073709551615]  [3..5] ok",
                "client 5: \"k\" increment by 2 -> 12  [4..6] ok",
                "client 6: \"k\" write 1  [5..] ok",
            ]
        );
        assert_eq!(
            history.to_string(),
            "6 operations on 1 keys: 4 ok, 1 fail, 1 unknown"
        );
    }
}
