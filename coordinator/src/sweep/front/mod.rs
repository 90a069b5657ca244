//! Results of several objectives in an order.
//!
//! What stands before what: fronts of results that do not dominate each other, one behind the other
//! (Deb et al. 2002, NSGA-II, with their constrained domination), and within a front an epsilon-net
//! (Clarkson 2006, "Nearest-Neighbor Searching and Metric Space Dimensions"), as in Schmucker, Donini,
//! Zafar, Salinas, Archambeau 2021, "Multi-objective Asynchronous Successive Halving": first the best in
//! the first objective, then always the one that is farthest from all before it. So the few that a rung
//! lets through are spread over the front. Fronts are found by binary search (Zhang, Tian, Cheng, Jin
//! 2015, "An Efficient Approach to Nondominated Sorting for Evolutionary Multiobjective Optimization").

mod volume;

use muster_common::goal::{Goal, Merit};

pub use volume::{chosen, contributions, hypervolume};

/// The indices of the results of each front, the best front first, each in the order of
/// [`Goal::standing`], then of the results. What has diverged makes the last front.
pub fn fronts(goal: &Goal, merits: &[Merit]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(usize, &Merit)> = merits.iter().enumerate().collect();
    // What dominates a result comes before it. The sort is stable.
    sorted.sort_by(|(_, a), (_, b)| goal.standing(a, b));
    // Of two objectives the last one of a front has the best second value: it dominates what any does.
    let num_looked_at = if goal.others.len() <= 1 { 1 } else { usize::MAX };
    let mut fronts: Vec<Vec<(usize, &Merit)>> = Vec::new();
    for entry in sorted {
        let is_dominated = |front: &Vec<(usize, &Merit)>| {
            let mut looked_at = front.iter().rev().take(num_looked_at);
            looked_at.any(|(_, other)| goal.dominates(other, entry.1))
        };
        let place = fronts.partition_point(is_dominated);
        match fronts.get_mut(place) {
            Some(front) => front.push(entry),
            None => fronts.push(vec![entry]),
        }
    }
    let indices = |front: Vec<(usize, &Merit)>| front.into_iter().map(|(index, _)| index).collect();
    fronts.into_iter().map(indices).collect()
}

/// The indices of results, best first; of equals the one that comes first.
pub fn arranged(goal: &Goal, merits: &[Merit]) -> Vec<usize> {
    if goal.is_single() {
        let mut sorted: Vec<(usize, &Merit)> = merits.iter().enumerate().collect();
        sorted.sort_by(|(_, a), (_, b)| goal.standing(a, b));
        return sorted.into_iter().map(|(index, _)| index).collect();
    }
    fronts(goal, merits).into_iter().flat_map(|front| spread(goal, merits, front)).collect()
}

/// Whether each result is better than the one at `index`: of several objectives, in a front before its.
pub fn better(goal: &Goal, merits: &[Merit], index: usize) -> Vec<bool> {
    if goal.is_single() {
        let Some(own) = merits.get(index) else { return vec![false; merits.len()] };
        return merits.iter().map(|merit| goal.standing(merit, own).is_lt()).collect();
    }
    let mut better = vec![false; merits.len()];
    for front in fronts(goal, merits).iter().take_while(|front| !front.contains(&index)) {
        for member in front {
            if let Some(place) = better.get_mut(*member) {
                *place = true;
            }
        }
    }
    better
}

/// The results that nothing dominates and that keep all constraints. If none does, there is no front.
pub fn front(goal: &Goal, merits: &[Merit]) -> Vec<usize> {
    let first = fronts(goal, merits).into_iter().next().unwrap_or_default();
    let is_good =
        |index: &usize| merits.get(*index).is_some_and(|m| m.is_finite() && m.is_feasible());
    first.into_iter().filter(is_good).collect()
}

/// One front as an epsilon-net, distances in shares of its extent in each objective.
fn spread(goal: &Goal, merits: &[Merit], front: Vec<usize>) -> Vec<usize> {
    let is_ranked =
        |index: &usize| merits.get(*index).is_some_and(|m| m.is_finite() && m.is_feasible());
    if front.len() < 3 || !front.iter().all(is_ranked) {
        return front;
    }
    let points = unit_costs(
        &front.iter().filter_map(|i| Some(goal.costs(merits.get(*i)?))).collect::<Vec<_>>(),
    );
    let mut left: Vec<(usize, &Vec<f64>, f64)> = front
        .into_iter()
        .zip(&points)
        .map(|(index, point)| (index, point, f64::INFINITY))
        .collect();
    let mut order = Vec::with_capacity(left.len());
    let mut next = 0;
    while next < left.len() {
        // What is left stays in its order, so that of equal distances the first one counts.
        let (index, chosen, _) = left.remove(next);
        order.push(index);
        let mut farthest = f64::NEG_INFINITY;
        for (place, (_, point, distance)) in left.iter_mut().enumerate() {
            let pairs = point.iter().zip(chosen);
            *distance = distance.min(pairs.map(|(a, b)| (a - b) * (a - b)).sum());
            if *distance > farthest {
                (farthest, next) = (*distance, place);
            }
        }
        if left.is_empty() {
            break;
        }
    }
    order
}

/// Costs moved and stretched to 0 to 1 in each objective; where all are equal, 0.
pub fn unit_costs(costs: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let num = costs.first().map_or(0, Vec::len);
    let column = |objective: usize| costs.iter().filter_map(move |row| row.get(objective).copied());
    let extents: Vec<(f64, f64)> = (0..num)
        .map(|objective| {
            let low = column(objective).fold(f64::INFINITY, f64::min);
            (low, column(objective).fold(f64::NEG_INFINITY, f64::max))
        })
        .collect();
    let unit = |(cost, (low, high)): (&f64, &(f64, f64))| {
        if high > low { (cost - low) / (high - low) } else { 0.0 }
    };
    costs.iter().map(|row| row.iter().zip(&extents).map(unit).collect()).collect()
}

#[cfg(test)]
mod tests;
