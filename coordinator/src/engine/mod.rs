//! The pure core: events in, actions out. It reads no clock, no file, no environment and draws no
//! random numbers but those of the seed tree, so a replay of the journal gives the same state.
//!
//! Reading order: [`event`], [`action`], [`experiment`], [`trial`], [`run`], [`table`] (what holds
//! them), `schedule` (who gets a free slot) with `placement`, `gang` (what happens to the ranks of
//! a run), `drain` (workers that are about to leave), `report` (what a run's words change), `pruning`
//! and [`population`] (what results mean for trials), `failure` and [`host`] (what failures mean),
//! [`continuation`] (trials that begin where
//! others were), `timer` (what is waited for), [`saved`] (what a snapshot is made of).

pub mod action;
pub mod continuation;
pub mod decision;
mod drain;
pub mod event;
pub mod experiment;
pub(crate) mod failure;
mod gang;
pub mod host;
mod invariant;
mod limit;
pub mod line;
mod placement;
pub mod population;
mod preemption;
mod pruning;
mod report;
pub mod run;
pub mod saved;
mod schedule;
mod slots;
pub mod table;
mod timer;
pub mod trial;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_common::elementary::Elementary;
use muster_common::id::{ExperimentId, ExperimentName, Generation, ProjectName, WorkerId};
use muster_common::manifest::Manifest;
use muster_common::run::RunSpec;
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use action::Action;
pub use event::{Event, LossCause};
use experiment::{Experiment, Submission};
use host::HostRecord;
use line::ProjectPolicy;
use run::MemberState;
pub use run::Run;
use table::{Row, Table};

use crate::sweep::asha::Ties;

type ExperimentTable = Table<ExperimentId, Experiment>;

/// All durable state of a coordinator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Engine {
    #[serde(default, skip_serializing)]
    experiments: ExperimentTable,
    /// Submission order: earlier experiments are served first.
    order: Vec<ExperimentId>,
    /// Experiments so far by name, for numbering.
    counts: BTreeMap<ExperimentName, u32>,
    workers: Table<WorkerId, Worker>,
    runs: Table<Generation, Run>,
    last_generation: u64,
    /// Machines that have failed lately.
    #[serde(default)]
    hosts: BTreeMap<String, HostRecord>,
    /// When a worker was last lost: another may come in its place.
    #[serde(default)]
    last_loss: Option<Timestamp>,
    /// Time of the last event.
    #[serde(default)]
    clock: Option<Timestamp>,
    /// Which rules are in force; see [`Event::RulesAdopted`].
    #[serde(default)]
    rules: u32,
    /// What projects may use.
    #[serde(default)]
    projects: BTreeMap<ProjectName, ProjectPolicy>,
    /// Slots by experiment; follows from `workers` and `runs`.
    #[serde(skip)]
    held: BTreeMap<ExperimentId, u32>,
}

/// The rules of this build. 0: as before there were gangs. 1: failures have classes with a rule each,
/// and machines that fail again and again are set aside. 2: projects share slots, priorities take them,
/// and slots that are kept for a gang are lent. 3: pruners that decide at once let ties with the last that
/// goes on go on too. 4: a trial whose time is used up does not begin again, a run that was told to give up is
/// not asked to save itself, gangs that fit nowhere do not keep others small, a machine is not blamed for a trial
/// that nobody wants, elastic gangs wait no longer than their grace, and members of a population go on from what is
/// kept only. 5: logarithms and the like have the same bits on every machine, a checkpoint's random choices follow
/// from the run that made it, what is preempted again and again in vain waits, of the slots on their way out only
/// those count that somebody can have, the preparation and the end of an experiment wait after a failure, a trial that
/// diverges stands last at the rung that it was on its way to, every trial that ends with its experiment says why, and
/// ranks that miss one which was preempted have not failed. 6: samplers take sums of exponentials several terms at a
/// time, so that the last bits of what they propose differ.
pub const RULES: u32 = 6;

/// Rules by their number, as [`RULES`] counts them.
#[derive(Debug, Clone, Copy)]
struct Rules(u32);

impl Rules {
    /// Whether failures have classes.
    fn have_classes(self) -> bool {
        self.0 >= 1
    }

    /// Whether projects, priorities and lent slots count.
    fn have_shares(self) -> bool {
        self.0 >= 2
    }

    /// What becomes of equals at the line.
    fn ties(self) -> Ties {
        if self.0 >= 3 { Ties::GoOn } else { Ties::OlderFirst }
    }

    /// Whether what is used up, given up, out of reach or deleted is left at that.
    fn are_strict(self) -> bool {
        self.0 >= 4
    }

    /// Whether checkpoints are told apart by their runs, preemptions in vain are counted, and so are slots that
    /// nobody can have.
    fn are_exact(self) -> bool {
        self.0 >= 5
    }

    /// Whether the preparation and the end of an experiment wait after a failure, and an end that failed can be had
    /// again.
    fn retry_ends(self) -> bool {
        self.0 >= 5
    }

    /// What decides the last bit of a hyperparameter.
    fn functions(self) -> Elementary {
        match self.0 {
            0..5 => Elementary::Platform,
            5 => Elementary::Portable,
            _ => Elementary::Lanes,
        }
    }

    /// Whether a trial that diverges counts at the rung that it was on its way to.
    fn count_divergence(self) -> bool {
        self.0 >= 5
    }

    /// Whether trials that end with their experiment say why.
    fn have_every_end_explained(self) -> bool {
        self.0 >= 5
    }
}

/// A worker that offers its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The machine it runs on, for people.
    pub host: String,
    /// What it does.
    pub run: Option<Generation>,
    /// It is about to leave, and gets no new runs.
    #[serde(default)]
    pub draining: bool,
    /// Name of the token it came in with; only who shows that one may come back under its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_name: Option<String>,
}

/// What the scheduler asks of workers; those that work are of no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerKind {
    /// It can be given a run.
    Free,
    /// It is about to leave.
    Draining,
}

impl Row for Worker {
    type Kind = WorkerKind;

    fn kind(&self) -> Option<WorkerKind> {
        if self.draining {
            return Some(WorkerKind::Draining);
        }
        self.run.is_none().then_some(WorkerKind::Free)
    }
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

    /// Experiments that have not ended, in order of submission.
    pub fn open_experiments(&self) -> Vec<&Experiment> {
        let mut open: Vec<&Experiment> = self.experiments.of(()).map(|(_, e)| e).collect();
        open.sort_by_key(|experiment| experiment.number);
        open
    }

    /// Workers by id.
    pub fn workers(&self) -> &BTreeMap<WorkerId, Worker> {
        &self.workers
    }

    /// Runs that have not ended.
    pub fn runs(&self) -> &BTreeMap<Generation, Run> {
        &self.runs
    }

    /// Which rules are in force.
    pub fn rules(&self) -> u32 {
        self.rules
    }

    /// Whether failures have classes.
    fn has_classes(&self) -> bool {
        Rules(self.rules).have_classes()
    }

    /// Whether projects, priorities and lent slots count.
    fn has_shares(&self) -> bool {
        Rules(self.rules).have_shares()
    }

    /// Whether what is used up, given up, out of reach or deleted is left at that.
    fn is_strict(&self) -> bool {
        Rules(self.rules).are_strict()
    }

    /// Whether preemptions in vain are counted, and slots that nobody can have.
    fn is_exact(&self) -> bool {
        Rules(self.rules).are_exact()
    }

    /// What projects may use.
    pub fn projects(&self) -> &BTreeMap<ProjectName, ProjectPolicy> {
        &self.projects
    }

    /// Whether a report of a rank is to be journaled.
    pub fn admit(&self, generation: Generation, rank: u32, sequence: u64) -> Admission {
        match self.runs.get(&generation).and_then(|run| run.member(rank)) {
            Some(member) if member.state != MemberState::Working => Admission::Old,
            None => Admission::Old,
            Some(member) if sequence < member.next_sequence => Admission::Old,
            Some(member) if sequence == member.next_sequence => Admission::New,
            Some(_) => Admission::Gap,
        }
    }

    /// What a worker has to be told about a run it should be doing; `None`: nothing yet.
    pub fn spec(&self, generation: Generation, worker: &WorkerId) -> Option<RunSpec> {
        let run = self.runs.get(&generation)?;
        let rank = run.rank_of(worker)?;
        let is_working = run.member(rank)?.state == MemberState::Working;
        let experiment = self.experiments.get(&run.experiment).filter(|_| is_working)?;
        Some(RunSpec {
            generation,
            experiment: run.experiment.clone(),
            task: run.task.clone(),
            manifest: Arc::clone(&experiment.manifest),
            store: experiment.store.clone(),
            gang: run.gang(rank),
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
        // A wall clock may be set back; what is due stays due.
        let now = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(now);
        match event {
            Event::ExperimentSubmitted { manifest, text, store, owner, base } => {
                let submission = Submission { text, store, owner, base };
                self.submit(now, *manifest, submission, &mut actions);
            }
            Event::ExperimentPrioritized { experiment, priority } => {
                self.prioritize(now, &experiment, priority, &mut actions);
            }
            Event::TrialPaused { trial } => self.hold_trial(now, &trial, &mut actions),
            Event::TrialResumed { trial } => self.release_trial(now, &trial, &mut actions),
            Event::TrialCanceled { trial } => self.cancel_trial(now, &trial, &mut actions),
            Event::ProjectsSet { projects } => self.projects = projects,
            Event::ExperimentPaused { experiment } => self.pause(now, &experiment, &mut actions),
            Event::ExperimentResumed { experiment } => {
                self.resume(now, &experiment, &mut actions);
            }
            Event::ExperimentCanceled { experiment } => {
                self.cancel(now, &experiment, &mut actions);
            }
            Event::WorkerJoined { worker, host, token_name } => {
                if !self.workers.contains_key(&worker) {
                    let joined = Worker { host, run: None, draining: false, token_name };
                    self.workers.insert(worker, joined);
                } else if token_name.is_some()
                    && let Some(known) = self.workers.get_mut(&worker)
                {
                    known.token_name = token_name;
                }
            }
            Event::WorkerDraining { worker, reason } => {
                self.drain(now, &worker, &reason, &mut actions);
            }
            Event::WorkerLost { worker, cause } => self.lose(now, &worker, &cause, &mut actions),
            Event::RunReported { generation, rank, sequence, report } => {
                if self.admit(generation, rank, sequence) == Admission::New {
                    self.report(now, (generation, rank), report, &mut actions);
                } else {
                    let reason = format!(
                        "report {sequence} of rank {rank} of run {generation} does not count"
                    );
                    actions.push(Action::Rejected { reason });
                }
            }
            Event::CheckpointDeleted { checkpoint } => self.forget_checkpoint(&checkpoint),
            Event::CheckpointsDeleted { checkpoints } => {
                for checkpoint in &checkpoints {
                    self.forget_checkpoint(checkpoint);
                }
            }
            Event::RulesAdopted { rules } => self.adopt(rules),
            Event::TimerFired => {}
        }
        self.end_overdue_gangs(now, &mut actions);
        self.take_back_hosts(now);
        self.enforce_limits(now, &mut actions);
        self.schedule(now, &mut actions);
        self.make_room(now, &mut actions);
        actions
    }

    /// Takes other rules over, for all that has not ended.
    fn adopt(&mut self, rules: u32) {
        self.rules = rules;
        let functions = Rules(rules).functions();
        let differs = |e: &Experiment| !e.is_ended() && e.functions != functions;
        for experiment in self.experiments.values_mut_if(differs) {
            experiment.functions = functions;
        }
    }

    fn submit(
        &mut self,
        now: Timestamp,
        manifest: Manifest,
        submission: Submission,
        actions: &mut Vec<Action>,
    ) {
        let mut named = manifest.searcher.iter().flat_map(|searcher| &searcher.warm_start);
        if let Some(reason) = named.find_map(|id| self.cannot_teach(id, &manifest)) {
            actions.push(Action::Rejected { reason });
            return;
        }
        let start = match self.start_of(&manifest, &submission.store) {
            Ok(start) => start,
            Err(reason) => {
                actions.push(Action::Rejected { reason });
                return;
            }
        };
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
            return self.submit(now, manifest, submission, actions);
        }
        actions.push(Action::Created { experiment: id.clone() });
        actions.push(Action::StoreManifest {
            experiment: id.clone(),
            store: submission.store.clone(),
            text: submission.text.clone(),
        });
        let mut experiment = Experiment::new(id.clone(), now, manifest, submission);
        experiment.number = self.order.len();
        experiment.functions = Rules(self.rules).functions();
        self.teach(now, &mut experiment);
        if let Some(start) = start {
            self.pin(now, start, &mut experiment);
        }
        self.order.push(id.clone());
        self.experiments.insert(id, experiment);
    }

    /// Why an earlier experiment says nothing about a new one; `None`: it does.
    fn cannot_teach(&self, id: &ExperimentId, manifest: &Manifest) -> Option<String> {
        let Some(earlier) = self.experiments.get(id) else {
            let known: Vec<String> = self.order.iter().map(ToString::to_string).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Some(format!("searcher.warm_start: no experiment `{id}`; known: {known}"));
        };
        let wanted = manifest.searcher.as_ref()?.goal();
        let found = earlier.goal();
        let is_same = wanted.objectives().eq(found.objectives());
        (!is_same).then(|| {
            format!(
                "searcher.warm_start: {id} was compared by {}, this one is by {}",
                found.names(),
                wanted.names()
            )
        })
    }

    /// Gives an experiment what the earlier ones that it names have found so far.
    fn teach(&self, now: Timestamp, experiment: &mut Experiment) {
        let named = experiment.manifest.searcher.iter().flat_map(|s| s.warm_start.clone());
        for id in named.collect::<Vec<_>>() {
            let Some(earlier) = self.experiments.get(&id) else { continue };
            let findings = earlier.findings(&experiment.ladder, &experiment.goal());
            let (num, all) = (findings.len(), earlier.trials.len());
            experiment.decide(now, None, format!("learns from {num} of {all} trials of {id}"));
            experiment.prior.extend(findings);
        }
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
