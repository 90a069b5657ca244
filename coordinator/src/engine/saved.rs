//! What a snapshot is made of: a head and rows. Only rows that have changed since the last snapshot are
//! written again, so a snapshot costs what happened, not what there is.

use muster_common::id::{ExperimentId, TrialId};
use serde::Deserialize;

use super::decision::{Decision, Decisions};
use super::experiment::Experiment;
use super::trial::Trial;
use super::{Engine, ExperimentTable};

/// One row of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// An experiment without its trials and decisions.
    Experiment(ExperimentId),
    /// A trial.
    Trial(TrialId),
    /// A decision of an experiment, by its place from 0.
    Decision(ExperimentId, u64),
}

impl Engine {
    /// Everything that is not in a row, as JSON.
    pub fn head(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Rows that are new or have changed since [`Self::mark_saved`], as JSON.
    pub fn unsaved(&self) -> Result<Vec<(RowKey, String)>, serde_json::Error> {
        let mut rows = Vec::new();
        for id in self.experiments.unsaved() {
            let Some(experiment) = self.experiments.get(id) else { continue };
            rows.push((RowKey::Experiment(id.clone()), serde_json::to_string(experiment)?));
            for number in experiment.trials.unsaved() {
                let Some(trial) = experiment.trials.get(number) else { continue };
                let key = RowKey::Trial(experiment.trial_id(*number));
                rows.push((key, serde_json::to_string(trial)?));
            }
            for (place, decision) in experiment.decisions.unsaved() {
                let key = RowKey::Decision(id.clone(), place as u64);
                rows.push((key, serde_json::to_string(decision)?));
            }
        }
        Ok(rows)
    }

    /// Says that every row is saved as it is.
    pub fn mark_saved(&mut self) {
        let unsaved: Vec<ExperimentId> = self.experiments.unsaved().iter().cloned().collect();
        for id in unsaved {
            if let Some(experiment) = self.experiments.get_mut(&id) {
                experiment.trials.mark_saved();
                experiment.decisions.mark_saved();
            }
        }
        self.experiments.mark_saved();
    }
}

/// An engine that is put together again from a snapshot.
#[derive(Debug)]
pub struct Restoring {
    engine: Engine,
    experiments: Vec<Experiment>,
    trials: Vec<Trial>,
    decisions: Vec<Decision>,
    is_whole: bool,
}

impl Restoring {
    /// Starts with a head. Snapshots of formats 1 and 2 are a head that holds everything.
    pub fn new(head: &str) -> Result<Self, serde_json::Error> {
        let engine: Engine = serde_json::from_str(head)?;
        let is_whole = !engine.experiments.is_empty();
        let (experiments, trials, decisions) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { engine, experiments, trials, decisions, is_whole })
    }

    /// Adds an experiment; the trials and decisions that follow are its own.
    pub fn experiment(&mut self, row: &str) -> Result<(), serde_json::Error> {
        self.close();
        self.experiments.push(serde_json::from_str(row)?);
        Ok(())
    }

    /// Adds a trial of the last experiment.
    pub fn trial(&mut self, row: &str) -> Result<(), serde_json::Error> {
        self.trials.push(serde_json::from_str(row)?);
        Ok(())
    }

    /// Adds a decision of the last experiment; they come in order.
    pub fn decision(&mut self, row: &str) -> Result<(), serde_json::Error> {
        self.decisions.push(Decision::deserialize(&mut serde_json::Deserializer::from_str(row))?);
        Ok(())
    }

    fn close(&mut self) {
        let (trials, decisions) =
            (std::mem::take(&mut self.trials), std::mem::take(&mut self.decisions));
        if let Some(experiment) = self.experiments.last_mut() {
            let id = experiment.id.clone();
            let (mut trials, mut decisions) = (trials, decisions);
            for trial in &mut trials {
                trial.share_name(&id);
            }
            let named = decisions.iter_mut().filter_map(|decision| decision.trial.as_mut());
            named.filter(|trial| trial.experiment == id).for_each(|trial| {
                trial.experiment = id.clone();
            });
            experiment.trials = trials.into_iter().map(|trial| (trial.number, trial)).collect();
            experiment.decisions = Decisions::from(decisions);
        }
    }

    /// The engine as it was.
    pub fn finish(mut self) -> Engine {
        self.close();
        let mut engine = self.engine;
        if !self.is_whole {
            let rows = self.experiments.into_iter().map(|e| (e.id.clone(), e));
            engine.experiments = rows.collect::<ExperimentTable>();
        }
        for (number, id) in engine.order.iter().enumerate() {
            if let Some(experiment) = engine.experiments.get_mut(id) {
                experiment.number = number;
                experiment.trials.refresh();
            }
        }
        if !self.is_whole {
            engine.mark_saved();
        }
        engine.workers.refresh();
        engine.runs.refresh();
        engine.held = engine.count_held();
        engine
    }
}
