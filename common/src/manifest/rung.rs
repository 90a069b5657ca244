//! The ladder of budgets at which trials are compared.

use super::{Budget, PrunerSettings};
use crate::elementary::power;

/// Budgets of the rungs, lowest first; the last is the whole budget `R`. With minimum `r` and
/// reduction factor `eta` these are `r * eta^k` below `R` for ASHA, `R * eta^-k` down to `r` for
/// Hyperband, and equal distances for the others.
pub fn ladder(full: Budget, pruner: &PrunerSettings) -> Vec<Budget> {
    let mut amounts = Vec::new();
    match pruner {
        PrunerSettings::None => {}
        PrunerSettings::Asha(asha) | PrunerSettings::AshaStopping(asha) => {
            let mut amount = asha.min_budget.amount();
            while amount < full.amount() {
                amounts.push(amount);
                amount *= f64::from(asha.reduction_factor);
            }
        }
        PrunerSettings::Hyperband(halving) => {
            let factor = f64::from(halving.reduction_factor);
            amounts.extend((1..=halving.num_halvings(full)).rev().map(|k| {
                let exponent = u32::try_from(k).unwrap_or(u32::MAX);
                // Never below the minimum, whatever the division gave.
                (full.amount() / power(factor, exponent)).max(halving.min_budget.amount())
            }));
        }
        PrunerSettings::Percentile(_)
        | PrunerSettings::Patience(_)
        | PrunerSettings::Population(_) => {
            if let Some((first, every)) = pruner.steady() {
                let at = |k: u32| first.amount() + f64::from(k) * every.amount();
                amounts.extend((0..).map(at).take_while(|amount| *amount < full.amount()));
            }
        }
    }
    let rungs = amounts.into_iter().map(|amount| full.with_amount(amount));
    rungs.chain([full]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{HalvingSettings, PatienceSettings, PercentileSettings};

    fn halving(reduction_factor: u32, min_budget: Budget) -> HalvingSettings {
        HalvingSettings { reduction_factor, min_budget }
    }

    fn asha(reduction_factor: u32, min_budget: Budget) -> PrunerSettings {
        PrunerSettings::Asha(halving(reduction_factor, min_budget))
    }

    fn steps(n: &[u64]) -> Vec<Budget> {
        n.iter().map(|n| Budget::Steps(*n)).collect()
    }

    #[test]
    fn rungs_are_powers_below_the_budget_and_the_budget() {
        let pruner = asha(2, Budget::Steps(40));
        assert_eq!(ladder(Budget::Steps(320), &pruner), steps(&[40, 80, 160, 320]));
        assert_eq!(ladder(Budget::Steps(300), &pruner), steps(&[40, 80, 160, 300]));
        assert_eq!(ladder(Budget::Steps(300), &PrunerSettings::None), steps(&[300]));
        // The example of the paper, table 1: r = 1, R = 9, eta = 3.
        assert_eq!(ladder(Budget::Steps(9), &asha(3, Budget::Steps(1))), steps(&[1, 3, 9]));
    }

    #[test]
    fn rungs_of_hyperband_are_counted_from_the_whole_budget() {
        let pruner = |min| PrunerSettings::Hyperband(halving(3, Budget::Steps(min)));
        assert_eq!(ladder(Budget::Steps(81), &pruner(1)), steps(&[1, 3, 9, 27, 81]));
        // 100 / 81 = 1.2, 3.7, 11.1, 33.3: whole steps, rounded up.
        assert_eq!(ladder(Budget::Steps(100), &pruner(1)), steps(&[2, 4, 12, 34, 100]));
        assert_eq!(ladder(Budget::Steps(100), &pruner(20)), steps(&[34, 100]));
    }

    #[test]
    fn rungs_at_equal_distances_begin_with_the_first() {
        let (every, min_budget) = (Budget::Steps(30), Budget::Steps(40));
        let settings =
            PercentileSettings { percentile: 50.0, every, min_budget, startup_trials: 5 };
        let percentile = PrunerSettings::Percentile(settings);
        assert_eq!(ladder(Budget::Steps(100), &percentile), steps(&[40, 70, 100]));
        let patience =
            PrunerSettings::Patience(PatienceSettings { patience: 2, min_change: 0.0, every });
        assert_eq!(ladder(Budget::Steps(100), &patience), steps(&[30, 60, 90, 100]));
    }
}
