//! What a trial's settings do to its weights: how a batch is cut changes nothing, unfreezing and
//! layer-wise rates act on the layers they name, averages and the best weights are what is scored and
//! exported, and short number formats stay close to the long one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::path::Path;

use muster_common::manifest::{
    Assignment, Budget, ClassWeights, Precision, ScheduleShape, SearchSpace, TrainingSettings,
    TrialSettings, Unfreezing, WeightAverage,
};
use muster_common::seed::Seed;
use muster_tests::gradient::{alone, copied, distance, summed_gradient};
use muster_worker::data::Split;
use muster_worker::model::{Classifier, Depth, Frozen, NamedTensors, Pretrained, TaskModel};
use muster_worker::train::{
    Examples, Scoring, Tally, TrainError, Trainer, TrialPlan, evaluate, evaluated_weights,
};
use tch::{Device, Kind};

/// Sequences of 3 to 20 tokens in three classes.
fn sentences(count: u32) -> Split {
    let mut draws = Seed(21).draws();
    let (mut examples, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let length = 3 + draws.below(18);
        let token = |_| u32::try_from(3 + draws.below(80)).unwrap();
        examples.push((0..length).map(token).collect());
        labels.push(u32::try_from(draws.below(3)).unwrap());
    }
    Split::new(examples, labels)
}

struct Setup {
    settings: TrialSettings,
    training: TrainingSettings,
    frozen: Frozen,
}

impl Setup {
    fn new() -> Self {
        let settings = TrialSettings {
            learning_rate: 1e-3,
            global_batch_size: 32,
            micro_batch_size: 32,
            dropout: Some(0.0),
            warmup_ratio: 0.0,
            ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
        };
        Self { settings, training: TrainingSettings::default(), frozen: Frozen::default() }
    }

    fn try_trainer<'a>(&self, data: &'a Split) -> Result<Trainer<'a>, TrainError> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hf/tiny");
        let pretrained = Pretrained::read(&tiny).unwrap();
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let model =
            Classifier::to_train(&pretrained, labels, self.frozen, Seed(3), Device::Cpu).unwrap();
        let plan = TrialPlan {
            settings: self.settings.clone(),
            training: self.training.clone(),
            stopping_objective: None,
            seed: Seed(4),
            total_steps: 40,
            data: String::new(),
            rank: 0,
        };
        Trainer::new(plan, model, Examples::of_tokens(data))
    }

    fn trainer<'a>(&self, data: &'a Split) -> Trainer<'a> {
        self.try_trainer(data).unwrap()
    }
}

fn weights(trainer: &Trainer<'_>) -> NamedTensors {
    copied(trainer.model().unwrap().trained().map(|(name, tensor)| (name, tensor.shallow_clone())))
}

#[test]
fn how_a_batch_is_cut_does_not_change_its_gradient() {
    let _alone = alone();
    let data = sentences(32);
    let drawn: Vec<u32> = (0..32).collect();
    let mut sorted = drawn.clone();
    sorted.sort_by_key(|index| data.length(*index as usize));
    let mut setup = Setup::new();
    for weighing in [ClassWeights::Equal, ClassWeights::Balanced] {
        setup.training.class_weights = weighing;
        setup.settings.label_smoothing = 0.1;
        // A full window and one that no micro-batch divides.
        for count in [32, 27] {
            setup.settings.micro_batch_size = 32;
            let (whole, loss) =
                summed_gradient(|_| setup.trainer(&data), &[&drawn[..count]]).unwrap();
            for micro_batch_size in [8, 5, 1] {
                setup.settings.micro_batch_size = micro_batch_size;
                let mut by_length = sorted.clone();
                by_length.retain(|index| (*index as usize) < count);
                // Short and long ones side by side in a micro-batch, and those of like lengths; one rank,
                // and two of unequal share.
                for examples in [&drawn[..count], &by_length[..]] {
                    for shards in [vec![examples], vec![&examples[..11], &examples[11..]]] {
                        let (cut, cut_loss) =
                            summed_gradient(|_| setup.trainer(&data), &shards).unwrap();
                        let off = distance(&cut, &whole);
                        assert!(off < 2e-6, "{count} in {micro_batch_size}: {off}");
                        assert!((cut_loss - loss).abs() < 1e-6, "{cut_loss} and {loss}");
                    }
                }
            }
        }
    }
}

/// Parameters whose values differ.
fn changed(before: &NamedTensors, after: &NamedTensors) -> Vec<Depth> {
    let differs = |name: &&String| before[*name] != after[*name];
    let mut depths: Vec<Depth> =
        before.keys().filter(differs).map(|name| Depth::of(name)).collect();
    depths.sort();
    depths.dedup();
    depths
}

#[test]
fn layers_join_from_the_top_and_what_has_not_joined_gets_nothing() {
    let _alone = alone();
    let data = sentences(64);
    let mut setup = Setup::new();
    setup.training.unfreeze = Some(Unfreezing { every: Budget::Steps(2), layers: 1 });
    let mut trainer = setup.trainer(&data);
    let num_layers = trainer.model().unwrap().config().num_hidden_layers;
    for step in 1..=2 * (num_layers as u64 + 2) {
        let before = weights(&trainer);
        let normalizer = trainer.normalizer(1, &[0, 1, 2]);
        let _loss = trainer.accumulate(step, &[0, 1, 2], normalizer).unwrap();
        let num_groups = usize::try_from((step - 1) / 2).unwrap();
        let lowest = num_layers.saturating_sub(num_groups);
        let joined = |depth: Depth| match depth {
            Depth::Embeddings => num_groups > num_layers,
            Depth::Layer(number) => number >= lowest,
            Depth::Pooler | Depth::Head => true,
        };
        for (name, tensor) in trainer.model().unwrap().trained() {
            // No gradient and no graph: nothing was computed backwards there.
            let has = tensor.requires_grad() && tensor.grad().defined();
            assert_eq!(has, joined(Depth::of(name)), "step {step}: {name}");
        }
        trainer.train_step().unwrap();
        let mut wanted = vec![Depth::Embeddings];
        wanted.extend((0..num_layers).map(Depth::Layer));
        wanted.extend([Depth::Pooler, Depth::Head]);
        wanted.retain(|depth| joined(*depth));
        assert_eq!(changed(&before, &weights(&trainer)), wanted, "step {step}");
    }
}

#[test]
fn lower_layers_learn_more_slowly() {
    let _alone = alone();
    let data = sentences(32);
    let mut setup = Setup::new();
    setup.settings.weight_decay = 0.0;
    setup.settings.layer_decay = 0.5;
    setup.training.schedule = ScheduleShape::Constant;
    let mut trainer = setup.trainer(&data);
    let num_layers = trainer.model().unwrap().config().num_hidden_layers;
    let before = weights(&trainer);
    trainer.train_step().unwrap();
    for (name, tensor) in weights(&trainer) {
        // The first step of AdamW moves every weight with a gradient by the learning rate.
        let moved = (tensor - &before[&name]).abs().max().double_value(&[]);
        let places = i32::try_from(Depth::of(&name).below_head(num_layers)).unwrap();
        let wanted = 1e-3 * 0.5f64.powi(places);
        // A key's bias moves all scores of a query alike: its gradient is rounding error.
        if !name.ends_with("self.key.bias") {
            assert!((moved / wanted - 1.0).abs() < 0.02, "{name}: {moved} instead of {wanted}");
        }
    }
}

#[test]
fn averages_are_what_is_scored_and_exported() {
    let _alone = alone();
    let data = sentences(64);
    for average in [
        WeightAverage::Ema { decay: 0.8 },
        WeightAverage::Checkpoints { last: 2, every: Budget::Steps(3) },
    ] {
        let mut setup = Setup::new();
        setup.training.average = average;
        let mut trainer = setup.trainer(&data);
        let mut by_step = Vec::new();
        for _ in 0..10 {
            trainer.train_step().unwrap();
            by_step.push(weights(&trainer));
        }
        // By the definition, from the weights of every step; counted from 0 here.
        let wanted: NamedTensors = by_step[0]
            .keys()
            .map(|name| {
                let at = |step: usize| by_step[step][name].shallow_clone();
                let mean = match average {
                    WeightAverage::Ema { decay } => {
                        (1..10).fold(at(0), |mean, step| mean * decay + at(step) * (1.0 - decay))
                    }
                    _ => (at(5) + at(8)) / 2.0,
                };
                (name.clone(), mean)
            })
            .collect();
        let shown = trainer.with_evaluated_weights(|model| {
            copied(model.trained().map(|(name, tensor)| (name, tensor.shallow_clone())))
        });
        assert!(distance(&shown.unwrap(), &wanted) < 1e-6);
        // The weights in training are untouched.
        assert!(changed(&weights(&trainer), &by_step[9]).is_empty());
        let snapshot = trainer.snapshot().unwrap();
        let exported = evaluated_weights(snapshot, trainer.model().unwrap()).unwrap();
        assert!(distance(&exported, &wanted) < 1e-6);
    }
}

fn tally(model: &TaskModel, data: &Split, scoring: Scoring) -> Tally {
    let go_on = || ControlFlow::Continue(());
    evaluate(model, Examples::of_tokens(data), scoring, go_on).unwrap().unwrap()
}

#[test]
fn every_example_is_scored_once_whatever_the_number_of_ranks() {
    let _alone = alone();
    let data = sentences(333);
    let trainer = Setup::new().trainer(&data);
    let alone = tally(trainer.model().unwrap(), &data, Scoring::alone(Precision::Float32));
    let wanted = alone.evaluation(3);
    assert_eq!(wanted.num_examples(), 333);
    let rows = alone.into_rows();
    assert!(rows.iter().map(|row| row.row).eq(0..333));
    for num_ranks in [2, 3, 8] {
        let mut whole = Tally::default();
        for rank in 0..num_ranks {
            let scoring = Scoring { precision: Precision::Float32, rank, num_ranks };
            whole.merge(tally(trainer.model().unwrap(), &data, scoring));
        }
        let found = whole.evaluation(3);
        assert_eq!((&found.confusion, found.auc), (&wanted.confusion, wanted.auc));
        assert!((found.loss - wanted.loss).abs() < 1e-12);
        assert_eq!(whole.into_rows(), rows);
    }
}

#[test]
fn bfloat16_stays_close_to_float32_over_float32_weights() {
    let _alone = alone();
    let data = sentences(64);
    let run = |precision: Precision| {
        let mut setup = Setup::new();
        setup.training.precision = precision;
        let mut trainer = setup.trainer(&data);
        let losses: Vec<f64> =
            (0..12).map(|_| trainer.train_step().unwrap().loss.double_value(&[])).collect();
        for (name, tensor) in trainer.model().unwrap().trained() {
            assert_eq!(tensor.kind(), Kind::Float, "{name}");
        }
        (losses, trainer.snapshot().unwrap())
    };
    let (exact, _) = run(Precision::Float32);
    let (short, snapshot) = run(Precision::Bfloat16);
    assert!(exact != short, "the short format was not used");
    for (exact, short) in exact.iter().zip(&short) {
        assert!((exact - short).abs() < 0.02 * exact, "{short} instead of {exact}");
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&exact[8..]) < mean(&exact[..4]), "nothing was learned: {exact:?}");
    let all = snapshot.model.values().chain(snapshot.optimizer.values());
    assert!(all.into_iter().all(|tensor| tensor.kind() == Kind::Float));
}

#[test]
fn float16_is_refused_on_a_cpu() {
    let mut setup = Setup::new();
    setup.training.precision = Precision::Float16;
    let data = sentences(8);
    let Err(error) = setup.try_trainer(&data) else { panic!("float16 was accepted on a CPU") };
    assert!(error.is_permanent() && error.to_string().contains("bfloat16"), "{error}");
}
