//! Every figure against scikit-learn, intervals against scipy and a bootstrap by numpy.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::*;

/// Made by `tests/golden/sklearn/generate.py`.
const GOLDEN: &str = include_str!("../../../tests/golden/sklearn/scores.json");

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    intervals: Vec<Sure>,
    areas: Vec<Area>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    confusion: Vec<Vec<u64>>,
    scores: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct Sure {
    confusion: Vec<Vec<u64>>,
    accuracy: [f64; 2],
    macro_f1: [f64; 2],
}

#[derive(Deserialize)]
struct Area {
    labels: Vec<u32>,
    probabilities: Vec<Vec<f64>>,
    auc: f64,
}

fn golden() -> Golden {
    serde_json::from_str(GOLDEN).unwrap()
}

fn of(confusion: Vec<Vec<u64>>) -> Evaluation {
    Evaluation { loss: 0.5, confusion, ..Evaluation::default() }
}

#[test]
fn figures_equal_those_of_scikit_learn() {
    let cases = golden().cases;
    assert!(cases.len() > 60);
    for Case { name, confusion, scores } in cases {
        let evaluation = of(confusion);
        for metric in ObjectiveMetric::ALL {
            // Those that do not follow from counts of classes.
            let others = [
                ObjectiveMetric::Auc,
                ObjectiveMetric::Loss,
                ObjectiveMetric::MaskedLoss,
                ObjectiveMetric::Perplexity,
                ObjectiveMetric::MaskedAccuracy,
            ];
            if others.contains(&metric) {
                continue;
            }
            let found = evaluation.value(metric);
            match scores[metric.name()] {
                Some(wanted) => {
                    let what = format!("{name}: {} is {found}, not {wanted}", metric.name());
                    assert!((found - wanted).abs() < 1e-12, "{what}");
                }
                None => assert!(found.is_nan(), "{name}: {} is {found}", metric.name()),
            }
        }
    }
}

#[test]
fn areas_equal_those_of_scikit_learn() {
    let areas = golden().areas;
    assert!(areas.len() > 20);
    for Area { labels, probabilities, auc } in areas {
        let found = roc_auc(&labels, &probabilities).unwrap();
        assert!((found - auc).abs() < 1e-12, "{found} instead of {auc}");
    }
}

#[test]
fn an_area_is_none_where_it_is_not_defined() {
    let rows = |scores: &[f64]| scores.iter().map(|p| vec![1.0 - p, *p]).collect::<Vec<_>>();
    assert_eq!(roc_auc(&[1, 1], &rows(&[0.2, 0.7])), None);
    assert_eq!(roc_auc(&[], &[]), None);
    assert_eq!(roc_auc(&[0, 1], &rows(&[0.2, f64::NAN])), None);
    assert_eq!(roc_auc(&[0, 1], &rows(&[0.5, 0.5])), Some(0.5));
    assert_eq!(
        roc_auc(&[0, 1, 1], &[vec![0.1, 0.2, 0.7], vec![0.3, 0.4, 0.3], vec![1.0; 3]]),
        None
    );
}

/// Shares have one right interval. Both bootstraps are random; their ends may differ by a fraction of the width.
#[test]
fn intervals_are_those_of_scipy_and_of_another_bootstrap() {
    let cases = golden().intervals;
    assert!(cases.len() > 10);
    for Sure { confusion, accuracy, macro_f1 } in cases {
        let found = Intervals::of(&of(confusion.clone())).unwrap();
        let slack = 0.1 * (macro_f1[1] - macro_f1[0]) + 1e-9;
        for (interval, wanted, slack) in
            [(found.accuracy, accuracy, 1e-12), (found.macro_f1, macro_f1, slack)]
        {
            let off = (interval.low - wanted[0]).abs().max((interval.high - wanted[1]).abs());
            assert!(off < slack, "{interval:?} instead of {wanted:?} for {confusion:?}");
        }
    }
}

#[test]
fn only_what_is_defined_and_meant_is_listed() {
    let names = |evaluation: &Evaluation, ordered| {
        let values = evaluation.values(ordered);
        values.into_iter().map(|(metric, _)| metric.name()).collect::<Vec<_>>()
    };
    let evaluation = of(vec![vec![3, 1], vec![2, 4]]);
    assert!(!names(&evaluation, false).contains(&"quadratic_kappa"));
    assert!(!names(&evaluation, false).contains(&"auc"));
    assert!(names(&evaluation, true).contains(&"quadratic_kappa"));
    assert_eq!(names(&Evaluation { auc: Some(0.8), ..evaluation }, true).len(), 12);
    let masked = Some(MaskedScore { loss: 2.0f64.ln(), num_masked: 8, num_right: 3 });
    let tokens = Evaluation { loss: 2.0f64.ln(), masked, ..Evaluation::default() };
    assert_eq!(names(&tokens, false), ["loss", "masked_loss", "perplexity", "masked_accuracy"]);
    assert!((tokens.value(ObjectiveMetric::Perplexity) - 2.0).abs() < 1e-12);
    assert!((tokens.value(ObjectiveMetric::MaskedAccuracy) - 0.375).abs() < 1e-12);
    assert!(tokens.value(ObjectiveMetric::Accuracy).is_nan());
}

#[test]
fn evaluations_of_older_builds_are_read() {
    let old = r#"{"loss": 0.5, "confusion": [[1, 0], [0, 1]]}"#;
    let evaluation: Evaluation = serde_json::from_str(old).unwrap();
    assert_eq!((evaluation.auc, evaluation.masked), (None, None));
}

#[test]
fn scores_follow_from_counts() {
    let evaluation = of(vec![vec![3, 1], vec![2, 4]]);
    assert_eq!(evaluation.num_examples(), 10);
    assert!((evaluation.accuracy() - 0.7).abs() < 1e-12);
    let scores = evaluation.class_scores();
    assert!((scores[0].precision - 0.6).abs() < 1e-12);
    assert!((scores[0].recall - 0.75).abs() < 1e-12);
    assert!((scores[1].f1 - 8.0 / 11.0).abs() < 1e-12);
}

#[test]
fn a_class_never_seen_scores_zero_not_nan() {
    let evaluation = of(vec![vec![2, 0], vec![0, 0]]);
    assert_eq!(evaluation.class_scores()[1].f1.to_bits(), 0.0f64.to_bits());
}
