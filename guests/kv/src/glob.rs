//! Redis' patterns: `*`, `?`, `[abc]`, `[a-z]`, `[^x]`, and `\` in front of a byte that stands for itself.
//!
//! Time is at most the product of the two lengths: after a mismatch only the last `*` takes one more byte.

/// Whether all of `text` matches `pattern`.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // What to try again when the rest fails: the pattern after the last `*`, and the text that it did not take yet.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        match (text, one(pattern, text)) {
            (_, Some((pattern_rest, text_rest))) => (pattern, text) = (pattern_rest, text_rest),
            ([], None) if pattern.is_empty() => return true,
            _ => match retry {
                Some((after_star, [_, left @ ..])) => {
                    retry = Some((after_star, left));
                    (pattern, text) = (after_star, left);
                }
                _ => return false,
            },
        }
    }
}

/// Matches one byte of `text` with one element of `pattern`, which is not a `*`; what is left of both.
fn one<'a>(pattern: &'a [u8], text: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (byte, text) = text.split_first()?;
    let (fits, pattern) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', rest @ ..] => {
            let (fits, rest) = class(rest, *byte);
            (!fits, rest)
        }
        [b'[', rest @ ..] => class(rest, *byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (literal == byte, rest),
    };
    fits.then_some((pattern, text))
}

/// Whether `byte` is in the class whose text begins at `pattern`, and what follows the class. One without an end ends
/// with the pattern.
fn class(mut pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut fits = false;
    loop {
        pattern = match pattern {
            [] => return (fits, pattern),
            [b']', rest @ ..] => return (fits, rest),
            [b'\\', literal, rest @ ..] => {
                fits |= *literal == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                fits |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                fits |= *literal == byte;
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let table = [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo", "hllo", true),
            ("*llo", "hello", true),
            ("he*", "hello", true),
            ("he*x", "hello", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("[\\]]", "]", true),
            ("[ab", "a", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("H*", "hello", false),
            ("\\", "\\", true),
            ("[", "", false),
            ("?", "", false),
            ("a**b", "ab", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = b"a*".repeat(500);
        let text = b"a".repeat(4000);
        assert!(matches(&pattern, &text));
        assert!(!matches(&[pattern, b"b".to_vec()].concat(), &text));
    }
}
