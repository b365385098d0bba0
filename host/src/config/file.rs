//! The file of settings: TOML with the keys of the table of settings, and `[service.NAME]` with what is about one service.
//!
//! Unknown keys are refused here, with the line. Values keep their line, so that `host config show` can name it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codec::{Codec, Count, Kind, Replicas, Switch, Time};
use super::settings::{SETTINGS, Setting};
use super::{ConfigError, N_MAX, Origin, ServiceSettings};

/// What `[service.NAME]` may have.
const OF_A_SERVICE: [&str; 9] = [
    "n",
    "r",
    "w",
    "pr",
    "pw",
    "dw",
    "node_confirms",
    "request_timeout",
    "last_write_wins",
];
/// Of the replicas that are waited for.
type Demanded = Count<0, { N_MAX as usize }>;
/// From a millisecond to an hour.
type ServiceTime = Time<1, 3_600_000>;

/// A file of settings, read and known to have no foreign keys. The default is no file.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    services: BTreeMap<String, ServiceSettings>,
}

#[derive(Clone, Debug)]
struct Entry {
    line: usize,
    value: Value,
}

/// The part of TOML that settings use.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(String),
    Boolean(bool),
    List(Vec<String>),
    Other(&'static str),
}

impl Contents {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has a key that no setting has.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// The same for a text that was read from `path`.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.into(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })?;
        let mut contents = Self {
            path: path.into(),
            ..Self::default()
        };
        contents.gather("", table.get_ref(), text);
        contents.read_services()?;
        contents.refuse_unknown()?;
        Ok(contents)
    }

    /// Flattens tables into dotted keys.
    fn gather(&mut self, prefix: &str, table: &DeTable<'_>, text: &str) {
        for (key, value) in table {
            let dotted = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                // A table with nothing in it must still be refused when its name is unknown.
                DeValue::Table(inner) if !inner.is_empty() => {
                    self.gather(&format!("{dotted}."), inner, text);
                }
                other => {
                    let entry = Entry {
                        line: line_of(text, key.span().start),
                        value: Value::of(other),
                    };
                    self.entries.insert(dotted, entry);
                }
            }
        }
    }

    fn read_services(&mut self) -> Result<(), ConfigError> {
        let mut services: BTreeMap<String, ServiceSettings> = BTreeMap::new();
        for (key, entry) in &self.entries {
            let Some((service, name)) = key
                .strip_prefix("service.")
                .and_then(|rest| rest.rsplit_once('.'))
            else {
                continue;
            };
            let settings = services.entry(service.to_owned()).or_default();
            let refuse = |why| ConfigError::Value {
                key: key.clone(),
                why,
                origin: self.at(entry),
            };
            let text = |kind| {
                let texts = entry.value.texts(kind).map_err(refuse)?;
                Ok(texts.into_iter().next().unwrap_or_default())
            };
            let quorum = &mut settings.quorum;
            let slot = match name {
                "n" => &mut quorum.n,
                "r" => &mut quorum.r,
                "w" => &mut quorum.w,
                "last_write_wins" => {
                    let text: String = text(Switch::KIND)?;
                    settings.last_write_wins = Switch::parse(&text).map_err(refuse)?;
                    continue;
                }
                "request_timeout" => {
                    let text: String = text(ServiceTime::KIND)?;
                    settings.request_timeout = Some(ServiceTime::parse(&text).map_err(refuse)?);
                    continue;
                }
                _ => {
                    let mut demands = settings.demands.named().into_iter();
                    if let Some((_, demand)) = demands.find(|(known, _)| *known == name) {
                        let text: String = text(Demanded::KIND)?;
                        let count = Demanded::parse(&text).map_err(refuse)?;
                        *demand = u32::try_from(count).unwrap_or(u32::MAX);
                    }
                    continue;
                }
            };
            *slot = Some(Replicas::parse(&text(Replicas::KIND)?).map_err(refuse)?);
        }
        self.services = services;
        Ok(())
    }

    fn refuse_unknown(&self) -> Result<(), ConfigError> {
        for (key, entry) in &self.entries {
            let known = match key
                .strip_prefix("service.")
                .map(|rest| rest.rsplit_once('.'))
            {
                Some(Some((_, name))) => OF_A_SERVICE.contains(&name),
                // `[service.kv]` with nothing in it asks for nothing; `service = 3` is an error.
                Some(None) => matches!(entry.value, Value::Other(EMPTY_TABLE)),
                None if key == "limits" => matches!(entry.value, Value::Other(EMPTY_TABLE)),
                None => super::setting(key).is_some(),
            };
            if !known {
                return Err(ConfigError::Unknown {
                    key: key.clone(),
                    origin: self.at(entry),
                    near: nearest(key),
                });
            }
        }
        Ok(())
    }

    /// Settings of single services.
    pub(super) fn services(&self) -> BTreeMap<String, ServiceSettings> {
        self.services.clone()
    }

    /// What the file says of a setting.
    pub(super) fn values(
        &self,
        setting: &Setting,
    ) -> Result<Option<(Vec<String>, Origin)>, ConfigError> {
        let Some(entry) = self.entries.get(setting.key) else {
            return Ok(None);
        };
        let origin = self.at(entry);
        match entry.value.texts(setting.kind) {
            Ok(values) => Ok(Some((values, origin))),
            Err(why) => Err(ConfigError::Value {
                key: setting.key.into(),
                why,
                origin,
            }),
        }
    }

    /// Where a key stands in the file.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.entries
            .get(key)
            .map_or(Origin::Default, |entry| self.at(entry))
    }

    fn at(&self, entry: &Entry) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: entry.line,
        }
    }
}

const EMPTY_TABLE: &str = "a table";

impl Value {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => {
                Self::Number(number.as_str().to_owned())
            }
            // In other radixes the digits are not the number; go through the number itself.
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("a number that is too large"), |n| {
                    Self::Number(n.to_string())
                }),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Table(_) => Self::Other(EMPTY_TABLE),
            DeValue::Array(items) => {
                let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
                let texts: Option<Vec<_>> = items.iter().map(text).collect();
                texts.map_or(Self::Other("a list of other things"), Self::List)
            }
        }
    }

    /// The value as the texts that a codec takes, if TOML's type is the one to use for this kind.
    fn texts(&self, kind: Kind) -> Result<Vec<String>, String> {
        match (self, kind) {
            (Self::List(texts), Kind::List) => Ok(texts.clone()),
            (Self::Boolean(value), Kind::Switch) => Ok(vec![value.to_string()]),
            (Self::Text(text), kind) if !matches!(kind, Kind::Number | Kind::Switch) => {
                Ok(vec![text.clone()])
            }
            (Self::Number(number), Kind::Number | Kind::Size) => Ok(vec![number.clone()]),
            _ => Err(format!(
                "expected {}, found {}",
                expected(kind),
                self.name()
            )),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Switch => "true or false without quotes",
        Kind::Number => "a whole number without quotes",
        Kind::Size => "a size such as \"64MiB\"",
        Kind::Time => "a time such as \"200ms\"",
        Kind::Address => "a string such as \"127.0.0.1:7379\"",
        Kind::List => "a list of strings",
        Kind::Text | Kind::Word | Kind::Path => "a string",
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// A key that was perhaps meant: the same last word, or one that differs in a letter or two.
fn nearest(key: &str) -> Option<String> {
    let word = |key: &str| key.rsplit('.').next().unwrap_or(key).replace('-', "_");
    let wanted = word(key);
    let mut candidates: Vec<(usize, &str)> = SETTINGS
        .iter()
        .map(|setting| (distance(&wanted, &word(setting.key)), setting.key))
        .collect();
    candidates.sort_unstable();
    let (away, near) = candidates.first()?;
    (*away <= (wanted.len() / 2).min(2)).then(|| (*near).to_owned())
}

/// Levenshtein's distance, for short words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *above;
            left = cost.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
