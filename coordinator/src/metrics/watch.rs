//! What happened, told from events, the state around them, and the actions that followed. The driver shows it
//! each event; what it remembers is bounded by the workers and the experiments that have not ended.

use std::collections::BTreeMap;

use muster_common::id::{ExperimentId, Generation, TrialId, WorkerId};
use muster_common::run::{FailureClass, RunReport};
use muster_common::time::Timestamp;

use super::Metrics;
use super::census::task_name;
use crate::engine::failure::class_of;
use crate::engine::{Action, Admission, Engine, Event, LossCause};

/// Values of the label of lost workers.
pub(super) const CAUSES: [&str; 4] = ["lease_expired", "left", "died", "coordinator_restarted"];

/// Name of a class as a label value.
pub(super) fn class_label(class: FailureClass) -> &'static str {
    match class {
        FailureClass::OutOfMemory => "out_of_memory",
        FailureClass::Lost => "lost",
        FailureClass::Hang => "hang",
        FailureClass::Diverged => "diverged",
        FailureClass::BadData => "bad_data",
        FailureClass::Preempted => "preempted",
        FailureClass::DiskFull => "disk_full",
        FailureClass::Other => "other",
    }
}

/// The observer of one driver.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Since when a slot is free.
    free_since: BTreeMap<WorkerId, Timestamp>,
    /// Since when nothing runs for an experiment that wants to go on.
    waiting_since: BTreeMap<ExperimentId, Timestamp>,
    /// Runs in progress by experiment.
    num_running: BTreeMap<ExperimentId, usize>,
    /// How the first rank of a run failed that has not ended as a whole.
    failures: BTreeMap<Generation, FailureClass>,
}

/// A run that may end, for which experiment, and its trial with the restarts it had.
type RunBefore = (Generation, ExperimentId, Option<(TrialId, u32)>);

/// What an event may change, as it was before.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The run that may end, its trial, and the restarts of that.
    run: Option<RunBefore>,
    /// Workers whose slot may become free.
    workers: Vec<WorkerId>,
    /// What the event itself says.
    news: News,
}

/// What of an event is wanted when it has been applied, and is gone.
#[derive(Debug, Default)]
enum News {
    #[default]
    Nothing,
    /// A worker that was not there before offers its slot.
    Joined(WorkerId),
    /// A worker is gone; the cause as a label value.
    Lost(WorkerId, &'static str),
    /// A user wants something of an experiment.
    Asked(ExperimentId),
}

impl News {
    fn of(engine: &Engine, event: &Event) -> Self {
        match event {
            Event::WorkerLost { worker, cause } => {
                let cause = match cause {
                    LossCause::LeaseExpired => CAUSES[0],
                    LossCause::Left { .. } => CAUSES[1],
                    LossCause::Died { .. } => CAUSES[2],
                    LossCause::CoordinatorRestarted => CAUSES[3],
                };
                Self::Lost(worker.clone(), cause)
            }
            // One that shows another token than before is no new one.
            Event::WorkerJoined { worker, .. } if !engine.workers().contains_key(worker) => {
                Self::Joined(worker.clone())
            }
            Event::ExperimentResumed { experiment }
            | Event::ExperimentPaused { experiment }
            | Event::ExperimentCanceled { experiment } => Self::Asked(experiment.clone()),
            _ => Self::Nothing,
        }
    }
}

impl Watch {
    /// Begins with what the journal held.
    pub(crate) fn new(engine: &Engine) -> Self {
        let mut watch = Self::default();
        for run in engine.runs().values() {
            *watch.num_running.entry(run.experiment.clone()).or_default() += 1;
        }
        watch
    }

    /// Looks at the state before an event; cheap for all but those that may end a run.
    pub(crate) fn before(&mut self, engine: &Engine, event: &Event) -> Before {
        let mut before = Before { news: News::of(engine, event), ..Before::default() };
        let (generation, class) = match event {
            Event::RunReported { generation, report: RunReport::Ended { exit }, .. } => {
                (*generation, class_of(exit))
            }
            Event::WorkerLost { worker, .. } => {
                let run = engine.workers().get(worker).and_then(|worker| worker.run);
                let Some(generation) = run else { return before };
                (generation, Some(FailureClass::Lost))
            }
            _ => return before,
        };
        let Some(run) = engine.runs().get(&generation) else { return before };
        if let Some(class) = class {
            // What a rank finds wrong with the data explains the others, as a rank that vanished does.
            let kept = self.failures.entry(generation).or_insert(class);
            if class == FailureClass::BadData {
                *kept = class;
            }
        }
        let trial = run.task.trial().map(|trial| (trial.clone(), restarts(engine, trial)));
        let holds = |worker: &&WorkerId| {
            engine.workers().get(*worker).is_some_and(|worker| worker.run == Some(generation))
        };
        let workers = run.members.iter().map(|member| &member.worker).filter(holds).cloned();
        before.workers = workers.collect();
        before.run = Some((generation, run.experiment.clone(), trial));
        before
    }

    /// Counts what an event has changed.
    pub(crate) fn after(
        &mut self,
        metrics: &Metrics,
        now: Timestamp,
        engine: &Engine,
        before: Before,
        actions: &[Action],
    ) {
        match &before.news {
            News::Lost(worker, cause) => {
                metrics.workers_lost.get_or_create(&[("cause", *cause)]).inc();
                self.free_since.remove(worker);
            }
            News::Joined(worker) => {
                self.free_since.entry(worker.clone()).or_insert(now);
            }
            News::Asked(experiment) => self.start_waiting(now, engine, experiment),
            News::Nothing => {}
        }
        for action in actions {
            if let Action::Created { experiment } = action {
                self.start_waiting(now, engine, experiment);
            }
        }
        self.take_end(metrics, now, engine, before);
        self.take_starts(metrics, now, actions);
    }

    fn take_starts(&mut self, metrics: &Metrics, now: Timestamp, actions: &[Action]) {
        for action in actions {
            if let Action::StartRun { worker, spec } = action {
                if let Some(since) = self.free_since.remove(worker) {
                    metrics.slot_idle.observe(now.since(since).as_secs_f64());
                }
                // Ranks beyond the first are part of a run that has started.
                if spec.gang.as_ref().is_none_or(|gang| gang.rank == 0) {
                    let task = [("task", task_name(&spec.task))];
                    metrics.runs_started.get_or_create(&task).inc();
                    *self.num_running.entry(spec.experiment.clone()).or_default() += 1;
                    if let Some(since) = self.waiting_since.remove(&spec.experiment) {
                        metrics.queue_wait.observe(now.since(since).as_secs_f64());
                    }
                }
            }
        }
    }

    fn take_end(&mut self, metrics: &Metrics, now: Timestamp, engine: &Engine, before: Before) {
        let Some((generation, experiment, trial)) = before.run else { return };
        for worker in before.workers {
            // It may have the next run already: then it was free for no time at all.
            let now_has = engine.workers().get(&worker).map(|worker| worker.run);
            if now_has.is_some_and(|run| run != Some(generation)) {
                self.free_since.insert(worker, now);
            }
        }
        if engine.runs().contains_key(&generation) {
            return;
        }
        if let Some(number) = self.num_running.get_mut(&experiment) {
            *number = number.saturating_sub(1);
        }
        let class = self.failures.remove(&generation);
        if let Some((trial, before)) = trial {
            let num_new = restarts(engine, &trial).saturating_sub(before);
            let class = class_label(class.unwrap_or_default());
            metrics.restarts.get_or_create(&[("class", class)]).inc_by(u64::from(num_new));
        }
        self.start_waiting(now, engine, &experiment);
    }

    /// From now on nothing runs for the experiment, unless it has ended, is paused, or something does.
    fn start_waiting(&mut self, now: Timestamp, engine: &Engine, id: &ExperimentId) {
        let wants = engine.experiment(id).is_some_and(|found| !found.is_ended() && !found.paused);
        let is_idle = self.num_running.get(id).is_none_or(|number| *number == 0);
        if is_idle {
            self.num_running.remove(id);
        }
        if wants && is_idle {
            self.waiting_since.entry(id.clone()).or_insert(now);
        } else if !wants {
            self.waiting_since.remove(id);
        }
    }

    /// Counts what became of a report.
    pub(crate) fn admitted(metrics: &Metrics, admission: Admission) {
        let value = match admission {
            Admission::New => "new",
            Admission::Old => "repeated",
            Admission::Gap => "gap",
        };
        metrics.reports.get_or_create(&[("admission", value)]).inc();
    }
}

fn restarts(engine: &Engine, trial: &TrialId) -> u32 {
    let experiment = engine.experiment(&trial.experiment);
    experiment.and_then(|found| found.trials.get(&trial.number)).map_or(0, |found| found.restarts)
}
