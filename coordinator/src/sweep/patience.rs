//! A trial that does not get better any more stops.

use muster_common::manifest::PatienceSettings;
use muster_common::objective::{Mode, Objective};

use super::Verdict;

/// What becomes of a trial with these results at its rungs, oldest first.
pub fn verdict(settings: &PatienceSettings, objective: Objective, values: &[f64]) -> Verdict {
    let (mut best, mut best_rung) = (f64::NAN, 0);
    for (rung, value) in (1..).zip(values) {
        let gain = match objective.mode {
            Mode::Max => value - best,
            Mode::Min => best - value,
        };
        if value.is_finite() && (best.is_nan() || gain > settings.min_change) {
            (best, best_rung) = (*value, rung);
        }
    }
    let waited = values.len() - best_rung;
    let name = objective.metric.name();
    let text = if best_rung == 0 {
        format!("no finite {name} at {waited} rungs, {} are allowed", settings.patience)
    } else {
        format!(
            "best {name} {best:.4} at rung {best_rung}, {waited} rungs ago; {} without an improvement end a trial",
            settings.patience
        )
    };
    Verdict::of(waited < settings.patience as usize, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Budget;
    use muster_common::objective::ObjectiveMetric;

    const ACCURACY: Objective = Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max };
    const LOSS: Objective = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };

    fn goes_on(objective: Objective, min_change: f64, values: &[f64]) -> bool {
        let settings = PatienceSettings { patience: 2, min_change, every: Budget::Steps(1) };
        matches!(verdict(&settings, objective, values), Verdict::GoOn(_))
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
