//! Chance that a seed decides: the same seed gives each worker the same operations and keys.

use std::convert::Infallible;

use rand_distr::{Distribution, Zipf};

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

/// So that distributions can draw from it.
impl rand::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.number() >> 32).unwrap_or_default())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.number())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            for (byte, drawn) in chunk.iter_mut().zip(number) {
                *byte = drawn;
            }
        }
        Ok(())
    }
}

/// The keys of a run, numbers from 0, and how often each is drawn.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    count: u64,
    /// Each as often as any other without it.
    zipf: Option<Zipf<f64>>,
}

impl Keys {
    /// So many keys. With an exponent, key k is drawn in proportion to 1 / (k + 1)^exponent (Zipf).
    ///
    /// # Errors
    /// In words, when there is no such distribution.
    pub(super) fn new(count: u64, exponent: Option<f64>) -> Result<Self, String> {
        let zipf = exponent.map(|exponent| Zipf::new(count as f64, exponent));
        Ok(Self {
            count,
            zipf: zipf.transpose().map_err(|error| error.to_string())?,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// One of them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a whole number from 1 to the count"
    )]
    pub(super) fn draw(&self, dice: &mut Dice) -> u64 {
        match &self.zipf {
            // Ranks begin with 1.
            Some(zipf) => (zipf.sample(dice) as u64).clamp(1, self.count.max(1)) - 1,
            None => dice.below(self.count),
        }
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
    fn keys_of_a_zipf_distribution_are_drawn_by_their_rank() {
        let keys = Keys::new(1000, Some(1.0)).unwrap();
        let mut dice = Dice::of(2, 0);
        let mut seen = vec![0_u32; 1000];
        for _ in 0..200_000 {
            seen[usize::try_from(keys.draw(&mut dice)).unwrap()] += 1;
        }
        // The first of a thousand has 1 / (1 + 1/2 + ... + 1/1000) = 13.4 % of all, the tenth a tenth of that.
        assert!((26_000..27_500).contains(&seen[0]), "{}", seen[0]);
        assert!((2_450..2_950).contains(&seen[9]), "{}", seen[9]);
        assert!(seen[500..].iter().any(|count| *count > 0));
        assert!(Keys::new(10, Some(-1.0)).is_err());
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
