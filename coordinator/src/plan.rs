//! What an experiment will do, before it does it: the engine itself, with slots that take a computed
//! time and results that mean nothing. Where the search decides without looking at results, or only by
//! how many of them there are, this is what then happens; elsewhere it is one way it may go.

use std::collections::{BTreeMap, BTreeSet};

use muster_common::evaluation::{Evaluation, MaskedScore};
use muster_common::id::Generation;
use muster_common::manifest::{
    Budget, Category, Domain, Limits, Manifest, PrunerSettings, SamplerSettings, TrialSettings,
};
use muster_common::run::{DataSummary, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::seed::Seed;
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;

use crate::engine::experiment::{Experiment, ExperimentEnd, Phase};
use crate::engine::{Action, Engine, Event, RULES};

/// Checkpoints of one run that a plan looks at, at most: whoever keeps more does not count them.
const KEPT_MAX: usize = 1000;

/// What a plan is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Premises {
    /// Slots that there are.
    pub num_slots: u32,
    /// Training examples, after the held-out splits have been cut off.
    pub num_train: u64,
    /// Training examples per second and slot; where nobody knows, times are in units of their own.
    pub examples_per_second: Option<f64>,
}

/// One rung of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RungPlan {
    /// Its budget.
    pub budget: Budget,
    /// Trials that train up to it.
    pub num_trials: u64,
    /// Optimizer updates on the way from the rung below.
    pub steps: u64,
}

/// The way of a training run, which saves itself at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Step that it goes on from.
    pub from: u64,
    /// Step that it ends at.
    pub to: u64,
    /// Examples of a step.
    pub global_batch_size: u64,
    /// Which weights count, where trials differ in that.
    pub average: Option<Category>,
}

/// What an experiment will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Trials that are created.
    pub num_trials: u64,
    /// The rungs, lowest first.
    pub rungs: Vec<RungPlan>,
    /// Optimizer updates of all trials.
    pub steps: u64,
    /// Training examples of all trials, counted with repetition.
    pub examples: f64,
    /// Training runs: how many go each way.
    pub stretches: BTreeMap<Stretch, u64>,
    /// Checkpoints that are written.
    pub num_checkpoints: u64,
    /// Checkpoints that exist at the same time at most.
    pub most_checkpoints: u64,
    /// Seconds of all slots together in which something trains.
    pub slot_seconds: f64,
    /// Seconds from the first step to the end of the search.
    pub seconds: f64,
    /// Why it may come out differently; empty: it is exact, apart from times and failures.
    pub doubts: Vec<String>,
}

/// The engine refused the experiment or did not end it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the experiment would not run: {reason}")]
pub struct PlanError {
    /// Why.
    pub reason: String,
}

/// Plans an experiment.
pub fn plan(manifest: &Manifest, premises: &Premises) -> Result<Plan, PlanError> {
    let mut rehearsed = manifest.clone();
    // Results that mean nothing reach no target.
    if let Some(searcher) = &mut rehearsed.searcher {
        searcher.target = None;
        searcher.warm_start.clear();
    }
    // Which step they begin at is known to the coordinator alone.
    rehearsed.continue_from = None;
    // What it would take tells whether a limit is reached.
    rehearsed.limits = Limits::default();
    let mut rehearsal = Rehearsal::new(&rehearsed, premises);
    rehearsal.run()?;
    let mut plan = rehearsal.outcome()?;
    plan.doubts = doubts(manifest);
    let trial_ms = rehearsal.trial_ms.values().max().copied().unwrap_or_default();
    plan.doubts.extend(limits(manifest.limits, premises, &plan, trial_ms));
    Ok(plan)
}

/// Which limits end it before it has done what is planned.
fn limits(limits: Limits, premises: &Premises, plan: &Plan, trial_ms: u64) -> Vec<String> {
    if limits == Limits::default() {
        return Vec::new();
    }
    if premises.examples_per_second.is_none() {
        return vec!["whether a limit is reached depends on the speed".to_owned()];
    }
    let reached = |name: &str, limit: Option<f64>, seconds: f64, what: &str| {
        let limit = limit.filter(|limit| seconds > Limits::time(*limit).as_secs_f64())?;
        Some(format!(
            "limits.{name}: {limit} h are over before {what} of {:.2} h",
            seconds / 3600.0
        ))
    };
    let found = [
        reached("hours", limits.hours, plan.seconds, "the search"),
        reached("slot_hours", limits.slot_hours, plan.slot_seconds, "its runs"),
        reached("trial_hours", limits.trial_hours, trial_ms as f64 / 1000.0, "the longest trial"),
    ];
    found.into_iter().flatten().collect()
}

/// Why the search itself may go another way than the rehearsal.
fn doubts(manifest: &Manifest) -> Vec<String> {
    let mut doubts = Vec::new();
    if manifest.continue_from.is_some() {
        doubts.push(
            "steps before the checkpoint that trials begin at are not trained again".to_owned(),
        );
    }
    if manifest.training.early_stopping.is_some() {
        doubts.push("early stopping ends trials sooner".to_owned());
    }
    let Some(searcher) = &manifest.searcher else { return doubts };
    if searcher.target.is_some() {
        doubts.push("the search ends when the target is reached".to_owned());
    }
    match &searcher.pruner {
        PrunerSettings::None | PrunerSettings::Hyperband(_) | PrunerSettings::Population(_) => {}
        PrunerSettings::Asha(_) => {
            doubts.push("whom ASHA promotes depends on the order of results".to_owned());
        }
        other => doubts.push(format!("`{}` stops trials by their results", other.name())),
    }
    let in_steps = matches!(manifest.budget, Budget::Steps(_));
    let batch = manifest.hyperparameters.get("global_batch_size");
    let batches_differ = batch.is_some_and(Domain::is_searched)
        || matches!(&searcher.sampler, SamplerSettings::List(points)
            if points.iter().any(|point| point.contains_key("global_batch_size")));
    if batches_differ && !in_steps {
        let learns = searcher.sampler.learns();
        let selects = searcher.pruner != PrunerSettings::None;
        if learns || selects {
            doubts.push("steps depend on the batch sizes of the trials that go on".to_owned());
        }
    }
    doubts
}

/// The engine at work on slots that take a computed time.
struct Rehearsal<'a> {
    manifest: &'a Manifest,
    premises: &'a Premises,
    engine: Engine,
    /// Milliseconds.
    now: u64,
    /// Runs at work, by the time at which they end.
    busy: BTreeMap<(u64, Generation), RunSpec>,
    /// First training run and last end of one, milliseconds.
    searching: Option<(u64, u64)>,
    stretches: BTreeMap<Stretch, u64>,
    num_checkpoints: u64,
    most_checkpoints: u64,
    slot_ms: u64,
    /// Of all runs of a trial.
    trial_ms: BTreeMap<u32, u64>,
    examples: f64,
}

impl<'a> Rehearsal<'a> {
    fn new(manifest: &'a Manifest, premises: &'a Premises) -> Self {
        Self {
            manifest,
            premises,
            engine: Engine::default(),
            now: 0,
            busy: BTreeMap::new(),
            searching: None,
            stretches: BTreeMap::new(),
            num_checkpoints: 0,
            most_checkpoints: 0,
            slot_ms: 0,
            trial_ms: BTreeMap::new(),
            examples: 0.0,
        }
    }

    fn run(&mut self) -> Result<(), PlanError> {
        self.apply(Event::RulesAdopted { rules: RULES })?;
        for number in 1..=self.premises.num_slots.max(1) {
            let worker = format!("plan-{number}")
                .parse()
                .map_err(|error| PlanError { reason: format!("{error}") })?;
            self.apply(Event::WorkerJoined { worker, host: "plan".to_owned(), token_name: None })?;
        }
        let manifest = Box::new(self.manifest.clone());
        let (text, store) = (String::new(), "file:///plan".to_owned());
        self.apply(Event::ExperimentSubmitted { manifest, text, store, owner: None, base: None })?;
        while let Some(((at, generation), spec)) = self.busy.pop_first() {
            self.now = at;
            self.end(generation, &spec)?;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), PlanError> {
        let actions = self.engine.apply(Timestamp(self.now), event);
        let mut waiting: Vec<Event> = Vec::new();
        for action in actions {
            match action {
                Action::StartRun { spec, .. } => waiting.extend(self.begin(*spec)),
                Action::DeleteCheckpoint { checkpoint, .. } => {
                    waiting.push(Event::CheckpointDeleted { checkpoint });
                }
                Action::Rejected { reason } => return Err(PlanError { reason }),
                Action::Created { .. }
                | Action::StoreManifest { .. }
                | Action::DirectRun { .. } => {}
            }
        }
        waiting.into_iter().try_for_each(|event| self.apply(event))
    }

    /// A rank has been started. Rank 0 of a gang meets the others at once.
    fn begin(&mut self, spec: RunSpec) -> Option<Event> {
        let generation = spec.generation;
        let gang = spec.gang.clone();
        if gang.as_ref().is_some_and(|gang| gang.rank > 0) {
            return None;
        }
        let world_size = gang.as_ref().map_or(1, |gang| gang.world_size);
        let ms = match &spec.task {
            Task::Train(task) => self.train_ms(task, world_size),
            Task::Prepare { .. } | Task::Finish { .. } => 0,
        };
        self.busy.insert((self.now + ms, generation), spec);
        gang.map(|_| {
            let report = RunReport::RendezvousOpened { address: "plan".to_owned() };
            Event::RunReported { generation, rank: 0, sequence: 1, report }
        })
    }

    fn train_ms(&mut self, task: &TrainTask, world_size: u32) -> u64 {
        let from = task.resume_from.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let steps = task.target_step.saturating_sub(from);
        let settings = TrialSettings::resolve(&self.manifest.hyperparameters, &task.assignment);
        let examples = steps as f64 * settings.global_batch_size as f64;
        self.examples += examples;
        let (to, global_batch_size) = (task.target_step, settings.global_batch_size);
        let differ = !self.manifest.categories("average").is_empty();
        let training = differ.then(|| self.manifest.training_of(&task.assignment));
        let average = training.and_then(|training| training.category("average"));
        let stretch = Stretch { from, to, global_batch_size, average };
        *self.stretches.entry(stretch).or_default() += 1;
        let rate =
            self.premises.examples_per_second.unwrap_or(1.0).max(1e-9) * f64::from(world_size);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time, clamped below what a float holds exactly"
        )]
        let ms = (examples / rate * 1000.0).ceil().clamp(1.0, 1e15) as u64;
        let (since, _) = self.searching.unwrap_or((self.now, self.now));
        self.searching = Some((since, self.now + ms));
        self.slot_ms += ms * u64::from(world_size);
        *self.trial_ms.entry(task.trial.number).or_default() += ms;
        let between = self.manifest.checkpoint.every_steps.map_or(0, |every| {
            (task.target_step.saturating_sub(1) / every).saturating_sub(from / every)
        });
        self.num_checkpoints += between + 1;
        ms
    }

    fn end(&mut self, generation: Generation, spec: &RunSpec) -> Result<(), PlanError> {
        let mut reports = match &spec.task {
            Task::Prepare { .. } => vec![RunReport::Prepared(self.data())],
            Task::Train(task) => {
                let step = task.target_step;
                let committed = |step: u64| {
                    let checkpoint = CheckpointKey { trial: task.trial.clone(), step, generation };
                    RunReport::CheckpointCommitted { checkpoint }
                };
                let on_the_way = self.kept_on_the_way(task);
                let mut reports: Vec<RunReport> =
                    on_the_way.into_iter().chain([step]).map(committed).collect();
                let evaluation = evaluation(self.manifest.seed, task.trial.number);
                reports.push(RunReport::Evaluated { step, evaluation });
                reports
            }
            Task::Finish { .. } => {
                vec![RunReport::Finished { test: None, model: "plan".to_owned() }]
            }
        };
        reports.push(RunReport::Ended { exit: RunExit::Completed });
        let first = if spec.gang.is_some() { 2 } else { 1 };
        for (sequence, report) in (first..).zip(reports) {
            self.apply(Event::RunReported { generation, rank: 0, sequence, report })?;
            let count = |experiment: &Experiment| -> usize {
                experiment.trials.values().map(|trial| trial.checkpoints.len()).sum()
            };
            let present = self.engine.experiments().map(count).sum::<usize>() as u64;
            self.most_checkpoints = self.most_checkpoints.max(present);
        }
        let world_size = spec.gang.as_ref().map_or(1, |gang| gang.world_size);
        for rank in 1..world_size {
            let report = RunReport::Ended { exit: RunExit::Completed };
            self.apply(Event::RunReported { generation, rank, sequence: 1, report })?;
        }
        Ok(())
    }

    /// Steps on the way at which a run saves itself and whose checkpoints are there at its end, as far as that can be
    /// told without looking at results.
    fn kept_on_the_way(&self, task: &TrainTask) -> BTreeSet<u64> {
        let policy = &self.manifest.checkpoint;
        let Some(every) = policy.every_steps.filter(|every| *every > 0) else {
            return BTreeSet::new();
        };
        let from = task.resume_from.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let last = task.target_step.saturating_sub(1);
        let multiples =
            |of: u64| (from / of + 1..=last / of).rev().take(KEPT_MAX).map(move |n| n * of);
        let newest = multiples(every).take(policy.keep_last as usize);
        let stay = policy.keep_every_steps.filter(|stay| *stay > 0);
        let stay = stay.and_then(|stay| every.checked_mul(stay / divisor(every, stay)));
        newest.chain(stay.into_iter().flat_map(multiples)).collect()
    }

    fn data(&self) -> DataSummary {
        DataSummary { num_train: self.premises.num_train, ..DataSummary::default() }
    }

    fn outcome(&self) -> Result<Plan, PlanError> {
        let experiment = self.engine.experiments().next();
        let experiment = experiment
            .filter(|e| e.phase == Phase::Ended { end: ExperimentEnd::Completed })
            .ok_or_else(|| {
                let slots = self.manifest.resources.slots;
                PlanError { reason: format!("it needs {slots}, see `--slots`") }
            })?;
        let mut below: BTreeMap<u32, u64> = BTreeMap::new();
        let mut rungs = Vec::new();
        for (rung, budget) in experiment.ladder.iter().enumerate() {
            let (mut num_trials, mut steps) = (0, 0);
            for trial in experiment.trials.values() {
                let Some(result) = trial.result_at(rung) else { continue };
                let before = below.insert(trial.number, result.step).unwrap_or(0);
                num_trials += 1;
                steps += result.step.saturating_sub(before);
            }
            rungs.push(RungPlan { budget: *budget, num_trials, steps });
        }
        let (since, until) = self.searching.unwrap_or((0, 0));
        Ok(Plan {
            num_trials: experiment.trials.len() as u64,
            steps: rungs.iter().map(|rung| rung.steps).sum(),
            rungs,
            examples: self.examples,
            stretches: self.stretches.clone(),
            num_checkpoints: self.num_checkpoints,
            most_checkpoints: self.most_checkpoints,
            slot_seconds: self.slot_ms as f64 / 1000.0,
            seconds: until.saturating_sub(since) as f64 / 1000.0,
            doubts: Vec::new(),
        })
    }
}

/// Greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// A result that depends on nothing but the trial's number.
fn evaluation(seed: Seed, number: u32) -> Evaluation {
    const EXAMPLES: u64 = 1 << 40;
    let mut draws = seed.child("plan", u64::from(number)).draws();
    let right = draws.below(EXAMPLES);
    let wrong = EXAMPLES - right;
    let share = right as f64 / EXAMPLES as f64;
    let masked = MaskedScore { loss: share, num_masked: EXAMPLES, num_right: right };
    Evaluation {
        loss: share,
        confusion: vec![vec![right, wrong], vec![wrong, right]],
        auc: Some(share),
        masked: Some(masked),
    }
}
