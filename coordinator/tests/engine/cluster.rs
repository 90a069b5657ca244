//! Workers and experiments that do what a test says, around the real engine.

use muster_common::evaluation::Evaluation;
use muster_common::id::{Generation, WorkerId};
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, Directive, FailureClass, RunExit, RunReport, RunSpec, Task};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::trial::Trial;
use muster_coordinator::engine::{Action, Engine, Event, LossCause, RULES};

use crate::sample;

pub(super) fn manifest(name: &str, slots: &str, searcher: &str) -> Manifest {
    wanting(name, slots, &format!("metric: accuracy, {searcher}"))
}

/// As [`manifest`], with objectives of its own.
pub(super) fn wanting(name: &str, slots: &str, searcher: &str) -> Manifest {
    let more = format!(
        "hyperparameters: {{learning_rate: {{min: 1e-5, max: 1e-3}}}}
searcher: {{{searcher}}}
budget: {{steps: 100}}
checkpoint: {{every_steps: 10}}
resources: {{slots: {slots}}}
max_restarts: 2
"
    );
    sample::manifest(name, &more)
}

/// An engine, its clock, and what it asked for last.
pub(super) struct Cluster {
    pub(super) engine: Engine,
    pub(super) now: u64,
    pub(super) actions: Vec<Action>,
    /// Everything that has happened.
    pub(super) events: Vec<(Timestamp, Event)>,
    sequences: std::collections::BTreeMap<(Generation, u32), u64>,
}

impl Cluster {
    pub(super) fn new(workers: &[(&str, &str)]) -> Self {
        Self::under(RULES, workers)
    }

    /// Under the rules of a certain build.
    pub(super) fn under(rules: u32, workers: &[(&str, &str)]) -> Self {
        let mut cluster = Self {
            engine: Engine::default(),
            now: 1_000_000,
            actions: Vec::new(),
            events: Vec::new(),
            sequences: std::collections::BTreeMap::new(),
        };
        cluster.apply(Event::RulesAdopted { rules });
        for (worker, host) in workers {
            cluster.join(worker, host);
        }
        cluster
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.events.push((Timestamp(self.now), event.clone()));
        self.actions = self.engine.apply(Timestamp(self.now), event);
        self.engine.check_invariants().unwrap();
    }

    pub(super) fn join(&mut self, worker: &str, host: &str) {
        let (worker, host) = (worker.parse().unwrap(), host.to_owned());
        self.apply(Event::WorkerJoined { worker, host, token_name: None });
    }

    pub(super) fn lose(&mut self, worker: &WorkerId, cause: LossCause) {
        self.apply(Event::WorkerLost { worker: worker.clone(), cause });
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += seconds * 1000;
        self.apply(Event::TimerFired);
    }

    /// Submits and prepares, so that the next thing to do is to train.
    pub(super) fn submit(&mut self, manifest: Manifest) {
        let (text, store) = ("text".to_owned(), "file:///store".to_owned());
        self.apply(Event::ExperimentSubmitted {
            manifest: Box::new(manifest),
            text,
            store,
            owner: None,
            base: None,
        });
        let prepare = self.started();
        for spec in prepare.iter().filter(|spec| matches!(spec.task, Task::Prepare { .. })) {
            self.report(spec.generation, 0, RunReport::Prepared(data()));
            self.end(spec.generation, 0, RunExit::Completed);
        }
    }

    pub(super) fn report(&mut self, generation: Generation, rank: u32, report: RunReport) {
        let sequence = self.sequences.entry((generation, rank)).or_insert(0);
        *sequence += 1;
        let event = Event::RunReported { generation, rank, sequence: *sequence, report };
        self.apply(event);
    }

    pub(super) fn end(&mut self, generation: Generation, rank: u32, exit: RunExit) {
        self.report(generation, rank, RunReport::Ended { exit });
    }

    pub(super) fn open(&mut self, generation: Generation) {
        let address = "10.0.0.1:4711".to_owned();
        self.report(generation, 0, RunReport::RendezvousOpened { address });
    }

    pub(super) fn commit(&mut self, trial: &str, step: u64, generation: Generation) {
        let checkpoint = CheckpointKey { trial: trial.parse().unwrap(), step, generation };
        self.report(generation, 0, RunReport::CheckpointCommitted { checkpoint });
    }

    /// The first run that has not ended.
    pub(super) fn current(&self) -> Option<RunSpec> {
        let (generation, run) = self.engine.runs().iter().next()?;
        self.engine.spec(*generation, &run.members[0].worker)
    }

    /// Brings a run to its end in good order.
    pub(super) fn finish(&mut self, spec: &RunSpec) {
        let generation = spec.generation;
        let world_size = self.engine.runs()[&generation].world_size();
        if world_size > 1 {
            self.open(generation);
        }
        let Task::Train(task) = &spec.task else { panic!("{spec:?}") };
        let step = task.target_step;
        self.commit(&task.trial.to_string(), step, generation);
        let evaluation = Evaluation {
            loss: 1.0,
            confusion: vec![vec![9, 1], vec![1, 9]],
            auc: None,
            masked: None,
        };
        self.report(generation, 0, RunReport::Evaluated { step, evaluation });
        for rank in 0..world_size {
            self.end(generation, rank, RunExit::Completed);
        }
    }

    pub(super) fn started(&self) -> Vec<RunSpec> {
        let spec = |action: &Action| match action {
            Action::StartRun { spec, .. } => Some((**spec).clone()),
            _ => None,
        };
        self.actions.iter().filter_map(spec).collect()
    }

    /// The one run that was just started.
    pub(super) fn only(&self) -> RunSpec {
        let started = self.started();
        assert_eq!(started.len(), 1, "{:?}", self.actions);
        started[0].clone()
    }

    pub(super) fn told(&self) -> Vec<(String, Directive)> {
        let told = |action: &Action| match action {
            Action::DirectRun { worker, directive, .. } => Some((worker.to_string(), *directive)),
            _ => None,
        };
        self.actions.iter().filter_map(told).collect()
    }

    pub(super) fn members(&self, generation: Generation) -> Vec<String> {
        let run = &self.engine.runs()[&generation];
        run.members.iter().map(|member| member.worker.to_string()).collect()
    }

    pub(super) fn trial(&self, experiment: &str) -> &Trial {
        let experiment = self.engine.experiment(&experiment.parse().unwrap()).unwrap();
        &experiment.trials[&1]
    }

    pub(super) fn said(&self, experiment: &str) -> String {
        let experiment = self.engine.experiment(&experiment.parse().unwrap()).unwrap();
        experiment.decisions.iter().map(|d| d.text.clone()).collect::<Vec<_>>().join("\n")
    }
}

/// With a share of so many thousandths right.
pub(super) fn scored(right: u64) -> Evaluation {
    let confusion = vec![vec![right, 1000 - right], vec![0, 0]];
    Evaluation { loss: 1.0, confusion, ..Evaluation::default() }
}

pub(super) fn data() -> DataSummary {
    DataSummary {
        cache: "c".to_owned(),
        num_train: 1000,
        labels: vec!["a".to_owned(), "b".to_owned()],
        ..DataSummary::default()
    }
}

pub(super) fn failed(class: FailureClass) -> RunExit {
    RunExit::Failed { message: "its last words".to_owned(), permanent: false, class }
}

pub(super) fn lost() -> RunExit {
    RunExit::Lost { reason: "the runner died: signal 9; its last lines: boom".to_owned() }
}

pub(super) const ONE: &str = "max_trials: 1";
pub(super) const FOUR: [(&str, &str); 4] = [("w1", "a"), ("w2", "a"), ("w3", "b"), ("w4", "b")];
