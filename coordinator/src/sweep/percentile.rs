//! The median rule and its relatives: a trial whose best result so far is worse than a percentile of
//! what the others had at the same rung stops.
//!
//! Golovin et al. 2017, "Google Vizier", section 3.2, with the best result of the trial and the
//! others' results at the rung, as Optuna's `PercentilePruner` compares them.

use muster_common::manifest::PercentileSettings;
use muster_common::objective::{Mode, Objective};

use super::Verdict;

/// What becomes of a trial: `own` are its results at the rungs so far, `others` the results of other
/// trials at its last one.
pub fn verdict(
    settings: &PercentileSettings,
    objective: Objective,
    own: &[f64],
    others: &[f64],
) -> Verdict {
    let name = objective.metric.name();
    let finite = |values: &[f64]| -> Vec<f64> {
        values.iter().copied().filter(|value| value.is_finite()).collect()
    };
    let mut compared = finite(others);
    let mut own = finite(own);
    own.sort_by(|a, b| objective.standing(*a, *b));
    let Some(best) = own.first() else {
        return Verdict::Stop(format!("{name} is no finite number"));
    };
    if others.len() < settings.startup_trials as usize {
        return Verdict::GoOn(format!(
            "{} other results at this rung, compared from {} on",
            others.len(),
            settings.startup_trials
        ));
    }
    compared.sort_by(f64::total_cmp);
    let share = match objective.mode {
        Mode::Max => 1.0 - settings.percentile / 100.0,
        Mode::Min => settings.percentile / 100.0,
    };
    let Some(threshold) = quantile(&compared, share) else {
        return Verdict::GoOn(format!("none of {} other results is finite", others.len()));
    };
    let is_worse = match objective.mode {
        Mode::Max => *best < threshold,
        Mode::Min => *best > threshold,
    };
    let rule = match settings.percentile {
        percentile if (percentile - 50.0).abs() < 1e-12 => "median".to_owned(),
        percentile => format!("bound of the best {percentile} %"),
    };
    let word = if is_worse { "worse than" } else { "not worse than" };
    let text = format!(
        "best {name} {best:.4} is {word} {threshold:.4}, the {rule} of {} other results at this rung",
        compared.len()
    );
    Verdict::of(!is_worse, text)
}

/// Linear interpolation between the two nearest of sorted values, as numpy does it.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * (sorted.len().checked_sub(1)? as f64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among the values"
    )]
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    let (below, above) = (sorted.get(below)?, sorted.get(above)?);
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Budget;
    use muster_common::objective::ObjectiveMetric;

    fn goes_on(mode: Mode, percentile: f64, own: &[f64], others: &[f64]) -> bool {
        let (every, min_budget) = (Budget::Steps(1), Budget::Steps(1));
        let settings = PercentileSettings { percentile, every, min_budget, startup_trials: 3 };
        let objective = Objective { metric: ObjectiveMetric::Loss, mode };
        matches!(verdict(&settings, objective, own, others), Verdict::GoOn(_))
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [0, 25, 50, 90, 100])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (percent, expected) in
            [(0.0, 1.0), (25.0, 1.75), (50.0, 3.0), (90.0, 6.8), (100.0, 8.0)]
        {
            let found = quantile(&sorted, percent / 100.0).unwrap();
            assert!((found - expected).abs() < 1e-12, "{percent}: {found}");
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_worse_half_stops_by_its_best_result() {
        let others = [0.1, 0.2, 0.3, 0.4];
        assert!(goes_on(Mode::Min, 50.0, &[0.25], &others));
        assert!(!goes_on(Mode::Min, 50.0, &[0.26], &others));
        // It was better once: the rung's own result does not decide alone.
        assert!(goes_on(Mode::Min, 50.0, &[0.2, 0.9], &others));
        assert!(goes_on(Mode::Max, 50.0, &[0.25], &others));
        assert!(!goes_on(Mode::Max, 50.0, &[0.24], &others));
        assert!(!goes_on(Mode::Max, 25.0, &[0.31], &others));
        assert!(goes_on(Mode::Max, 75.0, &[0.18], &others));
    }

    #[test]
    fn few_results_stop_nobody_and_what_diverged_stops_always() {
        assert!(goes_on(Mode::Min, 50.0, &[9.0], &[0.1, 0.2]));
        assert!(!goes_on(Mode::Min, 50.0, &[f64::NAN], &[]));
        assert!(goes_on(Mode::Min, 50.0, &[9.0], &[f64::NAN; 3]));
    }
}
