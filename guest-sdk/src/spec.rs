//! What a vnode declares of each command, written as a constant and checked while it compiles.

/// One command, from [`read`], [`write()`], [`each`], [`coverage`], [`coverage_write`] or [`any`].
///
/// ```
/// use guest_sdk::prelude::*;
///
/// const SET: CommandSpec = write("SET").arity(3).key(1).syntax("key value").summary("Store a value");
/// const DEL: CommandSpec = write("DEL").arity(-2).keys(1, -1, 1).sum().syntax("key [key ...]");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// Upper case.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Arguments in a line, as in Redis' documentation.
    pub syntax: &'static str,
    /// Number of words with the name; -N means N or more.
    pub arity: i32,
    /// How it travels.
    pub kind: Kind,
    /// Which words are keys.
    pub keys: Option<Keys>,
    /// Whether it never looks at the values under its keys.
    pub blind: bool,
    /// What becomes of several replies.
    pub aggregate: Aggregate,
    /// Replication, if not the service's.
    pub quorum: Quorum,
}

/// How a command travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Once, on the merged view of r replicas; may not write.
    Read,
    /// Once, on the coordinating replica; what it wrote goes to the others.
    Write,
    /// On every replica; must be idempotent.
    Each,
    /// Through [`Vnode::coverage`](crate::Vnode::coverage), on a minimal set of vnodes that covers the ring; may not
    /// write.
    Coverage,
    /// Through [`Vnode::coverage`](crate::Vnode::coverage), on every vnode, and may write.
    CoverageWrite,
    /// Once; without a key on a random partition.
    Any,
}

/// Which words are keys. Positions count as Redis counts them: the command's name is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Position of the first key.
    pub first: u32,
    /// Position of the last key; -1 is the last word.
    pub last: i32,
    /// Distance from one key to the next.
    pub step: u32,
    /// Put in front of a key when it is hashed, never when it is stored.
    pub prefix: &'static str,
}

/// What several replies become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// There is only ever one.
    Single,
    /// Integers are added.
    Sum,
    /// Arrays are joined.
    Concat,
    /// The first reply, once all are ok.
    AllOk,
    /// A page of a scan with a cursor as in Redis' SCAN.
    Cursor,
}

/// Replicas of a key, and how many of them a read and a write wait for. `None` leaves it to the level above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Replicas of each key.
    pub n: Option<u32>,
    /// Replicas that a read waits for.
    pub r: Option<u32>,
    /// Replicas that a write waits for.
    pub w: Option<u32>,
}

impl Quorum {
    /// Leaves everything to the level above.
    pub const DEFAULT: Self = Self {
        n: None,
        r: None,
        w: None,
    };
}

/// A command that looks and never writes.
pub const fn read(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::Read)
}

/// A command that writes. It runs once, and its writes are replicated.
pub const fn write(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::Write)
}

/// A command that every replica runs for itself; it must be idempotent.
pub const fn each(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::Each)
}

/// A command that looks at the whole ring.
pub const fn coverage(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::Coverage)
}

/// A command that visits every vnode and may write there.
pub const fn coverage_write(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::CoverageWrite)
}

/// A command that needs no key.
pub const fn any(name: &'static str) -> CommandSpec {
    CommandSpec::new(name, Kind::Any)
}

impl CommandSpec {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            summary: "",
            syntax: "",
            arity: 0,
            kind,
            keys: None,
            blind: false,
            aggregate: Aggregate::Single,
            quorum: Quorum::DEFAULT,
        }
    }

    /// Number of words with the name; -N means N or more.
    pub const fn arity(mut self, words: i32) -> Self {
        self.arity = words;
        self
    }

    /// The one key stands at this position; the name is 0.
    #[expect(
        clippy::cast_possible_wrap,
        reason = "`check` refuses a position that wraps"
    )]
    pub const fn key(self, position: u32) -> Self {
        self.keys(position, position as i32, 1)
    }

    /// Keys stand from `first` to `last` (-1 is the last word), `step` apart.
    pub const fn keys(mut self, first: u32, last: i32, step: u32) -> Self {
        self.keys = Some(Keys {
            first,
            last,
            step,
            prefix: "",
        });
        self
    }

    /// Hashes the key with `prefix` in front.
    pub const fn prefix(mut self, prefix: &'static str) -> Self {
        if let Some(keys) = &mut self.keys {
            keys.prefix = prefix;
        }
        self
    }

    /// Never looks at the values under its keys, as a plain SET: the host spares fetching them. A blind command that
    /// does look gets the right answer, only slower.
    pub const fn blind(mut self) -> Self {
        self.blind = true;
        self
    }

    /// Arguments in a line, such as `key [COUNT count]`.
    pub const fn syntax(mut self, syntax: &'static str) -> Self {
        self.syntax = syntax;
        self
    }

    /// One line for people.
    pub const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Adds the replies, which are integers.
    pub const fn sum(mut self) -> Self {
        self.aggregate = Aggregate::Sum;
        self
    }

    /// Joins the replies, which are arrays.
    pub const fn concat(mut self) -> Self {
        self.aggregate = Aggregate::Concat;
        self
    }

    /// Answers the first reply once all are ok.
    pub const fn all_ok(mut self) -> Self {
        self.aggregate = Aggregate::AllOk;
        self
    }

    /// Pages like Redis' SCAN: the host keeps the cursor that the client sees as argument 1.
    pub const fn cursor(mut self) -> Self {
        self.aggregate = Aggregate::Cursor;
        self
    }

    /// Replicas of the key.
    pub const fn n(mut self, replicas: u32) -> Self {
        self.quorum.n = Some(replicas);
        self
    }

    /// Replicas that a read waits for.
    pub const fn r(mut self, replicas: u32) -> Self {
        self.quorum.r = Some(replicas);
        self
    }

    /// Replicas that a write waits for.
    pub const fn w(mut self, replicas: u32) -> Self {
        self.quorum.w = Some(replicas);
        self
    }

    /// Whether a call of so many words, the name included, agrees with the arity.
    pub const fn takes(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            words >= arity
        } else {
            words == arity
        }
    }

    /// Whether running it may change what is stored.
    pub const fn writes(&self) -> bool {
        matches!(self.kind, Kind::Write | Kind::Each | Kind::CoverageWrite)
    }

    /// Whether it runs through [`Vnode::coverage`](crate::Vnode::coverage).
    pub const fn covers(&self) -> bool {
        matches!(self.kind, Kind::Coverage | Kind::CoverageWrite)
    }

    /// Positions of the keys in a call of so many words, the name included.
    pub fn key_positions(&self, words: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let (first, last, step) = match self.keys {
            None => (1, 0, 1),
            Some(keys) => {
                let last = match usize::try_from(keys.last) {
                    Ok(position) => position.min(words.saturating_sub(1)),
                    Err(_) => words.saturating_sub(keys.last.unsigned_abs() as usize),
                };
                (keys.first as usize, last, keys.step.max(1) as usize)
            }
        };
        (first..=last).step_by(step)
    }

    /// What does not fit together. The host refuses the same things when it loads the guest.
    pub(crate) const fn flaw(&self) -> Option<&'static str> {
        if !is_name(self.name, true) {
            return Some(
                "a command's name must be 1 to 32 of A-Z, 0-9, `.`, `-` or `_`, starting with a letter",
            );
        }
        if self.arity == 0 {
            return Some(
                "a command has no arity: add .arity(words), the name included; -N means N or more",
            );
        }
        let keyed = matches!(self.kind, Kind::Read | Kind::Write | Kind::Each);
        match self.keys {
            None if keyed => {
                return Some("a read, write or each command has no key: add .key(position)");
            }
            None if self.blind => return Some("only a command with keys can be .blind()"),
            Some(_) if self.covers() => return Some("a coverage command has no keys"),
            Some(keys) if keys.first == 0 || keys.first > 0xffff || keys.step == 0 => {
                return Some("key positions start at 1 and steps are at least 1");
            }
            Some(keys) if keyed && self.arity.unsigned_abs() <= keys.first => {
                return Some("a command's arity leaves no room for its key");
            }
            _ => {}
        }
        match self.aggregate {
            Aggregate::Single if self.covers() => Some(
                "a coverage command has no aggregate: add .sum(), .concat(), .all_ok() or .cursor()",
            ),
            Aggregate::Cursor if !matches!(self.kind, Kind::Coverage) => {
                Some("only a coverage command can have .cursor()")
            }
            Aggregate::Cursor if !self.takes(2) => {
                Some("a command with .cursor() needs argument 1 for the cursor")
            }
            _ => None,
        }
    }
}

/// Whether the host takes the name: of a command (upper case) or of a service.
pub(crate) const fn is_name(name: &str, command: bool) -> bool {
    let mut rest = name.as_bytes();
    if rest.is_empty() || rest.len() > 32 {
        return false;
    }
    let mut first = true;
    while let [byte, tail @ ..] = rest {
        let letter = byte.is_ascii_uppercase() || (!command && byte.is_ascii_lowercase());
        let other =
            byte.is_ascii_digit() || matches!(*byte, b'-' | b'_') || (command && *byte == b'.');
        if !letter && (first || !other) {
            return false;
        }
        first = false;
        rest = tail;
    }
    true
}

/// The first thing wrong with a list of commands.
pub(crate) const fn flaw(commands: &[CommandSpec]) -> Option<&'static str> {
    if commands.is_empty() || commands.len() > 256 {
        return Some("COMMANDS must list 1 to 256 commands");
    }
    let mut rest = commands;
    while let [spec, tail @ ..] = rest {
        if let Some(why) = spec.flaw() {
            return Some(why);
        }
        let mut others = tail;
        while let [other, more @ ..] = others {
            if same(spec.name.as_bytes(), other.name.as_bytes()) {
                return Some("COMMANDS lists a name twice");
            }
            others = more;
        }
        rest = tail;
    }
    None
}

/// Whether any of the commands may write.
pub(crate) const fn any_writes(commands: &[CommandSpec]) -> bool {
    let mut rest = commands;
    while let [spec, tail @ ..] = rest {
        if spec.writes() {
            return true;
        }
        rest = tail;
    }
    false
}

const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    loop {
        match (a, b) {
            ([], []) => return true,
            ([x, rest_a @ ..], [y, rest_b @ ..]) if *x == *y => {
                a = rest_a;
                b = rest_b;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_positions_count_as_redis_counts() {
        let positions = |spec: CommandSpec, words| spec.key_positions(words).collect::<Vec<_>>();
        assert_eq!(positions(read("GET").key(1), 2), [1]);
        assert_eq!(positions(write("DEL").keys(1, -1, 1), 4), [1, 2, 3]);
        assert_eq!(positions(write("MSET").keys(1, -1, 2), 5), [1, 3]);
        assert_eq!(positions(read("X").keys(1, -2, 1), 4), [1, 2]);
        assert_eq!(positions(any("PING").key(1), 1), [0; 0]);
    }

    #[test]
    fn flaws_are_found() {
        assert_eq!(read("GET").arity(2).key(1).flaw(), None);
        assert_eq!(coverage("SCAN").arity(-2).cursor().flaw(), None);
        let bad = [
            read("get").arity(2).key(1),
            read("").arity(2).key(1),
            read("GET").key(1),
            read("GET").arity(2),
            read("GET").arity(2).key(0),
            read("GET").arity(2).key(2),
            coverage("KEYS").arity(1),
            coverage("KEYS").arity(2).key(1).sum(),
            coverage("SCAN").arity(1).cursor(),
            read("GET").arity(2).key(1).cursor(),
        ];
        for spec in bad {
            assert!(spec.flaw().is_some(), "{spec:?}");
        }
        assert!(flaw(&[]).is_some());
        assert!(flaw(&[any("A").arity(1), any("A").arity(1)]).is_some());
    }
}
