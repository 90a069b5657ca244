//! Tokenized splits.

use std::sync::Arc;

use muster_common::run::DataSummary;

use super::columns::Numbers;
use super::origin::Origins;
use super::tokenize::Sequence;
use crate::ffi::MappedFile;

/// One split, tokenized. Token ids include the special tokens (`[CLS] ... [SEP]`) and are cut to
/// the trial's longest sequence. Splits of the cache are mapped files: tokens are read when they are
/// used and take no memory that the system could not have back.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// All examples one after the other.
    tokens: Numbers<u32>,
    /// Where each example starts in `tokens`, and the end of the last.
    offsets: Numbers<u64>,
    /// Class of each example; 0 where there are no classes.
    labels: Numbers<u32>,
    /// Tokens of each example that are in segment 0; absent where all are.
    first_segments: Option<Numbers<u32>>,
}

impl Split {
    /// From the token ids and the class of each example; the shorter of the two lists counts.
    pub fn new(tokens: Vec<Vec<u32>>, labels: Vec<u32>) -> Self {
        let (mut ids, mut offsets, mut classes) = (Vec::new(), vec![0], Vec::new());
        for (tokens, label) in tokens.into_iter().zip(labels) {
            ids.extend(tokens);
            offsets.push(ids.len() as u64);
            classes.push(label);
        }
        Self {
            tokens: Numbers::Owned(ids),
            offsets: Numbers::Owned(offsets),
            labels: Numbers::Owned(classes),
            first_segments: None,
        }
    }

    /// The same with the number of tokens in segment 0 of each example; `None` if there are not as
    /// many numbers as examples, or one is beyond its example.
    pub fn with_first_segments(mut self, first_segments: Vec<u32>) -> Option<Self> {
        self.first_segments = Some(Numbers::Owned(first_segments));
        self.check().ok()?;
        Some(self)
    }

    /// The split whose columns are called `NAME.*` in a safetensors file.
    pub(super) fn mapped(file: &Arc<MappedFile>, name: &str) -> Result<Self, String> {
        let column = |column: &str| format!("{name}.{column}");
        let split = Self {
            tokens: Numbers::mapped(file, &column("tokens"))?,
            offsets: Numbers::mapped(file, &column("offsets"))?,
            labels: Numbers::mapped(file, &column("labels"))?,
            first_segments: Numbers::mapped(file, &column("first_segments")).ok(),
        };
        split.check().map_err(|()| format!("{name} contradicts itself"))?;
        Ok(split)
    }

    fn check(&self) -> Result<(), ()> {
        let (offsets, labels) = (self.offsets.all(), self.labels.all());
        let rises = offsets.is_sorted() && offsets.first() == Some(&0);
        let fits = offsets.last() == Some(&(self.tokens.all().len() as u64));
        let counts = offsets.len() == labels.len() + 1;
        let segments = self.first_segments.as_ref().is_none_or(|firsts| {
            let lengths = offsets.windows(2).map(|pair| pair[1] - pair[0]);
            let firsts = firsts.all();
            let within = firsts.iter().zip(lengths).all(|(first, all)| u64::from(*first) <= all);
            firsts.len() == labels.len() && within
        });
        if rises && fits && counts && segments { Ok(()) } else { Err(()) }
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.labels.all().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token ids of the example at `index`, which must be below [`Split::len`].
    pub fn tokens(&self, index: usize) -> &[u32] {
        let offsets = self.offsets.all();
        // Offsets count tokens in memory, so they fit.
        let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(usize::MAX);
        &self.tokens.all()[at(index)..at(index + 1)]
    }

    /// Class of the example at `index`, which must be below [`Split::len`]; 0 where there are no
    /// classes.
    pub fn label(&self, index: usize) -> u32 {
        self.labels.all()[index]
    }

    /// Tokens of the example at `index`, special tokens counted.
    pub fn length(&self, index: usize) -> usize {
        self.tokens(index).len()
    }

    /// How many of the first tokens of the example at `index`, which must be below [`Split::len`],
    /// are in segment 0; the rest is in segment 1. `None`: this split has no pairs.
    pub fn first_segment(&self, index: usize) -> Option<usize> {
        Some(self.first_segments.as_ref()?.all()[index] as usize)
    }

    /// Tokens and first segment of the example at `index`, which must be below [`Split::len`].
    pub(super) fn sequence(&self, index: usize) -> Sequence {
        let ids = self.tokens(index).to_vec();
        let first_segment = self.first_segment(index).unwrap_or(ids.len());
        Sequence { ids, first_segment }
    }

    /// Segment (token type) of every token of the example at `index`, which must be below
    /// [`Split::len`]: 0 for the first text, 1 for the second. `None`: this split has no pairs.
    pub fn segments(&self, index: usize) -> Option<Vec<u32>> {
        let mut segments = vec![0; self.first_segment(index)?];
        segments.resize(self.length(index), 1);
        Some(segments)
    }
}

/// The tokenized splits of an experiment.
#[derive(Debug)]
pub struct Dataset {
    /// Examples to train on, in the order of the files.
    pub train: Split,
    /// Examples the searcher decides on.
    pub validation: Split,
    /// Examples scored once; absent if the manifest has none.
    pub test: Option<Split>,
    /// What the data turned out to be.
    pub summary: DataSummary,
    /// Who knows where the examples of the test split stand in the files.
    pub origins: Option<Origins>,
}
