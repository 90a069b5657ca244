//! The pure core: events in, actions out. It reads no clock, no file, no environment and draws no
//! random numbers but those of the seed tree, so a replay of the journal gives the same state.
//!
//! Reading order: [`event`], [`action`], [`experiment`], [`trial`], `schedule` (who gets a free slot),
//! `report` (what a run's words change).

pub mod action;
pub mod event;
pub mod experiment;
mod invariant;
mod report;
mod schedule;
pub mod trial;

use std::collections::BTreeMap;

use muster_common::id::{ExperimentId, ExperimentName, Generation, WorkerId};
use muster_common::manifest::Manifest;
use muster_common::run::{Directive, RunExit, RunSpec, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use action::Action;
pub use event::{Event, LossCause};
use experiment::{Experiment, ExperimentEnd};
use trial::TrialState;

/// All durable state of a coordinator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Engine {
    experiments: BTreeMap<ExperimentId, Experiment>,
    /// Submission order: earlier experiments are served first.
    order: Vec<ExperimentId>,
    /// Experiments so far by name, for numbering.
    counts: BTreeMap<ExperimentName, u32>,
    workers: BTreeMap<WorkerId, Worker>,
    runs: BTreeMap<Generation, Run>,
    last_generation: u64,
}

/// A worker that offers its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The machine it runs on, for people.
    pub host: String,
    /// What it does.
    pub run: Option<Generation>,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Who does it.
    pub worker: WorkerId,
    /// For which experiment.
    pub experiment: ExperimentId,
    /// What.
    pub task: Task,
    /// Number of the next report to count.
    pub next_sequence: u64,
    /// When it was assigned.
    pub started_at: Timestamp,
    /// What it was told.
    pub directive: Option<Directive>,
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It counts: journal it.
    New,
    /// It was counted before, or its run is over: acknowledge and forget it.
    Old,
    /// Earlier reports of the run are missing: the sender has to repeat them.
    Gap,
}

impl Engine {
    /// Every experiment, in order of submission.
    pub fn experiments(&self) -> impl Iterator<Item = &Experiment> {
        self.order.iter().filter_map(|id| self.experiments.get(id))
    }

    /// One experiment.
    pub fn experiment(&self, id: &ExperimentId) -> Option<&Experiment> {
        self.experiments.get(id)
    }

    /// Workers by id.
    pub fn workers(&self) -> &BTreeMap<WorkerId, Worker> {
        &self.workers
    }

    /// Runs that have not ended.
    pub fn runs(&self) -> &BTreeMap<Generation, Run> {
        &self.runs
    }

    /// Whether a report is to be journaled.
    pub fn admit(&self, generation: Generation, sequence: u64) -> Admission {
        match self.runs.get(&generation) {
            None => Admission::Old,
            Some(run) if sequence < run.next_sequence => Admission::Old,
            Some(run) if sequence == run.next_sequence => Admission::New,
            Some(_) => Admission::Gap,
        }
    }

    /// What a worker has to be told about a run it should be doing.
    pub fn spec(&self, generation: Generation) -> Option<RunSpec> {
        let run = self.runs.get(&generation)?;
        let experiment = self.experiments.get(&run.experiment)?;
        Some(RunSpec {
            generation,
            experiment: run.experiment.clone(),
            task: run.task.clone(),
            manifest: experiment.manifest.clone(),
            store: experiment.store.clone(),
            gang: None,
        })
    }

    /// Effects that may not have happened before a crash. Runs are not among them: a worker that
    /// comes back is told what it should be doing.
    pub fn outstanding(&self) -> Vec<Action> {
        let of = |experiment: &Experiment| {
            let store = experiment.store.clone();
            let manifest = Action::StoreManifest {
                experiment: experiment.id.clone(),
                store: store.clone(),
                text: experiment.text.clone(),
            };
            let deletions = experiment.trials.values().flat_map(|trial| trial.deleting.clone());
            let deletions = deletions.map(move |checkpoint| Action::DeleteCheckpoint {
                store: store.clone(),
                checkpoint,
            });
            let wanted = !experiment.is_ended();
            wanted.then_some(manifest).into_iter().chain(deletions).collect::<Vec<_>>()
        };
        self.experiments().flat_map(of).collect()
    }

    /// The one way in. Same state, time and event give the same state and actions.
    pub fn apply(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::ExperimentSubmitted { manifest, text, store } => {
                self.submit(now, *manifest, text, store, &mut actions);
            }
            Event::ExperimentPaused { experiment } => self.pause(now, &experiment, &mut actions),
            Event::ExperimentResumed { experiment } => {
                self.resume(now, &experiment, &mut actions);
            }
            Event::ExperimentCanceled { experiment } => {
                self.cancel(now, &experiment, &mut actions);
            }
            Event::WorkerJoined { worker, host } => {
                self.workers.entry(worker).or_insert(Worker { host, run: None });
            }
            Event::WorkerLost { worker, cause } => self.lose(now, &worker, &cause),
            Event::RunReported { generation, sequence, report } => {
                if self.admit(generation, sequence) == Admission::New {
                    self.report(now, generation, report, &mut actions);
                } else {
                    let reason = format!("report {sequence} of run {generation} does not count");
                    actions.push(Action::Rejected { reason });
                }
            }
            Event::CheckpointDeleted { checkpoint } => self.forget_checkpoint(&checkpoint),
        }
        self.schedule(now, &mut actions);
        actions
    }

    fn submit(
        &mut self,
        now: Timestamp,
        manifest: Manifest,
        text: String,
        store: String,
        actions: &mut Vec<Action>,
    ) {
        let count = self.counts.entry(manifest.name.clone()).or_insert(0);
        *count += 1;
        // A name may be as long as an id may be: cut it rather than refuse what was accepted.
        let suffix = format!("-{count}");
        let keep = muster_common::id::NAME_BYTES_MAX.saturating_sub(suffix.len());
        let stem: String = manifest.name.as_str().chars().take(keep).collect();
        let Ok(id) = format!("{}{suffix}", stem.trim_end_matches('-')).parse::<ExperimentId>()
        else {
            let reason = format!("`{}` gives no experiment id", manifest.name);
            actions.push(Action::Rejected { reason });
            return;
        };
        if self.experiments.contains_key(&id) {
            // Another name was cut to the same id; its next number is free.
            return self.submit(now, manifest, text, store, actions);
        }
        actions.push(Action::Created { experiment: id.clone() });
        actions.push(Action::StoreManifest {
            experiment: id.clone(),
            store: store.clone(),
            text: text.clone(),
        });
        let experiment = Experiment::new(id.clone(), now, manifest, text, store);
        self.order.push(id.clone());
        self.experiments.insert(id, experiment);
    }

    fn pause(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.experiments.get_mut(id).filter(|e| !e.is_ended()) else {
            actions.push(not_running(id));
            return;
        };
        if !experiment.paused {
            experiment.paused = true;
            experiment.decide(now, None, "paused".to_owned());
        }
        self.direct_runs(id, Directive::Preempt, actions);
    }

    fn resume(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.experiments.get_mut(id).filter(|e| !e.is_ended()) else {
            actions.push(not_running(id));
            return;
        };
        if experiment.paused {
            experiment.paused = false;
            experiment.decide(now, None, "resumed".to_owned());
        }
    }

    fn cancel(&mut self, now: Timestamp, id: &ExperimentId, actions: &mut Vec<Action>) {
        let Some(experiment) = self.experiments.get_mut(id).filter(|e| !e.is_ended()) else {
            actions.push(not_running(id));
            return;
        };
        for trial in experiment.trials.values_mut().filter(|trial| !trial.is_terminal()) {
            trial.state = TrialState::Canceled;
        }
        experiment.end(now, ExperimentEnd::Canceled);
        self.direct_runs(id, Directive::Cancel, actions);
    }

    /// Tells every run of an experiment to leave its slot.
    fn direct_runs(&mut self, id: &ExperimentId, directive: Directive, actions: &mut Vec<Action>) {
        for (generation, run) in self.runs.iter_mut().filter(|(_, run)| run.experiment == *id) {
            run.directive = Some(directive);
            let (worker, generation) = (run.worker.clone(), *generation);
            actions.push(Action::DirectRun { worker, generation, directive });
        }
    }

    fn lose(&mut self, now: Timestamp, id: &WorkerId, cause: &LossCause) {
        let Some(worker) = self.workers.remove(id) else { return };
        let Some(generation) = worker.run else { return };
        let (reason, counts) = match cause {
            LossCause::LeaseExpired => ("nothing was heard of its worker".to_owned(), true),
            LossCause::Left { reason } => (reason.clone(), true),
            LossCause::CoordinatorRestarted => ("the coordinator restarted".to_owned(), false),
        };
        let Some(run) = self.runs.remove(&generation) else { return };
        self.end_run(now, generation, &run, RunExit::Lost { reason }, counts);
    }

    fn forget_checkpoint(&mut self, checkpoint: &CheckpointKey) {
        let trial = self
            .experiments
            .get_mut(&checkpoint.trial.experiment)
            .and_then(|experiment| experiment.trials.get_mut(&checkpoint.trial.number));
        if let Some(trial) = trial {
            trial.deleting.retain(|key| key != checkpoint);
        }
    }
}

fn not_running(id: &ExperimentId) -> Action {
    Action::Rejected { reason: format!("experiment {id} is unknown or has ended") }
}
