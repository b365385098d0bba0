//! What one connection is: who is behind it and how it wants its replies.
//!
//! Plain data that the listener owns and that [`super::builtin`] reads and changes. Never holds the socket.

use super::Protocol;
use super::catalog::Target;

/// One connection, as [`super::builtin::dispatch`] needs it.
#[derive(Clone, Debug)]
pub struct Session {
    /// What CLIENT LIST shows of it.
    pub client: ClientInfo,
    /// Whether it may run commands; starts true where no password is set.
    pub authenticated: bool,
    pub(super) replies: Replies,
}

/// What CLIENT LIST shows of one connection.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Unique on the node.
    pub id: u64,
    /// The client's address and port.
    pub addr: String,
    /// Our address and port.
    pub laddr: String,
    /// Set by CLIENT SETNAME or HELLO; empty when not.
    pub name: String,
    /// Set by CLIENT SETINFO; empty when not.
    pub lib_name: String,
    /// Set by CLIENT SETINFO; empty when not.
    pub lib_ver: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// When it connected, milliseconds since 1970.
    pub created_ms: u64,
    /// When its last command arrived, milliseconds since 1970.
    pub active_ms: u64,
    /// Its last command.
    pub last: Option<Target>,
    /// Set by CLIENT NO-EVICT. Kept for clients that ask; we evict nobody.
    pub no_evict: bool,
    /// Set by CLIENT NO-TOUCH. Kept for clients that ask; nothing here ages by reads.
    pub no_touch: bool,
}

/// Which replies go out: CLIENT REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    All,
    None,
    /// All but those of so many commands, the present one counted.
    AllBut(u8),
}

impl Session {
    /// A connection that has just been accepted.
    pub fn new(id: u64, addr: String, laddr: String, now_ms: u64) -> Self {
        Self {
            client: ClientInfo {
                id,
                addr,
                laddr,
                name: String::new(),
                lib_name: String::new(),
                lib_ver: String::new(),
                protocol: Protocol::default(),
                created_ms: now_ms,
                active_ms: now_ms,
                last: None,
                no_evict: false,
                no_touch: false,
            },
            authenticated: true,
            replies: Replies::All,
        }
    }

    /// What it speaks now.
    pub fn protocol(&self) -> Protocol {
        self.client.protocol
    }

    /// Whether the reply to the command just dispatched goes out. Call it once for each command, right after
    /// `dispatch`; where it says no, drop the command's reply.
    pub fn sends_reply(&mut self) -> bool {
        match self.replies {
            Replies::All => true,
            Replies::None => false,
            Replies::AllBut(commands) => {
                self.replies = match commands.saturating_sub(1) {
                    0 => Replies::All,
                    left => Replies::AllBut(left),
                };
                false
            }
        }
    }

    /// Back to what it was when it connected: RESET.
    pub(super) fn reset(&mut self, authenticated: bool) {
        self.client.name.clear();
        self.client.protocol = Protocol::default();
        self.client.no_evict = false;
        self.client.no_touch = false;
        self.replies = Replies::All;
        self.authenticated = authenticated;
    }
}
