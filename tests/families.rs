//! The three families and all their heads against transformers, on tiny random models of even sizes and of odd ones.
//! `golden/hf/generate_families.py` made the files and says how.
//!
//! Errors are relative and in the 2-norm: of a loss, of all logits of a batch, and of the gradient
//! of each parameter, `|found - wanted| / |wanted|`. A gradient that is zero but for rounding (that
//! of a key's bias: softmax does not see it) has no relative error; it is compared with the gradient
//! of all parameters together.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;

use muster_common::seed::Seed;
use muster_worker::ffi::dropout;
use muster_worker::model::{
    Classifier, Dropout, Family, Frozen, LanguageBatch, LanguageExample, LanguageModel,
    LanguageObjective, MaskedTokens, NamedTensors, Pretrained, TokenBatch, read_tensors,
};
use serde_json::Value;
use tch::{Device, Kind, Reduction, Tensor};

const TOLERANCE: f64 = 1e-5;
/// Share of the whole gradient below which a parameter's gradient is rounding only.
const ROUNDING: f64 = 1e-6;
const IGNORED: i64 = -100;
const CASES: [&str; 3] = ["single", "padded", "pairs"];

/// Models of some sizes, and what transformers computes with them.
struct Golden {
    directory: PathBuf,
    cases: Value,
}

impl Golden {
    fn read(folder: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hf").join(folder);
        let text = std::fs::read_to_string(directory.join("cases.json")).unwrap();
        Self { directory, cases: serde_json::from_str(&text).unwrap() }
    }

    /// Every set with every family.
    fn all() -> impl Iterator<Item = (Rc<Self>, Family)> {
        let sets = ["families", "families_odd"].map(|folder| Rc::new(Self::read(folder)));
        sets.into_iter()
            .flat_map(|set| Family::ALL.into_iter().map(move |family| (set.clone(), family)))
    }

    fn of(&self, family: Family) -> &Value {
        &self.cases[family.model_type()]
    }

    fn path(&self, family: Family, task: &str) -> PathBuf {
        self.directory.join(format!("{}-{task}", family.model_type()))
    }

    fn pretrained(&self, family: Family, task: &str) -> Pretrained {
        Pretrained::read(&self.path(family, task)).unwrap()
    }

    fn gradients(&self, family: Family, task: &str) -> NamedTensors {
        read_tensors(&self.path(family, task).join("gradients.safetensors")).unwrap()
    }

    /// How messages call a family here.
    fn name(&self, family: Family) -> String {
        format!("{}, {family:?}", self.directory.file_name().unwrap().display())
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    value.as_array().unwrap().iter().map(id).collect()
}

fn rows(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().unwrap().iter().map(ids).collect()
}

fn borrowed(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn difference(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    norm(found.iter().zip(wanted).map(|(found, wanted)| found - wanted))
}

fn assert_close(what: &str, found: &Tensor, wanted: &Value) {
    let (found, wanted) = (values(found), numbers(wanted));
    let error = difference(&found, &wanted) / norm(wanted.iter().copied());
    assert!(error < TOLERANCE, "{what}: relative error {error:.2e}");
}

/// Compares the gradient of every trained parameter, then clears it.
fn assert_gradients<'a>(
    what: &str,
    trained: impl Iterator<Item = (&'a str, &'a Tensor)>,
    wanted: &NamedTensors,
    case: &str,
) {
    let prefix = format!("{case}/");
    let wanted: Vec<(&str, Vec<f64>)> = wanted
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, values(tensor))))
        .collect();
    let whole = norm(wanted.iter().flat_map(|(_, values)| values.iter().copied()));
    let mut wanted = wanted.into_iter();
    for (name, parameter) in trained {
        let (wanted_name, wanted) = wanted.next().unwrap();
        assert_eq!(name, wanted_name, "{what}");
        let mut gradient = parameter.grad();
        let found = values(&gradient);
        let own = norm(wanted.iter().copied());
        let (error, limit) = if own < ROUNDING * whole {
            (norm(found.iter().copied()) / whole, ROUNDING)
        } else {
            // The terms of a query's bias nearly cancel: what is left is exact to the rounding of the terms, not to
            // that of itself.
            let rounding = f64::from(f32::EPSILON) * whole;
            ((difference(&found, &wanted) - rounding).max(0.0) / own, TOLERANCE)
        };
        assert!(error < limit, "{what}, {name}: error {error:.2e}, at most {limit:.0e}");
        let _cleared = gradient.zero_();
    }
    assert!(wanted.next().is_none(), "{what}");
}

fn classifier(golden: &Golden, family: Family) -> Classifier {
    let pretrained = golden.pretrained(family, "classification");
    let labels = pretrained.config.labels().unwrap();
    let mut model =
        Classifier::to_train(&pretrained, labels, Frozen::default(), Seed(1), Device::Cpu).unwrap();
    let mut weights = NamedTensors::new();
    for (name, tensor) in pretrained.weights.iter().chain(&pretrained.heads) {
        weights.insert(name.clone(), tensor.shallow_clone());
    }
    model.restore(&weights).unwrap();
    model
}

/// How many tokens of each sequence are in the first segment.
fn first_segments(case: &Value) -> Vec<usize> {
    let first = |segments: &Vec<u32>| segments.iter().filter(|segment| **segment == 0).count();
    rows(&case["segments"]).iter().map(first).collect()
}

fn tokens_of(model: &Classifier, case: &Value) -> TokenBatch {
    let tokens = rows(&case["tokens"]);
    model.batch_of_pairs(&borrowed(&tokens), &first_segments(case)).unwrap()
}

fn labels_of(case: &Value) -> Tensor {
    let labels: Vec<i64> = ids(&case["labels"]).into_iter().map(i64::from).collect();
    Tensor::from_slice(&labels)
}

#[test]
fn classifiers_agree() {
    for (golden, family) in Golden::all() {
        let model = classifier(&golden, family);
        let gradients = golden.gradients(family, "classification");
        let family_golden = golden.of(family);
        for name in CASES {
            let what = format!("{}, {name}", golden.name(family));
            let case = &family_golden["cases"][name];
            let wanted = &family_golden["tasks"]["classification"][name];
            let logits = model.forward(&tokens_of(&model, case), Dropout::NONE).unwrap();
            assert_close(&what, &logits, &wanted["logits"]);
            let none = None::<Tensor>;
            let loss =
                logits.cross_entropy_loss(&labels_of(case), none, Reduction::Mean, IGNORED, 0.0);
            assert_close(&what, &loss, &wanted["loss"]);
            loss.backward();
            assert_gradients(&what, model.trained(), &gradients, name);
        }
    }
}

#[test]
fn segments_matter_only_where_the_family_tells_them_apart() {
    for (golden, family) in Golden::all() {
        let model = classifier(&golden, family);
        let case = &golden.of(family)["cases"]["pairs"];
        let tokens = rows(&case["tokens"]);
        let with = model.forward(&tokens_of(&model, case), Dropout::NONE).unwrap();
        let without = model.batch(&borrowed(&tokens)).unwrap();
        let without = model.forward(&without, Dropout::NONE).unwrap();
        assert_eq!(with == without, family != Family::Bert, "{}", golden.name(family));
    }
}

#[test]
fn padding_changes_nothing() {
    for (golden, family) in Golden::all() {
        let model = classifier(&golden, family);
        let case = &golden.of(family)["cases"]["padded"];
        let tokens = rows(&case["tokens"]);
        let together = model.logits(&tokens).unwrap();
        for (row, tokens) in (0..).zip(tokens) {
            let alone = model.logits(&[tokens]).unwrap();
            let error = difference(&values(&together.get(row)), &values(&alone))
                / norm(values(&alone).iter().copied());
            assert!(error < TOLERANCE, "{}, row {row}: {error:.2e}", golden.name(family));
        }
    }
}

const OBJECTIVES: [(&str, LanguageObjective); 3] = [
    ("masked", LanguageObjective::MaskedTokens),
    ("next_sentence", LanguageObjective::NextSentence),
    ("both", LanguageObjective::Both),
];

fn language_batch(model: &LanguageModel, case: &Value) -> LanguageBatch {
    let objective = model.objective();
    let read = if objective == LanguageObjective::NextSentence { "tokens" } else { "masked" };
    let mut examples: Vec<MaskedTokens> = rows(&case[read]).into_iter().map(Into::into).collect();
    if objective != LanguageObjective::NextSentence {
        for (example, truth) in examples.iter_mut().zip(case["originals"].as_array().unwrap()) {
            for (position, original) in (0..).zip(truth.as_array().unwrap()) {
                if let Some(original) = original.as_u64() {
                    example.positions.push(position);
                    example.originals.push(u32::try_from(original).unwrap());
                }
            }
        }
    }
    let first_segments = first_segments(case);
    let follows = case["follows"].as_array().unwrap();
    let examples: Vec<LanguageExample<'_>> = examples
        .iter()
        .zip(first_segments)
        .zip(follows)
        .map(|((masked, first_segment), follows)| LanguageExample {
            masked,
            first_segment,
            follows: follows.as_bool().unwrap(),
        })
        .collect();
    model.batch(&examples).unwrap()
}

fn language_model(
    golden: &Golden,
    family: Family,
    task: &str,
    objective: LanguageObjective,
) -> LanguageModel {
    let pretrained = golden.pretrained(family, task);
    // Another seed would show in the results if a parameter were drawn and not read.
    LanguageModel::to_train(&pretrained, objective, Frozen::default(), Seed(3), Device::Cpu)
        .unwrap()
}

#[test]
fn language_models_agree() {
    for (golden, family) in Golden::all() {
        let family_golden = golden.of(family);
        for (task, objective) in OBJECTIVES {
            if family_golden["tasks"][task].is_null() {
                let pretrained = golden.pretrained(family, "masked");
                let frozen = Frozen::default();
                let refused =
                    LanguageModel::to_train(&pretrained, objective, frozen, Seed(3), Device::Cpu);
                assert!(refused.unwrap_err().to_string().contains("next sentence"));
                continue;
            }
            let model = language_model(&golden, family, task, objective);
            let gradients = golden.gradients(family, task);
            for name in CASES {
                let what = format!("{}, {task}, {name}", golden.name(family));
                let batch = language_batch(&model, &family_golden["cases"][name]);
                let wanted = &family_golden["tasks"][task][name];
                let logits = model.logits(&batch, Dropout::NONE).unwrap();
                if let Some(masked) = logits.masked().unwrap() {
                    assert_close(&what, &masked, &wanted["masked_logits"]);
                }
                if let Some(next) = logits.next_sentence {
                    assert_close(&what, &next, &wanted["logits"]);
                }
                let loss = model.loss(&batch, Dropout::NONE).unwrap().mean().unwrap();
                assert_close(&what, &loss, &wanted["loss"]);
                loss.backward();
                assert_gradients(&what, model.trained(), &gradients, name);
            }
        }
    }
}

#[test]
fn a_batch_with_nothing_masked_has_no_loss() {
    let golden = Golden::read("families");
    let model = language_model(&golden, Family::Roberta, "masked", LanguageObjective::MaskedTokens);
    let tokens = MaskedTokens::from(vec![0, 7, 9, 2]);
    let example = LanguageExample { masked: &tokens, first_segment: 4, follows: true };
    let loss = model.loss(&model.batch(&[example]).unwrap(), Dropout::NONE).unwrap();
    assert_eq!(loss.masked.as_ref().unwrap().count, 0);
    assert!(values(&loss.mean().unwrap())[0].abs() < f64::MIN_POSITIVE);
}

fn rates(value: &Value) -> Dropout {
    let rate = |place: &str| value[place].as_f64().unwrap();
    Dropout { hidden: rate("hidden"), attention: rate("attention"), head: rate("head") }
}

/// With a probability of 1 all that passes a place of dropout is gone.
#[test]
fn dropout_stands_where_it_stands_in_the_originals() {
    for (golden, family) in Golden::all() {
        let model = classifier(&golden, family);
        let family_golden = golden.of(family);
        let tokens = tokens_of(&model, &family_golden["cases"]["padded"]);
        let whole = model.forward(&tokens, Dropout::NONE).unwrap();
        for place in ["hidden", "attention", "head"] {
            let wanted = &family_golden["dropout"][place];
            let logits = model.forward(&tokens, rates(&wanted["rates"])).unwrap();
            let what = format!("{}, {place}", golden.name(family));
            assert_close(&what, &logits, &wanted["logits"]);
            assert_ne!(logits, whole, "{what}");
        }
    }
}

/// Tests that seed the one generator of the process take turns.
static SEEDED: Mutex<()> = Mutex::new(());

/// The same masks in the same order: nothing but the places of the originals draws.
#[test]
fn dropout_stands_nowhere_else() {
    let _seeded = SEEDED.lock().unwrap();
    for (golden, family) in Golden::all() {
        let seed = golden.cases["dropout_seed"].as_i64().unwrap();
        tch::manual_seed(seed);
        let probe = dropout(&Tensor::ones([4, 4], (Kind::Float, Device::Cpu)), 0.3).unwrap();
        assert_close("the masks of Python", &probe, &golden.cases["probe"]);
        let family_golden = golden.of(family);
        let model = language_model(&golden, family, "masked", LanguageObjective::MaskedTokens);
        let wanted = &family_golden["dropout"]["drawn"];
        let batch = language_batch(&model, &family_golden["cases"]["single"]);
        tch::manual_seed(seed);
        let loss = model.loss(&batch, rates(&wanted["rates"])).unwrap().mean().unwrap();
        assert_close(&golden.name(family), &loss, &wanted["loss"]);

        let model = classifier(&golden, family);
        let wanted = &family_golden["dropout"]["drawn_head"];
        let tokens = rows(&family_golden["cases"]["single"]["tokens"]);
        let first: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens[..1]).collect();
        tch::manual_seed(seed);
        let logits = model.forward(&model.batch(&first).unwrap(), rates(&wanted["rates"])).unwrap();
        assert_close(&format!("{}, head", golden.name(family)), &logits, &wanted["logits"]);
    }
}

#[test]
fn what_is_dropped_follows_from_the_seed_alone() {
    let _seeded = SEEDED.lock().unwrap();
    let ones = || Tensor::ones([300, 1000], (Kind::Float, Device::Cpu));
    let drawn = |seed: i64, threads: i32| {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        tch::manual_seed(seed);
        let masks = [dropout(&ones(), 0.3).unwrap(), dropout(&ones(), 0.3).unwrap()];
        tch::set_num_threads(before);
        masks
    };
    let [first, second] = drawn(5, 1);
    assert_ne!(first, second);
    assert_eq!([first, second], drawn(5, 2));
    assert_ne!(drawn(6, 1), drawn(5, 1));
}
