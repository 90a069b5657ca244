//! What the simulations went through, and whether that is enough to say something.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::mpsc;

use muster_coordinator::engine::experiment::{ExperimentEnd, Phase};
use muster_coordinator::engine::trial::{StopReason, TrialState};

use super::Simulation;

/// The first line of what a simulation that fails says.
pub(super) fn cause(panic: Box<dyn Any + Send>) -> String {
    let text = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or_default().to_owned(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// Says what the simulations went through, or which is the first that fails.
pub(super) fn count(
    outcomes: mpsc::Receiver<(u64, Result<Simulation, String>)>,
    ends: &mut BTreeMap<&'static str, u32>,
) {
    let mut failures: BTreeMap<u64, String> = BTreeMap::new();
    for (seed, outcome) in outcomes {
        let simulation = match outcome {
            Ok(simulation) => simulation,
            Err(cause) => {
                failures.insert(seed, cause);
                continue;
            }
        };
        for (what, count) in &simulation.seen {
            *ends.entry(what).or_default() += count;
        }
        for experiment in simulation.live.experiments() {
            let said = |words: &str| experiment.decisions.iter().any(|d| d.text.contains(words));
            *ends.entry("host set aside").or_default() += u32::from(said("is set aside"));
            *ends.entry("gang waited").or_default() += u32::from(said("kept for it"));
            *ends.entry("slots lent").or_default() += u32::from(said("borrows slots"));
            *ends.entry("slots given back").or_default() += u32::from(said("gives back"));
            *ends.entry("priority took slots").or_default() += u32::from(said("leaves its slots"));
            *ends.entry("limit reached").or_default() += u32::from(said("limits."));
            *ends.entry("checkpoint taken over").or_default() += u32::from(said("exploits t"));
            *ends.entry("constraint broken").or_default() += u32::from(said("constraints broken"));
            *ends.entry("nothing kept all").or_default() += u32::from(said("no result keeps all"));
            *ends.entry("front").or_default() += u32::from(experiment.front().len() > 1);
            *ends.entry("trial paused").or_default() += u32::from(said("paused by a user"));
            *ends.entry("preempted in vain").or_default() += u32::from(said("and in vain"));
            let end = match &experiment.phase {
                Phase::Ended { end: ExperimentEnd::Completed } => "completed",
                Phase::Ended { end: ExperimentEnd::Canceled } => "canceled",
                Phase::Ended { end: ExperimentEnd::Failed { .. } } => "failed",
                _ => "open",
            };
            *ends.entry(end).or_default() += 1;
            for trial in experiment.trials.values() {
                let state = match &trial.state {
                    TrialState::Stopped { reason: StopReason::NoImprovement { .. } } => {
                        "trial gave up"
                    }
                    TrialState::Stopped { reason: StopReason::Rule { .. } } => "trial ruled out",
                    TrialState::Stopped { reason: StopReason::TargetReached { .. } } => {
                        "target reached"
                    }
                    TrialState::Stopped { .. } => "trial stopped",
                    TrialState::Failed { .. } => "trial failed",
                    _ => "trial other",
                };
                *ends.entry(state).or_default() += 1;
            }
        }
    }
    if let Some((seed, cause)) = failures.first_key_value() {
        panic!("seed {seed} fails: {cause}; MUSTER_SEED={seed} runs it alone");
    }
}

/// A simulation that never gets anywhere would prove nothing.
pub(super) fn is_telling(ends: &BTreeMap<&str, u32>) {
    let named = ["completed", "canceled", "failed", "killed at every position"];
    let trials =
        ["trial stopped", "trial gave up", "trial failed", "trial ruled out", "target reached"];
    let gangs = ["gang", "gang waited", "gang grew", "gang shrank"];
    let shares = ["slots lent", "slots given back", "priority took slots"];
    let goals = ["constraint broken", "nothing kept all", "front"];
    let others = [
        "host set aside",
        "limit reached",
        "preempted in vain",
        "trial paused",
        "checkpoint taken over",
        "promoted",
        "drained",
    ];
    let samplers = ["random", "grid", "sobol", "tpe", "list", "bohb", "gp", "cmaes"];
    let pruners =
        ["none", "asha", "asha_stopping", "hyperband", "percentile", "patience", "population"];
    let network = [
        "message twice",
        "overtaken",
        "gap",
        "late report",
        "report of a run that is over",
        "reports said again",
        "partition",
        "back under its name",
        "another process under a name",
        "run abandoned",
    ];
    let disk = ["crash", "events lost", "actions lost", "disk stalled", "clock set back"];
    let store = [
        "checkpoint not written",
        "checkpoint not deleted",
        "manifest not stored",
        "checkpoint of no use",
    ];
    let all = named.into_iter().chain(trials).chain(gangs).chain(shares).chain(goals);
    let all = all.chain(others).chain(samplers).chain(pruners);
    for name in all.chain(network).chain(disk).chain(store) {
        assert!(ends.get(name).is_some_and(|count| *count > 10), "{name} is hardly seen: {ends:?}");
    }
    assert!(!ends.contains_key("open"), "{ends:?}");
}
