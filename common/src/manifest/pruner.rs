//! How trials are stopped early: the `pruner` of a searcher, its settings, and the brackets of
//! Hyperband, which say how many trials there are.

use serde::{Deserialize, Serialize};

use super::Manifest;
use super::budget::Budget;
use super::population::{PopulationSettings, read_population};
use super::reader::{Field, Section};
use super::searcher::SearcherSettings;
use super::section::{optional, optional_or, read_budget};
use super::training::number_within;
use super::validate::{Rules, domain_bounds};

/// Most rungs of a pruner that compares at equal distances: each is a checkpoint.
const RUNGS_MAX: f64 = 1000.0;
/// Fractions of epochs are not exact: three times 0.1 is a little more than 0.3.
const SLACK: f64 = 1.0 + 1e-9;

/// How trials are stopped early.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrunerSettings {
    /// Every trial uses its whole budget.
    None,
    /// Asynchronous successive halving with pause and promotion (Li et al. 2020, "A System for
    /// Massively Parallel Hyperparameter Tuning", algorithm 2).
    Asha(HalvingSettings),
    /// Asynchronous successive halving that decides at once: a trial goes on or stops for good.
    AshaStopping(HalvingSettings),
    /// Brackets of successive halving (Li, Jamieson, `DeSalvo`, Rostamizadeh, Talwalkar 2018,
    /// "Hyperband", algorithm 1).
    Hyperband(HalvingSettings),
    /// A trial stops when its best result is worse than a percentile of the others' results.
    Percentile(PercentileSettings),
    /// A trial stops when it does not get better any more.
    Patience(PatienceSettings),
    /// Nobody stops: the worst go on from checkpoints of the best, with other hyperparameters.
    Population(PopulationSettings),
}

/// Rungs whose budgets grow by a factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HalvingSettings {
    /// One in so many continues; the papers' eta.
    pub reduction_factor: u32,
    /// Budget of the lowest rung; the papers' r. For Hyperband the least that it may be.
    pub min_budget: Budget,
}

/// Comparison with other trials at rungs of equal distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PercentileSettings {
    /// So many of a hundred results are good enough; 50: the better half.
    pub percentile: f64,
    /// From one comparison to the next.
    pub every: Budget,
    /// The first comparison.
    pub min_budget: Budget,
    /// Results of other trials at the rung before anyone is stopped there.
    pub startup_trials: u32,
}

/// Comparison of a trial with itself at rungs of equal distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatienceSettings {
    /// So many rungs in a row without an improvement stop a trial.
    pub patience: u32,
    /// A change that is not larger is no improvement.
    pub min_change: f64,
    /// From one comparison to the next.
    pub every: Budget,
}

/// One bracket of Hyperband: successive halving that starts at a rung of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bracket {
    /// Index of its lowest rung among those of the ladder.
    pub first_rung: usize,
    /// Trials at each of its rungs, lowest first: the paper's `n_i`.
    pub num_trials: Vec<u64>,
}

impl HalvingSettings {
    /// Most halvings between `min_budget` and `full`: the paper's `s_max`.
    pub fn num_halvings(&self, full: Budget) -> usize {
        let (factor, full) = (f64::from(self.reduction_factor.max(2)), full.amount() * SLACK);
        let mut amount = self.min_budget.amount() * factor;
        let mut num_halvings = 0;
        while amount <= full {
            amount *= factor;
            num_halvings += 1;
        }
        num_halvings
    }

    /// The brackets of one round of Hyperband, most aggressive first: of `s_max + 1` brackets,
    /// bracket `s` has `n = ceil((s_max + 1) / (s + 1) eta^s)` trials, of which
    /// `floor(n eta^-i)` reach its rung `i`.
    pub fn brackets(&self, full: Budget) -> Vec<Bracket> {
        let most = self.num_halvings(full);
        let eta = u64::from(self.reduction_factor.max(2));
        let power = |exponent: usize| {
            eta.saturating_pow(u32::try_from(exponent).unwrap_or(u32::MAX)).min(1 << 40)
        };
        let bracket = |s: usize| {
            let num = (most as u64 + 1).saturating_mul(power(s)).div_ceil(s as u64 + 1);
            let num_trials = (0..=s).map(|i| num / power(i)).collect();
            Bracket { first_rung: most - s, num_trials }
        };
        (0..=most).rev().map(bracket).collect()
    }
}

impl PrunerSettings {
    /// The name in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Asha(_) => "asha",
            Self::AshaStopping(_) => "asha_stopping",
            Self::Hyperband(_) => "hyperband",
            Self::Percentile(_) => "percentile",
            Self::Patience(_) => "patience",
            Self::Population(_) => "population",
        }
    }

    /// What those with growing rungs share.
    pub fn halving(&self) -> Option<&HalvingSettings> {
        match self {
            Self::Asha(settings) | Self::AshaStopping(settings) | Self::Hyperband(settings) => {
                Some(settings)
            }
            Self::None | Self::Percentile(_) | Self::Patience(_) | Self::Population(_) => None,
        }
    }

    /// First rung and distance of those with equal distances.
    pub fn steady(&self) -> Option<(Budget, Budget)> {
        match self {
            Self::Percentile(settings) => Some((settings.min_budget, settings.every)),
            Self::Patience(settings) => Some((settings.every, settings.every)),
            Self::Population(settings) => Some((settings.min_budget, settings.every)),
            _ => None,
        }
    }
}

/// What `type` may be.
#[derive(Clone, Copy)]
enum Kind {
    None,
    Asha,
    AshaStopping,
    Hyperband,
    Median,
    Percentile,
    Patience,
    Population,
}

pub(super) fn read_pruner(field: &Field<'_>) -> Option<PrunerSettings> {
    let section = field.section()?;
    let kind = section.require("type", "asha").and_then(|field| {
        field.choice(&[
            ("asha", Kind::Asha),
            ("asha_stopping", Kind::AshaStopping),
            ("hyperband", Kind::Hyperband),
            ("median", Kind::Median),
            ("percentile", Kind::Percentile),
            ("patience", Kind::Patience),
            ("population", Kind::Population),
            ("none", Kind::None),
        ])
    })?;
    let pruner = match kind {
        Kind::None => Some(PrunerSettings::None),
        Kind::Asha => read_halving(&section, 4).map(PrunerSettings::Asha),
        Kind::AshaStopping => read_halving(&section, 4).map(PrunerSettings::AshaStopping),
        Kind::Hyperband => read_halving(&section, 3).map(PrunerSettings::Hyperband),
        Kind::Median => read_percentile(&section, Some(50.0)),
        Kind::Percentile => read_percentile(&section, None),
        Kind::Patience => read_patience(&section),
        Kind::Population => read_population(&section),
    };
    section.finish();
    pruner
}

fn read_halving(section: &Section<'_>, factor: u32) -> Option<HalvingSettings> {
    let reduction_factor =
        optional_or(section.get("reduction_factor"), factor, |field| field.whole_u32(2, 1000));
    let min_budget =
        section.require("min_budget", "{steps: 100}").and_then(|field| read_budget(&field));
    Some(HalvingSettings { reduction_factor: reduction_factor?, min_budget: min_budget? })
}

fn read_percentile(section: &Section<'_>, known: Option<f64>) -> Option<PrunerSettings> {
    let percentile = match known {
        Some(percentile) => Some(percentile),
        None => {
            section.require("percentile", "25").and_then(|field| number_within(&field, 0.0, 100.0))
        }
    };
    let every = section.require("every", "{steps: 100}").and_then(|field| read_budget(&field));
    let min_budget = optional(section.get("min_budget"), |field| read_budget(&field).map(Some));
    let startup_trials =
        optional_or(section.get("startup_trials"), 5, |field| field.whole_u32(1, 1_000_000));
    let every = every?;
    Some(PrunerSettings::Percentile(PercentileSettings {
        percentile: percentile?,
        every,
        min_budget: min_budget?.unwrap_or(every),
        startup_trials: startup_trials?,
    }))
}

fn read_patience(section: &Section<'_>) -> Option<PrunerSettings> {
    let every = section.require("every", "{steps: 100}").and_then(|field| read_budget(&field));
    let patience = section.require("patience", "3").and_then(|field| field.whole_u32(1, 1_000_000));
    let min_change =
        optional_or(section.get("min_change"), 0.0, |field| number_within(&field, 0.0, 1e6));
    let (patience, min_change, every) = (patience?, min_change?, every?);
    Some(PrunerSettings::Patience(PatienceSettings { patience, min_change, every }))
}

impl Rules<'_> {
    pub(super) fn check_pruner(&self, manifest: &Manifest) {
        let Some(pruner) = manifest.searcher.as_ref().map(|searcher| &searcher.pruner) else {
            return;
        };
        let path = ["searcher", "pruner"];
        if let Some(halving) = pruner.halving() {
            let path = [path[0], path[1], "min_budget"];
            if !self.check_rung(manifest, &path, halving.min_budget) {
                return;
            }
            let (low, full, factor) =
                (halving.min_budget, manifest.budget, halving.reduction_factor);
            if low.amount() * f64::from(factor) > full.amount() * SLACK {
                let message = format!(
                    "{low} times reduction_factor {factor} is beyond the budget of {full}: \
                     no trial could ever be compared"
                );
                let mend = "lower min_budget or reduction_factor, or raise the budget";
                self.refuse(&path, message, mend);
            }
        }
        if let Some((first, every)) = pruner.steady() {
            let paths = [[path[0], path[1], "every"], [path[0], path[1], "min_budget"]];
            if !self.check_rung(manifest, &paths[0], every)
                || (first != every && !self.check_rung(manifest, &paths[1], first))
            {
                return;
            }
            let full = manifest.budget;
            for (path, budget) in paths.iter().zip([every, first]) {
                if budget.amount() >= full.amount() {
                    let message = format!(
                        "{budget} are not less than the budget of {full}: no trial could ever be compared"
                    );
                    self.refuse(path, message, "lower it, or raise the budget");
                    return;
                }
            }
            if full.amount() / every.amount() > RUNGS_MAX {
                let message = format!(
                    "{every} fit more than {RUNGS_MAX} times in the budget, and each is a checkpoint"
                );
                self.refuse(&paths[0], message, "raise it");
            }
        }
    }

    /// A rung's budget can be compared with the whole; whether it can.
    fn check_rung(&self, manifest: &Manifest, path: &[&str], rung: Budget) -> bool {
        let full = manifest.budget;
        if rung.unit() != full.unit() {
            let message = format!("in {}, but the budget is in {}", rung.unit(), full.unit());
            self.refuse(path, message, "use the unit of `budget`");
            return false;
        }
        let (_, batch) = domain_bounds(manifest, "global_batch_size");
        if matches!(rung, Budget::Examples(_)) && rung.amount() < batch {
            let message = format!("{rung} are less than one step of {batch}");
            self.refuse(path, message, "raise it");
        }
        true
    }

    /// A sampler that knows no number of trials takes that of one round of Hyperband.
    pub(super) fn count_brackets(&self, searcher: &mut SearcherSettings, full: Budget) {
        let PrunerSettings::Hyperband(halving) = &searcher.pruner else { return };
        if searcher.max_trials > 0 || searcher.sampler.knows_size() {
            return;
        }
        let brackets = halving.brackets(full);
        let first = |bracket: &Bracket| bracket.num_trials.first().copied().unwrap_or(0);
        let total = brackets.iter().map(first).fold(0u64, u64::saturating_add);
        match u32::try_from(total) {
            Ok(total) if total <= 1_000_000 => searcher.max_trials = total,
            _ => {
                let message = format!("one round of all brackets has {total} trials");
                let mend = "raise min_budget or write `max_trials`";
                self.refuse(&["searcher", "pruner", "min_budget"], message, mend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_those_of_the_papers_table() {
        // Li et al. 2018, table 1: R = 81, eta = 3.
        let halving = HalvingSettings { reduction_factor: 3, min_budget: Budget::Steps(1) };
        let expected: [(usize, &[u64]); 5] = [
            (0, &[81, 27, 9, 3, 1]),
            (1, &[34, 11, 3, 1]),
            (2, &[15, 5, 1]),
            (3, &[8, 2]),
            (4, &[5]),
        ];
        let bracket =
            |(first_rung, num): (usize, &[u64])| Bracket { first_rung, num_trials: num.to_vec() };
        assert_eq!(halving.brackets(Budget::Steps(81)), expected.map(bracket));
    }

    #[test]
    fn halvings_are_counted_with_fractions_of_epochs() {
        let halving = HalvingSettings { reduction_factor: 3, min_budget: Budget::Epochs(0.1) };
        assert_eq!(halving.num_halvings(Budget::Epochs(0.3)), 1);
        assert_eq!(halving.num_halvings(Budget::Epochs(0.29)), 0);
        assert_eq!(halving.num_halvings(Budget::Epochs(2.7)), 3);
        let steps = HalvingSettings { reduction_factor: 3, min_budget: Budget::Steps(1) };
        assert_eq!(steps.num_halvings(Budget::Steps(100)), 4);
    }
}
