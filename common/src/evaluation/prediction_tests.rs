//! Files of predictions, and figures of predictions against scikit-learn and scipy.

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;

use super::prediction::{
    Origin, PREDICTION_FORMAT_KEY, Prediction, PredictionError, TEXT_CHARACTERS_MAX, decode, encode,
};
use super::*;

fn predictions() -> (Vec<Prediction>, Vec<String>) {
    let prediction =
        |row, label, probabilities: &[f64]| Prediction::new(row, label, probabilities.to_vec());
    let rows = vec![
        Prediction { num_tokens: Some(17), ..prediction(0, 2, &[0.1, 0.2, 0.7]) },
        Prediction {
            origin: Some(Origin { file: "/data/a, b.csv".into(), row: 71 }),
            ..prediction(1, 0, &[0.4, 0.4, 0.2])
        },
        prediction(2, 1, &[0.0, 0.0, 1.0]).with_text("nicht \"gut\"\n"),
    ];
    (rows, ["bad", "so-so", "gut, naja"].map(str::to_owned).to_vec())
}

#[test]
fn files_round_trip() {
    let (rows, labels) = predictions();
    assert_eq!(rows.iter().map(Prediction::class).collect::<Vec<_>>(), [2, 0, 2]);
    let bytes = encode(&rows, &labels).unwrap();
    assert_eq!(decode(bytes).unwrap(), (rows, labels.clone()));
    assert_eq!(decode(encode(&[], &labels).unwrap()).unwrap(), (Vec::new(), labels));
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let (rows, labels) = predictions();
    let bytes = encode(&rows, &labels).unwrap();
    for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        assert!(decode(bytes.slice(..cut)).is_err(), "{cut}");
    }
    let metrics = crate::metric::encode(&[]).unwrap();
    assert!(matches!(decode(metrics), Err(PredictionError::Damaged { .. })));
    let mut raw = bytes.to_vec();
    let key = PREDICTION_FORMAT_KEY.as_bytes();
    let at = raw.windows(key.len()).rposition(|window| window == key).unwrap() + key.len();
    let digit = raw[at..].iter().position(|byte| *byte == b'3').unwrap();
    raw[at + digit] = b'9';
    assert!(matches!(decode(raw.into()), Err(PredictionError::NewerFormat { format: 9 })));
}

/// Written by builds of formats 1 and 2.
const OLD: &[u8] = include_bytes!("../../../tests/golden/predictions/format-1.parquet");
const SECOND: &[u8] = include_bytes!("../../../tests/golden/predictions/format-2.parquet");

#[test]
fn files_of_format_2_are_read() {
    let (rows, labels) = decode(Bytes::from_static(SECOND)).unwrap();
    assert_eq!(labels, ["no", "yes"]);
    assert_eq!(rows.iter().map(|one| one.row).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(rows.iter().all(|one| one.num_tokens.is_some() && one.origin.is_none()));
    assert!(rows.iter().all(|one| one.text.is_some() != one.is_right()), "{rows:?}");
}

#[test]
fn files_of_format_1_are_read() {
    let (rows, labels) = decode(Bytes::from_static(OLD)).unwrap();
    assert_eq!(labels, ["negative", "positive"]);
    assert_eq!(rows.iter().map(|one| one.row).collect::<Vec<_>>(), (0..80).collect::<Vec<_>>());
    assert!(rows.iter().all(|one| one.num_tokens.is_none() && one.text.is_none()));
    assert!(rows.iter().all(|one| (one.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    assert!(accuracy_by_length(&rows, 5).is_empty());
}

#[test]
fn texts_are_cut_between_characters() {
    let one = Prediction::new(0, 0, vec![1.0]).with_text(&"ü".repeat(TEXT_CHARACTERS_MAX + 1));
    assert_eq!(one.text.unwrap().chars().count(), TEXT_CHARACTERS_MAX);
}

/// Made by `tests/golden/sklearn/curves.py`.
const GOLDEN: &str = include_str!("../../../tests/golden/sklearn/curves.json");

#[derive(Deserialize)]
struct Golden {
    classes: Vec<Class>,
    calibrations: Vec<Calibrated>,
    shares: Vec<Share>,
    disagreements: Vec<Disagreement>,
    differences: Vec<Difference>,
}

#[derive(Deserialize)]
struct Class {
    truth: Vec<u32>,
    scores: Vec<f64>,
    roc: Vec<(f64, f64)>,
    auc: f64,
    precision_recall: Vec<(f64, f64)>,
    average_precision: f64,
}

#[derive(Deserialize)]
struct Calibrated {
    truth: Vec<u32>,
    probabilities: Vec<Vec<f64>>,
    counts: Vec<u64>,
    confidences: Vec<f64>,
    accuracies: Vec<f64>,
    expected_error: f64,
    brier: f64,
}

#[derive(Deserialize)]
struct Share {
    part: u64,
    whole: u64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Disagreement {
    b: u64,
    c: u64,
    p_value: f64,
}

#[derive(Deserialize)]
struct Difference {
    cells: [u64; 4],
    low: f64,
    high: f64,
}

fn golden() -> Golden {
    serde_json::from_str(GOLDEN).unwrap()
}

fn rows(truth: &[u32], probabilities: &[Vec<f64>]) -> Vec<Prediction> {
    let both = (0..).zip(truth.iter().zip(probabilities));
    both.map(|(row, (label, all))| Prediction::new(row, *label, all.clone())).collect()
}

fn assert_near(found: f64, wanted: f64, what: &str) {
    assert!((found - wanted).abs() < 1e-12, "{what}: {found} instead of {wanted}");
}

fn assert_same_points(found: &[(f64, f64)], wanted: &[(f64, f64)], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: {found:?} instead of {wanted:?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert_near(found.0, wanted.0, what);
        assert_near(found.1, wanted.1, what);
    }
}

#[test]
fn curves_are_those_of_scikit_learn() {
    let classes = golden().classes;
    assert!(classes.len() >= 20);
    for case in classes {
        let probabilities: Vec<Vec<f64>> =
            case.scores.iter().map(|score| vec![1.0 - score, *score]).collect();
        let rows = rows(&case.truth, &probabilities);
        let cuts = Cuts::of_class(&rows, 1).unwrap();
        let roc = cuts.roc().unwrap();
        assert_same_points(&roc.points, &case.roc, "roc");
        assert_near(roc.value, case.auc, "auc");
        assert_near(roc_auc(&case.truth, &probabilities).unwrap(), roc.value, "the other auc");
        let curve = cuts.precision_recall().unwrap();
        assert_same_points(&curve.points, &case.precision_recall, "precision and recall");
        assert_near(curve.value, case.average_precision, "average precision");
    }
}

#[test]
fn calibration_is_that_of_scikit_learn() {
    let cases = golden().calibrations;
    assert!(cases.len() >= 16);
    for case in cases {
        let found = Calibration::of(&rows(&case.truth, &case.probabilities), 10).unwrap();
        let counts: Vec<u64> = found.bins.iter().map(|bin| bin.count).collect();
        assert_eq!(counts, case.counts);
        for (bin, (confidence, accuracy)) in
            found.bins.iter().zip(case.confidences.iter().zip(&case.accuracies))
        {
            assert_near(bin.confidence, *confidence, "confidence");
            assert_near(bin.accuracy, *accuracy, "accuracy");
            assert!(bin.low < bin.high && bin.confidence <= bin.high + 1e-12, "{bin:?}");
        }
        assert_near(found.expected_error, case.expected_error, "expected error");
        assert_near(found.brier, case.brier, "Brier score");
    }
}

#[test]
fn intervals_of_shares_are_those_of_scipy() {
    for Share { part, whole, low, high } in golden().shares {
        let found = wilson(part, whole).unwrap();
        assert_near(found.low, low, "low");
        assert_near(found.high, high, "high");
    }
    assert_eq!(wilson(0, 0), None);
}

#[test]
fn the_test_of_mcnemar_is_that_of_scipy() {
    for Disagreement { b, c, p_value } in golden().disagreements {
        let found = mcnemar_exact(b, c);
        assert!((found - p_value).abs() <= 1e-9 * p_value + 1e-300, "{b} {c}: {found} {p_value}");
        assert_eq!(found.to_bits(), mcnemar_exact(c, b).to_bits());
    }
}

/// Two models that are right about so many examples: both, only the first, only the second, neither.
fn two_models(cells: [u64; 4]) -> [Vec<Prediction>; 2] {
    let says = |is_right| if is_right { vec![0.9, 0.1] } else { vec![0.2, 0.8] };
    let kinds = [(true, true), (true, false), (false, true), (false, false)];
    let pairs = kinds.into_iter().zip(cells);
    let pairs: Vec<(bool, bool)> =
        pairs.flat_map(|(kind, count)| (0..count).map(move |_| kind)).collect();
    let model = |right: fn(&(bool, bool)) -> bool| {
        let rows = (0..).zip(&pairs);
        rows.map(|(row, pair)| Prediction::new(row, 0, says(right(pair)))).collect()
    };
    [model(|pair| pair.0), model(|pair| pair.1)]
}

/// Both bootstraps are random; their ends may differ by a fraction of the interval's width.
#[test]
fn differences_agree_with_another_bootstrap() {
    let labels = ["no".to_owned(), "yes".to_owned()];
    for Difference { cells, low, high } in golden().differences {
        let [first, second] = two_models(cells);
        let found = Paired::of((&first, &labels), (&second, &labels)).unwrap();
        let counts = [found.both_right, found.only_first, found.only_second, found.neither];
        assert_eq!((counts, found.num_rows()), (cells, cells.iter().sum()));
        let slack = 0.1 * (high - low) + 1.0 / cells.iter().sum::<u64>() as f64;
        let off = (found.interval.low - low).abs().max((found.interval.high - high).abs());
        assert!(off < slack, "{found:?} instead of {low} to {high}");
        let back = Paired::of((&second, &labels), (&first, &labels)).unwrap();
        assert_near(back.difference, -found.difference, "the other way round");
    }
}

#[test]
fn other_splits_are_not_compared() {
    let labels = ["no".to_owned(), "yes".to_owned()];
    let other = ["no".to_owned(), "maybe".to_owned()];
    let [first, second] = two_models([5, 2, 1, 1]);
    let refused = |a: Said<'_>, b: Said<'_>| Paired::of(a, b).unwrap_err();
    let classes = refused((&first, &labels), (&second, &other));
    assert!(matches!(classes, PairingError::Classes { .. }), "{classes}");
    let counts = refused((&first, &labels), (&second[..8], &labels));
    assert_eq!(counts, PairingError::Counts { first: 9, second: 8 });
    assert_eq!(refused((&[], &labels), (&[], &labels)), PairingError::Empty);
    let mut changed = second.clone();
    changed[3].label = 1;
    let label = refused((&first, &labels), (&changed, &labels));
    assert_eq!(
        label.to_string(),
        "the test splits differ: row 3 is `no` in one and `yes` in the other"
    );
    changed[3] = Prediction { row: 7, ..second[3].clone() };
    let row = refused((&first, &labels), (&changed, &labels));
    assert_eq!(
        row.to_string(),
        "the test splits differ: row 3 is `no` in one and `row 7` in the other"
    );
}

#[test]
fn lengths_are_divided_evenly_and_never_between_equals() {
    let row = |row: u64| {
        let num_tokens = Some(u32::try_from(5 + (row * row) % 37).unwrap());
        let says = if row.is_multiple_of(3) { vec![0.4, 0.6] } else { vec![0.7, 0.3] };
        Prediction { num_tokens, ..Prediction::new(row, 0, says) }
    };
    let rows: Vec<Prediction> = (0..500).map(row).collect();
    let bins = accuracy_by_length(&rows, 6);
    assert!((4..=7).contains(&bins.len()), "{bins:?}");
    assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), 500);
    let right = rows.iter().filter(|one| one.is_right()).count() as u64;
    assert_eq!(bins.iter().map(|bin| bin.num_right).sum::<u64>(), right);
    assert!(bins.windows(2).all(|pair| pair[0].longest < pair[1].shortest), "{bins:?}");
    assert!(
        bins.iter().all(|bin| (bin.interval.low..=bin.interval.high).contains(&bin.accuracy()))
    );
    let same: Vec<Prediction> =
        rows.iter().map(|one| Prediction { num_tokens: Some(9), ..one.clone() }).collect();
    assert_eq!(accuracy_by_length(&same, 6).len(), 1);
}

#[test]
fn the_surest_mistakes_come_first() {
    let row = |row, label, p: f64| Prediction::new(row, label, vec![1.0 - p, p]);
    let rows = [row(0, 0, 0.9), row(1, 1, 0.9), row(2, 1, 0.05), row(3, 0, 0.9), row(4, 1, 0.4)];
    assert_eq!(confident_mistakes(&rows, 10), [2, 0, 3, 4]);
    assert_eq!(confident_mistakes(&rows, 2), [2, 0]);
    assert!(confident_mistakes(&rows[1..2], 2).is_empty());
}

proptest! {
    #[test]
    fn curves_rise_and_end_where_they_must(
        scored in prop::collection::vec((0u32..=64, any::<bool>()), 1..200),
        points_max in 1usize..50,
    ) {
        let scored: Vec<(f64, bool)> =
            scored.into_iter().map(|(score, is)| (f64::from(score) / 64.0, is)).collect();
        let cuts = Cuts::new(scored.clone()).unwrap();
        let positives = scored.iter().filter(|(_, is_positive)| *is_positive).count();
        prop_assert_eq!(cuts.roc().is_some(), positives > 0 && positives < scored.len());
        if let Some(roc) = cuts.roc() {
            prop_assert_eq!(roc.points.first(), Some(&(0.0, 0.0)));
            prop_assert_eq!(roc.points.last(), Some(&(1.0, 1.0)));
            prop_assert!(roc.points.windows(2).all(|p| p[0].0 <= p[1].0 && p[0].1 <= p[1].1));
            prop_assert!((0.0..=1.0 + 1e-9).contains(&roc.value));
            let thin = roc.thinned(points_max);
            prop_assert!(thin.len() <= 2 * points_max + 2);
            prop_assert_eq!(thin.last(), roc.points.last());
        }
        if let Some(curve) = cuts.precision_recall() {
            let share = positives as f64 / scored.len() as f64;
            prop_assert!((curve.points.last().unwrap().1 - share).abs() < 1e-12);
            prop_assert!(curve.value > 0.0 && curve.value <= 1.0 + 1e-9);
        }
        let flipped = scored.iter().map(|(score, is_positive)| (1.0 - score, !is_positive));
        if let (Some(a), Some(b)) = (cuts.roc(), Cuts::new(flipped.collect()).unwrap().roc()) {
            prop_assert!((a.value - b.value).abs() < 1e-9);
        }
    }
}

#[test]
fn what_is_not_defined_is_absent() {
    assert_eq!(Cuts::new(vec![(f64::NAN, true)]), None);
    assert_eq!(Cuts::of_class(&[Prediction::new(0, 0, vec![0.5, 0.5])], 2), None);
    let only = Cuts::new(vec![(0.4, false), (0.2, false)]).unwrap();
    assert_eq!((only.roc(), only.precision_recall()), (None, None));
    assert_eq!(Calibration::of(&[], 10), None);
    assert_eq!(Calibration::of(&[Prediction::new(0, 0, vec![f64::NAN, 1.0])], 10), None);
}
