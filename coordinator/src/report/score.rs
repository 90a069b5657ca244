//! Scores of one split, as its counts have them.

use std::collections::BTreeMap;

use muster_common::evaluation::{Evaluation, Intervals, classification_report};
use serde::Serialize;

/// What a model scored on a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Examples scored; 0 where there are no classes.
    pub num_examples: u64,
    /// Every metric that is defined.
    pub scores: BTreeMap<&'static str, f64>,
    /// Ends of 95 % intervals, of the metrics that have one: Wilson's of the accuracy, by bootstrap of others.
    pub intervals_95: BTreeMap<&'static str, [f64; 2]>,
    /// Class names in the order of their numbers.
    pub labels: Vec<String>,
    /// `confusion[truth][prediction]`, counts; empty where there are no classes.
    pub confusion: Vec<Vec<u64>>,
    /// Scores of each class.
    pub classes: Vec<Class>,
    /// The same as scikit-learn prints it; empty where there are no classes.
    pub classification_report: String,
}

/// Scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub label: String,
    /// Share of predictions of the class that are right.
    pub precision: f64,
    /// Share of examples of the class that are found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples of the class.
    pub support: u64,
}

impl Score {
    /// Of an evaluation; `labels` are the class names, `ordered` says whether they are in an order.
    pub(super) fn of(evaluation: &Evaluation, labels: &[String], ordered: bool) -> Self {
        let values = evaluation.values(ordered).into_iter();
        let mut intervals_95 = BTreeMap::new();
        if let Some(found) = Intervals::of(evaluation) {
            intervals_95.insert("accuracy", [found.accuracy.low, found.accuracy.high]);
            intervals_95.insert("macro_f1", [found.macro_f1.low, found.macro_f1.high]);
        }
        let has_classes = !evaluation.confusion.is_empty();
        let class = |(label, score): (&String, muster_common::evaluation::ClassScore)| Class {
            label: label.clone(),
            precision: score.precision,
            recall: score.recall,
            f1: score.f1,
            support: score.support,
        };
        Self {
            num_examples: evaluation.num_examples(),
            scores: values.map(|(metric, value)| (metric.name(), value)).collect(),
            intervals_95,
            labels: labels.to_vec(),
            confusion: evaluation.confusion.clone(),
            classes: labels.iter().zip(evaluation.class_scores()).map(class).collect(),
            classification_report: if has_classes {
                classification_report(evaluation, labels)
            } else {
                String::new()
            },
        }
    }
}
