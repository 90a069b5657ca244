//! What was seen once, so that it is never seen otherwise: no experiment and no trial is lost, hyperparameters stay
//! what they are, the end of a trial is its end, results and decisions are added and never taken back, reports count
//! one after the other. A crash may take what was not durable, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use muster_common::id::{ExperimentId, Generation};
use muster_common::manifest::Assignment;
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::Engine;
use muster_coordinator::engine::experiment::{Experiment, Phase};
use muster_coordinator::engine::trial::{Trial, TrialState};

/// What is known of a trial.
#[derive(Debug)]
struct KnownTrial {
    assignment: Assignment,
    /// How often it went on from somebody else's checkpoint, with other hyperparameters.
    num_descents: usize,
    num_results: usize,
    end: Option<TrialState>,
}

/// What is known of an experiment.
#[derive(Debug)]
struct KnownExperiment {
    id: ExperimentId,
    trials: Vec<KnownTrial>,
    num_decisions: usize,
    end: Option<Phase>,
}

/// How much there is of an experiment: trials, those that have ended, results, decisions, and whether it has ended.
type Census = (usize, usize, usize, usize, bool);

/// A fact that is not durable.
#[derive(Debug)]
enum Fresh {
    /// A report of a rank was counted.
    Counted(Generation, u32),
    /// A checkpoint was spoken of.
    Committed(CheckpointKey),
    /// It was deleted.
    Deleted(CheckpointKey),
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// In order of submission.
    experiments: Vec<KnownExperiment>,
    /// How much there was when the disk was last up to date.
    durable: Vec<Census>,
    /// Reports that were counted, by run and rank.
    counted: BTreeMap<(Generation, u32), u64>,
    /// Checkpoints that the engine has been told of, until they are deleted.
    committed: BTreeSet<CheckpointKey>,
    fresh: Vec<Fresh>,
}

impl Memory {
    /// Compares everything with what it was before, and remembers what is new.
    pub(super) fn observe(&mut self, engine: &Engine) {
        for (index, experiment) in engine.experiments().enumerate() {
            if index == self.experiments.len() {
                self.experiments.push(KnownExperiment::new(experiment));
            }
            self.experiments[index].observe(experiment);
        }
        assert_eq!(engine.experiments().count(), self.experiments.len(), "an experiment is lost");
    }

    /// A report counts now: the next of its rank.
    pub(super) fn count(&mut self, generation: Generation, rank: u32, sequence: u64) {
        let counted = self.counted.entry((generation, rank)).or_insert(0);
        *counted += 1;
        assert_eq!(*counted, sequence, "of rank {rank} of run {generation} another report is due");
        self.fresh.push(Fresh::Counted(generation, rank));
    }

    /// A checkpoint was spoken of. One of a run that has no say any more is nobody's.
    pub(super) fn committed(&mut self, checkpoint: Option<CheckpointKey>, engine: &Engine) {
        let Some(checkpoint) = checkpoint.filter(|checkpoint| is_known(engine, checkpoint)) else {
            return;
        };
        if self.committed.insert(checkpoint.clone()) {
            self.fresh.push(Fresh::Committed(checkpoint));
        }
    }

    /// A checkpoint was deleted.
    pub(super) fn deleted(&mut self, checkpoint: &CheckpointKey) {
        if self.committed.remove(checkpoint) {
            self.fresh.push(Fresh::Deleted(checkpoint.clone()));
        }
    }

    /// Checkpoints that were spoken of are kept, or are being deleted.
    pub(super) fn check_checkpoints(&self, engine: &Engine) {
        for checkpoint in &self.committed {
            assert!(is_known(engine, checkpoint), "{checkpoint} is forgotten, and never deleted");
        }
    }

    /// Everything is durable.
    pub(super) fn keep(&mut self, engine: &Engine) {
        self.durable = engine.experiments().map(census).collect();
        self.fresh.clear();
    }

    /// What is found after a crash is what was durable: a past of what was there `before`, to the last word.
    pub(super) fn crash(&mut self, before: &Engine, restored: &Engine) {
        let found: Vec<Census> = restored.experiments().map(census).collect();
        assert_eq!(found, self.durable, "what was durable is found again");
        for (past, present) in restored.experiments().zip(before.experiments()) {
            assert_eq!(past.id, present.id, "an experiment has become another one");
            let decisions = present.decisions.get(..past.decisions.len());
            assert_eq!(decisions, Some(&past.decisions[..]), "{}: decided otherwise", past.id);
            for (was, is) in past.trials.values().zip(present.trials.values()) {
                let results = is.results.get(..was.results.len());
                let place = format!("{} t{}", past.id, was.number);
                assert_eq!(results, Some(&was.results[..]), "{place}: other results");
                let has_changed = is.lineage.len() > was.lineage.len();
                assert!(has_changed || is.assignment == was.assignment, "{place} is another trial");
                assert!(
                    !was.is_terminal() || is.state == was.state,
                    "{place} goes on after its end"
                );
            }
        }
        for fact in std::mem::take(&mut self.fresh).into_iter().rev() {
            match fact {
                Fresh::Counted(generation, rank) => {
                    if let Some(counted) = self.counted.get_mut(&(generation, rank)) {
                        *counted -= 1;
                    }
                }
                Fresh::Committed(checkpoint) => {
                    self.committed.remove(&checkpoint);
                }
                Fresh::Deleted(checkpoint) => {
                    self.committed.insert(checkpoint);
                }
            }
        }
        self.experiments.clear();
        self.observe(restored);
    }
}

impl KnownExperiment {
    fn new(experiment: &Experiment) -> Self {
        let id = experiment.id.clone();
        Self { id, trials: Vec::new(), num_decisions: 0, end: None }
    }

    fn observe(&mut self, experiment: &Experiment) {
        let id = &self.id;
        assert_eq!(*id, experiment.id, "an experiment has become another one");
        assert!(experiment.trials.len() >= self.trials.len(), "{id} has lost a trial");
        assert!(experiment.decisions.len() >= self.num_decisions, "{id} has lost a decision");
        self.num_decisions = experiment.decisions.len();
        for (index, trial) in experiment.trials.values().enumerate() {
            assert_eq!(trial.number as usize, index + 1, "{id} has lost a trial");
            match self.trials.get_mut(index) {
                Some(known) => known.observe(trial, id),
                None => self.trials.push(KnownTrial::new(trial)),
            }
        }
        match &self.end {
            Some(end) => assert_eq!(experiment.phase, *end, "{id} has ended, and changes"),
            // The model of one that could not write it may be written after all.
            None if experiment.lacks_model() => {}
            None => self.end = experiment.is_ended().then(|| experiment.phase.clone()),
        }
    }
}

impl KnownTrial {
    fn new(trial: &Trial) -> Self {
        Self {
            assignment: trial.assignment.clone(),
            num_descents: trial.lineage.len(),
            num_results: trial.results.len(),
            end: trial.is_terminal().then(|| trial.state.clone()),
        }
    }

    fn observe(&mut self, trial: &Trial, experiment: &ExperimentId) {
        let number = trial.number;
        if self.num_descents < trial.lineage.len() {
            self.num_descents = trial.lineage.len();
            self.assignment = trial.assignment.clone();
        }
        assert_eq!(trial.assignment, self.assignment, "{experiment} t{number} is another trial");
        let num_results = trial.results.len();
        assert!(num_results >= self.num_results, "{experiment} t{number} has lost a result");
        self.num_results = num_results;
        match &self.end {
            Some(end) => {
                assert_eq!(trial.state, *end, "{experiment} t{number} has ended, and changes");
            }
            None => self.end = trial.is_terminal().then(|| trial.state.clone()),
        }
    }
}

fn census(experiment: &Experiment) -> Census {
    let trials = &experiment.trials;
    let num_over = trials.values().filter(|trial| trial.is_terminal()).count();
    let num_results = trials.values().map(|trial| trial.results.len()).sum();
    (trials.len(), num_over, num_results, experiment.decisions.len(), experiment.is_ended())
}

/// Whether a checkpoint is kept or is being deleted.
fn is_known(engine: &Engine, checkpoint: &CheckpointKey) -> bool {
    let experiment = engine.experiment(&checkpoint.trial.experiment);
    let trial = experiment.and_then(|experiment| experiment.trials.get(&checkpoint.trial.number));
    trial.is_some_and(|trial| {
        trial.checkpoints.contains(checkpoint) || trial.deleting.contains(checkpoint)
    })
}
