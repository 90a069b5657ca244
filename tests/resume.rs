//! A trial that is killed at any step and resumed from its last checkpoint ends with the same bits
//! as one that was never interrupted: weights, optimizer and data position, dropout on.
//!
//! These tests run the trainer in this process and kill it by dropping it; those that kill real
//! processes are elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_common::evaluation::Evaluation;
use muster_common::id::{Attempt, Generation, TrialId};
use muster_common::manifest::{
    Assignment, Budget, EarlyStopping, SearchSpace, TrainingSettings, TrialSettings, Unfreezing,
    WeightAverage,
};
use muster_common::metric::MetricName;
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::run::{Directive, RunProgress};
use muster_common::seed::Seed;
use muster_common::storage::{CheckpointKey, Store};
use muster_worker::checkpoint::{self, Origin, Snapshot, Writer};
use muster_worker::data::Split;
use muster_worker::model::{Classifier, Frozen, ModelError, NamedTensors, Pretrained, TaskModel};
use muster_worker::train::{
    Examples, Host, Outcome, Scoring, TrainError, Trainer, TrialPlan, evaluate, train_until,
};
use tch::{Device, Kind};
use tokio::runtime::Runtime;

const TOTAL_STEPS: u64 = 23;

/// Libtorch's generator belongs to the process, so trainings must not overlap.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    tch::set_num_threads(1);
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is trained, and how.
#[derive(Debug, Clone, Default)]
struct Case {
    frozen: Frozen,
    training: TrainingSettings,
}

/// Every kind of training state at least once.
fn cases() -> Vec<Case> {
    let stopping = EarlyStopping { metric: None, patience: 1000, min_change: 0.01 };
    let early_stopping = Some(stopping);
    let frozen = Frozen { embeddings: true, layers: 2 };
    let unfreeze = Some(Unfreezing { every: Budget::Steps(4), layers: 1 });
    let checkpoints = WeightAverage::Checkpoints { last: 3, every: Budget::Steps(2) };
    let plain = TrainingSettings::default;
    let evaluate_every = Some(Budget::Steps(3));
    vec![
        Case::default(),
        Case { frozen, training: plain() },
        Case {
            training: TrainingSettings {
                unfreeze,
                average: WeightAverage::Ema { decay: 0.9 },
                ..plain()
            },
            ..Case::default()
        },
        Case {
            training: TrainingSettings {
                average: checkpoints,
                evaluate_every,
                early_stopping,
                ..plain()
            },
            ..Case::default()
        },
        Case { frozen, training: TrainingSettings { evaluate_every, early_stopping, ..plain() } },
        Case {
            frozen: Frozen { embeddings: false, layers: 1 },
            training: TrainingSettings { unfreeze, average: checkpoints, ..plain() },
        },
    ]
}

fn settings() -> TrialSettings {
    TrialSettings {
        learning_rate: 1e-3,
        global_batch_size: 8,
        micro_batch_size: 5,
        dropout: Some(0.2),
        ..TrialSettings::resolve(&SearchSpace::new(), &Assignment::new())
    }
}

struct Laboratory {
    runtime: Runtime,
    store: Store,
    _directory: tempfile::TempDir,
    pretrained: Pretrained,
    data: Split,
}

impl Laboratory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hf/tiny");
        let mut draws = Seed(11).draws();
        let mut examples = Vec::new();
        let mut labels = Vec::new();
        // 30 examples in batches of 8: every epoch ends with a partial batch.
        for _ in 0..30 {
            let length = 3 + draws.below(15);
            let token = |_| u32::try_from(3 + draws.below(80)).unwrap();
            examples.push((0..length).map(token).collect());
            labels.push(u32::try_from(draws.below(3)).unwrap());
        }
        Self {
            runtime: Runtime::new().unwrap(),
            store,
            _directory: directory,
            pretrained: Pretrained::read(&tiny).unwrap(),
            data: Split::new(examples, labels),
        }
    }

    fn trainer(&self, seed: Seed, case: &Case) -> Trainer<'_> {
        self.trainer_with(seed, case, settings())
    }

    fn trainer_with(&self, seed: Seed, case: &Case, settings: TrialSettings) -> Trainer<'_> {
        let Case { frozen, training } = case;
        let plan = TrialPlan {
            settings,
            training: training.clone(),
            stopping_objective: Some(Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min }),
            seed,
            total_steps: TOTAL_STEPS,
            data: "sentences".to_owned(),
            rank: 0,
        };
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let model =
            Classifier::to_train(&self.pretrained, labels, *frozen, seed, Device::Cpu).unwrap();
        Trainer::new(plan, model, Examples::of_tokens(&self.data)).unwrap()
    }

    fn writer(&self, generation: u64, parent: Option<CheckpointKey>) -> Writer {
        let origin = Origin {
            trial: TrialId { experiment: "resume-1".parse().unwrap(), number: 1 },
            generation: Generation(generation),
            attempt: Attempt(u32::try_from(generation).unwrap()),
            parent,
            pretrained: self.pretrained.sha256.clone(),
        };
        let runtime = self.runtime.handle().clone();
        Writer::new(runtime, self.store.clone(), origin, Arc::new(|| Ok(())))
    }

    fn load(&self, key: &CheckpointKey) -> Snapshot {
        let pretrained = &self.pretrained.sha256;
        checkpoint::load(self.runtime.handle(), &self.store, key, pretrained).unwrap()
    }
}

/// Stands for the runner: writes checkpoints and remembers the committed ones.
struct Recorder<'a> {
    data: &'a Split,
    writer: Writer,
    committed: Vec<CheckpointKey>,
    losses: Vec<(u64, u64)>,
}

impl<'a> Recorder<'a> {
    fn new(laboratory: &'a Laboratory, writer: Writer) -> Self {
        Self { data: &laboratory.data, writer, committed: Vec::new(), losses: Vec::new() }
    }
}

impl Host for Recorder<'_> {
    fn measure(&mut self, _step: u64) {}

    fn directive(&mut self) -> Option<Directive> {
        None
    }
    fn record(&mut self, step: u64, name: MetricName, value: f64) {
        if name == MetricName::TRAIN_LOSS {
            self.losses.push((step, value.to_bits()));
        }
    }
    fn progress(&mut self, _: RunProgress) {}
    fn evaluate(&mut self, _: u64, model: &TaskModel) -> Result<Option<Evaluation>, ModelError> {
        let scoring = Scoring::alone(muster_common::manifest::Precision::Float32);
        let examples = Examples::of_tokens(self.data);
        let tally = evaluate(model, examples, scoring, || ControlFlow::Continue(()))?;
        Ok(tally.map(|tally| tally.evaluation(3)))
    }
    fn save(&mut self, trainer: &Trainer<'_>) -> Result<(), TrainError> {
        self.committed.extend(self.writer.begin(trainer.snapshot()?)?);
        Ok(())
    }
}

fn bits(tensors: &NamedTensors) -> Vec<(String, Vec<u32>)> {
    let flat = |tensor: &tch::Tensor| Vec::<f32>::try_from(tensor.view([-1])).unwrap();
    let bits = |tensor| flat(tensor).into_iter().map(f32::to_bits).collect();
    tensors.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
}

fn assert_same_bits(found: &Snapshot, wanted: &Snapshot, what: &str) {
    assert_eq!(found.progress, wanted.progress, "{what}");
    assert!(bits(&found.model) == bits(&wanted.model), "{what}: weights differ");
    assert!(bits(&found.optimizer) == bits(&wanted.optimizer), "{what}: optimizer differs");
    assert!(bits(&found.average) == bits(&wanted.average), "{what}: averages differ");
    assert!(bits(&found.best) == bits(&wanted.best), "{what}: best weights differ");
}

/// Trains, dies at every step of `deaths` and continues from the last committed checkpoint.
fn with_deaths(
    laboratory: &Laboratory,
    seed: Seed,
    case: &Case,
    save_every: u64,
    deaths: &[u64],
) -> (Snapshot, Vec<(u64, u64)>) {
    let mut resume_from: Option<CheckpointKey> = None;
    let mut losses: Vec<(u64, u64)> = Vec::new();
    for (generation, stop) in (1..).zip(deaths.iter().copied().chain([TOTAL_STEPS])) {
        let mut trainer = laboratory.trainer(seed, case);
        if let Some(key) = &resume_from {
            trainer.restore(laboratory.load(key)).unwrap();
        }
        let begun = trainer.step();
        losses.retain(|(step, _)| *step <= begun);
        let writer = laboratory.writer(generation, resume_from.clone());
        let mut host = Recorder::new(laboratory, writer);
        let outcome = train_until(&mut trainer, stop, Some(save_every), &mut host).unwrap();
        assert_eq!(outcome, Outcome::Reached);
        losses.append(&mut host.losses);
        if stop == TOTAL_STEPS {
            return (trainer.snapshot().unwrap(), losses);
        }
        // What was handed to the writer before the death may be committed after it.
        host.committed.extend(host.writer.finish().unwrap());
        resume_from = host.committed.last().cloned().or(resume_from);
    }
    unreachable!("the last stop is the end")
}

#[test]
fn killed_trials_end_with_the_bits_of_an_uninterrupted_one() {
    let _alone = alone();
    for (number, case) in (0..12).zip(cases().into_iter().cycle()) {
        let laboratory = Laboratory::new();
        let seed = Seed(100 + number);
        let mut draws = Seed(number).child("deaths", 0).draws();
        let save_every = 1 + draws.below(6);
        let mut deaths: Vec<u64> = (0..3).map(|_| 1 + draws.below(TOTAL_STEPS - 1)).collect();
        deaths.sort_unstable();
        let what = format!("seed {number}: saved every {save_every}, killed at {deaths:?}");
        let (wanted, wanted_losses) = with_deaths(&laboratory, seed, &case, TOTAL_STEPS, &[]);
        let (found, losses) = with_deaths(&laboratory, seed, &case, save_every, &deaths);
        let training = &case.training;
        assert_eq!(wanted.average.is_empty(), training.average == WeightAverage::Off);
        assert_eq!(wanted.best.is_empty(), training.early_stopping.is_none());
        assert_same_bits(&found, &wanted, &what);
        assert_eq!(losses, wanted_losses, "{what}");
    }
}

#[test]
fn dropout_is_on_and_differs_between_steps_and_seeds() {
    let _alone = alone();
    let laboratory = Laboratory::new();
    let end = |seed| with_deaths(&laboratory, Seed(seed), &Case::default(), 100, &[]).0;
    assert!(bits(&end(1).model) != bits(&end(2).model));
    let trainer = laboratory.trainer(Seed(1), &Case::default());
    let TaskModel::Classifier(model) = trainer.model().unwrap() else { panic!("it classifies") };
    let batch = model.batch(&[&[5, 6, 7, 8]]).unwrap();
    let logits = |p| model.forward(&batch, p).unwrap();
    tch::manual_seed(1);
    let (first, second) = (logits(0.5), logits(0.5));
    assert!(first != second && logits(0.0) == logits(0.0));
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused() {
    let _alone = alone();
    let laboratory = Laboratory::new();
    let mut trainer = laboratory.trainer(Seed(3), &Case::default());
    trainer.train_step().unwrap();
    let mut writer = laboratory.writer(1, None);
    writer.begin(trainer.snapshot().unwrap()).unwrap();
    let key = writer.finish().unwrap().unwrap();

    let mut other = laboratory.trainer(Seed(4), &Case::default());
    let error = other.restore(laboratory.load(&key)).unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("seed"), "{error}");

    let path = laboratory.store.local_path(&key.part("optimizer")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let pretrained = &laboratory.pretrained.sha256;
    let error = checkpoint::load(laboratory.runtime.handle(), &laboratory.store, &key, pretrained)
        .unwrap_err();
    assert!(error.to_string().contains("`optimizer`"), "{error}");
    std::fs::remove_file(laboratory.store.local_path(&key.index()).unwrap()).unwrap();
    let gone = checkpoint::load(laboratory.runtime.handle(), &laboratory.store, &key, pretrained);
    assert!(gone.is_err(), "a checkpoint without an index does not exist");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_trial_and_is_not_saved() {
    let _alone = alone();
    let laboratory = Laboratory::new();
    let mut trainer = laboratory.trainer(Seed(5), &Case::default());
    let mut snapshot = trainer.snapshot().unwrap();
    let poison = snapshot.model.get_mut("classifier.bias").unwrap();
    let _filled = poison.fill_(f64::NAN);
    assert_eq!(poison.kind(), Kind::Float);
    trainer.restore(snapshot).unwrap();
    let mut host = Recorder::new(&laboratory, laboratory.writer(1, None));
    let outcome = train_until(&mut trainer, TOTAL_STEPS, Some(1), &mut host).unwrap();
    assert_eq!(outcome, Outcome::Diverged { step: 1 });
    assert!(host.writer.finish().unwrap().is_none() && host.committed.is_empty());
}

#[test]
fn a_killed_trial_gives_up_where_an_uninterrupted_one_does() {
    let _alone = alone();
    let laboratory = Laboratory::new();
    let stopping = EarlyStopping { metric: None, patience: 3, min_change: 0.02 };
    let training = TrainingSettings {
        evaluate_every: Some(Budget::Steps(2)),
        early_stopping: Some(stopping),
        ..TrainingSettings::default()
    };
    let case = Case { training, ..Case::default() };
    let run = |deaths: &[u64]| {
        let mut resume_from = None;
        for (generation, stop) in (1..).zip(deaths.iter().copied().chain([TOTAL_STEPS])) {
            let mut trainer = laboratory.trainer(Seed(8), &case);
            if let Some(key) = &resume_from {
                trainer.restore(laboratory.load(key)).unwrap();
            }
            let writer = laboratory.writer(generation, resume_from.clone());
            let mut host = Recorder::new(&laboratory, writer);
            let outcome = train_until(&mut trainer, stop, Some(1), &mut host).unwrap();
            host.committed.extend(host.writer.finish().unwrap());
            if outcome == Outcome::GaveUp {
                return (trainer.step(), trainer.snapshot().unwrap());
            }
            resume_from = host.committed.last().cloned().or(resume_from);
        }
        panic!("the trial never gave up");
    };
    let (step, wanted) = run(&[]);
    assert!((8..TOTAL_STEPS).contains(&step), "gave up after step {step}");
    let best = wanted.progress.stopping.best.as_ref().unwrap();
    assert_eq!(best.step, step - 2 * 3);
    // One death comes right after an evaluation, one between two.
    let (found_step, found) = run(&[2, 5, step - 1]);
    assert_eq!(found_step, step);
    assert_same_bits(&found, &wanted, "given up");

    // One death comes when the checkpoint is there and nobody was told that the trial has given up.
    let mut writer = laboratory.writer(9, None);
    writer.begin(found).unwrap();
    let key = writer.finish().unwrap().unwrap();
    let go_on = |trainer: &mut Trainer<'_>, target| {
        let mut host = Recorder::new(&laboratory, laboratory.writer(10, Some(key.clone())));
        train_until(trainer, target, None, &mut host).unwrap()
    };
    let mut trainer = laboratory.trainer(Seed(8), &case);
    trainer.restore(laboratory.load(&key)).unwrap();
    assert_eq!(go_on(&mut trainer, TOTAL_STEPS), Outcome::GaveUp);
    assert_eq!(trainer.step(), step);
    assert_same_bits(&trainer.snapshot().unwrap(), &wanted, "given up, and told later");

    // Another experiment that continues the trial gives it its patience back, and keeps what was best.
    let mut trainer = laboratory.trainer(Seed(8), &case);
    trainer.depart(laboratory.load(&key)).unwrap();
    assert!(!trainer.gives_up() && trainer.best() == Some(best));
    assert_eq!(go_on(&mut trainer, step + 1), Outcome::Reached);
    assert_eq!(trainer.step(), step + 1);
    let snapshot = trainer.snapshot().unwrap();
    assert!(bits(&snapshot.best) == bits(&wanted.best));
    assert!(bits(&snapshot.model) != bits(&wanted.model));
}

/// In a population a trial goes on from another one's checkpoint.
#[test]
fn a_trial_goes_on_from_anothers_checkpoint_with_other_hyperparameters() {
    let _alone = alone();
    for (number, case) in
        (0..).zip(cases().into_iter().filter(|c| c.training.early_stopping.is_none()))
    {
        let laboratory = Laboratory::new();
        let seed = Seed(200 + number);
        let (wanted, _) = with_deaths(&laboratory, seed, &case, TOTAL_STEPS, &[]);
        let mut parent = laboratory.trainer(seed, &case);
        let mut host = Recorder::new(&laboratory, laboratory.writer(1, None));
        train_until(&mut parent, 11, None, &mut host).unwrap();
        host.writer.begin(parent.snapshot().unwrap()).unwrap();
        let key = host.writer.finish().unwrap().unwrap();
        let end = |settings: TrialSettings| {
            let mut child = laboratory.trainer_with(seed, &case, settings);
            child.adopt(laboratory.load(&key)).unwrap();
            assert_eq!(child.step(), 11);
            let mut host = Recorder::new(&laboratory, laboratory.writer(2, Some(key.clone())));
            train_until(&mut child, TOTAL_STEPS, None, &mut host).unwrap();
            child.snapshot().unwrap()
        };
        // With the same hyperparameters the curve is the other's, to the last bit.
        assert_same_bits(&end(settings()), &wanted, "adopted");
        let plain = settings();
        let others = [
            TrialSettings { learning_rate: 3e-3, ..plain.clone() },
            TrialSettings { weight_decay: 0.5, ..plain.clone() },
            TrialSettings { dropout: Some(0.5), ..plain.clone() },
            TrialSettings { layer_decay: 0.5, ..plain.clone() },
            TrialSettings { label_smoothing: 0.2, ..plain.clone() },
            TrialSettings { max_grad_norm: Some(0.01), ..plain.clone() },
            TrialSettings { adam_epsilon: 1e-3, ..plain.clone() },
        ];
        for other in others {
            let found = end(other.clone());
            assert!(bits(&found.model) != bits(&wanted.model), "{other:?} changes nothing");
            assert_eq!(found.progress.settings, other);
        }
        for other in [
            TrialSettings { global_batch_size: 16, ..plain.clone() },
            TrialSettings { warmup_steps: 5, ..plain.clone() },
            TrialSettings { adam_beta2: 0.9, ..plain },
        ] {
            let mut child = laboratory.trainer_with(seed, &case, other);
            let error = child.adopt(laboratory.load(&key)).unwrap_err();
            assert!(error.is_permanent() && error.to_string().contains("another"), "{error}");
        }
    }
}
