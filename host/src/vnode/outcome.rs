//! What a version made of a command, and in what two of them differ.

use std::collections::BTreeMap;

use vnode_ring::rollout::shadow::{Difference, Side};

use super::request::Request;
use crate::descriptor::CommandSpec;
use crate::resp::value::Value;
use crate::resp::wire::ReplyLimits;
use crate::wasm::{Answer, VnodeState, sanitize_refusal};

/// Letters of an example that are shown.
const SHOWN_MAX: usize = 100;

/// Bytes of a reply that is shown as the value that it is, not as it stands on the wire.
const READ_MAX: usize = 4096;
/// Letters that are shown of what two texts have in common before they part.
const ALIKE_SHOWN: usize = 10;

/// One RESP3 value, or first word and rest of an error.
type Reply = Result<Vec<u8>, (String, String)>;

/// What a version made of a command.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    /// What the client gets.
    pub(super) reply: Reply,
    /// The keys that it writes, with the values that are there then; none if the key is deleted.
    pub(super) effects: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Outcome {
    /// What an answer of the packed door says. Its values are as its vnode would store them: two versions may write different schemas
    /// and leave the same. None if that cannot be told.
    pub(super) fn of_answer(
        vnode: &mut VnodeState,
        spec: &CommandSpec,
        request: &Request,
        answer: &Answer<'_>,
    ) -> Option<Outcome> {
        let mut outcome = Outcome {
            reply: Ok(Vec::new()),
            effects: BTreeMap::new(),
        };
        match answer {
            Answer::Deferred => {}
            Answer::Error { code, message } => {
                let text = String::from_utf8_lossy;
                outcome.reply = Err(sanitize_refusal(&text(code), &text(message)));
            }
            Answer::Ok { effects, reply } => {
                outcome.reply = Ok(reply.to_vec());
                let words = request.words.len();
                for effect in *effects {
                    let position = spec.key_positions(words).nth(effect.key);
                    let key = position.map_or(b"".as_slice(), |at| request.words.get(at));
                    let value = vnode.as_stored(key, effect.value).ok()?;
                    outcome
                        .effects
                        .insert(key.to_vec(), value.into_iter().collect());
                }
            }
        }
        Some(outcome)
    }

    /// Without the deletions of what is not there: they do nothing, and the typed door does not even mention them.
    pub(super) fn on_rows_of(mut self, vnode: &mut VnodeState) -> Outcome {
        self.effects.retain(|key, values| {
            let hash = vnode.placement().hash_of(key);
            let there = vnode.read_committed(hash, key, &mut Vec::new());
            !values.is_empty() || there.unwrap_or(true)
        });
        self
    }

    /// In what the shadow's outcome differs from this one.
    pub(super) fn differences(
        &self,
        shadow: &Outcome,
        spec: &CommandSpec,
        request: &Request,
    ) -> Vec<Difference> {
        let mut found = Vec::new();
        let words = &request.words;
        let key = spec.key_positions(words.len()).next();
        let key = key.map_or_else(String::new, |at| shown(words.get(at)));
        let mut differ = |what, running: String, shadow: String| {
            let from = parting(&running, &shadow);
            let (running, shadow) = (cut_from(&running, from), cut_from(&shadow, from));
            found.push(Difference {
                command: spec.name.clone(),
                key: key.clone(),
                what,
                running,
                shadow,
            });
        };
        if !same_reply(&self.reply, &shadow.reply) {
            differ(
                Side::Reply,
                reply_text(&self.reply),
                reply_text(&shadow.reply),
            );
        }
        if self.effects != shadow.effects {
            let keys = self.effects.keys().chain(shadow.effects.keys());
            let other = |key: &&Vec<u8>| self.effects.get(*key) != shadow.effects.get(*key);
            if let Some(key) = keys.into_iter().find(other) {
                let of = |outcome: &Outcome| effect_text(key, outcome.effects.get(key));
                differ(Side::Effects, of(self), of(shadow));
            }
        }
        found
    }
}

/// Whether two replies mean the same: the doors may write one value in more than one way.
fn same_reply(one: &Reply, other: &Reply) -> bool {
    let value = |reply: &[u8]| Value::parse(reply, &ReplyLimits::default()).ok();
    match (one, other) {
        (Ok(one), Ok(other)) if one != other => {
            let (one, other) = (value(one), value(other));
            one.is_some() && one == other
        }
        (one, other) => one == other,
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        // To read it is not worth the time, since hardly any of it is shown.
        Ok(reply) if reply.len() > READ_MAX => escaped(reply),
        Ok(reply) => match Value::parse(reply, &ReplyLimits::default()) {
            Ok(value) => value.to_json().to_string(),
            Err(_) => "what is no reply".into(),
        },
        Err((code, message)) => format!("{code} {message}"),
    }
}

fn effect_text(key: &[u8], values: Option<&Vec<Vec<u8>>>) -> String {
    match values.map(Vec::as_slice) {
        None => format!("nothing to {}", shown(key)),
        Some([]) => format!("deletes {}", shown(key)),
        Some(values) => {
            let values: Vec<String> = values.iter().map(|value| escaped(value)).collect();
            format!("{} = {}", shown(key), values.join(", "))
        }
    }
}

/// Foreign bytes for people, as far as they are looked at.
fn escaped(bytes: &[u8]) -> String {
    let escaped = bytes.escape_ascii().map(char::from);
    escaped.take(READ_MAX).collect()
}

/// The same, cut to what is shown.
fn shown(bytes: &[u8]) -> String {
    cut(&escaped(bytes))
}

/// From which letter on two texts are worth showing: a few before they part, or the first if they part soon.
fn parting(one: &str, other: &str) -> usize {
    let same = one
        .chars()
        .zip(other.chars())
        .take_while(|(one, other)| one == other);
    let same = same.count();
    match same < SHOWN_MAX / 2 {
        true => 0,
        false => same - ALIKE_SHOWN,
    }
}

/// A text from that letter on, cut to what is shown.
fn cut_from(text: &str, from: usize) -> String {
    let rest: String = text.chars().skip(from).collect();
    match from {
        0 => cut(&rest),
        _ => format!("…{}", cut(&rest)),
    }
}

fn cut(text: &str) -> String {
    let escaped = text.chars().flat_map(|letter| match letter.is_control() {
        true => letter.escape_default().collect::<Vec<_>>(),
        false => vec![letter],
    });
    let mut some: String = escaped.clone().take(SHOWN_MAX).collect();
    if escaped.count() > SHOWN_MAX {
        some.push('…');
    }
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(bytes: &str) -> Reply {
        Ok(bytes.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_compared_by_what_they_mean() {
        assert!(same_reply(&reply(":5\r\n"), &reply(":5\r\n")));
        assert!(same_reply(&reply(",5\r\n"), &reply(",5.0\r\n")));
        assert!(!same_reply(&reply(":5\r\n"), &reply(":6\r\n")));
        assert!(!same_reply(&reply("no reply"), &reply("none either")));
        let refused = |message: &str| Err(("ERR".to_owned(), message.to_owned()));
        assert!(same_reply(&refused("no"), &refused("no")));
        assert!(!same_reply(&refused("no"), &refused("never")));
        assert!(!same_reply(&refused("no"), &reply(":5\r\n")));
    }

    #[test]
    fn what_is_foreign_is_escaped_and_cut() {
        assert_eq!(shown(b"k\n\xff"), "k\\n\\xff");
        let long = "x".repeat(1000);
        assert_eq!(shown(long.as_bytes()).chars().count(), SHOWN_MAX + 1);
        let value = format!("${}\r\n{long}\r\n", long.len());
        let text = reply_text(&reply(&value));
        let text = cut_from(&text, 0);
        assert!(text.starts_with("\"xxx") && text.ends_with('…'), "{text}");
        assert_eq!(reply_text(&reply("_\r\n")), "null");
    }

    #[test]
    fn two_texts_are_shown_from_where_they_part() {
        let shown = |one: &str, other: &str| {
            let from = parting(one, other);
            (cut_from(one, from), cut_from(other, from))
        };
        assert_eq!(shown("left", "right"), ("left".into(), "right".into()));
        let (zeros, long) = ("0".repeat(500), "x".repeat(500));
        let (one, other) = shown(&format!("{zeros}1{long}"), &format!("{zeros}2"));
        assert_eq!(other, "…00000000002");
        assert!(
            one.starts_with("…00000000001x") && one.ends_with("x…"),
            "{one}"
        );
    }

    #[test]
    fn an_effect_is_a_value_a_deletion_or_nothing() {
        let values = [b"1".to_vec(), b"2".to_vec()];
        assert_eq!(effect_text(b"k", Some(&values.to_vec())), "k = 1, 2");
        assert_eq!(effect_text(b"k", Some(&Vec::new())), "deletes k");
        assert_eq!(effect_text(b"k", None), "nothing to k");
    }
}
