//! Which examples make up which step: batches of similar length, so that runs of equal length are
//! long and little would be padding.
//!
//! An epoch's order is a function of the seed, the epoch's number, and lengths: the examples are
//! shuffled and cut into windows, which come one after the other; each window is sorted by length, cut
//! into batches, and these are shuffled. What does not fill a batch is the end of the shuffle, so that
//! it has no typical length, and is the epoch's last step.
//!
//! So a step depends on the lengths of its own window only: training starts when the first window is
//! tokenized, and its order is the same whether everything else is or not.

use muster_common::seed::Seed;

/// Batches per window: wide enough that neighbours have nearly equal lengths, narrow enough that a
/// batch is still a draw from the whole data.
const WINDOW_BATCHES: usize = 64;

/// Large batches make smaller windows, as long as these hold so many examples, ...
const WINDOW_EXAMPLES: usize = 4096;

/// ... and at least so many batches.
const WINDOW_BATCHES_MIN: usize = 16;

/// The order of one trial's examples.
#[derive(Debug, Clone)]
pub struct BatchOrder {
    seed: Seed,
    num_examples: usize,
    batch_size: usize,
    /// Order of the epoch that was asked for last.
    epoch: Option<Epoch>,
    /// The window that was asked for last.
    window: Option<Window>,
}

#[derive(Debug, Clone)]
struct Epoch {
    number: u64,
    /// The windows one after the other, then what fills no batch.
    shuffled: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Window {
    epoch: u64,
    number: usize,
    /// Its batches one after the other.
    examples: Vec<u32>,
}

impl BatchOrder {
    /// For so many examples; `global_batch_size` is at least 1.
    pub fn new(seed: Seed, num_examples: usize, global_batch_size: u64) -> Self {
        let batch_size = usize::try_from(global_batch_size).unwrap_or(usize::MAX).max(1);
        Self { seed, num_examples, batch_size, epoch: None, window: None }
    }

    /// Steps of a pass over all examples; the last, partial batch is a step.
    pub fn steps_per_epoch(&self) -> u64 {
        self.num_examples.div_ceil(self.batch_size) as u64
    }

    /// Indices of the examples of a step, counted from 0 over all epochs. Does not depend on what
    /// was asked for before. Empty only when there are no examples.
    ///
    /// `lengths` gives the tokens of each of the examples it is asked for. It is asked once per
    /// window, for all examples of it, which are those of this step and of others near it.
    pub fn batch<E>(
        &mut self,
        step_index: u64,
        lengths: impl FnOnce(&[u32]) -> Result<Vec<u32>, E>,
    ) -> Result<&[u32], E> {
        let Some(number) = step_index.checked_div(self.steps_per_epoch()) else { return Ok(&[]) };
        let position = usize::try_from(step_index % self.steps_per_epoch()).unwrap_or(usize::MAX);
        if self.epoch.as_ref().is_none_or(|epoch| epoch.number != number) {
            self.epoch = Some(self.draw(number));
        }
        let shuffled = self.epoch.as_ref().map_or(&[][..], |epoch| &epoch.shuffled);
        let (full, partial) =
            shuffled.split_at(self.num_examples - self.num_examples % self.batch_size);
        if position >= full.len() / self.batch_size {
            return Ok(partial);
        }
        let window_batches = self.window_batches();
        let (window, place) = (position / window_batches, position % window_batches);
        let is_there = |known: &Window| (known.epoch, known.number) == (number, window);
        if !self.window.as_ref().is_some_and(is_there) {
            let examples = full.chunks(self.batch_size.saturating_mul(window_batches)).nth(window);
            let examples = self.arrange((number, window), examples.unwrap_or_default(), lengths)?;
            self.window = Some(Window { epoch: number, number: window, examples });
        }
        let examples = self.window.as_ref().map_or(&[][..], |window| &window.examples);
        Ok(examples.chunks(self.batch_size).nth(place).unwrap_or_default())
    }

    fn window_batches(&self) -> usize {
        (WINDOW_EXAMPLES / self.batch_size).clamp(WINDOW_BATCHES_MIN, WINDOW_BATCHES)
    }

    fn draw(&self, number: u64) -> Epoch {
        let mut shuffled: Vec<u32> = (0..).take(self.num_examples).collect();
        self.seed.child("epoch", number).draws().shuffle(&mut shuffled);
        Epoch { number, shuffled }
    }

    /// The batches of a window, one after the other.
    fn arrange<E>(
        &self,
        (epoch, window): (u64, usize),
        examples: &[u32],
        lengths: impl FnOnce(&[u32]) -> Result<Vec<u32>, E>,
    ) -> Result<Vec<u32>, E> {
        let lengths = lengths(examples)?;
        let mut sorted: Vec<(u32, u32)> =
            lengths.into_iter().zip(examples.iter().copied()).collect();
        // Stable: examples of one length keep their shuffled order.
        sorted.sort_by_key(|(length, _)| *length);
        let sorted: Vec<u32> = sorted.into_iter().map(|(_, example)| example).collect();
        let mut batches: Vec<&[u32]> = sorted.chunks(self.batch_size).collect();
        let seed = self.seed.child("batches", epoch).child("window", window as u64);
        seed.draws().shuffle(&mut batches);
        Ok(batches.concat())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    /// An order, and the lengths it may ask for.
    struct Known {
        order: BatchOrder,
        lengths: Vec<u32>,
        /// Examples whose lengths were asked for.
        asked: Vec<u32>,
    }

    impl Known {
        fn new(seed: u64, lengths: Vec<u32>, batch_size: u64) -> Self {
            let order = BatchOrder::new(Seed(seed), lengths.len(), batch_size);
            Self { order, lengths, asked: Vec::new() }
        }

        fn batch(&mut self, step: u64) -> Vec<u32> {
            let Self { order, lengths, asked } = self;
            let batch = order.batch(step, |window| {
                asked.extend(window);
                Ok::<_, Infallible>(window.iter().map(|index| lengths[*index as usize]).collect())
            });
            batch.unwrap().to_vec()
        }
    }

    #[test]
    fn no_examples_make_no_steps() {
        let mut known = Known::new(1, Vec::new(), 8);
        assert_eq!(known.order.steps_per_epoch(), 0);
        assert_eq!(known.batch(3), &[] as &[u32]);
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let epoch = |seed, first: u64| {
            let mut known = Known::new(seed, vec![5; 100], 10);
            (first..first + 10).flat_map(|step| known.batch(step)).collect::<Vec<_>>()
        };
        assert_ne!(epoch(1, 0), epoch(1, 10));
        assert_ne!(epoch(1, 0), epoch(2, 0));
    }

    #[test]
    fn a_step_needs_no_lengths_but_those_of_its_window() {
        let mut known = Known::new(4, (0..20_000).map(|n| n % 90).collect(), 32);
        let first = known.batch(0);
        assert_eq!(known.asked.len(), 64 * 32);
        // Whatever the other examples turn out to be.
        let asked: std::collections::BTreeSet<u32> = known.asked.drain(..).collect();
        for (index, length) in (0..).zip(&mut known.lengths) {
            if !asked.contains(&index) {
                *length = 7;
            }
        }
        let mut seen = first.clone();
        for step in 1..64 {
            seen.extend(known.batch(step));
        }
        assert!(known.asked.is_empty(), "the window is known");
        seen.sort_unstable();
        assert_eq!(seen, asked.into_iter().collect::<Vec<_>>());
        let mut again = Known::new(4, known.lengths, 32);
        assert_eq!(again.batch(0), first);
    }

    #[test]
    fn windows_of_large_batches_are_not_the_whole_data() {
        for (batch_size, examples) in [(1, 64), (64, 4096), (128, 4096), (1024, 16 * 1024)] {
            let mut known = Known::new(9, vec![3; 40_000], batch_size);
            known.batch(0);
            assert_eq!(known.asked.len(), examples, "batches of {batch_size}");
        }
    }

    proptest! {
        #[test]
        fn every_example_once_per_epoch_in_batches_of_the_right_size(
            lengths in proptest::collection::vec(1u32..40, 1..700),
            batch_size in 1u64..40, seed: u64, epoch in 0u64..3,
        ) {
            let num_examples = lengths.len();
            let mut known = Known::new(seed, lengths, batch_size);
            let steps = known.order.steps_per_epoch();
            prop_assert_eq!(steps, (num_examples as u64).div_ceil(batch_size));
            let mut seen = Vec::new();
            for step in 0..steps {
                let batch = known.batch(epoch * steps + step);
                let full = step + 1 < steps || (num_examples as u64).is_multiple_of(batch_size);
                let rest = num_examples as u64 % batch_size;
                prop_assert_eq!(batch.len() as u64, if full { batch_size } else { rest });
                seen.extend(batch);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..).take(num_examples).collect::<Vec<u32>>());
        }

        #[test]
        fn a_step_does_not_depend_on_the_steps_asked_for_before(
            lengths in proptest::collection::vec(1u32..40, 1..300),
            batch_size in 1u64..20, seed: u64,
            before in proptest::collection::vec(0u64..200, 0..8), step in 0u64..200,
        ) {
            let mut fresh = Known::new(seed, lengths.clone(), batch_size);
            let mut used = Known::new(seed, lengths, batch_size);
            for other in before {
                used.batch(other);
            }
            prop_assert_eq!(fresh.batch(step), used.batch(step));
        }

        #[test]
        fn padding_is_small_when_lengths_spread_evenly(seed: u64) {
            let lengths: Vec<u32> = (0..4096).map(|n| 8 + n % 56).collect();
            let mut known = Known::new(seed, lengths, 32);
            let (mut real, mut padded) = (0, 0);
            for step in 0..known.order.steps_per_epoch() {
                let batch: Vec<u64> = known.batch(step).iter()
                    .map(|index| u64::from(known.lengths[*index as usize])).collect();
                real += batch.iter().sum::<u64>();
                padded += batch.iter().max().unwrap() * batch.len() as u64;
            }
            prop_assert!((padded - real) as f64 / (padded as f64) < 0.03);
        }
    }
}
