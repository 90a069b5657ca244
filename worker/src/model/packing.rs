//! Sequences one behind the other, without padding.
//!
//! Everything in an encoder but attention works on single tokens, so a batch is one long matrix of
//! tokens, `[T, D]`. Only attention has to know which tokens belong together. Sequences are laid
//! down by length: those of equal length form a run, and a run is a dense `[B', L, D]` block that
//! needs no mask. (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination",
//! arXiv 2107.02027, has the idea of packing; runs of equal length are ours.)
//!
//! The number of rows is rounded up a little, to one of few: oneDNN compiles its kernels for every
//! shape that it meets, and a batch of sentences hardly ever has as many tokens as another. With
//! every shape its own, MiniLM spent a third of a step on compiling. Rows beyond the tokens belong to
//! no sequence: nothing reads them, and no gradient reaches them.
//!
//! Shapes: `B` sequences, `T` rows, those of all tokens and a few more, `D` hidden.

use tch::{Device, Tensor};

use super::ModelError;
use super::batch::extent;
use crate::ffi::Spans;

/// Sequences of equal length that lie behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Row of its first token.
    pub(crate) first_row: i64,
    /// Place of its first sequence.
    pub(crate) first_place: i64,
    /// Sequences.
    pub(crate) count: i64,
    /// Tokens of each.
    pub(crate) length: i64,
}

/// Where the tokens of a batch lie. A sequence has an index, its number in the batch as it was
/// handed in, and a place, its number in the matrix.
#[derive(Debug)]
pub struct Frame {
    runs: Vec<Run>,
    /// Row of the first token of each sequence, by index.
    starts: Vec<i64>,
    num_tokens: i64,
    num_rows: i64,
    /// The same, `[B]`, by place, and by index.
    first_rows: Tensor,
    first_rows_by_index: Tensor,
    /// Place of each sequence, `[B]`, by index; absent where places and indices are the same.
    places: Option<Tensor>,
    spans: Option<FrameSpans>,
}

/// Where sequences lie, for attention that takes sequences of different lengths; on GPUs only.
#[derive(Debug)]
pub(crate) struct FrameSpans {
    /// Of all tokens.
    pub(crate) tokens: Spans,
    /// Of first tokens alone: one row per sequence.
    pub(crate) firsts: Spans,
}

impl FrameSpans {
    fn new(
        first_rows: &[i64],
        num_tokens: i64,
        longest: i64,
        device: Device,
    ) -> Result<Self, ModelError> {
        let narrow = |row: i64| i32::try_from(row).unwrap_or(i32::MAX);
        let on_device = |values: &[i32]| Tensor::f_from_slice(values)?.f_to_device(device);
        let tokens: Vec<i32> = first_rows.iter().copied().chain([num_tokens]).map(narrow).collect();
        let firsts: Vec<i32> = (0..).take(tokens.len()).collect();
        Ok(Self {
            tokens: Spans { starts: on_device(&tokens)?, longest },
            firsts: Spans { starts: on_device(&firsts)?, longest: 1 },
        })
    }

    fn share(&self) -> Self {
        let share =
            |spans: &Spans| Spans { starts: spans.starts.shallow_clone(), longest: spans.longest };
        Self { tokens: share(&self.tokens), firsts: share(&self.firsts) }
    }
}

impl Frame {
    /// For sequences of these lengths in tokens.
    pub(crate) fn new(lengths: &[usize], device: Device) -> Result<Self, ModelError> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        // Stable: sequences of one length keep their order.
        order.sort_by_key(|index| lengths.get(*index).copied());
        let mut runs: Vec<Run> = Vec::new();
        let mut starts = vec![0; lengths.len()];
        let mut places = vec![0; lengths.len()];
        let mut first_rows = Vec::with_capacity(lengths.len());
        let mut row = 0;
        for (place, index) in (0..).zip(&order) {
            let length = extent(lengths.get(*index).copied().unwrap_or(0));
            if let (Some(start), Some(at)) = (starts.get_mut(*index), places.get_mut(*index)) {
                (*start, *at) = (row, place);
            }
            first_rows.push(row);
            match runs.last_mut().filter(|run| run.length == length) {
                Some(run) => run.count += 1,
                None => runs.push(Run { first_row: row, first_place: place, count: 1, length }),
            }
            row += length;
        }
        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let places = if places.is_sorted() { None } else { Some(on_device(&places)?) };
        let first_rows_by_index = on_device(&starts)?;
        let longest = runs.last().map_or(0, |run| run.length);
        let spans = if device.is_cuda() {
            Some(FrameSpans::new(&first_rows, row, longest, device)?)
        } else {
            None
        };
        let first_rows = on_device(&first_rows)?;
        let num_rows = rounded(row);
        Ok(Self {
            runs,
            starts,
            num_tokens: row,
            num_rows,
            first_rows,
            first_rows_by_index,
            places,
            spans,
        })
    }

    /// Rows of the matrix, `T`: the tokens and what is rounded up.
    pub fn num_rows(&self) -> i64 {
        self.num_rows
    }

    /// Tokens of all sequences.
    pub fn num_tokens(&self) -> i64 {
        self.num_tokens
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// For attention that takes sequences of different lengths; absent on a CPU.
    pub(crate) fn spans(&self) -> Option<&FrameSpans> {
        self.spans.as_ref()
    }

    /// Row of the first token of the sequence at `index`, which must be one of the batch.
    pub(crate) fn start(&self, index: usize) -> i64 {
        self.starts.get(index).copied().unwrap_or(0)
    }

    /// The first token of every sequence, `[B, D]` of `[T, D]`, by place.
    pub(crate) fn first_by_place(&self, states: &Tensor) -> Result<Tensor, ModelError> {
        Ok(states.f_index_select(0, &self.first_rows)?)
    }

    /// The first token of every sequence, `[B, D]` of `[T, D]`, by index.
    pub(crate) fn first_by_index(&self, states: &Tensor) -> Result<Tensor, ModelError> {
        Ok(states.f_index_select(0, &self.first_rows_by_index)?)
    }

    /// `[B, D]` by place as `[B, D]` by index.
    pub(crate) fn by_index(&self, rows: Tensor) -> Result<Tensor, ModelError> {
        match &self.places {
            None => Ok(rows),
            Some(places) => Ok(rows.f_index_select(0, places)?),
        }
    }

    /// The same frame; tensors share their memory.
    pub(crate) fn share(&self) -> Self {
        Self {
            runs: self.runs.clone(),
            starts: self.starts.clone(),
            num_tokens: self.num_tokens,
            num_rows: self.num_rows,
            first_rows: self.first_rows.shallow_clone(),
            first_rows_by_index: self.first_rows_by_index.shallow_clone(),
            places: self.places.as_ref().map(Tensor::shallow_clone),
            spans: self.spans.as_ref().map(FrameSpans::share),
        }
    }
}

/// Rows for so many tokens: a multiple of 16, of 32 where that adds little; few tokens stay as they
/// are.
pub fn rounded(num_tokens: i64) -> i64 {
    let block = match num_tokens {
        ..64 => 1,
        64..512 => 16,
        _ => 32,
    };
    num_tokens.saturating_add(block - 1) / block * block
}

/// Tokens of one forward on a CPU: what lies between two layers of a model with 384 to 768 hidden units stays in
/// the cache of a core then, and products of matrices are as fast as with more.
const TOKENS_ON_CPU: usize = 512;

/// Cuts `order` into batches for forwards without gradients, of at most `most` sequences each; `length` gives
/// the tokens of one. A GPU wants many at once.
pub fn forward_batches<T>(
    order: &[T],
    most: usize,
    device: Device,
    length: impl Fn(&T) -> usize,
) -> Vec<&[T]> {
    let max_tokens = if device == Device::Cpu { TOKENS_ON_CPU } else { usize::MAX };
    let (mut batches, mut rest) = (Vec::new(), order);
    while !rest.is_empty() {
        let mut num_tokens = 0usize;
        let fits = |item: &&T| {
            num_tokens = num_tokens.saturating_add(length(item));
            num_tokens <= max_tokens
        };
        let count = rest.iter().take(most).take_while(fits).count().max(1);
        let (batch, others) = rest.split_at(count);
        batches.push(batch);
        rest = others;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_lie_by_length() {
        let frame = Frame::new(&[3, 1, 3, 2], Device::Cpu).unwrap();
        let runs = [
            Run { first_row: 0, first_place: 0, count: 1, length: 1 },
            Run { first_row: 1, first_place: 1, count: 1, length: 2 },
            Run { first_row: 3, first_place: 2, count: 2, length: 3 },
        ];
        assert_eq!(frame.runs(), runs);
        let starts: Vec<i64> = (0..4).map(|index| frame.start(index)).collect();
        assert_eq!(starts, [3, 0, 6, 1]);
        let rows = Tensor::from_slice(&[0i64, 1, 2, 3]).view([4, 1]);
        let by_index = frame.by_index(rows).unwrap();
        assert_eq!(Vec::<i64>::try_from(by_index.view([-1])).unwrap(), [2, 0, 3, 1]);
    }

    #[test]
    fn forwards_are_cut_by_tokens_on_a_cpu_and_by_sequences_elsewhere() {
        let lengths = [100, 200, 212, 300, 600, 1, 1, 1];
        let cut = |most, device| -> Vec<usize> {
            let batches = forward_batches(&lengths, most, device, |length| *length);
            assert_eq!(batches.concat(), lengths);
            batches.iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(cut(64, Device::Cpu), [3, 1, 1, 3]);
        assert_eq!(cut(2, Device::Cpu), [2, 2, 1, 2, 1]);
        assert_eq!(cut(5, Device::Cuda(0)), [5, 3]);
        assert!(forward_batches(&[] as &[usize], 5, Device::Cpu, |length| *length).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_belongs_to_one_sequence(lengths in prop::collection::vec(1usize..9, 1..40)) {
            let frame = Frame::new(&lengths, Device::Cpu).unwrap();
            let mut owners = vec![None; lengths.iter().sum()];
            for (index, length) in lengths.iter().enumerate() {
                let start = usize::try_from(frame.start(index)).unwrap();
                for owner in &mut owners[start..start + length] {
                    prop_assert_eq!(owner.replace(index), None);
                }
            }
            prop_assert!(owners.iter().all(Option::is_some));
            let covered: i64 = frame.runs().iter().map(|run| run.count * run.length).sum();
            prop_assert_eq!(covered, frame.num_tokens());
            prop_assert!((0..32).contains(&(frame.num_rows() - frame.num_tokens())));
            prop_assert!(frame.runs().is_sorted_by(|a, b| a.length < b.length));
            let rows = Tensor::arange(frame.num_tokens(), (tch::Kind::Int64, Device::Cpu));
            let rows = rows.view([-1, 1]);
            let by_place = frame.by_index(frame.first_by_place(&rows).unwrap()).unwrap();
            prop_assert_eq!(by_place, frame.first_by_index(&rows).unwrap());
        }
    }
}
