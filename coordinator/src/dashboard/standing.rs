//! Trials in the order in which people look at them: the best first.

use muster_common::goal::{Goal, Merit};

use crate::engine::experiment::Experiment;
use crate::engine::trial::Trial;
use crate::sweep::front;

/// A trial with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) trial: &'a Trial,
    /// Of its best result.
    pub(super) merit: Option<Merit>,
    /// From 1, among those that have a result.
    pub(super) rank: Option<usize>,
}

/// All trials of an experiment, best first, as every other view arranges them: by their best results, then by more
/// rungs, then by number.
pub(super) fn standings<'a>(experiment: &'a Experiment, goal: &Goal) -> Vec<Standing<'a>> {
    let merit = |trial: &Trial| trial.best_result(goal).map(|best| goal.merit(&best.evaluation));
    let mut all: Vec<(&Trial, Option<Merit>)> =
        experiment.trials.values().map(|trial| (trial, merit(trial))).collect();
    all.sort_by(|(a, _), (b, _)| b.rung().cmp(&a.rung()).then_with(|| a.number.cmp(&b.number)));
    let merits: Vec<Merit> = all.iter().map(|(_, merit)| merit.unwrap_or(Merit::NONE)).collect();
    let mut rank = 0;
    let mut arranged = Vec::with_capacity(all.len());
    for index in front::arranged(goal, &merits) {
        let Some((trial, merit)) = all.get(index).copied() else { continue };
        rank += usize::from(merit.is_some());
        arranged.push(Standing { trial, merit, rank: merit.map(|_| rank) });
    }
    arranged
}

/// Those that a picture shows, of `list`: the best half of `limit` and of the others as many in equal distances, so
/// that the whole range is seen. All of them if there are no more.
pub(super) fn sample<T: Copy>(list: &[T], limit: usize) -> Vec<T> {
    if list.len() <= limit {
        return list.to_vec();
    }
    let num_best = limit.div_ceil(2).min(list.len());
    let (best, others) = list.split_at(num_best);
    let num_others = limit - num_best;
    let at = |index: usize| others.get(index * others.len() / num_others.max(1)).copied();
    best.iter().copied().chain((0..num_others).filter_map(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn the_best_and_some_of_all_others_are_shown() {
        let list: Vec<usize> = (0..1000).collect();
        let shown = sample(&list, 10);
        assert_eq!(shown, [0, 1, 2, 3, 4, 5, 204, 403, 602, 801]);
        assert_eq!(sample(&list, 1000), list);
        assert_eq!(sample(&list[..3], 10), [0, 1, 2]);
        assert_eq!(sample(&list, 1), [0]);
        assert!(sample::<u8>(&[], 5).is_empty());
    }
}
