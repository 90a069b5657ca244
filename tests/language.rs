//! Training language models: the losses of transformers step by step, the same gradient however a
//! batch is cut, the same bits after a resume, and the same scores whoever evaluates.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use muster_common::manifest::{
    Assignment, Budget, EarlyStopping, MaskingSettings, Precision, SearchSpace, TrainingSettings,
    TrialSettings, Unfreezing, WeightAverage,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_tests::gradient::{alone, distance, summed_gradient};
use muster_worker::checkpoint::Snapshot;
use muster_worker::data::Split;
use muster_worker::model::{
    Dropout, Frozen, LanguageModel, LanguageObjective, MaskingVocabulary, NamedTensors, Pretrained,
    TaskModel,
};
use muster_worker::train::{
    Examples, Masking, Scoring, Tally, Trainer, TrialPlan, Verdict, evaluate,
};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hf").join(name)
}

/// Made by `golden/hf/generate_language.py`.
#[derive(Deserialize)]
struct Golden {
    seed: Seed,
    batch: u64,
    peak: f64,
    decay: f64,
    clip: f64,
    mask: u32,
    num_special: u32,
    continues: Vec<bool>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    family: String,
    task: String,
    masking: Option<Rate>,
    examples: Vec<Example>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    num_masked: Vec<u64>,
}

#[derive(Deserialize)]
struct Rate {
    rate: f64,
    whole_words: bool,
}

#[derive(Deserialize)]
struct Example {
    tokens: Vec<u32>,
    first_segment: u32,
    label: u32,
}

fn read_golden() -> Golden {
    let text = std::fs::read_to_string(golden("language.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn objective(task: &str) -> LanguageObjective {
    match task {
        "masked" => LanguageObjective::MaskedTokens,
        "next_sentence" => LanguageObjective::NextSentence,
        _ => LanguageObjective::Both,
    }
}

fn plain_settings() -> TrialSettings {
    TrialSettings {
        learning_rate: 1e-3,
        global_batch_size: 32,
        micro_batch_size: 32,
        dropout: Some(0.0),
        warmup_ratio: 0.0,
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    }
}

fn plan(settings: TrialSettings, training: TrainingSettings, total_steps: u64) -> TrialPlan {
    TrialPlan {
        settings,
        training,
        stopping_objective: Some(Objective {
            metric: ObjectiveMetric::MaskedLoss,
            mode: Mode::Min,
        }),
        seed: Seed(4),
        total_steps,
        data: String::new(),
        rank: 0,
    }
}

#[test]
fn losses_of_a_few_steps_equal_those_of_transformers() {
    let _alone = alone();
    let golden_values = read_golden();
    assert_eq!(golden_values.cases.len(), 5);
    for case in &golden_values.cases {
        for micro_batch_size in [golden_values.batch, 3, 1] {
            replay(&golden_values, case, micro_batch_size);
        }
    }
}

fn replay(golden_values: &Golden, case: &Case, micro_batch_size: u64) {
    let what = format!("{} {} by {micro_batch_size}", case.family, case.task);
    let tokens = case.examples.iter().map(|example| example.tokens.clone()).collect();
    let labels = case.examples.iter().map(|example| example.label).collect();
    let firsts = case.examples.iter().map(|example| example.first_segment).collect();
    let split = Split::new(tokens, labels).with_first_segments(firsts).unwrap();
    let special = (0..golden_values.num_special).collect();
    let continues = golden_values.continues.clone();
    let rate = case.masking.as_ref();
    let masking = Masking {
        vocabulary: MaskingVocabulary::new(golden_values.mask, special, continues).unwrap(),
        settings: rate.map_or_else(MaskingSettings::default, |rate| MaskingSettings {
            rate: rate.rate,
            whole_words: rate.whole_words,
            ..MaskingSettings::default()
        }),
        evaluation: Seed(0),
    };
    let examples = match rate {
        Some(_) => Examples::of_masked(&split, &masking),
        None => Examples::of_tokens(&split),
    };
    let directory = golden(&format!("families/{}-{}", case.family, case.task));
    let (pretrained, frozen) = (Pretrained::read(&directory).unwrap(), Frozen::default());
    let objective = objective(&case.task);
    let model =
        LanguageModel::to_train(&pretrained, objective, frozen, Seed(3), Device::Cpu).unwrap();
    let settings = TrialSettings {
        learning_rate: golden_values.peak,
        global_batch_size: golden_values.batch,
        micro_batch_size,
        weight_decay: golden_values.decay,
        max_grad_norm: Some(golden_values.clip),
        ..plain_settings()
    };
    let plan = TrialPlan {
        seed: golden_values.seed,
        ..plan(settings, TrainingSettings::default(), case.losses.len() as u64)
    };
    let mut trainer = Trainer::new(plan, model, examples).unwrap();
    let close = |found: f64, wanted: f64| (found - wanted).abs() < 1e-5 * wanted.abs();
    for (step, number) in (1u32..).zip(0..case.losses.len()) {
        let batch: Vec<u32> = (0..8).map(|place| (step * 5 + place * 3) % 24).collect();
        let num_masked = trainer.normalizer(u64::from(step), &batch).masked;
        assert!((num_masked - case.num_masked[number] as f64).abs() < 0.5, "{what}: {num_masked}");
        let outcome = trainer.train_on(&batch).unwrap();
        let (loss, wanted) = (outcome.loss.double_value(&[]), case.losses[number]);
        assert!(close(loss, wanted), "{what}, step {step}: loss {loss} instead of {wanted}");
        let (norm, wanted) = (outcome.grad_norm.double_value(&[]), case.norms[number]);
        assert!(close(norm, wanted), "{what}, step {step}: norm {norm} instead of {wanted}");
    }
}

/// Pairs of 5 to 14 tokens out of 32.
fn pairs(count: u32) -> Split {
    let mut draws = Seed(21).draws();
    let (mut examples, mut labels, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let mut row = vec![2];
        for _ in 0..2 {
            let length = 1 + draws.below(5);
            row.extend((0..length).map(|_| u32::try_from(5 + draws.below(27)).unwrap()));
            row.push(3);
            firsts.push(u32::try_from(row.len()).unwrap());
        }
        firsts.pop();
        examples.push(row);
        labels.push(u32::try_from(draws.below(2)).unwrap());
    }
    Split::new(examples, labels).with_first_segments(firsts).unwrap()
}

fn masking(rate: f64) -> Masking {
    let continues = (0..32).map(|token| token % 3 == 0).collect();
    Masking {
        vocabulary: MaskingVocabulary::new(4, (0..5).collect(), continues).unwrap(),
        settings: MaskingSettings { rate, ..MaskingSettings::default() },
        evaluation: Seed(77),
    }
}

struct Setup {
    objective: LanguageObjective,
    settings: TrialSettings,
    training: TrainingSettings,
    frozen: Frozen,
    rank: u32,
}

impl Setup {
    fn new(objective: LanguageObjective) -> Self {
        let (settings, training) = (plain_settings(), TrainingSettings::default());
        Self { objective, settings, training, frozen: Frozen::default(), rank: 0 }
    }

    fn trainer<'a>(&self, data: &'a Split, masking: &'a Masking) -> Trainer<'a> {
        let pretrained = Pretrained::read(&golden("families/bert-both")).unwrap();
        let (objective, frozen) = (self.objective, self.frozen);
        let model =
            LanguageModel::to_train(&pretrained, objective, frozen, Seed(3), Device::Cpu).unwrap();
        let plan = plan(self.settings.clone(), self.training.clone(), 23);
        let plan = TrialPlan { rank: self.rank, ..plan };
        Trainer::new(plan, model, Examples::of_masked(data, masking)).unwrap()
    }
}

/// Masked tokens are as many as they happen to be: means of micro-batches would differ.
#[test]
fn how_a_batch_is_cut_does_not_change_its_gradient() {
    let _alone = alone();
    let data = pairs(32);
    let all: Vec<u32> = (0..32).collect();
    for objective in [LanguageObjective::MaskedTokens, LanguageObjective::Both] {
        // With the lower rate there are micro-batches in which nothing is masked.
        for rate in [0.3, 0.03] {
            let masking = masking(rate);
            let mut setup = Setup::new(objective);
            let summed = |setup: &mut Setup, shards: &[&[u32]]| {
                let of_rank = |rank| {
                    setup.rank = rank;
                    setup.trainer(&data, &masking)
                };
                summed_gradient(of_rank, shards).unwrap()
            };
            for count in [32, 27] {
                setup.settings.micro_batch_size = 32;
                let (whole, loss) = summed(&mut setup, &[&all[..count]]);
                assert!(loss > 0.1);
                for micro_batch_size in [8, 5, 1] {
                    setup.settings.micro_batch_size = micro_batch_size;
                    let ranks: [&[&[u32]]; 2] = [&[&all[..count]], &[&all[..16], &all[16..count]]];
                    for shards in ranks {
                        let (parts, sum) = summed(&mut setup, shards);
                        let off = distance(&parts, &whole);
                        assert!(off < 1e-5, "{objective:?} {count} by {micro_batch_size}: {off}");
                        assert!((sum - loss).abs() < 1e-5 * loss, "{sum} instead of {loss}");
                    }
                }
            }
        }
    }
}

fn bits(tensors: &NamedTensors) -> Vec<(String, Vec<u32>)> {
    let flat = |tensor: &Tensor| Vec::<f32>::try_from(tensor.view([-1])).unwrap();
    let bits = |tensor| flat(tensor).into_iter().map(f32::to_bits).collect();
    tensors.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
}

fn tally(model: &TaskModel, data: &Split, masking: &Masking, scoring: Scoring) -> Tally {
    let go_on = || ControlFlow::Continue(());
    evaluate(model, Examples::of_masked(data, masking), scoring, go_on).unwrap().unwrap()
}

/// Trains until `stop`, scoring wherever that is due.
fn train(trainer: &mut Trainer<'_>, stop: u64, data: &Split, masking: &Masking) -> Vec<u64> {
    let mut losses = Vec::new();
    while trainer.step() < stop {
        losses.push(trainer.train_step().unwrap().loss.double_value(&[]).to_bits());
        assert!(trainer.scored().is_none(), "of other weights");
        if trainer.evaluation_is_due() {
            let scoring = Scoring::alone(Precision::Float32);
            let scored =
                trainer.with_evaluated_weights(|model| tally(model, data, masking, scoring));
            let evaluation = scored.unwrap().evaluation(trainer.model().unwrap().num_classes());
            assert_ne!(trainer.observe(&evaluation).unwrap(), Verdict::Diverged);
            assert_eq!(trainer.scored(), Some(&evaluation));
        }
    }
    losses
}

#[test]
fn a_resumed_trial_ends_with_the_bits_of_an_uninterrupted_one() {
    let _alone = alone();
    let (data, masking) = (pairs(30), masking(0.2));
    for objective in
        [LanguageObjective::MaskedTokens, LanguageObjective::NextSentence, LanguageObjective::Both]
    {
        let mut setup = Setup::new(objective);
        setup.settings.dropout = Some(0.2);
        setup.settings.global_batch_size = 8;
        setup.settings.micro_batch_size = 3;
        setup.settings.layer_decay = 0.9;
        setup.training = TrainingSettings {
            unfreeze: Some(Unfreezing { every: Budget::Steps(3), layers: 1 }),
            average: WeightAverage::Ema { decay: 0.9 },
            evaluate_every: Some(Budget::Steps(2)),
            early_stopping: (objective != LanguageObjective::NextSentence)
                .then_some(EarlyStopping { metric: None, patience: 1000, min_change: 0.01 }),
            ..TrainingSettings::default()
        };
        let run = |deaths: &[u64]| {
            let mut losses = Vec::new();
            let mut snapshot: Option<Snapshot> = None;
            for stop in deaths.iter().copied().chain([17]) {
                let mut trainer = setup.trainer(&data, &masking);
                if let Some(snapshot) = snapshot.take() {
                    trainer.restore(snapshot).unwrap();
                }
                losses.extend(train(&mut trainer, stop, &data, &masking));
                snapshot = Some(trainer.snapshot().unwrap());
            }
            (snapshot.unwrap(), losses)
        };
        let (wanted, wanted_losses) = run(&[]);
        let (found, losses) = run(&[1, 6, 13]);
        assert_eq!(losses, wanted_losses, "{objective:?}");
        assert_eq!(found.progress, wanted.progress, "{objective:?}");
        for (found, wanted) in [
            (&found.model, &wanted.model),
            (&found.optimizer, &wanted.optimizer),
            (&found.average, &wanted.average),
            (&found.best, &wanted.best),
        ] {
            assert!(bits(found) == bits(wanted), "{objective:?}");
        }
        let watches = setup.training.early_stopping.is_some();
        assert_eq!(found.best.is_empty(), !watches, "{objective:?}");
    }
}

#[test]
fn masks_differ_between_steps_and_not_between_evaluations() {
    let _alone = alone();
    let (data, masking) = (pairs(8), masking(0.3));
    let mut setup = Setup::new(LanguageObjective::MaskedTokens);
    setup.settings.global_batch_size = 8;
    let mut trainer = setup.trainer(&data, &masking);
    let all: Vec<u32> = (0..8).collect();
    // The loss of weights that do not change: only what is hidden makes the difference.
    let loss = |trainer: &mut Trainer<'_>, step| {
        let normalizer = trainer.normalizer(step, &all);
        trainer.accumulate(step, &all, normalizer).unwrap().double_value(&[]).to_bits()
    };
    assert_eq!(loss(&mut trainer, 1), loss(&mut trainer, 1));
    assert_ne!(loss(&mut trainer, 1), loss(&mut trainer, 2));
    let scoring = Scoring::alone(Precision::Float32);
    let scored = |trainer: &Trainer<'_>| tally(trainer.model().unwrap(), &data, &masking, scoring);
    assert_eq!(scored(&trainer), scored(&trainer));
    let before = scored(&trainer).masked.unwrap();
    trainer.train_step().unwrap();
    let after = scored(&trainer).masked.unwrap();
    assert_eq!(before.num_masked, after.num_masked);
    assert_ne!(before.loss_sum.to_bits(), after.loss_sum.to_bits());
}

#[test]
fn every_hidden_token_is_scored_once_whatever_the_number_of_ranks() {
    let _alone = alone();
    let (data, masking) = (pairs(101), masking(0.3));
    for objective in [LanguageObjective::MaskedTokens, LanguageObjective::Both] {
        let trainer = Setup::new(objective).trainer(&data, &masking);
        let scoring = Scoring::alone(Precision::Float32);
        let num_classes = trainer.model().unwrap().num_classes();
        let wanted =
            tally(trainer.model().unwrap(), &data, &masking, scoring).evaluation(num_classes);
        for num_ranks in [2, 5] {
            let mut whole = Tally::default();
            for rank in 0..num_ranks {
                let scoring = Scoring { precision: Precision::Float32, rank, num_ranks };
                whole.merge(tally(trainer.model().unwrap(), &data, &masking, scoring));
            }
            let found = whole.evaluation(num_classes);
            let (a, b) = (found.masked.unwrap(), wanted.masked.unwrap());
            assert_eq!((a.num_masked, a.num_right), (b.num_masked, b.num_right));
            assert!((a.loss - b.loss).abs() < 1e-12);
            assert_eq!(found.confusion, wanted.confusion);
        }
        assert_by_hand(&trainer, &data, &masking, &wanted);
    }
}

/// All examples in one batch: a mean and an argmax.
fn assert_by_hand(
    trainer: &Trainer<'_>,
    data: &Split,
    masking: &Masking,
    found: &muster_common::evaluation::Evaluation,
) {
    let TaskModel::Language(model) = trainer.model().unwrap() else { panic!("a language model") };
    let all: Vec<u32> = (0..).take(data.len()).collect();
    let examples = Examples::of_masked(data, masking);
    let batch = examples.language_batch(model, &all, masking.evaluation).unwrap();
    let logits = tch::no_grad(|| model.logits(&batch, Dropout::NONE)).unwrap();
    let losses = logits.losses(&batch).unwrap();
    let masked = found.masked.unwrap();
    assert_eq!(losses.masked.as_ref().unwrap().count, masked.num_masked);
    assert_eq!(examples.num_masked(&all, masking.evaluation), masked.num_masked);
    let right = logits.num_right(&batch).unwrap().unwrap().int64_value(&[]);
    assert_eq!(right.unsigned_abs(), masked.num_right);
    assert!((0.2..0.4).contains(&(masked.num_masked as f64 / tokens_to_hide(data))));
    let mean = losses.mean().unwrap().double_value(&[]);
    assert!((mean - found.loss).abs() < 1e-5 * mean, "{mean} and {}", found.loss);
    assert!((masked.perplexity().ln() - masked.loss).abs() < 1e-12);
    let ranks = [ObjectiveMetric::MaskedLoss, ObjectiveMetric::MaskedAccuracy];
    assert!(ranks.iter().all(|metric| found.value(*metric).is_finite()));
}

fn tokens_to_hide(data: &Split) -> f64 {
    let ordinary = |index: usize| data.tokens(index).iter().filter(|token| **token > 4).count();
    (0..data.len()).map(ordinary).sum::<usize>() as f64
}

#[test]
fn bfloat16_and_frozen_layers_train_too() {
    let _alone = alone();
    let (data, masking) = (pairs(32), masking(0.3));
    let run = |precision, frozen| {
        let mut setup = Setup::new(LanguageObjective::Both);
        setup.training.precision = precision;
        setup.frozen = frozen;
        let mut trainer = setup.trainer(&data, &masking);
        let before = trainer.snapshot().unwrap().model;
        let losses: Vec<f64> =
            (0..8).map(|_| trainer.train_step().unwrap().loss.double_value(&[])).collect();
        let snapshot = trainer.snapshot().unwrap();
        assert!(snapshot.model.values().all(|tensor| tensor.kind() == Kind::Float));
        assert!(distance(&snapshot.model, &before) > 0.0);
        (losses, snapshot.model)
    };
    let (exact, all) = run(Precision::Float32, Frozen::default());
    let (short, _) = run(Precision::Bfloat16, Frozen::default());
    assert!(exact != short, "the short format was not used");
    for (exact, short) in exact.iter().zip(&short) {
        assert!((exact - short).abs() < 0.02 * exact, "{short} instead of {exact}");
    }
    // The decoder shares the word embeddings: frozen there means frozen here.
    let (_, few) = run(Precision::Float32, Frozen { embeddings: true, layers: 1 });
    let word = "bert.embeddings.word_embeddings.weight";
    assert!(all.contains_key(word) && !few.contains_key(word));
    assert!(few.contains_key("cls.predictions.bias"));
}

#[test]
fn a_model_of_hidden_tokens_needs_hidden_tokens() {
    let data = pairs(4);
    let masking = masking(0.3);
    let trainer = Setup::new(LanguageObjective::MaskedTokens).trainer(&data, &masking);
    let TaskModel::Language(model) = trainer.model().unwrap() else { panic!("a language model") };
    let refused = Examples::of_tokens(&data).language_batch(model, &[0], Seed(1));
    assert!(refused.unwrap_err().to_string().contains("no tokens are hidden"));
}
