//! What is wanted of trials: objectives, and constraints that results are to keep.
//!
//! Results are compared by the rules of Deb 2000, "An efficient constraint handling method for genetic
//! algorithms", section 3: one that keeps all constraints stands before one that does not; of two that do,
//! the better objective decides; of two that do not, the smaller sum of violations.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::elementary::Elementary;
use crate::evaluation::Evaluation;
use crate::objective::{Mode, Objective, ObjectiveMetric};

/// Objectives at most. The work of comparing volumes grows steeply with their number.
pub const OBJECTIVES_MAX: usize = 4;

/// Bounds that a metric is to keep, both included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// What is measured on the validation split.
    pub metric: ObjectiveMetric,
    /// Not less than this.
    #[serde(default)]
    pub min: Option<f64>,
    /// Not more than this.
    #[serde(default)]
    pub max: Option<f64>,
}

/// A constraint that a result does not keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breach {
    /// Which.
    pub constraint: Constraint,
    /// What was measured; not a number: nothing was.
    pub value: f64,
}

impl Constraint {
    /// How far a value lies beyond its bound, in sizes of the bound (of 1 where the bound is 0), so that
    /// metrics of different sizes can be added; 0: it keeps both. What was not measured is infinitely far.
    pub fn violation(&self, value: f64) -> f64 {
        if value.is_nan() {
            return f64::INFINITY;
        }
        let beyond = |excess: f64, bound: f64| {
            let size = if bound == 0.0 { 1.0 } else { bound.abs() };
            excess.max(0.0) / size
        };
        let below = self.min.map_or(0.0, |min| beyond(min - value, min));
        let above = self.max.map_or(0.0, |max| beyond(value - max, max));
        below.max(above)
    }

    /// For people: `loss at most 0.6`.
    pub fn words(&self) -> String {
        let name = self.metric.name();
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{name} from {min} to {max}"),
            (Some(min), None) => format!("{name} at least {min}"),
            (None, Some(max)) => format!("{name} at most {max}"),
            (None, None) => name.to_owned(),
        }
    }
}

impl Breach {
    /// For people: `loss 0.7000, wanted at most 0.6`.
    pub fn words(&self) -> String {
        let words = self.constraint.words();
        let (name, bounds) = words.split_once(' ').unwrap_or((&words, ""));
        format!("{name} {:.4}, wanted {bounds}", self.value)
    }
}

/// How good a result is: a value for each objective, and how far it breaks constraints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "SavedMerit", into = "SavedMerit")]
pub struct Merit {
    values: [f64; OBJECTIVES_MAX],
    num_values: usize,
    violation: f64,
}

/// One objective without a violation is a number, as it was before there were others.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SavedMerit {
    Plain(f64),
    Whole { values: Vec<f64>, violation: f64 },
}

impl From<SavedMerit> for Merit {
    fn from(saved: SavedMerit) -> Self {
        match saved {
            SavedMerit::Plain(value) => value.into(),
            SavedMerit::Whole { values, violation } => Self::new(values, violation),
        }
    }
}

impl From<Merit> for SavedMerit {
    fn from(merit: Merit) -> Self {
        match merit.values() {
            [value] if merit.is_feasible() => Self::Plain(*value),
            values => Self::Whole { values: values.to_vec(), violation: merit.violation },
        }
    }
}

impl From<f64> for Merit {
    /// Of one objective, all constraints kept.
    fn from(value: f64) -> Self {
        Self::new([value], 0.0)
    }
}

impl Merit {
    /// Of what was never measured: it stands last.
    pub const NONE: Self =
        Self { values: [f64::NAN; OBJECTIVES_MAX], num_values: 1, violation: 0.0 };

    /// Values of the objectives in their order, [`OBJECTIVES_MAX`] of them at most, and the sum of all
    /// violations.
    pub fn new(values: impl IntoIterator<Item = f64>, violation: f64) -> Self {
        // The sum of no violations is -0, which `total_cmp` puts before 0 and a snapshot does not keep.
        let violation = violation + 0.0;
        let mut merit = Self { values: [0.0; OBJECTIVES_MAX], num_values: 0, violation };
        for (place, value) in merit.values.iter_mut().zip(values) {
            *place = value;
            merit.num_values += 1;
        }
        merit
    }

    /// A value for each objective.
    pub fn values(&self) -> &[f64] {
        self.values.get(..self.num_values).unwrap_or(&self.values)
    }

    /// The value of the first objective.
    pub fn first(&self) -> f64 {
        self.values[0]
    }

    /// Sum of all violations, see [`Constraint::violation`]; 0: all constraints are kept.
    pub fn violation(&self) -> f64 {
        self.violation
    }

    /// Whether all constraints are kept.
    pub fn is_feasible(&self) -> bool {
        self.violation <= 0.0
    }

    /// Whether every objective has a value; else the trial has diverged.
    pub fn is_finite(&self) -> bool {
        self.values().iter().all(|value| value.is_finite())
    }
}

/// Objectives and constraints of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The objective; of several the first, which chooses the model that is exported.
    pub objective: Objective,
    /// The others, at most [`OBJECTIVES_MAX`] with the first.
    pub others: Vec<Objective>,
    /// What results are to keep.
    pub constraints: Vec<Constraint>,
    /// What values are computed with, and the proposals that follow from them.
    pub functions: Elementary,
}

impl From<Objective> for Goal {
    fn from(objective: Objective) -> Self {
        let functions = Elementary::NEWEST;
        Self { objective, others: Vec::new(), constraints: Vec::new(), functions }
    }
}

impl Goal {
    /// All objectives, the first one first.
    pub fn objectives(&self) -> impl Iterator<Item = Objective> + '_ {
        std::iter::once(self.objective).chain(self.others.iter().copied())
    }

    /// Whether there is one objective.
    pub fn is_single(&self) -> bool {
        self.others.is_empty()
    }

    /// Every metric that decides something.
    pub fn metrics(&self) -> impl Iterator<Item = ObjectiveMetric> + '_ {
        let bounded = self.constraints.iter().map(|constraint| constraint.metric);
        self.objectives().map(|objective| objective.metric).chain(bounded)
    }

    /// The value of a metric; not a number where it is not defined.
    pub fn value(&self, evaluation: &Evaluation, metric: ObjectiveMetric) -> f64 {
        evaluation.value_by(metric, self.functions)
    }

    /// How good a result is.
    pub fn merit(&self, evaluation: &Evaluation) -> Merit {
        let values = self.objectives().map(|objective| self.value(evaluation, objective.metric));
        let violations = self.constraints.iter().map(|bound| {
            let value = self.value(evaluation, bound.metric);
            bound.violation(value)
        });
        Merit::new(values, violations.sum())
    }

    /// The constraints that a result does not keep.
    pub fn breaches(&self, evaluation: &Evaluation) -> Vec<Breach> {
        let breach = |constraint: &Constraint| {
            let value = self.value(evaluation, constraint.metric);
            (constraint.violation(value) > 0.0).then_some(Breach { constraint: *constraint, value })
        };
        self.constraints.iter().filter_map(breach).collect()
    }

    /// Better first. What has diverged stands last; then the smaller sum of violations, 0 if all are
    /// kept; then the objectives, each where those before it are equal.
    pub fn standing(&self, a: &Merit, b: &Merit) -> Ordering {
        match (a.is_finite(), b.is_finite()) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => Ordering::Equal,
            (true, true) => a.violation.total_cmp(&b.violation).then_with(|| {
                let pairs = self.objectives().zip(a.values().iter().zip(b.values()));
                pairs.fold(Ordering::Equal, |sofar, (objective, (a, b))| {
                    sofar.then_with(|| objective.standing(*a, *b))
                })
            }),
        }
    }

    /// Whether nothing speaks for `b`: it has diverged or breaks constraints by more, or is better in no
    /// objective and worse in one. The constrained domination of Deb, Pratap, Agarwal, Meyarivan 2002,
    /// "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", definition 1.
    pub fn dominates(&self, a: &Merit, b: &Merit) -> bool {
        if !(a.is_finite() && b.is_finite()) {
            return a.is_finite();
        }
        if !(a.is_feasible() && b.is_feasible()) {
            return a.violation < b.violation;
        }
        let mut is_better = false;
        for (objective, (a, b)) in self.objectives().zip(a.values().iter().zip(b.values())) {
            match objective.standing(*a, *b) {
                Ordering::Less => is_better = true,
                Ordering::Equal => {}
                Ordering::Greater => return false,
            }
        }
        is_better
    }

    /// The values of the objectives turned so that smaller is better.
    pub fn costs(&self, merit: &Merit) -> Vec<f64> {
        let turned = |(objective, value): (Objective, &f64)| match objective.mode {
            Mode::Max => -value,
            Mode::Min => *value,
        };
        self.objectives().zip(merit.values()).map(turned).collect()
    }

    /// Names of the objectives, for people.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.objectives().map(|objective| objective.metric.name()).collect();
        names.join(", ")
    }

    /// A merit for people: `accuracy 0.9000, loss 0.3000, constraints broken by 0.2000`.
    pub fn words(&self, merit: &Merit) -> String {
        let named = self.objectives().zip(merit.values());
        let texts: Vec<String> = named
            .map(|(objective, value)| format!("{} {value:.4}", objective.metric.name()))
            .collect();
        texts.join(", ") + &broken(merit)
    }

    /// The same without names, for where they have been said.
    pub fn numbers(merit: &Merit) -> String {
        let texts: Vec<String> = merit.values().iter().map(|value| format!("{value:.4}")).collect();
        texts.join(", ") + &broken(merit)
    }
}

fn broken(merit: &Merit) -> String {
    if merit.is_feasible() {
        String::new()
    } else {
        format!(", constraints broken by {:.4}", merit.violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::MaskedScore;
    use proptest::prelude::*;

    fn goal(num: usize) -> Goal {
        let objective = |metric: ObjectiveMetric| Objective { metric, mode: metric.natural_mode() };
        let others = [ObjectiveMetric::Loss, ObjectiveMetric::Mcc, ObjectiveMetric::Auc];
        Goal {
            others: others.into_iter().take(num - 1).map(objective).collect(),
            ..Goal::from(objective(ObjectiveMetric::Accuracy))
        }
    }

    /// Few different values, so that ties are common.
    fn merit(num: usize) -> impl Strategy<Value = Merit> {
        let values = proptest::collection::vec(0u32..4, num);
        (values, 0u32..12).prop_map(|(values, kind)| {
            let values = values.into_iter().map(|value| match (value, kind) {
                (0, 11) => f64::NAN,
                (value, _) => f64::from(value) / 4.0,
            });
            Merit::new(values, if kind < 3 { f64::from(kind) / 2.0 } else { 0.0 })
        })
    }

    #[test]
    fn no_violations_are_as_good_as_none_and_saved_as_they_are() {
        let goal = Goal::from(Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min });
        let found = goal.merit(&Evaluation { loss: 0.5, ..Evaluation::default() });
        let saved: Merit = serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
        assert_eq!(goal.standing(&found, &saved), Ordering::Equal);
        assert_eq!(goal.standing(&found, &Merit::from(0.25)), Ordering::Greater);
        assert_eq!(goal.standing(&Merit::from(0.25), &found), Ordering::Less);
    }

    #[test]
    fn perplexity_is_computed_with_the_functions_of_the_goal() {
        let perplexity = ObjectiveMetric::Perplexity;
        let masked = MaskedScore { loss: 1.0, num_masked: 1, num_right: 0 };
        let evaluation = Evaluation { masked: Some(masked), ..Evaluation::default() };
        for functions in [Elementary::Platform, Elementary::Portable] {
            let objective = Objective { metric: perplexity, mode: Mode::Min };
            let goal = Goal { functions, ..objective.into() };
            let bits = functions.exp(1.0).to_bits();
            assert_eq!(goal.merit(&evaluation).first().to_bits(), bits);
            assert_eq!(goal.value(&evaluation, perplexity).to_bits(), bits);
        }
        assert!(evaluation.value_by(ObjectiveMetric::Loss, Elementary::Platform).abs() < 1e-12);
    }

    #[test]
    fn violations_are_in_sizes_of_their_bound() {
        let bound = |min, max| Constraint { metric: ObjectiveMetric::Loss, min, max };
        for (constraint, value, expected) in [
            (bound(None, Some(0.5)), 0.5, 0.0),
            (bound(None, Some(0.5)), 0.75, 0.5),
            (bound(None, Some(0.5)), 0.1, 0.0),
            (bound(Some(0.5), None), 0.25, 0.5),
            (bound(Some(-0.5), None), -1.0, 1.0),
            (bound(Some(0.0), None), -0.25, 0.25),
            (bound(Some(0.2), Some(0.4)), 0.3, 0.0),
            (bound(Some(0.2), Some(0.4)), 0.1, 0.5),
            (bound(Some(0.2), Some(0.4)), 0.8, 1.0),
            (bound(None, Some(0.5)), f64::NAN, f64::INFINITY),
            (bound(None, Some(0.5)), f64::INFINITY, f64::INFINITY),
        ] {
            let found = constraint.violation(value);
            let is_near = (found - expected).abs() < 1e-12 || found.total_cmp(&expected).is_eq();
            assert!(is_near, "{constraint:?} {value}: {found}");
        }
    }

    #[test]
    fn an_evaluation_gives_values_and_the_sum_of_violations() {
        let bound = |metric, min, max| Constraint { metric, min, max };
        let goal = Goal {
            constraints: vec![
                bound(ObjectiveMetric::Loss, None, Some(0.5)),
                bound(ObjectiveMetric::MacroRecall, Some(0.8), None),
                bound(ObjectiveMetric::Accuracy, Some(0.1), None),
            ],
            ..goal(1)
        };
        let confusion = vec![vec![6, 4], vec![4, 6]];
        let evaluation = Evaluation { loss: 0.6, confusion, ..Evaluation::default() };
        let merit = goal.merit(&evaluation);
        assert_eq!(merit.values(), [0.6]);
        assert!((merit.violation() - (0.2 + 0.25)).abs() < 1e-12, "{merit:?}");
        let words: Vec<String> = goal.breaches(&evaluation).iter().map(Breach::words).collect();
        assert_eq!(
            words,
            ["loss 0.6000, wanted at most 0.5", "macro_recall 0.6000, wanted at least 0.8"]
        );
        assert_eq!(goal.words(&merit), "accuracy 0.6000, constraints broken by 0.4500");
    }

    #[test]
    fn plain_merits_are_saved_as_numbers() {
        let saved = |merit: Merit| serde_json::to_string(&merit).unwrap();
        assert_eq!(saved(0.25.into()), "0.25");
        let whole = Merit::new([0.5, 2.0], 0.25);
        assert_eq!(saved(whole), r#"{"values":[0.5,2.0],"violation":0.25}"#);
        assert_eq!(serde_json::from_str::<Merit>(&saved(whole)).unwrap(), whole);
        assert_eq!(serde_json::from_str::<Merit>("0.25").unwrap(), Merit::from(0.25));
    }

    proptest! {
        #[test]
        fn one_objective_without_constraints_stands_as_it_always_did(a: f64, b: f64) {
            for mode in [Mode::Max, Mode::Min] {
                let objective = Objective { metric: ObjectiveMetric::Loss, mode };
                let found = Goal::from(objective).standing(&a.into(), &b.into());
                prop_assert_eq!(found, objective.standing(a, b));
            }
        }

        #[test]
        fn who_keeps_all_constraints_stands_before_who_does_not(
            a in merit(1), b in merit(1), c in merit(3), d in merit(3),
        ) {
            for (goal, a, b) in [(goal(1), a, b), (goal(3), c, d)] {
                if a.is_finite() && a.is_feasible() && !(b.is_finite() && b.is_feasible()) {
                    prop_assert_eq!(goal.standing(&a, &b), Ordering::Less);
                    prop_assert!(goal.dominates(&a, &b));
                }
            }
        }

        #[test]
        fn domination_is_a_strict_partial_order_that_standing_extends(
            merits in proptest::collection::vec(merit(3), 3), num in 1usize..4,
        ) {
            let goal = goal(num);
            let cut = |merit: &Merit| Merit::new(merit.values().iter().copied().take(num), merit.violation());
            let merits: Vec<Merit> = merits.iter().map(cut).collect();
            let [a, b, c] = [merits[0], merits[1], merits[2]];
            prop_assert!(!goal.dominates(&a, &a));
            prop_assert!(!(goal.dominates(&a, &b) && goal.dominates(&b, &a)));
            if goal.dominates(&a, &b) && goal.dominates(&b, &c) {
                prop_assert!(goal.dominates(&a, &c));
            }
            if goal.dominates(&a, &b) {
                prop_assert_eq!(goal.standing(&a, &b), Ordering::Less);
            }
            // Standing is a total preorder.
            prop_assert_eq!(goal.standing(&a, &b), goal.standing(&b, &a).reverse());
            if goal.standing(&a, &b).is_le() && goal.standing(&b, &c).is_le() {
                prop_assert!(goal.standing(&a, &c).is_le());
            }
        }
    }
}
