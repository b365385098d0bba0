//! Values that say who wrote them, so that a reader can judge what it gets.
//!
//! A value is a stamp (worker and turn), a seal over run, key and stamp, and a piece of a block of random text. What is read
//! under a key is right only if it is what a worker of this run made for that key, byte by byte.

use super::draw::mix;

/// Values of at least this many bytes carry a stamp; of shorter ones only the length can be judged.
pub(super) const STAMPED_MIN: usize = 24;

/// Bytes of the block that values are cut from: enough that no two neighbours look alike to a compressor.
const BLOCK: usize = 1 << 16;

/// Letters of the block, six bits each: text survives any client that looks at it.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Who wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The worker's number, or [`LOADER`].
    pub(super) worker: u16,
    /// Grows with each put of the worker; 48 bits.
    pub(super) turn: u64,
}

/// The worker that fills keys before a run.
pub(super) const LOADER: u16 = u16::MAX;

/// What a value turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody of this run wrote it under this key.
    Written(Stamp),
    /// Too short to tell, but as long as it should be.
    Unstamped,
    /// Nobody of this run ever wrote it under this key.
    Foreign,
}

/// All values of a run.
#[derive(Debug)]
pub(super) struct Values {
    run: u64,
    size: usize,
    block: Vec<u8>,
}

impl Values {
    /// Values of `size` bytes for the run of that number, which should differ from that of every other run.
    pub(super) fn new(run: u64, size: usize) -> Self {
        let letter = |place: usize| {
            let bits = mix(place as u64 ^ run) & 63;
            let at = usize::try_from(bits).unwrap_or_default();
            LETTERS.get(at).copied().unwrap_or(b'A')
        };
        // As long again as the longest value, so that a piece may begin anywhere in the block.
        Self {
            run,
            size,
            block: (0..BLOCK + size).map(letter).collect(),
        }
    }

    /// Bytes of each.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Appends the value that `stamp` puts under `key`.
    pub(super) fn write(&self, key: u64, stamp: Stamp, out: &mut Vec<u8>) {
        let (head, rest) = self.parts(key, stamp);
        if self.size >= STAMPED_MIN {
            out.extend_from_slice(&head);
        }
        out.extend_from_slice(rest);
    }

    /// Who wrote the value that was read under `key`.
    pub(super) fn origin(&self, key: u64, value: &[u8]) -> Origin {
        if value.len() != self.size {
            return Origin::Foreign;
        }
        let Some((head, rest)) = value.split_first_chunk::<STAMPED_MIN>() else {
            return Origin::Unstamped;
        };
        let Some(stamp) = read_stamp(head) else {
            return Origin::Foreign;
        };
        match self.parts(key, stamp) == (*head, rest) {
            true => Origin::Written(stamp),
            false => Origin::Foreign,
        }
    }

    /// Stamp and seal, and what follows them.
    fn parts(&self, key: u64, stamp: Stamp) -> ([u8; STAMPED_MIN], &[u8]) {
        let number = u64::from(stamp.worker) << 48 | stamp.turn & TURN_MASK;
        let seal = mix(mix(number ^ self.run) ^ key);
        let mut head = [0; STAMPED_MIN];
        let (first, last) = head.split_at_mut(16);
        hex(number, first);
        hex(seal >> 32, last);
        let place = usize::try_from(seal % BLOCK as u64).unwrap_or_default();
        let length = match self.size.checked_sub(STAMPED_MIN) {
            Some(rest) => rest,
            None => self.size,
        };
        let rest = self.block.get(place..place + length).unwrap_or_default();
        (head, rest)
    }
}

const TURN_MASK: u64 = (1 << 48) - 1;

fn read_stamp(head: &[u8; STAMPED_MIN]) -> Option<Stamp> {
    let digits = std::str::from_utf8(head.get(..16)?).ok()?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    Some(Stamp {
        worker: u16::try_from(number >> 48).ok()?,
        turn: number & TURN_MASK,
    })
}

/// The last digits of the number, as many as there is room for.
fn hex(number: u64, out: &mut [u8]) {
    let mut left = number;
    for slot in out.iter_mut().rev() {
        let digit = u8::try_from(left & 15).unwrap_or_default();
        *slot = digit + if digit < 10 { b'0' } else { b'a' - 10 };
        left >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(values: &Values, key: u64, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::new();
        values.write(key, stamp, &mut out);
        out
    }

    proptest! {
        #[test]
        fn a_value_says_who_wrote_it_under_its_key_and_no_other(
            run: u64, size in 0..300_usize, key: u64, other: u64, worker: u16, turn in 0..1_u64 << 48, flip: prop::sample::Index,
        ) {
            let values = Values::new(run, size);
            let stamp = Stamp { worker, turn };
            let mut value = text(&values, key, stamp);
            prop_assert_eq!(value.len(), size);
            if size < STAMPED_MIN {
                prop_assert_eq!(values.origin(key, &value), Origin::Unstamped);
                return Ok(());
            }
            prop_assert_eq!(values.origin(key, &value), Origin::Written(stamp));
            if key != other {
                prop_assert_eq!(values.origin(other, &value), Origin::Foreign);
            }
            prop_assert_eq!(Values::new(run ^ 1, size).origin(key, &value), Origin::Foreign);
            value[flip.index(size)] ^= 1;
            prop_assert_eq!(values.origin(key, &value), Origin::Foreign);
        }
    }

    #[test]
    fn what_is_not_as_long_as_it_should_be_is_foreign() {
        let values = Values::new(1, 10);
        assert_eq!(values.origin(1, b"short"), Origin::Foreign);
        assert_eq!(values.origin(1, b"ten bytes."), Origin::Unstamped);
    }
}
