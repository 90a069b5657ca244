//! Files of the forms that the three projects publish, with what is made of them.

use std::path::{Path, PathBuf};

use muster_common::manifest::Manifest;
use proptest::prelude::*;

use super::*;

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/import");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_sample = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".yaml") && !name.ends_with(".muster.yaml")
    };
    let mut samples: Vec<PathBuf> = entries.filter(is_sample).collect();
    samples.sort();
    samples
}

fn known() -> Known {
    Known {
        model: Some("models/minilm".to_owned()),
        data: Some("reviews.csv".to_owned()),
        text: Some("review".to_owned()),
        label: Some("stars \"1\"".to_owned()),
    }
}

#[test]
fn own_manifests_and_foreign_files_are_told_apart() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(foreign(&text).is_some(), "{}", path.display());
        let made = std::fs::read_to_string(path.with_extension("muster.yaml")).unwrap();
        assert_eq!(foreign(&made), None, "{}", path.display());
        assert_eq!(import(&made, None, &Known::default()), Err(ImportError::Own));
    }
    // A manifest with a section missing is still meant as one.
    assert_eq!(foreign("version: 1\nsearcher: {metric: loss}\nhyperparameters: {}\n"), None);
    assert_eq!(foreign("searcher: {metric: loss}\n"), None);
    assert_eq!(foreign("not: [yaml"), None);
}

#[test]
fn samples_become_what_is_kept_beside_them() {
    let samples = samples();
    assert!(samples.len() >= 6, "{samples:?}");
    for path in samples {
        let text = std::fs::read_to_string(&path).unwrap();
        let imported = import(&text, None, &Known::default()).unwrap();
        let golden = path.with_extension("muster.yaml");
        if std::env::var_os("MUSTER_BLESS").is_some() {
            std::fs::write(&golden, &imported.text).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(imported.text, expected, "{}; `make bless` renews it", golden.display());
        assert!(!imported.left_out.is_empty(), "{}", path.display());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let dialect = match imported.dialect {
            Dialect::Determined => "determined_",
            Dialect::Wandb => "wandb_",
            Dialect::Katib => "katib_",
        };
        assert!(name.starts_with(dialect), "{name} was taken for {}", imported.dialect);
        assert!(Manifest::parse(&imported.text).is_err(), "model and data are to be filled in");
    }
}

#[test]
fn with_model_and_data_they_are_legal() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let imported = import(&text, None, &known()).unwrap();
        let manifest = Manifest::parse(&imported.text);
        assert!(
            manifest.is_ok(),
            "{}: {}\n{}",
            path.display(),
            manifest.unwrap_err(),
            imported.text
        );
    }
}

/// Puts a key that no system has into the mapping before which so many others stand, and says where that is.
fn add_strange(node: &mut Node, path: &str, before: &mut usize) -> Option<String> {
    match &mut node.kind {
        NodeKind::Scalar { .. } => None,
        NodeKind::Sequence(items) => items
            .iter_mut()
            .enumerate()
            .find_map(|(index, item)| add_strange(item, &format!("{path}[{index}]"), before)),
        NodeKind::Mapping(entries) => {
            let below = |key: &str| {
                if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
            };
            if *before == 0 {
                let kind = NodeKind::Scalar { text: "x".to_owned(), quoted: false };
                let value = Node { line: 1, kind };
                let key = "strange".to_owned();
                entries.push(muster_common::manifest::Entry { key, line: 1, value });
                return Some(below("strange"));
            }
            *before -= 1;
            entries
                .iter_mut()
                .find_map(|entry| add_strange(&mut entry.value, &below(&entry.key), before))
        }
    }
}

#[test]
fn keys_that_nobody_knows_are_named_at_every_level() {
    for path in samples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let root = parse_yaml(&text).unwrap().unwrap();
        let mut num_mappings = 0;
        loop {
            let mut changed = root.clone();
            let mut before = num_mappings;
            let Some(expected) = add_strange(&mut changed, "", &mut before) else { break };
            num_mappings += 1;
            let imported = import(&changed.value().to_string(), None, &Known::default()).unwrap();
            let names = |remark: &Remark| {
                let rest = expected.strip_prefix(&remark.path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let named = imported.left_out.iter().any(names);
            assert!(named, "{}: {expected}: {:?}", path.display(), imported.left_out);
        }
        assert!(num_mappings > 5, "{}: only {num_mappings} mappings", path.display());
    }
}

/// What becomes of a file: its lines, and the paths of what is left out.
fn made(text: &str) -> (String, Vec<String>) {
    let imported = import(text, None, &known()).unwrap();
    if let Err(error) = Manifest::parse(&imported.text) {
        panic!("{error}\n{}", imported.text);
    }
    let left_out = imported.left_out.into_iter().map(|remark| remark.path).collect();
    (imported.text, left_out)
}

#[test]
fn steps_of_a_sweep_are_kept_or_named() {
    for (parameter, line, left_out) in [
        (
            "batch_size: {distribution: q_uniform, min: 8, max: 256, q: 8}",
            "global_batch_size: {min: 8, max: 256, step: 8}",
            "",
        ),
        // W&B rounds to multiples: 5 would be 0, which is no batch.
        ("batch_size: {distribution: q_uniform, min: 5, max: 256, q: 16}", "", ""),
        (
            "batch_size: {distribution: q_uniform, min: 9, max: 250, q: 16}",
            "global_batch_size: {min: 16, max: 256, step: 16}",
            "",
        ),
        (
            "batch_size: {distribution: q_log_uniform_values, min: 8, max: 128, q: 8}",
            "global_batch_size: {min: 8, max: 128, scale: log, step: 8}",
            "",
        ),
        (
            "batch_size: {distribution: q_uniform, min: 8, max: 64}",
            "global_batch_size: {min: 8, max: 64}",
            "",
        ),
        (
            "batch_size: {min: 8, max: 64, q: 8}",
            "global_batch_size: {min: 8, max: 64}",
            "parameters.batch_size.q",
        ),
        (
            "batch_size: {min: 8, max: 64, mu: 3}",
            "global_batch_size: {min: 8, max: 64}",
            "parameters.batch_size.mu",
        ),
        (
            "dropout: {distribution: q_uniform, min: 0.2, max: 0.3, q: 0.1}",
            "dropout: {values: [0.2, 0.3]}",
            "",
        ),
        (
            "dropout: {distribution: q_uniform, min: 0.1, max: 0.5, q: 0.1}",
            "dropout: {min: 0.1, max: 0.5, step: 0.1}",
            "",
        ),
        ("dropout: {distribution: q_log_uniform_values, min: 0.1, max: 0.5, q: 0.1}", "", ""),
        ("max_grad_norm: {min: 1, max: 5}", "max_grad_norm: {min: 1, max: 5, step: 1}", ""),
        ("max_grad_norm: {min: 1.0, max: 5.0}", "max_grad_norm: {min: 1, max: 5}", ""),
        (
            "dropout: {distribution: categorical, values: [0, 0.1]}",
            "dropout: {values: [0, 0.1]}",
            "",
        ),
    ] {
        let rate = "learning_rate: {min: 1.0e-5, max: 1.0e-4}";
        let (text, found) =
            made(&format!("method: random\nparameters:\n  {rate}\n  {parameter}\n"));
        let (name, _) = parameter.split_once(':').unwrap();
        let whole = format!("parameters.{name}");
        let expected = match (line.is_empty(), left_out.is_empty()) {
            (true, _) => vec![whole],
            (false, true) => Vec::new(),
            (false, false) => vec![left_out.to_owned()],
        };
        assert_eq!(found, expected, "{parameter}\n{text}");
        let has = |found: &str| found.trim().split(" # ").next() == Some(line);
        assert!(line.is_empty() || text.lines().any(has), "{parameter}\n{text}");
    }
}

#[test]
fn words_are_kept_or_named() {
    let wandb = |parameter: &str| {
        format!(
            "method: random\nmetric: {{name: loss, goal: minimize}}\nrun_cap: 4\nparameters:\n  \
             lr: {{min: 0.00001, max: 0.001}}\n  {parameter}\n"
        )
    };
    let cases = [
        ("scheduler: {values: [linear, cosine]}", "  schedule: {values: [linear, cosine]}"),
        ("lr_scheduler_type: {value: constant_with_warmup}", "  schedule: constant #"),
        ("mixed_precision: {values: ['no', bf16]}", "  precision: {values: [float32, bfloat16]}"),
        ("precision: {values: [16, 32]}", "  precision: {values: [float16, float32]}"),
        ("use_ema: {values: [true, false]}", "  average: {values: [ema, none]}"),
        (
            "class_weights: {values: [equal, balanced]}",
            "  class_weights: {values: [equal, balanced]}",
        ),
    ];
    for (parameter, line) in cases {
        let (text, left_out) = made(&wandb(parameter));
        assert!(text.contains(line), "{parameter}\n{text}");
        assert!(left_out.iter().all(|path| !path.starts_with("parameters")), "{left_out:?}");
    }
    // What nobody here knows is left out as a whole, with the words that there are.
    let cases = [
        (
            "scheduler: {values: [cosine, one_cycle]}",
            "`one_cycle` is not known: schedule is one of",
        ),
        ("scheduler: {min: 1, max: 5}", "words have no range"),
        ("precision: {values: [bf16, bfloat16]}", "both `bfloat16`"),
        ("dropout: {values: [low, high]}", "its values are not numbers"),
        ("dropout: {value: low}", "its value is not a number"),
        ("optimizer: {values: [adam, sgd]}", "no hyperparameter of Muster"),
    ];
    for (parameter, words) in cases {
        let imported = import(&wandb(parameter), None, &known()).unwrap();
        let name = format!("parameters.{}", parameter.split(':').next().unwrap_or_default());
        let remark = imported.left_out.iter().find(|remark| remark.path == name);
        assert!(remark.is_some_and(|remark| remark.reason.contains(words)), "{parameter}");
        assert!(Manifest::parse(&imported.text).is_ok(), "{}", imported.text);
    }
    let low = "method: random\nmetric: {name: loss, goal: minimize}\nrun_cap: 4\nparameters:\n  \
               lr: {min: 0.00000001, max: 0.001}\n  scheduler: {values: [linear, polynomial]}\n";
    let (_, left_out) = made(low);
    assert!(left_out.contains(&"parameters.scheduler".to_owned()), "{left_out:?}");
    let determined = "searcher: {name: random, metric: accuracy, max_trials: 9, max_length: {batches: 64}}\n\
                      hyperparameters:\n  scheduler: {type: categorical, vals: [linear, cosine]}\n  \
                      precision: {type: const, val: bf16}\n  average: ema\n";
    let text = import(determined, Some(Dialect::Determined), &known()).unwrap().text;
    assert!(Manifest::parse(&text).is_ok(), "{text}");
    for line in ["schedule: {values: [linear, cosine]}", "precision: bfloat16", "average: ema"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // What a schedule is made of is no hyperparameter that has a type.
    let group = "searcher: {name: random, metric: accuracy, max_trials: 9, max_length: {batches: 64}}\n\
                 hyperparameters:\n  lr: {type: log, minval: -5, maxval: -3}\n  \
                 lr_scheduler: {type: step, warmup_steps: 7}\n";
    let text = import(group, Some(Dialect::Determined), &known()).unwrap().text;
    assert!(text.contains("  warmup_steps: 7\n"), "{text}");
    let katib = population(
        "{name: scheduler, parameterType: categorical, feasibleSpace: {list: [linear, cosine]}}",
        16,
    );
    let (text, _) = made(&katib);
    assert!(text.contains("  schedule: {values: [linear, cosine]}"), "{text}");
}

#[test]
fn a_note_about_a_pruner_goes_with_the_pruner() {
    let sweep = |iterations: u32| {
        let early = format!("early_terminate: {{type: hyperband, min_iter: {iterations}}}");
        let text = format!("method: random\nparameters: {{lr: {{min: 0.1, max: 0.5}}}}\n{early}\n");
        import(&text, None, &known()).unwrap()
    };
    let (kept, dropped) = (sweep(1), sweep(30));
    let notes = |imported: &Imported| {
        imported.assumed.iter().filter(|remark| remark.path == "searcher.pruner").count()
    };
    assert!(kept.text.contains("asha_stopping") && notes(&kept) == 1, "{}", kept.text);
    assert!(!dropped.text.contains("asha_stopping") && notes(&dropped) == 0, "{}", dropped.text);
    assert_eq!(dropped.left_out[0].path, "early_terminate");
}

fn population(parameter: &str, num_trials: u32) -> String {
    format!(
        "apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {{name: pbt}}
spec:
  objective: {{type: maximize, objectiveMetricName: accuracy}}
  algorithm:
    algorithmName: pbt
    algorithmSettings:
      - {{name: suggestion_trial_dir, value: /opt/katib/data}}
      - {{name: n_population, value: \"8\"}}
      - {{name: truncation_threshold, value: \"0.25\"}}
      - {{name: resample_probability, value: \"0.1\"}}
  maxTrialCount: {num_trials}
  parameters:
    - {parameter}
    - {{name: epochs, parameterType: discrete, feasibleSpace: {{list: [\"2\"]}}}}
"
    )
}

#[test]
fn words_that_do_not_go_with_a_population_are_left_out() {
    let list = |name: &str, values: &str| {
        format!("{{name: {name}, parameterType: categorical, feasibleSpace: {{list: [{values}]}}}}")
    };
    let decay = list("layer_decay", "\"0.8\", \"0.9\"");
    for (words, is_kept) in [("bf16, fp32", true), ("bf16, fp16", false)] {
        let precision = list("mixed_precision", words);
        let (text, left_out) = made(&population(&format!("{decay}\n    - {precision}"), 40));
        assert!(text.contains("pruner: {type: population"), "{text}");
        assert_eq!(text.contains("  precision: {values: [bfloat16, float32]}"), is_kept, "{text}");
        assert_eq!(left_out.iter().any(|path| path == "spec.parameters[1]"), !is_kept);
    }
}

#[test]
fn generations_of_katib_become_a_population() {
    let rate = "{name: lr, parameterType: double, feasibleSpace: {min: \"0.0001\", max: \"0.01\"}}";
    let (text, left_out) = made(&population(rate, 40));
    for line in [
        "  pruner: {type: population, every: {epochs: 2}, quantile: 0.25, resample_probability: 0.1}",
        "  sampler: random",
        "  max_trials: 8",
        "budget: {epochs: 10}",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(left_out, ["spec.algorithm.algorithmSettings[0]"]);
    // One generation compares nobody, and nothing changes on the way that is laid out before.
    let batch = "{name: batch-size, parameterType: int, feasibleSpace: {min: \"8\", max: \"64\", step: \"8\"}}";
    for (text, trials) in [(population(rate, 8), 8), (population(batch, 40), 40)] {
        let (text, left_out) = made(&text);
        assert_eq!(left_out, ["spec.algorithm"], "{text}");
        assert!(text.contains(&format!("  max_trials: {trials}\n")), "{text}");
        assert!(text.contains("budget: {epochs: 2}\n") && !text.contains("type: population"));
    }
    let (text, _) = made(&population(batch, 40));
    assert!(text.contains("  global_batch_size: {min: 8, max: 64, step: 8} #"), "{text}");
}

#[test]
fn groups_and_brackets_of_determined_are_not_overlooked() {
    let file = |searcher: &str, optimizer: &str| {
        let text = format!(
            "searcher: {{name: adaptive_asha, metric: accuracy, max_trials: 9, max_length: {{batches: 4096}}{searcher}}}
hyperparameters:
  dropout: {{type: double, minval: 0.1, maxval: 0.3, count: 3}}
  optimizer: {optimizer}
"
        );
        import(&text, Some(Dialect::Determined), &known()).unwrap()
    };
    let paths =
        |remarks: &[Remark]| remarks.iter().map(|remark| remark.path.clone()).collect::<Vec<_>>();
    let plain = "{kind: 1, lr: {type: log, minval: -5, maxval: -3}}";
    // Several brackets are the default there.
    assert_eq!(paths(&file("", plain).assumed), ["searcher.pruner"]);
    assert!(file(", mode: aggressive", plain).assumed.is_empty());
    let conservative = file(", mode: conservative", plain);
    let expected =
        ["searcher.mode", "hyperparameters.dropout.count", "hyperparameters.optimizer.kind"];
    assert_eq!(paths(&conservative.left_out), expected);
    // A group with a type of its own is still a group.
    for group in [
        "{type: adam, lr: {type: log, minval: -5, maxval: -3}}",
        "{type: categorical, vals: [adam, sgd], lr: {type: log, minval: -5, maxval: -3}}",
    ] {
        let imported = file("", group);
        let line = "  learning_rate: {min: 1e-5, max: 0.001, scale: log} # ";
        assert!(imported.text.contains(line), "{}", imported.text);
        assert!(paths(&imported.left_out).contains(&"hyperparameters.optimizer.type".to_owned()));
    }
    let groups = "{type: categorical, vals: [{name: adam, lr: {type: log, minval: -5, maxval: -3}}, {name: sgd}]}";
    let imported = file("", groups);
    let remark = imported.left_out.iter().find(|remark| remark.path == "hyperparameters.optimizer");
    assert!(remark.unwrap().reason.contains("`lr`"), "{:?}", imported.left_out);
}

#[test]
fn what_it_is_can_be_said_and_is_asked_for_otherwise() {
    let text = "method: random\nparameters: {lr: {min: 1.0e-5, max: 1.0e-4}}\n";
    assert_eq!(import(text, None, &Known::default()).unwrap().dialect, Dialect::Wandb);
    assert_eq!(import("a: 1\n", None, &Known::default()), Err(ImportError::Unknown));
    let forced = import("a: 1\n", Some(Dialect::Determined), &known()).unwrap();
    assert_eq!(forced.left_out.len(), 1);
    assert!(Manifest::parse(&forced.text).is_ok(), "{}", forced.text);
}

/// What may stand there.
const VALUES: [&str; 26] = [
    "0",
    "1",
    "-1",
    "1e-5",
    "1e400",
    "nan",
    "inf",
    "16",
    "\"0.1\"",
    "log",
    "double",
    "int",
    "grid",
    "hyperband",
    "medianstop",
    "categorical",
    "log_uniform",
    "q_uniform",
    "q_log_uniform_values",
    "pbt",
    "maximize",
    "loss",
    "accuracy",
    "\"a\\nb: c\"",
    "adaptive_asha",
    "99999999999999999999",
];

/// Keys of the three systems.
const KEYS: [&str; 42] = [
    "name",
    "scheduler",
    "precision",
    "searcher",
    "hyperparameters",
    "max_length",
    "batches",
    "epochs",
    "type",
    "minval",
    "maxval",
    "vals",
    "base",
    "count",
    "divisor",
    "max_rungs",
    "metric",
    "method",
    "parameters",
    "values",
    "value",
    "min",
    "max",
    "distribution",
    "q",
    "early_terminate",
    "min_iter",
    "eta",
    "spec",
    "objective",
    "algorithm",
    "algorithmName",
    "algorithmSettings",
    "feasibleSpace",
    "list",
    "step",
    "lr",
    "batch_size",
    "max_trials",
    "run_cap",
    "goal",
    "mode",
];

/// YAML that looks like what is imported: known keys, any values.
fn document() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(VALUES.to_vec()).prop_map(str::to_owned);
    scalar.prop_recursive(5, 60, 6, |inner| {
        let key = prop::sample::select(KEYS.to_vec());
        let pairs = prop::collection::btree_map(key, inner.clone(), 0..6);
        let mapping = pairs.prop_map(|pairs| {
            let pairs: Vec<String> =
                pairs.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", pairs.join(", "))
        });
        let list =
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![3 => mapping, 1 => list]
    })
}

proptest! {
    #[test]
    fn any_text_is_imported_or_refused(text in ".{0,300}") {
        for dialect in [Dialect::Determined, Dialect::Wandb, Dialect::Katib] {
            let _refused = import(&text, Some(dialect), &Known::default());
        }
    }

    #[test]
    fn whatever_stands_in_a_file_gives_a_legal_manifest(text in document()) {
        for dialect in [Dialect::Determined, Dialect::Wandb, Dialect::Katib] {
            let Ok(imported) = import(&text, Some(dialect), &known()) else { continue };
            let manifest = Manifest::parse(&imported.text);
            prop_assert!(manifest.is_ok(), "{}\n{}", manifest.unwrap_err(), imported.text);
        }
    }
}
