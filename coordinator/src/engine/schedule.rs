//! Who gets free slots. `line` says in which order experiments are served; within one, work is chosen
//! in this order: a part of the preparation, a trial whose run was cut short (lowest number first), a
//! promotion (highest rung first), a new trial, the finish.
//!
//! Gangs. A run gets all its slots in one step or none, so no run holds slots while it waits for others,
//! and gangs cannot block each other. The first in the line that has too few free slots keeps those that
//! are free, and its place in the line is kept (by [`Experiment::waiting_since`]). Meanwhile the slots are
//! lent to smaller runs: nobody knows when a run will end, so of none can be known that it would not delay
//! the gang, but a run can save itself and leave. As soon as the gang could begin with what was lent, those
//! who borrowed are told to (`preemption`). A gang that needs more slots than there are keeps nothing,
//! because it could not be started on an idle cluster either.
//!
//! Elastic gangs take what is free between their bounds. They wait for more only while another worker
//! may come for one that was lost, and grow at a checkpoint when slots are free that nobody wants.

use muster_common::count::counted;
use muster_common::goal::Breach;
use muster_common::id::{Attempt, ExperimentId, Generation, WorkerId};
use muster_common::manifest::{Assignment, Slots};
use muster_common::run::{Directive, Task, TrainTask};
use muster_common::time::Timestamp;

use super::experiment::{Best, Experiment, ExperimentEnd, Part, Phase};
use super::placement::place;
use super::run::{Run, RunKind};
use super::trial::{Trial, TrialKind, TrialState};
use super::{Action, Engine, Worker, WorkerKind};
use crate::sweep::asha::Promotion;
use crate::sweep::sampler::{Observation, Proposal, needs_history, propose};

/// Work that slots could do now.
enum Work {
    Part(usize),
    Resume(u32),
    Promote(Promotion),
    Create,
    Finish,
}

/// What to do about the first in the line.
enum Turn {
    /// Start it on these workers, each with its host.
    Begin(ExperimentId, Work, Vec<(WorkerId, String)>),
    /// Start it on slots that are kept for somebody else.
    Lend(ExperimentId, Work, Vec<(WorkerId, String)>),
    /// Keep the free slots for it.
    Keep(ExperimentId),
}

impl Engine {
    /// Gives free slots something to do, until there is nothing or nobody left.
    pub(super) fn schedule(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        // Nothing can have become of the others.
        let touched: Vec<ExperimentId> = self.experiments.touched().cloned().collect();
        for id in touched {
            let Some(experiment) = self.experiments.get_mut(&id) else { continue };
            experiment.trials.refresh();
            experiment.cut_brackets(now);
            experiment.advance(now);
            experiment.trials.refresh();
            if experiment.waiting_since.is_some() && experiment.next_work(now).is_none() {
                experiment.waiting_since = None;
            }
        }
        self.experiments.refresh();
        self.workers.refresh();
        self.runs.refresh();
        loop {
            match self.next_turn(now) {
                None => return,
                Some(Turn::Begin(id, work, workers)) => {
                    self.begin_run(now, (workers, false), &id, &work, actions);
                }
                Some(Turn::Lend(id, work, workers)) => {
                    self.begin_run(now, (workers, true), &id, &work, actions);
                }
                Some(Turn::Keep(id)) => {
                    let num_free = self.num_free();
                    let Some(experiment) = self.experiments.get_mut(&id) else { return };
                    if experiment.waiting_since.is_none() {
                        experiment.waiting_since = Some(now);
                        let slots = experiment.manifest.resources.slots;
                        let text = format!("waits for {slots}; {num_free} free, kept for it");
                        experiment.decide(now, None, text);
                    }
                    if !self.has_shares() {
                        return;
                    }
                }
            }
        }
    }

    /// Workers that can be given a run, each with its host.
    pub(super) fn free_workers(&self) -> Vec<(WorkerId, String)> {
        let free =
            self.workers.of(WorkerKind::Free).filter(|(_, worker)| !self.is_aside(&worker.host));
        free.map(|(id, worker)| (id.clone(), worker.host.clone())).collect()
    }

    /// Number of workers that can be given a run.
    pub(super) fn num_free(&self) -> usize {
        if self.hosts.is_empty() {
            return self.workers.count(WorkerKind::Free);
        }
        self.workers.of(WorkerKind::Free).filter(|(_, worker)| !self.is_aside(&worker.host)).count()
    }

    /// Workers that have a run or can be given one.
    pub fn num_usable(&self) -> u32 {
        let is_usable = |worker: &&Worker| !worker.draining && !self.is_aside(&worker.host);
        let num_usable = if self.hosts.is_empty() {
            self.workers.len() - self.workers.count(WorkerKind::Draining)
        } else {
            self.workers.values().filter(is_usable).count()
        };
        u32::try_from(num_usable).unwrap_or(u32::MAX)
    }

    /// Slots that gangs on their way out come back to: a gang that broke to as many as it had, one that
    /// grows to all it may have. Nobody else gets them between its last rank's end and the next run.
    pub(super) fn num_promised(&self) -> usize {
        let promised = |run: &Run| {
            let experiment = self.experiments.get(&run.experiment)?;
            let size = match run.grows {
                true => experiment.manifest.resources.slots.max(),
                false if run.is_broken() => run.world_size(),
                false => 0,
            };
            let missing = || (size as usize).saturating_sub(run.num_working());
            self.comes_back(run).then(missing)
        };
        // Only those that were told to leave break or grow.
        self.runs.of(RunKind::Leaving).filter_map(|(_, run)| promised(run)).sum()
    }

    fn next_turn(&self, now: Timestamp) -> Option<Turn> {
        let num_free = match self.num_free() {
            0 => return None,
            num_free => num_free.saturating_sub(self.num_promised()),
        };
        if num_free == 0 {
            return None;
        }
        let num_usable = self.num_usable();
        let mut keeper: Option<&Experiment> = None;
        for experiment in self.line() {
            let Some(work) = experiment.next_work(now) else { continue };
            let slots = experiment.slots_of(&work);
            let room = self.room_for(experiment);
            if slots.min() > num_usable.min(room) {
                continue;
            }
            let most = slots.max().min(room) as usize;
            let count = num_free.min(most);
            let is_enough = count >= slots.min() as usize;
            if let Some(keeper) = keeper {
                if is_enough && self.may_lend(num_free, keeper, now) {
                    let workers = place(&self.free_workers(), count)?;
                    return Some(Turn::Lend(experiment.id.clone(), work, workers));
                }
                continue;
            }
            if count == most || (is_enough && !self.may_get_more(now, experiment, slots)) {
                let workers = place(&self.free_workers(), count)?;
                return Some(Turn::Begin(experiment.id.clone(), work, workers));
            }
            if experiment.waiting_since.is_none() || !self.has_shares() {
                return Some(Turn::Keep(experiment.id.clone()));
            }
            keeper = Some(experiment);
        }
        None
    }

    /// Whether what an experiment could begin would find slots enough on an idle cluster.
    fn fits(&self, experiment: &Experiment, now: Timestamp) -> bool {
        let most = self.num_usable().min(self.room_for(experiment));
        experiment.slots_wanted(now).is_some_and(|slots| slots.min() <= most)
    }

    /// How many more slots an experiment may have.
    fn room_for(&self, experiment: &Experiment) -> u32 {
        if self.has_shares() { self.room(experiment).slots } else { u32::MAX }
    }

    /// Whether slots that are kept may be lent: while the one they are kept for could not begin even if
    /// all that were lent came back.
    fn may_lend(&self, num_free: usize, keeper: &Experiment, now: Timestamp) -> bool {
        let slots = keeper.slots_wanted(now);
        slots.is_some_and(|slots| self.num_recallable(num_free) < slots.min())
    }

    /// Whether a worker may come for one that was lost. Where some are lost all the time that is no reason to wait
    /// for longer than the grace.
    fn may_get_more(&self, now: Timestamp, experiment: &Experiment, slots: Slots) -> bool {
        let lasts = |since: Timestamp| since.after(slots.grace()) > now;
        let is_patient = !self.is_strict() || experiment.waiting_since.is_none_or(lasts);
        slots.is_elastic() && is_patient && self.last_loss.is_some_and(lasts)
    }

    fn begin_run(
        &mut self,
        now: Timestamp,
        (workers, lent): (Vec<(WorkerId, String)>, bool),
        id: &ExperimentId,
        work: &Work,
        actions: &mut Vec<Action>,
    ) {
        let generation = Generation(self.last_generation + 1);
        let Some(experiment) = self.experiments.get_mut(id) else { return };
        let Some(task) = experiment.begin(now, work, generation) else {
            // It may have been the last thing there was to do.
            experiment.trials.refresh();
            experiment.advance(now);
            return;
        };
        experiment.waiting_since = None;
        if experiment.slots_of(work).is_elastic() {
            let number = task.trial().map(|trial| trial.number);
            let text = format!("run {generation} on {}", counted(workers.len(), "slot"));
            experiment.decide(now, number, text);
        }
        if lent {
            let number = task.trial().map(|trial| trial.number);
            let text = format!("run {generation} borrows slots that are kept for a gang");
            experiment.decide(now, number, text);
        }
        experiment.begun_at.get_or_insert(now);
        self.last_generation = generation.0;
        let workers_of_run: Vec<WorkerId> = workers.iter().map(|(id, _)| id.clone()).collect();
        let run = Run { lent, ..Run::new(now, id.clone(), task, workers) };
        for worker in &workers_of_run {
            self.occupy(worker, generation, id);
        }
        let first = workers_of_run.into_iter().next();
        self.runs.insert(generation, run);
        if let Some(worker) = first
            && let Some(spec) = self.spec(generation, &worker)
        {
            actions.push(Action::StartRun { worker, spec: Box::new(spec) });
        }
    }

    /// An elastic gang that has just saved itself leaves its slots when more are free that nobody
    /// wants: its next run takes them too.
    pub(super) fn grow(
        &mut self,
        now: Timestamp,
        generation: Generation,
        actions: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get(&generation) else { return };
        let Some(experiment) = self.experiments.get(&run.experiment) else { return };
        let slots = experiment.manifest.resources.slots;
        if !slots.is_elastic() {
            return;
        }
        if self.has_shares() && self.room(experiment).slots == 0 {
            return;
        }
        let num_free = self.num_free().saturating_sub(self.num_promised());
        let is_kept = self.open_experiments().iter().any(|other| {
            other.waiting_since.is_some() && (!self.is_strict() || self.fits(other, now))
        });
        let Some(run) = self.runs.get_mut(&generation) else { return };
        let Some(experiment) = self.experiments.get_mut(&run.experiment) else { return };
        let world_size = run.world_size();
        let is_small = world_size < slots.max();
        if !is_small || num_free == 0 || is_kept || experiment.paused || run.directive.is_some() {
            return;
        }
        run.grows = true;
        let number = run.task.trial().map(|trial| trial.number);
        let text =
            format!("run {generation} on {world_size} slots ends to grow: {num_free} more free");
        experiment.decide(now, number, text);
        self.direct(now, generation, Directive::Preempt, actions);
    }
}

impl Experiment {
    /// Slots of some work: trials train on what the manifest says, everything else on one.
    fn slots_of(&self, work: &Work) -> Slots {
        match work {
            Work::Part(_) | Work::Finish => Slots::Fixed(1),
            Work::Resume(_) | Work::Promote(_) | Work::Create => self.manifest.resources.slots,
        }
    }

    /// Slots of the work it could do now.
    pub fn slots_wanted(&self, now: Timestamp) -> Option<Slots> {
        self.next_work(now).map(|work| self.slots_of(&work))
    }

    fn next_work(&self, now: Timestamp) -> Option<Work> {
        if self.paused {
            return None;
        }
        // Trials that wait have a time of their own.
        let is_due = self.not_before.is_none_or(|at| at <= now);
        match &self.phase {
            Phase::Preparing { parts } if is_due => {
                parts.iter().position(|part| *part == Part::Waiting).map(Work::Part)
            }
            Phase::Searching => self.next_trial(now),
            Phase::Finishing { run: None } if is_due => Some(Work::Finish),
            Phase::Preparing { .. } | Phase::Finishing { .. } | Phase::Ended { .. } => None,
        }
    }

    /// Runs that it could begin at once if it had slots for them.
    pub(super) fn num_startable(&self, now: Timestamp) -> u32 {
        let waiting = match &self.phase {
            Phase::Preparing { parts } if self.next_work(now).is_some() => {
                parts.iter().filter(|part| **part == Part::Waiting).count()
            }
            Phase::Searching if self.next_work(now).is_some() => {
                let pending = self.trials.of(TrialKind::Pending);
                let due = pending.filter(|(_, trial)| trial.is_due(now)).count();
                let new = (self.max_trials() as usize).saturating_sub(self.trials.len());
                let most =
                    self.max_concurrent().saturating_sub(self.trials.count(TrialKind::Running));
                (due + new).max(1).min(most)
            }
            Phase::Preparing { .. }
            | Phase::Searching
            | Phase::Finishing { .. }
            | Phase::Ended { .. } => usize::from(self.next_work(now).is_some()),
        };
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// Trials that may run at the same time.
    fn max_concurrent(&self) -> usize {
        let limit = self.manifest.searcher.as_ref().and_then(|searcher| searcher.max_concurrent);
        limit.map_or(usize::MAX, |limit| limit as usize)
    }

    /// Whether nothing new is begun, because a trial is good enough or a limit is reached.
    pub(super) fn is_enough(&self) -> bool {
        self.target_reached.is_some() || self.limit_reached.is_some()
    }

    fn next_trial(&self, now: Timestamp) -> Option<Work> {
        if self.is_enough() {
            return None;
        }
        if self.trials.count(TrialKind::Running) >= self.max_concurrent() {
            return None;
        }
        let is_population = self.population().is_some();
        if let Some(number) = self.next_member(now).filter(|_| is_population) {
            return Some(Work::Resume(number));
        }
        let pending = self.trials.of(TrialKind::Pending).filter(|_| !is_population);
        let due = pending.filter(|(_, trial)| trial.is_due(now));
        if let Some(number) = due.map(|(number, _)| *number).min() {
            return Some(Work::Resume(number));
        }
        if let Some(promotion) = self.next_promotion() {
            return Some(Work::Promote(promotion));
        }
        (self.trials.len() < self.max_trials() as usize).then_some(Work::Create)
    }

    /// Marks work as begun and says what the worker has to do.
    fn begin(&mut self, now: Timestamp, work: &Work, generation: Generation) -> Option<Task> {
        self.not_before = None;
        match work {
            Work::Part(index) => {
                let Phase::Preparing { parts } = &mut self.phase else { return None };
                let num_parts = u32::try_from(parts.len()).ok()?;
                *parts.get_mut(*index)? = Part::Running(generation);
                Some(Task::Prepare { part: u32::try_from(*index).ok()?, num_parts })
            }
            Work::Resume(number) => self.begin_trial(*number, generation),
            Work::Promote(promotion) => {
                let budget = self.ladder.get(promotion.rung + 1)?;
                let text = format!("promoted to {budget}: {}", self.standing_text(promotion));
                self.decide(now, Some(promotion.trial), text);
                self.begin_trial(promotion.trial, generation)
            }
            Work::Create => {
                let number = u32::try_from(self.trials.len()).ok()?.checked_add(1)?;
                let assignment = self.propose(number);
                let first_rung = self.first_rung(number);
                let trial = Trial::new(number, first_rung, assignment);
                let trial = self.started(trial);
                self.trials.insert(number, trial);
                if !self.may_start(now, number) {
                    return None;
                }
                self.begin_trial(number, generation)
            }
            Work::Finish => {
                let best = self.best.as_ref()?;
                let trial = self.trials.get(&best.trial)?;
                let task = Task::Finish {
                    trial: self.trial_id(best.trial),
                    assignment: trial.assignment_of(&best.checkpoint).clone(),
                    checkpoint: best.checkpoint.clone(),
                };
                self.phase = Phase::Finishing { run: Some(generation) };
                Some(task)
            }
        }
    }

    /// What the next trial tries.
    fn propose(&self, number: u32) -> Assignment {
        let Some(searcher) = &self.manifest.searcher else { return Assignment::new() };
        let goal = self.goal();
        let proposal = Proposal {
            space: &self.manifest.hyperparameters,
            goal: &goal,
            seed: self.manifest.seed,
            number,
            history: &[],
        };
        if !needs_history(&searcher.sampler, proposal.space) {
            return propose(&searcher.sampler, &proposal);
        }
        let trials = self.trials.values();
        let own = trials.map(|trial| Observation {
            assignment: &trial.assignment,
            first_rung: trial.first_rung,
            merits: trial.counted_merits(&goal).collect(),
            is_over: trial.is_terminal() || trial.state == TrialState::Paused,
            is_prior: false,
        });
        let prior = self.prior.iter().map(|prior| Observation {
            assignment: &prior.assignment,
            first_rung: prior.first_rung,
            merits: prior.values.clone(),
            is_over: true,
            is_prior: true,
        });
        let history: Vec<Observation<'_>> = prior.chain(own).collect();
        propose(&searcher.sampler, &Proposal { history: &history, ..proposal })
    }

    fn begin_trial(&mut self, number: u32, generation: Generation) -> Option<Task> {
        let id = self.trial_id(number);
        let trial = self.trials.get(&number)?;
        let target_step = self.target_step(trial)?;
        let total_steps = self.steps(trial, self.manifest.budget);
        let trial = self.trials.get_mut(&number)?;
        trial.attempts += 1;
        trial.state = TrialState::Running { generation };
        trial.not_before = None;
        Some(Task::Train(TrainTask {
            trial: id,
            attempt: Attempt(trial.attempts),
            assignment: trial.assignment.clone(),
            target_step,
            total_steps,
            resume_from: trial.resume_point().cloned(),
            earlier: trial.earlier_checkpoints(),
            seed_of: trial.seed_of(),
        }))
    }

    /// Moves to the next phase when the present one has nothing left to do.
    fn advance(&mut self, now: Timestamp) {
        match &self.phase {
            Phase::Preparing { parts } if parts.iter().all(|part| *part == Part::Done) => {
                self.phase = Phase::Searching;
            }
            Phase::Searching if self.search_is_over() => self.conclude(now),
            Phase::Preparing { .. }
            | Phase::Searching
            | Phase::Finishing { .. }
            | Phase::Ended { .. } => {}
        }
    }

    fn search_is_over(&self) -> bool {
        let at_work = [TrialKind::Pending, TrialKind::Running];
        let is_created = self.trials.len() >= self.max_trials() as usize || self.is_enough();
        let is_held = self.trials.of(TrialKind::Paused).any(|(_, trial)| trial.held);
        is_created
            && !is_held
            && at_work.iter().all(|kind| self.trials.count(*kind) == 0)
            && self.next_promotion().is_none()
    }

    /// Stops the trials that wait in vain and chooses the best.
    fn conclude(&mut self, now: Timestamp) {
        let goal = self.goal();
        self.stop_waiting(now);
        let Some((number, rung)) = self.leader() else {
            let failure = self.trials.iter().find_map(|(number, trial)| match &trial.state {
                TrialState::Failed { message } => Some(format!("t{number} failed: {message}")),
                _ => None,
            });
            let message = match self.limit_reached.clone().or(failure) {
                None => "no trial has a result".to_owned(),
                Some(why) => format!("no trial has a result: {why}"),
            };
            self.end(now, ExperimentEnd::Failed { message });
            return;
        };
        let result = self.trials.get(&number).and_then(|trial| trial.result_at(rung));
        let Some(result) = result.cloned() else { return };
        let value = goal.value(&result.evaluation, goal.objective.metric);
        let mut text = format!(
            "chosen: best {} on the validation split, {value:.4} after {}",
            goal.objective.metric.name(),
            counted(result.step, "step")
        );
        let num_front = self.front().len();
        if num_front > 0 {
            text += &format!(", of {} on the front", counted(num_front, "result"));
        }
        let breaches: Vec<String> =
            goal.breaches(&result.evaluation).iter().map(Breach::words).collect();
        if !breaches.is_empty() {
            let breaches = breaches.join("; ");
            text += &format!(", but no result keeps all constraints; this one breaks {breaches}");
        }
        self.best = Some(Best {
            trial: number,
            checkpoint: result.checkpoint,
            validation: result.evaluation,
            test: None,
            model: None,
        });
        self.decide(now, Some(number), text);
        self.phase = Phase::Finishing { run: None };
    }
}
