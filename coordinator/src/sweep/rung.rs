//! The ladder of budgets at which trials are compared.

use muster_common::manifest::{Budget, PrunerSettings};

/// Budgets of the rungs, lowest first; the last is the whole budget. With minimum `r`, reduction
/// factor `eta` and budget `R` these are `r * eta^k` below `R`, then `R`.
pub fn ladder(full: Budget, pruner: &PrunerSettings) -> Vec<Budget> {
    let PrunerSettings::Asha(asha) = pruner else { return vec![full] };
    let mut rungs = Vec::new();
    let mut amount = asha.min_budget.amount();
    while amount < full.amount() {
        rungs.push(full.with_amount(amount));
        amount *= f64::from(asha.reduction_factor);
    }
    rungs.push(full);
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::AshaSettings;

    fn asha(reduction_factor: u32, min_budget: Budget) -> PrunerSettings {
        PrunerSettings::Asha(AshaSettings { reduction_factor, min_budget })
    }

    #[test]
    fn rungs_are_powers_below_the_budget_and_the_budget() {
        let steps = |n: &[u64]| n.iter().map(|n| Budget::Steps(*n)).collect::<Vec<_>>();
        let pruner = asha(2, Budget::Steps(40));
        assert_eq!(ladder(Budget::Steps(320), &pruner), steps(&[40, 80, 160, 320]));
        assert_eq!(ladder(Budget::Steps(300), &pruner), steps(&[40, 80, 160, 300]));
        assert_eq!(ladder(Budget::Steps(300), &PrunerSettings::None), steps(&[300]));
        // The example of the paper, table 1: r = 1, R = 9, eta = 3.
        assert_eq!(ladder(Budget::Steps(9), &asha(3, Budget::Steps(1))), steps(&[1, 3, 9]));
    }
}
