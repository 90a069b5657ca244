//! The sections of a manifest, in the order of the reference.

use serde_json::{Value, json};

use super::super::settings::{HYPERPARAMETERS, HyperparameterKind, HyperparameterSpec};
use super::super::{MANIFEST_VERSION, PRIORITY_MAX, TrainingObjective};
use super::{Rows, choice, definition, list, one_of, real, section, text, truth, whole};
use crate::goal::OBJECTIVES_MAX;
use crate::manifest::section::{BUDGET_MAX, EPOCHS_MAX, EPOCHS_MIN, LENGTH_MAX};
use crate::objective::ObjectiveMetric;

/// Most trials and the like.
const COUNT_MAX: u64 = 1_000_000;

/// Builds the mapping at `path`, each key with what the reference says of it.
struct Keys<'a> {
    rows: &'a Rows,
    path: &'static str,
    properties: Vec<(&'static str, bool, Value)>,
}

impl<'a> Keys<'a> {
    fn of(rows: &'a Rows, path: &'static str) -> Self {
        Self { rows, path, properties: Vec::new() }
    }

    fn key(mut self, key: &'static str, required: bool, schema: Value) -> Self {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.properties.push((key, required, self.rows.describe(&path, schema)));
        self
    }

    /// A key whose absence is a mistake.
    fn must(self, key: &'static str, schema: Value) -> Self {
        self.key(key, true, schema)
    }

    fn may(self, key: &'static str, schema: Value) -> Self {
        self.key(key, false, schema)
    }

    /// A mapping of one kind, told apart by `type`.
    fn typed(rows: &'a Rows, path: &'static str, names: &[&str]) -> Self {
        Self::of(rows, path).must("type", choice(names))
    }

    fn end(self) -> Value {
        section(self.properties)
    }
}

pub(super) fn manifest(rows: &Rows) -> Value {
    let objectives = TrainingObjective::NAMES.map(|(name, _)| name);
    let unlabeled: Vec<&str> = objectives.into_iter().skip(1).collect();
    let mut schema = Keys::of(rows, "")
        .must("version", json!({"const": MANIFEST_VERSION}))
        .must("name", name())
        .may("description", text())
        .may("project", name())
        .may("seed", whole(0, u64::MAX))
        .must("model", model(rows))
        .may("objective", choice(&objectives))
        .must("data", data(rows))
        .may("hyperparameters", definition("hyperparameters"))
        .may("searcher", searcher(rows))
        .must("budget", definition("budget"))
        .may("continue_from", continue_from(rows))
        .may("checkpoint", checkpoint(rows))
        .may("resources", resources(rows))
        .may("limits", limits(rows))
        .may("max_restarts", whole(0, 1000))
        .may("training", training(rows))
        .may("evaluation", Keys::of(rows, "evaluation").may("ordered", truth()).end())
        .end();
    let labeled = json!({
        "if": {"properties": {"objective": {"enum": unlabeled}}, "required": ["objective"]},
        "then": {"properties": {"data": {"properties": {"label": {"type": "null"}}}}},
        "else": {"properties": {"data": {
            "required": ["label"], "properties": {"label": {"type": "object"}},
        }}},
    });
    if let Some(object) = schema.as_object_mut() {
        object.insert("allOf".to_owned(), json!([labeled]));
    }
    schema
}

pub(super) fn definitions(rows: &Rows) -> Value {
    let budget = json!({
        "type": "object",
        "properties": {
            "steps": rows.describe("steps", whole(1, BUDGET_MAX)),
            "examples": rows.describe("examples", whole(1, BUDGET_MAX)),
            "epochs": rows.describe("epochs", real(EPOCHS_MIN, EPOCHS_MAX)),
        },
        "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
    });
    let space = |with_domains: bool| {
        let one = |spec: &HyperparameterSpec| {
            let values = if with_domains { domain(spec) } else { value(spec) };
            (spec.name.to_owned(), rows.describe(spec.name, values))
        };
        let properties: serde_json::Map<String, Value> = HYPERPARAMETERS.iter().map(one).collect();
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    };
    json!({
        "budget": budget,
        "hyperparameters": space(true),
        "point": space(false),
        "files": files(rows),
        "hub": hub(rows),
        "metric": choice(&ObjectiveMetric::ALL.map(ObjectiveMetric::name)),
    })
}

fn name() -> Value {
    json!({"type": ["string", "integer"], "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"})
}

fn model(rows: &Rows) -> Value {
    let head = section(vec![("head", true, whole(1, LENGTH_MAX.into()))]);
    let freeze = Keys::of(rows, "model.freeze")
        .may("embeddings", truth())
        .may("layers", whole(0, 1000))
        .may("patterns", list(json!({"type": "string", "pattern": "^[A-Za-z0-9._*?]+$"}), 1))
        .end();
    Keys::of(rows, "model")
        .must("pretrained", text())
        .may("max_length", whole(8, LENGTH_MAX.into()))
        .may("truncation", one_of(vec![choice(&["head", "tail", "head_tail"]), head]))
        .may("freeze", freeze)
        .may("reinitialize_layers", whole(0, 1000))
        .end()
}

fn files(rows: &Rows) -> Value {
    let formats = ["csv", "tsv", "jsonl", "parquet", "text", "glue", "aclimdb"];
    Keys::of(rows, "")
        .must("path", one_of(vec![text(), list(text(), 1)]))
        .may("format", choice(&formats))
        .may("columns", list(text(), 1))
        .end()
}

fn hub(rows: &Rows) -> Value {
    Keys::of(rows, "").must("hub", text()).may("config", text()).may("split", text()).end()
}

fn data(rows: &Rows) -> Value {
    let source = || vec![definition("files"), definition("hub")];
    let share = json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1});
    let count = section(vec![("examples", true, whole(1, BUDGET_MAX))]);
    let fraction = section(vec![("fraction", true, rows.describe("fraction", share))]);
    let holdout = || {
        let mut variants = source();
        variants.extend([count.clone(), fraction.clone()]);
        one_of(variants)
    };
    Keys::of(rows, "data")
        .must("train", one_of(source()))
        .must("validation", holdout())
        .may("test", holdout())
        .must("text", text())
        .may("text_pair", text())
        .may("label", label(rows))
        .may("hygiene", hygiene(rows))
        .end()
}

fn label(rows: &Rows) -> Value {
    let mut range = section(vec![
        ("name", true, text()),
        ("above", false, json!({"type": "number"})),
        ("below", false, json!({"type": "number"})),
    ]);
    if let Some(object) = range.as_object_mut() {
        object.insert("minProperties".to_owned(), json!(2));
    }
    let mut label = Keys::of(rows, "data.label")
        .must("column", text())
        .may("names", list(text(), 2))
        .may("ranges", list(range, 2))
        .end();
    if let Some(object) = label.as_object_mut() {
        object.insert("not".to_owned(), json!({"required": ["names", "ranges"]}));
    }
    label
}

fn hygiene(rows: &Rows) -> Value {
    let any = || choice(&["keep", "drop", "refuse"]);
    let gone = || choice(&["drop", "refuse"]);
    Keys::of(rows, "data.hygiene")
        .may("duplicates", any())
        .may("leaks", any())
        .may("near_leaks", any())
        .may("near_duplicates", choice(&["together", "ignore"]))
        .may("empty", gone())
        .may("unknown_labels", gone())
        .may("bad_utf8", any())
        .end()
}

/// One value of a hyperparameter.
fn value(spec: &HyperparameterSpec) -> Value {
    match spec.kind {
        HyperparameterKind::Float => real(spec.min, spec.max),
        HyperparameterKind::Int => {
            // The bounds of whole numbers are whole.
            let mut schema = whole(0, 0);
            schema["minimum"] = json!(spec.min);
            schema["maximum"] = json!(spec.max);
            schema
        }
        HyperparameterKind::Category => {
            choice(&spec.categories.iter().map(|category| category.name()).collect::<Vec<_>>())
        }
    }
}

fn domain(spec: &HyperparameterSpec) -> Value {
    let when = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "propertyNames": {"enum": HYPERPARAMETERS.iter().map(|spec| spec.name).collect::<Vec<_>>()},
    });
    let values =
        section(vec![("values", true, list(value(spec), 1)), ("when", false, when.clone())]);
    let step = match spec.kind {
        HyperparameterKind::Float => json!({"type": "number", "exclusiveMinimum": 0}),
        HyperparameterKind::Int => json!({"type": "integer", "minimum": 1}),
        HyperparameterKind::Category => return one_of(vec![value(spec), values]),
    };
    let range = vec![
        ("min", true, value(spec)),
        ("max", true, value(spec)),
        ("scale", false, choice(&["linear", "log"])),
        ("when", false, when),
        ("step", false, step),
    ];
    one_of(vec![value(spec), values, section(range)])
}

fn searcher(rows: &Rows) -> Value {
    let objective = Keys::of(rows, "searcher.objectives")
        .must("metric", definition("metric"))
        .may("mode", choice(&["max", "min"]))
        .end();
    let mut objectives = list(objective, 2);
    objectives["maxItems"] = json!(OBJECTIVES_MAX);
    let mut searcher = Keys::of(rows, "searcher")
        .must("metric", definition("metric"))
        .must("objectives", objectives)
        .may("mode", choice(&["max", "min"]))
        .may("constraints", list(constraint(rows), 1))
        .may("sampler", sampler(rows))
        .may("max_trials", whole(1, COUNT_MAX))
        .may("max_concurrent", whole(1, COUNT_MAX))
        .may("target", json!({"type": "number"}))
        .may("warm_start", list(name(), 1))
        .may("pruner", pruner(rows))
        .end();
    // One of the two ways to say what is wanted.
    if let Some(object) = searcher.as_object_mut() {
        object.remove("required");
        let one = json!({"required": ["metric"], "not": {"required": ["objectives"]}});
        let beside = json!({"anyOf": [{"required": ["metric"]}, {"required": ["mode"]}]});
        let several = json!({"required": ["objectives"], "not": beside});
        object.insert("anyOf".to_owned(), json!([one, several]));
    }
    searcher
}

fn constraint(rows: &Rows) -> Value {
    let mut bounds = Keys::of(rows, "searcher.constraints")
        .must("metric", definition("metric"))
        .may("min", json!({"type": "number"}))
        .may("max", json!({"type": "number"}))
        .end();
    if let Some(object) = bounds.as_object_mut() {
        object.insert("anyOf".to_owned(), json!([{"required": ["min"]}, {"required": ["max"]}]));
    }
    bounds
}

fn sampler(rows: &Rows) -> Value {
    let typed = |names: &[&str]| Keys::typed(rows, "searcher.sampler", names);
    let startup = |least| whole(least, COUNT_MAX);
    one_of(vec![
        choice(&["random", "grid", "sobol", "tpe", "bohb", "gp", "cmaes"]),
        typed(&["random", "grid", "sobol"]).end(),
        typed(&["tpe"])
            .may("startup_trials", startup(1))
            .may("candidates", whole(1, 10_000))
            .may("multivariate", truth())
            .end(),
        typed(&["bohb"])
            .may("random_share", real(0.0, 1.0))
            .may("candidates", whole(1, 10_000))
            .may("startup_trials", startup(0))
            .end(),
        typed(&["gp"]).may("startup_trials", startup(1)).end(),
        typed(&["cmaes"]).may("population", whole(4, 100_000)).may("sigma", real(1e-6, 1.0)).end(),
        typed(&["list"])
            .must("points", json!({"type": "array", "items": definition("point"), "minItems": 1}))
            .end(),
    ])
}

fn pruner(rows: &Rows) -> Value {
    let typed = |names: &[&str]| Keys::typed(rows, "searcher.pruner", names);
    one_of(vec![
        typed(&["none"]).end(),
        typed(&["asha", "asha_stopping", "hyperband"])
            .may("reduction_factor", whole(2, 1000))
            .must("min_budget", definition("budget"))
            .end(),
        typed(&["median"])
            .must("every", definition("budget"))
            .may("min_budget", definition("budget"))
            .may("startup_trials", whole(1, COUNT_MAX))
            .end(),
        typed(&["percentile"])
            .must("percentile", real(0.0, 100.0))
            .must("every", definition("budget"))
            .may("min_budget", definition("budget"))
            .may("startup_trials", whole(1, COUNT_MAX))
            .end(),
        typed(&["patience"])
            .must("every", definition("budget"))
            .must("patience", whole(1, COUNT_MAX))
            .may("min_change", real(0.0, 1e6))
            .end(),
        typed(&["population"])
            .must("every", definition("budget"))
            .may("min_budget", definition("budget"))
            .may("quantile", real(0.01, 0.5))
            .may("resample_probability", real(0.0, 1.0))
            .may("factors", list(real(0.01, 100.0), 1))
            .end(),
    ])
}

fn continue_from(rows: &Rows) -> Value {
    Keys::of(rows, "continue_from")
        .must("trial", text())
        .may("checkpoint", one_of(vec![choice(&["last", "best"]), whole(1, BUDGET_MAX)]))
        .end()
}

fn checkpoint(rows: &Rows) -> Value {
    Keys::of(rows, "checkpoint")
        .may("every_steps", whole(1, BUDGET_MAX))
        .may("keep_last", whole(1, COUNT_MAX))
        .may("keep_best", whole(1, COUNT_MAX))
        .may("keep_every_steps", whole(1, BUDGET_MAX))
        .may("shard_mib", whole(0, COUNT_MAX))
        .end()
}

fn resources(rows: &Rows) -> Value {
    let elastic = Keys::of(rows, "resources.slots")
        .must("min", whole(1, 1024))
        .must("max", whole(1, 1024))
        .may("grace_seconds", whole(0, 86_400))
        .end();
    let priority = json!({
        "type": "integer", "minimum": -PRIORITY_MAX, "maximum": PRIORITY_MAX,
    });
    Keys::of(rows, "resources")
        .may("slots", one_of(vec![whole(1, 1024), elastic]))
        .may("max_slots", whole(1, 1024))
        .may("priority", priority)
        .end()
}

fn limits(rows: &Rows) -> Value {
    let hours = || json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e6});
    Keys::of(rows, "limits")
        .may("hours", hours())
        .may("slot_hours", hours())
        .may("trial_hours", hours())
        .end()
}

fn training(rows: &Rows) -> Value {
    let shares = Keys::of(rows, "training.masking")
        .may("rate", real(0.001, 1.0))
        .may("mask_share", real(0.0, 1.0))
        .may("random_share", real(0.0, 1.0))
        .may("whole_words", truth())
        .end();
    let unfreeze = Keys::of(rows, "training.unfreeze")
        .must("every", definition("budget"))
        .may("layers", whole(1, 1000))
        .end();
    let weights = json!({
        "type": "object", "additionalProperties": real(1e-6, 1e6), "minProperties": 1,
    });
    let stopping = Keys::of(rows, "training.early_stopping")
        .may("metric", definition("metric"))
        .must("patience", whole(1, COUNT_MAX))
        .may("min_change", real(0.0, 1e6))
        .end();
    let mut training = Keys::of(rows, "training")
        .may("schedule", schedule(rows))
        .may("unfreeze", unfreeze)
        .may("class_weights", one_of(vec![choice(&["equal", "balanced"]), weights]))
        .may("average", average(rows))
        .may("evaluate_every", definition("budget"))
        .may("early_stopping", stopping)
        .may("precision", choice(&["float32", "bfloat16", "float16"]))
        .may("gradient_compression", choice(&["none", "bfloat16", "float16"]))
        .may("step_deadline_s", whole(1, 86_400))
        .may("masking", shares)
        .end();
    if let Some(object) = training.as_object_mut() {
        object
            .insert("dependentRequired".to_owned(), json!({"early_stopping": ["evaluate_every"]}));
    }
    training
}

fn schedule(rows: &Rows) -> Value {
    let typed = |names: &[&str]| Keys::typed(rows, "training.schedule", names);
    one_of(vec![
        choice(&["linear", "cosine", "constant", "polynomial", "slanted_triangular"]),
        typed(&["linear", "constant"]).end(),
        typed(&["cosine"]).may("cycles", real(0.5, 1e3)).end(),
        typed(&["polynomial"])
            .may("power", real(0.01, 100.0))
            .may("end_learning_rate", real(0.0, 1.0))
            .end(),
        typed(&["slanted_triangular"]).may("ratio", real(1.0, 1e6)).end(),
    ])
}

fn average(rows: &Rows) -> Value {
    let typed = |names: &[&str]| Keys::typed(rows, "training.average", names);
    one_of(vec![
        typed(&["none"]).end(),
        typed(&["ema"]).may("decay", real(0.0, 0.999_999_9)).end(),
        typed(&["checkpoints"])
            .may("last", whole(1, 100))
            .must("every", definition("budget"))
            .end(),
    ])
}
