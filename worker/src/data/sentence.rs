//! Next-sentence prediction (Devlin et al. 2019, section 3.1): pairs of sentences, half of which
//! follow each other and half of which do not.

use muster_common::seed::Seed;

/// Class of a pair whose second sentence follows the first, as transformers numbers it.
pub(crate) const FOLLOWS: u32 = 0;
/// Class of a pair whose second sentence is from another document.
pub(super) const RANDOM: u32 = 1;
/// Names of the classes in the order of their numbers.
pub(super) const CLASS_NAMES: [&str; 2] = ["next", "random"];

/// Two sentences by their numbers, counted over all documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) class: u32,
}

/// Ends a line in texts from the web, as the reviews of IMDB are.
const BREAKS: [&str; 3] = ["<br />", "<br/>", "<br>"];

/// The sentences of a document: its lines if it has several, else what ends with `.`, `!` or `?`
/// and closing quotes or brackets before white space, or with line breaks of HTML, which stay with it.
/// No sentence is empty.
pub(super) fn sentences(document: &str) -> Vec<&str> {
    let document = document.trim();
    let pieces: Vec<&str> = if document.contains('\n') {
        document.lines().collect()
    } else {
        paragraphs(document).into_iter().flat_map(cut_behind_marks).collect()
    };
    pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()).collect()
}

/// What stands between line breaks of HTML, with those behind it; those that a text begins with are no piece of
/// their own.
fn paragraphs(text: &str) -> Vec<&str> {
    let first_break = |from: usize| {
        let rest = text.get(from..)?;
        let found = BREAKS.iter().filter_map(|tag| rest.find(tag)).min()?;
        Some(from + found)
    };
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, behind_breaks(text, 0));
    while let Some(found) = first_break(from) {
        from = behind_breaks(text, found);
        pieces.extend(text.get(start..from));
        start = from;
    }
    pieces.extend(text.get(start..));
    pieces
}

/// Where the line breaks of HTML end that follow `at`, white space between them included; `at` if none does.
fn behind_breaks(text: &str, at: usize) -> usize {
    let mut end = at;
    loop {
        let rest = text.get(end..).unwrap_or_default().trim_start();
        let Some(tag) = BREAKS.iter().find(|tag| rest.starts_with(**tag)) else { return end };
        end = text.len() - rest.len() + tag.len();
    }
}

fn cut_behind_marks(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut ended) = (0, false);
    for (at, character) in text.char_indices() {
        if matches!(character, '.' | '!' | '?' | '…') {
            ended = true;
        } else if ended && character.is_whitespace() {
            if behind_breaks(text, at) == text.len() {
                break;
            }
            pieces.extend(text.get(start..at));
            (start, ended) = (at, false);
        } else if !matches!(character, '"' | '\'' | '”' | '’' | ')' | ']') {
            ended = false;
        }
    }
    pieces.extend(text.get(start..));
    pieces
}

/// The pairs of documents with so many sentences each: one for every sentence that has a next one.
/// A pure function of the seed, the counts and the place; with a single document all pairs follow.
pub(super) fn pairs(seed: Seed, counts: &[u32]) -> impl Iterator<Item = Pair> {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let starts = counts.iter().scan(0u64, |next, count| {
        let start = *next;
        *next += u64::from(*count);
        Some((start, u64::from(*count)))
    });
    starts
        .flat_map(|(start, count)| (1..count).map(move |second| (start, count, start + second)))
        .map(move |(start, count, next)| {
            let first = next - 1;
            let mut draws = seed.child("pair", first).draws();
            let elsewhere = total - count;
            if elsewhere == 0 || draws.unit() < 0.5 {
                return Pair { first, second: next, class: FOLLOWS };
            }
            let other = draws.below(elsewhere);
            // Sentences of all other documents, numbered without the document's own.
            let second = if other < start { other } else { other + count };
            Pair { first, second, class: RANDOM }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences_end_behind_marks_or_with_lines() {
        let text = "It is 3.5 km. \"Really?\" he said (yes!) and left... No more";
        let expected = ["It is 3.5 km.", "\"Really?\"", "he said (yes!)", "and left...", "No more"];
        assert_eq!(sentences(text), expected);
        assert_eq!(sentences("one. two.\n\n three \n"), ["one. two.", "three"]);
        assert_eq!(sentences(" "), [] as [&str; 0]);
    }

    #[test]
    fn sentences_end_at_line_breaks_of_html_too() {
        let text = "<br />Great. Really great!<br /><br />Then the plot <br/> <br> ends. <br /> Or (not).<br />";
        let expected = [
            "<br />Great.",
            "Really great!<br /><br />",
            "Then the plot <br/> <br>",
            "ends. <br />",
            "Or (not).<br />",
        ];
        assert_eq!(sentences(text), expected);
        // Not every `<` is one.
        assert_eq!(sentences("I <br it. 3 < 4."), ["I <br it.", "3 < 4."]);
        assert_eq!(sentences("<br /><br />"), ["<br /><br />"]);
    }

    proptest! {
        #[test]
        fn half_of_the_pairs_follow_and_the_others_leave_the_document(
            counts in proptest::collection::vec(0u32..6, 0..60), seed: u64,
        ) {
            let document = |sentence: u64| {
                let mut end = 0;
                counts.iter().position(|count| { end += u64::from(*count); sentence < end })
            };
            let pairs: Vec<Pair> = pairs(Seed(seed), &counts).collect();
            let expected: u32 = counts.iter().map(|count| count.saturating_sub(1)).sum();
            prop_assert_eq!(pairs.len(), expected as usize);
            for pair in &pairs {
                let (a, b) = (document(pair.first), document(pair.second));
                prop_assert!(a.is_some() && b.is_some());
                if pair.class == FOLLOWS {
                    prop_assert_eq!((pair.second, a), (pair.first + 1, b));
                } else {
                    prop_assert_ne!(a, b);
                }
            }
            let again: Vec<Pair> = super::pairs(Seed(seed), &counts).collect();
            prop_assert_eq!(again, pairs);
        }

        #[test]
        fn no_character_is_lost(text in "([a-c.!? \")\n<>/]|<br ?/?>){0,60}") {
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&sentences(&text).concat()), letters(&text));
        }
    }

    #[test]
    fn the_shares_are_even() {
        let counts = vec![5; 2000];
        let random = pairs(Seed(3), &counts).filter(|pair| pair.class == RANDOM).count();
        assert!((3850..4150).contains(&random), "{random} of 8000");
    }
}
