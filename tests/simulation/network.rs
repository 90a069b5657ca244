//! Between workers and the coordinator: sessions with messages that take their time, arrive twice, overtake each
//! other or are lost with their session, and lines through which nothing gets for a while. The coordinator's side
//! keeps to the same rules as its session service, and asks the same [`greet`].

use muster_common::id::{Generation, WorkerId};
use muster_common::run::{Directive, RunExit, RunReport, RunSpec};
use muster_coordinator::engine::{Admission, Event, LossCause};
use muster_coordinator::greeting::{Greeting, greet};
use muster_coordinator::live::ToWorker;

use super::Simulation;
use super::chance::Chance;
use super::disk::{LOCAL, REMOTE, Waiting};
use super::process::{Job, Process, Up};

impl Simulation {
    /// Chooses among the processes that are meant.
    pub(super) fn pick_process(&mut self, is_meant: impl Fn(&Process) -> bool) -> Option<WorkerId> {
        let meant = self.processes.iter().filter(|(_, process)| is_meant(process));
        let meant: Vec<WorkerId> = meant.map(|(id, _)| id.clone()).collect();
        self.pick(&meant)
    }

    /// Lets some worker without a session come back, or come for the first time.
    pub(super) fn connect(&mut self) -> bool {
        // Who says Hello waits for the disk, like everybody.
        if self.disk.stall > 0 {
            return false;
        }
        let is_meant = |p: &Process| p.line.session.is_none() && !p.line.is_cut && !p.is_leaving;
        let Some(id) = self.pick_process(is_meant) else { return false };
        self.num_sessions += 1;
        let session = self.num_sessions;
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let (held, host) = (process.held(), process.host.clone());
        if process.open(session) > 0 {
            self.see("reports said again");
        }
        // What is seen is durable.
        self.flush();
        let mut known = greet(&self.live, &id, held);
        if let Some(Greeting { has_forgotten: true, .. }) = known {
            self.see("another process under a name");
            let cause = LossCause::Died { reason: "another process came".to_owned() };
            self.apply(Event::WorkerLost { worker: id.clone(), cause });
            self.flush();
            known = None;
        }
        if known.is_none() {
            if held.is_some() {
                self.see("back under its name");
            }
            self.apply(Event::WorkerJoined { worker: id.clone(), host, token_name: None });
            self.flush();
        }
        let due = known.as_ref().and_then(|known| known.run);
        let abandoned = held.filter(|held| Some(*held) != due);
        let abandon = abandoned.map(|generation| ToWorker::Abandon { generation });
        let messages = known.map(|known| known.messages).unwrap_or_default();
        if let Some(process) = self.processes.get_mut(&id) {
            process.line.down.extend(abandon.into_iter().chain(messages));
        }
        true
    }

    /// Ends the session of a worker.
    pub(super) fn close(&mut self, id: &WorkerId) {
        let comes_late = self.happens(Chance::Late);
        let Some(process) = self.processes.get_mut(id) else { return };
        process.line.close(comes_late);
        if process.is_leaving {
            self.processes.remove(id);
        }
    }

    /// Brings the coordinator the next message of some worker.
    pub(super) fn hear(&mut self) -> bool {
        let has_late = |p: &Process| !p.line.late.is_empty();
        let has_news = |p: &Process| p.line.is_heard() && !p.line.up.is_empty();
        let Some(id) = self.pick_process(|p| has_late(p) || has_news(p)) else { return false };
        let overtakes = self.happens(Chance::Overtake);
        let is_doubled = self.happens(Chance::Duplicate);
        let prefers_late = self.draws.below(2) == 0;
        let process = &self.processes[&id];
        let is_late = has_late(process) && (prefers_late || !has_news(process));
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let session = process.line.session.filter(|_| !is_late);
        let queue = if is_late { &mut process.line.late } else { &mut process.line.up };
        let is_report = |message: Option<&Up>| matches!(message, Some(Up::Report { .. }));
        let index = usize::from(overtakes && is_report(queue.front()) && is_report(queue.get(1)));
        let Some(message) = queue.remove(index) else { return false };
        if is_doubled && is_report(Some(&message)) {
            queue.push_front(message.clone());
            self.see("message twice");
        }
        if index > 0 {
            self.see("overtaken");
        }
        match message {
            Up::Report { generation, sequence, report } => {
                self.take_report(&id, session, (generation, sequence), *report);
            }
            Up::Draining => {
                self.see("drained");
                let reason = "its time is over".to_owned();
                self.apply(Event::WorkerDraining { worker: id, reason });
            }
            Up::Goodbye => {
                let cause = LossCause::Left { reason: "left".to_owned() };
                self.apply(Event::WorkerLost { worker: id.clone(), cause });
                self.processes.remove(&id);
            }
        }
        true
    }

    /// A report has arrived, by a session or later than that.
    fn take_report(
        &mut self,
        id: &WorkerId,
        session: Option<u64>,
        (generation, sequence): (Generation, u64),
        report: RunReport,
    ) {
        let rank = self.live.runs().get(&generation).and_then(|run| run.rank_of(id));
        let admission =
            rank.map_or(Admission::Old, |rank| self.live.admit(generation, rank, sequence));
        let worker = id.clone();
        match (admission, rank) {
            (Admission::New, Some(rank)) => {
                self.memory.count(generation, rank, sequence);
                let committed = match &report {
                    RunReport::CheckpointCommitted { checkpoint } => Some(checkpoint.clone()),
                    _ => None,
                };
                self.apply(Event::RunReported { generation, rank, sequence, report });
                self.memory.committed(committed, &self.live);
            }
            (Admission::Gap, _) => {
                self.see("gap");
                if let Some(session) = session {
                    self.disk.wait(Waiting::Refusal { worker, session });
                }
                return;
            }
            (_, Some(rank)) => {
                self.see("late report");
                if self.happens(Chance::Old) {
                    let event = Event::RunReported { generation, rank, sequence, report };
                    self.stays_the_same(event);
                }
            }
            (_, None) => self.see("report of a run that is over"),
        }
        if let Some(session) = session {
            self.disk.wait(Waiting::Receipt { worker, session, generation, sequence });
        }
    }

    /// Brings some worker the next message for it.
    pub(super) fn tell(&mut self) -> bool {
        let has_news = |p: &Process| p.line.is_heard() && !p.line.down.is_empty();
        let Some(id) = self.pick_process(has_news) else { return false };
        let is_doubled = self.happens(Chance::Duplicate);
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let Some(message) = process.line.down.pop_front() else { return false };
        if is_doubled {
            process.line.down.push_front(message.clone());
        }
        match message {
            ToWorker::Assign(spec) => self.take_on(&id, &spec),
            ToWorker::Direct { generation, directive } => self.obey(&id, generation, directive),
            ToWorker::Acknowledge { generation, sequence } => {
                process.acknowledged(generation, sequence);
            }
            ToWorker::Abandon { generation } => {
                process.abandon(generation);
                self.see("run abandoned");
            }
        }
        true
    }

    fn take_on(&mut self, id: &WorkerId, spec: &RunSpec) {
        let generation = spec.generation;
        if !self.processes.get(id).is_some_and(|process| process.takes(generation)) {
            return;
        }
        let script = self.script(id, spec);
        if let Some(process) = self.processes.get_mut(id) {
            process.take_on(Job { generation, script });
        }
    }

    /// A rank is told to leave. Most do so at once; some have just finished.
    fn obey(&mut self, id: &WorkerId, generation: Generation, directive: Directive) {
        let is_deaf = self.draws.below(4) == 0;
        let Some(process) = self.processes.get_mut(id).filter(|_| !is_deaf) else { return };
        if let Some(job) = process.job.as_mut().filter(|job| job.generation == generation) {
            let exit = match directive {
                Directive::Preempt => RunExit::Preempted,
                Directive::Cancel => RunExit::Canceled,
            };
            job.script = [RunReport::Ended { exit }].into();
        }
    }

    /// The process of a worker is killed. The coordinator starts its own ones anew; of others nobody says anything.
    pub(super) fn kill(&mut self) {
        let Some(id) = self.pick_process(|_| true) else { return };
        self.processes.remove(&id);
        if id.as_str().starts_with(LOCAL) {
            let cause = LossCause::Died { reason: "signal 9".to_owned() };
            self.apply(Event::WorkerLost { worker: id, cause });
            self.start_worker(LOCAL);
        }
    }

    /// The process of a worker is killed, and another one comes under its name.
    pub(super) fn restart(&mut self) {
        let Some(id) = self.pick_process(|process| !process.is_leaving) else { return };
        if let Some(process) =
            self.processes.get_mut(&id).filter(|_| id.as_str().starts_with(REMOTE))
        {
            *process = Process::on(process.host.clone());
        }
    }

    /// A worker has not been heard of for a whole lease. One that has been is lost when the coordinator itself stood
    /// still.
    pub(super) fn expire_lease(&mut self) {
        let known: Vec<WorkerId> = self.live.workers().keys().cloned().collect();
        let Some(id) = self.pick(&known) else { return };
        let is_heard = self.processes.get(&id).is_some_and(|process| process.line.is_heard());
        if !is_heard || self.draws.below(4) == 0 {
            self.expire(id);
        }
    }

    fn expire(&mut self, worker: WorkerId) {
        self.close(&worker);
        self.apply(Event::WorkerLost { worker, cause: LossCause::LeaseExpired });
    }

    /// Nobody will hear of workers that have no process any more.
    pub(super) fn expire_dead(&mut self) {
        let dead = self.live.workers().keys().filter(|id| !self.processes.contains_key(*id));
        for id in dead.cloned().collect::<Vec<_>>() {
            self.expire(id);
        }
    }

    /// Nothing gets through to a worker, or from it.
    pub(super) fn part(&mut self) {
        if let Some(id) = self.pick_process(|process| process.line.is_heard())
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.line.is_cut = true;
            self.see("partition");
        }
    }

    /// It does again: what was under way goes on, or both sides have given up the session.
    pub(super) fn heal(&mut self) {
        let Some(id) = self.pick_process(|process| process.line.is_cut) else { return };
        if let Some(process) = self.processes.get_mut(&id) {
            process.line.is_cut = false;
        }
        if self.draws.below(2) == 0 {
            self.close(&id);
        }
    }
}
