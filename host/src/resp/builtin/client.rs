//! CLIENT and its subcommands.

use super::{After, Call, integer};
use crate::resp::Protocol;
use crate::resp::catalog::Target;
use crate::resp::facts::Facts;
use crate::resp::session::{ClientInfo, Replies, Session};
use crate::resp::write;

pub(super) fn id(call: &mut Call<'_>) -> After {
    write::int(
        call.out,
        i64::try_from(call.session.client.id).unwrap_or(i64::MAX),
    );
    After::Continue
}

pub(super) fn getname(call: &mut Call<'_>) -> After {
    match call.session.client.name.as_str() {
        "" => write::nil(call.out, call.session.protocol()),
        name => write::bulk(call.out, name.as_bytes()),
    }
    After::Continue
}

pub(super) fn setname(call: &mut Call<'_>) -> After {
    match set_name(call.session, call.word(2)) {
        Ok(()) => call.ok(),
        Err(message) => call.err(message),
    }
}

/// Names the connection; refuses what would break the lines of CLIENT LIST.
pub(super) fn set_name(session: &mut Session, name: &[u8]) -> Result<(), &'static str> {
    session.client.name =
        plain(name).ok_or("Client names cannot contain spaces, newlines or special characters.")?;
    Ok(())
}

fn plain(word: &[u8]) -> Option<String> {
    let plain = word.iter().all(u8::is_ascii_graphic);
    plain.then(|| word.iter().copied().map(char::from).collect())
}

pub(super) fn setinfo(call: &mut Call<'_>) -> After {
    let attribute = if call.is(2, "lib-name") {
        "lib-name"
    } else if call.is(2, "lib-ver") {
        "lib-ver"
    } else {
        let option = super::lossy(call.word(2));
        return call.err(&format!("Unrecognized option '{option}'"));
    };
    let Some(value) = plain(call.word(3)) else {
        let flaw = "cannot contain spaces, newlines or special characters.";
        return call.err(&format!("{attribute} {flaw}"));
    };
    match attribute {
        "lib-name" => call.session.client.lib_name = value,
        _ => call.session.client.lib_ver = value,
    }
    call.ok()
}

pub(super) fn info(call: &mut Call<'_>) -> After {
    let text = line(&call.session.client, call.facts);
    call.text(&text)
}

pub(super) fn list(call: &mut Call<'_>) -> After {
    let mut ids = None;
    match call.words.len() {
        2 => {}
        4 if call.is(2, "TYPE") => match has_type(call.word(3)) {
            Some(true) => {}
            Some(false) => ids = Some(Vec::new()),
            None => return unknown_type(call, 3),
        },
        4.. if call.is(2, "ID") => {
            let words = call.words.skip(3);
            let wanted: Option<Vec<u64>> = words.iter().map(client_id).collect();
            match wanted {
                Some(wanted) => ids = Some(wanted),
                None => return call.err("Invalid client ID"),
            }
        }
        _ => return call.err("syntax error"),
    }
    let text: String = clients(call)
        .iter()
        .filter(|client| ids.as_ref().is_none_or(|ids| ids.contains(&client.id)))
        .map(|client| line(client, call.facts))
        .collect();
    call.text(&text)
}

pub(super) fn kill(call: &mut Call<'_>) -> After {
    if call.words.len() == 3 {
        return kill_address(call);
    }
    let own = call.session.client.id;
    let mut victims = clients(call);
    let mut spares_itself = true;
    let mut position = 2;
    while position < call.words.len() {
        let Some(value) = call.words.get(position + 1) else {
            return call.err("syntax error");
        };
        if call.is(position, "ID") {
            let Some(id) = client_id(value) else {
                return call.err("client-id should be greater than 0");
            };
            victims.retain(|client| client.id == id);
        } else if call.is(position, "ADDR") {
            victims.retain(|client| client.addr.as_bytes() == value);
        } else if call.is(position, "LADDR") {
            victims.retain(|client| client.laddr.as_bytes() == value);
        } else if call.is(position, "USER") {
            if value != b"default" {
                let user = super::lossy(value);
                return call.err(&format!("No such user '{user}'"));
            }
        } else if call.is(position, "TYPE") {
            match has_type(value) {
                Some(true) => {}
                Some(false) => victims.clear(),
                None => return unknown_type(call, position + 1),
            }
        } else if call.is(position, "SKIPME") && value.eq_ignore_ascii_case(b"yes") {
            spares_itself = true;
        } else if call.is(position, "SKIPME") && value.eq_ignore_ascii_case(b"no") {
            spares_itself = false;
        } else {
            return call.err("syntax error");
        }
        position += 2;
    }
    victims.retain(|client| !(spares_itself && client.id == own));
    write::count(call.out, victims.len());
    after(&victims)
}

/// The form up to Redis 2.8: one address, and the client itself is not spared.
fn kill_address(call: &mut Call<'_>) -> After {
    let mut victims = clients(call);
    victims.retain(|client| client.addr.as_bytes() == call.word(2));
    if victims.is_empty() {
        return call.err("No such client");
    }
    call.ok();
    after(&victims)
}

fn after(victims: &[ClientInfo]) -> After {
    match victims {
        [] => After::Continue,
        victims => After::Kill(victims.iter().map(|client| client.id).collect()),
    }
}

pub(super) fn no_evict(call: &mut Call<'_>) -> After {
    match switch(call) {
        Some(on) => call.session.client.no_evict = on,
        None => return call.err("syntax error"),
    }
    call.ok()
}

pub(super) fn no_touch(call: &mut Call<'_>) -> After {
    match switch(call) {
        Some(on) => call.session.client.no_touch = on,
        None => return call.err("syntax error"),
    }
    call.ok()
}

fn switch(call: &Call<'_>) -> Option<bool> {
    match (call.is(2, "ON"), call.is(2, "OFF")) {
        (false, false) => None,
        (on, _) => Some(on),
    }
}

pub(super) fn reply(call: &mut Call<'_>) -> After {
    if call.is(2, "ON") {
        call.session.replies = Replies::All;
        return call.ok();
    }
    if call.is(2, "OFF") {
        call.session.replies = Replies::None;
    } else if !call.is(2, "SKIP") {
        return call.err("syntax error");
    } else if call.session.replies != Replies::None {
        call.session.replies = Replies::AllBut(2);
    }
    After::Continue
}

pub(super) fn help(call: &mut Call<'_>) -> After {
    call.help(
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are: ID, ADDR, LADDR, USER, TYPE, SKIPME (YES|NO).",
            "LIST [options ...]",
            "    Return information about client connections. Options: TYPE <type>, ID <id> [<id> ...].",
            "NO-EVICT (ON|OFF)",
            "    Accepted; no connection is evicted.",
            "NO-TOUCH (ON|OFF)",
            "    Accepted; reads age nothing.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Say which library the client uses.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
        ],
    )
}

/// All connections, this one as it is now.
fn clients(call: &Call<'_>) -> Vec<ClientInfo> {
    let own = &call.session.client;
    let mut clients = (call.facts.clients)();
    match clients.iter_mut().find(|client| client.id == own.id) {
        Some(client) => client.clone_from(own),
        None => clients.push(own.clone()),
    }
    clients
}

fn client_id(word: &[u8]) -> Option<u64> {
    u64::try_from(integer(word)?).ok().filter(|id| *id > 0)
}

/// Whether our connections are of that type: all are normal ones. `None` for a type that Redis does not know either.
fn has_type(word: &[u8]) -> Option<bool> {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if ["master", "replica", "slave", "pubsub"].into_iter().any(is) {
        return Some(false);
    }
    is("normal").then_some(true)
}

fn unknown_type(call: &mut Call<'_>, position: usize) -> After {
    let kind = super::lossy(call.word(position));
    call.err(&format!("Unknown client type '{kind}'"))
}

/// One line of CLIENT LIST, with the fields of Redis that mean something here.
fn line(client: &ClientInfo, facts: &Facts<'_>) -> String {
    let seconds_since = |ms: u64| facts.now_ms().saturating_sub(ms) / 1000;
    let flags: String = [(client.no_evict, 'e'), (client.no_touch, 'T')]
        .iter()
        .filter_map(|(set, flag)| set.then_some(*flag))
        .collect();
    let last = match client.last {
        None => "NULL".to_owned(),
        Some(Target::Builtin(builtin)) => builtin.name.to_owned(),
        Some(Target::Guest(guest)) => match facts.catalog.guest(guest) {
            Some((service, spec)) => format!("{}.{}", service.name, spec.name).to_ascii_lowercase(),
            None => "unknown".to_owned(),
        },
    };
    let resp = match client.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    format!(
        "id={} addr={} laddr={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi=-1 events=r cmd={last} \
         user=default redir=-1 resp={resp} lib-name={} lib-ver={}\n",
        client.id,
        client.addr,
        client.laddr,
        client.name,
        seconds_since(client.created_ms),
        seconds_since(client.active_ms),
        if flags.is_empty() { "N" } else { &flags },
        client.lib_name,
        client.lib_ver,
    )
}
