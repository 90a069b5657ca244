//! The parts of the page about how good the chosen model is.

use std::fmt::Write as _;

use muster_common::count::{counted, counted_are};

use super::colored;
use super::course::Section;
use super::element::{
    Cell, count, escape, facts, note, number, number_or_none, paragraph, percent, picture, table,
    words,
};
use crate::report::behavior::{ClassCurves, LengthRow, Mistake, ReliabilityBin};
use crate::report::{Report, Score};

/// Rows of the table behind a curve.
const ROWS_MAX: usize = 40;
/// Classes whose confusion matrix is drawn; of more only the most common mistakes are told.
pub(super) const CLASSES_MAX: usize = 40;
/// Common mistakes that are told.
const PAIRS_MAX: usize = 40;

/// Scores of both splits, confusion matrix and classification report.
pub(super) fn scores(report: &Report) -> Section {
    let splits = [("Test split", &report.test), ("Validation split", &report.validation)];
    let known: Vec<(&str, &Score)> =
        splits.into_iter().filter_map(|(name, score)| Some((name, score.as_ref()?))).collect();
    let (first_name, first) = known.first()?;
    let mut names: Vec<&str> =
        known.iter().flat_map(|(_, score)| score.scores.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let mut titles = vec!["metric"];
    for (name, _) in &known {
        titles.extend([*name, "95 % interval"]);
    }
    let row = |name: &&str| {
        let mut cells = vec![Cell::text(words(name))];
        for (_, score) in &known {
            cells.push(Cell::Number(number_or_none(score.scores.get(*name).copied())));
            let ends = score.intervals_95.get(*name);
            let ends = ends.map(|[low, high]| format!("{} to {}", number(*low), number(*high)));
            cells.push(Cell::Number(ends.unwrap_or_default()));
        }
        cells
    };
    let rows: Vec<Vec<Cell>> = names.iter().map(row).collect();
    let mut text = table("Scores", &titles, &rows);
    text += &note(
        "The validation split chose the model, so its scores flatter; the test split was scored once, at the end. \
         Intervals: Wilson's for the accuracy, which is a share, a percentile bootstrap over examples for F1.",
    );
    if first.confusion.is_empty() {
        return Some(("scores", "Scores", text));
    }
    text += "<div class=\"grid\">";
    text += &confusion(first_name, first);
    text += &classes(first_name, first);
    text += "</div>";
    Some(("scores", "Scores", text))
}

fn confusion(split: &str, score: &Score) -> String {
    let right: u64 = score.confusion.iter().enumerate().filter_map(|(at, row)| row.get(at)).sum();
    let name = |class: usize| score.labels.get(class).cloned().unwrap_or_else(|| class.to_string());
    let pairs = confused(score);
    let says = format!(
        "{split}: {} of {} examples are on the diagonal.",
        count(right),
        count(score.num_examples)
    );
    let worst = pairs.first().map(|(times, truth, guess)| {
        let (truth, guess, times) = (name(*truth), name(*guess), count(*times));
        format!(" The most common mistake: {truth} taken for {guess}, {}.", counted(times, "time"))
    });
    let says = says + &worst.unwrap_or_default();
    if score.confusion.len() > CLASSES_MAX {
        let row = |(times, truth, guess): &(u64, usize, usize)| {
            vec![Cell::text(name(*truth)), Cell::text(name(*guess)), Cell::count(*times)]
        };
        let rows: Vec<Vec<Cell>> = pairs.iter().take(PAIRS_MAX).map(row).collect();
        let listed = table("Common mistakes", &["truth", "prediction", "examples"], &rows);
        let says = escape(&says);
        return format!(
            "<figure class=\"card\"><figcaption><h3>Common mistakes</h3><p>{says}</p></figcaption>{listed}</figure>\n"
        );
    }
    let corner = "truth \\ prediction".to_owned();
    let titles: Vec<String> =
        std::iter::once(corner).chain((0..score.confusion.len()).map(name)).collect();
    let row = |(truth, row): (usize, &Vec<u64>)| {
        let cells = row.iter().map(|cell| Cell::count(*cell));
        std::iter::once(Cell::text(name(truth))).chain(cells).collect()
    };
    let rows: Vec<Vec<Cell>> = score.confusion.iter().enumerate().map(row).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let behind = table("Confusion matrix, counts", &titles, &rows);
    picture("confusion", "Confusion matrix", &says, &behind)
}

/// What is taken for what, as (examples, truth, prediction), the most common first.
fn confused(score: &Score) -> Vec<(u64, usize, usize)> {
    let mut pairs = Vec::new();
    for (truth, row) in score.confusion.iter().enumerate() {
        for (guess, times) in row.iter().enumerate().filter(|(guess, _)| *guess != truth) {
            if *times > 0 {
                pairs.push((*times, truth, guess));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    pairs
}

fn classes(split: &str, score: &Score) -> String {
    let row = |class: &crate::report::score::Class| {
        vec![
            Cell::text(class.label.as_str()),
            Cell::number(class.precision),
            Cell::number(class.recall),
            Cell::number(class.f1),
            Cell::count(class.support),
        ]
    };
    let rows: Vec<Vec<Cell>> = score.classes.iter().map(row).collect();
    let titles = ["class", "precision", "recall", "F1", "examples"];
    format!(
        "<figure class=\"card\"><figcaption><h3>Classification report</h3><p>{}</p></figcaption>{}\
         <details><summary>As scikit-learn prints it</summary>\
         <pre tabindex=\"0\" role=\"group\" aria-label=\"Classification report as scikit-learn prints it\">{}</pre>\
         </details></figure>\n",
        escape(split),
        table("Scores of each class", &titles, &rows),
        escape(&score.classification_report)
    )
}

/// ROC and precision-recall curves.
pub(super) fn curves(report: &Report) -> Section {
    let behavior = report.behavior.as_ref()?;
    if behavior.classes.is_empty() {
        return None;
    }
    let is_single = behavior.classes.len() == 1;
    let whose = match behavior.classes.as_slice() {
        [only] => format!("\u{201c}{}\u{201d}", only.label),
        several => format!("each of {} classes against the rest", several.len()),
    };
    let mean = |value: fn(&ClassCurves) -> f64| {
        behavior.classes.iter().map(value).sum::<f64>() / behavior.classes.len() as f64
    };
    let left_out = match behavior.num_classes_left_out {
        0 => String::new(),
        more => format!(" {} not drawn: fewer examples.", counted_are(more, "class")),
    };
    let precision = mean(|class| class.average_precision);
    let kind =
        if is_single { "average precision" } else { "mean average precision of those drawn" };
    let roc_says = format!(
        "Of {whose}: area under the curve {}. The diagonal is chance.{left_out}",
        number_or_none(behavior.roc_auc)
    );
    let pr_says = format!("Of {whose}: {kind} {}.{left_out}", number(precision));
    let behind = |title: &str, titles: [&str; 3], points: fn(&ClassCurves) -> &[(f64, f64)]| {
        let mut rows = Vec::new();
        for class in &behavior.classes {
            let all = points(class);
            let stride = (all.len() * behavior.classes.len()).div_ceil(ROWS_MAX).max(1);
            for (x, y) in all.iter().step_by(stride) {
                rows.push(vec![
                    Cell::text(class.label.as_str()),
                    Cell::number(*x),
                    Cell::number(*y),
                ]);
            }
        }
        table(title, &titles, &rows)
    };
    let mut text = "<div class=\"grid\">".to_owned();
    let titles = ["class", "false positive rate", "true positive rate"];
    let table_roc = behind("ROC curve", titles, |class| &class.roc);
    text += &picture("roc", "ROC curve", &roc_says, &table_roc);
    let titles = ["class", "recall", "precision"];
    let table_pr = behind("Precision and recall", titles, |class| &class.precision_recall);
    text += &picture("precision-recall", "Precision and recall", &pr_says, &table_pr);
    text += "</div>";
    let row = |class: &ClassCurves| {
        vec![
            Cell::text(class.label.as_str()),
            Cell::number(class.auc),
            Cell::number(class.average_precision),
            Cell::Number(percent(class.prevalence)),
        ]
    };
    let rows: Vec<Vec<Cell>> = behavior.classes.iter().map(row).collect();
    text += &table(
        "Areas",
        &["class", "area under the ROC curve", "average precision", "share of the examples"],
        &rows,
    );
    Some(("curves", "ROC and precision-recall", text))
}

/// Whether probabilities can be trusted.
pub(super) fn calibration(report: &Report) -> Section {
    let found = report.behavior.as_ref()?.calibration.as_ref()?;
    let weighed = |value: fn(&ReliabilityBin) -> f64| {
        let sum: f64 = found.bins.iter().map(|bin| value(bin) * bin.count as f64).sum();
        sum / found.bins.iter().map(|bin| bin.count as f64).sum::<f64>().max(1.0)
    };
    let gap = weighed(|bin| bin.confidence) - weighed(|bin| bin.accuracy);
    let verdict = if gap.abs() < 0.01 {
        "on average it is as sure as it is right"
    } else if gap > 0.0 {
        "on average it is surer than it is right"
    } else {
        "on average it is less sure than it is right"
    };
    let says = format!(
        "Mean confidence {}, accuracy {}: {verdict}. Expected calibration error {}, Brier score {}; 0 is best.",
        percent(weighed(|bin| bin.confidence)),
        percent(weighed(|bin| bin.accuracy)),
        number(found.expected_error),
        number(found.brier)
    );
    let row = |bin: &ReliabilityBin| {
        vec![
            Cell::text(format!("{} to {}", number(bin.low), number(bin.high))),
            Cell::count(bin.count),
            Cell::number(bin.confidence),
            Cell::number(bin.accuracy),
        ]
    };
    let rows: Vec<Vec<Cell>> = found.bins.iter().map(row).collect();
    let titles = ["confidence", "predictions", "mean confidence", "share right"];
    let behind = table("Reliability", &titles, &rows);
    let text = picture("calibration", "Reliability", &says, &behind)
        + &note("Confidence is the probability of the predicted class; ten bins of equal width.");
    Some(("calibration", "Calibration", text))
}

/// Whether long texts are harder.
pub(super) fn lengths(report: &Report) -> Section {
    let lengths = &report.behavior.as_ref()?.lengths;
    let (first, last) = (lengths.first()?, lengths.last()?);
    let says = format!(
        "Texts of {} tokens: {} right; of {}: {} right. Whiskers are 95 % intervals (Wilson).",
        range(first),
        percent(first.accuracy),
        range(last),
        percent(last.accuracy)
    );
    let row = |bin: &LengthRow| {
        let [low, high] = bin.interval_95;
        vec![
            Cell::text(range(bin)),
            Cell::count(bin.count),
            Cell::number(bin.accuracy),
            Cell::Number(format!("{} to {}", number(low), number(high))),
        ]
    };
    let rows: Vec<Vec<Cell>> = lengths.iter().map(row).collect();
    let titles = ["tokens", "examples", "share right", "95 % interval"];
    let behind = table("Accuracy by length", &titles, &rows);
    let text = picture("lengths", "Accuracy by length", &says, &behind)
        + &note("Tokens that the model read, special tokens counted; longer texts were cut.");
    Some(("lengths", "Accuracy by length", text))
}

fn range(bin: &LengthRow) -> String {
    if bin.shortest == bin.longest {
        return bin.shortest.to_string();
    }
    format!("{} to {}", bin.shortest, bin.longest)
}

/// Against another experiment.
pub(super) fn comparison(report: &Report) -> Section {
    let found = report.comparison.as_ref()?;
    let [low, high] = found.interval_95;
    let points = |share: f64| format!("{:+.2}", 100.0 * share);
    let verdict = if !found.is_significant {
        "The data do not tell which of the two is better.".to_owned()
    } else if found.difference > 0.0 {
        format!("{} is better.", report.card.experiment)
    } else {
        format!("{} is better.", found.against)
    };
    let mut text = paragraph(&format!(
        "On the same {} test examples {} has {} right, {} has {}: a difference of {} percentage points \
         (95 % interval {} to {}). {verdict}",
        count(found.num_rows),
        report.card.experiment,
        percent(found.accuracy),
        found.against,
        percent(found.other_accuracy),
        points(found.difference),
        points(low),
        points(high)
    ));
    for doubt in &found.doubts {
        let doubt = escape(&format!("Take care: {doubt}. Rows and labels agree all the same."));
        let _infallible = writeln!(text, "<p class=\"warning\">{doubt}</p>");
    }
    text += &facts(&[
        ("Exact test of McNemar, two-sided", format!("p = {}", number(found.p_value))),
        ("Only this one is right", count(found.only_this)),
        ("Only the other one is right", count(found.only_other)),
        ("Both are right", count(found.both_right)),
        ("Neither is right", count(found.neither)),
    ]);
    text += &note(
        "Rows and labels of both files are the same; texts are not in them and are not compared. The interval is a \
         bootstrap that draws examples with what both models say about them.",
    );
    Some(("comparison", "Paired test", text))
}

/// What colors of words mean.
const LEGEND: &str = "<p>Words of the first ones are colored: \
    <mark class=\"for3\">underlined blue</mark> speaks for the wrong answer, \
    <mark class=\"against3\">dotted orange</mark> against it. Integrated gradients of the chosen model, in logits; \
    it reads the texts below once more.</p>\n";

/// The mistakes that the model was surest of.
pub(super) fn mistakes(report: &Report) -> Section {
    let behavior = report.behavior.as_ref()?;
    let has_texts = behavior.mistakes.iter().any(|mistake| mistake.text.is_some());
    if behavior.mistakes.is_empty() {
        let text = paragraph("Every test example is predicted right.");
        return Some(("mistakes", "Mistakes", text));
    }
    let mut text = paragraph(&format!(
        "{} of {} test examples are predicted wrong ({}). Those that the model was surest of show wrong labels and \
         blind spots first.",
        count(behavior.num_wrong as u64),
        count(behavior.num_rows as u64),
        percent(behavior.num_wrong as f64 / behavior.num_rows as f64)
    ));
    if behavior.mistakes.iter().any(|mistake| !mistake.words.is_empty()) {
        text += LEGEND;
    } else if let Some(why) = &behavior.not_weighed {
        text += &note(&format!("Words are not colored: {why}."));
    }
    text += "<ol class=\"mistakes\">";
    text += &behavior.mistakes.iter().map(mistake).collect::<String>();
    text += "</ol>";
    text += &note(if has_texts {
        "Texts are what the model read: its tokens, decoded. Case, accents and blanks may be gone, long texts are cut. \
         Rows of files are counted from 0, without the header."
    } else {
        "The file of predictions is of an older build and has no texts."
    });
    Some(("mistakes", "Mistakes", text))
}

/// The last part of a path or URL.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn mistake(mistake: &Mistake) -> String {
    let tokens =
        mistake.num_tokens.map(|num| format!(", {}", counted(num, "token"))).unwrap_or_default();
    let place = match (&mistake.file, mistake.file_row) {
        (Some(file), Some(row)) => format!("{}, row {row}", escape(base_name(file))),
        _ => format!("row {} of the split", mistake.row),
    };
    let text = mistake.text.as_deref().map(|text| colored::blockquote(text, &mistake.words));
    format!(
        "<li><p><strong>{}</strong> taken for <strong>{}</strong>, {} sure <small>{place}{tokens}; \
         {} for the label</small></p>{}</li>\n",
        escape(&mistake.label),
        escape(&mistake.prediction),
        percent(mistake.confidence),
        percent(mistake.of_label),
        text.unwrap_or_default()
    )
}
