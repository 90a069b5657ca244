//! The seed tree: every random choice of the system is a pure function of the experiment's seed and
//! of what the choice is for. Nothing carries generator state, so nothing has to be saved for it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node of the seed tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The child for `purpose` and `index` (a step, a rank, an epoch, a trial number ...).
    pub fn child(self, purpose: &str, index: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update((purpose.len() as u64).to_le_bytes());
        hash.update(purpose.as_bytes());
        hash.update(index.to_le_bytes());
        Self(first_u64(&hash.finalize()))
    }

    /// A child keyed by arbitrary bytes, such as the text of an example.
    pub fn child_of_bytes(self, purpose: &str, bytes: &[u8]) -> Self {
        self.child(purpose, first_u64(&Sha256::digest(bytes)))
    }

    /// A generator that starts at this node.
    pub fn draws(self) -> Draws {
        Draws { state: self.0 }
    }
}

fn first_u64(digest: &[u8]) -> u64 {
    digest.iter().take(8).rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// `SplitMix64` (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
#[derive(Debug, Clone)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..bound`. Unbiased (Lemire 2019).
    ///
    /// # Panics
    /// When `bound` is zero: nothing lies below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a draw below zero has no outcome");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            let low = u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(u64::MAX);
            if low >= threshold {
                return u64::try_from(wide >> 64).unwrap_or(bound - 1);
            }
        }
    }

    /// Fisher-Yates shuffle in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = usize::try_from(self.below(i as u64 + 1)).unwrap_or(0);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_differ_by_purpose_and_index() {
        let root = Seed(7);
        assert_ne!(root.child("dropout", 1), root.child("dropout", 2));
        assert_ne!(root.child("dropout", 1), root.child("shuffle", 1));
        assert_eq!(root.child("dropout", 1), Seed(7).child("dropout", 1));
    }

    #[test]
    fn splitmix_matches_the_reference_sequence() {
        // First outputs for seed 1234567, from the reference C code of Vigna (prng.di.unimi.it).
        let mut draws = Seed(1_234_567).draws();
        assert_eq!(draws.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(draws.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn shuffles_are_permutations_and_draws_stay_below() {
        let mut items: Vec<u32> = (0..100).collect();
        Seed(3).draws().shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        let mut draws = Seed(5).draws();
        assert!((0..1000).all(|_| draws.below(7) < 7));
    }
}
