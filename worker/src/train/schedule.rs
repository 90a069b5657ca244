//! The learning rate as a pure function of the step.

use std::f64::consts::PI;

use muster_common::manifest::{ScheduleShape, TrialSettings};

/// Linear warmup, then a fall whose shape can be chosen: the schedules of transformers and the
/// slanted triangle of Howard, Ruder 2018.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// What follows the warmup.
    pub shape: ScheduleShape,
    /// Steps with a rising rate.
    pub warmup_steps: u64,
    /// Steps of the whole budget.
    pub total_steps: u64,
}

impl Schedule {
    /// The schedule of a trial over a budget of `total_steps`.
    pub fn new(settings: &TrialSettings, shape: ScheduleShape, total_steps: u64) -> Self {
        let (peak, warmup_steps) = (settings.learning_rate, settings.warmup(total_steps));
        Self { peak, shape, warmup_steps, total_steps }
    }

    /// The rate of update `step`, counted from 1. The first update of a warmup has rate zero, as in
    /// transformers, except on a slanted triangle.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let done = step.saturating_sub(1);
        let rising = (done < self.warmup_steps).then(|| done as f64 / self.warmup_steps as f64);
        let falling = (self.total_steps - self.warmup_steps).max(1) as f64;
        let left = self.total_steps.saturating_sub(done) as f64 / falling;
        match (self.shape, rising) {
            (ScheduleShape::SlantedTriangular { ratio }, rising) => {
                let height = rising.unwrap_or(left);
                self.peak * (1.0 + height * (ratio - 1.0)) / ratio
            }
            (_, Some(height)) => self.peak * height,
            (ScheduleShape::Linear, None) => self.peak * left,
            (ScheduleShape::Constant, None) => self.peak,
            (ScheduleShape::Cosine { cycles }, None) => {
                let height = 0.5 * (1.0 + (PI * cycles * 2.0 * (1.0 - left)).cos());
                self.peak * height.max(0.0)
            }
            (ScheduleShape::Polynomial { power, end_learning_rate: end }, None) => {
                (self.peak - end) * left.powf(power) + end
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    /// Made by `tests/golden/train/generate.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/train/schedules.json");

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        shape: ScheduleShape,
        peak: f64,
        warmup_steps: u64,
        total_steps: u64,
        rates: Vec<f64>,
    }

    #[test]
    fn rates_equal_those_of_transformers() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.cases.len() >= 20);
        for Case { shape, peak, warmup_steps, total_steps, rates } in golden.cases {
            let schedule = Schedule { peak, shape, warmup_steps, total_steps };
            for (step, wanted) in (1..).zip(rates) {
                let found = schedule.learning_rate(step);
                let off = (found - wanted).abs();
                assert!(off < 1e-12 * peak, "{schedule:?}, step {step}: {found}, not {wanted}");
            }
        }
    }

    #[test]
    fn rises_to_the_peak_and_falls_to_zero() {
        let shape = ScheduleShape::Linear;
        let schedule = Schedule { peak: 1.0, shape, warmup_steps: 2, total_steps: 10 };
        let rates: Vec<f64> = (1..=11).map(|step| schedule.learning_rate(step)).collect();
        let expected = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0];
        for (rate, wanted) in rates.iter().zip(expected) {
            assert!((rate - wanted).abs() < 1e-12, "{rates:?}");
        }
    }

    fn shapes() -> impl Strategy<Value = ScheduleShape> {
        prop_oneof![
            Just(ScheduleShape::Linear),
            Just(ScheduleShape::Constant),
            (0.5f64..5.0).prop_map(|cycles| ScheduleShape::Cosine { cycles }),
            (0.1f64..5.0, 0.0f64..3e-5).prop_map(|(power, end_learning_rate)| {
                ScheduleShape::Polynomial { power, end_learning_rate }
            }),
            (1.0f64..100.0).prop_map(|ratio| ScheduleShape::SlantedTriangular { ratio }),
        ]
    }

    proptest! {
        #[test]
        fn stays_between_zero_and_peak(
            shape in shapes(), warmup in 0u64..=5000, total in 1u64..5000, step in 1u64..6000,
        ) {
            let warmup_steps = warmup.min(total);
            let schedule = Schedule { peak: 3e-5, shape, warmup_steps, total_steps: total };
            let rate = schedule.learning_rate(step);
            prop_assert!((0.0..=3e-5 * (1.0 + 1e-12)).contains(&rate), "{rate}");
        }
    }
}
