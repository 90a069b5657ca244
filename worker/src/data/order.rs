//! Which examples make up which step: batches of similar length, so that little is padding.
//!
//! An epoch's order is a pure function of the seed and the epoch's number: the examples are
//! shuffled and cut into windows; each window is sorted by length and cut into batches; the batches
//! are shuffled. What does not fill a batch is drawn before the windows are sorted, so that it has
//! no typical length, and is the epoch's last step.

use muster_common::seed::Seed;

/// Batches per window: wide enough that neighbours have nearly equal lengths, narrow enough that a
/// batch is still a draw from the whole data.
const WINDOW_BATCHES: usize = 64;

/// The order of one trial's examples.
#[derive(Debug, Clone)]
pub struct BatchOrder {
    seed: Seed,
    lengths: Vec<u32>,
    batch_size: usize,
    /// Order of the epoch that was asked for last.
    epoch: Option<Epoch>,
}

#[derive(Debug, Clone)]
struct Epoch {
    number: u64,
    /// Full batches one after the other, then the partial one.
    examples: Vec<u32>,
}

impl BatchOrder {
    /// For examples of these lengths in tokens; `global_batch_size` is at least 1.
    pub fn new(seed: Seed, lengths: Vec<u32>, global_batch_size: u64) -> Self {
        let batch_size = usize::try_from(global_batch_size).unwrap_or(usize::MAX).max(1);
        Self { seed, lengths, batch_size, epoch: None }
    }

    /// Steps of a pass over all examples; the last, partial batch is a step.
    pub fn steps_per_epoch(&self) -> u64 {
        self.lengths.len().div_ceil(self.batch_size) as u64
    }

    /// Indices of the examples of a step, counted from 0 over all epochs. Does not depend on what
    /// was asked for before. Empty only when there are no examples.
    pub fn batch(&mut self, step_index: u64) -> &[u32] {
        let Some(number) = step_index.checked_div(self.steps_per_epoch()) else { return &[] };
        let position = step_index % self.steps_per_epoch();
        if self.epoch.as_ref().is_none_or(|epoch| epoch.number != number) {
            self.epoch = Some(self.draw(number));
        }
        let examples = self.epoch.as_ref().map_or(&[][..], |epoch| &epoch.examples);
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        examples.chunks(self.batch_size).nth(position).unwrap_or_default()
    }

    fn draw(&self, number: u64) -> Epoch {
        let mut shuffled: Vec<u32> = (0..).take(self.lengths.len()).collect();
        self.seed.child("epoch", number).draws().shuffle(&mut shuffled);
        let num_full = shuffled.len() - shuffled.len() % self.batch_size;
        let partial = shuffled.split_off(num_full);
        let length = |index: &u32| self.lengths.get(*index as usize).copied();
        for window in shuffled.chunks_mut(self.batch_size.saturating_mul(WINDOW_BATCHES)) {
            // Stable: examples of one length keep their shuffled order.
            window.sort_by_key(length);
        }
        let mut batches: Vec<&[u32]> = shuffled.chunks(self.batch_size).collect();
        self.seed.child("batches", number).draws().shuffle(&mut batches);
        let mut examples = batches.concat();
        examples.extend(partial);
        Epoch { number, examples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_examples_make_no_steps() {
        let mut order = BatchOrder::new(Seed(1), Vec::new(), 8);
        assert_eq!(order.steps_per_epoch(), 0);
        assert_eq!(order.batch(3), &[] as &[u32]);
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let epoch = |seed, first: u64| {
            let mut order = BatchOrder::new(Seed(seed), vec![5; 100], 10);
            (first..first + 10).flat_map(|step| order.batch(step).to_vec()).collect::<Vec<_>>()
        };
        assert_ne!(epoch(1, 0), epoch(1, 10));
        assert_ne!(epoch(1, 0), epoch(2, 0));
    }

    proptest! {
        #[test]
        fn every_example_once_per_epoch_in_batches_of_the_right_size(
            lengths in proptest::collection::vec(1u32..40, 1..700),
            batch_size in 1u64..40, seed: u64, epoch in 0u64..3,
        ) {
            let num_examples = lengths.len();
            let mut order = BatchOrder::new(Seed(seed), lengths, batch_size);
            let steps = order.steps_per_epoch();
            prop_assert_eq!(steps, (num_examples as u64).div_ceil(batch_size));
            let mut seen = Vec::new();
            for step in 0..steps {
                let batch = order.batch(epoch * steps + step).to_vec();
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
            let mut fresh = BatchOrder::new(Seed(seed), lengths.clone(), batch_size);
            let mut used = BatchOrder::new(Seed(seed), lengths, batch_size);
            for other in before {
                used.batch(other);
            }
            prop_assert_eq!(fresh.batch(step), used.batch(step));
        }

        #[test]
        fn padding_is_small_when_lengths_spread_evenly(seed: u64) {
            let lengths: Vec<u32> = (0..4096).map(|n| 8 + n % 56).collect();
            let mut order = BatchOrder::new(Seed(seed), lengths.clone(), 32);
            let (mut real, mut padded) = (0, 0);
            for step in 0..order.steps_per_epoch() {
                let batch: Vec<u64> = order.batch(step).iter()
                    .map(|index| u64::from(lengths[*index as usize])).collect();
                real += batch.iter().sum::<u64>();
                padded += batch.iter().max().unwrap() * batch.len() as u64;
            }
            prop_assert!((padded - real) as f64 / (padded as f64) < 0.03);
        }
    }
}
