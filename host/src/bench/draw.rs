//! Chance that a seed decides: the same seed gives each worker the same operations and keys.

/// SplitMix64 (Steele, Lea and Flood 2014): a few instructions a number, and good enough to draw keys.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The numbers of one worker; those of another have nothing to do with them.
    pub(super) fn of(seed: u64, worker: u64) -> Self {
        Self(mix(seed) ^ mix(worker.wrapping_add(GOLDEN)))
    }

    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, each as likely as any other; 0 if there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // Lemire's multiplication instead of a division; the bias is below one in 2^64 / bound.
        let product = u128::from(self.number()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or_default()
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer: numbers that differ in one bit become numbers that differ in about half of them.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut dice = Dice(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([(); 3].map(|()| dice.number()), published);
    }

    #[test]
    fn every_number_below_the_bound_comes_about_as_often() {
        let mut dice = Dice::of(1, 0);
        let mut seen = [0_u32; 10];
        for _ in 0..100_000 {
            seen[usize::try_from(dice.below(10)).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (9_500..10_500).contains(count)),
            "{seen:?}"
        );
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    fn workers_and_seeds_draw_numbers_of_their_own() {
        let first = |seed, worker| Dice::of(seed, worker).number();
        let all: std::collections::BTreeSet<u64> = (0..30)
            .flat_map(|seed| (0..30).map(move |worker| first(seed, worker)))
            .collect();
        assert_eq!(all.len(), 900);
        assert_eq!(first(7, 3), first(7, 3));
    }
}
