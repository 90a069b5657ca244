//! Members of a population, of which runs and the coordinator are killed. With one slot nothing but the engine
//! says who trains next, so wherever that happens all must end as if nothing had.

use std::collections::BTreeMap;

use muster_common::evaluation::Evaluation;
use muster_common::id::Generation;
use muster_common::manifest::Limits;
use muster_common::run::{RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::seed::{Draws, Seed};
use muster_common::storage::CheckpointKey;
use muster_coordinator::engine::experiment::{ExperimentEnd, Phase};
use muster_coordinator::engine::{Action, Engine, Event, LossCause};

use super::cluster::{Cluster, lost, manifest, scored, wanting};

const FOUR_MEMBERS: &str = "max_trials: 4, pruner: {type: population, every: {steps: 25}}";

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Runner,
    /// With its worker, as local workers are.
    Coordinator,
}

/// One slot, and a store.
struct Course {
    cluster: Cluster,
    /// Weights by checkpoint; those that were deleted are gone.
    stored: BTreeMap<CheckpointKey, f64>,
    /// What is killed in place of a report, by how many came before it.
    faults: BTreeMap<usize, Fault>,
    position: usize,
    num_workers: u32,
}

impl Course {
    /// The whole course of a population.
    fn run(seed: u64, faults: &[(usize, Fault)]) -> Self {
        let mut course = Self {
            cluster: Cluster::new(&[("w0", "h")]),
            stored: BTreeMap::new(),
            faults: faults.iter().copied().collect(),
            position: 0,
            num_workers: 1,
        };
        let mut manifest = manifest("p", "1", FOUR_MEMBERS);
        manifest.seed = Seed(seed);
        course.cluster.submit(manifest);
        while let Some(spec) = course.cluster.current() {
            course.train(&spec);
        }
        let end = &course.cluster.engine.experiments().next().unwrap().phase;
        assert_eq!(*end, Phase::Ended { end: ExperimentEnd::Completed }, "{faults:?}");
        course
    }

    /// Delivers what a run says, until it is over or something is killed.
    fn train(&mut self, spec: &RunSpec) {
        for (report, written) in self.script(spec) {
            let fault = self.faults.remove(&self.position);
            self.position += 1;
            self.cluster.now += 1000;
            if fault != Some(Fault::Runner) {
                // A checkpoint that nobody was told of is there all the same.
                self.stored.extend(written);
            }
            match fault {
                None => self.cluster.report(spec.generation, 0, report),
                Some(Fault::Runner) => self.cluster.end(spec.generation, 0, lost()),
                Some(Fault::Coordinator) => self.restart(),
            }
            self.clean_up();
            if fault.is_some() {
                return;
            }
        }
    }

    fn clean_up(&mut self) {
        for action in self.cluster.actions.clone() {
            if let Action::DeleteCheckpoint { checkpoint, .. } = action {
                self.stored.remove(&checkpoint).unwrap();
                let actions = self.cluster.actions.clone();
                self.cluster.apply(Event::CheckpointDeleted { checkpoint });
                self.cluster.actions = actions;
            }
        }
    }

    /// What a run says, with the checkpoint that is written before.
    fn script(&self, spec: &RunSpec) -> Vec<(RunReport, Option<(CheckpointKey, f64)>)> {
        let mut script = match &spec.task {
            Task::Train(task) => self.training(task, spec.generation),
            Task::Finish { checkpoint, .. } => {
                assert!(self.stored.contains_key(checkpoint));
                vec![(RunReport::Finished { test: None, model: "m".to_owned() }, None)]
            }
            Task::Prepare { .. } => panic!("it is prepared"),
        };
        script.push((RunReport::Ended { exit: RunExit::Completed }, None));
        script
    }

    fn training(
        &self,
        task: &TrainTask,
        generation: Generation,
    ) -> Vec<(RunReport, Option<(CheckpointKey, f64)>)> {
        let mut script = Vec::new();
        let from = task.resume_from.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let mut weight =
            task.resume_from.as_ref().map_or(1.0, |checkpoint| self.stored[checkpoint]);
        let seed = Seed(u64::from(task.seed_of.unwrap_or(task.trial.number)));
        let mut save = |step, weight| {
            let checkpoint = CheckpointKey { trial: task.trial.clone(), step, generation };
            let report = RunReport::CheckpointCommitted { checkpoint: checkpoint.clone() };
            script.push((report, Some((checkpoint, weight))));
        };
        for step in from + 1..=task.target_step {
            let rate = 20.0 * task.assignment["learning_rate"].as_f64();
            weight *= 1.0 - rate * seed.child("step", step).draws().unit();
            if step % 10 == 0 && step < task.target_step {
                save(step, weight);
            }
        }
        // Whoever goes on from the last step has only this to do.
        save(task.target_step, weight);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1")]
        let right = ((1.0 - weight) * 1000.0) as u64;
        let evaluation = Evaluation { loss: weight, ..scored(right) };
        script.push((RunReport::Evaluated { step: task.target_step, evaluation }, None));
        script
    }

    /// A new coordinator reads the journal, and its local worker is another one.
    fn restart(&mut self) {
        let mut engine = Engine::default();
        for (at, event) in &self.cluster.events {
            engine.apply(*at, event.clone());
        }
        assert_eq!(engine, self.cluster.engine);
        self.cluster.engine = engine;
        let worker = format!("w{}", self.num_workers - 1).parse().unwrap();
        self.cluster.lose(&worker, LossCause::CoordinatorRestarted);
        self.cluster.join(&format!("w{}", self.num_workers), "h");
        self.num_workers += 1;
    }

    /// What must not depend on whether anything was killed.
    fn outcome(&self) -> Vec<String> {
        let experiment = self.cluster.engine.experiments().next().unwrap();
        let of_trial = experiment.trials.values().map(|trial| {
            let results: Vec<(u64, u64)> =
                trial.results.iter().map(|r| (r.step, r.evaluation.loss.to_bits())).collect();
            let descents: Vec<_> = trial
                .lineage
                .iter()
                .map(|d| (d.rung, d.parent.trial.number, d.parent.step, &d.before, d.seed_of))
                .collect();
            format!(
                "t{} {:?} {:?} {results:?} {descents:?}",
                trial.number, trial.state, trial.assignment
            )
        });
        let best = experiment.best.as_ref().unwrap();
        let of_best = format!("t{} at {}", best.trial, best.checkpoint.step);
        of_trial.chain([of_best]).collect()
    }
}

#[test]
fn wherever_it_is_killed_a_population_ends_as_one_that_was_left_alone() {
    let seed = 5;
    let quiet = Course::run(seed, &[]);
    let (wanted, num_reports) = (quiet.outcome(), quiet.position);
    let descents = quiet.cluster.said("p-1").matches("exploits t").count();
    assert!(descents >= 2 && num_reports > 60, "{descents} descents, {num_reports} reports");
    for place in 0..num_reports {
        let mut courses = vec![vec![(place, Fault::Runner)], vec![(place, Fault::Coordinator)]];
        for later in place + 1..place + 4 {
            courses.push(vec![(place, Fault::Runner), (later, Fault::Coordinator)]);
            courses.push(vec![(place, Fault::Coordinator), (later, Fault::Runner)]);
        }
        for faults in courses {
            assert_eq!(Course::run(seed, &faults).outcome(), wanted, "{faults:?}");
        }
    }
}

/// A member's run says that it has come to a rung.
fn pass(cluster: &mut Cluster, generation: Generation, right: u64) {
    let worker = cluster.engine.runs()[&generation].members[0].worker.clone();
    let Task::Train(task) = cluster.engine.spec(generation, &worker).unwrap().task else {
        panic!("{generation} does not train")
    };
    let step = task.target_step;
    cluster.commit(&task.trial.to_string(), step, generation);
    cluster.report(generation, 0, RunReport::Evaluated { step, evaluation: scored(right) });
}

#[test]
fn the_chosen_checkpoint_is_kept_while_others_are_still_on_their_way_out() {
    let mut cluster = Cluster::new(&[("w0", "h"), ("w1", "h")]);
    let searcher = "max_trials: 2, pruner: {type: population, every: {steps: 25}}";
    let mut two = manifest("p", "1", searcher);
    two.limits = Limits { hours: Some(1.0), ..Limits::default() };
    two.checkpoint.keep_last = 1;
    cluster.submit(two);
    let first: Vec<Generation> = cluster.engine.runs().keys().copied().collect();
    for (generation, right) in first.into_iter().zip([900, 500]) {
        pass(&mut cluster, generation, right);
        cluster.end(generation, 0, RunExit::Completed);
    }
    let second: Vec<Generation> = cluster.engine.runs().keys().copied().collect();
    cluster.wait(3600);
    let chosen = cluster.engine.experiments().next().unwrap().best.clone().unwrap();
    assert_eq!((chosen.trial, chosen.checkpoint.step), (1, 25));
    // Both are told to leave, and have come further before they hear of it.
    for generation in second {
        pass(&mut cluster, generation, 950);
        let trials = &cluster.engine.experiments().next().unwrap().trials;
        assert!(trials[&1].checkpoints.contains(&chosen.checkpoint), "it is about to be exported");
    }
}

/// Results that trade one objective for another, so that few stand behind others.
fn traded(draws: &mut Draws) -> Evaluation {
    let right = draws.below(1000);
    let noise = 0.2 * draws.unit();
    let recall = 1 + draws.below(1000);
    let wrong = 1000 - right;
    let confusion = vec![vec![right, wrong], vec![1001 - recall, recall]];
    Evaluation { loss: right as f64 / 1000.0 + noise, confusion, ..Evaluation::default() }
}

#[test]
fn nobody_goes_on_from_what_is_deleted_whatever_the_order_of_several_objectives_becomes() {
    let searcher = "objectives: [{metric: accuracy}, {metric: loss}, {metric: macro_recall, mode: min}], \
                    max_trials: 12, pruner: {type: population, every: {steps: 20}, quantile: 0.5}";
    let mut num_descents = 0;
    for seed in 1..=60 {
        let mut draws = Seed(seed).draws();
        let workers = [("w0", "h"), ("w1", "h"), ("w2", "h"), ("w3", "h")];
        let mut cluster = Cluster::new(&workers);
        let mut twelve = wanting("p", "1", searcher);
        twelve.checkpoint.keep_last = 1;
        cluster.submit(twelve);
        loop {
            let runs: Vec<Generation> = cluster.engine.runs().keys().copied().collect();
            if runs.is_empty() {
                break;
            }
            let place = usize::try_from(draws.below(runs.len() as u64)).unwrap();
            let generation = runs[place];
            let worker = cluster.engine.runs()[&generation].members[0].worker.clone();
            let Task::Train(task) = cluster.engine.spec(generation, &worker).unwrap().task else {
                break; // the search is over
            };
            if draws.below(8) == 0 {
                cluster.end(generation, 0, RunExit::Diverged { step: task.target_step });
                continue;
            }
            let step = task.target_step;
            cluster.commit(&task.trial.to_string(), step, generation);
            let evaluation = traded(&mut draws);
            cluster.report(generation, 0, RunReport::Evaluated { step, evaluation });
            // The invariants see whether what it goes on from is there.
            cluster.end(generation, 0, RunExit::Completed);
        }
        let experiment = cluster.engine.experiments().next().unwrap();
        num_descents += experiment.trials.values().map(|t| t.lineage.len()).sum::<usize>();
    }
    assert!(num_descents > 300, "{num_descents}");
}
