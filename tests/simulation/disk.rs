//! The coordinator's disk: what has happened is durable with the next flush, and nothing follows from it before. A
//! crash takes the rest; the next start goes on from the last snapshot and what came after it.

use muster_common::id::{Generation, WorkerId};
use muster_common::time::Timestamp;
use muster_coordinator::engine::{Action, Engine, Event, LossCause, RULES};
use muster_coordinator::live::ToWorker;
use muster_tests::snapshot::Snapshots;

use super::Simulation;
use super::chance::Chance;
use super::process::Process;

/// What waits for the disk.
#[derive(Debug)]
pub(super) enum Waiting {
    /// What the engine asks for.
    Actions(Vec<Action>),
    /// The answer to a report: it counts, or it did before.
    Receipt { worker: WorkerId, session: u64, generation: Generation, sequence: u64 },
    /// A session is ended because reports are missing.
    Refusal { worker: WorkerId, session: u64 },
}

/// The journal.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Everything that has happened.
    pub(super) events: Vec<(Timestamp, Event)>,
    /// What the engine asked for at each of them.
    pub(super) asked: Vec<Vec<Action>>,
    /// So many of them are durable.
    num_durable: usize,
    waiting: Vec<Waiting>,
    snapshots: Snapshots,
    /// Events that the snapshot contains.
    num_summed_up: usize,
    /// How often the disk will still refuse to be of use.
    pub(super) stall: u64,
}

impl Disk {
    pub(super) fn append(&mut self, at: Timestamp, event: Event, actions: Vec<Action>) {
        self.events.push((at, event));
        self.asked.push(actions.clone());
        self.waiting.push(Waiting::Actions(actions));
    }

    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Loses what is not durable: how many events that were, and the engine as the next start finds it.
    fn crash(&mut self) -> (usize, Engine) {
        let num_lost = self.events.len() - self.num_durable;
        self.events.truncate(self.num_durable);
        self.asked.truncate(self.num_durable);
        self.waiting.clear();
        self.stall = 0;
        let mut engine = self.snapshots.restored().unwrap();
        let tail = self.events.iter().zip(&self.asked).skip(self.num_summed_up);
        for ((at, event), asked) in tail {
            let again = engine.apply(*at, event.clone());
            assert_eq!(again, *asked, "a start decides what was decided");
        }
        (num_lost, engine)
    }
}

impl Simulation {
    /// Makes everything durable and lets happen what follows; whether there was anything to do.
    pub(super) fn flush(&mut self) -> bool {
        if self.disk.waiting.is_empty() {
            return false;
        }
        if self.disk.stall > 0 {
            self.disk.stall -= 1;
            return true;
        }
        self.disk.num_durable = self.disk.events.len();
        self.memory.keep(&self.live);
        for waiting in std::mem::take(&mut self.disk.waiting) {
            match waiting {
                Waiting::Actions(actions) => self.messages.extend(actions),
                Waiting::Receipt { worker, session, generation, sequence } => {
                    let process = self.processes.get_mut(&worker);
                    if let Some(process) = process.filter(|p| p.line.session == Some(session)) {
                        let receipt = ToWorker::Acknowledge { generation, sequence };
                        process.line.down.push_back(receipt);
                    }
                }
                Waiting::Refusal { worker, session } => {
                    let process = self.processes.get(&worker);
                    if process.is_some_and(|p| p.line.session == Some(session)) {
                        self.close(&worker);
                    }
                }
            }
        }
        if self.chances.happens(Chance::Snapshot, &mut self.draws) {
            let position = self.disk.num_durable;
            self.disk.snapshots.take(&mut self.live).unwrap();
            self.disk.num_summed_up = position;
        }
        true
    }

    /// The coordinator's process is gone, with all that it had in mind, and every session. What it would find is what
    /// was durable.
    pub(super) fn power_cut(&mut self) {
        let (num_lost, restored) = self.disk.crash();
        self.see("crash");
        if num_lost > 0 {
            self.see("events lost");
        }
        if !self.messages.is_empty() || !self.chores.is_empty() {
            self.see("actions lost");
        }
        self.messages.clear();
        self.chores.clear();
        self.memory.crash(&self.live, &restored);
        self.live = restored;
        self.live.check_invariants().unwrap();
        let is_local = |id: &WorkerId| id.as_str().starts_with(LOCAL);
        self.processes.retain(|id, process| !is_local(id) && !process.is_leaving);
        for process in self.processes.values_mut() {
            process.line.close(false);
            process.line.late.clear();
        }
    }

    /// The next start: what may not have happened is done again, and local workers begin anew.
    pub(super) fn start_again(&mut self) {
        let outstanding = self.live.outstanding();
        self.check_outstanding(&outstanding);
        self.messages.extend(outstanding);
        if self.live.rules() < RULES {
            self.apply(Event::RulesAdopted { rules: RULES });
        }
        let workers = self.live.workers().keys();
        let orphans: Vec<WorkerId> =
            workers.filter(|id| id.as_str().starts_with(LOCAL)).cloned().collect();
        for worker in orphans {
            let cause = LossCause::CoordinatorRestarted;
            self.apply(Event::WorkerLost { worker, cause });
            self.start_worker(LOCAL);
        }
    }

    /// Starts the process of a worker that was never there.
    pub(super) fn start_worker(&mut self, kind: &str) {
        self.num_workers += 1;
        let worker: WorkerId = format!("{kind}{}", self.num_workers).parse().unwrap();
        let host = match kind {
            LOCAL => "here".to_owned(),
            _ => format!("h{}", self.draws.below(3)),
        };
        self.processes.insert(worker, Process::on(host));
    }
}

/// Names of workers that end with the coordinator begin so.
pub(super) const LOCAL: &str = "local";
/// Names of the others do.
pub(super) const REMOTE: &str = "w";
