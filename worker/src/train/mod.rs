//! Training one trial: the loop, and what it is made of.

mod agreement;
mod average;
mod batch;
mod evaluate;
mod loss;
mod optimizer;
mod precision;
mod ranks;
mod schedule;
mod step;
mod stopping;
mod unfreeze;

pub use average::evaluated_weights;
pub use batch::{Examples, Masking};
pub use evaluate::{Scoring, Tally, evaluate};
pub use loss::{Loss, Normalizer};
pub use ranks::gather;
pub use schedule::Schedule;
pub use step::{StepOutcome, Trainer, TrialPlan};
pub use stopping::{BestEvaluation, StoppingRule, StoppingState, Verdict};

use std::time::{Duration, Instant};

use muster_common::evaluation::Evaluation;
use muster_common::manifest::TrainingSettings;
use muster_common::metric::MetricName;
use muster_common::run::{Directive, RunProgress};
use tch::Device;

use crate::checkpoint::SaveError;
use crate::model::{ModelError, TaskModel};

/// Losses are read back from the device after so many steps: reading waits for the device.
const READ_BACK_STEPS: usize = 10;

/// Live views get progress at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Why training cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model or the optimizer refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The checkpoint does not belong to this trial as it is configured now.
    #[error("the checkpoint was made with another {what}: {found} instead of {wanted}")]
    OtherTrial {
        /// What differs.
        what: String,
        /// Now.
        wanted: String,
        /// In the checkpoint.
        found: String,
    },
    /// Another experiment's checkpoint is of a model that trains other parameters.
    #[error(
        "continue_from: the checkpoint does not fit: {0}; what is frozen, the labels, and whether the precision is \
         float16 have to be as they were there"
    )]
    Unfit(ModelError),
    /// The manifest weighs other classes than the data has.
    #[error(
        "training.class_weights names {given}, but the classes are {classes}; give every class a weight"
    )]
    ClassWeights {
        /// Names in the manifest.
        given: String,
        /// Names in the data.
        classes: String,
    },
    /// The averages in the checkpoint are not understood.
    #[error("the checkpoint's average part holds `{name}`, which is of no step")]
    Average {
        /// Name of the tensor.
        name: String,
    },
    /// Half precision was asked for on a CPU.
    #[error(
        "precision: float16 cannot be trained on a CPU; write bfloat16 or float32, or use a GPU"
    )]
    Float16,
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}

impl TrainError {
    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Model(error) => error.is_permanent(),
            Self::Save(error) => error.is_permanent(),
            Self::OtherTrial { .. }
            | Self::Unfit(_)
            | Self::ClassWeights { .. }
            | Self::Average { .. }
            | Self::Float16 => true,
        }
    }
}

/// Whether trials can train so on data with these classes; asked before the first of them starts.
pub fn check(
    training: &TrainingSettings,
    labels: &[String],
    device: Device,
) -> Result<(), TrainError> {
    precision::check(training.precision, device)?;
    Loss::new(&training.class_weights, 0.0, labels, &[], device).map(|_loss| ())
}

/// Whom the loop talks to. None of the calls may wait for the store, except [`Host::save`] when the
/// checkpoint before is still on its way. Of several ranks all make the same calls to evaluate and to
/// save, at the same steps.
pub trait Host {
    /// What the coordinator wants of this run, if anything.
    fn directive(&mut self) -> Option<Directive>;
    /// A value to keep.
    fn record(&mut self, step: u64, name: MetricName, value: f64);
    /// What the process takes of the machine is to be recorded, if that was not done just now.
    fn measure(&mut self, step: u64);
    /// A sign of life, thinned.
    fn progress(&mut self, progress: RunProgress);
    /// Scores the validation split with `model`, whose trial has done `step` updates, and keeps the
    /// scores. `None`: it was told to leave in the middle.
    fn evaluate(&mut self, step: u64, model: &TaskModel) -> Result<Option<Evaluation>, ModelError>;
    /// A checkpoint is to be written of `trainer` as it is now.
    fn save(&mut self, trainer: &Trainer<'_>) -> Result<(), TrainError>;
}

/// Why the loop came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target step is done; it is not saved yet.
    Reached,
    /// The coordinator wants the run to leave; the last step is not saved yet.
    Told(Directive),
    /// The validation metric has not improved for as long as is allowed; not saved yet.
    GaveUp,
    /// The loss of this step, or the validation metric after it, is not finite.
    Diverged {
        /// The step.
        step: u64,
    },
}

/// Trains up to `target_step`. Saves every `save_every` steps on the way, but not at its end; scores
/// the validation split as often as the trial's plan says.
pub fn train_until(
    trainer: &mut Trainer<'_>,
    target_step: u64,
    save_every: Option<u64>,
    host: &mut dyn Host,
) -> Result<Outcome, TrainError> {
    let outcome = steps(trainer, target_step, save_every, host)?;
    trainer.settle()?;
    Ok(outcome)
}

fn steps(
    trainer: &mut Trainer<'_>,
    target_step: u64,
    save_every: Option<u64>,
    host: &mut dyn Host,
) -> Result<Outcome, TrainError> {
    // The checkpoint that it goes on from may be that of a trial that had given up, and whose process ended before
    // that was said.
    if trainer.is_evaluated() && trainer.gives_up() {
        return Ok(Outcome::GaveUp);
    }
    let mut ledger = Ledger::new(target_step);
    while trainer.step() < target_step {
        if let Some(directive) = trainer.agreed(host.directive())? {
            return Ok(ledger.read_back(trainer, host)?.unwrap_or(Outcome::Told(directive)));
        }
        // A trial may have been told to leave before it was scored.
        if let Some(outcome) = look(trainer, &mut ledger, host)? {
            return Ok(outcome);
        }
        ledger.pending.push(trainer.train_step()?);
        let step = trainer.step();
        let is_first = ledger.is_new();
        let save = step < target_step
            && save_every.is_some_and(|every| every > 0 && step.is_multiple_of(every));
        // A step whose loss was never looked at must not be saved; the first one of a run is looked at
        // at once, so that it shows, and shows when it was done.
        if (save || is_first || ledger.pending.len() >= READ_BACK_STEPS)
            && let Some(diverged) = ledger.read_back(trainer, host)?
        {
            return Ok(diverged);
        }
        if is_first {
            tracing::info!(step, "the first step of this run is done");
        }
        if let Some(outcome) = look(trainer, &mut ledger, host)? {
            return Ok(outcome);
        }
        ledger.show_progress(step, host);
        if save {
            host.save(trainer)?;
        }
    }
    let outcome = ledger.read_back(trainer, host)?.unwrap_or(Outcome::Reached);
    ledger.log_speed(trainer.step());
    Ok(outcome)
}

/// Scores the validation split if that is due. `Some`: the loop is over.
fn look(
    trainer: &mut Trainer<'_>,
    ledger: &mut Ledger,
    host: &mut dyn Host,
) -> Result<Option<Outcome>, TrainError> {
    if !trainer.evaluation_is_due() {
        return Ok(None);
    }
    if let Some(diverged) = ledger.read_back(trainer, host)? {
        return Ok(Some(diverged));
    }
    let step = trainer.step();
    let scored = trainer.with_evaluated_weights(|model| host.evaluate(step, model))??;
    ledger.since = Instant::now();
    let Some(evaluation) = scored else {
        return Ok(trainer.agreed_now(host.directive())?.map(Outcome::Told));
    };
    if trainer.observe(&evaluation)? == Verdict::Diverged {
        return Ok(Some(Outcome::Diverged { step }));
    }
    Ok(trainer.gives_up().then_some(Outcome::GaveUp))
}

/// Steps whose losses have not been read back, and what is known of those before.
struct Ledger {
    target_step: u64,
    pending: Vec<StepOutcome>,
    since: Instant,
    shown: Option<Instant>,
    loss: Option<f64>,
    examples_per_second: f64,
    /// Tokens per second between two reads.
    speeds: Vec<f64>,
}

impl Ledger {
    fn new(target_step: u64) -> Self {
        Self {
            target_step,
            pending: Vec::with_capacity(READ_BACK_STEPS),
            since: Instant::now(),
            shown: None,
            loss: None,
            examples_per_second: 0.0,
            speeds: Vec::new(),
        }
    }

    /// No loss was read back so far.
    fn is_new(&self) -> bool {
        self.loss.is_none()
    }

    /// Reads the pending losses, here and nowhere else, and records them.
    fn read_back(
        &mut self,
        trainer: &Trainer<'_>,
        host: &mut dyn Host,
    ) -> Result<Option<Outcome>, ModelError> {
        let (mut examples, mut tokens) = (0, 0);
        let (mut own_tokens, mut own_rows) = (0, 0);
        let Some(last) = self.pending.last() else { return Ok(None) };
        let (last, rates) = (last.step, trainer.learning_rates(last));
        let losses = trainer.losses(&self.pending)?;
        for (outcome, loss) in self.pending.drain(..).zip(losses) {
            let step = outcome.step;
            host.record(step, MetricName::TRAIN_LOSS, loss);
            host.record(step, MetricName::LEARNING_RATE, outcome.learning_rate);
            host.record(step, MetricName::GRAD_NORM, outcome.grad_norm.f_double_value(&[])?);
            if !loss.is_finite() {
                return Ok(Some(Outcome::Diverged { step }));
            }
            self.loss = Some(loss);
            examples += outcome.num_examples;
            tokens += outcome.num_tokens;
            own_tokens += outcome.own_tokens;
            own_rows += outcome.own_rows;
        }
        for (places, rate) in rates {
            host.record(last, MetricName::learning_rate_of_group(places), rate);
        }
        if own_rows > 0 {
            let share = 1.0 - own_tokens as f64 / own_rows as f64;
            host.record(last, MetricName::PADDING_SHARE, share);
        }
        host.measure(last);
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        self.since = Instant::now();
        self.examples_per_second = examples as f64 / seconds;
        host.record(last, MetricName::EXAMPLES_PER_SECOND, self.examples_per_second);
        let tokens_per_second = tokens as f64 / seconds;
        host.record(last, MetricName::TOKENS_PER_SECOND, tokens_per_second);
        self.speeds.push(tokens_per_second);
        Ok(None)
    }

    /// Writes to the log how fast it went: the median, which the first steps do not slow down.
    fn log_speed(&mut self, step: u64) {
        self.speeds.sort_by(f64::total_cmp);
        if let Some(median) = self.speeds.get(self.speeds.len() / 2) {
            tracing::info!(step, tokens_per_second = median.round(), "trained");
        }
    }

    fn show_progress(&mut self, step: u64, host: &mut dyn Host) {
        if self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        host.progress(RunProgress {
            step,
            target_step: self.target_step,
            examples_per_second: self.examples_per_second,
            loss: self.loss,
            activity: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::id::{Generation, TrialId};
    use muster_common::storage::{CheckpointKey, StoreError};

    #[test]
    fn a_checkpoint_that_the_store_will_never_take_is_no_reason_to_try_again() {
        let trial = TrialId { experiment: "demo-1".parse().unwrap(), number: 1 };
        let key = || CheckpointKey { trial: trial.clone(), step: 1, generation: Generation(1) };
        let gone = StoreError::NoContainer { url: "s3://gone".to_owned() };
        let error = TrainError::from(SaveError::Store { checkpoint: key(), source: gone });
        assert!(error.is_permanent());
        assert!(!TrainError::from(SaveError::Overdue { checkpoint: key() }).is_permanent());
    }
}
