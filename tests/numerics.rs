//! The model, its gradients and its optimizer against transformers, on a tiny random BERT.
//! `golden/hf/generate.py` made the files and says how.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use muster_common::manifest::{Assignment, SearchSpace, TrainingSettings, TrialSettings};
use muster_common::seed::Seed;
use muster_worker::data::Split;
use muster_worker::model::{Classifier, Frozen, NamedTensors, Pretrained, read_tensors};
use muster_worker::train::{Examples, Trainer, TrialPlan};
use serde_json::Value;
use tch::{Device, Reduction, Tensor};

const TOLERANCE: f64 = 1e-5;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hf")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(directory().join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small ids in the file"
)]
fn whole(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|number| number as u32).collect()
}

fn tokens(golden: &Value) -> Vec<Vec<u32>> {
    golden["tokens"].as_array().unwrap().iter().map(whole).collect()
}

/// The tiny model with the golden head, ready to train.
fn trainable(frozen: Frozen) -> Classifier {
    let tiny = directory().join("tiny");
    let pretrained = Pretrained::read(&tiny).unwrap();
    let labels = pretrained.config.labels().unwrap();
    let mut model =
        Classifier::to_train(&pretrained, labels, frozen, Seed(1), Device::Cpu).unwrap();
    let mut weights = read_tensors(&tiny.join("model.safetensors")).unwrap();
    let names: Vec<String> = model.trained().map(|(name, _)| name.to_owned()).collect();
    weights.retain(|name, _| names.contains(name));
    model.restore(&weights).unwrap();
    model
}

fn assert_close(what: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        let limit = TOLERANCE * wanted.abs().max(1.0);
        assert!((found - wanted).abs() < limit, "{what}: {found} instead of {wanted}");
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(tch::Kind::Double).view([-1])).unwrap()
}

fn assert_same_tensors(found: &NamedTensors, wanted: &NamedTensors) {
    let names = |tensors: &NamedTensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted));
    for (name, tensor) in found {
        assert_close(name, &values(tensor), &values(&wanted[name]));
    }
}

#[test]
fn logits_and_losses_agree_with_and_without_padding() {
    let golden = golden();
    let tokens = tokens(&golden);
    let labels = whole(&golden["labels"]);
    let model = Classifier::from_directory(&directory().join("tiny"), Device::Cpu).unwrap();
    assert_eq!(model.labels(), ["bad", "so-so", "good"]);
    for batch in golden["batches"].as_array().unwrap() {
        let members: Vec<usize> =
            whole(&batch["members"]).into_iter().map(|member| member as usize).collect();
        let sequences: Vec<Vec<u32>> = members.iter().map(|i| tokens[*i].clone()).collect();
        let logits = model.logits(&sequences).unwrap();
        assert_close("logits", &values(&logits), &numbers(&batch["logits"]));
        let truth: Vec<i64> = members.iter().map(|i| i64::from(labels[*i])).collect();
        let loss = logits.cross_entropy_for_logits(&Tensor::from_slice(&truth));
        assert_close("loss", &values(&loss), &numbers(&batch["loss"]));
    }
}

#[test]
fn gradients_of_every_parameter_agree() {
    let golden = golden();
    let tokens = tokens(&golden);
    let model = trainable(Frozen::default());
    let sequences: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let logits = model.forward(&model.batch(&sequences).unwrap(), 0.0).unwrap();
    let labels: Vec<i64> = whole(&golden["labels"]).into_iter().map(i64::from).collect();
    let labels = Tensor::from_slice(&labels);
    logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0).backward();
    let found = model.trained().map(|(name, tensor)| (name.to_owned(), tensor.grad())).collect();
    assert_same_tensors(&found, &read_tensors(&directory().join("gradients.safetensors")).unwrap());
}

/// Trains like the golden run and compares every loss, gradient norm and final weight.
fn check_training(name: &str, frozen: Frozen, micro_batch_size: u64) {
    let golden = golden();
    let (run, setup) = (&golden[name], &golden["training"]);
    let number = |field: &str| setup[field].as_f64().unwrap();
    let data = Split::new(tokens(&golden), whole(&golden["labels"]));
    let settings = TrialSettings {
        learning_rate: number("peak"),
        global_batch_size: data.len() as u64,
        micro_batch_size,
        dropout: Some(0.0),
        weight_decay: number("weight_decay"),
        warmup_ratio: number("warmup_ratio"),
        max_grad_norm: Some(number("max_grad_norm")),
        adam_beta1: setup["betas"][0].as_f64().unwrap(),
        adam_beta2: setup["betas"][1].as_f64().unwrap(),
        adam_epsilon: number("epsilon"),
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    };
    let total_steps = setup["total_steps"].as_u64().unwrap();
    let plan = TrialPlan {
        settings,
        training: TrainingSettings::default(),
        stopping_objective: None,
        seed: Seed(2),
        total_steps,
        data: String::new(),
        rank: 0,
    };
    let mut trainer = Trainer::new(plan, trainable(frozen), Examples::of_tokens(&data)).unwrap();
    let losses = numbers(&run["losses"]);
    for (step, wanted) in losses.iter().enumerate() {
        let outcome = trainer.train_step().unwrap();
        assert_close("loss", &values(&outcome.loss), &[*wanted]);
        assert_close("norm", &values(&outcome.grad_norm), &[numbers(&run["grad_norms"])[step]]);
        assert_close("rate", &[outcome.learning_rate], &[numbers(&run["learning_rates"])[step]]);
    }
    let wanted = read_tensors(&directory().join(format!("{name}.safetensors"))).unwrap();
    assert_same_tensors(&trainer.snapshot().unwrap().model, &wanted);
}

#[test]
fn training_agrees() {
    check_training("trained", Frozen::default(), 6);
}

#[test]
fn training_with_frozen_layers_agrees() {
    check_training("trained_frozen", Frozen { embeddings: true, layers: 1 }, 6);
}

#[test]
fn accumulation_over_unequal_micro_batches_changes_nothing() {
    check_training("trained", Frozen::default(), 4);
}
