//! What stands around the tokens of a text, and how texts are cut to fit.
//!
//! BERT and DistilBERT: `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, the second text in segment 1.
//! RoBERTa: `<s> a </s>` and `<s> a </s></s> b </s>`, everything in segment 0. The frame is learned
//! from the tokenizer itself, so that a `tokenizer.json` may have another one.

use muster_common::manifest::Truncation;
use tokenizers::Tokenizer;

use super::Sequence;

/// Special tokens around one text and around two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    single: [Vec<u32>; 2],
    pair: [Vec<u32>; 3],
    /// How many tokens behind the first text still belong to its segment; absent where everything
    /// is in segment 0.
    first_segment_tail: Option<usize>,
}

/// A run of special or ordinary tokens.
struct Run {
    special: bool,
    ids: Vec<u32>,
    types: Vec<u32>,
}

/// Cuts an encoding into runs.
fn runs(tokenizer: &Tokenizer, pair: bool) -> Result<Vec<Run>, String> {
    const PROBE: &str = "a";
    let encoding =
        if pair { tokenizer.encode((PROBE, PROBE), true) } else { tokenizer.encode(PROBE, true) };
    let encoding = encoding.map_err(|error| error.to_string())?;
    let mut runs: Vec<Run> = Vec::new();
    let marks = encoding.get_special_tokens_mask();
    for ((id, kind), mark) in encoding.get_ids().iter().zip(encoding.get_type_ids()).zip(marks) {
        let special = *mark != 0;
        match runs.last_mut().filter(|run| run.special == special) {
            Some(run) => {
                run.ids.push(*id);
                run.types.push(*kind);
            }
            None => runs.push(Run { special, ids: vec![*id], types: vec![*kind] }),
        }
    }
    Ok(runs)
}

impl Frame {
    /// Learns the frame from what the tokenizer, which must not cut or pad, does to a probe.
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let single = runs(tokenizer, false)?;
        let [before, text, after] = single.as_slice() else { return Err(frameless()) };
        if !(before.special && !text.special && after.special) {
            return Err(frameless());
        }
        let single = [before.ids.clone(), after.ids.clone()];
        let pair = runs(tokenizer, true)?;
        let [before, first, between, second, after] = pair.as_slice() else {
            return Err("the tokenizer puts no special token between two texts".to_owned());
        };
        if !before.special || first.special {
            return Err(frameless());
        }
        let segment = |run: &Run| run.types.first().copied().unwrap_or(0);
        let first_segment_tail = (segment(second) != segment(first))
            .then(|| between.types.iter().take_while(|kind| **kind == segment(first)).count());
        let pair = [before.ids.clone(), between.ids.clone(), after.ids.clone()];
        Ok(Self { single, pair, first_segment_tail })
    }

    /// Special tokens around one text.
    pub(super) fn num_single(&self) -> usize {
        self.single.iter().map(Vec::len).sum()
    }

    /// Special tokens around two texts.
    pub(super) fn num_pair(&self) -> usize {
        self.pair.iter().map(Vec::len).sum()
    }

    /// The token that stands first, which the classifier reads, and the one that ends a text.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        let [before, after] = &self.single;
        Some((*before.first()?, *after.last()?))
    }

    /// One text of at most `max_length` tokens in all.
    pub(super) fn wrap(&self, ids: &[u32], max_length: usize, truncation: Truncation) -> Vec<u32> {
        let room = max_length.saturating_sub(self.num_single());
        let [before, after] = &self.single;
        let mut tokens = Vec::with_capacity(ids.len().min(room) + self.num_single());
        tokens.extend_from_slice(before);
        if ids.len() <= room {
            tokens.extend_from_slice(ids);
        } else {
            let head = truncation.head_tokens(max_length, room);
            let tail = ids.len() - (room - head);
            tokens.extend(ids.iter().take(head));
            tokens.extend(ids.iter().skip(tail));
        }
        tokens.extend_from_slice(after);
        tokens
    }

    /// Two texts of at most `max_length` tokens in all, the longer one cut first.
    pub(super) fn wrap_pair(&self, a: &[u32], b: &[u32], max_length: usize) -> Sequence {
        let room = max_length.saturating_sub(self.num_pair());
        let (num_a, num_b) = longest_first(a.len(), b.len(), room);
        let [before, between, after] = &self.pair;
        let mut ids = Vec::with_capacity(num_a + num_b + self.num_pair());
        ids.extend_from_slice(before);
        ids.extend(a.iter().take(num_a));
        let first = self.first_segment_tail.map(|tail| ids.len() + tail);
        ids.extend_from_slice(between);
        ids.extend(b.iter().take(num_b));
        ids.extend_from_slice(after);
        let first_segment = first.unwrap_or(ids.len());
        Sequence { ids, first_segment }
    }
}

fn frameless() -> String {
    "the tokenizer puts no special tokens around a text: it belongs to no model of these families"
        .to_owned()
}

/// Lengths of two texts of `a` and `b` tokens that fit into `room`: the rule `longest_first` of
/// Hugging Face's tokenizers, which cuts the longer text, and both to halves when neither fits.
pub(super) fn longest_first(a: usize, b: usize, room: usize) -> (usize, usize) {
    if a + b <= room {
        return (a, b);
    }
    let (short, long) = (a.min(b), a.max(b));
    let long_cut = if short > room { short } else { short.max(room - short).min(long) };
    let (short, long) =
        if short + long_cut > room { (room / 2, room / 2 + room % 2) } else { (short, long_cut) };
    if a > b { (long, short) } else { (short, long) }
}
