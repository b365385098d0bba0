//! Numbers that a seed decides, the same on every machine and in every release.
//!
//! SplitMix64 (Steele, Lea and Flood 2014), written out because a seed in a bug report has to mean the same for years, and
//! libraries change their small generators.

use std::ops::RangeInclusive;

/// A generator. Equal seeds give equal numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// One with this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// One of its own for whoever has that number, such as a client: what others draw does not change what it draws.
    pub fn of(seed: u64, number: u64) -> Dice {
        let mut dice = Dice(seed);
        let base = dice.number();
        let mut own = Dice(base ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Dice(own.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range; its start if the range is empty.
    pub fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let size = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.number() % size
    }

    /// A place in something of that length, which must not be 0.
    pub fn index(&mut self, length: usize) -> usize {
        let place = self.number() % length.max(1) as u64;
        usize::try_from(place).unwrap_or(0)
    }

    /// Whether something happens that happens so often in a hundred.
    pub fn percent(&mut self, percent: u8) -> bool {
        self.number() % 100 < u64::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut dice = Dice::new(1_234_567);
        let numbers = [(); 3].map(|()| dice.number());
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(numbers, published);
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut dice = Dice::new(1);
        let drawn: std::collections::BTreeSet<u64> =
            (0..200).map(|_| dice.within(&(3..=6))).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        let hits = (0..10_000).filter(|_| dice.percent(30)).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
        assert!(!dice.percent(0) && dice.percent(100));
    }

    #[test]
    fn clients_draw_numbers_of_their_own() {
        let first = |number| Dice::of(7, number).number();
        let drawn: std::collections::BTreeSet<u64> = (0..1_000).map(first).collect();
        assert_eq!(drawn.len(), 1_000);
        assert_ne!(Dice::of(8, 1).number(), first(1));
    }
}
