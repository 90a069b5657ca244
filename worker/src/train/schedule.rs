//! The learning rate as a pure function of the step.

/// Linear warmup, then linear decay to zero: the schedule of BERT's authors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps with a rising rate.
    pub warmup_steps: u64,
    /// Steps of the whole budget.
    pub total_steps: u64,
}

impl Schedule {
    /// Warms up over `warmup_ratio` of `total_steps`, rounded up.
    pub fn new(peak: f64, warmup_ratio: f64, total_steps: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the ratio lies between 0 and 1 and steps are far below 2^53"
        )]
        let warmup_steps = (warmup_ratio * total_steps as f64).ceil() as u64;
        Self { peak, warmup_steps: warmup_steps.min(total_steps), total_steps }
    }

    /// The rate of update `step`, counted from 1. The first update of a warmup has rate zero, as in
    /// `get_linear_schedule_with_warmup` of transformers.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let done = step.saturating_sub(1);
        if done < self.warmup_steps {
            return self.peak * (done as f64 / self.warmup_steps as f64);
        }
        let decaying = (self.total_steps - self.warmup_steps).max(1);
        self.peak * (self.total_steps.saturating_sub(done) as f64 / decaying as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_zero() {
        let schedule = Schedule::new(1.0, 0.2, 10);
        let rates: Vec<f64> = (1..=11).map(|step| schedule.learning_rate(step)).collect();
        let expected = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0];
        for (rate, wanted) in rates.iter().zip(expected) {
            assert!((rate - wanted).abs() < 1e-12, "{rates:?}");
        }
    }

    proptest! {
        #[test]
        fn stays_between_zero_and_peak(ratio in 0.0f64..=1.0, total in 1u64..5000, step in 1u64..6000) {
            let rate = Schedule::new(3e-5, ratio, total).learning_rate(step);
            prop_assert!((0.0..=3e-5).contains(&rate));
        }
    }
}
