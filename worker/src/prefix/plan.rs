//! Where every example's activations lie: a pure function of the examples' lengths.

use muster_common::manifest::Manifest;
use serde::{Deserialize, Serialize};

use crate::data::Split;

/// Examples per forward when activations are computed. Fixed, so that the numbers do not depend on
/// who computes them or in how many parts.
const CANONICAL_BATCH: usize = 32;

/// The activations are cut into so many blocks, fewer when there are fewer batches: the unit that
/// workers share out.
const NUM_BLOCKS: usize = 64;

/// Which splits activations are computed of before trials begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Training and validation split. So it always was before there was a choice.
    #[default]
    Everything,
    /// The validation split alone, which every trial reads several times.
    Validation,
}

impl Coverage {
    /// What pays in an experiment with `num_train` training examples. A trial that has begun stays with
    /// what its checkpoint says: activations that are computed in other batches have other last bits.
    pub fn of(manifest: &Manifest, num_train: usize) -> Self {
        // Each length has activations of its own.
        let num_lengths = manifest.max_lengths().len().max(1);
        let read = manifest.expected_examples(num_train as u64) / num_lengths as f64;
        if read > num_train as f64 { Self::Everything } else { Self::Validation }
    }

    /// How the identity of an entry says it.
    pub(super) fn of_cache(self) -> &'static str {
        match self {
            Self::Everything => "",
            Self::Validation => "the validation split of ",
        }
    }
}

/// Which split an example index counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixSplit {
    /// [`crate::data::Dataset::train`].
    Train,
    /// [`crate::data::Dataset::validation`].
    Validation,
}

/// One row per token; an example's rows are contiguous in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) block: usize,
    pub(super) first_row: usize,
    pub(super) rows: usize,
}

/// The layout of a prefix cache. Examples are numbered through: training, then validation.
#[derive(Debug)]
pub(super) struct Plan {
    coverage: Coverage,
    /// Training examples with activations.
    num_train: usize,
    locations: Vec<Location>,
    /// Batches of example numbers, by block, in the order of their rows.
    blocks: Vec<Vec<Vec<usize>>>,
}

impl Plan {
    pub(super) fn new(train: &Split, validation: &Split, coverage: Coverage) -> Self {
        let num_train = match coverage {
            Coverage::Everything => train.len(),
            Coverage::Validation => 0,
        };
        let lengths: Vec<usize> = (0..num_train)
            .map(|index| train.length(index))
            .chain((0..validation.len()).map(|index| validation.length(index)))
            .collect();
        Self { coverage, ..Self::of_lengths(&lengths, num_train) }
    }

    fn of_lengths(lengths: &[usize], num_train: usize) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|example| (lengths[*example], *example));
        let num_blocks = order.len().div_ceil(CANONICAL_BATCH).min(NUM_BLOCKS);
        let mut blocks = vec![Vec::new(); num_blocks];
        let mut rows = vec![0; num_blocks];
        let mut locations = vec![Location { block: 0, first_row: 0, rows: 0 }; lengths.len()];
        // Dealt round, so that every block has short and long batches and takes equally long.
        for (number, batch) in order.chunks(CANONICAL_BATCH).enumerate() {
            let block = number % num_blocks;
            for example in batch {
                let length = lengths[*example];
                locations[*example] = Location { block, first_row: rows[block], rows: length };
                rows[block] += length;
            }
            blocks[block].push(batch.to_vec());
        }
        Self { coverage: Coverage::Everything, num_train, locations, blocks }
    }

    pub(super) fn coverage(&self) -> Coverage {
        self.coverage
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn batches(&self, block: usize) -> &[Vec<usize>] {
        self.blocks.get(block).map_or(&[], Vec::as_slice)
    }

    pub(super) fn num_rows(&self, block: usize) -> usize {
        self.batches(block)
            .iter()
            .flatten()
            .filter_map(|example| self.at(*example))
            .map(|l| l.rows)
            .sum()
    }

    pub(super) fn at(&self, example: usize) -> Option<Location> {
        self.locations.get(example).copied()
    }

    /// The example's number in the numbering of the plan; `None`: it is no training example of it.
    pub(super) fn number(&self, split: PrefixSplit, index: usize) -> Option<usize> {
        match split {
            PrefixSplit::Train => (index < self.num_train).then_some(index),
            PrefixSplit::Validation => Some(self.num_train + index),
        }
    }

    /// The inverse of [`Plan::number`].
    pub(super) fn origin(&self, example: usize) -> (PrefixSplit, usize) {
        match example.checked_sub(self.num_train) {
            None => (PrefixSplit::Train, example),
            Some(index) => (PrefixSplit::Validation, index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_of_a_block_are_covered_once(lengths in prop::collection::vec(1usize..40, 0..3000)) {
            let plan = Plan::of_lengths(&lengths, lengths.len() / 2);
            let mut seen = 0;
            for block in 0..plan.num_blocks() {
                let mut next = 0;
                for example in plan.batches(block).iter().flatten() {
                    let location = plan.at(*example).unwrap();
                    prop_assert_eq!((location.block, location.first_row), (block, next));
                    prop_assert_eq!(location.rows, lengths[*example]);
                    next += location.rows;
                    seen += 1;
                    let (split, index) = plan.origin(*example);
                    prop_assert_eq!(plan.number(split, index), Some(*example));
                }
                prop_assert!(plan.num_rows(block) == next && next > 0);
            }
            prop_assert_eq!(seen, lengths.len());
        }
    }
}
