//! Reports of made-up experiments: what is in them, what is not, and how large they are.

use muster_common::equipment::{Equipment, EquipmentKind, Gpu};
use muster_common::evaluation::prediction::Prediction;
use muster_common::evaluation::{AttributedText, Attribution, Evaluation, WordWeight};
use muster_common::goal::Merit;
use muster_common::id::{Attempt, TrialId};
use muster_common::manifest::{Assignment, Manifest, ParameterValue};
use muster_common::metric::{MetricName, MetricPoint};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::run::DataSummary;
use muster_common::seed::Seed;
use muster_common::time::Timestamp;

use super::*;
use crate::view::{BestView, DecisionView, ExperimentState, TrialStateName};

const MANIFEST: &str = "version: 1
name: demo
seed: 3
model: {pretrained: /models/small, max_length: 32}
data:
  train: {path: /data/all.csv}
  validation: {fraction: 0.1}
  test: {fraction: 0.1}
  text: text
  label: {column: label}
hyperparameters:
  learning_rate: {min: 1e-5, max: 1e-3, scale: log}
  dropout: {min: 0.0, max: 0.5}
searcher: {metric: accuracy, max_trials: 40}
budget: {epochs: 1}
";

/// What breaks pages that take text for markup.
const HOSTILE: &str = "</script><script>alert(1)</script> <!-- & \"x\" 'y'";

struct Fixture {
    view: ExperimentView,
    manifest: Manifest,
    measured: Vec<Measured>,
    predictions: Predictions,
    weighed: Weighed,
}

fn predictions(num_rows: u64, num_classes: u32, skill: f64, seed: u64) -> Predictions {
    let mut draws = Seed(seed).draws();
    let labels: Vec<String> = (0..num_classes).map(|class| format!("class {class} <b>")).collect();
    let mut truths = Seed(1).draws();
    let row = |row: u64| {
        let label = u32::try_from(truths.below(num_classes.into())).unwrap();
        let raw =
            (0..num_classes).map(|class| draws.unit() + if class == label { skill } else { 0.0 });
        let raw: Vec<f64> = raw.collect();
        let sum: f64 = raw.iter().sum();
        let one = Prediction::new(row, label, raw.iter().map(|value| value / sum).collect());
        let one = Prediction { num_tokens: u32::try_from(5 + row % 28).ok(), ..one };
        if one.is_right() { one } else { one.with_text(&format!("{HOSTILE} row {row}")) }
    };
    ((0..num_rows).map(row).collect(), labels)
}

fn evaluation((rows, labels): &Predictions) -> Evaluation {
    let mut confusion = vec![vec![0; labels.len()]; labels.len()];
    for row in rows {
        confusion[row.label as usize][row.class()] += 1;
    }
    Evaluation { loss: 0.5, confusion, ..Evaluation::default() }
}

fn trial(number: u32, draws: &mut muster_common::seed::Draws) -> TrialView {
    let (rate, dropout) = (1e-5 + 9e-4 * draws.unit(), 0.5 * draws.unit());
    let values = [
        ("learning_rate", ParameterValue::Float(rate)),
        ("dropout", ParameterValue::Float(dropout)),
    ];
    let assignment: Assignment =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    TrialView {
        id: TrialId { experiment: "demo-1".parse().unwrap(), number },
        state: TrialStateName::Stopped,
        reason: format!("place {number} of 40 at its rung {HOSTILE}"),
        assignment,
        step: 40,
        target_step: 80,
        merit: Some(Merit::from(0.5 + 400.0 * rate + 0.01 * draws.unit())),
        last_loss: None,
        attempts: 1,
        restarts: 0,
        rungs_passed: 1,
        examples_per_second: 0.0,
        ranks: Vec::new(),
    }
}

/// Workers 1 to 4 take turns; the fourth has a GPU.
fn equipment(trial: &TrialView) -> Equipment {
    let number = trial.id.number % 4 + 1;
    let (name, driver) = (format!("NVIDIA H200 {HOSTILE}"), "570.86.15".to_owned());
    let kind = EquipmentKind {
        processor: format!("AMD EPYC 9B14 {HOSTILE}"),
        num_processors: 4,
        memory_bytes: 24 << 30,
        threads: 2,
        gpu: (number == 4).then_some(Gpu { name, memory_bytes: 141 << 30, driver }),
        libtorch: "2.11.0".to_owned(),
        muster: "0.1.7".to_owned(),
    };
    Equipment { host: format!("node-{number}"), worker: format!("worker-{number}"), kind }
}

fn measured(trial: &TrialView, num_steps: u64) -> Measured {
    let objective = MetricName::validation(ObjectiveMetric::Accuracy);
    let last = trial.merit.as_ref().unwrap().first();
    let point = |name: &MetricName, step: u64, value: f64| MetricPoint {
        trial: trial.id.clone(),
        attempt: Attempt(1),
        resumed_from: 0,
        rank: 0,
        step,
        name: name.clone(),
        value,
        recorded_at: Timestamp(1_000_000 + 500 * step),
        unit: "".into(),
        host: "node-7".into(),
        superseded: false,
    };
    let mut points: Vec<MetricPoint> = (1..=num_steps)
        .map(|step| point(&MetricName::TRAIN_LOSS, step, 1.0 / step as f64))
        .collect();
    points.push(point(&objective, num_steps, last));
    Measured::of(&trial.id, &points, &objective, vec![equipment(trial)])
}

fn fixture(num_trials: u32, num_classes: u32, num_steps: u64) -> Fixture {
    let mut draws = Seed(5).draws();
    let trials: Vec<TrialView> = (1..=num_trials).map(|number| trial(number, &mut draws)).collect();
    let predictions = predictions(800, num_classes, 0.5, 7);
    let (objective, test) = (ObjectiveMetric::Accuracy, evaluation(&predictions));
    let data = DataSummary {
        cache: "9f".repeat(32),
        num_train: 8000,
        num_validation: 800,
        num_test: 800,
        labels: predictions.1.clone(),
        num_rows: 9612,
        num_duplicates: 12,
        ..DataSummary::default()
    };
    let ranked = |view: &ExperimentView| view.ranked().first().map(|best| best.id.clone());
    let mut view = ExperimentView {
        id: "demo-1".parse().unwrap(),
        description: HOSTILE.to_owned(),
        state: ExperimentState::Completed,
        reason: String::new(),
        paused: false,
        created_at: Timestamp(1_000_000),
        ended_at: Some(Timestamp(1_300_000)),
        now: Timestamp(1_400_000),
        goal: Objective { metric: objective, mode: Mode::Max }.into(),
        max_trials: num_trials,
        rungs: Vec::new(),
        decisions: trials
            .iter()
            .map(|trial| DecisionView {
                at: Timestamp(1_100_000),
                trial: Some(trial.id.clone()),
                text: format!("stopped: {HOSTILE}"),
            })
            .collect(),
        trials,
        data: Some(data),
        parts_done: 0,
        num_parts: 0,
        num_workers: 2,
        examples_per_second: 0.0,
        seconds_left: None,
        best: None,
        front: Vec::new(),
        location: "/store/experiments/demo-1".to_owned(),
        ordered: false,
        warnings: vec![HOSTILE.to_owned()],
        training_objective: muster_common::manifest::TrainingObjective::Classification,
    };
    view.best = ranked(&view).map(|trial| BestView {
        trial,
        step: 40,
        objective: 0.9,
        validation: test.clone(),
        test: Some(test),
        model: "/store/demo-1/best".to_owned(),
    });
    let measured = view.trials.iter().map(|trial| measured(trial, num_steps)).collect();
    let manifest = Manifest::parse(MANIFEST).unwrap();
    let weighed = Weighed::default();
    Fixture { view, manifest, measured, predictions, weighed }
}

impl Fixture {
    fn source(&self) -> Source<'_> {
        Source {
            view: &self.view,
            manifest: &self.manifest,
            manifest_text: MANIFEST,
            subject: None,
            measured: &self.measured,
            predictions: Some(&self.predictions),
            weighed: &self.weighed,
            is_stored: false,
            against: None,
            made_at: Timestamp(1_400_000),
        }
    }
}

/// What stands in the page besides the library, its licences and our own style and script.
fn assert_is_safe(page: &str) {
    let own = page.split("id=\"licenses\"").next().unwrap();
    assert!(!own.contains("alert(1)</script>"), "text became a script");
    assert!(!own.contains("<b>"), "text became markup");
    assert_eq!(page.matches("</script>").count(), 4, "a script ends too early");
    for fetching in [" src=", "@import", "url(", "<link", "<img"] {
        assert!(!own.contains(fetching), "the page fetches: {fetching}");
    }
    for link in own.split(" href=\"").skip(1) {
        assert!(link.starts_with('#'), "{}", &link[..40]);
    }
}

#[test]
fn a_report_says_what_there_is() {
    let fixture = fixture(40, 2, 80);
    let report = Report::of(&fixture.source()).unwrap();
    let test = report.test.as_ref().unwrap();
    let accuracy = fixture.view.best.as_ref().unwrap().test.as_ref().unwrap().accuracy();
    assert_eq!(test.scores["accuracy"].to_bits(), accuracy.to_bits());
    let behavior = report.behavior.as_ref().unwrap();
    assert_eq!(behavior.num_rows, 800);
    assert!((1.0 - behavior.num_wrong as f64 / 800.0 - accuracy).abs() < 1e-12);
    assert_eq!((behavior.classes.len(), behavior.lengths.len()), (1, 7));
    assert!(behavior.mistakes.windows(2).all(|two| two[0].confidence >= two[1].confidence));
    let metrics: Vec<&str> = report.learning.iter().map(|chart| chart.metric.as_str()).collect();
    assert_eq!(metrics, ["validation_accuracy", "train_loss"]);
    assert_eq!(report.learning[1].lines.len(), 40);
    // The results were made of the learning rate.
    let shares = &report.importance.as_ref().unwrap().shares;
    assert_eq!(shares[0].parameter, "learning_rate");
    assert!(shares[0].share > 0.7, "{shares:?}");
    let places: Vec<Option<usize>> = report.ranking.trials.iter().map(|row| row.place).collect();
    assert_eq!(places, (1..=40).map(Some).collect::<Vec<_>>());
    let hosts = &report.card.hosts;
    assert_eq!((hosts.len(), hosts[0].num_runs, hosts[0].name.as_str()), (1, 40, "node-7"));
    // Eighty steps, half a second from one to the next.
    let hours = report.card.slot_hours.unwrap();
    assert!((hours - 40.0 * 39.5 / 3600.0).abs() < 1e-9, "{hours}");
    let page = page::render(&report).unwrap();
    assert_is_safe(&page);
    let sections = ["card", "learning", "ranking", "importance", "scores", "curves", "calibration"];
    for id in sections.into_iter().chain(["lengths", "mistakes", "manifest"]) {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "no {id}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["test"]["scores"]["accuracy"], accuracy);
}

#[test]
fn the_run_card_has_a_row_for_each_kind_of_hardware() {
    let mut fixture = fixture(12, 2, 20);
    let report = Report::of(&fixture.source()).unwrap();
    let [plain, with_gpu] = &report.card.workers[..] else { panic!("{:?}", report.card.workers) };
    assert_eq!((plain.num_workers, with_gpu.num_workers), (3, 1));
    assert_eq!(plain.hosts, ["node-1", "node-2", "node-3"]);
    assert_eq!((plain.kind.threads, plain.kind.gpu.is_none()), (2, true));
    let page = page::render(&report).unwrap();
    assert_is_safe(&page);
    for words in [
        "<th scope=\"row\">3 workers</th><td>node-1, node-2, node-3</td><td>AMD EPYC 9B14 &lt;/script&gt;",
        "<td class=\"n\">2</td><td class=\"n\">24 GiB</td><td>-</td><td>2.11.0</td><td>0.1.7</td>",
        "<th scope=\"row\">1 worker</th><td>node-4</td>",
        "141 GiB, driver 570.86.15",
    ] {
        assert!(page.contains(words), "no `{words}`");
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    let found = &json["card"]["workers"][1];
    assert_eq!((&found["num_workers"], &found["gpu"]["driver"]), (&1.into(), &"570.86.15".into()));
    // A report on one trial is about the worker that trained it.
    let source = Source { subject: Some(1), ..fixture.source() };
    let one = Report::of(&source).unwrap();
    assert_eq!(
        (one.card.workers.len(), &one.card.workers[0].hosts[..]),
        (1, &["node-2".to_owned()][..])
    );

    fixture.measured.iter_mut().for_each(|measured| measured.equipment.clear());
    let report = Report::of(&fixture.source()).unwrap();
    assert!(report.card.workers.is_empty());
    let page = page::render(&report).unwrap();
    assert!(
        page.contains("a build that did not keep it") && !page.contains("What they trained with")
    );
}

#[test]
fn words_of_mistakes_are_colored_where_the_model_was_asked() {
    let mut fixture = fixture(4, 2, 20);
    let asked = questions(&fixture.predictions, false);
    assert_eq!(asked.len(), 20);
    let labels = fixture.predictions.1.clone();
    let answer = |(row, text): &(u64, AttributedText)| {
        let prediction = fixture.predictions.0.iter().find(|one| one.row == *row).unwrap();
        let words = vec![
            WordWeight { in_pair: false, start: 0, end: 10, weight: 1.5 },
            WordWeight { in_pair: false, start: 10, end: text.text.len(), weight: -0.5 },
        ];
        let predicted = labels[prediction.class()].clone();
        (*row, Attribution { predicted, probability: 0.9, words, completeness_error: None })
    };
    fixture.weighed.answers = asked.iter().map(answer).collect();
    let report = Report::of(&fixture.source()).unwrap();
    let mistakes = &report.behavior.as_ref().unwrap().mistakes;
    assert_eq!(mistakes.iter().filter(|mistake| mistake.words.len() == 2).count(), 20);
    let page = page::render(&report).unwrap();
    assert_is_safe(&page);
    assert_eq!(page.matches("<mark class=\"for4\" title=\"+1.5\">").count(), 20);
    assert!(page.len() < 2_000_000 && !page.contains("Words are not colored"));

    fixture.weighed = Weighed::absent(format!("there is no model {HOSTILE}"));
    let page = page::render(&Report::of(&fixture.source()).unwrap()).unwrap();
    assert_is_safe(&page);
    assert!(page.contains("Words are not colored: there is no model &lt;/script&gt;"));
}

#[test]
fn a_report_of_a_store_alone_claims_nothing_that_is_not_there() {
    let fixture = fixture(4, 2, 20);
    let stored = Report::of(&Source { is_stored: true, ..fixture.source() }).unwrap();
    let whole = Report::of(&fixture.source()).unwrap();
    assert_eq!((&stored.test, &stored.behavior), (&whole.test, &whole.behavior));
    assert_eq!((&stored.validation, &stored.importance), (&None, &None));
    assert_eq!((stored.card.state.as_str(), &stored.card.data), ("not known", &None));
    assert!(stored.ranking.trials.iter().all(|row| row.state == "not known"));
    assert!(page::render(&stored).unwrap().contains("not known"));
    // Of a trial that was not chosen no hyperparameters are known.
    let best = fixture.view.best.as_ref().unwrap().trial.number;
    let other = Some(if best == 1 { 2 } else { 1 });
    let source = Source { is_stored: true, subject: other, ..fixture.source() };
    assert_eq!(Report::of(&source).unwrap().card.chosen, None);
}

#[test]
fn a_report_of_a_trial_is_about_that_trial() {
    let fixture = fixture(12, 3, 30);
    let best = fixture.view.best.as_ref().unwrap().trial.number;
    let other = if best == 1 { 2 } else { 1 };
    for number in [best, other] {
        let source = Source { subject: Some(number), ..fixture.source() };
        let report = Report::of(&source).unwrap();
        assert_eq!(report.card.trial, Some(format!("demo-1/t{number}")));
        assert_eq!(report.ranking.trials.len(), 1);
        assert_eq!(report.test.is_some(), number == best, "only the best one is scored");
        assert_eq!(report.behavior.is_some(), number == best);
        assert!(report.importance.is_none());
        assert_is_safe(&page::render(&report).unwrap());
    }
    let source = Source { subject: Some(99), ..fixture.source() };
    let text = Report::of(&source).unwrap_err().to_string();
    assert_eq!(text, "demo-1 has no trial t99; there are 12 so far");
}

#[test]
fn a_running_experiment_has_a_report_too() {
    let mut fixture = fixture(3, 2, 10);
    fixture.view.state = ExperimentState::Searching;
    fixture.view.ended_at = None;
    fixture.view.best = None;
    fixture.measured.truncate(1);
    let report = Report::of(&Source { predictions: None, ..fixture.source() }).unwrap();
    assert!(report.test.is_none() && report.behavior.is_none() && report.importance.is_none());
    assert_is_safe(&page::render(&report).unwrap());
    fixture.view.trials.clear();
    fixture.view.data = None;
    fixture.measured.clear();
    let report = Report::of(&Source { predictions: None, ..fixture.source() }).unwrap();
    assert_eq!(report.card.slot_hours, None);
    assert_is_safe(&page::render(&report).unwrap());
}

/// The interval is about as wide as the normal approximation says (Agresti, Categorical Data Analysis,
/// comparing dependent proportions).
#[test]
fn the_interval_of_a_difference_is_as_wide_as_theory_says() {
    let (first, mut second) = (fixture(3, 2, 10), fixture(3, 2, 10));
    second.view.id = "other-2".parse().unwrap();
    second.predictions = predictions(800, 2, 0.1, 8);
    let (view, manifest) = (&second.view, &second.manifest);
    let rival = Rival { view, manifest, predictions: &second.predictions };
    let report = Report::of(&Source { against: Some(rival), ..first.source() }).unwrap();
    let found = report.comparison.unwrap();
    let (b, c, n) = (found.only_this as f64, found.only_other as f64, found.num_rows as f64);
    let half = 1.959_964 * (b + c - (b - c).powi(2) / n).sqrt() / n;
    let [low, high] = found.interval_95;
    assert!(((high - low) / (2.0 * half) - 1.0).abs() < 0.1, "{found:?} {half}");
    assert!((f64::midpoint(low, high) - (b - c) / n).abs() < 0.2 * half, "{found:?} {half}");
}

#[test]
fn two_models_are_compared_on_the_same_examples_only() {
    let (first, mut second) = (fixture(3, 2, 10), fixture(3, 2, 10));
    second.view.id = "other-2".parse().unwrap();
    second.predictions = predictions(800, 2, 0.1, 8);
    let compare = |second: &Fixture| {
        let (view, manifest) = (&second.view, &second.manifest);
        let rival = Rival { view, manifest, predictions: &second.predictions };
        Report::of(&Source { against: Some(rival), ..first.source() })
    };
    let report = compare(&second).unwrap();
    let found = report.comparison.as_ref().unwrap();
    assert!(found.is_significant && found.difference > 0.0, "{found:?}");
    assert!((found.accuracy - found.other_accuracy - found.difference).abs() < 1e-12);
    assert!(found.interval_95[0] < found.difference && found.difference < found.interval_95[1]);
    assert!(found.doubts.is_empty());
    let drawn = page::render(&report).unwrap();
    assert!(drawn.contains("demo-1 is better."));
    second.manifest.seed = Seed(4);
    assert_eq!(compare(&second).unwrap().comparison.unwrap().doubts.len(), 1);
    second.predictions.0.pop();
    let text = compare(&second).unwrap_err().to_string();
    assert!(
        text.starts_with("demo-1 and other-2 cannot be compared: the test splits differ"),
        "{text}"
    );
}

#[test]
fn the_largest_reports_are_below_two_megabytes() {
    for (num_trials, num_classes) in [(2000, 2), (10_000, 2), (100, 77), (2, 120)] {
        let fixture = fixture(num_trials, num_classes, 200);
        let page = page::render(&Report::of(&fixture.source()).unwrap()).unwrap();
        assert!(page.len() < 2_000_000, "{num_trials} {num_classes}: {} bytes", page.len());
        assert_is_safe(&page);
    }
}
