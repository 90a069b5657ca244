//! A text with its words colored by how much they speak for something or against it.

use super::element::{escape, number};
use crate::report::behavior::MistakeWord;

/// Shades of a color.
const SHADES: f64 = 4.0;
/// Words are colored from this share of the strongest on.
const SHOWN_FROM: f64 = 0.1;
/// Words that are named on each side, for those who see no colors.
const NAMED: usize = 3;

/// The text, and the strongest words by name.
pub(super) fn blockquote(text: &str, words: &[MistakeWord]) -> String {
    let most = words.iter().map(|word| word.weight.abs()).fold(0.0, f64::max);
    let mut html = "<blockquote>".to_owned();
    let mut at = 0;
    let shown = |word: &&MistakeWord| most > 0.0 && word.weight.abs() >= SHOWN_FROM * most;
    for word in words.iter().filter(shown) {
        // Words stand in their order; one that does not is not worth a broken page.
        let Some((before, own)) = text.get(at..word.start).zip(text.get(word.start..word.end))
        else {
            continue;
        };
        let side = if word.weight > 0.0 { "for" } else { "against" };
        let shade = (word.weight.abs() / most * SHADES).ceil().clamp(1.0, SHADES);
        html += &escape(before);
        html += &format!(
            "<mark class=\"{side}{shade}\" title=\"{}\">{}</mark>",
            signed(word.weight),
            escape(own)
        );
        at = word.end;
    }
    html += &escape(text.get(at..).unwrap_or_default());
    html += "</blockquote>";
    let mut sides = Vec::new();
    for (side, sign) in [("For it", 1.0), ("Against it", -1.0)] {
        let mut own: Vec<&MistakeWord> =
            words.iter().filter(shown).filter(|word| word.weight * sign > 0.0).collect();
        own.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
        let named: Vec<String> = own
            .into_iter()
            .take(NAMED)
            .filter_map(|word| {
                let own = text.get(word.start..word.end)?;
                Some(format!("{} {}", escape(own), signed(word.weight)))
            })
            .collect();
        if !named.is_empty() {
            sides.push(format!("{side}: {}", named.join(", ")));
        }
    }
    if !sides.is_empty() {
        html += &format!("<p class=\"sides\">{}.</p>", sides.join(". "));
    }
    html
}

fn signed(weight: f64) -> String {
    let sign = if weight > 0.0 { "+" } else { "" };
    // Two digits behind the point are more than anybody believes.
    format!("{sign}{}", number((weight * 100.0).round() / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start: usize, end: usize, weight: f64) -> MistakeWord {
        MistakeWord { start, end, weight }
    }

    #[test]
    fn words_have_the_color_of_their_weight_and_are_named() {
        let text = "not a <good> f\u{fc}lm";
        let words = [word(0, 3, -2.0), word(4, 5, 0.01), word(7, 11, 0.6), word(13, 18, 0.3)];
        assert_eq!(
            blockquote(text, &words),
            "<blockquote><mark class=\"against4\" title=\"-2\">not</mark> a &lt;\
             <mark class=\"for2\" title=\"+0.6\">good</mark>&gt; \
             <mark class=\"for1\" title=\"+0.3\">f\u{fc}lm</mark></blockquote>\
             <p class=\"sides\">For it: good +0.6, f\u{fc}lm +0.3. Against it: not -2.</p>"
        );
    }

    #[test]
    fn what_is_not_weighed_is_as_it_was() {
        let plain = "<blockquote>a &amp; b</blockquote>";
        assert_eq!(blockquote("a & b", &[]), plain);
        assert_eq!(blockquote("a & b", &[word(0, 1, 0.0)]), plain);
        // Places that overlap, or are none.
        let odd = [word(2, 3, 1.0), word(0, 1, 1.0), word(9, 99, 1.0)];
        assert!(blockquote("a & b", &odd).starts_with("<blockquote>a <mark"));
    }
}
