//! Where a command prints: the writer, the format that was asked for, and colours.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::args::{Color, Format, Global};
use super::client::{Client, ClientError};

/// How long a node may take to answer when nobody says.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// What a command needs from the command line besides its own arguments.
pub struct Session<'a> {
    /// Standard output, or a buffer in tests.
    pub out: &'a mut dyn Write,
    global: &'a Global,
    colours: bool,
    live: bool,
}

impl<'a> Session<'a> {
    /// A session that prints to `out`.
    pub fn new(global: &'a Global, out: &'a mut dyn Write) -> Self {
        Self {
            out,
            global,
            colours: colours(global.color),
            live: global.color != Color::Never && !dumb() && std::io::stdout().is_terminal(),
        }
    }

    /// Options of every command.
    pub(super) fn global(&self) -> &Global {
        self.global
    }

    /// The node to ask.
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        self.client_within(self.timeout().unwrap_or(ANSWER))
    }

    /// The node to ask, where an answer may take so long.
    pub(super) fn client_within(&self, timeout: Duration) -> Result<Client, ClientError> {
        Client::new(&self.global.endpoint, timeout)
    }

    /// The time that was asked for.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.global.timeout
    }

    /// Whether lines may be drawn over: on a terminal that can, unless everything is to be plain.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether JSON was asked for.
    pub(super) fn wants_json(&self) -> bool {
        self.global.format == Format::Json
    }

    /// Prints text as it is.
    pub(super) fn print(&mut self, text: &str) -> anyhow::Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Prints a value as JSON.
    pub(super) fn print_json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.print(&format!("{text}\n"))
    }

    /// Text that says all is well.
    pub(super) fn good(&self, text: &str) -> String {
        self.painted("32", text)
    }

    /// Text that asks for attention.
    pub(super) fn bad(&self, text: &str) -> String {
        self.painted("31", text)
    }

    /// Text that stands out.
    pub(super) fn strong(&self, text: &str) -> String {
        self.painted("1", text)
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether output has colours: as asked, else on a terminal that can and where nobody objects.
pub(super) fn colours(wish: Color) -> bool {
    match wish {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb()
        }
    }
}

/// Whether the terminal can only print lines.
fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
