//! One optimizer update: forward, backward, clip, update.

use std::collections::BTreeMap;

use muster_common::evaluation::Evaluation;
use muster_common::manifest::{
    Budget, HyperparameterSpec, TrainingSettings, TrialSettings, WeightAverage,
};
use muster_common::objective::Objective;
use muster_common::run::Directive;
use muster_common::seed::Seed;
use tch::{Device, Kind, Tensor};

use super::TrainError;
use super::agreement::must_agree;
use super::average::{Average, copies};
use super::batch::Examples;
use super::loss::{Loss, Normalizer, loss_of};
use super::optimizer::{Optimizer, num_layers};
use super::precision::{self, LossScale};
use super::ranks::Ranks;
use super::schedule::Schedule;
use super::stopping::{BestEvaluation, StoppingRule, StoppingState, Verdict};
use super::unfreeze::Stages;
use crate::checkpoint::{Progress, Shard, Snapshot};
use crate::collective::{Group, Identity};
use crate::data::BatchOrder;
use crate::ffi::ReductionTimes;
use crate::model::{
    Classifier, LanguageModel, LazyTable, ModelError, NamedTensors, TaskModel, rounded,
};

/// Everything that decides the numbers of a trial, besides its model and its data.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialPlan {
    /// Its hyperparameters.
    pub settings: TrialSettings,
    /// How it trains otherwise.
    pub training: TrainingSettings,
    /// What early stopping watches; absent: nothing.
    pub stopping_objective: Option<Objective>,
    /// Root of its random choices: order of the examples, dropout.
    pub seed: Seed,
    /// Steps of its whole budget.
    pub total_steps: u64,
    /// Content hash of the tokenized data.
    pub data: String,
    /// Rank of this process in the run; every rank draws its own dropout.
    pub rank: u32,
}

/// What a step came to. The tensors are 0-d and have not been waited for.
#[derive(Debug)]
pub struct StepOutcome {
    /// Its number, from 1.
    pub step: u64,
    /// Mean loss over the examples of the global batch, nats: cross-entropy with class weights and
    /// label smoothing where there are any; over its hidden tokens; or the sum of both means. Of
    /// several ranks each has its share, which add up to it.
    pub loss: Tensor,
    /// Norm of the gradients before clipping.
    pub grad_norm: Tensor,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Examples in the global batch.
    pub num_examples: u64,
    /// Their tokens.
    pub num_tokens: u64,
    /// Tokens of this rank's share.
    pub own_tokens: u64,
    /// Rows of the matrices that they were computed in; those beyond the tokens are padding.
    pub own_rows: u64,
}

/// A trial in training.
pub struct Trainer<'a> {
    plan: TrialPlan,
    schedule: Schedule,
    model: TaskModel,
    loss: Loss,
    stages: Stages,
    optimizer: Optimizer,
    average: Average,
    order: BatchOrder,
    examples: Examples<'a>,
    step: u64,
    evaluate_every: Option<u64>,
    evaluated_step: u64,
    /// What that evaluation said; absent after a resume.
    scored: Option<Evaluation>,
    stopping: Option<StoppingRule>,
    stopping_state: StoppingState,
    best: NamedTensors,
    /// Others that train the same trial; absent: it trains alone.
    ranks: Option<Ranks>,
}

impl<'a> Trainer<'a> {
    /// A trial at step 0.
    pub fn new(
        plan: TrialPlan,
        model: impl Into<TaskModel>,
        examples: Examples<'a>,
    ) -> Result<Self, TrainError> {
        let mut model = model.into();
        let (settings, training) = (&plan.settings, &plan.training);
        precision::check(training.precision, model.device())?;
        let steps =
            |budget: Budget| budget.steps(settings.global_batch_size, examples.len() as u64);
        let schedule = Schedule::new(settings, training.schedule, plan.total_steps);
        let loss = match &model {
            TaskModel::Classifier(model) => loss_of(&plan, model, &examples)?,
            TaskModel::Language(_) => Loss::plain(),
        };
        let stage_steps = training.unfreeze.map_or(0, |unfreezing| steps(unfreezing.every));
        let layers = num_layers(&model);
        let stages = Stages::new(training.unfreeze, stage_steps, layers, model.frozen());
        let loss_scale = LossScale::new(training.precision, model.device())?;
        // An average takes in every row in every step.
        let is_plain = loss_scale.is_none() && training.average == WeightAverage::Off;
        let by_row = words_of(&model).filter(|_| is_plain).map(ToOwned::to_owned);
        let optimizer = Optimizer::new(&model, settings, &stages, loss_scale, by_row.as_deref())?;
        read_words_through(&mut model, optimizer.words());
        let moments = match training.average {
            WeightAverage::Checkpoints { every, .. } => steps(every),
            WeightAverage::Off | WeightAverage::Ema { .. } => 1,
        };
        let order_seed = plan.seed.child("order", 0);
        let order = BatchOrder::new(order_seed, examples.len(), settings.global_batch_size);
        let rule = |(settings, objective)| StoppingRule { settings, objective };
        Ok(Self {
            schedule,
            loss,
            stages,
            optimizer,
            average: Average::new(training.average, moments),
            order,
            examples,
            step: 0,
            evaluate_every: training.evaluate_every.map(steps),
            evaluated_step: 0,
            scored: None,
            stopping: training.early_stopping.zip(plan.stopping_objective).map(rule),
            stopping_state: StoppingState::default(),
            best: NamedTensors::new(),
            ranks: None,
            plan,
            model,
        })
    }

    /// What must be the same in all ranks that train this trial.
    pub fn identity(&self, pretrained: &str) -> Identity {
        let mut identity = Identity::default();
        identity.fact("pretrained", &pretrained);
        identity.fact("data", &self.plan.data);
        identity.fact("seed", &self.plan.seed.0);
        identity.fact("steps done", &self.step);
        for (name, tensor) in self.model.trained() {
            identity.parameter(name, tensor);
        }
        identity
    }

    /// Trains with others from here on; all of them call it, after what they restored.
    pub fn join(&mut self, group: Group) -> Result<(), TrainError> {
        let ranks = Ranks::new(group, self.plan.training.gradient_compression);
        self.update_whole()?;
        let trained: Vec<Tensor> =
            self.model.trained().map(|(_, tensor)| tensor.shallow_clone()).collect();
        ranks.equalize(&trained).map_err(ModelError::from)?;
        self.ranks = Some(ranks);
        Ok(())
    }

    /// From here on every parameter is updated whole in every step: ranks reduce dense gradients.
    fn update_whole(&mut self) -> Result<(), TrainError> {
        if self.optimizer.words().is_none() {
            return Ok(());
        }
        let state = self.optimizer.state()?;
        let settings = &self.plan.settings;
        let mut whole = Optimizer::new(&self.model, settings, &self.stages, None, None)?;
        whole.restore(state)?;
        self.optimizer = whole;
        read_words_through(&mut self.model, None);
        Ok(())
    }

    /// The directive that all ranks follow now, given the one this rank has.
    pub(super) fn agreed(
        &mut self,
        own: Option<Directive>,
    ) -> Result<Option<Directive>, ModelError> {
        self.ranks.as_mut().map_or(Ok(own), |ranks| Ok(ranks.agree(own)?))
    }

    /// The same, at a place that not every step has: every rank must be there.
    pub fn agreed_now(&self, own: Option<Directive>) -> Result<Option<Directive>, ModelError> {
        self.ranks.as_ref().map_or(Ok(own), |ranks| Ok(ranks.agree_now(own)?))
    }

    /// No step follows.
    pub(super) fn settle(&mut self) -> Result<(), ModelError> {
        self.ranks.as_mut().map_or(Ok(()), |ranks| Ok(ranks.settle().map(|_| ())?))
    }

    /// The losses of these steps. Waits for the device and for the other ranks.
    pub fn losses(&self, outcomes: &[StepOutcome]) -> Result<Vec<f64>, ModelError> {
        let own = outcomes.iter().map(|outcome| Ok(outcome.loss.f_double_value(&[])?));
        let own = own.collect::<Result<Vec<f64>, ModelError>>()?;
        self.ranks.as_ref().map_or_else(|| Ok(own.clone()), |ranks| Ok(ranks.sums(&own)?))
    }

    /// Where the time of the backward passes went; zeros for one that trains alone.
    pub fn reduction_times(&self) -> Result<ReductionTimes, ModelError> {
        self.ranks
            .as_ref()
            .map_or_else(|| Ok(ReductionTimes::default()), |ranks| Ok(ranks.times()?))
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The model as it is now, with every row of its tables up to date.
    pub fn model(&self) -> Result<&TaskModel, TrainError> {
        self.optimizer.settle()?;
        Ok(&self.model)
    }

    /// One update on the next batch in the order of the trial.
    pub fn train_step(&mut self) -> Result<StepOutcome, TrainError> {
        let examples = self.examples;
        let batch = self.order.batch(self.step, |window| examples.lengths(window))?.to_vec();
        self.train_on(&batch)
    }

    /// One update on these examples. Losses of micro-batches are sums, divided once by what the
    /// examples of the global batch count together, so that how the batch is cut does not change the
    /// result.
    pub fn train_on(&mut self, batch: &[u32]) -> Result<StepOutcome, TrainError> {
        let step = self.step + 1;
        let normalizer = self.normalizer(step, batch);
        let lengths = self.examples.lengths(batch)?;
        let lengths: BTreeMap<u32, u64> =
            batch.iter().copied().zip(lengths.into_iter().map(u64::from)).collect();
        let length = |index| lengths.get(&index).copied().unwrap_or(0);
        let own = self.ranks.as_ref().map(|ranks| ranks.own(batch, length));
        let own = own.as_deref().unwrap_or(batch);
        let (own_tokens, own_rows) = self.rows(own, length);
        let loss = self.accumulate(step, own, normalizer)?;
        let learning_rate = self.schedule.learning_rate(step);
        let grad_norm = self.optimizer.step(step, learning_rate)?;
        self.average.observe(step, &self.model)?;
        self.step = step;
        Ok(StepOutcome {
            step,
            loss,
            grad_norm,
            learning_rate,
            num_examples: batch.len() as u64,
            num_tokens: batch.iter().map(|index| length(*index)).sum(),
            own_tokens,
            own_rows,
        })
    }

    /// Tokens of these examples, and the rows of the matrices that hold them in micro-batches.
    fn rows(&self, examples: &[u32], length: impl Fn(u32) -> u64) -> (u64, u64) {
        let tokens = |batch: &[u32]| batch.iter().map(|index| length(*index)).sum::<u64>();
        let rows = |batch: &[u32]| {
            rounded(i64::try_from(tokens(batch)).unwrap_or(i64::MAX)).unsigned_abs()
        };
        (tokens(examples), examples.chunks(self.micro_batch_size()).map(rows).sum())
    }

    fn micro_batch_size(&self) -> usize {
        usize::try_from(self.plan.settings.micro_batch_size).unwrap_or(usize::MAX).max(1)
    }

    /// The learning rates of update `outcome` where they differ by place: how many places below the
    /// head, and the rate there. Empty where all have that of the schedule.
    pub fn learning_rates(&self, outcome: &StepOutcome) -> Vec<(usize, f64)> {
        let rates = self.optimizer.rates(outcome.step).into_iter();
        rates.map(|(places, rate)| (places, outcome.learning_rate * rate)).collect()
    }

    /// What these examples count together in the loss of update `step` (from 1). Every rank can ask
    /// for all examples of the step: which of their tokens are hidden does not depend on who reads
    /// them.
    pub fn normalizer(&self, step: u64, examples: &[u32]) -> Normalizer {
        let labels = examples.iter().map(|index| self.examples.label(*index));
        Normalizer {
            examples: self.loss.normalizer(labels),
            masked: self.examples.num_masked(examples, self.masks(step)) as f64,
        }
    }

    /// Adds the gradients of these examples to those of the parameters, in micro-batches, for update
    /// `step` (from 1). `normalizer` is what all examples of the step count together, those of other
    /// ranks included. Returns this share of the step's loss, 0-d.
    pub fn accumulate(
        &mut self,
        step: u64,
        examples: &[u32],
        normalizer: Normalizer,
    ) -> Result<Tensor, TrainError> {
        let is_changed = self.optimizer.unlock(step)?;
        if let Some(ranks) = self.ranks.as_mut().filter(|ranks| is_changed || !ranks.is_covered()) {
            let layers = num_layers(&self.model);
            ranks.cover(&self.optimizer.trained_now(step, layers)).map_err(ModelError::from)?;
        }
        let mut normalizer = normalizer;
        let mut micro_batches: Vec<&[u32]> = examples.chunks(self.micro_batch_size()).collect();
        if micro_batches.is_empty() && self.ranks.is_some() {
            // A rank without examples takes part in the sum with one that counts nothing.
            micro_batches.push(&[0]);
            normalizer = Normalizer { examples: 0.0, masked: 0.0 };
        }
        let last = micro_batches.len().saturating_sub(1);
        let mut loss: Option<Tensor> = None;
        for (micro_step, indices) in micro_batches.into_iter().enumerate() {
            // Gradients add up locally until the last one, whose backward sums them over the ranks.
            let reducing = self.ranks.as_ref().filter(|_| micro_step == last);
            self.reseed(step, micro_step as u64);
            if let Some(ranks) = reducing {
                ranks.before_forward().map_err(ModelError::from)?;
            }
            let part = self.micro_batch_loss(step, indices, normalizer)?;
            if let Some(ranks) = reducing {
                ranks.before_backward().map_err(ModelError::from)?;
            }
            self.optimizer.scaled(&part)?.f_backward()?;
            let part = part.f_detach()?;
            loss = Some(match loss {
                Some(sum) => sum.f_add(&part)?,
                None => part,
            });
        }
        Ok(loss.unwrap_or_default())
    }

    /// Whether the validation split is to be scored now and has not been.
    pub fn evaluation_is_due(&self) -> bool {
        let every = self.evaluate_every.unwrap_or(0);
        self.step > 0 && self.step.is_multiple_of(every) && self.evaluated_step != self.step
    }

    /// Whether the last evaluation is one of the weights as they are now.
    pub fn is_evaluated(&self) -> bool {
        self.step > 0 && self.evaluated_step == self.step
    }

    /// The last evaluation, if it is one of the weights as they are now.
    pub fn scored(&self) -> Option<&Evaluation> {
        self.scored.as_ref().filter(|_| self.is_evaluated())
    }

    /// Calls `body` with the weights that count: their average, where there is one.
    pub fn with_evaluated_weights<T>(
        &mut self,
        body: impl FnOnce(&TaskModel) -> T,
    ) -> Result<T, TrainError> {
        let Some(average) = self.average.weights()? else { return Ok(body(self.model()?)) };
        let current = copies(&self.model)?;
        self.model.restore(&average)?;
        let result = body(&self.model);
        self.model.restore(&current)?;
        Ok(result)
    }

    /// Counts an evaluation of the weights that [`Trainer::with_evaluated_weights`] gives.
    pub fn observe(&mut self, evaluation: &Evaluation) -> Result<Verdict, TrainError> {
        self.evaluated_step = self.step;
        self.scored = Some(evaluation.clone());
        let Some(rule) = self.stopping else {
            let is_finite = evaluation.loss.is_finite();
            return Ok(if is_finite { Verdict::Stale } else { Verdict::Diverged });
        };
        let verdict = rule.observe(&mut self.stopping_state, self.step, evaluation);
        if verdict == Verdict::Better {
            self.best = match self.average.weights()? {
                Some(average) => average,
                None => copies(self.model()?)?,
            };
        }
        Ok(verdict)
    }

    /// Whether the trial watches for improvements.
    pub fn watches(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether there has been no improvement for as long as is allowed.
    pub fn gives_up(&self) -> bool {
        self.stopping.is_some_and(|rule| rule.gives_up(&self.stopping_state))
    }

    /// The best evaluation so far, of a trial that watches for improvements.
    pub fn best(&self) -> Option<&BestEvaluation> {
        self.stopping_state.best.as_ref()
    }

    /// Everything needed to continue exactly, copied: training may go on while it is written.
    pub fn snapshot(&self) -> Result<Snapshot, TrainError> {
        Ok(Snapshot::copied(Shard::WHOLE, self.progress(), self.state()?)?)
    }

    /// The same of a trainer that is not needed any more: its tensors themselves.
    pub fn into_snapshot(self) -> Result<Snapshot, TrainError> {
        Ok(Snapshot::shared(self.progress(), self.state()?))
    }

    /// What `rank` of `num_ranks` writes of it, at least `least` bytes. `None`: the ranks before it write
    /// everything.
    pub fn shard(
        &self,
        rank: u32,
        num_ranks: u32,
        least: u64,
    ) -> Result<Option<Snapshot>, TrainError> {
        let state = self.state()?;
        let sizes = state.iter().flat_map(NamedTensors::values).map(Tensor::numel);
        let num_bytes = 4 * sizes.sum::<usize>() as u64;
        let shard = Shard::of(rank, num_ranks, num_bytes, least);
        let copied = |shard| Snapshot::copied(shard, self.progress(), state);
        Ok(shard.map(copied).transpose()?)
    }

    /// Weights, the optimizer's state, that of the average, and the best weights.
    fn state(&self) -> Result<[NamedTensors; 4], TrainError> {
        let shared = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.shallow_clone());
        let model = self.model()?.trained().map(shared).collect();
        let best = self.best.iter().map(|(name, tensor)| shared((name, tensor))).collect();
        Ok([model, self.optimizer.views()?, self.average.named(), best])
    }

    /// Continues from a snapshot of the same trial.
    pub fn restore(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        must_agree(&self.progress(), &snapshot.progress, |_| false)?;
        self.continue_from(snapshot)
    }

    /// Continues from a snapshot of another trial, whose random choices this one goes on with. The
    /// optimizer remembers what it did; the hyperparameters, and the schedule laid out over the whole
    /// budget, are this trial's own, and differ in those only that can change.
    pub fn adopt(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        must_agree(&self.progress(), &snapshot.progress, HyperparameterSpec::can_change)?;
        self.continue_from(snapshot)
    }

    /// Continues from a snapshot of another experiment's trial. Whatever was configured otherwise counts from
    /// here on: an average of another kind begins now, and what early stopping has seen says nothing of other
    /// data, or of another rule. Of a trial that had given up the best weights are kept, and patience is counted anew:
    /// whoever continues it wants it to go on.
    pub fn depart(&mut self, mut snapshot: Snapshot) -> Result<(), TrainError> {
        let Progress { data, training, stopping, .. } = &mut snapshot.progress;
        if training.average != self.plan.training.average {
            snapshot.average.clear();
        }
        let rule = &self.plan.training.early_stopping;
        if *data != self.plan.data || training.early_stopping != *rule {
            *stopping = StoppingState::default();
            snapshot.best.clear();
        }
        if self.stopping.is_some_and(|rule| rule.gives_up(stopping)) {
            tracing::info!(
                "the trial that is continued had given up; patience is counted anew from here"
            );
            stopping.num_stale = 0;
        }
        self.continue_from(snapshot).map_err(|error| match error {
            TrainError::Model(source) if source.is_permanent() => TrainError::Unfit(source),
            other => other,
        })
    }

    fn continue_from(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        let Snapshot { progress, model, optimizer, average, best, .. } = snapshot;
        self.model.restore(&model)?;
        self.optimizer.restore(optimizer)?;
        self.average.restore(&average, &self.model)?;
        self.best = best;
        self.step = progress.step;
        self.evaluated_step = progress.evaluated_step;
        self.scored = None;
        self.stopping_state = progress.stopping;
        Ok(())
    }

    fn progress(&self) -> Progress {
        let steps_per_epoch = self.order.steps_per_epoch().max(1);
        Progress {
            step: self.step,
            epoch: self.step / steps_per_epoch,
            step_in_epoch: self.step % steps_per_epoch,
            seed: self.plan.seed,
            total_steps: self.plan.total_steps,
            data: self.plan.data.clone(),
            coverage: self.examples.coverage(),
            settings: self.plan.settings.clone(),
            training: self.plan.training.clone(),
            evaluated_step: self.evaluated_step,
            stopping: self.stopping_state.clone(),
        }
    }

    /// Dropout starts from a seed of its own at every micro-batch, so that there is no generator
    /// state to save and a resumed trial draws what an uninterrupted one would.
    fn reseed(&self, step: u64, micro_step: u64) {
        let seed = self.plan.seed.child("dropout", step).child("micro-step", micro_step);
        let seed = seed.child("rank", u64::from(self.plan.rank));
        tch::manual_seed(seed.0.cast_signed());
    }

    /// Root of the masks of a step. They are drawn by example: neither the micro-batch nor the rank
    /// that an example is in changes what is hidden of it.
    fn masks(&self, step: u64) -> Seed {
        self.plan.seed.child("masks", step)
    }

    /// These examples' share of the loss of their step, 0-d.
    fn micro_batch_loss(
        &self,
        step: u64,
        indices: &[u32],
        normalizer: Normalizer,
    ) -> Result<Tensor, ModelError> {
        match &self.model {
            TaskModel::Classifier(model) => {
                normalizer.share(&self.classification_loss(model, indices)?)
            }
            TaskModel::Language(model) => self.language_loss(model, step, indices, normalizer),
        }
    }

    /// Sum over these examples.
    fn classification_loss(
        &self,
        model: &Classifier,
        indices: &[u32],
    ) -> Result<Tensor, ModelError> {
        let (device, rates) = (model.device(), self.model.rates(self.plan.settings.dropout));
        let logits = {
            let _precision = precision::autocast(self.plan.training.precision, device)?;
            self.examples.logits(model, indices, rates)?
        };
        self.loss.sum(&logits, &self.examples.labels(indices, device)?)
    }

    fn language_loss(
        &self,
        model: &LanguageModel,
        step: u64,
        indices: &[u32],
        normalizer: Normalizer,
    ) -> Result<Tensor, ModelError> {
        let rates = self.model.rates(self.plan.settings.dropout);
        let batch = self.examples.language_batch(model, indices, self.masks(step))?;
        let logits = {
            let _precision = precision::autocast(self.plan.training.precision, model.device())?;
            model.logits(&batch, rates)?
        };
        normalizer.language_share(&logits.losses(&batch)?)
    }
}

/// The table of which a step reads a few rows, if there is one that can be updated row by row: on the CPU, and
/// with nothing else that reads all of it, as the decoder of a language model does.
fn words_of(model: &TaskModel) -> Option<&str> {
    match model {
        TaskModel::Classifier(model) if model.device() == Device::Cpu => {
            model.trained_words().filter(|(_, words)| words.kind() == Kind::Float)
        }
        _ => None,
    }
    .map(|(name, _)| name)
}

fn read_words_through(model: &mut TaskModel, words: Option<LazyTable>) {
    if let TaskModel::Classifier(model) = model {
        model.read_words_through(words);
    }
}
