//! What the words of confident mistakes have to do with them, as the model itself says when it is asked again.

use std::collections::BTreeMap;

use muster_common::evaluation::prediction::TEXT_CHARACTERS_MAX;
use muster_common::evaluation::{AttributedText, Attribution, confident_mistakes};

use super::Predictions;
use super::behavior::{MISTAKES, MistakeWord};
use super::learning::rounded;

/// Mistakes whose words are weighed: each takes the model a hundred passes.
const WEIGHED_MAX: usize = 20;
/// Between the texts of a pair in a file of predictions.
const BETWEEN: char = '\n';

/// Answers of the model, by row of the test split.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weighed {
    /// What it said.
    pub answers: BTreeMap<u64, Attribution>,
    /// Why it was not asked, for people.
    pub absent: Option<String>,
}

/// The mistakes that a model is to be asked about, with their rows. `pairs`: each example has two texts. Texts that
/// were cut are not the ones that the model read, and are left out.
pub fn questions((rows, _): &Predictions, pairs: bool) -> Vec<(u64, AttributedText)> {
    let question = |place: usize| {
        let row = rows.get(place)?;
        let text = row.text.as_ref().filter(|text| text.chars().count() < TEXT_CHARACTERS_MAX)?;
        let (text, text_pair) = match text.split_once(BETWEEN).filter(|_| pairs) {
            Some((_, pair)) if pair.contains(BETWEEN) => return None,
            Some((text, pair)) => (text, Some(pair.to_owned())),
            None => (text.as_str(), None),
        };
        Some((row.row, AttributedText { text: text.to_owned(), text_pair }))
    };
    let asked = confident_mistakes(rows, MISTAKES).into_iter().filter_map(question);
    asked.take(WEIGHED_MAX).collect()
}

impl Weighed {
    /// Nothing, and why.
    pub fn absent(why: impl Into<String>) -> Self {
        Self { answers: BTreeMap::new(), absent: Some(why.into()) }
    }

    /// The words of `text`, that of `row`; none unless the model says again what it said.
    pub(super) fn words(&self, row: u64, text: &str, prediction: &str) -> Vec<MistakeWord> {
        let answer = self.answers.get(&row).filter(|answer| answer.predicted == prediction);
        let Some(answer) = answer else { return Vec::new() };
        let second = text.find(BETWEEN).map_or(text.len(), |at| at + BETWEEN.len_utf8());
        let place = |word: &muster_common::evaluation::WordWeight| {
            let before = if word.in_pair { second } else { 0 };
            let (start, end) = (word.start.checked_add(before)?, word.end.checked_add(before)?);
            text.get(start..end)?;
            Some(MistakeWord { start, end, weight: rounded(word.weight) })
        };
        answer.words.iter().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use muster_common::evaluation::WordWeight;
    use muster_common::evaluation::prediction::Prediction;

    use super::*;

    fn wrong(row: u64, text: &str) -> Prediction {
        Prediction::new(row, 0, vec![0.1, 0.9]).with_text(text)
    }

    #[test]
    fn questions_are_about_whole_texts_of_mistakes() {
        let long = "a".repeat(TEXT_CHARACTERS_MAX);
        let right = Prediction::new(9, 1, vec![0.1, 0.9]).with_text("right");
        let rows = vec![wrong(1, "good\nfilm"), wrong(2, &long), wrong(3, "a\nb\nc"), right];
        let labels = vec!["no".to_owned(), "yes".to_owned()];
        let predictions = (rows, labels);
        let asked = questions(&predictions, true);
        let pair = AttributedText { text: "good".to_owned(), text_pair: Some("film".to_owned()) };
        assert_eq!(asked, [(1, pair)]);
        let asked = questions(&predictions, false);
        assert_eq!(asked.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(asked[0].1.text, "good\nfilm");
        let many = (0..50).map(|row| wrong(row, "x")).collect();
        assert_eq!(questions(&(many, predictions.1), false).len(), WEIGHED_MAX);
    }

    #[test]
    fn words_stand_where_the_text_has_them() {
        let word = |in_pair, start, end, weight| WordWeight { in_pair, start, end, weight };
        let words = vec![
            word(false, 0, 4, 1.0),
            word(true, 0, 5, -0.5),
            // Places that are none.
            word(true, 3, 99, 1.0),
            word(false, 1, 2, 1.0),
        ];
        let answer = Attribution {
            predicted: "yes".to_owned(),
            probability: 0.9,
            words,
            completeness_error: None,
        };
        let weighed = Weighed { answers: BTreeMap::from([(7, answer)]), absent: None };
        let text = "\u{fc}nd\nf\u{fc}lm";
        let found = weighed.words(7, text, "yes");
        let found: Vec<(&str, f64)> =
            found.iter().map(|word| (&text[word.start..word.end], word.weight)).collect();
        assert_eq!(found, [("\u{fc}nd", 1.0), ("f\u{fc}lm", -0.5)]);
        // The model says something else about the text that was kept: it is not the one that it read.
        assert!(weighed.words(7, text, "no").is_empty());
        assert!(weighed.words(8, text, "yes").is_empty());
    }
}
