//! Redis' glob patterns: `*`, `?`, `[a-z]`, `[^a]` and backslash, as CONFIG GET and COMMAND LIST take them.
//!
//! Never recurses: the time is bounded by pattern times text, whatever the pattern.

/// Whether the whole text matches, whatever its case.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when a later part fails: after the last star, one more byte of text given to it.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            star = Some((after, text));
            pattern = after;
            continue;
        }
        match (text, step(pattern, text.first().copied())) {
            ([], _) => return pattern.is_empty(),
            ([_, rest @ ..], Some(after)) => (pattern, text) = (after, rest),
            _ => match star {
                Some((after, [_, rest @ ..])) => {
                    star = Some((after, rest));
                    (pattern, text) = (after, rest);
                }
                _ => return false,
            },
        }
    }
}

/// What is left of the pattern when its first element takes that byte.
fn step(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?.to_ascii_lowercase();
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (literal.to_ascii_lowercase() == byte).then_some(rest)
        }
        [] => None,
    }
}

/// What is left after a class whose opening bracket is gone; a class that never closes ends with the pattern.
fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b']', after @ ..] => return (found != negated).then_some(after),
            [] => return (found != negated).then_some(rest),
            [b'\\', literal, after @ ..] => {
                found |= literal.to_ascii_lowercase() == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= literal.to_ascii_lowercase() == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let table = [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*a*b*", "xxaybz", true),
            ("h?llo", "hello", true),
            ("h[a-e]llo", "hallo", true),
            ("h[^a]llo", "hallo", false),
            ("h[^a]llo", "hello", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("APP*only", "appendonly", true),
            ("[ab", "a", true),
            ("*\\", "a\\", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
        let hostile = "a*".repeat(1000);
        assert!(!matches(
            format!("{hostile}b").as_bytes(),
            "a".repeat(10_000).as_bytes()
        ));
    }
}
