//! Counted nouns for people: `1 step`, `2 steps`.

use std::fmt::Display;

/// `count` and `noun`, which is in the singular, in the number that the count asks for. The count is written as it
/// shows itself, so digits can be grouped before.
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    if count == "1" { format!("1 {noun}") } else { format!("{count} {}", plural(noun)) }
}

/// The same before what they are or do: `1 row is`, `2 rows are`.
pub fn counted_are(count: impl Display, noun: &str) -> String {
    let text = counted(count, noun);
    let verb = if text.starts_with("1 ") { "is" } else { "are" };
    format!("{text} {verb}")
}

/// By the rules that the nouns of this project need.
fn plural(noun: &str) -> String {
    let hisses = ["s", "x", "tch", "sh"].iter().any(|end| noun.ends_with(end));
    let vowels = ["ay", "ey", "oy", "uy"];
    match noun.strip_suffix('y') {
        Some(stem) if !vowels.iter().any(|end| noun.ends_with(end)) => format!("{stem}ies"),
        _ if hisses => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_is_not() {
        assert_eq!(counted(1, "step"), "1 step");
        assert_eq!(counted(0, "step"), "0 steps");
        assert_eq!(counted(1.0, "epoch"), "1 epoch");
        assert_eq!(counted(0.5, "epoch"), "0.5 epochs");
        assert_eq!(counted("1,000", "example"), "1,000 examples");
        assert_eq!(counted_are(1, "row"), "1 row is");
        assert_eq!(counted_are(11, "row"), "11 rows are");
    }

    #[test]
    fn nouns_have_their_plural() {
        for (one, many) in [
            ("class", "classes"),
            ("batch", "batches"),
            ("epoch", "epochs"),
            ("entry", "entries"),
            ("key", "keys"),
            ("trial", "trials"),
        ] {
            assert_eq!(plural(one), many);
        }
    }
}
