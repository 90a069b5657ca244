//! Asynchronous successive halving: with pause and promotion, and the variant that stops.
//!
//! Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: "A System for Massively
//! Parallel Hyperparameter Tuning" (`MLSys` 2020), algorithm 2. Symbols: `eta` is the reduction
//! factor, rung `k` holds every result reported at it, a trial of rung `k` is promotable when it is
//! among the best `floor(|rung k| / eta)` and has not been promoted. Higher rungs are asked first.
//!
//! The variant that stops decides when a result comes in, among the results so far: at least the best
//! goes on, so that the first trials are never stopped for want of others, and so do all that are as good as the
//! last of those that go on: early results are often all the same, and say nothing then. It never revises a
//! decision. Optuna's `SuccessiveHalvingPruner` and Ray's `ASHAScheduler` do both alike.

use std::cmp::Ordering;

use muster_common::goal::{Goal, Merit};

use super::{Verdict, front};

/// One result at one rung.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Number of the trial.
    pub trial: u32,
    /// How good it is; not finite: never promoted.
    pub merit: Merit,
    /// Waits at this rung: has not been promoted and was not ended for another reason.
    pub waits: bool,
}

/// A trial to be promoted, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promotion {
    /// Number of the trial.
    pub trial: u32,
    /// Rung it leaves, from 0.
    pub rung: usize,
    /// How good it was there.
    pub merit: Merit,
    /// Its place among the results of the rung, from 1.
    pub place: usize,
    /// Results of the rung.
    pub num_results: usize,
}

/// What becomes of results that are as good as the last that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// The older trial goes on.
    OlderFirst,
    /// All of them go on.
    GoOn,
}

/// Orders the results of one rung, best first; ties go to the older trial. For several objectives see
/// [`front`].
pub fn order(goal: &Goal, standings: &mut [Standing]) {
    if goal.is_single() {
        standings
            .sort_by(|a, b| goal.standing(&a.merit, &b.merit).then_with(|| a.trial.cmp(&b.trial)));
        return;
    }
    standings.sort_by_key(|standing| standing.trial);
    let merits: Vec<Merit> = standings.iter().map(|standing| standing.merit).collect();
    let unordered = standings.to_vec();
    for (place, index) in standings.iter_mut().zip(front::arranged(goal, &merits)) {
        *place = unordered.get(index).copied().unwrap_or(*place);
    }
}

/// The next promotion. `rungs[k]` holds the results of rung `k`; the top rung promotes nobody and
/// may be left out.
pub fn promotion(goal: &Goal, reduction_factor: u32, rungs: &[Vec<Standing>]) -> Option<Promotion> {
    rungs.iter().enumerate().rev().find_map(|(rung, standings)| {
        let mut ordered = standings.clone();
        order(goal, &mut ordered);
        let num_promotable = ordered.len() / reduction_factor.max(1) as usize;
        let found = ordered
            .iter()
            .take(num_promotable)
            .position(|standing| standing.waits && standing.merit.is_finite())?;
        let standing = ordered[found];
        Some(Promotion {
            trial: standing.trial,
            rung,
            merit: standing.merit,
            place: found + 1,
            num_results: ordered.len(),
        })
    })
}

/// What becomes of a trial whose result at a rung is among `standings`, where nobody waits.
pub fn verdict(
    goal: &Goal,
    reduction_factor: u32,
    standings: &[Standing],
    trial: u32,
    ties: Ties,
) -> Verdict {
    let mut ordered = standings.to_vec();
    order(goal, &mut ordered);
    let num_results = ordered.len();
    let num_kept = (num_results / reduction_factor.max(1) as usize).max(1);
    let Some((index, standing)) = ordered.iter().enumerate().find(|(_, s)| s.trial == trial) else {
        return Verdict::GoOn("no result here".to_owned());
    };
    let last = ordered.get(num_kept - 1).map_or(Merit::NONE, |standing| standing.merit);
    // Of several objectives a place is a matter of fronts, and equals are seldom.
    let is_tied = ties == Ties::GoOn
        && goal.is_single()
        && goal.standing(&standing.merit, &last) == Ordering::Equal;
    let equals = if is_tied && index >= num_kept { ", and so do equals" } else { "" };
    let text = format!(
        "{} is place {} of {num_results} so far, the best {num_kept} go on (down to {}){equals}",
        goal.words(&standing.merit),
        index + 1,
        Goal::numbers(&last)
    );
    Verdict::of((index < num_kept || is_tied) && standing.merit.is_finite(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::objective::{Mode, Objective, ObjectiveMetric};
    use proptest::prelude::*;

    fn accuracy() -> Goal {
        Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max }.into()
    }

    fn waiting(values: &[f64]) -> Vec<Standing> {
        let standing = |(trial, value): (u32, &f64)| {
            let merit = Merit::from(*value);
            Standing { trial, merit, waits: true }
        };
        (1..).zip(values).map(standing).collect()
    }

    #[test]
    fn one_in_eta_is_promoted_best_first() {
        let rung = waiting(&[0.1, 0.9, 0.5, 0.7, 0.3, 0.2, 0.4, 0.8, 0.6]);
        let first = promotion(&accuracy(), 3, std::slice::from_ref(&rung)).unwrap();
        assert_eq!((first.trial, first.place, first.num_results), (2, 1, 9));
        let mut rung = rung;
        for promoted in [2, 8] {
            rung[promoted - 1].waits = false;
        }
        assert_eq!(promotion(&accuracy(), 3, std::slice::from_ref(&rung)).unwrap().trial, 4);
        rung[3].waits = false;
        assert_eq!(promotion(&accuracy(), 3, &[rung]), None);
    }

    #[test]
    fn higher_rungs_go_first() {
        let low = waiting(&[0.5, 0.6, 0.7, 0.8]);
        let high = waiting(&[0.1, 0.2]);
        assert_eq!(promotion(&accuracy(), 2, &[low, high]).unwrap().rung, 1);
    }

    #[test]
    fn diverged_results_are_never_promoted_but_count() {
        let rung = waiting(&[f64::NAN, f64::NAN, f64::NAN, 0.5]);
        assert_eq!(promotion(&accuracy(), 2, std::slice::from_ref(&rung)).unwrap().trial, 4);
        let mut rung = rung;
        rung[3].waits = false;
        assert_eq!(promotion(&accuracy(), 2, &[rung]), None);
    }

    #[test]
    fn those_that_come_later_are_held_to_more() {
        let goes_on = |values: &[f64]| {
            let rung = waiting(values);
            let last = u32::try_from(values.len()).unwrap();
            matches!(verdict(&accuracy(), 3, &rung, last, Ties::GoOn), Verdict::GoOn(_))
        };
        assert!(goes_on(&[0.5]));
        assert!(!goes_on(&[0.5, 0.4]));
        assert!(goes_on(&[0.5, 0.4, 0.6]));
        // Two of six go on.
        assert!(goes_on(&[0.1, 0.2, 0.3, 0.9, 0.4, 0.5]));
        assert!(!goes_on(&[0.1, 0.2, 0.6, 0.9, 0.4, 0.5]));
        assert!(!goes_on(&[f64::NAN]));
        assert!(!goes_on(&[f64::NAN, f64::NAN]));
    }

    #[test]
    fn equals_go_on_together_since_the_third_rules() {
        let goes_on = |values: &[f64], ties| {
            let rung = waiting(values);
            let last = u32::try_from(values.len()).unwrap();
            matches!(verdict(&accuracy(), 2, &rung, last, ties), Verdict::GoOn(_))
        };
        for values in [&[0.5, 0.5][..], &[0.5, 0.5, 0.5], &[0.6, 0.5, 0.4, 0.5]] {
            assert!(goes_on(values, Ties::GoOn), "{values:?}");
            assert!(!goes_on(values, Ties::OlderFirst), "{values:?}");
        }
        assert!(!goes_on(&[0.6, 0.5, 0.5], Ties::GoOn));
    }

    proptest! {
        #[test]
        fn never_more_than_one_in_eta_leaves_a_rung(
            values in proptest::collection::vec(0.0f64..1.0, 0..40),
            eta in 2u32..5,
        ) {
            let mut rung = waiting(&values);
            let mut num_promoted = 0;
            while let Some(next) = promotion(&accuracy(), eta, std::slice::from_ref(&rung)) {
                let better = values.iter().filter(|value| **value > next.merit.first()).count();
                prop_assert!(better < values.len() / eta as usize);
                rung[next.trial as usize - 1].waits = false;
                num_promoted += 1;
            }
            prop_assert_eq!(num_promoted, values.len() / eta as usize);
        }
    }
}
