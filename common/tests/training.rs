//! The sections `training` and `evaluation` of a manifest, and what is warned of.

use muster_common::manifest::{
    Assignment, Budget, Category, ClassWeights, EvaluationSettings, Manifest, ParameterValue,
    ScheduleShape, SearchSpace, TrainingSettings, TrialSettings, WeightAverage,
};
use muster_common::objective::Mode;

/// Nothing that has a default.
const MINIMAL: &str = "\
version: 1
name: one
model: {pretrained: models/minilm}
data:
  train: {path: train.csv}
  validation: {fraction: 0.1}
  text: text
  label: {column: label}
budget: {epochs: 2.5}
";

#[test]
fn a_manifest_of_an_older_build_is_read() {
    let manifest = Manifest::parse(MINIMAL).unwrap();
    let mut json = serde_json::to_value(&manifest).unwrap();
    for key in ["training", "evaluation"] {
        assert!(json.as_object_mut().unwrap().remove(key).is_some());
    }
    assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
    let settings = TrialSettings::resolve(&SearchSpace::new(), &Assignment::new());
    let mut json = serde_json::to_value(&settings).unwrap();
    for key in ["warmup_steps", "layer_decay", "label_smoothing"] {
        assert!(json.as_object_mut().unwrap().remove(key).is_some());
    }
    assert_eq!(serde_json::from_value::<TrialSettings>(json).unwrap(), settings);
}

#[test]
fn training_may_be_written_short() {
    let training = |text: &str| {
        let text = format!("{MINIMAL}training: {{{text}}}\n");
        Manifest::parse(&text).map(|manifest| manifest.training).map_err(|e| e.to_string())
    };
    let schedule = |text: &str| training(text).map(|training| training.schedule);
    assert_eq!(schedule("schedule: cosine"), Ok(ScheduleShape::Cosine { cycles: 0.5 }));
    let end = Ok(ScheduleShape::Polynomial { power: 1.0, end_learning_rate: 1e-7 });
    assert_eq!(schedule("schedule: {type: polynomial}"), end);
    let slanted = Ok(ScheduleShape::SlantedTriangular { ratio: 10.0 });
    assert_eq!(schedule("schedule: {type: slanted_triangular, ratio: 10}"), slanted);
    let weights = training("class_weights: balanced").map(|training| training.class_weights);
    assert_eq!(weights, Ok(ClassWeights::Balanced));
    let every = Budget::Steps(50);
    let average = training("average: {type: checkpoints, every: {steps: 50}}");
    let expected = WeightAverage::Checkpoints { last: 3, every };
    assert_eq!(average.map(|training| training.average), Ok(expected));
    assert_eq!(training("average: {type: none}"), Ok(TrainingSettings::default()));
}

/// Words of one trial, by the names of their hyperparameters.
fn with_words(words: &[(&str, Category)]) -> Assignment {
    let value =
        |(name, word): &(&str, Category)| ((*name).to_owned(), ParameterValue::Category(*word));
    words.iter().map(value).collect()
}

#[test]
fn a_trial_with_words_trains_as_a_manifest_that_says_them() {
    let training = |text: &str| {
        let text = format!("{MINIMAL}training: {{{text}}}\n");
        Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}")).training
    };
    let text = format!(
        "{MINIMAL}hyperparameters:\n  schedule: {{values: [linear, cosine, polynomial]}}\n  \
         precision: {{values: [float32, bfloat16]}}\n  average: {{values: [none, ema]}}\n  \
         class_weights: balanced\nsearcher: {{metric: loss, sampler: grid}}\n\
         training: {{schedule: {{type: polynomial, power: 2}}, average: {{type: ema, decay: 0.9}}}}\n"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(manifest.searcher.as_ref().unwrap().max_trials, 12);
    let cosine = [
        ("schedule", Category::Cosine),
        ("precision", Category::Bfloat16),
        ("average", Category::LastStep),
    ];
    let found = manifest.training_of(&with_words(&cosine));
    let said = "schedule: cosine, precision: bfloat16, class_weights: balanced";
    assert_eq!(found, training(said));
    let polynomial = [
        ("schedule", Category::Polynomial),
        ("precision", Category::Float32),
        ("average", Category::Ema),
    ];
    let found = manifest.training_of(&with_words(&polynomial));
    let said = "schedule: {type: polynomial, power: 2}, average: {type: ema, decay: 0.9}, \
                class_weights: balanced";
    assert_eq!(found, training(said), "the numbers beside a word are those of its trials");
    // What workers hold against the device and the classes before trials begin.
    assert_eq!(manifest.categories("precision"), [Category::Float32, Category::Bfloat16]);
    assert!(manifest.categories("learning_rate").is_empty());
    let all = manifest.trainings();
    let has = |precision: Category| all.iter().any(|t| t.category("precision") == Some(precision));
    assert!(has(Category::Float32) && has(Category::Bfloat16) && !has(Category::Float16));
    // A journal keeps it.
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    let assignment = with_words(&cosine);
    let json = serde_json::to_string(&assignment).unwrap();
    assert!(json.contains(r#""schedule":{"category":"cosine"}"#), "{json}");
    assert_eq!(serde_json::from_str::<Assignment>(&json).unwrap(), assignment);
}

#[test]
fn words_can_be_listed_and_conditions_name_them() {
    let text = format!(
        "{MINIMAL}hyperparameters:\n  schedule: {{values: [linear, cosine]}}\n  \
         dropout: {{values: [0, 0.1], when: {{schedule: cosine}}}}\n\
         searcher: {{metric: loss, sampler: grid}}\n"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(manifest.searcher.as_ref().unwrap().max_trials, 3, "linear has no dropout");
    let points = "[{schedule: cosine}, {schedule: constant}]";
    let text =
        format!("{MINIMAL}searcher: {{metric: loss, sampler: {{type: list, points: {points}}}}}\n");
    let listed = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(listed.categories("schedule"), [Category::Cosine, Category::Constant]);
}

#[test]
fn early_stopping_watches_the_objective_unless_it_is_told_otherwise() {
    let watched = |searcher: &str, metric: &str| {
        let space = "hyperparameters: {dropout: {min: 0, max: 0.1}}\n";
        let training = format!(
            "training: {{evaluate_every: {{steps: 5}}, early_stopping: {{patience: 2{metric}}}}}\n"
        );
        let text = if searcher.is_empty() {
            format!("{MINIMAL}{training}")
        } else {
            format!("{MINIMAL}{space}searcher: {{max_trials: 2, {searcher}}}\n{training}")
        };
        let objective = Manifest::parse(&text).unwrap().stopping_objective().unwrap();
        (objective.metric.name(), objective.mode)
    };
    assert_eq!(watched("", ""), ("loss", Mode::Min));
    assert_eq!(watched("metric: mcc", ""), ("mcc", Mode::Max));
    assert_eq!(watched("metric: auc, mode: min", ", metric: auc"), ("auc", Mode::Min));
    assert_eq!(watched("metric: auc", ", metric: loss"), ("loss", Mode::Min));
}

#[test]
fn a_long_warmup_is_warned_of() {
    let warnings = |budget: &str, space: &str, num_train| {
        let text = MINIMAL.replace("{epochs: 2.5}", budget);
        let text = format!("{text}hyperparameters: {{{space}}}\n");
        Manifest::parse(&text).unwrap().warnings(num_train)
    };
    assert!(warnings("{steps: 100}", "warmup_ratio: 0.2", None).is_empty());
    assert!(warnings("{steps: 100}", "warmup_ratio: 0.21", None)[0].contains("21 %"));
    assert!(warnings("{steps: 100}", "warmup_steps: 20", None).is_empty());
    assert!(warnings("{steps: 100}", "warmup_steps: 21", None)[0].contains("21 of 100 steps"));
    // With a fixed number of steps the ratio does not count.
    assert!(warnings("{steps: 100}", "warmup_steps: 20, warmup_ratio: 0.5", None).is_empty());
    // Epochs are steps once the data is known: 4 steps each.
    assert!(warnings("{epochs: 10}", "warmup_steps: 9", None).is_empty());
    assert!(warnings("{epochs: 10}", "warmup_steps: 9", Some(100))[0].contains("9 of 40 steps"));
    assert!(warnings("{examples: 3200}", "warmup_steps: 30", None)[0].contains("30 of 100"));
    let text = format!("{MINIMAL}hyperparameters: {{warmup_steps: 30}}\n");
    let manifest = Manifest::parse(&text).unwrap();
    let of_trial = |total_steps| manifest.trial_warnings(&Assignment::new(), total_steps);
    assert!(of_trial(150).is_empty());
    assert!(of_trial(149)[0].contains("30 of 149 steps"));
}

#[test]
fn classes_in_a_row_are_in_an_order() {
    let is_ordered = |names: &[&str], ordered| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        EvaluationSettings { ordered }.is_ordered(&names)
    };
    assert!(is_ordered(&["1", "2", "3", "4", "5"], None));
    assert!(!is_ordered(&["0", "1"], None));
    assert!(!is_ordered(&["1", "2", "4"], None));
    assert!(!is_ordered(&["low", "mid", "high"], None));
    assert!(is_ordered(&["low", "mid", "high"], Some(true)));
    assert!(!is_ordered(&["1", "2", "3"], Some(false)));
}
