//! The engine with one slot whose trials are scored instead of trained: what a search costs in steps.

use muster_common::evaluation::Evaluation;
use muster_common::manifest::Manifest;
use muster_common::run::{DataSummary, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_common::time::Timestamp;
use muster_coordinator::engine::{Action, Engine, Event, RULES};

/// Examples of which a share is classified correctly, as far as a search is concerned.
const NUM_EXAMPLES: u64 = 10_000;

/// Runs a manifest (its text) to its end, or until `score` has no more results. `score` is asked at every rung,
/// with the task and the steps that all trials have been trained for by then. Gives these steps at the end.
pub(super) fn search(
    manifest: &str,
    mut score: impl FnMut(&TrainTask, u64) -> Option<Evaluation>,
) -> anyhow::Result<u64> {
    let mut engine = Engine::default();
    let mut waiting: Vec<RunSpec> = Vec::new();
    let mut apply = |event: Event, waiting: &mut Vec<RunSpec>| {
        for action in engine.apply(Timestamp(1), event) {
            if let Action::StartRun { spec, .. } = action {
                waiting.push(*spec);
            }
        }
    };
    apply(Event::RulesAdopted { rules: RULES }, &mut waiting);
    let host = "h".to_owned();
    apply(Event::WorkerJoined { worker: "w1".parse()?, host, token_name: None }, &mut waiting);
    let submitted = Event::ExperimentSubmitted {
        manifest: Box::new(Manifest::parse(manifest)?),
        text: manifest.to_owned(),
        store: "file:///s".to_owned(),
        owner: None,
        base: None,
    };
    apply(submitted, &mut waiting);
    let mut num_steps = 0;
    while let Some(spec) = waiting.pop() {
        let generation = spec.generation;
        let mut reports = match &spec.task {
            Task::Prepare { .. } => {
                let data = DataSummary { num_train: 12_000, ..DataSummary::default() };
                vec![RunReport::Prepared(data)]
            }
            Task::Train(task) => {
                let (trial, step) = (task.trial.clone(), task.target_step);
                num_steps += step - task.resume_from.as_ref().map_or(0, |from| from.step);
                let Some(evaluation) = score(task, num_steps) else { break };
                let checkpoint = CheckpointKey { trial, step, generation };
                vec![
                    RunReport::CheckpointCommitted { checkpoint },
                    RunReport::Evaluated { step, evaluation },
                ]
            }
            Task::Finish { .. } => break,
        };
        reports.push(RunReport::Ended { exit: RunExit::Completed });
        for (sequence, report) in (1..).zip(reports) {
            let event = Event::RunReported { generation, rank: 0, sequence, report };
            apply(event, &mut waiting);
        }
    }
    Ok(num_steps)
}

/// A result with this loss, and this share of a split classified correctly.
pub(super) fn evaluation(loss: f64, accuracy: f64) -> Evaluation {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of ten thousand"
    )]
    let right = (accuracy * NUM_EXAMPLES as f64).round() as u64;
    let wrong = NUM_EXAMPLES.saturating_sub(right);
    Evaluation { loss, confusion: vec![vec![right, wrong], vec![0, 0]], ..Evaluation::default() }
}
