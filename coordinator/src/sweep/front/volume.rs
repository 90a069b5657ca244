//! Volumes that fronts cover: which results are worth most.

use std::cmp::Ordering;

/// The volume of what costs dominate (smaller is better), up to a reference point.
///
/// While, Bradstreet, Barone 2012, "A Fast Way of Calculating Exact Hypervolumes" (WFG): each point adds
/// what it covers alone of what is left for the others.
pub fn hypervolume(costs: &[Vec<f64>], reference: &[f64]) -> f64 {
    let is_inside = |row: &&Vec<f64>| row.iter().zip(reference).all(|(cost, end)| cost < end);
    let mut points: Vec<Vec<f64>> = costs.iter().filter(is_inside).cloned().collect();
    // In one objective from the worst on: what is left for a point gets smaller sooner.
    points.sort_by(|a, b| {
        let pairs = b.iter().zip(a);
        pairs.fold(Ordering::Equal, |order, (b, a)| order.then(b.total_cmp(a)))
    });
    covered(&points, reference)
}

fn covered(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    if let [_, _] = reference {
        return area(points, reference);
    }
    let each = points.iter().enumerate().map(|(index, point)| {
        let box_volume: f64 = point.iter().zip(reference).map(|(cost, end)| end - cost).product();
        let others = points.get(index + 1..).unwrap_or_default();
        // Of each other point only what lies within this one's box.
        let limited: Vec<Vec<f64>> = others
            .iter()
            .map(|other| other.iter().zip(point).map(|(a, b)| a.max(*b)).collect())
            .collect();
        box_volume - covered(&undominated(limited), reference)
    });
    each.sum()
}

/// Of two objectives: steps from the best first cost to the worst.
fn area(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let pair = |row: &[f64]| match row {
        [a, b] => (*a, *b),
        _ => (f64::INFINITY, f64::INFINITY),
    };
    let (end_a, end_b) = pair(reference);
    let mut pairs: Vec<(f64, f64)> = points.iter().map(|row| pair(row)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let (mut sum, mut lowest) = (0.0, end_b);
    for (a, b) in pairs {
        if b < lowest && a < end_a {
            sum += (end_a - a) * (lowest - b);
            lowest = b;
        }
    }
    sum
}

fn undominated(points: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut kept: Vec<Vec<f64>> = Vec::with_capacity(points.len());
    for point in points {
        let covers = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).all(|(a, b)| a <= b);
        if kept.iter().any(|other| covers(other, &point)) {
            continue;
        }
        kept.retain(|other| !covers(&point, other));
        kept.push(point);
    }
    kept
}

/// What each of these costs adds to the volume that all of them cover.
pub fn contributions(costs: &[Vec<f64>], reference: &[f64]) -> Vec<f64> {
    let whole = hypervolume(costs, reference);
    let without = |index: usize| {
        let others = costs.iter().enumerate().filter(|(other, _)| *other != index);
        let others: Vec<Vec<f64>> = others.map(|(_, row)| row.clone()).collect();
        (whole - hypervolume(&others, reference)).max(0.0)
    };
    (0..costs.len()).map(without).collect()
}

/// Some of these costs that cover much together: always the one that adds most to those chosen before
/// it (Guerreiro, Fonseca, Paquete 2016, "Greedy Hypervolume Subset Selection in Low Dimensions"), of
/// equals the first. Indices in the order of the choice.
pub fn chosen(costs: &[Vec<f64>], reference: &[f64], num: usize) -> Vec<usize> {
    let mut picked: Vec<Vec<f64>> = Vec::new();
    let mut order = Vec::new();
    let mut covered = 0.0;
    // What a point adds only gets less as others are chosen: an old gain is a bound.
    let mut bounds: Vec<(f64, usize)> =
        (0..costs.len()).map(|index| (f64::INFINITY, index)).collect();
    while order.len() < num.min(costs.len()) {
        let mut best: Option<(f64, usize)> = None;
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (bound, index) in &mut bounds {
            let is_ahead = |(gain, first): &(f64, usize)| {
                *gain > *bound || (gain.total_cmp(bound).is_eq() && first < index)
            };
            if best.as_ref().is_some_and(is_ahead) {
                continue;
            }
            picked.extend(costs.get(*index).cloned());
            let gain = hypervolume(&picked, reference) - covered;
            picked.pop();
            *bound = gain;
            let is_better = |(most, first): &(f64, usize)| {
                gain > *most || (gain.total_cmp(most).is_eq() && *index < *first)
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some((gain, *index));
            }
        }
        let Some((gain, index)) = best else { break };
        covered += gain;
        picked.extend(costs.get(index).cloned());
        order.push(index);
        bounds.retain(|(_, other)| *other != index);
    }
    order
}
