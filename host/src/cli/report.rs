//! How an error looks: what, where, next; and which exit code it gives.

use std::fmt;

use super::client::ClientError;
use crate::config::ConfigError;

/// What the process says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// It was asked wrongly.
    Usage = 2,
    /// The node or cluster is not well.
    Unhealthy = 3,
    /// `--wait` ran out.
    WaitRanOut = 4,
    /// Refused as things are, such as a stale plan.
    Refused = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the command line itself.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    place: Option<String>,
    next: Option<String>,
}

impl Failure {
    /// It did not work.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            what: what.into(),
            place: None,
            next: None,
        }
    }

    /// It was asked wrongly.
    pub fn usage(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(what)
        }
    }

    /// It is not done without more.
    pub fn refused(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::Refused,
            ..Self::new(what)
        }
    }

    /// It did not happen in time.
    pub fn ran_out(what: impl Into<String>) -> Self {
        Self {
            exit: Exit::WaitRanOut,
            ..Self::new(what)
        }
    }

    /// Where: a file, an address.
    #[must_use]
    pub fn place(self, place: impl fmt::Display) -> Self {
        Self {
            place: Some(place.to_string()),
            ..self
        }
    }

    /// What to do now.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (label, text) in [("in", &self.place), ("next", &self.next)] {
            if let Some(text) = text {
                write!(f, "\n  {label}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The lines for an error: what went wrong with all its causes, then where, then what to do.
///
/// Any error of the chain may end its message with lines `  in: …` and `  next: …`; they are moved behind the causes.
/// Of several, the innermost `in` and the outermost `next` stay.
pub fn render(error: &anyhow::Error) -> String {
    let (mut what, mut place, mut next): (Vec<String>, _, _) = (Vec::new(), None, None);
    for cause in error.chain() {
        let text = cause.to_string();
        let mut own: Vec<&str> = Vec::new();
        for line in text.lines() {
            let bare = line.trim_start();
            if let Some(rest) = bare.strip_prefix("in: ").filter(|_| bare != line) {
                place = Some(rest.to_owned());
            } else if let Some(rest) = bare.strip_prefix("next: ").filter(|_| bare != line) {
                next = next.or_else(|| Some(rest.to_owned()));
            } else {
                own.push(line);
            }
        }
        let own = own.join("\n");
        // Some libraries repeat their cause in their own message.
        if !what.last().is_some_and(|outer| outer.contains(&own)) {
            what.push(own);
        }
    }
    let mut lines = format!("error: {}", what.join(": "));
    if let Some(place) = place {
        lines.push_str(&format!("\n  in: {place}"));
    }
    if let Some(next) = next.or_else(|| default_next(error)) {
        lines.push_str(&format!("\n  next: {next}"));
    }
    lines
}

fn default_next(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<ConfigError>()? {
        ConfigError::Read { .. } => {
            Some("give --config a file that can be read; `host config default` prints one".into())
        }
        ConfigError::Syntax { .. } | ConfigError::Unknown { .. } => {
            Some("`host config default` prints a file with every setting".into())
        }
        ConfigError::Value { .. } => Some("`host run --help` explains every setting".into()),
    }
}

/// The exit code for an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    if error.downcast_ref::<ConfigError>().is_some() {
        return Exit::Usage;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { status: 409, .. }) => Exit::Refused,
        Some(ClientError::Endpoint { .. }) => Exit::Usage,
        _ => Exit::Failed,
    }
}
