//! Training a trial up to a rung.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use muster_common::digest::ContentHash;
use muster_common::evaluation::Evaluation;
use muster_common::manifest::{Precision, SearcherSettings, TrialSettings};
use muster_common::metric::{MetricName, MetricSeries};
use muster_common::objective::ObjectiveMetric;
use muster_common::run::{Directive, RunExit, RunProgress, RunReport, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_common::telemetry::one_line;

use super::outbox::Outbox;
use super::task::{Bench, TaskError};
use super::{Directives, failure};
use crate::checkpoint::{self, Colleagues, Origin, SaveError, Snapshot, Writer};
use crate::collective::{Group, Membership, RankFailure, Rendezvous};
use crate::data::{Data, Dataset};
use crate::equipment;
use crate::ffi::ReductionTimes;
use crate::machine::{Usage, host_name};
use crate::metrics::{MetricOrigin, MetricSink};
use crate::model::{ModelError, TaskModel};
use crate::prefix::{Coverage, Prefix, PrefixCache, PrefixSplit};
use crate::train::{
    Examples, Host, Masking, Outcome, Scoring, TrainError, Trainer, TrialPlan, Verdict, evaluate,
    gather, train_until,
};

/// Longest wait of the other ranks for rank 0 while it hands over a checkpoint: the one before may
/// still be on its way to a slow store.
const SAVE_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// Values of one metric between two messages to live views.
const FRESH_MAX: usize = 1024;

/// Longest wait for the last metrics of a run that leaves early: a slot that was taken back is waited for.
const LAST_FLUSH: Duration = Duration::from_millis(700);
/// The same of a run that ends by itself. Its trial may have ended with it, and what comes later than the one file of
/// metrics that is made then stays beside it: a disk that stands still for a moment is waited for.
const FINAL_FLUSH: Duration = Duration::from_secs(10);

pub(super) fn train(bench: &mut Bench<'_>, task: &TrainTask) -> Result<RunExit, TaskError> {
    let Some(gang) = bench.spec.gang.clone() else { return train_as_rank(bench, task, None) };
    let membership = Membership {
        generation: bench.spec.generation,
        gang,
        step_deadline: bench.spec.manifest.training.step_deadline(),
    };
    let is_first = membership.gang.rank == 0;
    let (outbox, directives) = (bench.outbox.clone(), bench.directives.clone());
    let generation = bench.spec.generation;
    let on_failure = move |failed: &RankFailure| {
        failure::end_with_rank(&outbox, generation, directives.of(generation), failed);
    };
    let rendezvous = Rendezvous::open(membership, on_failure, || bench.go_on())?;
    let Some(rendezvous) = rendezvous else { return Ok(bench.told()) };
    if is_first {
        let address = rendezvous.address().to_string();
        bench.outbox.report(RunReport::RendezvousOpened { address });
    }
    match train_as_rank(bench, task, Some(&rendezvous)) {
        Ok(exit) => {
            rendezvous.leave();
            Ok(exit)
        }
        Err(error) => {
            let class = failure::class_of(&error);
            failure::await_word(class);
            rendezvous.fail(class, one_line(&error), error.is_permanent());
            Err(error)
        }
    }
}

fn train_as_rank(
    bench: &mut Bench<'_>,
    task: &TrainTask,
    rendezvous: Option<&Rendezvous>,
) -> Result<RunExit, TaskError> {
    let manifest = &bench.spec.manifest;
    let seed = bench.task_seed(task);
    let max_length = manifest.max_length(&task.assignment);
    let pretrained = bench.warm.pretrained(&manifest.model.pretrained)?;
    pretrained.check_max_length(max_length)?;
    let left = bench.warm.take_left(task.resume_from.as_ref(), &pretrained.sha256);
    let Some(data) = bench.data(max_length)? else { return Ok(bench.told()) };
    let (pretrained, model) = bench.warm.model(bench.spec, &data, seed)?;
    let begun = begun(bench, task, left, &pretrained.sha256)?;
    let cache = match (&model, &*data) {
        (TaskModel::Classifier(model), Data::Whole(data)) => {
            let coverage = coverage_of(bench, data, begun.as_ref());
            let prefix = Prefix::find(&bench.store, &pretrained, model, data, coverage)?;
            let go_on = bench.watch_prefix();
            bench.warm.prefix(prefix, model, data, bench.runtime, go_on)?
        }
        // What a language model reads is different each time; where layers are frozen, all is tokenized.
        _ => Some(None),
    };
    let Some(cache) = cache else { return Ok(bench.told()) };
    let masking = bench.warm.masking(bench.spec, &model)?;
    let (training, validation) = match &*data {
        Data::Stream(data) => {
            (Examples::of_stream(&data.train), Examples::of_stream(&data.validation))
        }
        Data::Whole(data) => examples_of(data, cache.as_deref(), masking.as_deref()),
    };
    let plan = plan_of(bench, task, &data.summary().cache);
    for warning in manifest.trial_warnings(&task.assignment, task.total_steps) {
        tracing::warn!("{warning}");
    }
    let mut trainer = Trainer::new(plan, model, training)?;
    let task = &go_on_from(&mut trainer, task, begun)?;
    let group = match rendezvous {
        None => None,
        Some(rendezvous) => match join(bench, rendezvous, &mut trainer, &pretrained.sha256)? {
            None => return Ok(bench.told()),
            group => group,
        },
    };
    let (labels, sha256) = (&data.summary().labels, pretrained.sha256.clone());
    let mut session = Session::new(bench, task, validation, labels, sha256, group.clone());
    let ledger = rendezvous.map(|rendezvous| Arc::new(rendezvous.ledger()) as Arc<dyn Colleagues>);
    session.writer = session.writer.with(ledger);
    let exit = train_and_conclude(bench, task, &mut trainer, &mut session)?;
    // The trial may have ended with this run, and its metrics are put in order then.
    if let Err(error) = session.metrics.flush_within(last_flush(&exit)) {
        tracing::warn!("{error}; they follow if this process lives on");
    }
    let last = session.last_checkpoint(task);
    drop(session);
    if let Some(group) = group {
        log_times(&trainer.reduction_times()?);
        drop(trainer);
        group.close();
    } else if let Some(checkpoint) = last.filter(|_| exit == RunExit::Completed) {
        leave(bench, task, checkpoint, &pretrained.sha256, trainer)?;
    }
    Ok(exit)
}

/// Where a trial is that has begun.
struct Begun {
    checkpoint: CheckpointKey,
    /// What it holds.
    snapshot: Snapshot,
    /// The last run left it, and it was not read.
    is_warm: bool,
}

/// Where the trial is, if it has begun: what the last run `left`, or what is in the store.
fn begun(
    bench: &Bench<'_>,
    task: &TrainTask,
    left: Option<(CheckpointKey, Snapshot)>,
    pretrained: &ContentHash,
) -> Result<Option<Begun>, TaskError> {
    let is_warm = left.is_some();
    let keys = task.resume_from.iter().chain(&task.earlier);
    let load = || checkpoint::load_newest(bench.runtime, &bench.store, keys, pretrained);
    let found = left.map_or_else(load, |left| Ok(Some(left)))?;
    Ok(found.map(|(checkpoint, snapshot)| Begun { checkpoint, snapshot, is_warm }))
}

/// What is computed ahead: where the trial has begun on this data, or goes on with one that has, the same as there.
fn coverage_of(bench: &Bench<'_>, data: &Dataset, begun: Option<&Begun>) -> Coverage {
    let progress = begun.map(|begun| &begun.snapshot.progress);
    match progress.filter(|progress| progress.data == data.summary.cache) {
        Some(progress) => progress.coverage,
        None => Coverage::of(bench.manifest, data.train.len()),
    }
}

/// Continues from where the trial is. Gives the task with the checkpoint that this was.
fn go_on_from(
    trainer: &mut Trainer<'_>,
    task: &TrainTask,
    begun: Option<Begun>,
) -> Result<TrainTask, TaskError> {
    let resumed = begun.as_ref().map(|begun| begun.checkpoint.clone());
    let task = TrainTask { resume_from: resumed, ..task.clone() };
    if let Some(Begun { checkpoint: key, snapshot, is_warm }) = begun {
        take_over(trainer, &task, &key, snapshot)?;
        tracing::info!(step = key.step, attempt = %task.attempt, is_warm, "resumed from {key}");
    }
    Ok(task)
}

/// Keeps the state of a trial that may go on from `checkpoint`, which holds the same.
fn leave(
    bench: &mut Bench<'_>,
    task: &TrainTask,
    checkpoint: CheckpointKey,
    pretrained: &ContentHash,
    trainer: Trainer<'_>,
) -> Result<(), TaskError> {
    let may_go_on = task.target_step < task.total_steps && trainer.step() == checkpoint.step;
    if may_go_on {
        let snapshot = trainer.into_snapshot()?;
        if snapshot.is_as_written() {
            bench.warm.leave(checkpoint, pretrained.clone(), snapshot);
        }
    }
    Ok(())
}

/// Longest wait for the last metrics of a run that ends so.
fn last_flush(exit: &RunExit) -> Duration {
    let leaves_early = matches!(exit, RunExit::Preempted | RunExit::Canceled);
    if leaves_early { LAST_FLUSH } else { FINAL_FLUSH }
}

/// Continues from the checkpoint at `key`, of this trial or of another one.
fn take_over(
    trainer: &mut Trainer<'_>,
    task: &TrainTask,
    key: &CheckpointKey,
    snapshot: Snapshot,
) -> Result<(), TrainError> {
    if key.trial == task.trial {
        trainer.restore(snapshot)
    } else if key.trial.experiment == task.trial.experiment {
        trainer.adopt(snapshot)
    } else {
        trainer.depart(snapshot)
    }
}

/// Training and validation examples of data that is tokenized.
fn examples_of<'a>(
    data: &'a Dataset,
    cache: Option<&'a PrefixCache>,
    masking: Option<&'a Masking>,
) -> (Examples<'a>, Examples<'a>) {
    let read = |split, which, cache| match (cache, masking) {
        (Some(cache), _) => Examples::of_prefix(split, cache, which),
        (None, Some(masking)) => Examples::of_masked(split, masking),
        (None, None) => Examples::of_tokens(split),
    };
    let of_training = cache.filter(|cache| cache.coverage() == Coverage::Everything);
    let training = read(&data.train, PrefixSplit::Train, of_training);
    (training, read(&data.validation, PrefixSplit::Validation, cache))
}

/// Everything that decides the numbers of the trial but its model and its data, which is tokenized as
/// cache entry `data`.
fn plan_of(bench: &Bench<'_>, task: &TrainTask, data: &str) -> TrialPlan {
    let manifest = &bench.spec.manifest;
    TrialPlan {
        settings: TrialSettings::resolve(&manifest.hyperparameters, &task.assignment),
        training: manifest.training_of(&task.assignment),
        stopping_objective: manifest.stopping_objective(),
        seed: bench.task_seed(task),
        total_steps: task.total_steps,
        data: data.to_owned(),
        rank: bench.spec.gang.as_ref().map_or(0, |gang| gang.rank),
    }
}

fn log_times(times: &ReductionTimes) {
    let milliseconds = |ns: i64| ns as f64 / 1e6;
    tracing::info!(
        compute_ms = milliseconds(times.compute_ns),
        communication_ms = milliseconds(times.communication_ns),
        overlap_ms = milliseconds(times.overlap_ns),
        "means of the backward passes that were looked at"
    );
}

/// Brings the trainers of all ranks together. `None`: told to leave before.
fn join(
    bench: &Bench<'_>,
    rendezvous: &Rendezvous,
    trainer: &mut Trainer<'_>,
    pretrained: &ContentHash,
) -> Result<Option<Group>, TaskError> {
    let identity = trainer.identity(pretrained.short());
    let device = trainer.model()?.device();
    let group = rendezvous.join(identity, device, || bench.go_on())?;
    if let Some(group) = &group {
        trainer.join(group.clone())?;
    }
    Ok(group)
}

fn train_and_conclude(
    bench: &Bench<'_>,
    task: &TrainTask,
    trainer: &mut Trainer<'_>,
    session: &mut Session<'_>,
) -> Result<RunExit, TaskError> {
    let save_every = bench.spec.manifest.checkpoint.every_steps;
    match train_until(trainer, task.target_step, save_every, session)? {
        Outcome::Diverged { step } => {
            session.wait()?;
            Ok(RunExit::Diverged { step })
        }
        Outcome::Told(Directive::Cancel) => Ok(RunExit::Canceled),
        Outcome::Told(Directive::Preempt) => {
            session.save_now(trainer)?;
            Ok(RunExit::Preempted)
        }
        Outcome::Reached | Outcome::GaveUp if trainer.watches() => {
            session.conclude_watched(trainer)
        }
        Outcome::Reached | Outcome::GaveUp => session.conclude(trainer),
    }
}

/// What the training loop sees of the world.
struct Session<'a> {
    directives: Directives,
    outbox: Outbox,
    metrics: Arc<MetricSink>,
    /// What has been measured since live views were told last.
    fresh: BTreeMap<MetricName, MetricSeries>,
    writer: Writer,
    generation: muster_common::id::Generation,
    last_saved: Option<u64>,
    /// What a rank writes of a checkpoint at least.
    shard_bytes: u64,
    validation: Examples<'a>,
    precision: Precision,
    is_ordered: bool,
    /// The ranks of the run; absent: this one alone.
    group: Option<Group>,
    usage: Usage,
}

impl<'a> Session<'a> {
    fn new(
        bench: &Bench<'_>,
        task: &TrainTask,
        validation: Examples<'a>,
        labels: &[String],
        pretrained: ContentHash,
        group: Option<Group>,
    ) -> Self {
        let origin = MetricOrigin {
            trial: task.trial.clone(),
            attempt: task.attempt,
            rank: group.as_ref().map_or(0, Group::rank),
            resumed_from: task.resume_from.as_ref().map_or(0, |key| key.step),
            host: host_name().into(),
        };
        let (store, own) = (bench.store.clone(), equipment::of_slot());
        let metrics = Arc::new(MetricSink::with_equipment(store, origin, own, bench.runtime));
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
        let manifest = &bench.spec.manifest;
        let goal = manifest.searcher.as_ref().map(SearcherSettings::goal);
        Self {
            directives: bench.directives.clone(),
            outbox: bench.outbox.clone(),
            metrics,
            fresh: BTreeMap::new(),
            writer,
            generation: bench.spec.generation,
            last_saved: task.resume_from.as_ref().map(|key| key.step),
            shard_bytes: u64::from(manifest.checkpoint.shard_mib) << 20,
            validation,
            precision: manifest.training_of(&task.assignment).precision,
            is_ordered: manifest.evaluation.is_ordered(labels)
                || goal.is_some_and(|goal| goal.metrics().any(ObjectiveMetric::needs_order)),
            group,
            usage: Usage::begin(),
        }
    }

    /// The newest checkpoint of this run.
    fn last_checkpoint(&self, task: &TrainTask) -> Option<CheckpointKey> {
        let (trial, generation) = (task.trial.clone(), self.generation);
        self.last_saved.map(|step| CheckpointKey { trial, step, generation })
    }

    /// Of all ranks the first one writes and reports.
    fn is_first(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.rank() == 0)
    }

    fn report(&self, report: RunReport) {
        if self.is_first() {
            self.outbox.report(report);
        }
    }

    fn committed(&self, checkpoint: CheckpointKey) {
        self.report(RunReport::CheckpointCommitted { checkpoint });
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
            self.save(trainer)?;
        }
        Ok(self.wait()?)
    }

    /// The end of a run that was told to leave while it was scored. Perhaps not every rank has heard of
    /// it yet, but all are here.
    fn told(&mut self, trainer: &Trainer<'_>) -> Result<RunExit, TaskError> {
        let directive = trainer.agreed_now(self.directives.of(self.generation))?;
        if directive == Some(Directive::Preempt) {
            // Where the best weights count, the last steps are not saved before they are scored.
            self.save_now(trainer)?;
            return Ok(RunExit::Preempted);
        }
        self.wait()?;
        Ok(RunExit::Canceled)
    }

    /// The end of a run whose last weights count.
    fn conclude(&mut self, trainer: &mut Trainer<'_>) -> Result<RunExit, TaskError> {
        // The checkpoint is written while the validation split is scored.
        self.save(trainer)?;
        let step = trainer.step();
        let evaluation = match trainer.scored().cloned() {
            // The loop has just looked.
            Some(evaluation) => Some(evaluation),
            None => trainer.with_evaluated_weights(|model| self.evaluate(step, model))??,
        };
        let Some(evaluation) = evaluation else { return self.told(trainer) };
        self.wait()?;
        self.flush(step)?;
        if !evaluation.loss.is_finite() {
            return Ok(RunExit::Diverged { step });
        }
        self.report(RunReport::Evaluated { step, evaluation });
        Ok(RunExit::Completed)
    }

    /// The end of a run whose best weights count. They are part of the checkpoint, which is therefore
    /// written after the last look at the validation split.
    fn conclude_watched(&mut self, trainer: &mut Trainer<'_>) -> Result<RunExit, TaskError> {
        let step = trainer.step();
        if !trainer.is_evaluated() {
            let scored = trainer.with_evaluated_weights(|model| self.evaluate(step, model))??;
            let Some(evaluation) = scored else { return self.told(trainer) };
            if trainer.observe(&evaluation)? == Verdict::Diverged {
                self.wait()?;
                return Ok(RunExit::Diverged { step });
            }
        }
        self.save(trainer)?;
        self.wait()?;
        self.flush(step)?;
        let Some(best) = trainer.best().cloned() else {
            return Ok(RunExit::Diverged { step });
        };
        let evaluation = best.evaluation;
        self.report(if trainer.gives_up() {
            RunReport::EarlyStopped { step, best_step: best.step, evaluation }
        } else {
            RunReport::Evaluated { step, evaluation }
        });
        Ok(RunExit::Completed)
    }

    /// Keeps a value for live views.
    fn show(&mut self, step: u64, name: MetricName, value: f64) {
        let series = self.fresh.entry(name.clone()).or_insert_with(|| MetricSeries {
            name,
            steps: Vec::new(),
            values: Vec::new(),
        });
        // Progress is said several times a second; what was forgotten is in the store.
        if series.steps.len() < FRESH_MAX {
            series.steps.push(step);
            series.values.push(Some(value).filter(|value| value.is_finite()));
        }
    }

    fn flush(&self, step: u64) -> Result<(), TaskError> {
        let flushed = self.metrics.flush();
        flushed.map_err(|error| TaskError::Metrics { step, reason: error.to_string() })
    }
}

impl Host for Session<'_> {
    fn directive(&mut self) -> Option<Directive> {
        self.directives.of(self.generation)
    }

    fn record(&mut self, step: u64, name: MetricName, value: f64) {
        if self.is_first() {
            self.metrics.record(step, name.clone(), value);
            self.show(step, name, value);
        }
    }

    fn measure(&mut self, step: u64) {
        for (name, value) in self.usage.measure() {
            // Of every rank: each has a process, and perhaps a machine, of its own.
            self.metrics.record(step, name, value);
        }
    }

    fn progress(&mut self, progress: RunProgress) {
        // What is in the store counts only once it is reported, and the next save may be far.
        if let Some(key) = self.writer.poll() {
            self.committed(key);
        }
        if self.is_first() {
            self.outbox.progress(progress);
            self.outbox.measured(std::mem::take(&mut self.fresh).into_values().collect());
        }
    }

    fn evaluate(&mut self, step: u64, model: &TaskModel) -> Result<Option<Evaluation>, ModelError> {
        let mut scoring = Scoring::alone(self.precision);
        if let Some(group) = &self.group {
            (scoring.rank, scoring.num_ranks) = (group.rank(), group.world_size());
        }
        let (directives, generation) = (self.directives.clone(), self.generation);
        let go_on = || match directives.of(generation) {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        };
        let num_classes = model.num_classes();
        let mut scored = evaluate(model, self.validation, scoring, go_on)?;
        if let Some(group) = &self.group {
            scored = gather(group, scored, self.validation.len(), num_classes)?;
        }
        let Some(tally) = scored else { return Ok(None) };
        let evaluation = tally.evaluation(num_classes);
        tracing::debug!(step, "the validation split is scored");
        for (metric, value) in evaluation.values(self.is_ordered) {
            self.record(step, MetricName::validation(metric), value);
        }
        Ok(Some(evaluation))
    }

    fn save(&mut self, trainer: &Trainer<'_>) -> Result<(), TrainError> {
        self.last_saved = Some(trainer.step());
        let group = self.group.as_ref();
        let (rank, num_ranks) = group.map_or((0, 1), |group| (group.rank(), group.world_size()));
        if let Some(snapshot) = trainer.shard(rank, num_ranks, self.shard_bytes)?
            && let Some(before) = self.writer.begin(snapshot)?
        {
            self.committed(before);
        }
        if let Some(group) = &self.group {
            group.meet(SAVE_DEADLINE).map_err(ModelError::from)?;
        }
        Ok(())
    }
}
