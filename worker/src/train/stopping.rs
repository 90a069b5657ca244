//! Early stopping: when a trial gives up, and which of its evaluations counts.

use std::cmp::Ordering;

use muster_common::evaluation::Evaluation;
use muster_common::manifest::EarlyStopping;
use muster_common::objective::{Mode, Objective};
use serde::{Deserialize, Serialize};

/// What a trial remembers of its evaluations; part of its checkpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StoppingState {
    /// The best evaluation so far; its weights are kept beside it.
    pub best: Option<BestEvaluation>,
    /// Evaluations since then.
    pub num_stale: u32,
}

/// An evaluation that was better than those before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEvaluation {
    /// Updates done.
    pub step: u64,
    /// The scores.
    pub evaluation: Evaluation,
}

/// What an evaluation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The best so far.
    Better,
    /// Not enough of a change.
    Stale,
    /// The watched value is not a number.
    Diverged,
}

/// The rule of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoppingRule {
    /// How long, and what is a change.
    pub settings: EarlyStopping,
    /// What is watched.
    pub objective: Objective,
}

impl StoppingRule {
    /// Counts an evaluation after `step` updates.
    pub fn observe(
        &self,
        state: &mut StoppingState,
        step: u64,
        evaluation: &Evaluation,
    ) -> Verdict {
        let value = evaluation.value(self.objective.metric);
        if !value.is_finite() || !evaluation.loss.is_finite() {
            return Verdict::Diverged;
        }
        let best = state.best.as_ref().map(|best| best.evaluation.value(self.objective.metric));
        if best.is_none_or(|best| self.is_better(value, best)) {
            *state = StoppingState {
                best: Some(BestEvaluation { step, evaluation: evaluation.clone() }),
                num_stale: 0,
            };
            return Verdict::Better;
        }
        state.num_stale = state.num_stale.saturating_add(1);
        Verdict::Stale
    }

    /// Whether the trial has waited long enough for an improvement.
    pub fn gives_up(&self, state: &StoppingState) -> bool {
        state.num_stale >= self.settings.patience
    }

    fn is_better(&self, value: f64, best: f64) -> bool {
        let change = self.settings.min_change;
        let reference = match self.objective.mode {
            Mode::Max => best + change,
            Mode::Min => best - change,
        };
        self.objective.standing(value, reference) == Ordering::Less
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::objective::ObjectiveMetric;

    fn rule(mode: Mode, patience: u32, min_change: f64) -> StoppingRule {
        StoppingRule {
            settings: EarlyStopping { metric: None, patience, min_change },
            objective: Objective { metric: ObjectiveMetric::Loss, mode },
        }
    }

    fn run(rule: StoppingRule, losses: &[f64]) -> (Vec<Verdict>, StoppingState, Option<u64>) {
        let mut state = StoppingState::default();
        let mut given_up = None;
        let mut verdicts = Vec::new();
        for (step, loss) in (1..).zip(losses) {
            let evaluation =
                Evaluation { loss: *loss, confusion: vec![vec![1]], ..Evaluation::default() };
            verdicts.push(rule.observe(&mut state, step, &evaluation));
            if rule.gives_up(&state) {
                given_up = given_up.or(Some(step));
            }
        }
        (verdicts, state, given_up)
    }

    #[test]
    fn gives_up_after_so_many_evaluations_without_a_change() {
        use Verdict::{Better, Stale};
        let (verdicts, state, given_up) =
            run(rule(Mode::Min, 2, 0.0), &[1.0, 0.9, 0.9, 0.8, 0.85, 0.81]);
        assert_eq!(verdicts, [Better, Better, Stale, Better, Stale, Stale]);
        assert_eq!((given_up, state.best.unwrap().step), (Some(6), 4));
    }

    #[test]
    fn small_changes_do_not_count_even_together() {
        use Verdict::{Better, Stale};
        let losses = [1.0, 0.95, 0.91, 0.89, 0.88];
        let (verdicts, state, _) = run(rule(Mode::Min, 9, 0.1), &losses);
        assert_eq!(verdicts, [Better, Stale, Stale, Better, Stale]);
        assert_eq!((state.num_stale, state.best.unwrap().step), (1, 4));
        let (verdicts, ..) = run(rule(Mode::Max, 9, 0.1), &[1.0, 1.05, 1.2]);
        assert_eq!(verdicts, [Better, Stale, Better]);
    }

    #[test]
    fn what_is_no_number_has_diverged() {
        let (verdicts, ..) = run(rule(Mode::Min, 2, 0.0), &[f64::NAN, f64::INFINITY]);
        assert_eq!(verdicts, [Verdict::Diverged, Verdict::Diverged]);
        let auc = Objective { metric: ObjectiveMetric::Auc, mode: Mode::Max };
        let rule = StoppingRule { objective: auc, ..rule(Mode::Max, 1, 0.0) };
        let mut state = StoppingState::default();
        let confusion = vec![vec![1]];
        let evaluation = Evaluation { loss: 0.5, confusion, ..Evaluation::default() };
        assert_eq!(rule.observe(&mut state, 1, &evaluation), Verdict::Diverged);
    }
}
