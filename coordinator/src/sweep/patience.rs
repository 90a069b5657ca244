//! A trial that does not get better any more stops.

use std::cmp::Ordering;

use muster_common::goal::{Goal, Merit};
use muster_common::manifest::PatienceSettings;
use muster_common::objective::Mode;

use super::Verdict;

/// What becomes of a trial with these results at its rungs, oldest first. A smaller sum of violations is
/// an improvement, a larger one never is.
pub fn verdict(settings: &PatienceSettings, goal: &Goal, merits: &[Merit]) -> Verdict {
    let (mut best, mut best_rung) = (Merit::NONE, 0);
    for (rung, merit) in (1..).zip(merits) {
        let gain = match goal.objective.mode {
            Mode::Max => merit.first() - best.first(),
            Mode::Min => best.first() - merit.first(),
        };
        let is_better = match merit.violation().total_cmp(&best.violation()) {
            Ordering::Less => true,
            Ordering::Equal => gain > settings.min_change,
            Ordering::Greater => false,
        };
        if merit.is_finite() && (best_rung == 0 || is_better) {
            (best, best_rung) = (*merit, rung);
        }
    }
    let waited = merits.len() - best_rung;
    let text = if best_rung == 0 {
        let name = goal.names();
        format!("no finite {name} at {waited} rungs, {} are allowed", settings.patience)
    } else {
        format!(
            "best {} at rung {best_rung}, {waited} rungs ago; {} without an improvement end a trial",
            goal.words(&best),
            settings.patience
        )
    };
    Verdict::of(waited < settings.patience as usize, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Budget;
    use muster_common::objective::{Objective, ObjectiveMetric};

    const ACCURACY: Objective = Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max };
    const LOSS: Objective = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };

    fn goes_on(objective: Objective, min_change: f64, values: &[f64]) -> bool {
        let settings = PatienceSettings { patience: 2, min_change, every: Budget::Steps(1) };
        let merits: Vec<Merit> = values.iter().copied().map(Merit::from).collect();
        matches!(verdict(&settings, &objective.into(), &merits), Verdict::GoOn(_))
    }

    #[test]
    fn rungs_without_an_improvement_are_counted_from_the_best() {
        assert!(goes_on(ACCURACY, 0.0, &[0.5]));
        assert!(goes_on(ACCURACY, 0.0, &[0.5, 0.4]));
        assert!(!goes_on(ACCURACY, 0.0, &[0.5, 0.4, 0.5]));
        assert!(goes_on(ACCURACY, 0.0, &[0.5, 0.4, 0.51]));
        assert!(!goes_on(ACCURACY, 0.02, &[0.5, 0.4, 0.51]));
        assert!(goes_on(LOSS, 0.0, &[0.5, 0.6, 0.4]));
        assert!(!goes_on(LOSS, 0.0, &[0.5, 0.6, 0.7]));
    }

    #[test]
    fn values_that_are_no_numbers_are_no_improvement() {
        assert!(!goes_on(LOSS, 0.0, &[f64::NAN, f64::NAN]));
        assert!(goes_on(LOSS, 0.0, &[f64::NAN, 3.0, f64::INFINITY]));
    }
}
