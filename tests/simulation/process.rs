//! The process of a worker, with its end of the line to the coordinator: what it does by itself, without asking
//! anybody. It keeps to the same rules as `worker/src/supervisor`.

use std::collections::VecDeque;

use muster_common::id::Generation;
use muster_common::run::RunReport;
use muster_coordinator::live::ToWorker;

/// Worker to coordinator.
#[derive(Debug, Clone)]
pub(super) enum Up {
    Report { generation: Generation, sequence: u64, report: Box<RunReport> },
    Draining,
    Goodbye,
}

/// What is under way between a worker and the coordinator.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Number of the session that is open.
    pub(super) session: Option<u64>,
    /// Nothing gets through at the moment.
    pub(super) is_cut: bool,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<ToWorker>,
    /// Reports of sessions that are over; nobody answers to them.
    pub(super) late: VecDeque<Up>,
}

impl Line {
    /// The session is over. What was under way is lost, or its reports arrive later.
    pub(super) fn close(&mut self, comes_late: bool) {
        let under_way = std::mem::take(&mut self.up);
        if comes_late {
            let is_report = |message: &Up| matches!(message, Up::Report { .. });
            self.late.extend(under_way.into_iter().filter(is_report));
        }
        self.down.clear();
        self.session = None;
    }

    /// Whether the coordinator hears of the worker.
    pub(super) fn is_heard(&self) -> bool {
        self.session.is_some() && !self.is_cut
    }
}

/// The run that was taken on last, until its end is acknowledged.
#[derive(Debug, Clone, Copy)]
struct Held {
    generation: Generation,
    /// Number of the report that ended it.
    ended_by: Option<u64>,
}

/// A run at work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) generation: Generation,
    /// What it will still say; its end is the last.
    pub(super) script: VecDeque<RunReport>,
}

/// A worker, whatever the coordinator thinks of it.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) host: String,
    pub(super) line: Line,
    pub(super) job: Option<Job>,
    pub(super) is_draining: bool,
    /// It has said goodbye.
    pub(super) is_leaving: bool,
    held: Option<Held>,
    /// The run that reported last, and the number of its last report.
    numbered: Option<(Generation, u64)>,
    unacknowledged: VecDeque<(Generation, u64, RunReport)>,
}

impl Process {
    pub(super) fn on(host: String) -> Self {
        Self { host, ..Self::default() }
    }

    /// The run that it says it holds when it comes back.
    pub(super) fn held(&self) -> Option<Generation> {
        self.held.map(|held| held.generation)
    }

    /// Whether an assignment means anything to it: it does not start a run twice.
    pub(super) fn takes(&self, generation: Generation) -> bool {
        let is_at_it = self.job.as_ref().is_some_and(|job| job.generation == generation);
        let has_ended = self.numbered.is_some_and(|(of, _)| of >= generation);
        !self.is_leaving && !is_at_it && !has_ended
    }

    /// Takes on a run; one that is at work goes.
    pub(super) fn take_on(&mut self, job: Job) {
        self.held = Some(Held { generation: job.generation, ended_by: None });
        self.job = Some(job);
    }

    /// Says the next thing that its run has to say. It is said again until it is acknowledged.
    pub(super) fn speak(&mut self) -> Option<RunReport> {
        let job = self.job.as_mut()?;
        let generation = job.generation;
        let report = job.script.pop_front()?;
        let last = self.numbered.filter(|(of, _)| *of == generation).map_or(0, |(_, last)| last);
        let sequence = last + 1;
        self.numbered = Some((generation, sequence));
        if matches!(report, RunReport::Ended { .. }) {
            self.job = None;
            if let Some(held) = self.held.as_mut().filter(|held| held.generation == generation) {
                held.ended_by = Some(sequence);
            }
        }
        self.unacknowledged.push_back((generation, sequence, report.clone()));
        if self.line.session.is_some() {
            let report = Box::new(report.clone());
            self.line.up.push_back(Up::Report { generation, sequence, report });
        }
        Some(report)
    }

    /// A session is open: everything that was not acknowledged is said again. How much that was.
    pub(super) fn open(&mut self, session: u64) -> usize {
        self.line.session = Some(session);
        for (generation, sequence, report) in self.unacknowledged.iter().cloned() {
            let report = Box::new(report);
            self.line.up.push_back(Up::Report { generation, sequence, report });
        }
        if self.is_draining {
            self.line.up.push_back(Up::Draining);
        }
        self.unacknowledged.len()
    }

    /// Reports of a run up to this one are durable.
    pub(super) fn acknowledged(&mut self, generation: Generation, sequence: u64) {
        self.unacknowledged.retain(|(of, number, _)| *of != generation || *number > sequence);
        let is_over = |held: &mut Held| {
            held.generation == generation && held.ended_by.is_some_and(|end| end <= sequence)
        };
        self.held.take_if(is_over);
    }

    /// Gives up a run that is not its own any more.
    pub(super) fn abandon(&mut self, generation: Generation) {
        self.unacknowledged.retain(|(of, ..)| *of != generation);
        self.held.take_if(|held| held.generation == generation);
        self.job.take_if(|job| job.generation == generation);
    }

    /// Says that it is about to leave, and then goodbye.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        if self.line.session.is_some() {
            self.line.up.push_back(Up::Draining);
        }
    }

    /// Kills its run and says goodbye.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
        self.job = None;
        self.line.up.push_back(Up::Goodbye);
    }
}
