//! One optimizer update: forward, backward, clip, update.

use muster_common::manifest::TrialSettings;
use muster_common::seed::Seed;
use serde_json::Value;
use tch::{Reduction, Tensor};

use super::TrainError;
use super::batch::Examples;
use super::evaluate::IGNORE_NOTHING;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use crate::checkpoint::{Progress, Snapshot};
use crate::data::BatchOrder;
use crate::model::{Classifier, ModelError, duplicate};

/// Everything that decides the numbers of a trial, besides its model and its data.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialPlan {
    /// Its hyperparameters.
    pub settings: TrialSettings,
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
    /// Mean cross-entropy over the examples of the global batch, nats.
    pub loss: Tensor,
    /// Norm of the gradients before clipping.
    pub grad_norm: Tensor,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Examples in the global batch.
    pub num_examples: u64,
    /// Their tokens.
    pub num_tokens: u64,
    /// Token positions computed: tokens and padding.
    pub num_positions: u64,
}

/// A trial in training.
pub struct Trainer<'a> {
    plan: TrialPlan,
    schedule: Schedule,
    model: Classifier,
    optimizer: Optimizer,
    order: BatchOrder,
    examples: Examples<'a>,
    lengths: Vec<u32>,
    step: u64,
}

impl<'a> Trainer<'a> {
    /// A trial at step 0.
    pub fn new(
        plan: TrialPlan,
        model: Classifier,
        examples: Examples<'a>,
    ) -> Result<Self, TrainError> {
        let settings = &plan.settings;
        let schedule =
            Schedule::new(settings.learning_rate, settings.warmup_ratio, plan.total_steps);
        let optimizer = Optimizer::new(&model, settings)?;
        let lengths = examples.lengths();
        let order_seed = plan.seed.child("order", 0);
        let order = BatchOrder::new(order_seed, lengths.clone(), settings.global_batch_size);
        Ok(Self { plan, schedule, model, optimizer, order, examples, lengths, step: 0 })
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The model as it is now.
    pub fn model(&self) -> &Classifier {
        &self.model
    }

    /// One update. Losses of micro-batches are sums, divided once by the number of examples of the
    /// global batch, so that how the batch is cut does not change the result.
    pub fn train_step(&mut self) -> Result<StepOutcome, TrainError> {
        let step = self.step + 1;
        let batch = self.order.batch(self.step).to_vec();
        let share = (batch.len().max(1) as f64).recip();
        let micro_batch_size =
            usize::try_from(self.plan.settings.micro_batch_size).unwrap_or(usize::MAX).max(1);
        let mut loss: Option<Tensor> = None;
        let mut num_positions = 0;
        for (micro_step, indices) in (0..).zip(batch.chunks(micro_batch_size)) {
            self.reseed(step, micro_step);
            let part = self.micro_batch_loss(indices)?.f_mul_scalar(share)?;
            part.f_backward()?;
            let part = part.f_detach()?;
            loss = Some(match loss {
                Some(sum) => sum.f_add(&part)?,
                None => part,
            });
            let longest = indices.iter().map(|index| self.length(*index)).max().unwrap_or(0);
            num_positions += longest * indices.len() as u64;
        }
        let learning_rate = self.schedule.learning_rate(step);
        let grad_norm = self.optimizer.step(step, learning_rate)?;
        self.step = step;
        Ok(StepOutcome {
            step,
            loss: loss.unwrap_or_default(),
            grad_norm,
            learning_rate,
            num_examples: batch.len() as u64,
            num_tokens: batch.iter().map(|index| self.length(*index)).sum(),
            num_positions,
        })
    }

    /// Everything needed to continue exactly, copied: training may go on while it is written.
    pub fn snapshot(&self) -> Result<Snapshot, TrainError> {
        let model = self.model.trained();
        let model = model.map(|(name, tensor)| Ok((name.to_owned(), duplicate(tensor)?)));
        Ok(Snapshot {
            progress: self.progress(),
            model: model.collect::<Result<_, ModelError>>()?,
            optimizer: self.optimizer.moments()?,
        })
    }

    /// Continues from a snapshot of the same trial.
    pub fn restore(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        let Snapshot { progress, model, optimizer } = snapshot;
        let own = self.progress();
        differ("seed", &own.seed.0, &progress.seed.0)?;
        differ("budget in steps", &own.total_steps, &progress.total_steps)?;
        differ("data", &own.data, &progress.data)?;
        let own = named_settings(&own.settings);
        for (name, found) in named_settings(&progress.settings) {
            let wanted = own.get(&name).cloned().unwrap_or_default();
            differ(&name, &wanted, &found)?;
        }
        self.model.restore(&model)?;
        self.optimizer.restore(optimizer)?;
        self.step = progress.step;
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
            settings: self.plan.settings.clone(),
        }
    }

    /// Dropout starts from a seed of its own at every micro-batch, so that there is no generator
    /// state to save and a resumed trial draws what an uninterrupted one would.
    fn reseed(&self, step: u64, micro_step: u64) {
        let seed = self.plan.seed.child("dropout", step).child("micro-step", micro_step);
        let seed = seed.child("rank", u64::from(self.plan.rank));
        tch::manual_seed(seed.0.cast_signed());
    }

    fn micro_batch_loss(&self, indices: &[u32]) -> Result<Tensor, ModelError> {
        let rates = self.model.config().dropout.or_all(self.plan.settings.dropout);
        let logits = self.examples.logits(&self.model, indices, rates)?;
        let labels = self.examples.labels(indices, self.model.device())?;
        let none = None::<Tensor>;
        Ok(logits.f_cross_entropy_loss(&labels, none, Reduction::Sum, IGNORE_NOTHING, 0.0)?)
    }

    fn length(&self, index: u32) -> u64 {
        self.lengths.get(index as usize).copied().map_or(0, u64::from)
    }
}

/// Hyperparameters by name, to say which one differs.
fn named_settings(settings: &TrialSettings) -> serde_json::Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

fn differ<T: PartialEq + ToString>(what: &str, wanted: &T, found: &T) -> Result<(), TrainError> {
    if wanted == found {
        return Ok(());
    }
    let what = what.to_owned();
    Err(TrainError::OtherTrial { what, wanted: wanted.to_string(), found: found.to_string() })
}
