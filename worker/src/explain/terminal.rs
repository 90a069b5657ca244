//! Explanations on a terminal: words with a background that says for or against, and the numbers that say how far to
//! believe it. Blue speaks for the class, orange against it; without colours the numbers stand behind the words.

use std::fmt::Write as _;
use std::io::IsTerminal;

use muster_common::count::counted;

use super::attention::HeadSummary;
use super::attribution::Completeness;
use super::curve::Faithfulness;
use super::record::{Importance, LayerRecord, Report, SplitExplanation, TextExplanation};
use super::words::Word;

/// Width where none is known, and the bounds of what is used.
const WIDTH: usize = 80;
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=140;
/// A word is coloured, or has its number, from this share of the strongest on.
const SHOWN_FROM: f64 = 0.1;
/// From this completeness error on, as a share of what a sum should come to, more points are advised.
const FAR_FROM: f64 = 0.05;

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences are understood and wanted.
    pub color: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// Of standard output: colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>) or `TERM` is
    /// `dumb`; as wide as the terminal, or as `COLUMNS` says.
    pub fn of_stdout() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let stdout = std::io::stdout();
        let is_dumb = variable("TERM").is_some_and(|term| term == "dumb");
        let color = stdout.is_terminal() && variable("NO_COLOR").is_none() && !is_dumb;
        let of_terminal =
            || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = variable("COLUMNS").and_then(|columns| columns.parse().ok());
        let width = width.or_else(of_terminal).filter(|columns| *columns > 0).unwrap_or(WIDTH);
        Self { color, width: width.clamp(*WIDTHS.start(), *WIDTHS.end()) }
    }

    fn bold(self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Everything but attention itself, for which a terminal has no room.
pub(super) fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for (number, text) in report.texts.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        render_text(&mut out, text, style);
        if let Some(layers) = &text.layers {
            render_layers(&mut out, layers, style);
        }
    }
    if let Some(split) = &report.split {
        render_split(&mut out, split, style);
    }
    out.extend(advice(worst_error(report), report.settings.steps));
    out
}

/// The largest completeness error as a share of what the sum should come to, which is more than nothing.
fn worst_error(report: &Report) -> f64 {
    let of_text = |text: &TextExplanation| {
        let whole: Vec<f64> = text
            .importance
            .iter()
            .filter_map(|importance| importance.completeness.as_ref())
            .chain(text.layers.iter().flat_map(|all| &all.conductance).map(|it| &it.completeness))
            .map(Completeness::relative)
            .collect();
        whole
    };
    let of_split = report.split.iter().map(|split| split.completeness_error);
    let all = report.texts.iter().flat_map(of_text).chain(of_split);
    all.filter(|error| error.is_finite()).fold(0.0, f64::max)
}

/// What to do about sums that do not come to what they should.
fn advice(worst: f64, steps: u32) -> Option<String> {
    let percent = 100.0 * worst;
    let more = steps.saturating_mul(8);
    (worst > FAR_FROM).then(|| {
        format!("\ncompleteness errors of up to {percent:.1} %: more points make them smaller, --steps {more}\n")
    })
}

fn render_text(out: &mut String, text: &TextExplanation, style: Style) {
    let _ = writeln!(out, "{}", verdict(text, style));
    for importance in &text.importance {
        let _ =
            writeln!(out, "\n{}, for `{}`", style.bold(importance.method.title()), text.explained);
        out.push_str(&painted(&text.words, &importance.words, style));
        let _ = writeln!(out, "  {}", trust(importance, text.random.as_ref()));
    }
    if text.words.is_empty() {
        out.push_str("the text has no words\n");
    } else if is_cut(text) {
        out.push_str("the text goes on, but the model takes no more tokens\n");
    }
}

/// Whether the end of the text, or of the second one, was not read.
fn is_cut(text: &TextExplanation) -> bool {
    let goes_on = |source: &str, in_pair: bool| {
        let last = text.words.iter().rfind(|word| word.in_pair == in_pair);
        last.is_some_and(|last| source.get(last.end..).is_some_and(|rest| !rest.trim().is_empty()))
    };
    let pair = text.text_pair.as_deref();
    goes_on(&text.text, false) || pair.is_some_and(|pair| goes_on(pair, true))
}

/// The classes with their probabilities, and whether the answer is right.
fn verdict(text: &TextExplanation, style: Style) -> String {
    let mut classes: Vec<_> = text.classes.iter().collect();
    classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let shown: Vec<String> = classes
        .iter()
        .take(4)
        .map(|class| {
            let line = format!("{} {:.4}", class.name, class.probability);
            if class.name == text.predicted { style.bold(&line) } else { line }
        })
        .collect();
    let truth = match &text.label {
        Some(label) if *label == text.predicted => "  (right)".to_owned(),
        Some(label) => format!("  (wrong: it is {label})"),
        None => String::new(),
    };
    format!("{}{truth}", shown.join("  "))
}

/// One line on how far to believe it.
fn trust(importance: &Importance, random: Option<&Faithfulness>) -> String {
    let mut parts = Vec::new();
    if let Some(whole) = &importance.completeness {
        let relative = 100.0 * whole.relative();
        parts.push(format!(
            "sum {:+.3} of {:+.3} (completeness error {:+.4}, {relative:.1} %)",
            whole.sum,
            whole.score - whole.baseline_score,
            whole.error,
        ));
    }
    if let (Some(own), Some(random)) = (&importance.faithfulness, random) {
        parts.push(format!(
            "deletion {:.3} (random {:.3}), insertion {:.3} (random {:.3})",
            own.deletion.area, random.deletion.area, own.insertion.area, random.insertion.area,
        ));
    }
    parts.join("; ")
}

/// The words in lines, each as strong as its value.
fn painted(words: &[Word], values: &[f64], style: Style) -> String {
    let strongest = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let digits = digits(strongest);
    let (mut out, mut column) = (String::new(), 0);
    for (index, (word, value)) in words.iter().zip(values).enumerate() {
        let share = if strongest > 0.0 { value / strongest } else { 0.0 };
        let is_shown = share.abs() >= SHOWN_FROM;
        let plain = if style.color || !is_shown {
            word.text.clone()
        } else {
            format!("{}[{value:+.digits$}]", word.text)
        };
        let begins_pair =
            word.in_pair && index > 0 && words.get(index - 1).is_some_and(|w| !w.in_pair);
        let follows = index > 0
            && words
                .get(index - 1)
                .is_some_and(|w| w.end == word.start && w.in_pair == word.in_pair);
        let width = plain.chars().count() + usize::from(!follows);
        if column == 0 || begins_pair || column + width > style.width {
            if column > 0 {
                out.push('\n');
            }
            out.push_str("  ");
            column = 2;
        } else if !follows {
            out.push(' ');
            column += 1;
        }
        column += plain.chars().count();
        if style.color && is_shown {
            out.push_str(&colored(&plain, share));
        } else {
            out.push_str(&plain);
        }
    }
    if column > 0 {
        out.push('\n');
    }
    out
}

/// Digits behind the point that show two or so of the strongest value.
fn digits(strongest: f64) -> usize {
    let small = [0.1, 0.01, 0.001, 0.000_1].iter().filter(|bound| strongest < **bound);
    2 + small.count()
}

/// In one of the 256 colours that terminals share: five strengths of blue or orange under black or white.
fn colored(text: &str, share: f64) -> String {
    const FOR: [u8; 5] = [189, 153, 111, 69, 27];
    const AGAINST: [u8; 5] = [230, 223, 216, 209, 202];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 4")]
    let strength = ((share.abs() * 5.0).ceil().clamp(1.0, 5.0) - 1.0) as usize;
    let (shades, ink) =
        if share > 0.0 { (FOR, if strength >= 3 { 231 } else { 16 }) } else { (AGAINST, 16) };
    let shade = shades.get(strength).copied().unwrap_or(shades[0]);
    format!("\x1b[38;5;{ink}m\x1b[48;5;{shade}m{text}\x1b[0m")
}

fn render_layers(out: &mut String, layers: &LayerRecord, style: Style) {
    let _ = writeln!(out, "\n{}", style.bold("layers (means over heads and queries)"));
    render_heads(out, &layers.heads);
    let worst = layers.conductance.iter().map(|layer| layer.completeness.relative());
    let worst = worst.fold(0.0f64, f64::max);
    let _ = writeln!(out, "  layer conductance: largest completeness error {:.1} %", 100.0 * worst);
}

fn render_heads(out: &mut String, heads: &[Vec<HeadSummary>]) {
    let _ = writeln!(out, "  layer  entropy  distance  [CLS] share  [SEP] share");
    for (number, heads) in heads.iter().enumerate() {
        let HeadSummary { entropy, distance, first_share, separator_share } =
            HeadSummary::mean(heads.iter().copied());
        let _ = writeln!(
            out,
            "  {:>5}  {entropy:>7.3}  {distance:>8.2}  {first_share:>11.3}  {separator_share:>11.3}",
            number + 1,
        );
    }
}

fn render_split(out: &mut String, split: &SplitExplanation, style: Style) {
    let title = format!("{}: {}", split.file, counted(split.num_texts, "text"));
    let _ = writeln!(out, "{}", style.bold(&title));
    if let (Some(accuracy), Some(majority)) = (split.accuracy, split.majority) {
        let _ =
            writeln!(out, "  accuracy {accuracy:.4}; the most frequent class has {majority:.4}");
    }
    let title = format!("importance in {}", counted(split.num_attributed, "text"));
    let _ = writeln!(out, "\n{}", style.bold(&title));
    let _ = writeln!(
        out,
        "  {:<22}  deletion (less is better)  insertion (more is better)",
        "order of words"
    );
    for curves in &split.curves {
        let name = curves.method.map_or("random", super::record::Method::title);
        let Faithfulness { deletion, insertion } = &curves.faithfulness;
        let _ = writeln!(out, "  {name:<22}  {:>25.3}  {:>26.3}", deletion.area, insertion.area);
    }
    let median = 100.0 * split.completeness_error;
    let _ = writeln!(out, "  integrated gradients: median completeness error {median:.1} %");
    let title =
        format!("layers in {} (means over heads and queries)", counted(split.num_analyzed, "text"));
    let _ = writeln!(out, "\n{}", style.bold(&title));
    render_heads(out, &split.heads);
    if !split.probes.is_empty() {
        let _ = writeln!(out, "\n{}", style.bold("accuracy of a linear probe on each layer"));
        let _ = writeln!(out, "  layer  first token  mean of tokens");
        for probe in &split.probes {
            let (layer, first, mean) = (probe.layer, probe.first_token, probe.mean_token);
            let _ = writeln!(out, "  {layer:>5}  {first:>11.4}  {mean:>14.4}");
        }
    }
    if !split.mistakes.is_empty() {
        let _ = writeln!(out, "\n{}", style.bold("most confident mistakes"));
        for text in &split.mistakes {
            let _ = writeln!(out, "{}", verdict(text, style));
            if let Some(importance) = text.importance.first() {
                out.push_str(&painted(&text.words, &importance.words, style));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<Word> {
        let mut start = 0;
        let word = |text: &&str| {
            let word = Word {
                text: (*text).to_owned(),
                in_pair: false,
                start,
                end: start + text.len(),
                tokens: Vec::new(),
            };
            start = word.end + 1;
            word
        };
        texts.iter().map(word).collect()
    }

    #[test]
    fn without_colours_numbers_stand_behind_words() {
        let style = Style { color: false, width: 40 };
        let shown = painted(&words(&["a", "good", "film"]), &[0.01, 2.0, -1.0], style);
        assert_eq!(shown, "  a good[+2.00] film[-1.00]\n");
        assert!(!shown.contains('\x1b'));
        let shown = painted(&words(&["good"]), &[0.0023], style);
        assert_eq!(shown, "  good[+0.0023]\n");
    }

    #[test]
    fn with_colours_strong_words_have_a_background() {
        let style = Style { color: true, width: 40 };
        let shown = painted(&words(&["a", "good", "film"]), &[0.01, 2.0, -1.0], style);
        assert_eq!(
            shown,
            "  a \x1b[38;5;231m\x1b[48;5;27mgood\x1b[0m \x1b[38;5;16m\x1b[48;5;216mfilm\x1b[0m\n"
        );
    }

    #[test]
    fn more_points_are_advised_where_sums_are_far_off() {
        let said = advice(0.113, 50).unwrap();
        assert!(said.contains("11.3 %") && said.contains("--steps 400"), "{said}");
        assert_eq!(advice(0.01, 50), None);
    }

    #[test]
    fn lines_keep_to_the_width_and_punctuation_to_its_word() {
        let style = Style { color: false, width: 40 };
        let many = vec!["good"; 40];
        let shown = painted(&words(&many), &[0.0; 40], style);
        assert!(shown.lines().count() > 3 && shown.lines().all(|line| line.chars().count() <= 40));
        let mut two = words(&["film", "!"]);
        two[1].start = two[0].end;
        assert_eq!(painted(&two, &[0.0, 0.0], style), "  film!\n");
    }
}
