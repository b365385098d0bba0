//! What each actor counted: a PN-counter.
//!
//! An actor's two totals, up and down, only grow, and only that actor changes them. So of two versions the larger
//! total is the later one, and joining takes the larger of each.

use std::collections::BTreeMap;

use guest_sdk::prelude::*;

/// Bytes of one actor: its name, what it added, what it subtracted.
const ENTRY_BYTES: usize = 24;

/// A counter's value as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<u64, (u64, u64)>);

impl Tally {
    /// Reads what [`encode`](Self::encode) wrote; none for any other bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut actors = BTreeMap::new();
        for entry in bytes.chunks(ENTRY_BYTES) {
            let (actor, totals) = entry.split_first_chunk()?;
            let (up, down) = totals.split_first_chunk()?;
            let totals = (
                u64::from_le_bytes(*up),
                u64::from_le_bytes(down.try_into().ok()?),
            );
            actors.insert(u64::from_le_bytes(*actor), totals);
        }
        Some(Self(actors))
    }

    /// The bytes to store: equal tallies give equal bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let entries = self.0.iter();
        entries
            .flat_map(|(actor, (up, down))| [*actor, *up, *down])
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// Counts `amount` for `actor`.
    pub(crate) fn add(&mut self, actor: u64, amount: i128) -> Result<()> {
        let (up, down) = self.0.entry(actor).or_default();
        let total = if amount < 0 { down } else { up };
        let more = u64::try_from(amount.unsigned_abs()).ok();
        *total = more.and_then(|more| total.checked_add(more)).ok_or_else(Error::overflow)?;
        Ok(())
    }

    /// What all actors counted together.
    pub(crate) fn sum(&self) -> i128 {
        self.0.values().map(|(up, down)| i128::from(*up) - i128::from(*down)).sum()
    }

    fn join(&mut self, other: Self) {
        for (actor, (up, down)) in other.0 {
            let mine = self.0.entry(actor).or_default();
            *mine = (mine.0.max(up), mine.1.max(down));
        }
    }
}

/// Joins concurrent values. Bytes that are no tally count nothing.
pub(crate) fn merge(_key: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Tally::default();
    for tally in values.iter().filter_map(|value| Tally::decode(value)) {
        all.join(tally);
    }
    all.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Vec<u8>> {
        let tally = |counts: &[(u64, i128)]| {
            let mut tally = Tally::default();
            for (actor, amount) in counts {
                tally.add(*actor, *amount).unwrap();
            }
            tally.encode()
        };
        vec![
            tally(&[]),
            tally(&[(1, 1)]),
            tally(&[(1, 5), (2, -7)]),
            tally(&[(2, -9), (3, 1)]),
            tally(&[(1, i64::MAX.into()), (3, i64::MIN.into())]),
        ]
    }

    #[test]
    fn merge_laws_hold() {
        let join = |values: &[&Vec<u8>]| {
            merge(
                b"k",
                &values.iter().map(|v| (*v).clone()).collect::<Vec<_>>(),
            )
        };
        for a in &samples() {
            assert_eq!(&join(&[a, a]), a, "idempotent");
            assert_eq!(&join(&[a]), a, "alone");
            for b in &samples() {
                assert_eq!(join(&[a, b]), join(&[b, a]), "commutative");
                for c in &samples() {
                    let left = join(&[&join(&[a, b]), c]);
                    assert_eq!(left, join(&[a, &join(&[b, c])]), "associative");
                    assert_eq!(left, join(&[c, a, b]), "grouping and order do not matter");
                }
            }
        }
    }

    #[test]
    fn bytes_and_back() {
        for bytes in samples() {
            assert_eq!(Tally::decode(&bytes).unwrap().encode(), bytes);
        }
        assert_eq!(Tally::decode(b"12345"), None);
        assert_eq!(Tally::decode(&[0; 25]), None);
    }
}
