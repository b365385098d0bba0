//! The typed door.

use crate::bindings::exports::vnode::host::vnode::CoveragePage;
use crate::bindings::vnode::host::store::{self, Projection};
use crate::bindings::vnode::host::types::{Command, Error, Node, Reply};
use crate::{breaks, with};

pub(crate) fn handle(command: &Command) -> Result<Reply, Error> {
    with(|memory| memory.ran += 1);
    let key = &command.args[0];
    match command.name.as_str() {
        "GET" => {
            if breaks("read-writes") {
                store::put(key, b"seen")?;
            }
            let found = if breaks("forgets") {
                with(|memory| {
                    memory.rows.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone())
                })
            } else {
                store::get(key)?
            };
            Ok(reply(found))
        }
        "SET" => {
            let value = &command.args[1];
            if breaks("binary-trap") && value.contains(&0) {
                panic!("only text on purpose");
            }
            if breaks("forgets") {
                with(|memory| memory.rows.push((key.clone(), value.clone())));
            }
            let value = if breaks("mine-only") {
                mine(value)
            } else {
                value.clone()
            };
            store::put(key, &value)?;
            Ok(vec![Node::Simple("OK".into())])
        }
        _ => {
            // Stands beside what is there; `merge` makes one of them.
            store::put_object(key, &command.args[1], &[])?;
            Ok(vec![Node::Simple("OK".into())])
        }
    }
}

pub(crate) fn list(cursor: Option<&[u8]>) -> Result<CoveragePage, Error> {
    let cursor = cursor.filter(|_| !breaks("same-cursor"));
    let page = store::scan(cursor, 100, Projection::Keys)?;
    if breaks("list-writes") {
        for row in &page.rows {
            store::delete(&row.key)?;
        }
    }
    let mut items: Vec<Node> = page.rows.into_iter().map(|row| Node::Bulk(row.key)).collect();
    if breaks("list-half") {
        items.push(Node::Array(2));
    }
    if breaks("same-cursor") {
        return Ok(CoveragePage {
            items,
            next: Some(b"again".to_vec()),
        });
    }
    Ok(CoveragePage {
        items,
        next: page.next,
    })
}

fn mine(value: &[u8]) -> Vec<u8> {
    let actor = with(|memory| memory.actor);
    [&actor.to_le_bytes(), value].concat()
}

fn reply(found: Option<Vec<u8>>) -> Reply {
    let found = match found {
        Some(value) if breaks("mine-only") => {
            let actor = with(|memory| memory.actor).to_le_bytes();
            value.strip_prefix(&actor).map(<[u8]>::to_vec)
        }
        found => found,
    };
    match found {
        _ if breaks("counts") => vec![Node::Integer(
            i64::try_from(with(|memory| memory.ran)).unwrap_or(0),
        )],
        _ if breaks("two-values") => vec![Node::Nil, Node::Nil],
        _ if breaks("no-value") => vec![],
        _ if breaks("line-break") => vec![Node::Simple("a\r\nb".into())],
        _ if breaks("deep") => {
            std::iter::repeat_n(Node::Array(1), 100_000).chain([Node::Nil]).collect()
        }
        _ if breaks("big-array") => vec![Node::Array(u32::MAX)],
        None => vec![Node::Nil],
        Some(value) => vec![Node::Bulk(value)],
    }
}
