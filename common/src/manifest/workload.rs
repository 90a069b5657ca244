//! How much an experiment trains, as far as its manifest alone tells.

use super::rung::ladder;
use super::settings::lookup;
use super::{Assignment, Budget, HalvingSettings, Manifest, PrunerSettings, SamplerSettings};
use crate::elementary::Elementary;

/// Batch sizes that are drawn are looked at in so many places of their range.
const PLACES: u32 = 64;

impl Manifest {
    /// Training examples of all trials together, counted with repetition, on a training split of `num_train`. Where
    /// trials go up rungs, as many are expected on each as successive halving lets through; whoever is stopped by
    /// comparison, by patience or by a limit is counted to the end, and whoever continues another trial from the
    /// beginning.
    ///
    /// The same bits on every machine, so that every process of an experiment comes to the same number.
    pub fn expected_examples(&self, num_train: u64) -> f64 {
        let num_trials = self.searcher.as_ref().map_or(1, |searcher| searcher.max_trials);
        let of_one = match self.budget {
            Budget::Steps(steps) => steps as f64 * self.mean_batch(),
            Budget::Examples(examples) => examples as f64,
            Budget::Epochs(epochs) => epochs * num_train as f64,
        };
        let pruner = self.searcher.as_ref().map(|searcher| &searcher.pruner);
        let halves = pruner.and_then(|pruner| Some((pruner, pruner.halving()?)));
        let share = halves.map_or(1.0, |(pruner, halving)| {
            let rungs = ladder(self.budget, pruner);
            match pruner {
                PrunerSettings::Hyperband(_) => halving.share_in_brackets(self.budget, &rungs),
                _ => halving.share(&rungs),
            }
        });
        f64::from(num_trials) * of_one * share
    }

    /// Mean of the global batch sizes that trials can have.
    fn mean_batch(&self) -> f64 {
        const NAME: &str = "global_batch_size";
        let of = |assignment: &Assignment| {
            lookup(&self.hyperparameters, assignment, NAME).unwrap_or(1.0)
        };
        let mean = |batches: &[f64]| batches.iter().sum::<f64>() / batches.len().max(1) as f64;
        if let Some(searcher) = &self.searcher
            && let SamplerSettings::List(points) = &searcher.sampler
        {
            return mean(&points.iter().map(of).collect::<Vec<_>>());
        }
        let Some(domain) = self.hyperparameters.get(NAME) else { return of(&Assignment::new()) };
        let fraction = |place: u32| (f64::from(place) + 0.5) / f64::from(PLACES);
        let at = |place| domain.at(fraction(place), Elementary::Portable).as_f64();
        mean(&(0..PLACES).map(at).collect::<Vec<_>>())
    }
}

impl HalvingSettings {
    /// Share of the whole budget that a trial is expected to train when one in `reduction_factor` goes on from every
    /// rung; `rungs` are the budgets from the lowest to the whole.
    fn share(&self, rungs: &[Budget]) -> f64 {
        let (mut trained, mut below, mut reach) = (0.0, 0.0, 1.0);
        for rung in rungs {
            trained += (rung.amount() - below) * reach;
            below = rung.amount();
            reach /= f64::from(self.reduction_factor.max(2));
        }
        if below > 0.0 { trained / below } else { 1.0 }
    }

    /// The same for the trials of one round of Hyperband.
    fn share_in_brackets(&self, full: Budget, rungs: &[Budget]) -> f64 {
        let (mut trained, mut num_trials) = (0.0, 0.0);
        for bracket in self.brackets(full) {
            let of_bracket = bracket.num_trials.first().map_or(0.0, |num| *num as f64);
            trained += of_bracket * self.share(rungs.get(bracket.first_rung..).unwrap_or_default());
            num_trials += of_bracket;
        }
        if num_trials > 0.0 { trained / num_trials } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found} instead of {wanted}");
    }

    fn expected(rest: &str) -> f64 {
        let manifest = format!(
            "version: 1\nname: x\nmodel: {{pretrained: here}}\n\
             data: {{train: {{path: a.csv}}, validation: {{fraction: 0.1}}, text: a, label: {{column: b}}}}\n{rest}"
        );
        Manifest::parse(&manifest).unwrap().expected_examples(1000)
    }

    #[test]
    fn without_a_search_it_is_the_budget() {
        let batch = "hyperparameters: {global_batch_size: 8, learning_rate: 1e-5}\n";
        assert_near(expected(&format!("{batch}budget: {{steps: 30}}\n")), 240.0);
        assert_near(expected(&format!("{batch}budget: {{examples: 77}}\n")), 77.0);
        assert_near(expected(&format!("{batch}budget: {{epochs: 2.5}}\n")), 2500.0);
    }

    #[test]
    fn batches_of_all_trials_count() {
        let searched = "hyperparameters: {global_batch_size: {values: [8, 16]}, learning_rate: 1e-5}\n\
             budget: {steps: 10}\nsearcher: {metric: accuracy, sampler: {type: grid}}\n";
        assert_near(expected(searched), 240.0);
        let batches = "{global_batch_size: 8}, {global_batch_size: 4}, {global_batch_size: 4}";
        let listed = expected(&format!(
            "hyperparameters: {{learning_rate: 1e-5}}\nbudget: {{steps: 10}}\n\
             searcher: {{metric: accuracy, sampler: {{type: list, points: [{batches}]}}}}\n"
        ));
        assert_near(listed, 160.0);
    }

    /// 27 trials to 1 of 9, 9 to 3, 3 to the end: by hand (27 + 9 * 2 + 3 * 6) * 10 steps of the 9 * 10 each.
    #[test]
    fn halving_lets_few_through() {
        let of = |pruner: &str| {
            expected(&format!(
                "hyperparameters: {{global_batch_size: 2, learning_rate: {{min: 1e-5, max: 1e-4}}}}\n\
                 budget: {{steps: 90}}\nsearcher: {{metric: accuracy, max_trials: 27, \
                 sampler: {{type: random}}, pruner: {pruner}}}\n"
            ))
        };
        let halving = "reduction_factor: 3, min_budget: {steps: 10}";
        let by_hand = f64::from(27 + 9 * 2 + 3 * 6) * 10.0 * 2.0;
        assert_near(of(&format!("{{type: asha, {halving}}}")), by_hand);
        assert_near(of(&format!("{{type: asha_stopping, {halving}}}")), by_hand);
        assert_near(of("{type: none}"), 27.0 * 180.0);
        // Rungs of 30, 60 and, as twice that is more, 90 steps.
        let uneven = 27.0 * (30.0 + 30.0 / 2.0 + 30.0 / 4.0) * 2.0;
        let found = of("{type: asha, reduction_factor: 2, min_budget: {steps: 30}}");
        assert_near(found, uneven);
        // Brackets of 9, 5 and 3 trials, which train 7/27, 5/9 and all of the budget.
        let share = (9.0 * (1.0 + 4.0 / 3.0) / 9.0 + 5.0 * (1.0 + 2.0 / 3.0) / 3.0 + 3.0) / 17.0;
        let found = of(&format!("{{type: hyperband, {halving}}}"));
        assert_near(found, 27.0 * 180.0 * share);
    }
}
