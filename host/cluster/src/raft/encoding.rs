//! How values become bytes, on disk and between nodes: bincode, and nothing may be left over.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Far above any map. A length inside foreign bytes must not make us allocate more.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODED_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();

/// Bytes that are not what was asked for.
#[derive(Debug, Error)]
pub enum EncodingError {
    /// The value has no encoding. Nothing was written.
    #[error("cannot encode a {what}")]
    Encode {
        /// What the value is.
        what: &'static str,
        /// Why.
        #[source]
        source: bincode::error::EncodeError,
    },
    /// Not an encoded value of this kind, or of another version.
    #[error("cannot decode a {what}; do both sides run the same version?")]
    Decode {
        /// What was expected.
        what: &'static str,
        /// Why.
        #[source]
        source: bincode::error::DecodeError,
    },
    /// A value, and then more.
    #[error("{extra} bytes follow a {what}; do both sides run the same version?")]
    Trailing {
        /// What was expected.
        what: &'static str,
        /// How many bytes are too much.
        extra: usize,
    },
}

/// The bytes of `value`; `what` names it in an error.
pub(crate) fn encode<T: Serialize>(
    what: &'static str,
    value: &T,
) -> Result<Vec<u8>, EncodingError> {
    bincode::serde::encode_to_vec(value, CONFIG)
        .map_err(|source| EncodingError::Encode { what, source })
}

/// The value in `bytes`, which must end with it; `what` names it in an error.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, EncodingError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, CONFIG)
        .map_err(|source| EncodingError::Decode { what, source })?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        extra => Err(EncodingError::Trailing { what, extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_follow_or_be_missing() {
        let bytes = encode("pair", &(7_u64, String::from("x"))).unwrap();
        assert_eq!(
            decode::<(u64, String)>("pair", &bytes).unwrap(),
            (7, String::from("x"))
        );
        for len in 0..bytes.len() {
            assert!(decode::<(u64, String)>("pair", &bytes[..len]).is_err());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(
            decode::<(u64, String)>("pair", &longer),
            Err(EncodingError::Trailing { extra: 1, .. })
        ));
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_allocated() {
        let mut bytes = vec![253];
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u8>>("bytes", &bytes).is_err());
        assert!(decode::<String>("text", &bytes).is_err());
    }
}
