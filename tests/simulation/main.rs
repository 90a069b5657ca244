//! The engine by seed: workers of several hosts come, go and are lost, ranks of gangs fail before and
//! after they have met, reports arrive twice or too late, users pause and cancel. After every event the
//! invariants hold: a gang has all its slots or none, no slot is used twice, no trial has two
//! generations alive, nothing that could be started waits on an idle cluster. At the end everything has
//! ended, and a replay of the events, with snapshots taken at random places, gives the same state to
//! the last bit and asks for the same at every event: decisions are not made anew.
//!
//! A failure prints its seed; `MUSTER_SEED=N cargo test --release -p muster-tests --test simulation`
//! runs that one alone, `make sim SEEDS=100000` more of them than `make test` does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod outcome;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use muster_common::evaluation::Evaluation;
use muster_common::id::{ExperimentId, Generation, TrialId, WorkerId};
use muster_common::manifest::{Manifest, PrunerSettings};
use muster_common::run::{
    DataSummary, Directive, FailureClass, RunExit, RunReport, RunSpec, Task, TrainTask,
};
use muster_common::seed::{Draws, Seed};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::experiment::Experiment;
use muster_coordinator::engine::line::ProjectPolicy;
use muster_coordinator::engine::run::MemberState;
use muster_coordinator::engine::{Action, Admission, Engine, Event, LossCause, RULES};
use muster_tests::snapshot::Snapshots;

use outcome::{count, is_telling};

/// Seeds without `MUSTER_SEEDS`.
const NUM_SEEDS: u64 = 1000;
/// Random events of one simulation before it is left in peace.
const NUM_FAULTY: usize = 400;
/// Reports that must suffice to end everything afterwards.
const PEACE_MAX: usize = 20_000;

/// What is wanted, and the sampler, or another one that can look for it.
fn goal<'a>(draws: &mut Draws, pruner: &str, sampler: &'a str) -> (&'static str, &'a str) {
    let several = |goal| if sampler == "cmaes" { (goal, "tpe") } else { (goal, sampler) };
    match draws.below(6) {
        0 => ("metric: accuracy, constraints: [{metric: loss, max: 0.5}]", sampler),
        1 if !pruner.contains("patience") => {
            several("objectives: [{metric: accuracy}, {metric: loss}]")
        }
        2 if !pruner.contains("patience") => several(
            "objectives: [{metric: loss}, {metric: accuracy}, {metric: macro_recall, mode: min}], \
             constraints: [{metric: loss, min: 0.1, max: 0.9}]",
        ),
        _ => ("metric: accuracy", sampler),
    }
}

fn manifest(draws: &mut Draws) -> Manifest {
    let max_trials = 1 + draws.below(12);
    let eta = 2 + draws.below(3);
    let freeze = if draws.below(2) == 0 { "{layers: 1}" } else { "{layers: 0}" };
    let limit = if draws.below(3) == 0 { "max_concurrent: 2" } else { "max_concurrent: 9" };
    let halving =
        |kind: &str| format!("{{type: {kind}, reduction_factor: {eta}, min_budget: {{steps: 5}}}}");
    let pruner = match draws.below(9) {
        0 => "{type: none}".to_owned(),
        1 => halving("asha_stopping"),
        2 => halving("hyperband"),
        3 => "{type: median, every: {steps: 20}, startup_trials: 2}".to_owned(),
        4 => "{type: patience, every: {steps: 20}, patience: 2}".to_owned(),
        5 if max_trials > 1 => "{type: population, every: {steps: 20}}".to_owned(),
        _ => halving("asha"),
    };
    let samplers = ["random", "sobol", "tpe", "{type: gp, startup_trials: 3}", "cmaes"];
    let sampler = if pruner.contains("hyperband") {
        "bohb"
    } else if pruner.contains("population") {
        "random"
    } else {
        samplers[usize::try_from(draws.below(5)).unwrap()]
    };
    let (goal, sampler) = goal(draws, &pruner, sampler);
    let target =
        if draws.below(6) == 0 && !goal.contains("objectives") { ", target: 0.85" } else { "" };
    let slots = match draws.below(5) {
        0 | 1 => "1".to_owned(),
        2 => "2".to_owned(),
        3 => "3".to_owned(),
        _ => "{min: 2, max: 4, grace_seconds: 3}".to_owned(),
    };
    let wide = ["", ", max_slots: 4", ", max_slots: 6"][usize::try_from(draws.below(3)).unwrap()];
    let priority = [0, 0, 0, 5, -5][usize::try_from(draws.below(5)).unwrap()];
    let limits = match draws.below(12) {
        0 => "{hours: 0.001}",
        1 => "{slot_hours: 0.001}",
        2 => "{trial_hours: 0.0005}",
        _ => "{}",
    };
    let text = format!(
        "version: 1
name: sim
seed: {seed}
model: {{pretrained: m, freeze: {freeze}}}
data:
  train: {{path: d.csv}}
  validation: {{fraction: 0.1}}
  text: text
  label: {{column: label}}
hyperparameters:
  learning_rate: {{min: 1e-5, max: 1e-3, scale: log}}
searcher: {{{goal}, sampler: {sampler}, max_trials: {max_trials}, {limit}, pruner: {pruner}{target}}}
budget: {{steps: 100}}
checkpoint: {{every_steps: 3, keep_last: {keep}}}
resources: {{slots: {slots}{wide}, priority: {priority}}}
limits: {limits}
max_restarts: {restarts}
",
        seed = draws.below(1000),
        keep = 1 + draws.below(3),
        restarts = draws.below(4),
    );
    Manifest::parse(&text).unwrap()
}

struct Simulation {
    draws: Draws,
    now: u64,
    live: Engine,
    events: Vec<(Timestamp, Event)>,
    /// What the engine asked for at each of them.
    asked: Vec<Vec<Action>>,
    /// What each rank of each run will still say, with the number of its next report.
    scripts: BTreeMap<(Generation, u32), (u64, VecDeque<RunReport>)>,
    /// How often something was seen that a simulation without it would say nothing about.
    seen: BTreeMap<&'static str, u32>,
    /// World size of each trial's last run.
    sizes: BTreeMap<String, u32>,
    num_workers: u32,
    is_faulty: bool,
    /// Every checkpoint that was reported and not deleted.
    stored: Vec<CheckpointKey>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            draws: Seed(seed).draws(),
            now: 1_000,
            live: Engine::default(),
            events: Vec::new(),
            asked: Vec::new(),
            scripts: BTreeMap::new(),
            seen: BTreeMap::new(),
            sizes: BTreeMap::new(),
            num_workers: 0,
            is_faulty: true,
            stored: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        self.now += self.draws.below(50);
        let at = Timestamp(self.now);
        self.events.push((at, event.clone()));
        let actions = self.live.apply(at, event);
        self.asked.push(actions.clone());
        self.live.check_invariants().unwrap();
        for action in actions {
            match action {
                Action::StartRun { spec, worker } => {
                    let run = &self.live.runs()[&spec.generation];
                    let leaves = self.live.workers().get(&worker).is_some_and(|w| w.draining);
                    assert!(!leaves, "a worker that is about to leave is given a run");
                    let rank = run.rank_of(&worker).unwrap();
                    assert_eq!(spec.gang.as_ref().map_or(0, |gang| gang.rank), rank);
                    let paused = self.live.experiment(&spec.experiment).unwrap().paused;
                    assert!(!paused || rank > 0, "a paused experiment begins a run");
                    self.start(&spec, rank);
                }
                Action::DirectRun { worker, generation, directive } => {
                    let rank = self.live.runs().get(&generation).and_then(|r| r.rank_of(&worker));
                    if let Some(rank) = rank {
                        self.obey((generation, rank), directive);
                    }
                }
                Action::DeleteCheckpoint { checkpoint, .. } => {
                    self.stored.retain(|stored| *stored != checkpoint);
                    // A crash may have eaten the effect; then it is outstanding.
                    if self.draws.below(4) > 0 {
                        self.apply(Event::CheckpointDeleted { checkpoint });
                    }
                }
                Action::Created { .. } | Action::StoreManifest { .. } | Action::Rejected { .. } => {
                }
            }
        }
    }

    /// A rank is told to leave. Most do so at once; some have just finished.
    fn obey(&mut self, rank: (Generation, u32), directive: Directive) {
        let Some((_, script)) = self.scripts.get_mut(&rank) else { return };
        if self.draws.below(4) > 0 {
            let exit = match directive {
                Directive::Preempt => RunExit::Preempted,
                Directive::Cancel => RunExit::Canceled,
            };
            *script = VecDeque::from([RunReport::Ended { exit }]);
        }
    }

    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn note_size(&mut self, spec: &RunSpec) {
        let (Task::Train(task), Some(gang)) = (&spec.task, &spec.gang) else { return };
        self.see("gang");
        let before = self.sizes.insert(task.trial.to_string(), gang.world_size);
        match before.map(|before| before.cmp(&gang.world_size)) {
            Some(std::cmp::Ordering::Less) => self.see("gang grew"),
            Some(std::cmp::Ordering::Greater) => self.see("gang shrank"),
            _ => {}
        }
    }

    fn start(&mut self, spec: &RunSpec, rank: u32) {
        if rank > 0 {
            assert!(spec.gang.as_ref().unwrap().rendezvous.is_some(), "called to nowhere");
            let exit = self.exit(&mut VecDeque::new());
            let script = VecDeque::from([RunReport::Ended { exit }]);
            self.scripts.insert((spec.generation, rank), (1, script));
            return;
        }
        self.note_size(spec);
        let mut script = match &spec.task {
            Task::Prepare { .. } => VecDeque::from([RunReport::Prepared(data())]),
            Task::Train(task) => self.training(task, spec.generation),
            Task::Finish { checkpoint, .. } => {
                assert!(self.stored.contains(checkpoint), "the exported checkpoint exists");
                let model = "best".to_owned();
                VecDeque::from([RunReport::Finished { test: None, model }])
            }
        };
        if spec.gang.is_some() {
            let address = "10.0.0.1:1".to_owned();
            script.push_front(RunReport::RendezvousOpened { address });
        }
        let exit = self.exit(&mut script);
        script.push_back(RunReport::Ended { exit });
        self.scripts.insert((spec.generation, 0), (1, script));
    }

    fn training(&mut self, task: &TrainTask, generation: Generation) -> VecDeque<RunReport> {
        let from = task.resume_from.as_ref().map_or(0, |checkpoint| checkpoint.step);
        if let Some(checkpoint) = &task.resume_from {
            assert!(self.stored.contains(checkpoint), "{} is resumed from a ghost", task.trial);
        }
        assert!(from <= task.target_step, "{} trains backwards", task.trial);
        let key = |step| CheckpointKey { trial: task.trial.clone(), step, generation };
        // A fixed landscape: better with more steps, different by trial.
        let talent = Seed(u64::from(task.trial.number)).child("talent", 0).draws().below(60);
        // Some trials give up, most of them on their way.
        let gives_up = talent.is_multiple_of(7);
        let end = if gives_up { (from + 3).min(task.target_step) } else { task.target_step };
        let on_the_way = (from + 1..end).filter(|step| step % 3 == 0);
        let mut script: VecDeque<RunReport> = on_the_way
            .chain([end])
            .map(|step| RunReport::CheckpointCommitted { checkpoint: key(step) })
            .collect();
        let right = (talent + task.target_step.min(40)).min(100);
        let confusion = vec![vec![right, 100 - right], vec![0, 0]];
        let seed = Seed(u64::from(task.trial.number)).child("loss", task.target_step);
        let evaluation =
            Evaluation { loss: seed.draws().unit(), confusion, ..Evaluation::default() };
        script.push_back(if gives_up {
            RunReport::EarlyStopped { step: end, best_step: end / 2, evaluation }
        } else {
            RunReport::Evaluated { step: end, evaluation }
        });
        script
    }

    /// How the run ends; a bad end cuts its script short.
    fn exit(&mut self, script: &mut VecDeque<RunReport>) -> RunExit {
        let kind = if self.is_faulty { self.draws.below(12) } else { 11 };
        if kind < 5 {
            let kept = self.draws.below(script.len() as u64 + 1);
            script.truncate(usize::try_from(kept).unwrap());
        }
        match kind {
            0 | 1 => RunExit::Failed {
                message: "broken".to_owned(),
                permanent: kind == 1 && self.draws.below(8) == 0,
                class: FailureClass::ALL[usize::try_from(self.draws.below(8)).unwrap()],
            },
            2 => RunExit::Diverged { step: 3 },
            3 => RunExit::Preempted,
            4 => RunExit::Lost { reason: "gone".to_owned() },
            _ => RunExit::Completed,
        }
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        let count = items.len() as u64;
        (count > 0).then(|| items[usize::try_from(self.draws.below(count)).unwrap()].clone())
    }

    /// Delivers the next report of a random run.
    fn deliver(&mut self) -> bool {
        let members = self.live.runs().iter().flat_map(|(generation, run)| {
            let ranks = (0..).zip(&run.members);
            let working = ranks.filter(|(_, member)| member.state == MemberState::Working);
            working.map(|(rank, _)| (*generation, rank))
        });
        let working: Vec<(Generation, u32)> = members.collect();
        let Some((generation, rank)) = self.pick(&working) else { return false };
        let (sequence, script) = self.scripts.get_mut(&(generation, rank)).unwrap();
        let Some(report) = script.pop_front() else { return false };
        let number = *sequence;
        *sequence += 1;
        if let RunReport::CheckpointCommitted { checkpoint } = &report {
            self.stored.push(checkpoint.clone());
        }
        self.apply(Event::RunReported { generation, rank, sequence: number, report });
        true
    }

    fn submit(&mut self) {
        let manifest = Box::new(manifest(&mut self.draws));
        let (text, store) = ("text".to_owned(), "file:///store".to_owned());
        let users = ["ada", "ben", "cleo"];
        let owner = self.pick(&users).map(|name| name.parse().unwrap());
        self.apply(Event::ExperimentSubmitted { manifest, text, store, owner, base: None });
    }

    fn join(&mut self) {
        self.num_workers += 1;
        let worker: WorkerId = format!("w{}", self.num_workers).parse().unwrap();
        let host = format!("h{}", self.draws.below(3));
        self.apply(Event::WorkerJoined { worker, host, token_name: None });
    }

    /// Lets time pass, up to a minute, or until what the engine waits for.
    fn wait(&mut self) {
        match self.live.next_timer().filter(|_| self.draws.below(2) == 0) {
            Some(at) => self.now = self.now.max(at.0),
            None => self.now += self.draws.below(60_000),
        }
        self.apply(Event::TimerFired);
    }

    /// A rank that is not part of the run any more says something.
    fn say_too_late(&mut self) {
        let late =
            |(rank, (sequence, script)): (&(Generation, u32), &(u64, VecDeque<RunReport>))| {
                Some((*rank, *sequence, script.front()?.clone()))
            };
        let all: Vec<_> = self.scripts.iter().filter_map(late).collect();
        let Some(((generation, rank), sequence, report)) = self.pick(&all) else { return };
        if self.live.admit(generation, rank, sequence) == Admission::Old {
            self.see("late report");
            self.stays_the_same(Event::RunReported { generation, rank, sequence, report });
        }
    }

    /// Applies an event that must change nothing but the clock.
    fn stays_the_same(&mut self, event: Event) {
        // Brings the clock to where the event finds it, and does what is due.
        self.apply(Event::TimerFired);
        let (before, at) = (self.live.clone(), Timestamp(self.now));
        self.events.push((at, event.clone()));
        let actions = self.live.apply(at, event);
        self.asked.push(actions);
        assert_eq!(before, self.live, "what was counted counts once");
    }

    fn fault(&mut self) {
        let experiments: Vec<ExperimentId> =
            self.live.experiments().map(|experiment| experiment.id.clone()).collect();
        let workers: Vec<WorkerId> = self.live.workers().keys().cloned().collect();
        match self.draws.below(100) {
            0..=2 => self.submit(),
            3..=8 => self.join(),
            9..=12 => {
                let cause = match self.draws.below(4) {
                    3 => LossCause::Died { reason: "signal 9".to_owned() },
                    0 => LossCause::LeaseExpired,
                    1 => LossCause::Left { reason: "left".to_owned() },
                    _ => LossCause::CoordinatorRestarted,
                };
                if let Some(worker) = self.pick(&workers) {
                    self.apply(Event::WorkerLost { worker, cause });
                }
            }
            13 => {
                if let Some(experiment) = self.pick(&experiments) {
                    self.apply(Event::ExperimentPaused { experiment });
                }
            }
            14 | 15 => {
                if let Some(experiment) = self.pick(&experiments) {
                    self.apply(Event::ExperimentResumed { experiment });
                }
            }
            16 => {
                if self.draws.below(6) == 0
                    && let Some(experiment) = self.pick(&experiments)
                {
                    self.apply(Event::ExperimentCanceled { experiment });
                }
            }
            17..=20 => {
                // Said twice, or by a run that is over.
                if let Some((_, event @ Event::RunReported { generation, rank, sequence, .. })) =
                    self.pick(&self.events.clone())
                {
                    let admission = self.live.admit(generation, rank, sequence);
                    assert_ne!(admission, Admission::New, "what was counted is not new");
                    self.stays_the_same(event);
                }
            }
            21 | 22 => self.wait(),
            23 | 24 => self.say_too_late(),
            25..=29 => self.wish(),
            30 => {
                if let Some(worker) = self.pick(&workers) {
                    self.see("drained");
                    let reason = "its time is over".to_owned();
                    self.apply(Event::WorkerDraining { worker, reason });
                }
            }
            _ => {
                self.deliver();
            }
        }
    }

    /// A user changes their mind about a trial, a priority, or what projects may use.
    fn wish(&mut self) {
        let trials: Vec<TrialId> = self
            .live
            .experiments()
            .flat_map(|e| e.trials.keys().map(|number| e.trial_id(*number)))
            .collect();
        match (self.draws.below(8), self.pick(&trials)) {
            (0, _) => {
                let policy =
                    ProjectPolicy { weight: 1 + self.draw(4), max_slots: Some(4 + self.draw(3)) };
                let projects = BTreeMap::from([("ada".parse().unwrap(), policy)]);
                // Not while more are in use: runs are not stopped for a quota.
                if self.live.held_by_project().values().all(|held| *held <= 4) {
                    self.apply(Event::ProjectsSet { projects });
                }
            }
            (1 | 2, Some(trial)) => {
                let priority = i32::try_from(self.draws.below(3)).unwrap() * 5 - 5;
                let experiment = trial.experiment;
                self.apply(Event::ExperimentPrioritized { experiment, priority });
            }
            (3 | 4, Some(trial)) => self.apply(Event::TrialPaused { trial }),
            (5 | 6, Some(trial)) => self.apply(Event::TrialResumed { trial }),
            (_, Some(trial)) if self.draws.below(3) == 0 => {
                self.apply(Event::TrialCanceled { trial });
            }
            _ => {}
        }
    }

    fn draw(&mut self, below: u64) -> u32 {
        u32::try_from(self.draws.below(below)).unwrap()
    }

    /// No more faults: everything must come to an end.
    fn make_peace(&mut self) {
        self.is_faulty = false;
        let experiments: Vec<ExperimentId> =
            self.live.experiments().map(|experiment| experiment.id.clone()).collect();
        for experiment in experiments {
            self.apply(Event::ExperimentResumed { experiment });
        }
        let held: Vec<TrialId> = self
            .live
            .experiments()
            .flat_map(|e| e.trials.values().filter(|t| t.held).map(|t| e.trial_id(t.number)))
            .collect();
        for trial in held {
            self.apply(Event::TrialResumed { trial });
        }
        for _ in 0..4 {
            self.join();
        }
        for _ in 0..PEACE_MAX {
            if self.deliver() {
                continue;
            }
            if self.live.experiments().all(Experiment::is_ended) && self.live.runs().is_empty() {
                return;
            }
            // Nobody has anything to say: time must bring what is missing.
            let Some(at) = self.live.next_timer() else {
                panic!("nothing is waited for, and nothing ends")
            };
            self.now = self.now.max(at.0);
            self.apply(Event::TimerFired);
        }
        panic!("something never ends");
    }

    /// Li et al. 2020, algorithm 2: whoever is promoted is among the best of so many at that moment.
    fn check_promotions(&mut self) {
        let mut num_checked = 0;
        for experiment in self.live.experiments() {
            let Some(searcher) = &experiment.manifest.searcher else { continue };
            let PrunerSettings::Asha(asha) = &searcher.pruner else { continue };
            for decision in experiment.decisions.iter() {
                let Some((_, standing)) = decision.text.split_once("is place ") else { continue };
                if !decision.text.starts_with("promoted to ") {
                    continue;
                }
                let words: Vec<&str> = standing.split(' ').collect();
                let (place, results): (u32, u32) =
                    (words[0].parse().unwrap(), words[2].parse().unwrap());
                let eta = asha.reduction_factor;
                assert!(place * eta <= results, "1 in {eta} goes on: {}", decision.text);
                num_checked += 1;
            }
        }
        *self.seen.entry("promoted").or_default() += num_checked;
    }

    fn check_replay(&mut self) {
        let (mut replayed, mut saved) = (Engine::default(), Snapshots::default());
        // Killed after every event, or now and then.
        let pause = if self.draws.below(20) == 0 { 1 } else { 40 };
        self.see(if pause == 1 { "killed at every position" } else { "killed now and then" });
        for ((at, event), asked) in self.events.clone().into_iter().zip(&self.asked) {
            assert_eq!(replayed.apply(at, event), *asked, "decided anew is decided the same");
            if self.draws.below(pause) == 0 {
                replayed = saved.restore(&mut replayed).unwrap();
            }
        }
        assert_eq!(replayed, self.live);
    }
}

fn data() -> DataSummary {
    DataSummary {
        cache: "c".to_owned(),
        num_train: 1000,
        labels: vec!["a".to_owned(), "b".to_owned()],
        ..DataSummary::default()
    }
}

fn simulate(seed: u64) -> Simulation {
    let mut simulation = Simulation::new(seed);
    simulation.apply(Event::RulesAdopted { rules: RULES });
    simulation.submit();
    simulation.join();
    for _ in 0..NUM_FAULTY {
        simulation.fault();
    }
    simulation.make_peace();
    simulation.check_promotions();
    simulation.check_replay();
    simulation
}

#[test]
fn every_seed_keeps_the_invariants_ends_and_replays() {
    let only = std::env::var("MUSTER_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = std::env::var("MUSTER_SEEDS").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(0..wanted.unwrap_or(NUM_SEEDS), |seed| seed..seed + 1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    let next = AtomicU64::new(seeds.start);
    let (sender, simulations) = mpsc::sync_channel(8);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| simulate(seed));
                    if sender.send((seed, outcome.ok())).is_err() {
                        return; // another seed has failed
                    }
                }
            });
        }
        drop(sender);
        count(simulations, &mut ends);
    });
    println!("{} seeds: {ends:?}", seeds.end - seeds.start);
    if only.is_none() {
        is_telling(&ends);
    }
}
