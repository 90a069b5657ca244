//! What the checkpoints of a plan take of the store.

use std::collections::BTreeMap;

use muster_common::manifest::{Budget, Category, Manifest, WeightAverage};
use muster_common::model::{SavedParts, Shapes};

use crate::plan::{Plan, Stretch};

/// Checkpoints of one run that are looked at one by one; the others take what the last of them takes.
const LOOKED_AT_MAX: u64 = 100_000;

/// Bytes of the tensors of checkpoints, see [`SavedParts::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlannedBytes {
    /// Of the largest one.
    pub largest: u64,
    /// Of all that are written, together.
    pub written: u64,
}

/// What the checkpoints of a plan take, of trials that train these parameters on so many examples.
pub fn planned_bytes(
    manifest: &Manifest,
    num_train: u64,
    trained: &Shapes,
    plan: &Plan,
) -> PlannedBytes {
    let mut scale = Scale { manifest, num_train, trained, known: BTreeMap::new() };
    let mut planned = PlannedBytes::default();
    for (stretch, count) in &plan.stretches {
        let last = scale.bytes(stretch, stretch.to);
        let written = last.saturating_add(scale.on_the_way(stretch));
        planned.largest = planned.largest.max(last);
        planned.written = planned.written.saturating_add(written.saturating_mul(*count));
    }
    planned
}

/// Tells how large checkpoints are, and remembers it: most are alike.
struct Scale<'a> {
    manifest: &'a Manifest,
    num_train: u64,
    trained: &'a Shapes,
    /// By what is averaged, by the digits of the averaged steps, which are part of names, and by whether there are best
    /// weights.
    known: BTreeMap<(Option<Category>, Vec<u32>, bool), u64>,
}

impl Scale<'_> {
    /// Of those that a run writes before it ends.
    fn on_the_way(&mut self, stretch: &Stretch) -> u64 {
        let every = self.manifest.checkpoint.every_steps.unwrap_or(0);
        let (Some(before), Some(last)) =
            (stretch.from.checked_div(every), stretch.to.saturating_sub(1).checked_div(every))
        else {
            return 0;
        };
        let num = last.saturating_sub(before);
        let num_looked_at = num.min(LOOKED_AT_MAX);
        let mut bytes = 0u64;
        for number in 1..=num_looked_at {
            bytes = bytes.saturating_add(self.bytes(stretch, (before + number) * every));
        }
        let rest = num - num_looked_at;
        if rest == 0 {
            return bytes;
        }
        bytes.saturating_add(self.bytes(stretch, last * every).saturating_mul(rest))
    }

    /// Of the one that a run writes at a step.
    fn bytes(&mut self, stretch: &Stretch, step: u64) -> u64 {
        let training = &self.manifest.training;
        let steps = |budget: Budget| budget.steps(stretch.global_batch_size, self.num_train);
        let average = match stretch.average {
            Some(word) => training.clone().with(word).average,
            None => training.average,
        };
        let moments = match average {
            WeightAverage::Checkpoints { last, every } => averaged(step, steps(every), last.into()),
            WeightAverage::Off | WeightAverage::Ema { .. } => Vec::new(),
        };
        // Best weights are those of the first look at the validation split at least: on the way, or at a rung.
        let looked = || training.evaluate_every.is_some_and(|every| step >= steps(every));
        let has_best = training.early_stopping.is_some()
            && (stretch.from > 0 || step == stretch.to || looked());
        let digits = moments.iter().map(|moment| moment.checked_ilog10().unwrap_or(0)).collect();
        let parts = SavedParts { trained: self.trained, average };
        let key = (stretch.average, digits, has_best);
        *self.known.entry(key).or_insert_with(|| parts.bytes(&moments, has_best))
    }
}

/// The last `last` multiples of `every` up to `step`.
fn averaged(step: u64, every: u64, last: u64) -> Vec<u64> {
    let every = every.max(1);
    let newest = step / every;
    let oldest = newest.saturating_sub(last.max(1)) + 1;
    (oldest..=newest).map(|number| number * every).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Premises, plan};
    use crate::sample::manifest;

    const NUM_TRAIN: u64 = 1000;

    fn shapes() -> Shapes {
        Shapes::from([("a.weight".to_owned(), vec![30, 5]), ("b".to_owned(), vec![7])])
    }

    /// What two trials of 100 steps with a checkpoint every 25 take, by a section `training`.
    fn planned(training: &str) -> PlannedBytes {
        planned_with(training, "learning_rate: {min: 1e-5, max: 1e-3}")
    }

    /// The same with other hyperparameters.
    fn planned_with(training: &str, hyperparameters: &str) -> PlannedBytes {
        let more = format!(
            "hyperparameters: {{{hyperparameters}}}
searcher: {{metric: loss, max_trials: 2}}
budget: {{steps: 100}}
checkpoint: {{every_steps: 25}}
training: {training}
"
        );
        let manifest = manifest("e", &more);
        let premises = Premises { num_slots: 1, num_train: NUM_TRAIN, examples_per_second: None };
        let plan = plan(&manifest, &premises).unwrap();
        assert_eq!(plan.num_checkpoints, 8);
        planned_bytes(&manifest, NUM_TRAIN, &shapes(), &plan)
    }

    #[test]
    fn every_checkpoint_is_counted_with_its_parts() {
        let shapes = shapes();
        let of = |average| SavedParts { trained: &shapes, average };
        let plain = of(WeightAverage::Off).bytes(&[], false);
        assert_eq!(planned("{}"), PlannedBytes { largest: plain, written: 8 * plain });
        let ema = of(WeightAverage::Ema { decay: 0.9 }).bytes(&[], false);
        let found = planned("{average: {type: ema, decay: 0.9}}");
        assert_eq!(found, PlannedBytes { largest: ema, written: 8 * ema });
        // Best weights are there from the first look on.
        let best = of(WeightAverage::Off).bytes(&[], true);
        let stopping = "early_stopping: {patience: 3}";
        let found = planned(&format!("{{evaluate_every: {{steps: 50}}, {stopping}}}"));
        assert_eq!(found, PlannedBytes { largest: best, written: 2 * (plain + 3 * best) });
    }

    #[test]
    fn trials_that_differ_in_their_averages_differ_in_bytes() {
        let shapes = shapes();
        let of = |average| SavedParts { trained: &shapes, average }.bytes(&[], false);
        let (plain, ema) = (of(WeightAverage::Off), of(WeightAverage::Ema { decay: 0.999 }));
        assert!(plain < ema);
        // A grid of both.
        let found = planned_with("{}", "average: {values: [none, ema]}");
        assert_eq!(found, PlannedBytes { largest: ema, written: 4 * plain + 4 * ema });
    }

    #[test]
    fn an_average_over_checkpoints_grows_to_its_length() {
        let shapes = shapes();
        let every = Budget::Steps(30);
        let average = WeightAverage::Checkpoints { last: 2, every };
        let of = |moments: &[u64]| SavedParts { trained: &shapes, average }.bytes(moments, false);
        let found = planned("{average: {type: checkpoints, last: 2, every: {steps: 30}}}");
        let one = of(&[]) + of(&[30]) + of(&[30, 60]) + of(&[60, 90]);
        assert_eq!(found, PlannedBytes { largest: of(&[60, 90]), written: 2 * one });
        assert_eq!(averaged(29, 30, 2), Vec::<u64>::new());
    }
}
