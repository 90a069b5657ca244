//! How the chosen model behaves on the test split: what thresholds would do, whether its probabilities can be trusted,
//! whether long texts are harder, and where it was surely wrong.

use muster_common::evaluation::prediction::Prediction;
use muster_common::evaluation::{Calibration, Cuts, ScoreCurve, accuracy_by_length};
use muster_common::evaluation::{confident_mistakes, roc_auc};
use serde::Serialize;

use super::learning::rounded;
use super::weighed::Weighed;

/// Points along a curve.
const POINTS: usize = 150;
/// Bins of the reliability diagram.
const CONFIDENCE_BINS: usize = 10;
/// Bins of lengths.
const LENGTH_BINS: usize = 8;
/// Mistakes listed.
pub(super) const MISTAKES: usize = 50;
/// Classes whose curves are drawn, those with the most examples.
const CLASSES_MAX: usize = 12;

/// What predictions tell that counts do not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Behavior {
    /// Examples.
    pub num_rows: usize,
    /// Wrong predictions.
    pub num_wrong: usize,
    /// Area under the ROC curve, of more than two classes the mean of each against the rest; as
    /// `sklearn.metrics.roc_auc_score`.
    pub roc_auc: Option<f64>,
    /// Curves of the second of two classes, or of each of several against the rest.
    pub classes: Vec<ClassCurves>,
    /// Classes that are not drawn.
    pub num_classes_left_out: usize,
    /// Whether probabilities mean what they say.
    pub calibration: Option<Reliability>,
    /// Accuracy by number of tokens; empty where lengths are not known.
    pub lengths: Vec<LengthRow>,
    /// The mistakes that the model was surest of.
    pub mistakes: Vec<Mistake>,
    /// Why their words are not weighed, for people; absent where they are, or nobody has tried.
    pub not_weighed: Option<String>,
}

/// Curves of one class against the rest, points as (x, y).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCurves {
    /// Its name.
    pub label: String,
    /// Share of the examples that are of this class.
    pub prevalence: f64,
    /// True positive rate over false positive rate.
    pub roc: Vec<(f64, f64)>,
    /// Area under it.
    pub auc: f64,
    /// Precision over recall.
    pub precision_recall: Vec<(f64, f64)>,
    /// Average precision.
    pub average_precision: f64,
}

/// The reliability diagram and what it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// Bins that hold a prediction, the least confident first.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error, 0 is best.
    pub expected_error: f64,
    /// Brier score, 0 is best.
    pub brier: f64,
}

/// Predictions of about the same confidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Confidences above this.
    pub low: f64,
    /// Up to this.
    pub high: f64,
    /// Predictions.
    pub count: u64,
    /// Mean probability of the predicted class.
    pub confidence: f64,
    /// Share that is right.
    pub accuracy: f64,
}

/// Examples of about the same length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthRow {
    /// Tokens of the shortest.
    pub shortest: u32,
    /// Tokens of the longest.
    pub longest: u32,
    /// Examples.
    pub count: u64,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub interval_95: [f64; 2],
}

/// A wrong prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    /// Place of the example in the test split.
    pub row: u64,
    /// The file it stands in; absent in files of older builds, as the next.
    pub file: Option<String>,
    /// Which of the file's rows it is, from 0.
    pub file_row: Option<u64>,
    /// Its class.
    pub label: String,
    /// What the model says.
    pub prediction: String,
    /// Probability of the predicted class.
    pub confidence: f64,
    /// Probability of its class.
    pub of_label: f64,
    /// Tokens the model read.
    pub num_tokens: Option<u32>,
    /// What the model read; absent in files of older builds.
    pub text: Option<String>,
    /// What its words have to do with the prediction; empty where that is not known.
    pub words: Vec<MistakeWord>,
}

/// A word of a mistake's text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MistakeWord {
    /// First byte in the text.
    pub start: usize,
    /// First byte behind it.
    pub end: usize,
    /// How much it speaks for the prediction (above zero) or against it, in logits.
    pub weight: f64,
}

impl Behavior {
    /// Of the predictions on a split, sorted by row. `None` where there are none.
    pub(super) fn of(rows: &[Prediction], labels: &[String], weighed: &Weighed) -> Option<Self> {
        if rows.is_empty() {
            return None;
        }
        let truths: Vec<u32> = rows.iter().map(|row| row.label).collect();
        let probabilities: Vec<Vec<f64>> =
            rows.iter().map(|row| row.probabilities.clone()).collect();
        let drawn = drawn_classes(&truths, labels.len());
        let curves = drawn.iter().filter_map(|class| class_curves(rows, labels, *class));
        let bins = accuracy_by_length(rows, LENGTH_BINS);
        let mistakes = confident_mistakes(rows, MISTAKES);
        Some(Self {
            num_rows: rows.len(),
            num_wrong: rows.iter().filter(|row| !row.is_right()).count(),
            roc_auc: roc_auc(&truths, &probabilities),
            classes: curves.collect(),
            num_classes_left_out: labels.len().saturating_sub(drawn.len().max(2)),
            calibration: Calibration::of(rows, CONFIDENCE_BINS).map(Reliability::from),
            lengths: bins
                .into_iter()
                .map(|bin| LengthRow {
                    shortest: bin.shortest,
                    longest: bin.longest,
                    count: bin.count,
                    accuracy: bin.accuracy(),
                    interval_95: [bin.interval.low, bin.interval.high],
                })
                .collect(),
            mistakes: mistakes
                .into_iter()
                .filter_map(|place| rows.get(place))
                .map(|row| Mistake::of(row, labels, weighed))
                .collect(),
            not_weighed: weighed.absent.clone(),
        })
    }
}

impl Mistake {
    fn of(row: &Prediction, labels: &[String], weighed: &Weighed) -> Self {
        let name = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        let prediction = name(row.class());
        let words = row.text.as_deref().map(|text| weighed.words(row.row, text, &prediction));
        Self {
            row: row.row,
            file: row.origin.as_ref().map(|origin| origin.file.to_string()),
            file_row: row.origin.as_ref().map(|origin| origin.row),
            label: name(row.label as usize),
            prediction,
            confidence: row.confidence(),
            of_label: row.probabilities.get(row.label as usize).copied().unwrap_or(0.0),
            num_tokens: row.num_tokens,
            text: row.text.clone(),
            words: words.unwrap_or_default(),
        }
    }
}

impl From<Calibration> for Reliability {
    fn from(found: Calibration) -> Self {
        let bins = found.bins.into_iter().map(|bin| ReliabilityBin {
            low: rounded(bin.low),
            high: rounded(bin.high),
            count: bin.count,
            confidence: bin.confidence,
            accuracy: bin.accuracy,
        });
        let (expected_error, brier) = (found.expected_error, found.brier);
        Self { bins: bins.collect(), expected_error, brier }
    }
}

/// Of two classes the second: the curves of the first are its mirror. Of more those with the most examples.
fn drawn_classes(truths: &[u32], num_classes: usize) -> Vec<usize> {
    if num_classes == 2 {
        return vec![1];
    }
    let mut counts = vec![0usize; num_classes];
    for truth in truths {
        if let Some(count) = counts.get_mut(*truth as usize) {
            *count += 1;
        }
    }
    let mut classes: Vec<usize> = (0..num_classes).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(counts.get(*class).copied()));
    classes.truncate(CLASSES_MAX);
    classes.sort_unstable();
    classes
}

fn class_curves(rows: &[Prediction], labels: &[String], class: usize) -> Option<ClassCurves> {
    let cuts = Cuts::of_class(rows, class)?;
    let (roc, curve) = (cuts.roc()?, cuts.precision_recall()?);
    let own = rows.iter().filter(|row| row.label as usize == class).count();
    let points = |curve: &ScoreCurve| {
        curve.thinned(POINTS).into_iter().map(|(x, y)| (rounded(x), rounded(y))).collect()
    };
    Some(ClassCurves {
        label: labels.get(class).cloned().unwrap_or_default(),
        prevalence: own as f64 / rows.len() as f64,
        roc: points(&roc),
        auc: roc.value,
        precision_recall: points(&curve),
        average_precision: curve.value,
    })
}
