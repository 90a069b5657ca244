//! Slots that take a random time for every run.

use std::collections::BTreeMap;

use muster_common::evaluation::Evaluation;
use muster_common::id::Generation;
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, RunExit, RunReport, RunSpec, Task};
use muster_common::seed::{Draws, Seed};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::Experiment;
use muster_coordinator::engine::{Action, Engine, Event, RULES};

use crate::sample;

/// A manifest whose trials are told apart by their learning rate only.
pub(crate) fn manifest(budget: &str, searcher: &str) -> Manifest {
    let more = format!(
        "hyperparameters: {{learning_rate: {{min: 1e-5, max: 1e-3}}}}
searcher: {{{searcher}}}
budget: {budget}
"
    );
    sample::manifest("e", &more)
}

/// Loss of a trial after so many steps.
pub(crate) type Landscape = fn(u32, u64) -> f64;

/// All scores of a trial after so many steps.
pub(crate) type Scores = Box<dyn Fn(u32, u64) -> Evaluation>;

pub(crate) struct Slots {
    pub(crate) engine: Engine,
    draws: Draws,
    scores: Scores,
    pub(crate) now: u64,
    /// Runs at work, by the time at which they end.
    pub(crate) busy: BTreeMap<(u64, Generation), RunSpec>,
    /// Training runs: trial, first and last step.
    pub(crate) trained: Vec<(u32, u64, u64)>,
    /// A run whose loss is no number ends as diverged and leaves no result, as those of workers do.
    pub(crate) gives_up: bool,
}

impl Slots {
    pub(crate) fn run(manifest: Manifest, num_slots: u32, seed: u64, landscape: Landscape) -> Self {
        let mut slots = Self::new(num_slots, seed, landscape);
        slots.finish(manifest);
        slots
    }

    pub(crate) fn run_scored(
        manifest: Manifest,
        num_slots: u32,
        seed: u64,
        scores: Scores,
    ) -> Self {
        let mut slots = Self::new(num_slots, seed, |_, _| 0.0);
        slots.scores = scores;
        slots.finish(manifest);
        slots
    }

    pub(crate) fn finish(&mut self, manifest: Manifest) {
        self.submit(manifest);
        while let Some(((at, generation), spec)) = self.busy.pop_first() {
            self.now = at;
            self.end(generation, &spec);
        }
    }

    pub(crate) fn submit(&mut self, manifest: Manifest) {
        let (text, store) = ("text".to_owned(), "file:///store".to_owned());
        self.apply(Event::ExperimentSubmitted {
            manifest: Box::new(manifest),
            text,
            store,
            owner: None,
            base: None,
        });
    }

    pub(crate) fn new(num_slots: u32, seed: u64, landscape: Landscape) -> Self {
        Self::under(RULES, num_slots, seed, landscape)
    }

    /// Under the rules of an earlier build.
    pub(crate) fn under(rules: u32, num_slots: u32, seed: u64, landscape: Landscape) -> Self {
        let mut slots = Self {
            engine: Engine::default(),
            draws: Seed(seed).draws(),
            scores: Box::new(move |number, step| Evaluation {
                loss: landscape(number, step),
                ..Evaluation::default()
            }),
            now: 1_000_000,
            busy: BTreeMap::new(),
            trained: Vec::new(),
            gives_up: false,
        };
        slots.apply(Event::RulesAdopted { rules });
        for number in 1..=num_slots {
            let worker = format!("w{number}").parse().unwrap();
            slots.apply(Event::WorkerJoined { worker, host: "h".to_owned(), token_name: None });
        }
        slots
    }

    pub(crate) fn experiment(&self) -> &Experiment {
        self.engine.experiments().next().unwrap()
    }

    fn apply(&mut self, event: Event) {
        let actions = self.engine.apply(Timestamp(self.now), event);
        self.engine.check_invariants().unwrap();
        for action in actions {
            match action {
                Action::StartRun { spec, .. } => {
                    let end = self.now + 1 + self.draws.below(1000);
                    self.busy.insert((end, spec.generation), *spec);
                }
                Action::DirectRun { generation, .. } => {
                    let key = self.busy.keys().find(|(_, busy)| *busy == generation).copied();
                    if let Some(spec) = key.and_then(|key| self.busy.remove(&key)) {
                        self.report(generation, 1, RunReport::Ended { exit: RunExit::Canceled });
                        drop(spec);
                    }
                }
                _ => {}
            }
        }
    }

    fn report(&mut self, generation: Generation, sequence: u64, report: RunReport) {
        self.apply(Event::RunReported { generation, rank: 0, sequence, report });
    }

    pub(crate) fn end(&mut self, generation: Generation, spec: &RunSpec) {
        let mut reports = match &spec.task {
            Task::Prepare { .. } => vec![RunReport::Prepared(data())],
            Task::Train(task) => {
                let (number, step) = (task.trial.number, task.target_step);
                let from = task.resume_from.as_ref().map_or(0, |checkpoint| checkpoint.step);
                self.trained.push((number, from, step));
                let checkpoint = CheckpointKey { trial: task.trial.clone(), step, generation };
                let evaluation = (self.scores)(number, step);
                if self.gives_up && !evaluation.loss.is_finite() {
                    let exit = RunExit::Diverged { step };
                    return self.report(generation, 1, RunReport::Ended { exit });
                }
                vec![
                    RunReport::CheckpointCommitted { checkpoint },
                    RunReport::Evaluated { step, evaluation },
                ]
            }
            Task::Finish { .. } => {
                vec![RunReport::Finished { test: None, model: "m".to_owned() }]
            }
        };
        reports.push(RunReport::Ended { exit: RunExit::Completed });
        for (sequence, report) in (1..).zip(reports) {
            self.report(generation, sequence, report);
        }
    }

    /// Trials that trained to a step.
    pub(crate) fn num_at(&self, step: u64) -> usize {
        self.trained.iter().filter(|(_, _, target)| *target == step).count()
    }

    pub(crate) fn said(&self, number: u32) -> Vec<String> {
        let decisions = self.experiment().decisions.iter();
        let own = decisions.filter(|d| d.trial.as_ref().is_some_and(|t| t.number == number));
        own.map(|decision| decision.text.clone()).collect()
    }
}

pub(crate) fn data() -> DataSummary {
    DataSummary { cache: "c".to_owned(), num_train: 1000, ..DataSummary::default() }
}
