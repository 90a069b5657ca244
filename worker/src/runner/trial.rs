//! Training a trial up to a rung.

use std::sync::Arc;

use muster_common::evaluation::Evaluation;
use muster_common::manifest::TrialSettings;
use muster_common::metric::MetricName;
use muster_common::run::{Directive, RunExit, RunProgress, RunReport, TrainTask};
use muster_common::storage::CheckpointKey;

use super::Directives;
use super::outbox::Outbox;
use super::task::{Bench, TaskError};
use crate::checkpoint::{self, Origin, SaveError, Snapshot, Writer};
use crate::metrics::{MetricOrigin, MetricSink};
use crate::prefix::{Prefix, PrefixSplit};
use crate::train::{Examples, Host, Outcome, Trainer, TrialPlan, evaluate, train_until};

/// Ranks of a run are 0, 1, ...; a run has one for now.
const RANK: u32 = 0;

pub(super) fn train(bench: &mut Bench<'_>, task: &TrainTask) -> Result<RunExit, TaskError> {
    let manifest = &bench.spec.manifest;
    let seed = bench.trial_seed(&task.trial);
    let max_length = manifest.max_length(&task.assignment);
    let data = bench.warm.data(bench.spec, &bench.store, bench.runtime, max_length)?;
    let (pretrained, model) = bench.warm.model(bench.spec, &data, seed)?;
    let prefix = Prefix::find(&bench.store, &pretrained, &model, &data)?;
    let go_on = bench.watch_prefix();
    let Some(cache) = bench.warm.prefix(prefix, &model, &data, bench.runtime, go_on)? else {
        return Ok(bench.told());
    };
    let (training, validation) = match &cache {
        Some(cache) => (
            Examples::of_prefix(&data.train, cache, PrefixSplit::Train),
            Examples::of_prefix(&data.validation, cache, PrefixSplit::Validation),
        ),
        None => (Examples::of_tokens(&data.train), Examples::of_tokens(&data.validation)),
    };
    let plan = TrialPlan {
        settings: TrialSettings::resolve(&manifest.hyperparameters, &task.assignment),
        seed,
        total_steps: task.total_steps,
        data: data.summary.cache.clone(),
        rank: RANK,
    };
    let mut trainer = Trainer::new(plan, model, training)?;
    if let Some(key) = &task.resume_from {
        let snapshot = checkpoint::load(bench.runtime, &bench.store, key, &pretrained.sha256)?;
        trainer.restore(snapshot)?;
        tracing::info!(trial = %task.trial, attempt = %task.attempt, "resumed from {key}");
    }
    let mut session = Session::new(bench, task, pretrained.sha256.clone());
    let save_every = manifest.checkpoint.every_steps;
    match train_until(&mut trainer, task.target_step, save_every, &mut session)? {
        Outcome::Diverged { step } => {
            session.wait()?;
            Ok(RunExit::Diverged { step })
        }
        Outcome::Told(Directive::Cancel) => Ok(RunExit::Canceled),
        Outcome::Told(Directive::Preempt) => {
            session.save_now(&trainer)?;
            Ok(RunExit::Preempted)
        }
        Outcome::Reached => {
            // The checkpoint is written while the validation split is scored.
            session.save(trainer.snapshot()?)?;
            let evaluation = evaluate(trainer.model(), validation, || bench.go_on())?;
            session.wait()?;
            match evaluation {
                None => Ok(bench.told()),
                Some(evaluation) => session.evaluated(trainer.step(), evaluation),
            }
        }
    }
}

/// What the training loop sees of the world.
struct Session {
    directives: Directives,
    outbox: Outbox,
    metrics: Arc<MetricSink>,
    writer: Writer,
    generation: muster_common::id::Generation,
    last_saved: Option<u64>,
}

impl Session {
    fn new(
        bench: &Bench<'_>,
        task: &TrainTask,
        pretrained: muster_common::digest::ContentHash,
    ) -> Self {
        let origin = MetricOrigin {
            trial: task.trial.clone(),
            attempt: task.attempt,
            rank: RANK,
            resumed_from: task.resume_from.as_ref().map_or(0, |key| key.step),
        };
        let metrics = Arc::new(MetricSink::new(bench.store.clone(), origin, bench.runtime));
        let origin = Origin {
            trial: task.trial.clone(),
            generation: bench.spec.generation,
            attempt: task.attempt,
            parent: task.resume_from.clone(),
            pretrained,
        };
        let flushed = Arc::clone(&metrics);
        let before_commit = Arc::new(move || flushed.flush().map_err(|error| error.to_string()));
        let writer = Writer::new(bench.runtime.clone(), bench.store.clone(), origin, before_commit);
        Self {
            directives: bench.directives.clone(),
            outbox: bench.outbox.clone(),
            metrics,
            writer,
            generation: bench.spec.generation,
            last_saved: task.resume_from.as_ref().map(|key| key.step),
        }
    }

    fn committed(&self, checkpoint: CheckpointKey) {
        self.outbox.report(RunReport::CheckpointCommitted { checkpoint });
    }

    /// Waits for the checkpoint on its way and reports it.
    fn wait(&mut self) -> Result<(), SaveError> {
        if let Some(key) = self.writer.finish()? {
            self.committed(key);
        }
        Ok(())
    }

    /// Saves what has been trained since the last checkpoint and waits until it is committed.
    fn save_now(&mut self, trainer: &Trainer<'_>) -> Result<(), TaskError> {
        if trainer.step() > self.last_saved.unwrap_or(0) {
            self.save(trainer.snapshot()?)?;
        }
        Ok(self.wait()?)
    }

    /// Records and reports the scores of a rung.
    fn evaluated(&mut self, step: u64, evaluation: Evaluation) -> Result<RunExit, TaskError> {
        self.record(step, MetricName::VALIDATION_ACCURACY, evaluation.accuracy());
        self.record(step, MetricName::VALIDATION_MACRO_F1, evaluation.macro_f1());
        self.record(step, MetricName::VALIDATION_LOSS, evaluation.loss);
        let flushed = self.metrics.flush();
        flushed.map_err(|error| TaskError::Metrics { step, reason: error.to_string() })?;
        if !evaluation.loss.is_finite() {
            return Ok(RunExit::Diverged { step });
        }
        self.outbox.report(RunReport::Evaluated { step, evaluation });
        Ok(RunExit::Completed)
    }
}

impl Host for Session {
    fn directive(&mut self) -> Option<Directive> {
        self.directives.of(self.generation)
    }

    fn record(&mut self, step: u64, name: MetricName, value: f64) {
        self.metrics.record(step, name, value);
    }

    fn progress(&mut self, progress: RunProgress) {
        self.outbox.progress(progress);
    }

    fn save(&mut self, snapshot: Snapshot) -> Result<(), SaveError> {
        self.last_saved = Some(snapshot.progress.step);
        if let Some(before) = self.writer.begin(snapshot)? {
            self.committed(before);
        }
        Ok(())
    }
}
