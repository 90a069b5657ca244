//! Which hyperparameters make the trials of an experiment differ. What is compared is taken from the engine; the
//! forest grows where nobody waits for it.

use muster_common::manifest::{Assignment, SearchSpace};
use muster_common::objective::ObjectiveMetric;
use muster_common::seed::Seed;

use crate::engine::experiment::Experiment;
use crate::sweep::importance::{Share, importance};

/// What people see of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportanceView {
    /// The metric whose differences are explained: the first objective.
    pub metric: ObjectiveMetric,
    /// The rung whose results are compared, for people; empty when there are none.
    pub rung: String,
    /// How many results these are.
    pub num_results: u32,
    /// The largest first; empty when nothing can be said.
    pub shares: Vec<Share>,
}

/// Results that can be compared: all of one rung.
#[derive(Debug, Clone)]
pub struct Observed {
    metric: ObjectiveMetric,
    rung: String,
    space: SearchSpace,
    seed: Seed,
    observations: Vec<(Assignment, f64)>,
}

impl Observed {
    /// Takes the rung with the most results; of several the highest. Results of different rungs differ in their
    /// budgets too, and those of high rungs are only the good ones.
    pub fn of(experiment: &Experiment) -> Self {
        let rung = fullest_rung(experiment).map(|(rung, _)| rung);
        let taken = rung.into_iter().flat_map(|rung| results(experiment, rung));
        let observations: Vec<(Assignment, f64)> =
            taken.map(|(assignment, value)| (assignment.clone(), value)).collect();
        Self {
            metric: experiment.goal().objective.metric,
            rung: rung.map_or_else(String::new, |rung| experiment.rung_text(rung)),
            space: experiment.manifest.hyperparameters.clone(),
            seed: experiment.manifest.seed.child("importance of", 0),
            observations,
        }
    }

    /// What it would take, without taking it: the rung, as `view` names it, and how many results.
    pub fn extent(experiment: &Experiment) -> (String, usize) {
        match fullest_rung(experiment) {
            Some((rung, num_results)) => (experiment.rung_text(rung), num_results),
            None => (String::new(), 0),
        }
    }

    /// Grows the forest: milliseconds for a hundred results, a second for ten thousand.
    pub fn view(self) -> ImportanceView {
        ImportanceView {
            metric: self.metric,
            rung: self.rung,
            num_results: u32::try_from(self.observations.len()).unwrap_or(u32::MAX),
            shares: importance(&self.space, &self.observations, self.seed),
        }
    }
}

/// Hyperparameters and results of a rung, those that are numbers.
fn results(experiment: &Experiment, rung: usize) -> impl Iterator<Item = (&Assignment, f64)> {
    let metric = experiment.goal().objective.metric;
    experiment.trials.values().filter_map(move |trial| {
        let result = trial.result_at(rung)?;
        let value = result.evaluation.value(metric);
        let assignment = trial.assignment_of(&result.checkpoint);
        value.is_finite().then_some((assignment, value))
    })
}

/// The rung with the most results and how many these are, if there are any.
fn fullest_rung(experiment: &Experiment) -> Option<(usize, usize)> {
    let counts = (0..experiment.ladder.len()).map(|rung| (rung, results(experiment, rung).count()));
    counts.max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0)
}
