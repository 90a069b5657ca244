//! Where in its text each token stands.

use super::frame::Frame;
use super::{DataError, Input, TextTokenizer};

/// The place of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Whether it is of the second text of a pair.
    pub in_pair: bool,
    /// Number of its word within its text, as the tokenizer cuts words; absent where it cuts none.
    pub word: Option<u32>,
    /// First byte in the text.
    pub start: usize,
    /// First byte behind it.
    pub end: usize,
}

/// From here on numbers stand for places instead of tokens; no vocabulary is as large.
const MARK: u32 = 1 << 30;

impl TextTokenizer {
    /// The place of every token of [`TextTokenizer::encode_inputs`] of the same input; none for special tokens.
    pub fn pieces(&self, input: Input<'_>) -> Result<Vec<Option<Piece>>, DataError> {
        let first = self.places(input.text, false)?;
        let Some(pair) = input.pair else {
            let framed = self.frame.wrap(&marks(0, first.len()), self.max_length, self.truncation);
            return Ok(unmarked(&framed, &first));
        };
        let second = self.places(pair, true)?;
        let (marks_a, marks_b) = (marks(0, first.len()), marks(first.len(), second.len()));
        let framed = Frame::wrap_pair(&self.frame, &marks_a, &marks_b, self.max_length);
        Ok(unmarked(&framed.ids, &[first, second].concat()))
    }

    fn places(&self, text: &str, in_pair: bool) -> Result<Vec<Piece>, DataError> {
        let encoding = self.endless.encode(text, false);
        let encoding = encoding.map_err(|error| self.refused(error.to_string()))?;
        let places = encoding.get_offsets().iter().zip(encoding.get_word_ids());
        Ok(places
            .map(|((start, end), word)| Piece { in_pair, word: *word, start: *start, end: *end })
            .collect())
    }
}

fn marks(first: usize, count: usize) -> Vec<u32> {
    (MARK..).skip(first).take(count).collect()
}

fn unmarked(framed: &[u32], places: &[Piece]) -> Vec<Option<Piece>> {
    let place = |number: &u32| {
        let index = usize::try_from(number.checked_sub(MARK)?).ok()?;
        places.get(index).copied()
    };
    framed.iter().map(place).collect()
}
