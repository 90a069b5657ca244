//! Who gets a free slot. Experiments are served in the order of submission; within one, work is
//! chosen in this order: a part of the preparation, a trial whose run was cut short (lowest number
//! first), a promotion (highest rung first), a new trial, the finish.

use muster_common::id::{Attempt, ExperimentId, Generation, WorkerId};
use muster_common::manifest::{Assignment, PrunerSettings};
use muster_common::run::{RunSpec, Task, TrainTask};
use muster_common::time::Timestamp;

use super::experiment::{Best, Experiment, ExperimentEnd, Part, Phase};
use super::trial::{StopReason, Trial, TrialState};
use super::{Action, Engine, Run};
use crate::sweep::asha::{Promotion, order, promotion};
use crate::sweep::sampler::{Observation, Proposal, propose};

/// Work that a slot could do now.
enum Work {
    Part(usize),
    Resume(u32),
    Promote(Promotion),
    Create,
    Finish,
}

impl Engine {
    /// Gives every idle worker something to do, until there is nothing or nobody left.
    pub(super) fn schedule(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for id in self.order.clone() {
            if let Some(experiment) = self.experiments.get_mut(&id) {
                experiment.advance(now);
            }
        }
        let idle: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.run.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for worker in idle {
            let next = self.order.iter().find_map(|id| {
                let experiment = self.experiments.get(id)?;
                experiment.next_work().map(|work| (id.clone(), work))
            });
            let Some((id, work)) = next else { return };
            self.assign(now, worker, &id, &work, actions);
        }
    }

    fn assign(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        id: &ExperimentId,
        work: &Work,
        actions: &mut Vec<Action>,
    ) {
        let generation = Generation(self.last_generation + 1);
        let Some(experiment) = self.experiments.get_mut(id) else { return };
        let Some(task) = experiment.begin(now, work, generation) else { return };
        self.last_generation = generation.0;
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.run = Some(generation);
        }
        let spec = RunSpec {
            generation,
            experiment: id.clone(),
            task: task.clone(),
            manifest: experiment.manifest.clone(),
            store: experiment.store.clone(),
            gang: None,
        };
        let run = Run {
            worker: worker.clone(),
            experiment: id.clone(),
            task,
            next_sequence: 1,
            started_at: now,
            directive: None,
        };
        self.runs.insert(generation, run);
        actions.push(Action::StartRun { worker, spec: Box::new(spec) });
    }
}

impl Experiment {
    fn next_work(&self) -> Option<Work> {
        if self.paused {
            return None;
        }
        match &self.phase {
            Phase::Preparing { parts } => {
                parts.iter().position(|part| *part == Part::Waiting).map(Work::Part)
            }
            Phase::Searching => self.next_trial(),
            Phase::Finishing { run: None } => Some(Work::Finish),
            Phase::Finishing { run: Some(_) } | Phase::Ended { .. } => None,
        }
    }

    fn next_trial(&self) -> Option<Work> {
        let is_running = |trial: &&Trial| matches!(trial.state, TrialState::Running { .. });
        let num_running = self.trials.values().filter(is_running).count();
        let limit = self.manifest.searcher.as_ref().and_then(|searcher| searcher.max_concurrent);
        if limit.is_some_and(|limit| num_running >= limit as usize) {
            return None;
        }
        let pending = self.trials.values().find(|trial| trial.state == TrialState::Pending);
        if let Some(trial) = pending {
            return Some(Work::Resume(trial.number));
        }
        if let Some(promotion) = self.next_promotion() {
            return Some(Work::Promote(promotion));
        }
        (self.trials.len() < self.max_trials() as usize).then_some(Work::Create)
    }

    fn next_promotion(&self) -> Option<Promotion> {
        let searcher = self.manifest.searcher.as_ref()?;
        let PrunerSettings::Asha(asha) = &searcher.pruner else { return None };
        let mut rungs = self.standings();
        rungs.pop(); // nobody leaves the top rung
        promotion(searcher.objective, asha.reduction_factor, &rungs)
    }

    /// Marks work as begun and says what the worker has to do.
    fn begin(&mut self, now: Timestamp, work: &Work, generation: Generation) -> Option<Task> {
        match work {
            Work::Part(index) => {
                let Phase::Preparing { parts } = &mut self.phase else { return None };
                let num_parts = u32::try_from(parts.len()).ok()?;
                *parts.get_mut(*index)? = Part::Running(generation);
                Some(Task::Prepare { part: u32::try_from(*index).ok()?, num_parts })
            }
            Work::Resume(number) => self.begin_trial(*number, generation),
            Work::Promote(promotion) => {
                let Promotion { trial, rung, value, place, num_results } = *promotion;
                let budget = self.ladder.get(rung + 1)?;
                let text = format!(
                    "promoted to {budget}: {value:.4} is place {place} of {num_results} at rung {}",
                    rung + 1
                );
                self.decide(now, Some(trial), text);
                self.begin_trial(trial, generation)
            }
            Work::Create => {
                let number = u32::try_from(self.trials.len()).ok()?.checked_add(1)?;
                let assignment = self.propose(number);
                self.trials.insert(number, Trial::new(number, assignment));
                self.begin_trial(number, generation)
            }
            Work::Finish => {
                let best = self.best.as_ref()?;
                let trial = self.trials.get(&best.trial)?;
                let task = Task::Finish {
                    trial: self.trial_id(best.trial),
                    assignment: trial.assignment.clone(),
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
        let metric = searcher.objective.metric;
        let values = |trial: &Trial| {
            trial.results.iter().map(|result| result.evaluation.value(metric)).collect()
        };
        let trials = self.trials.values();
        let history: Vec<Observation<'_>> = trials
            .map(|trial| Observation { assignment: &trial.assignment, values: values(trial) })
            .collect();
        let proposal = Proposal {
            space: &self.manifest.hyperparameters,
            objective: searcher.objective,
            seed: self.manifest.seed,
            number,
            history: &history,
        };
        propose(&searcher.sampler, &proposal)
    }

    fn begin_trial(&mut self, number: u32, generation: Generation) -> Option<Task> {
        let id = self.trial_id(number);
        let trial = self.trials.get(&number)?;
        let target_step = self.target_step(trial)?;
        let total_steps = self.steps(trial, self.manifest.budget);
        let trial = self.trials.get_mut(&number)?;
        trial.attempts += 1;
        trial.state = TrialState::Running { generation };
        Some(Task::Train(TrainTask {
            trial: id,
            attempt: Attempt(trial.attempts),
            assignment: trial.assignment.clone(),
            target_step,
            total_steps,
            resume_from: trial.checkpoints.last().cloned(),
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
        let at_work =
            |trial: &Trial| matches!(trial.state, TrialState::Pending | TrialState::Running { .. });
        self.trials.len() >= self.max_trials() as usize
            && !self.trials.values().any(at_work)
            && self.next_promotion().is_none()
    }

    /// Stops the trials that wait in vain and chooses the best.
    fn conclude(&mut self, now: Timestamp) {
        let objective = self.objective();
        let rungs = self.standings();
        for standings in &rungs {
            let mut ordered = standings.clone();
            order(objective, &mut ordered);
            for (index, standing) in ordered.iter().enumerate().filter(|(_, s)| s.waits) {
                let (place, num_results) = (index + 1, ordered.len());
                if let Some(trial) = self.trials.get_mut(&standing.trial) {
                    trial.state =
                        TrialState::Stopped { reason: StopReason::Pruned { place, num_results } };
                }
                let text = format!(
                    "stopped: {:.4} is place {place} of {num_results} at its rung",
                    standing.value
                );
                self.decide(now, Some(standing.trial), text);
            }
        }
        let Some((number, rung)) = self.leader() else {
            let message = "no trial has a result".to_owned();
            self.end(now, ExperimentEnd::Failed { message });
            return;
        };
        let result = self.trials.get(&number).and_then(|trial| trial.results.get(rung));
        let Some(result) = result.cloned() else { return };
        let value = result.evaluation.value(objective.metric);
        let text = format!(
            "chosen: best {} on the validation split, {value:.4} after {} steps",
            objective.metric.name(),
            result.step
        );
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
