//! What must hold after every event. Tests and the simulation check it each time.

use std::collections::BTreeSet;

use super::Engine;
use super::experiment::{Part, Phase};
use super::trial::TrialState;

impl Engine {
    /// The first broken rule, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        for (id, worker) in &self.workers {
            if let Some(generation) = worker.run {
                let run = self.runs.get(&generation);
                if run.is_none_or(|run| run.worker != *id) {
                    return Err(format!(
                        "worker {id} claims run {generation}, which is not its own"
                    ));
                }
            }
        }
        for (generation, run) in &self.runs {
            let worker = self.workers.get(&run.worker);
            if worker.is_none_or(|worker| worker.run != Some(*generation)) {
                return Err(format!("run {generation} has no worker"));
            }
            if generation.0 > self.last_generation {
                return Err(format!("run {generation} is newer than the counter"));
            }
        }
        self.experiments().try_for_each(|experiment| {
            let mut claimed = BTreeSet::new();
            for trial in experiment.trials.values() {
                let id = experiment.trial_id(trial.number);
                if let TrialState::Running { generation } = trial.state
                    && (!self.runs.contains_key(&generation) || !claimed.insert(generation))
                {
                    return Err(format!("{id} runs as {generation}, which does not exist"));
                }
                if trial.results.len() != trial.rungs_passed
                    || trial.rungs_passed > experiment.ladder.len()
                {
                    return Err(format!("{id} has passed {} rungs", trial.rungs_passed));
                }
                if trial.results.windows(2).any(|pair| pair[0].step > pair[1].step) {
                    return Err(format!("{id} has results out of order"));
                }
                let best = trial.best_result(experiment.objective());
                if best.is_some_and(|best| !trial.checkpoints.contains(&best.checkpoint)) {
                    return Err(format!("{id} has lost the checkpoint of its best result"));
                }
            }
            if experiment.trials.len() > experiment.max_trials() as usize {
                return Err(format!("{} has too many trials", experiment.id));
            }
            if experiment.is_ended() && experiment.trials.values().any(|trial| !trial.is_terminal())
            {
                return Err(format!("{} has ended before its trials", experiment.id));
            }
            if let Phase::Preparing { parts } = &experiment.phase {
                let lost =
                    |part: &Part| matches!(part, Part::Running(by) if !self.runs.contains_key(by));
                if parts.iter().any(lost) {
                    return Err(format!("{} waits for a part nobody does", experiment.id));
                }
            }
            Ok(())
        })
    }
}
