//! What workers ask for: operations with their commands and weights, and what a right answer to each looks like.

use super::draw::Dice;
use super::values::{Stamp, Values};
use crate::resp::codec::{self, Args, Limits, Progress};

/// What an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// `OK`; from then on the key has the value.
    Put,
    /// The value under a key, or nil; of a key that was put, a value that is not older.
    Get,
    /// The same of a key that this worker has put. Not asked before it has.
    GetOwnPut,
    /// An integer above all that this worker has seen of the key.
    Increment,
    /// An integer not below what this worker has seen of the key.
    Count,
    /// A cursor and keys. The next one goes on at the cursor.
    Scan,
    /// Anything but an error.
    Any,
}

/// One operation of a workload.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// Its name in reports and files.
    pub(super) name: String,
    /// Its command as it was written.
    pub(super) command: String,
    /// Its share of all operations, compared with the others'.
    pub(super) weight: u64,
    pub(super) check: Check,
    pub(super) template: Template,
}

/// Operations, and whether their keys are there before the run.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Its name in reports.
    pub(super) name: String,
    pub(super) operations: Vec<Operation>,
    /// The command that fills all keys before the run, so that every read can be judged.
    pub(super) load: Option<Template>,
}

/// What is wrong with a workload. Nothing has been done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    /// No workload has that name.
    #[error(
        "there is no workload {0:?}\n  next: choose one of rkv, read, write, mixed, counter, scan, or write commands with --command"
    )]
    Unknown(String),
    /// A template that is no command.
    #[error(
        "{template:?} is no command: {why}\n  next: write it as in redis-cli, with {{key}} and {{value}} where a key and a value go"
    )]
    Template {
        /// As it was written.
        template: String,
        /// What is wrong with it.
        why: String,
    },
    /// A mix that does not fit the operations.
    #[error(
        "{mix:?} is no mix: {why}\n  next: name operations with their weights, such as {example}"
    )]
    Mix {
        /// As it was written.
        mix: String,
        /// What is wrong with it.
        why: String,
        /// One that would do.
        example: String,
    },
}

/// Names of the built-in workloads, and the operations of each: name, weight, check, command.
type Row = (&'static str, u64, Check, &'static str);
const RKV: &[Row] = &[
    // Basho's driver, as the second tutorial has it: keys are plain numbers.
    ("put", 10, Check::Put, "PUT {key} {value}"),
    ("get-own-puts", 3, Check::GetOwnPut, "GET {key}"),
    ("get", 2, Check::Get, "GET {key}"),
];
const READ: &[Row] = &[("get", 1, Check::Get, "GET key:{key}")];
const WRITE: &[Row] = &[("set", 1, Check::Put, "SET key:{key} {value}")];
const MIXED: &[Row] = &[
    ("get", 1, Check::Get, "GET key:{key}"),
    ("set", 1, Check::Put, "SET key:{key} {value}"),
];
const COUNTER: &[Row] = &[
    ("incr", 1, Check::Increment, "INCR counter:{key}"),
    ("count", 1, Check::Count, "COUNT counter:{key}"),
];
const SCAN: &[Row] = &[("scan", 1, Check::Scan, "SCAN {cursor} COUNT 100")];
/// What fills the keys of workloads that read.
const LOAD: &str = "SET key:{key} {value}";

impl Workload {
    /// A workload that comes with the host.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn named(name: &str) -> Result<Self, WorkloadError> {
        let (rows, load) = match name {
            "rkv" => (RKV, None),
            "read" => (READ, Some(LOAD)),
            "write" => (WRITE, None),
            "mixed" => (MIXED, Some(LOAD)),
            "counter" => (COUNTER, None),
            "scan" => (SCAN, Some(LOAD)),
            _ => return Err(WorkloadError::Unknown(name.into())),
        };
        let operation = |(name, weight, check, command): &Row| {
            Ok(Operation {
                name: (*name).into(),
                command: (*command).into(),
                weight: *weight,
                check: *check,
                template: Template::parse(command)?,
            })
        };
        Ok(Self {
            name: name.into(),
            operations: rows.iter().map(operation).collect::<Result<_, _>>()?,
            load: load.map(Template::parse).transpose()?,
        })
    }

    /// A workload of commands, all as often. Any answer to them but an error is right.
    ///
    /// # Errors
    /// When one of them is no command.
    pub(crate) fn of_commands(commands: &[String]) -> Result<Self, WorkloadError> {
        let mut operations: Vec<Operation> = Vec::new();
        for command in commands {
            let template = Template::parse(command)?;
            let base = template.name();
            let alike = |operation: &&Operation| operation.template.name() == base;
            let name = match operations.iter().filter(alike).count() {
                0 => base,
                before => format!("{base}-{}", before + 1),
            };
            operations.push(Operation {
                name,
                command: command.clone(),
                weight: 1,
                check: Check::Any,
                template,
            });
        }
        Ok(Self {
            name: "commands".into(),
            operations,
            load: None,
        })
    }

    /// The workload with other weights: `put=10,get=2` by name, where those left out are not asked at all, or `10:3:2` in the
    /// order of the operations.
    ///
    /// # Errors
    /// When it names what is not there, or nothing would be left to ask.
    pub(crate) fn mixed(mut self, mix: &str) -> Result<Self, WorkloadError> {
        let names: Vec<String> = self
            .operations
            .iter()
            .map(|operation| format!("{}=1", operation.name))
            .collect();
        let wrong = |why: String| WorkloadError::Mix {
            mix: mix.into(),
            why,
            example: names.join(","),
        };
        let weight = |text: &str| {
            text.trim()
                .parse::<u32>()
                .map(u64::from)
                .map_err(|_| wrong(format!("{text:?} is no weight")))
        };
        let mut weights = vec![0; self.operations.len()];
        if mix.contains('=') {
            for part in mix.split(',') {
                let (name, number) = part
                    .split_once('=')
                    .ok_or_else(|| wrong(format!("{part:?} has no weight")))?;
                let named = |operation: &Operation| operation.name == name.trim();
                let slot = self
                    .operations
                    .iter()
                    .position(named)
                    .and_then(|at| weights.get_mut(at));
                *slot.ok_or_else(|| wrong(format!("there is no operation {:?}", name.trim())))? =
                    weight(number)?;
            }
        } else {
            let numbers: Vec<&str> = mix.split(':').collect();
            if numbers.len() != weights.len() {
                return Err(wrong(format!(
                    "it has {} weights for {} operations",
                    numbers.len(),
                    weights.len()
                )));
            }
            for (slot, number) in weights.iter_mut().zip(numbers) {
                *slot = weight(number)?;
            }
        }
        for (operation, weight) in self.operations.iter_mut().zip(weights) {
            operation.weight = weight;
        }
        self.operations.retain(|operation| operation.weight > 0);
        let has = |check| {
            self.operations
                .iter()
                .any(|operation| operation.check == check)
        };
        if self.operations.is_empty() {
            return Err(wrong("no operation has a weight".into()));
        }
        if has(Check::GetOwnPut) && !has(Check::Put) {
            return Err(wrong("nobody can read own puts without putting".into()));
        }
        Ok(self)
    }

    /// Whether what workers have seen of keys is needed to judge an answer.
    pub(super) fn remembers(&self) -> bool {
        let has = |checks: &[Check]| {
            self.operations
                .iter()
                .any(|operation| checks.contains(&operation.check))
        };
        let reads = has(&[Check::Get, Check::GetOwnPut]) && has(&[Check::Put]);
        reads || has(&[Check::Increment, Check::Count])
    }

    /// The number of an operation, each as often as its weight says.
    pub(super) fn draw(&self, dice: &mut Dice) -> usize {
        if self.operations.len() == 1 {
            return 0;
        }
        let all = self
            .operations
            .iter()
            .map(|operation| operation.weight)
            .sum();
        let mut left = dice.below(all);
        for (number, operation) in self.operations.iter().enumerate() {
            match left.checked_sub(operation.weight) {
                None => return number,
                Some(rest) => left = rest,
            }
        }
        0
    }
}

/// A command with gaps for key, value and cursor.
#[derive(Clone, Debug)]
pub(super) struct Template {
    words: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Key,
    Value,
    Cursor,
}

/// What goes into the gaps.
pub(super) struct Filling<'a> {
    /// The key's number.
    pub(super) key: u64,
    /// Who writes the value.
    pub(super) stamp: Stamp,
    pub(super) values: &'a Values,
    /// Where a scan goes on.
    pub(super) cursor: &'a [u8],
}

impl Template {
    /// Words as redis-cli splits them, with `{key}`, `{value}` and `{cursor}` in them.
    fn parse(template: &str) -> Result<Self, WorkloadError> {
        let wrong = |why: String| WorkloadError::Template {
            template: template.into(),
            why,
        };
        let line = format!("{}\r\n", template.trim());
        if line.starts_with('*') {
            return Err(wrong("it begins with '*'".into()));
        }
        let mut args = Args::default();
        let limits = Limits::default();
        let whole = match codec::parse(line.as_bytes(), &limits, &mut args) {
            Ok(Progress::Complete { consumed }) => consumed == line.len(),
            Ok(Progress::Incomplete { .. }) => false,
            Err(error) => return Err(wrong(error.to_string())),
        };
        let words: Vec<Vec<Part>> = args.of(line.as_bytes()).iter().map(parts).collect();
        if !whole || words.is_empty() {
            return Err(wrong("it is not one line with a command".into()));
        }
        Ok(Self { words })
    }

    /// The command's name in lower case, fit for a file's name.
    fn name(&self) -> String {
        let Some(Part::Text(name)) = self.words.first().and_then(|word| word.first()) else {
            return "command".into();
        };
        let tidy = |byte: &u8| match byte {
            byte if byte.is_ascii_alphanumeric() || *byte == b'.' => {
                char::from(byte.to_ascii_lowercase())
            }
            _ => '-',
        };
        name.iter().map(tidy).collect()
    }

    /// Appends the request.
    pub(super) fn write(&self, filling: &Filling<'_>, out: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let key = decimal(filling.key, &mut digits);
        header(out, b'*', self.words.len());
        for word in &self.words {
            let length = |part: &Part| match part {
                Part::Text(text) => text.len(),
                Part::Key => key.len(),
                Part::Value => filling.values.size(),
                Part::Cursor => filling.cursor.len(),
            };
            header(out, b'$', word.iter().map(length).sum());
            for part in word {
                match part {
                    Part::Text(text) => out.extend_from_slice(text),
                    Part::Key => out.extend_from_slice(key),
                    Part::Value => filling.values.write(filling.key, filling.stamp, out),
                    Part::Cursor => out.extend_from_slice(filling.cursor),
                }
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn parts(word: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut rest = word;
    let gaps: [(&[u8], Part); 3] = [
        (b"{key}", Part::Key),
        (b"{value}", Part::Value),
        (b"{cursor}", Part::Cursor),
    ];
    while let Some((first, after)) = rest.split_first() {
        match gaps.iter().find(|(gap, _)| rest.starts_with(gap)) {
            Some((gap, part)) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(part.clone());
                rest = rest.get(gap.len()..).unwrap_or_default();
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    let mut digits = [0; 20];
    out.push(kind);
    out.extend_from_slice(decimal(length as u64, &mut digits));
    out.extend_from_slice(b"\r\n");
}

/// By hand, because formatting machinery would cost as much as the rest of a short request.
fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut left = number;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    digits.get(digits.len() - used..).unwrap_or_default()
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
