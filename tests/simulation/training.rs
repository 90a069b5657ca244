//! What runs do: each is a script of what it will say, drawn when a worker takes it on.

use std::collections::VecDeque;

use muster_common::evaluation::Evaluation;
use muster_common::id::{Generation, WorkerId};
use muster_common::run::{DataSummary, FailureClass, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::seed::Seed;
use muster_common::storage::CheckpointKey;

use super::Simulation;
use super::chance::Chance;

impl Simulation {
    /// Lets some run say the next thing. A checkpoint is in the store before it is spoken of.
    pub(super) fn speak(&mut self) -> bool {
        let Some(id) = self.pick_process(|process| process.job.is_some()) else { return false };
        let fails = self.happens(Chance::WriteFails);
        let Some(process) = self.processes.get_mut(&id) else { return false };
        if let Some(job) = process.job.as_mut().filter(|_| fails)
            && matches!(job.script.front(), Some(RunReport::CheckpointCommitted { .. }))
        {
            let exit = failure("no room left in the store", FailureClass::DiskFull);
            job.script = [RunReport::Ended { exit }].into();
            self.see("checkpoint not written");
            return true;
        }
        if let Some(RunReport::CheckpointCommitted { checkpoint }) = process.speak() {
            self.store.harmed.remove(&checkpoint);
            self.store.checkpoints.insert(checkpoint);
        }
        true
    }

    /// What a rank of a run will say.
    pub(super) fn script(&mut self, worker: &WorkerId, spec: &RunSpec) -> VecDeque<RunReport> {
        let rank = spec.gang.as_ref().map_or(0, |gang| gang.rank);
        if rank > 0 {
            assert!(spec.gang.as_ref().unwrap().rendezvous.is_some(), "called to nowhere");
            let exit = self.exit(&mut VecDeque::new());
            return VecDeque::from([RunReport::Ended { exit }]);
        }
        self.note_size(spec);
        // One that is told late of a run that is over, or on its way out, may find nothing any more.
        let run = self.live.runs().get(&spec.generation);
        let is_wanted = run.is_some_and(|run| run.directive.is_none());
        let is_current = is_wanted && self.live.spec(spec.generation, worker).is_some();
        let mut script = match &spec.task {
            Task::Prepare { .. } => VecDeque::from([RunReport::Prepared(data())]),
            Task::Train(task) => match self.resume_step(task, is_current) {
                Ok(from) => training(task, from, spec.generation),
                Err(exit) => return VecDeque::from([RunReport::Ended { exit }]),
            },
            Task::Finish { checkpoint, .. } => {
                let is_there = self.store.checkpoints.contains(checkpoint);
                assert!(is_there || !is_current, "{checkpoint} is to be exported and is not there");
                if self.store.harmed.contains(checkpoint) {
                    let exit = failure("the checkpoint is damaged", FailureClass::BadData);
                    return VecDeque::from([RunReport::Ended { exit }]);
                }
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
        script
    }

    /// The step at which a run goes on: that of the newest checkpoint that has not come to harm.
    fn resume_step(&mut self, task: &TrainTask, is_current: bool) -> Result<u64, RunExit> {
        let Some(newest) = &task.resume_from else { return Ok(0) };
        assert!(newest.step <= task.target_step, "{} trains backwards", task.trial);
        let is_there = self.store.checkpoints.contains(newest);
        assert!(is_there || !is_current, "{} is resumed from a ghost", task.trial);
        // Those that stand in for it may have gone since it was assigned.
        for checkpoint in [newest].into_iter().chain(&task.earlier) {
            let is_there = self.store.checkpoints.contains(checkpoint);
            if is_there && !self.store.harmed.contains(checkpoint) {
                return Ok(checkpoint.step);
            }
            self.see("checkpoint of no use");
        }
        Err(failure("the checkpoint is damaged", FailureClass::BadData))
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
}

/// What a run says that trains from a step to the next rung.
fn training(task: &TrainTask, from: u64, generation: Generation) -> VecDeque<RunReport> {
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
    let evaluation = Evaluation { loss: seed.draws().unit(), confusion, ..Evaluation::default() };
    script.push_back(if gives_up {
        RunReport::EarlyStopped { step: end, best_step: end / 2, evaluation }
    } else {
        RunReport::Evaluated { step: end, evaluation }
    });
    script
}

fn failure(message: &str, class: FailureClass) -> RunExit {
    RunExit::Failed { message: message.to_owned(), permanent: false, class }
}

fn data() -> DataSummary {
    DataSummary {
        cache: "c".to_owned(),
        num_train: 1000,
        labels: vec!["a".to_owned(), "b".to_owned()],
        ..DataSummary::default()
    }
}
