//! PING, ECHO, HELLO, AUTH, QUIT, RESET, SELECT, TIME and WAIT.

use super::client::set_name;
use super::{After, Call, integer, lossy, wrong_arity};
use crate::resp::Protocol;
use crate::resp::value::Value;
use crate::resp::write;

const WRONGPASS: &str = "invalid username-password pair or user is disabled.";

pub(super) fn ping(call: &mut Call<'_>) -> After {
    match call.words.len() {
        1 => write::simple(call.out, "PONG"),
        2 => write::bulk(call.out, call.word(1)),
        _ => wrong_arity("ping", call.out),
    }
    After::Continue
}

pub(super) fn echo(call: &mut Call<'_>) -> After {
    write::bulk(call.out, call.word(1));
    After::Continue
}

pub(super) fn quit(call: &mut Call<'_>) -> After {
    call.ok();
    After::Close
}

pub(super) fn reset(call: &mut Call<'_>) -> After {
    call.session.reset(call.facts.password.is_none());
    write::simple(call.out, "RESET");
    After::Continue
}

pub(super) fn select(call: &mut Call<'_>) -> After {
    match integer(call.word(1)) {
        Some(0) => call.ok(),
        Some(_) => call.err("DB index is out of range"),
        None => call.err("value is not an integer or out of range"),
    }
}

pub(super) fn time(call: &mut Call<'_>) -> After {
    let now = call.facts.now_us;
    let parts = [now / 1_000_000, now % 1_000_000].map(|part| part.to_string());
    call.reply(&Value::array(parts))
}

/// How many replicas besides the coordinator have the last write: none while a node serves alone.
pub(super) fn wait(call: &mut Call<'_>) -> After {
    if integer(call.word(1)).is_none() {
        return call.err("value is not an integer or out of range");
    }
    match integer(call.word(2)) {
        None => return call.err("timeout is not an integer or out of range"),
        Some(timeout) if timeout < 0 => return call.err("timeout is negative"),
        Some(_) => {}
    }
    write::count(call.out, 0);
    After::Continue
}

pub(super) fn auth(call: &mut Call<'_>) -> After {
    let (user, password) = match call.words.len() {
        2 => (b"default".as_slice(), call.word(1)),
        3 => (call.word(1), call.word(2)),
        _ => return call.err("syntax error"),
    };
    if call.words.len() == 2 && call.facts.password.is_none() {
        return call.err(
            "AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        );
    }
    if !knows(call, user, password) {
        return call.error("WRONGPASS", WRONGPASS);
    }
    call.session.authenticated = true;
    call.ok()
}

/// Without a password there is the default user, and any password is his.
fn knows(call: &Call<'_>, user: &[u8], password: &[u8]) -> bool {
    match call.facts.password {
        Some(knows) => knows(user, password),
        None => user == b"default",
    }
}

pub(super) fn hello(call: &mut Call<'_>) -> After {
    let protocol = match call.words.get(1).map(integer) {
        None => None,
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return call.error("NOPROTO", "unsupported protocol version"),
        Some(None) => return call.err("Protocol version is not an integer or out of range"),
    };
    let (mut user, mut name, mut position) = (None, None, 2);
    while position < call.words.len() {
        let more = call.words.len() - 1 - position;
        if call.is(position, "AUTH") && more >= 2 {
            user = Some((call.word(position + 1), call.word(position + 2)));
            position += 3;
        } else if call.is(position, "SETNAME") && more >= 1 {
            name = Some(call.word(position + 1));
            position += 2;
        } else {
            let option = lossy(call.word(position));
            return call.err(&format!("Syntax error in HELLO option '{option}'"));
        }
    }
    if let Some((user, password)) = user {
        if !knows(call, user, password) {
            return call.error("WRONGPASS", WRONGPASS);
        }
        call.session.authenticated = true;
    }
    if !call.session.authenticated {
        return call.error(
            "NOAUTH",
            "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(Err(message)) = name.map(|name| set_name(call.session, name)) {
        return call.err(message);
    }
    call.session.client.protocol = protocol.unwrap_or(call.session.client.protocol);
    let introduction = introduction(call);
    call.reply(&introduction)
}

fn introduction(call: &Call<'_>) -> Value {
    let proto = match call.protocol() {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let modules = call.facts.catalog.services().iter().map(|service| {
        Value::map([
            ("name", service.name.as_str().into()),
            ("ver", Value::Int(number(&service.version))),
            ("version", service.version.as_str().into()),
        ])
    });
    Value::map([
        ("server", "vnode-host".into()),
        ("version", call.facts.version.into()),
        ("proto", Value::Int(proto)),
        (
            "id",
            Value::Int(i64::try_from(call.session.client.id).unwrap_or(i64::MAX)),
        ),
        ("mode", "standalone".into()),
        ("role", "master".into()),
        ("modules", Value::array(modules)),
    ])
}

/// A version as Redis modules number theirs: 1.2.3 is 10203. What is no number counts as 0.
fn number(version: &str) -> i64 {
    let part = |part: &str| part.parse::<i64>().unwrap_or(0).clamp(0, 99);
    let mut parts = version
        .split(['.', '-', '+'])
        .map(part)
        .chain(std::iter::repeat(0));
    parts.by_ref().take(3).fold(0, |sum, part| sum * 100 + part)
}
