//! The manifest reader from outside: what is legal, what is refused and in which words.

mod refusal;

use std::path::Path;

use muster_common::manifest::{
    Budget, CheckpointChoice, CheckpointSettings, ClassWeights, Continuation, DataSettings,
    Delimiter, Domain, EarlyStopping, EvaluationSettings, GradientCompression, HYPERPARAMETERS,
    HalvingSettings, Holdout, Hygiene, HyperparameterKind, LabelRange, LabelRule, Limits, Manifest,
    ModelSettings, ParameterValue, Precision, PrunerSettings, Resources, SamplerSettings, Scale,
    ScheduleShape, SearchSpace, SearcherSettings, Slots, Source, SourceFormat, TrainingObjective,
    TrainingSettings, Truncation, Unfreezing, WeightAverage,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use proptest::prelude::*;
use refusal::{FULL, MINIMAL, Refusal, refusals};

/// What a manifest is answered.
fn answer(text: &str) -> String {
    Manifest::parse(text).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

fn tab_separated(columns: Option<&[&str]>) -> SourceFormat {
    let columns = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    SourceFormat::Delimited { delimiter: Delimiter::Tab, columns }
}

fn comma_separated(path: &str) -> Source {
    let format = SourceFormat::Delimited { delimiter: Delimiter::Comma, columns: None };
    Source { paths: vec![path.to_owned()], hub: None, format }
}

fn full_space() -> SearchSpace {
    let float = |value| Domain::Constant(ParameterValue::Float(value));
    let whole = ParameterValue::Int;
    let domains = [
        ("learning_rate", Domain::Float { min: 1e-5, max: 1e-3, scale: Scale::Log }),
        ("global_batch_size", Domain::Values(vec![whole(16), whole(32)])),
        ("micro_batch_size", Domain::Constant(whole(16))),
        ("dropout", Domain::Float { min: 0.0, max: 0.3, scale: Scale::Linear }),
        ("weight_decay", float(0.05)),
        ("warmup_ratio", float(0.1)),
        ("warmup_steps", Domain::Constant(whole(40))),
        ("layer_decay", float(0.95)),
        ("label_smoothing", float(0.1)),
        ("max_grad_norm", float(0.0)),
        ("adam_beta1", float(0.8)),
        ("adam_beta2", float(0.99)),
        ("adam_epsilon", float(1e-6)),
    ];
    domains.map(|(name, domain)| (name.to_owned(), domain)).into()
}

fn full_training() -> TrainingSettings {
    let weights = [("negative", 2.0), ("positive", 1.0)];
    TrainingSettings {
        schedule: ScheduleShape::Polynomial { power: 2.0, end_learning_rate: 1e-6 },
        unfreeze: Some(Unfreezing { every: Budget::Epochs(0.5), layers: 2 }),
        class_weights: ClassWeights::Given(
            weights.map(|(name, weight)| (name.to_owned(), weight)).into(),
        ),
        average: WeightAverage::Ema { decay: 0.99 },
        evaluate_every: Some(Budget::Examples(3000)),
        early_stopping: Some(EarlyStopping {
            metric: Some(ObjectiveMetric::Mcc),
            patience: 3,
            min_change: 0.001,
        }),
        precision: Precision::Bfloat16,
        gradient_compression: GradientCompression::Float16,
        step_deadline_s: Some(30),
        masking: None,
    }
}

#[test]
fn every_key_arrives() {
    let range = |name: &str, above, below| LabelRange { name: name.to_owned(), above, below };
    let expected = Manifest {
        name: "sweep-7".parse().unwrap(),
        description: Some("every key once".to_owned()),
        project: Some("research".parse().unwrap()),
        seed: Seed(42),
        model: ModelSettings {
            pretrained: "models/minilm".to_owned(),
            max_length: 64,
            truncation: Truncation::Head,
            freeze_embeddings: true,
            freeze_layers: 3,
            freeze_patterns: Vec::new(),
            reinitialize_layers: 0,
        },
        objective: TrainingObjective::Classification,
        data: DataSettings {
            train: Source {
                paths: vec!["train.tsv".to_owned()],
                hub: None,
                format: tab_separated(Some(&["id", "rating", "text"])),
            },
            validation: Holdout::Count(1000),
            test: Holdout::Source(comma_separated("test.csv")),
            text: "text".to_owned(),
            text_pair: None,
            label: Some(LabelRule::Ranges {
                column: "rating".to_owned(),
                ranges: vec![
                    range("negative", None, Some(-0.5)),
                    range("positive", Some(0.5), None),
                ],
            }),
            hygiene: Hygiene::default(),
        },
        hyperparameters: full_space(),
        searcher: Some(SearcherSettings {
            objective: Objective { metric: ObjectiveMetric::MacroF1, mode: Mode::Max },
            others: Vec::new(),
            constraints: Vec::new(),
            max_trials: 16,
            max_concurrent: Some(4),
            sampler: SamplerSettings::Random,
            pruner: PrunerSettings::Asha(HalvingSettings {
                reduction_factor: 3,
                min_budget: Budget::Examples(3000),
            }),
            target: None,
            warm_start: Vec::new(),
        }),
        budget: Budget::Examples(27_000),
        continue_from: None,
        checkpoint: CheckpointSettings {
            every_steps: Some(100),
            keep_last: 5,
            ..CheckpointSettings::DEFAULT
        },
        resources: Resources { slots: Slots::Fixed(1), max_slots: Some(1024), priority: -5 },
        limits: Limits { hours: Some(12.0), slot_hours: Some(96.5), trial_hours: Some(2.0) },
        max_restarts: 0,
        training: full_training(),
        evaluation: EvaluationSettings { ordered: Some(false) },
    };
    assert_eq!(Manifest::parse(FULL), Ok(expected));
    for spec in HYPERPARAMETERS {
        assert!(FULL.contains(&format!("  {}:", spec.name)), "{} is not in FULL", spec.name);
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let expected = Manifest {
        name: "one".parse().unwrap(),
        description: None,
        project: None,
        seed: Seed(1),
        model: ModelSettings {
            pretrained: "models/minilm".to_owned(),
            max_length: 128,
            truncation: Truncation::Head,
            freeze_embeddings: false,
            freeze_layers: 0,
            freeze_patterns: Vec::new(),
            reinitialize_layers: 0,
        },
        objective: TrainingObjective::Classification,
        data: DataSettings {
            train: comma_separated("train.csv"),
            validation: Holdout::Fraction(0.1),
            test: Holdout::Absent,
            text: "text".to_owned(),
            text_pair: None,
            label: Some(LabelRule::Class { column: "label".to_owned(), names: None }),
            hygiene: Hygiene::default(),
        },
        hyperparameters: SearchSpace::new(),
        searcher: None,
        budget: Budget::Epochs(2.5),
        continue_from: None,
        checkpoint: CheckpointSettings::DEFAULT,
        resources: Resources::default(),
        limits: Limits::default(),
        max_restarts: 3,
        training: TrainingSettings::default(),
        evaluation: EvaluationSettings::default(),
    };
    assert_eq!(Manifest::parse(MINIMAL), Ok(expected.clone()));
    // An empty value is an absent one; a byte-order mark and Windows line ends change nothing.
    let nulls = format!("{MINIMAL}seed:\nsearcher: ~\ncheckpoint: null\nmax_restarts:\n");
    let windows = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    for text in [nulls, windows] {
        assert_eq!(Manifest::parse(&text), Ok(expected.clone()), "{text:?}");
    }
}

#[test]
fn a_sweep_has_its_defaults() {
    let sweep = |rest: &str| {
        let space =
            "hyperparameters: {dropout: {values: [0, 0.1]}, learning_rate: {values: [1e-4]}}";
        let text = format!("{MINIMAL}{space}\nsearcher: {{metric: loss, {rest}}}\n");
        Manifest::parse(&text)
            .map(|manifest| (manifest.searcher.unwrap(), manifest.hyperparameters))
    };
    let (searcher, space) = sweep("max_trials: 5").unwrap();
    let objective = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };
    let (sampler, pruner) = (SamplerSettings::Random, PrunerSettings::None);
    let expected = SearcherSettings {
        objective,
        others: Vec::new(),
        constraints: Vec::new(),
        max_trials: 5,
        max_concurrent: None,
        sampler,
        pruner,
        target: None,
        warm_start: Vec::new(),
    };
    assert_eq!(searcher, expected);
    // One listed value is a constant: nothing is searched there.
    let rate = Domain::Constant(ParameterValue::Float(1e-4));
    assert_eq!(space.get("learning_rate"), Some(&rate));
    assert_eq!(sweep("sampler: grid").unwrap().0.max_trials, 2);
    let pruner = sweep("max_trials: 5, pruner: {type: asha, min_budget: {epochs: 0.5}}").unwrap();
    let asha = HalvingSettings { reduction_factor: 4, min_budget: Budget::Epochs(0.5) };
    assert_eq!(pruner.0.pruner, PrunerSettings::Asha(asha));
}

#[test]
fn trials_begin_at_a_checkpoint_of_another() {
    let read = |rest: &str| {
        Manifest::parse(&format!("{MINIMAL}continue_from: {{{rest}}}\n")).map(|m| m.continue_from)
    };
    let from = |checkpoint| Some(Continuation { trial: "demo-1/t3".parse().unwrap(), checkpoint });
    assert_eq!(read("trial: demo-1/t3"), Ok(from(CheckpointChoice::Last)));
    assert_eq!(read("trial: demo-1/t3, checkpoint: best"), Ok(from(CheckpointChoice::Best)));
    assert_eq!(read("trial: demo-1/t3, checkpoint: 600"), Ok(from(CheckpointChoice::Step(600))));
    for (wrong, what) in [
        ("checkpoint: best", "continue_from.trial"),
        ("trial: demo-1", "continue_from.trial"),
        ("trial: demo-1/t3, checkpoint: 0", "continue_from.checkpoint"),
        ("trial: demo-1/t3, checkpoint: latest", "continue_from.checkpoint"),
        ("trial: demo-1/t3, step: 4", "continue_from.step"),
    ] {
        let issues = read(wrong).unwrap_err().issues;
        assert_eq!(
            issues.iter().map(|issue| issue.path.as_str()).collect::<Vec<_>>(),
            [what],
            "{wrong}"
        );
    }
}

#[test]
fn fractions_of_epochs_may_be_a_little_off() {
    // Three times 0.1 is more than 0.3 in binary.
    let pruner = "pruner: {type: asha, reduction_factor: 3, min_budget: {epochs: 0.1}}";
    let text = MINIMAL.replace("{epochs: 2.5}", "{epochs: 0.3}")
        + "hyperparameters: {dropout: {min: 0, max: 0.1}}\n"
        + &format!("searcher: {{metric: loss, max_trials: 3, {pruner}}}\n");
    assert_eq!(answer(&text), "accepted");
}

#[test]
fn names_stay_names_and_quoted_numbers_are_text() {
    let label = |names: &str| {
        let text = MINIMAL
            .replace("{column: label}", &format!("{{column: label, names: [{names}]}}"))
            .replace("text: text", "text: \"2\"")
            .replace("one", "\"1e3\"");
        let manifest = Manifest::parse(&text).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.data.text.as_str()), ("1e3", "2"));
        match manifest.data.label {
            Some(LabelRule::Class { names, .. }) => names.unwrap(),
            _ => Vec::new(),
        }
    };
    assert_eq!(label("no, yes"), ["no", "yes"]);
    assert_eq!(label("off, on, true, 'null'"), ["off", "on", "true", "null"]);
    assert_eq!(
        label("0, 1.0, \"2\", 1_000, 0x1F, .inf"),
        ["0", "1.0", "2", "1_000", "0x1F", ".inf"]
    );
    assert_eq!(label("\"a: b\", 'it''s'"), ["a: b", "it's"]);
}

#[test]
fn mistakes_are_named_with_line_path_and_mend() {
    let refusals = refusals();
    assert!(refusals.len() >= 100, "only {} refusals were found", refusals.len());
    let wrong: Vec<String> = refusals
        .iter()
        .map(|refusal| (refusal, answer(&refusal.manifest)))
        .filter(|(refusal, answer)| refusal.expected != *answer)
        .map(|(Refusal { line, expected, .. }, answer)| {
            format!("refusals.txt:{line}\nexpected:\n{expected}\nfound:\n{answer}\n")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mistake_is_reported_in_the_order_of_lines() {
    let text = FULL
        .replace("seed: 42", "seed: x")
        .replace("max_length", "max_lenght")
        .replace("    path: test.csv", "    path: test")
        .replace("  dropout: {min: 0, max: 0.3}", "  dropout: 2")
        .replace("max_restarts: 0", "max_restarts: 0\nmax_restarts: 1\nbudgte: 3")
        .replace("version: 1\n", "");
    let issues = Manifest::parse(&text).unwrap_err().issues;
    let found: Vec<(usize, &str)> =
        issues.iter().map(|issue| (issue.line, issue.path.as_str())).collect();
    let expected = [
        (1, "version"),
        (3, "seed"),
        (6, "model.max_lenght"),
        (17, "data.test.path"),
        (28, "hyperparameters.dropout"),
        (58, ""),
        (59, "budgte"),
    ];
    assert_eq!(found, expected);
    assert_eq!(issues[2].mend.as_deref(), Some("did you mean `max_length`?"));
}

#[test]
fn texts_that_grow_without_end_are_refused_soon() {
    let long = "x".repeat(1 << 19);
    let aliases = format!("{MINIMAL}description: &a {long}\nlist: [{}]\n", "*a, ".repeat(5000));
    assert!(answer(&aliases).contains("bytes: this is no manifest"), "aliases");
    let size = 1 << 20;
    assert!(answer(&"x".repeat(size + 1)).contains("bytes: this is no manifest"));
    for piece in [
        "- ", "[", "{", "a: ", "a:\n", "&a ", "*a ", "? ", "!!a ", "'", "\"", "|\n", "# ", "\t",
        ",", "a b\n",
    ] {
        assert_ne!(answer(&piece.repeat(size / piece.len())), "accepted", "{piece:?}");
    }
}

#[test]
fn the_examples_are_legal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(answer(&text), "accepted", "{}", path.display());
            found += 1;
        }
    }
    assert!(found >= 3, "only {found} examples were found");
}

#[test]
fn what_is_frozen_and_drawn_anew_is_read() {
    let model = "  pretrained: models/minilm\n  max_length: 64\n  reinitialize_layers: 2\n";
    let text = FULL
        .replace("  pretrained: models/minilm\n  max_length: 64\n", model)
        .replace("    layers: 3\n", "    patterns: [\"*.bias\", bert.pooler.*]\n");
    let settings = Manifest::parse(&text).unwrap().model;
    assert_eq!(settings.freeze_patterns, ["*.bias", "bert.pooler.*"]);
    assert_eq!((settings.freeze_layers, settings.reinitialize_layers), (0, 2));
    assert!(settings.freezes());
    // As journaled before there were these keys.
    let old = r#"{"pretrained":"m","max_length":8,"freeze_embeddings":false,"freeze_layers":0}"#;
    let old: ModelSettings = serde_json::from_str(old).unwrap();
    assert!(!old.freezes() && old.reinitialize_layers == 0);
}

#[test]
fn what_is_kept_is_read_and_old_journals_keep_what_they_did() {
    let section = "checkpoint: {every_steps: 5, keep_last: 3, keep_best: 4, keep_every_steps: 100, shard_mib: 0}\n";
    let manifest = Manifest::parse(&format!("{MINIMAL}{section}")).unwrap();
    let wanted = CheckpointSettings {
        every_steps: Some(5),
        keep_last: 3,
        keep_best: 4,
        keep_every_steps: Some(100),
        shard_mib: 0,
    };
    assert_eq!(manifest.checkpoint, wanted);
    assert_round_trip(&manifest);
    for (wrong, word) in
        [("keep_best: 0", "1 to 1000000"), ("keep_evry_steps: 1", "keep_every_steps")]
    {
        let refused = Manifest::parse(&format!("{MINIMAL}checkpoint: {{{wrong}}}\n")).unwrap_err();
        assert!(refused.to_string().contains(word), "{refused}");
    }
    let old: CheckpointSettings =
        serde_json::from_str(r#"{"every_steps": null, "keep_last": 2}"#).unwrap();
    assert_eq!(old, CheckpointSettings::DEFAULT);
}

#[test]
fn a_model_of_the_hub_is_no_input() {
    let base = tempfile::tempdir().unwrap();
    let read = |pretrained: &str| {
        let text = FULL.replace("models/minilm", pretrained);
        let mut manifest = Manifest::parse(&text).unwrap();
        manifest.rebase(base.path());
        manifest
    };
    let named =
        |manifest: &Manifest| manifest.inputs().iter().any(|(name, _)| *name == "model.pretrained");
    let hub = read("org/name@v1");
    assert_eq!(hub.model.hub_name().unwrap().to_string(), "org/name@v1");
    assert!(!named(&hub));
    // A directory that is there is not looked for on a hub, and neither is what can only be a path.
    std::fs::create_dir_all(base.path().join("org/name")).unwrap();
    for path in ["org/name", "./org/other", "a/b/c"] {
        let manifest = read(path);
        assert_eq!(manifest.model.hub_name(), None);
        assert_eq!(manifest.model.pretrained, base.path().join(path).display().to_string());
        assert!(named(&manifest));
    }
}

#[test]
fn the_reference_lists_every_hyperparameter() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/README.md");
    let reference = std::fs::read_to_string(reference).unwrap();
    for spec in HYPERPARAMETERS {
        let kind = match spec.kind {
            HyperparameterKind::Int => "whole",
            HyperparameterKind::Float => "real",
            HyperparameterKind::Category => "word",
        };
        let default = match (spec.default, spec.kind) {
            (Some(default), _) => format!("{default:?}"),
            (None, HyperparameterKind::Category) => format!("that of `training.{}`", spec.name),
            (None, _) => "the model's own".to_owned(),
        };
        let default = default.strip_suffix(".0").unwrap_or(&default);
        let row = format!("| `{}` | {kind} | {default} | {} |", spec.name, spec.range());
        assert!(reference.contains(&row), "configs/README.md lacks: {row}");
    }
}

/// What JSON keeps of `manifest` must be the same manifest, to the bits of its floats.
fn assert_round_trip(manifest: &Manifest) {
    let round_trip = |manifest: &Manifest| -> serde_json::Result<(String, Manifest)> {
        let json = serde_json::to_string(manifest)?;
        let back = serde_json::from_str(&json)?;
        Ok((json, back))
    };
    let back = round_trip(manifest).and_then(|(json, back)| Ok((json, round_trip(&back)?.0, back)));
    match back {
        Ok((json, again, back)) => {
            assert_eq!(&back, manifest);
            // Equal floats can differ in bits; the text tells.
            assert_eq!(again, json);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_journaled_manifest_is_the_same() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/demo.yaml");
    for text in [FULL, MINIMAL, &std::fs::read_to_string(demo).unwrap()] {
        assert_round_trip(&Manifest::parse(text).unwrap());
    }
}

/// Pieces that YAML and manifests are made of.
fn piece() -> impl Strategy<Value = String> {
    let known = FULL.lines().map(|line| format!("{line}\n")).collect::<Vec<_>>();
    let marks = [
        "- ", ": ", "{", "}", "[", "]", ", ", "&a ", "*a ", "!", "|\n", ">\n", "'", "\"", "#",
        "\t", "\n", "---\n", "~", "nan", "1e9",
    ];
    prop_oneof![
        proptest::sample::select(known),
        proptest::sample::select(marks.to_vec()).prop_map(str::to_owned),
        ".{0,4}",
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), pieces in proptest::collection::vec(piece(), 0..40)) {
        for text in [text, pieces.concat()] {
            if let Err(error) = Manifest::parse(&text) {
                prop_assert!(!error.issues.is_empty());
                // YAML counts a lone carriage return as a line end too.
                let last = text.split(['\n', '\r']).count() + 1;
                for issue in error.issues {
                    prop_assert!((1..=last).contains(&issue.line), "{issue} of {last}");
                    prop_assert!(!issue.to_string().contains(char::is_control), "{issue:?}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_manifest_is_read_or_refused(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (index, byte, edit) in edits {
            let at = index.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(manifest) = Manifest::parse(&String::from_utf8_lossy(&bytes)) {
            assert_round_trip(&manifest);
        }
    }

    #[test]
    fn numbers_arrive_bit_for_bit(seed: u64, rate in 1e-9f64..1.0, epochs in 1e-6f64..1e6, restarts in 0u32..=1000) {
        let text = MINIMAL.replace("2.5", &format!("{epochs:?}"))
            + &format!("seed: {seed}\nmax_restarts: {restarts}\nhyperparameters: {{learning_rate: {rate:?}}}\n");
        let manifest = Manifest::parse(&text).unwrap();
        prop_assert_eq!((manifest.seed, manifest.max_restarts), (Seed(seed), restarts));
        prop_assert_eq!(manifest.budget.amount().to_bits(), epochs.to_bits());
        let rate_domain = Domain::Constant(ParameterValue::Float(rate));
        prop_assert_eq!(manifest.hyperparameters.get("learning_rate"), Some(&rate_domain));
        assert_round_trip(&manifest);
    }
}
