//! Experiments whose trials begin where a trial of an earlier one had come to.

use muster_common::manifest::{Budget, CheckpointChoice, Continuation, Manifest};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::experiment::Experiment;
use super::trial::{Trial, TrialState};

/// Where the trials of an experiment begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Another experiment's checkpoint.
    pub checkpoint: CheckpointKey,
    /// Number of the trial whose random choices go with it.
    pub seed_of: u32,
}

impl Engine {
    /// Where the trials of a manifest begin; absent: at the pretrained weights. Fails with the reason, for
    /// whoever submits it.
    pub(super) fn start_of(
        &self,
        manifest: &Manifest,
        store: &str,
    ) -> Result<Option<Start>, String> {
        let Some(Continuation { trial: id, checkpoint: choice }) = &manifest.continue_from else {
            return Ok(None);
        };
        let wrong = |text: String| format!("continue_from: {text}");
        let Some(other) = self.experiments.get(&id.experiment) else {
            return Err(wrong(format!("no experiment `{}` is known", id.experiment)));
        };
        let Some(trial) = other.trials.get(&id.number) else {
            return Err(wrong(format!("no trial `{id}`; there are {}", other.trials.len())));
        };
        if other.store != store {
            let text = format!("{id} lies in {}, and new experiments in {store}", other.store);
            return Err(wrong(text));
        }
        let found = match choice {
            CheckpointChoice::Last => trial.checkpoints.last(),
            CheckpointChoice::Best => {
                trial.best_result(&other.goal()).map(|result| &result.checkpoint)
            }
            CheckpointChoice::Step(step) => {
                trial.checkpoints.iter().rev().find(|checkpoint| checkpoint.step == *step)
            }
        };
        let Some(checkpoint) = found.filter(|found| trial.checkpoints.contains(found)) else {
            let steps: Vec<String> = trial.checkpoints.iter().map(|c| c.step.to_string()).collect();
            let kept = match steps.len() {
                0 => "none".to_owned(),
                _ => format!("those of steps {}", steps.join(", ")),
            };
            return Err(wrong(format!("{id} has no checkpoint `{choice}`; it has {kept}")));
        };
        if let Budget::Steps(steps) = manifest.budget
            && steps <= checkpoint.step
        {
            let step = checkpoint.step;
            let text =
                format!("{id} is at step {step} there, and budget.steps counts from its beginning");
            return Err(wrong(format!("{text}: write more than {step}, not {steps}")));
        }
        let seed_of = trial.seed_of_checkpoint(checkpoint);
        Ok(Some(Start { checkpoint: checkpoint.clone(), seed_of }))
    }

    /// Has the trials of an experiment begin there, and the checkpoint kept.
    pub(super) fn pin(&mut self, now: Timestamp, start: Start, experiment: &mut Experiment) {
        let checkpoint = &start.checkpoint;
        if let Some(other) = self.experiments.get_mut(&checkpoint.trial.experiment) {
            other.pinned.insert(checkpoint.clone());
        }
        let CheckpointKey { trial, step, .. } = checkpoint;
        experiment.decide(now, None, format!("trials begin where {trial} was at step {step}"));
        experiment.start = Some(start);
    }
}

impl Experiment {
    /// A new trial, at the place where those of this experiment begin.
    pub(super) fn started(&self, trial: Trial) -> Trial {
        let Some(Start { checkpoint, seed_of }) = &self.start else { return trial };
        Trial { origin: Some(checkpoint.clone()), began_as: Some(*seed_of), ..trial }
    }

    /// Says where a new trial begins, and fails one whose first rung does not lie behind that; whether it may
    /// begin. How many steps a rung has depends on the data and on the trial's own batch.
    pub(super) fn may_start(&mut self, now: Timestamp, number: u32) -> bool {
        let Some(Start { checkpoint, .. }) = &self.start else { return true };
        let text = format!("begins where {} was at step {}", checkpoint.trial, checkpoint.step);
        self.decide(now, Some(number), text);
        let Some(trial) = self.trials.get(&number) else { return false };
        let (begin, target) = (trial.committed_step(), self.target_step(trial));
        if target.is_none_or(|target| target > begin) {
            return true;
        }
        let message = format!(
            "continue_from: it begins at step {begin}, and its first rung is at step {}; rungs and the budget \
             count from the beginning of the trial that is continued",
            target.unwrap_or_default()
        );
        self.decide(now, Some(number), message.clone());
        if let Some(trial) = self.trials.get_mut(&number) {
            trial.state = TrialState::Failed { message };
        }
        false
    }
}
