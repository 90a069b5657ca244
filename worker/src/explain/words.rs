//! Tokens to words: what people read.

use serde::Serialize;

use crate::data::{Input, Piece};

/// A word of a text, as the tokenizer cuts words before it cuts them into tokens: punctuation is a word of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// As it stands in the text.
    pub text: String,
    /// Whether it is of the second text of a pair.
    pub in_pair: bool,
    /// First byte in its text.
    pub start: usize,
    /// First byte behind it.
    pub end: usize,
    /// Places of its tokens in the sequence.
    pub tokens: Vec<usize>,
}

/// The words of an input, from the places of all tokens of its sequence. Words that were cut off are not among them.
pub(super) fn words_of(input: Input<'_>, pieces: &[Option<Piece>]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut last: Option<Piece> = None;
    for (at, piece) in pieces.iter().enumerate() {
        let Some(piece) = piece else {
            last = None;
            continue;
        };
        let goes_on = last.is_some_and(|last| {
            piece.word.is_some() && (last.in_pair, last.word) == (piece.in_pair, piece.word)
        });
        last = Some(*piece);
        match words.last_mut().filter(|_| goes_on) {
            Some(word) => {
                word.end = word.end.max(piece.end);
                word.tokens.push(at);
            }
            None => words.push(Word {
                text: String::new(),
                in_pair: piece.in_pair,
                start: piece.start,
                end: piece.end,
                tokens: vec![at],
            }),
        }
    }
    for word in &mut words {
        let text = if word.in_pair { input.pair.unwrap_or_default() } else { input.text };
        let found = text.get(word.start..word.end).unwrap_or_default();
        // Byte-level tokenizers count the blank before a word to it.
        let bare = found.trim_start();
        word.start += found.len() - bare.len();
        bare.trim_end().clone_into(&mut word.text);
        word.end = word.start + word.text.len();
    }
    words
}

/// Sums of the values of each word's tokens.
pub(super) fn merged(values: &[f64], words: &[Word]) -> Vec<f64> {
    let sum = |word: &Word| word.tokens.iter().filter_map(|at| values.get(*at)).sum();
    words.iter().map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(in_pair: bool, word: Option<u32>, (start, end): (usize, usize)) -> Piece {
        Piece { in_pair, word, start, end }
    }

    #[test]
    fn tokens_of_a_word_are_merged_and_blanks_are_not_of_it() {
        let input = Input { text: "Good films", pair: Some("ünd good") };
        let pieces = [
            None,
            Some(piece(false, Some(0), (0, 4))),
            Some(piece(false, Some(1), (4, 9))),
            Some(piece(false, Some(1), (9, 10))),
            None,
            Some(piece(true, Some(0), (0, 4))),
            Some(piece(true, Some(1), (4, 9))),
            None,
        ];
        let words = words_of(input, &pieces);
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["Good", "films", "ünd", "good"]);
        assert_eq!((words[1].start, words[1].end, &words[1].tokens), (5, 10, &vec![2, 3]));
        assert!(words[2].in_pair && !words[1].in_pair);
        let values = [9.0, 1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 9.0];
        assert_eq!(merged(&values, &words), [1.0, 5.0, 4.0, 5.0]);
    }

    #[test]
    fn tokens_without_words_stand_alone() {
        let input = Input { text: "ab", pair: None };
        let words = words_of(
            input,
            &[None, Some(piece(false, None, (0, 1))), Some(piece(false, None, (1, 2))), None],
        );
        assert_eq!(words.len(), 2);
    }
}
