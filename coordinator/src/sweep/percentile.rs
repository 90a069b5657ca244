//! The median rule and its relatives: a trial whose best result so far is worse than a percentile of
//! what the others had at the same rung stops.
//!
//! Golovin et al. 2017, "Google Vizier", section 3.2, with the best result of the trial and the
//! others' results at the rung, as Optuna's `PercentilePruner` compares them.

use muster_common::goal::{Goal, Merit};
use muster_common::manifest::PercentileSettings;
use muster_common::objective::{Mode, Objective};

use super::{Verdict, front};

/// What becomes of a trial: `own` are its results at the rungs so far, `others` the results of other
/// trials at its last one. Values of one objective are compared with a percentile of them; where
/// constraints or several objectives count too, there is nothing between two results, and those that
/// stand before its best one are counted.
pub fn verdict(
    settings: &PercentileSettings,
    goal: &Goal,
    own: &[Merit],
    others: &[Merit],
) -> Verdict {
    let finite = |merits: &[Merit]| -> Vec<Merit> {
        merits.iter().copied().filter(Merit::is_finite).collect()
    };
    let (own, compared) = (finite(own), finite(others));
    if own.is_empty() {
        return Verdict::Stop(format!("{} is no finite number", goal.names()));
    }
    if others.len() < settings.startup_trials as usize {
        return Verdict::GoOn(format!(
            "{} other results at this rung, compared from {} on",
            others.len(),
            settings.startup_trials
        ));
    }
    if compared.is_empty() {
        return Verdict::GoOn(format!("none of {} other results is finite", others.len()));
    }
    if goal.is_single() && goal.constraints.is_empty() {
        let first = |merits: &[Merit]| merits.iter().map(Merit::first).collect();
        by_value(settings, goal.objective, first(&own), first(&compared))
    } else {
        by_place(settings, goal, own, &compared)
    }
}

fn by_value(
    settings: &PercentileSettings,
    objective: Objective,
    mut own: Vec<f64>,
    mut compared: Vec<f64>,
) -> Verdict {
    let name = objective.metric.name();
    own.sort_by(|a, b| objective.standing(*a, *b));
    let best = own.first().copied().unwrap_or(f64::NAN);
    compared.sort_by(f64::total_cmp);
    let share = match objective.mode {
        Mode::Max => 1.0 - settings.percentile / 100.0,
        Mode::Min => settings.percentile / 100.0,
    };
    let threshold = quantile(&compared, share).unwrap_or(f64::NAN);
    let is_worse = match objective.mode {
        Mode::Max => best < threshold,
        Mode::Min => best > threshold,
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

fn by_place(
    settings: &PercentileSettings,
    goal: &Goal,
    own: Vec<Merit>,
    compared: &[Merit],
) -> Verdict {
    // Of equals its own stand first.
    let num_own = own.len();
    let all: Vec<Merit> = own.into_iter().chain(compared.iter().copied()).collect();
    let places = front::arranged(goal, &all);
    let num_ahead = places.iter().take_while(|index| **index >= num_own).count();
    let best = places.get(num_ahead).and_then(|index| all.get(*index)).unwrap_or(&Merit::NONE);
    let allowed = settings.percentile / 100.0 * compared.len() as f64;
    let text = format!(
        "best {} has {num_ahead} of {} other results at this rung before it, {} % of them may be",
        goal.words(best),
        compared.len(),
        settings.percentile
    );
    Verdict::of(num_ahead as f64 <= allowed, text)
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
    use muster_common::goal::Constraint;
    use muster_common::manifest::Budget;
    use muster_common::objective::ObjectiveMetric;

    fn goes_on(mode: Mode, percentile: f64, own: &[f64], others: &[f64]) -> bool {
        let (every, min_budget) = (Budget::Steps(1), Budget::Steps(1));
        let settings = PercentileSettings { percentile, every, min_budget, startup_trials: 3 };
        let objective = Objective { metric: ObjectiveMetric::Loss, mode };
        let merits = |values: &[f64]| values.iter().copied().map(Merit::from).collect::<Vec<_>>();
        let found = verdict(&settings, &objective.into(), &merits(own), &merits(others));
        matches!(found, Verdict::GoOn(_))
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
    fn where_constraints_count_so_do_places() {
        let (every, min_budget) = (Budget::Steps(1), Budget::Steps(1));
        let settings =
            PercentileSettings { percentile: 50.0, every, min_budget, startup_trials: 3 };
        let bound = Constraint { metric: ObjectiveMetric::Mcc, min: Some(0.5), max: None };
        let loss = Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min };
        let goal = Goal { constraints: vec![bound], ..loss.into() };
        let merit = |value: f64, violation| Merit::new([value], violation);
        let own = [merit(0.0, 0.9), merit(0.0, 0.5)];
        let others = [merit(5.0, 0.0), merit(6.0, 0.0), merit(0.0, 0.7), merit(0.0, 0.5)];
        assert_eq!(
            verdict(&settings, &goal, &own, &others),
            Verdict::GoOn(
                "best loss 0.0000, constraints broken by 0.5000 has 2 of 4 other results at this rung \
                 before it, 50 % of them may be"
                    .to_owned()
            )
        );
        let others = [merit(5.0, 0.0), merit(6.0, 0.0), merit(7.0, 0.0), merit(0.0, 0.5)];
        assert!(matches!(verdict(&settings, &goal, &own, &others), Verdict::Stop(_)));
        // Without constraints the same values are compared as ever.
        let kept = [merit(5.0, 0.0), merit(6.0, 0.0), merit(0.0, 0.0)];
        assert!(matches!(
            verdict(&settings, &loss.into(), &[merit(5.1, 0.0)], &kept),
            Verdict::Stop(_)
        ));
    }

    #[test]
    fn few_results_stop_nobody_and_what_diverged_stops_always() {
        assert!(goes_on(Mode::Min, 50.0, &[9.0], &[0.1, 0.2]));
        assert!(!goes_on(Mode::Min, 50.0, &[f64::NAN], &[]));
        assert!(goes_on(Mode::Min, 50.0, &[9.0], &[f64::NAN; 3]));
    }
}
