//! Texts that are nearly the same: `MinHash` (Broder 1997) over runs of three words, compared where
//! a band of the signatures agrees (locality-sensitive hashing, Leskovec, Rajaraman, Ullman 2014,
//! chapter 3). Signatures keep one byte of each minimum (Li, König 2010, "b-Bit Minwise Hashing").
//! No seed and no order of rows changes what is found.

use std::collections::BTreeMap;

/// Minima of a signature.
const NUM_MINIMA: usize = 32;
/// Minima that must agree for two texts to be compared: texts that share 0.9 of their runs are
/// compared with probability 0.995, 0.8 with 0.91, 0.5 with 0.17.
const BAND: usize = 5;
/// Bands of a signature; two minima are in none.
const NUM_BANDS: usize = NUM_MINIMA / BAND;
/// Minima that must agree for two texts to be nearly the same: three quarters, an estimate of the
/// share of runs that both have.
const AGREEING_MIN: usize = NUM_MINIMA * 3 / 4;
/// Words of a run.
const RUN: usize = 3;

/// What is kept of a text.
pub(super) type Signature = [u8; NUM_MINIMA];

/// The signature of a text: case and what stands between words do not count.
pub(super) fn signature(text: &str) -> Signature {
    let mut words = words(text);
    if words.is_empty() {
        words.push(hash_bytes(text.trim().as_bytes()));
    }
    let mut minima = [u64::MAX; NUM_MINIMA];
    // A short text is one run.
    for run in words.windows(RUN.min(words.len())) {
        let run = run.iter().fold(0, |hash, word| mix(hash ^ *word));
        for (number, minimum) in (1..).zip(&mut minima) {
            // A family of hashes from one: multiply, take the high half.
            let multiplier = mix(number) | 1;
            *minimum = (*minimum).min(run.wrapping_mul(multiplier) >> 32);
        }
    }
    // The low byte of a mixed minimum: all of its bits count.
    minima.map(|minimum| mix(minimum).to_le_bytes()[0])
}

/// Hashes of the words, in lower case.
fn words(text: &str) -> Vec<u64> {
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars().chain([' ']) {
        if character.is_alphanumeric() {
            word.extend(character.to_lowercase());
        } else if !word.is_empty() {
            words.push(hash_bytes(word.as_bytes()));
            word.clear();
        }
    }
    words
}

/// FNV-1a, mixed.
fn hash_bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The finalizer of `SplitMix64`.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Groups of rows that are nearly the same, directly or through others. 4 bytes per row.
#[derive(Debug)]
pub(super) struct Groups {
    /// The row through which a row belongs to its group; itself for the first of a group.
    above: Vec<u32>,
}

impl Groups {
    /// Every row by itself.
    pub(super) fn alone(num_rows: usize) -> Self {
        Self { above: (0..).take(num_rows).collect() }
    }

    /// The groups of `rows`, numbers below `signatures.len()`.
    pub(super) fn of(signatures: &[Signature], rows: &[u32]) -> Self {
        let mut groups = Self::alone(signatures.len());
        let signature = |row: u32| signatures.get(row as usize).copied().unwrap_or_default();
        // With the keys beside the rows: sorting that looked them up would read all over memory.
        let mut order: Vec<(u64, u32)> = rows.iter().map(|row| (0, *row)).collect();
        for band in 0..NUM_BANDS {
            let key = |row: u32| {
                let signature = signature(row);
                let band = signature.get(band * BAND..(band + 1) * BAND).unwrap_or_default();
                band.iter().fold(0u64, |key, byte| (key << 8) | u64::from(*byte))
            };
            for (band, row) in &mut order {
                *band = key(*row);
            }
            order.sort_unstable();
            // With each one only the first of its band and the one before it are compared, so that a
            // million rows made from one template do not take forever.
            let mut first = None;
            for pair in order.windows(2) {
                let [(key_before, before), (key, row)] = *pair else { continue };
                if key_before != key {
                    first = None;
                    continue;
                }
                for other in [*first.get_or_insert(before), before] {
                    if agree(&signature(other), &signature(row)) {
                        groups.join(other, row);
                    }
                }
            }
        }
        groups
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first(a), self.first(b));
        if let Some(above) = self.above.get_mut(a.max(b) as usize) {
            *above = a.min(b);
        }
    }

    /// The first row of the group of `row`.
    pub(super) fn first(&mut self, row: u32) -> u32 {
        let above =
            |groups: &Self, row: u32| groups.above.get(row as usize).copied().unwrap_or(row);
        let mut first = row;
        while above(self, first) != first {
            first = above(self, first);
        }
        let mut passed = row;
        while let Some(next) = self.above.get_mut(passed as usize).filter(|next| **next != first) {
            (passed, *next) = (*next, first);
        }
        first
    }

    /// Rows of every group that has at least two of `rows`.
    pub(super) fn members(&mut self, rows: &[u32]) -> BTreeMap<u32, Vec<u32>> {
        let mut sizes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for row in rows {
            let first = self.first(*row);
            if first != *row {
                sizes.entry(first).or_default().push(*row);
            }
        }
        let firsts: Vec<u32> =
            rows.iter().copied().filter(|row| self.first(*row) == *row).collect();
        for first in firsts {
            if let Some(members) = sizes.get_mut(&first) {
                members.push(first);
            }
        }
        sizes.retain(|_, members| members.len() > 1);
        for members in sizes.values_mut() {
            members.sort_unstable();
        }
        sizes
    }
}

fn agree(a: &Signature, b: &Signature) -> bool {
    a.iter().zip(b).filter(|(a, b)| a == b).count() >= AGREEING_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REVIEW: &str = "I saw this film twice last summer and both times the audience laughed \
        until the very end, which is more than can be said of anything else that was shown in our \
        town that year; the actors are a joy, the music fits, and nobody explains the jokes.";

    fn groups(texts: &[&str]) -> Vec<u32> {
        let signatures: Vec<Signature> = texts.iter().map(|text| signature(text)).collect();
        let rows: Vec<u32> = (0..).take(texts.len()).collect();
        let mut groups = Groups::of(&signatures, &rows);
        rows.iter().map(|row| groups.first(*row)).collect()
    }

    #[test]
    fn small_changes_make_near_duplicates_and_others_do_not() {
        let louder = REVIEW.to_uppercase().replace(';', "!!!");
        let changed = REVIEW.replace("a joy", "wonderful");
        let longer = format!("{REVIEW} Go and see it.");
        let half: String = REVIEW.chars().take(REVIEW.len() / 2).collect();
        let texts =
            [REVIEW, "Something else entirely.", &louder, &changed, &longer, &half, "!", "?"];
        assert_eq!(groups(&texts), [0, 1, 0, 0, 0, 5, 6, 7]);
    }

    #[test]
    fn rows_of_one_template_are_not_all_the_same() {
        let texts: Vec<String> = (0..200).map(|n| format!("A good film number {n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let alone = groups(&texts).into_iter().zip(0u32..).filter(|(first, row)| first == row);
        assert!(alone.count() > 150, "half of the runs of two such texts differ");
    }

    #[test]
    fn how_often_texts_are_found_is_what_the_formula_says() {
        // Two texts share `kept` of their 200 runs: one word in so many is another one.
        let text = |seed: u64, changed_every: usize| -> String {
            let word = |n: usize| {
                let own = changed_every > 0 && n.is_multiple_of(changed_every);
                format!("w{}", mix(n as u64 ^ if own { seed } else { 0 }))
            };
            (0..202).map(word).collect::<Vec<_>>().join(" ")
        };
        let found = |changed_every: usize| {
            let near = |seed: &u64| {
                let pair = [text(0, changed_every), text(*seed, changed_every)];
                groups(&[&pair[0], &pair[1]]) == [0, 0]
            };
            (1..=100u64).filter(near).count()
        };
        // One word of 100: 6 of 200 runs differ. One of 12: a quarter, 0.6 of all runs are shared.
        assert!(found(100) >= 95, "{}", found(100));
        assert!(found(12) <= 25, "{}", found(12));
        assert_eq!(found(3), 0);
    }

    proptest! {
        #[test]
        fn any_text_has_a_signature_and_the_order_of_rows_changes_nothing(
            texts in proptest::collection::vec("[a-c .]{0,20}|.{0,20}", 1..30), shift in 0usize..30,
        ) {
            let list: Vec<&str> = texts.iter().map(String::as_str).collect();
            let mut turned = list.clone();
            let shift = shift % list.len();
            turned.rotate_left(shift);
            let (a, b) = (groups(&list), groups(&turned));
            let at = |row: usize| (row + list.len() - shift) % list.len();
            for x in 0..list.len() {
                prop_assert_eq!(signature(list[x]), signature(turned[at(x)]));
                if list[x].trim() == list[0].trim() {
                    prop_assert_eq!(a[x], a[0]);
                    prop_assert_eq!(b[at(x)], b[at(0)]);
                }
            }
        }
    }
}
