//! Causal contexts as text, so that people can copy them from one redis-cli line to the next.

use guest_sdk::prelude::*;

/// Two digits for each byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The bytes again.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.chunks(2).map(byte).collect();
    bytes.ok_or_else(|| Error::err("invalid context: pass what VGET or VPUT returned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(encode(&all).as_bytes()), Ok(all));
        assert_eq!(decode(b""), Ok(vec![]));
        for bad in ["1", "0x", "zz", "abc"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
