//! Texts to token ids, with the tokenizer that belongs to the pretrained weights.

mod files;
mod frame;
mod pieces;

use std::path::Path;

use muster_common::digest::ContentHash;
use muster_common::manifest::Truncation;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::DataError;
use super::parallel::each;
use frame::Frame;

pub use pieces::Piece;

/// Turns texts into token ids, special tokens included.
#[derive(Debug)]
pub struct TextTokenizer {
    /// Cuts by itself, and stops reading a text where enough tokens are found; absent where that
    /// is not what the truncation wants.
    cutting: Option<Tokenizer>,
    endless: Tokenizer,
    frame: Frame,
    special: SpecialTokens,
    max_length: usize,
    truncation: Truncation,
    sha256: ContentHash,
    path: String,
}

/// Numbers of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The first token of every sequence: `[CLS]` or `<s>`.
    pub cls: u32,
    /// The last token of every text: `[SEP]` or `</s>`.
    pub sep: u32,
    /// Padding: `[PAD]` or `<pad>`.
    pub pad: Option<u32>,
    /// What stands for a hidden token in masked-language modelling: `[MASK]` or `<mask>`.
    pub mask: Option<u32>,
    /// What stands for an unknown piece: `[UNK]` or `<unk>`.
    pub unk: Option<u32>,
}

/// Tokens of one example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// So many of the first tokens are in segment 0, the rest in segment 1.
    pub first_segment: usize,
}

/// One text or two to be read as one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// The text.
    pub text: &'a str,
    /// The second text of a pair.
    pub pair: Option<&'a str>,
}

impl TextTokenizer {
    /// Opens the tokenizer in a Hugging Face directory: `tokenizer.json`, else `vocab.txt`, else
    /// `vocab.json` with `merges.txt`. Texts of more than `max_length` tokens, special tokens
    /// counted, keep their head.
    pub fn open(directory: &Path, max_length: u32) -> Result<Self, DataError> {
        let files::Opened { path, mut tokenizer, sha256 } = files::open(directory)?;
        let max_length = usize::try_from(max_length).unwrap_or(usize::MAX);
        // What a `tokenizer.json` was saved with does not count: length and padding are ours.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| refused(&path, error.to_string()))?;
        let frame = Frame::of(&tokenizer).map_err(|why| refused(&path, why))?;
        let special = SpecialTokens::of(&tokenizer, &frame).map_err(|why| refused(&path, why))?;
        let count = frame.num_single();
        if max_length <= count {
            let message = format!("{count} special tokens leave no room in {max_length} tokens");
            return Err(refused(&path, message));
        }
        let (path, truncation) = (path.display().to_string(), Truncation::Head);
        let opened = Self {
            cutting: None,
            endless: tokenizer,
            frame,
            special,
            max_length,
            truncation,
            sha256,
            path,
        };
        opened.with_truncation(truncation)
    }

    /// The same, with another part of long texts kept. Pairs are always cut longest first.
    pub fn with_truncation(mut self, truncation: Truncation) -> Result<Self, DataError> {
        self.truncation = truncation;
        let direction = match truncation {
            Truncation::Head => TruncationDirection::Right,
            Truncation::Tail => TruncationDirection::Left,
            Truncation::HeadTail { .. } => {
                self.cutting = None;
                return Ok(self);
            }
        };
        let (strategy, max_length) = (TruncationStrategy::LongestFirst, self.max_length);
        let params = TruncationParams { direction, max_length, strategy, stride: 0 };
        let mut cutting = self.endless.clone();
        let set = cutting.with_truncation(Some(params)).map(drop);
        set.map_err(|error| self.refused(error.to_string()))?;
        self.cutting = Some(cutting);
        Ok(self)
    }

    /// Digest of the files that decide on the tokens.
    pub fn sha256(&self) -> &ContentHash {
        &self.sha256
    }

    /// The special tokens.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special
    }

    /// The tokenizer of the library, which neither cuts nor pads.
    pub fn backend(&self) -> &Tokenizer {
        &self.endless
    }

    /// Token ids of every text, in order. The result does not depend on `num_threads`.
    pub fn encode(&self, texts: &[&str], num_threads: usize) -> Result<Vec<Vec<u32>>, DataError> {
        self.each(texts, num_threads, |text| self.single(text))
    }

    /// Tokens of every example, in order. The result does not depend on `num_threads`.
    pub fn encode_inputs(
        &self,
        inputs: &[Input<'_>],
        num_threads: usize,
    ) -> Result<Vec<Sequence>, DataError> {
        if inputs.iter().any(|input| input.pair.is_some()) {
            self.check_pairs()?;
        }
        self.each(inputs, num_threads, |input| {
            if let Some(pair) = input.pair {
                return Ok(self.wrap_pair(&self.bare(input.text)?, &self.bare(pair)?));
            }
            let ids = self.single(input.text)?;
            let first_segment = ids.len();
            Ok(Sequence { ids, first_segment })
        })
    }

    /// The text that token ids stand for, without the tokens around it. It is what the model reads, not always what was
    /// written: case, accents and blanks may be gone, and words that it does not know.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        let SpecialTokens { cls, sep, pad, .. } = self.special;
        let is_around = |id: &u32| *id == cls || *id == sep || Some(*id) == pad;
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !is_around(id)).collect();
        self.endless.decode(&ids, false).map_err(|error| self.refused(error.to_string()))
    }

    fn single(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let Some(cutting) = &self.cutting else {
            return Ok(self.frame.wrap(&self.bare(text)?, self.max_length, self.truncation));
        };
        let encoding = cutting.encode_fast(text, true);
        let encoding = encoding.map_err(|error| self.refused(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids without special tokens and without an end.
    pub(super) fn encode_bare(
        &self,
        texts: &[&str],
        num_threads: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        self.each(texts, num_threads, |text| self.bare(text))
    }

    /// Two texts of bare tokens as one example; see [`TextTokenizer::check_pairs`].
    pub(super) fn wrap_pair(&self, a: &[u32], b: &[u32]) -> Sequence {
        self.frame.wrap_pair(a, b, self.max_length)
    }

    /// Bare tokens of a text cut into examples that are as long as they may be, one after the other.
    pub(super) fn wrap_pieces(&self, ids: &[u32]) -> Vec<Sequence> {
        let room = self.max_length.saturating_sub(self.frame.num_single()).max(1);
        let wrap = |piece: &[u32]| {
            let ids = self.frame.wrap(piece, self.max_length, Truncation::Head);
            let first_segment = ids.len();
            Sequence { ids, first_segment }
        };
        if ids.is_empty() { vec![wrap(ids)] } else { ids.chunks(room).map(wrap).collect() }
    }

    /// Whether two texts find room.
    pub(super) fn check_pairs(&self) -> Result<(), DataError> {
        let (count, max_length) = (self.frame.num_pair(), self.max_length);
        if max_length > count {
            return Ok(());
        }
        Err(self.refused(format!("{count} special tokens leave no room in {max_length} tokens")))
    }

    fn bare(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self.endless.encode_fast(text, false);
        let encoding = encoding.map_err(|error| self.refused(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        num_threads: usize,
        work: impl Fn(&T) -> Result<R, DataError> + Sync,
    ) -> Result<Vec<R>, DataError> {
        // The pool inside the library takes every core of the machine; a slot has its own share.
        set_parallelism(false);
        let done = each(items, num_threads, work);
        done.ok_or_else(|| self.refused("the tokenizer panicked".to_owned()))?.into_iter().collect()
    }

    fn refused(&self, message: String) -> DataError {
        DataError::refused(&*self.path, message)
    }
}

impl SpecialTokens {
    fn of(tokenizer: &Tokenizer, frame: &Frame) -> Result<Self, String> {
        let named = |names: [&str; 2]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let (cls, sep) = frame.ends().ok_or("the tokenizer has no first or last token")?;
        Ok(Self {
            cls,
            sep,
            pad: named(["[PAD]", "<pad>"]),
            mask: named(["[MASK]", "<mask>"]),
            unk: named(["[UNK]", "<unk>"]),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path)
        .map_err(|source| DataError::Read { path: path.display().to_string(), source })
}

fn refused(path: &Path, message: String) -> DataError {
    DataError::refused(path.display().to_string(), message)
}

#[cfg(test)]
mod tests;
