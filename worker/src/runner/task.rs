//! The three things a run can be asked to do.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use muster_common::equipment::{self, EquipmentKind};
use muster_common::evaluation::Evaluation;
use muster_common::evaluation::prediction::{self, PredictionError};
use muster_common::goal::Goal;
use muster_common::id::TrialId;
use muster_common::manifest::{Assignment, Manifest, SearcherSettings, TrialSettings};
use muster_common::objective::ObjectiveMetric;
use muster_common::run::{Directive, RunExit, RunProgress, RunReport, RunSpec, Task, TrainTask};
use muster_common::seed::Seed;
use muster_common::storage::{CheckpointKey, Layout, Store, StoreError};
use tokio::runtime::Handle;

use super::outbox::Outbox;
use super::predictions::{described, located};
use super::warm::Warm;
use super::{Directives, trial};
use crate::checkpoint::{self, LoadError, SaveError};
use crate::collective::RendezvousError;
use crate::data::{self, Data, DataError, Origins, Stream, TextTokenizer};
use crate::deadline::{Overdue, beside_for, within};
use crate::export::{self, ExportError, Provenance};
use crate::model::{self, HubError, HubSettings, ModelError, TaskModel};
use crate::prefix::{Coverage, Prefix, PrefixError, PrefixProgress};
use crate::train::{self, Examples, Scoring, Tally, TrainError, evaluate, evaluated_weights};

/// Whoever waits for tokens looks so often.
const LOOK: Duration = Duration::from_millis(20);

/// How long the end of an experiment waits for tokens that only the next one would need.
const TOKENS_WAIT: Duration = Duration::from_secs(60);

/// Progress before the first step is said so often.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("of the data nothing was read or tokenized for {} s", .0.as_secs())]
    DataOverdue(Duration),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Predictions(#[from] PredictionError),
    #[error(transparent)]
    Overdue(#[from] Overdue),
    #[error("the metrics up to step {step} did not reach the store: {reason}")]
    Metrics { step: u64, reason: String },
}

impl TaskError {
    /// Trying again cannot help.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Data(error) => error.is_permanent(),
            Self::Hub(error) => error.is_permanent(),
            Self::Model(error) | Self::Prefix(PrefixError::Model(error)) => error.is_permanent(),
            Self::Load(error) => error.is_permanent(),
            Self::Save(error) => error.is_permanent(),
            Self::Store(error) => error.is_permanent(),
            Self::Train(error) => error.is_permanent(),
            Self::Rendezvous(RendezvousError::Peer(failure)) => failure.permanent,
            Self::Rendezvous(RendezvousError::Refused { .. } | RendezvousError::Gpu(_)) => true,
            _ => false,
        }
    }
}

/// What a run has at hand.
pub(super) struct Bench<'a> {
    /// What the run is, with the directory of a model that the manifest has from a hub.
    pub(super) spec: &'a RunSpec,
    /// The manifest as it was submitted.
    pub(super) manifest: &'a Manifest,
    pub(super) store: Store,
    pub(super) warm: &'a mut Warm,
    pub(super) outbox: &'a Outbox,
    pub(super) directives: &'a Directives,
    pub(super) runtime: &'a Handle,
}

/// Does what `spec` says and tells how it ended.
pub(super) fn execute(
    spec: &RunSpec,
    warm: &mut Warm,
    outbox: &Outbox,
    directives: &Directives,
    runtime: &Handle,
) -> Result<RunExit, TaskError> {
    let store = Store::open(&spec.store)?;
    let manifest = &spec.manifest;
    let Some(local) = with_downloads(spec, outbox, directives, runtime)? else {
        return Ok(ending(directives, spec));
    };
    let spec = &*local;
    let mut bench = Bench { spec, manifest, store, warm, outbox, directives, runtime };
    if !matches!(spec.task, Task::Train(_)) {
        bench.warm.clear_left();
    }
    match &spec.task {
        Task::Prepare { part, num_parts } => bench.prepare(*part, *num_parts),
        Task::Train(task) => trial::train(&mut bench, task),
        Task::Finish { trial, assignment, checkpoint } => {
            bench.finish(trial, assignment, checkpoint)
        }
    }
}

/// `spec` with the directory of its pretrained model, and with what its data has on a hub in the cache.
/// `None`: there is a directive for the run.
fn with_downloads<'a>(
    spec: &'a RunSpec,
    outbox: &Outbox,
    directives: &Directives,
    runtime: &Handle,
) -> Result<Option<Cow<'a, RunSpec>>, TaskError> {
    let settings = HubSettings::from_environment();
    let mut shown = None::<Instant>;
    let mut go_on = |line: &str| {
        if shown.is_none_or(|shown| shown.elapsed() >= SHOWN_EVERY) {
            shown = Some(Instant::now());
            outbox.progress(activity(Some(line.to_owned())));
        }
        match directives.of(spec.generation) {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    };
    let mut local = Cow::Borrowed(spec);
    if let Some(name) = spec.manifest.model.hub_name() {
        let directory = model::fetch(runtime, &name, &settings, &mut go_on)?;
        let Some(directory) = directory else { return Ok(None) };
        let manifest = Arc::make_mut(&mut local.to_mut().manifest);
        manifest.model.pretrained = directory.display().to_string();
    }
    if !data::fetch(runtime, &spec.manifest, &settings, &mut go_on)? {
        return Ok(None);
    }
    if shown.is_some() {
        outbox.progress(activity(None));
    }
    Ok(Some(local))
}

/// Progress of a run that does something before its first step, or has just ended that.
fn activity(activity: Option<String>) -> RunProgress {
    RunProgress { step: 0, target_step: 0, examples_per_second: 0.0, loss: None, activity }
}

/// Refuses a metric that would be no number in any trial, each of which would seem to have diverged.
fn check_scores(manifest: &Manifest, data: &Data) -> Result<(), DataError> {
    let goal = manifest.searcher.as_ref().map(SearcherSettings::goal);
    let searched = goal.iter().flat_map(Goal::metrics);
    let watched = manifest.stopping_objective().map(|objective| objective.metric);
    if !searched.chain(watched).any(|metric| metric == ObjectiveMetric::Auc) {
        return Ok(());
    }
    let missing = match data {
        Data::Whole(data) => {
            let split = &data.validation;
            missing_class(&data.summary.labels, (0..split.len()).map(|index| split.label(index)))
        }
        Data::Stream(data) => {
            let split = &data.validation;
            missing_class(&data.summary.labels, (0..split.len()).map(|index| split.label(index)))
        }
    };
    let Some(name) = missing else { return Ok(()) };
    Err(DataError::Refused {
        place: "data.validation".to_owned(),
        message: format!(
            "class `{name}` has no example there, so that the metric `auc` is no number: hold out more examples, or \
             choose another metric"
        ),
    })
}

/// The first class that no example has.
fn missing_class(names: &[String], classes: impl Iterator<Item = u32>) -> Option<&str> {
    let found: BTreeSet<u32> = classes.collect();
    (0..).zip(names).find(|(class, _)| !found.contains(class)).map(|(_, name)| name.as_str())
}

/// How a run ends that left because of a directive and had nothing to save.
fn ending(directives: &Directives, spec: &RunSpec) -> RunExit {
    match directives.of(spec.generation) {
        Some(Directive::Preempt) => RunExit::Preempted,
        Some(Directive::Cancel) | None => RunExit::Canceled,
    }
}

impl Bench<'_> {
    fn prepare(&mut self, part: u32, num_parts: u32) -> Result<RunExit, TaskError> {
        let mut lengths = self.spec.manifest.max_lengths();
        // Workers that start together begin with different lengths.
        let turn = usize::try_from(part).unwrap_or(0) % lengths.len().max(1);
        // Before the data is read, and not when a trial meets the first text that is too long.
        let pretrained = self.warm.pretrained(&self.spec.manifest.model.pretrained)?;
        if let Some(misfit) = self.spec.manifest.misfits(&pretrained.config).into_iter().next() {
            return Err(ModelError::Misfit(misfit).into());
        }
        let first = lengths.first().copied();
        lengths.rotate_left(turn);
        let mut summary = None;
        for max_length in lengths {
            let Some(data) = self.data(max_length)? else { return Ok(self.told()) };
            if !self.prepare_prefix(&data, part, num_parts)? {
                return Ok(self.told());
            }
            if Some(max_length) == first {
                summary = Some(data.summary().clone());
            }
        }
        if let Some(summary) = summary {
            self.outbox.report(RunReport::Prepared(summary));
        }
        Ok(RunExit::Completed)
    }

    /// Checks what only model and data show, and computes a part of the frozen layers' activations.
    /// `false`: a directive said to leave.
    fn prepare_prefix(
        &mut self,
        data: &Data,
        part: u32,
        num_parts: u32,
    ) -> Result<bool, TaskError> {
        let (pretrained, model) = self.warm.model(self.spec, data, self.spec.manifest.seed)?;
        let labels = &data.summary().labels;
        for training in self.spec.manifest.trainings() {
            train::check(&training, labels, model.device())?;
        }
        check_scores(&self.spec.manifest, data)?;
        self.warm.masking(self.spec, &model)?;
        // What a language model reads is different each time; where layers are frozen, all is tokenized.
        let (TaskModel::Classifier(model), Data::Whole(data)) = (&model, data) else {
            return Ok(true);
        };
        let coverage = Coverage::of(self.manifest, data.train.len());
        let prefix = Prefix::find(&self.store, &pretrained, model, data, coverage)?;
        let Some(prefix) = prefix else { return Ok(true) };
        let go_on = self.watch_prefix();
        Ok(prefix.compute(self.runtime, model, data, (part, num_parts), go_on)?)
    }

    fn finish(
        &mut self,
        trial: &TrialId,
        assignment: &Assignment,
        key: &CheckpointKey,
    ) -> Result<RunExit, TaskError> {
        let manifest = self.manifest;
        let max_length = manifest.max_length(assignment);
        let Some(data) = self.data(max_length)? else { return Ok(self.told()) };
        let (pretrained, mut model) = self.warm.model(self.spec, &data, self.trial_seed(trial))?;
        let snapshot = checkpoint::load(self.runtime, &self.store, key, &pretrained.sha256)?;
        model.restore(&evaluated_weights(snapshot, &model)?)?;
        let masking = self.warm.masking(self.spec, &model)?;
        let split = match (&*data, &masking) {
            (Data::Stream(data), _) => data.test.as_ref().map(Examples::of_stream),
            (Data::Whole(data), None) => data.test.as_ref().map(Examples::of_tokens),
            (Data::Whole(data), Some(masking)) => {
                data.test.as_ref().map(|split| Examples::of_masked(split, masking))
            }
        };
        let test = match split {
            None => None,
            Some(examples) => {
                let precision = manifest.training_of(assignment).precision;
                let scoring = Scoring::alone(precision);
                let labels = &data.summary().labels;
                match evaluate(&model, examples, scoring, || self.go_on())? {
                    None => return Ok(self.told()),
                    Some(tally) => {
                        let tokenizer = TextTokenizer::open(&pretrained.directory, max_length)?;
                        let read = (examples, &tokenizer, data.origins());
                        Some(self.keep_predictions(trial, labels, read, tally)?)
                    }
                }
            }
        };
        let dropout = TrialSettings::resolve(&manifest.hyperparameters, assignment).dropout;
        let trained_with = self.trained_with(trial);
        let provenance = Provenance {
            manifest,
            trial,
            assignment,
            checkpoint: key,
            test: test.as_ref(),
            trained_with: &trained_with,
        };
        let directory = &pretrained.directory;
        let model =
            export::export(self.runtime, &self.store, &model, directory, dropout, &provenance)?;
        if let Data::Stream(data) = &*data
            && !self.await_tokens(data)
        {
            return Ok(self.told());
        }
        let test = test.filter(|test: &Evaluation| test.loss.is_finite());
        self.outbox.report(RunReport::Finished { test, model });
        Ok(RunExit::Completed)
    }

    /// What the trial was trained with. A model is worth more than that, so it is written without it too.
    fn trained_with(&self, trial: &TrialId) -> Vec<EquipmentKind> {
        let read = within(self.runtime, equipment::read_trial(&self.store, trial));
        let problem = match read {
            Ok(Ok(found)) => {
                return equipment::by_kind(&found).into_iter().map(|one| one.kind).collect();
            }
            Ok(Err(error)) => error.to_string(),
            Err(overdue) => overdue.to_string(),
        };
        tracing::warn!("the model does not say what it was trained with: {problem}");
        Vec::new()
    }

    /// Waits a little for everything to be tokenized, for the next experiment on this data: with the
    /// last trial the process may end. What takes longer is begun again by then; nobody waits minutes
    /// for a result that is there. `false`: a directive said to leave.
    fn await_tokens(&self, stream: &Stream) -> bool {
        let since = Instant::now();
        while !stream.is_settled() && since.elapsed() < TOKENS_WAIT {
            if self.go_on().is_break() {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    /// Writes what the model says about the test split, where it tells classes apart, and gives what
    /// that comes to.
    fn keep_predictions(
        &self,
        trial: &TrialId,
        labels: &[String],
        (examples, tokenizer, origins): (Examples<'_>, &TextTokenizer, Option<&Origins>),
        tally: Tally,
    ) -> Result<Evaluation, TaskError> {
        let evaluation = tally.evaluation(labels.len());
        if labels.is_empty() {
            return Ok(evaluation);
        }
        let mut rows = described(tally.into_rows(), examples, tokenizer)?;
        if let Some(origins) = origins.cloned() {
            let (store, num_rows) = (self.store.clone(), examples.len());
            let read = async move { origins.read(&store, num_rows).await };
            let found = beside_for(self.runtime, 8 * num_rows as u64, read).wait()??;
            rows = located(rows, &found.unwrap_or_default());
        }
        let bytes = prediction::encode(&rows, labels)?;
        let (store, key, num_bytes) =
            (self.store.clone(), Layout::predictions(trial), bytes.len() as u64);
        let put = async move { store.put_large(&key, bytes).await };
        beside_for(self.runtime, num_bytes, put).wait()??;
        Ok(evaluation)
    }

    /// Root of the random choices of `trial`.
    pub(super) fn trial_seed(&self, trial: &TrialId) -> Seed {
        self.spec.manifest.seed.child("trial", u64::from(trial.number))
    }

    /// Root of the random choices of a training run.
    pub(super) fn task_seed(&self, task: &TrainTask) -> Seed {
        let number = task.seed_of.unwrap_or(task.trial.number);
        self.trial_seed(&TrialId { number, ..task.trial.clone() })
    }

    /// The data with sequences of at most `max_length` tokens. `None`: a directive said to leave.
    pub(super) fn data(&mut self, max_length: u32) -> Result<Option<Rc<Data>>, TaskError> {
        let (directives, generation) = (self.directives, self.spec.generation);
        let go_on = || match directives.of(generation) {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        };
        self.warm.data(self.spec, &self.store, self.runtime, max_length, go_on)
    }

    /// Break as soon as there is a directive for this run.
    pub(super) fn go_on(&self) -> ControlFlow<()> {
        match self.directives.of(self.spec.generation) {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    }

    /// How a run ends that left because of a directive and had nothing to save.
    pub(super) fn told(&self) -> RunExit {
        ending(self.directives, self.spec)
    }

    /// Shows progress and asks for directives while activations are computed.
    pub(super) fn watch_prefix(&self) -> impl FnMut(PrefixProgress) -> ControlFlow<()> + use<> {
        let (outbox, directives) = (self.outbox.clone(), self.directives.clone());
        let generation = self.spec.generation;
        let (begun, mut shown) = (Instant::now(), None::<Instant>);
        move |progress: PrefixProgress| {
            if shown.is_none_or(|shown| shown.elapsed() >= SHOWN_EVERY) {
                shown = Some(Instant::now());
                let seconds = begun.elapsed().as_secs_f64().max(1e-9);
                outbox.progress(RunProgress {
                    step: progress.blocks_done,
                    target_step: progress.num_blocks,
                    examples_per_second: progress.examples_done as f64 / seconds,
                    loss: None,
                    activity: None,
                });
            }
            match directives.of(generation) {
                None => ControlFlow::Continue(()),
                Some(_) => ControlFlow::Break(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_examples_is_named() {
        let names = ["low", "mid", "high"].map(str::to_owned);
        assert_eq!(missing_class(&names, [2, 0, 0, 2].into_iter()), Some("mid"));
        assert_eq!(missing_class(&names, [2, 1, 0].into_iter()), None);
        assert_eq!(missing_class(&names[..2], std::iter::empty()), Some("low"));
    }
}
