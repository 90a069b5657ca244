//! A regression tree over the unit cube (Breiman and others 1984, "Classification and regression trees"), grown until
//! every leaf is pure, as trees of a forest are. Only its leaves are kept: boxes with a value each.

use muster_common::seed::Draws;

/// Deepest leaf, as in Optuna.
const DEPTH_MAX: u32 = 64;
/// Values this near to each other are equal; all lie within -1 to 1.
const VALUE_STEP: f64 = 1e-9;

/// What a tree learns.
#[derive(Debug)]
pub(super) struct Rows {
    /// Places in the unit cube, side by side: `columns[side][row]`.
    pub(super) columns: Vec<Vec<f64>>,
    /// The results.
    pub(super) values: Vec<f64>,
    /// How often each counts; 0: not at all.
    pub(super) weights: Vec<f64>,
}

/// A box in which the prediction is one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// The prediction.
    pub(super) value: f64,
    /// From where to where it goes on each side.
    pub(super) sides: Vec<(f64, f64)>,
}

/// A part of the rows that is cut further.
struct Part {
    /// Its rows for each side, in the order of their places there.
    orders: Vec<Vec<usize>>,
    sides: Vec<(f64, f64)>,
    depth: u32,
}

/// Where a part is cut.
#[derive(Clone, Copy)]
struct Cut {
    side: usize,
    place: f64,
}

/// Grows a tree; the draws decide between cuts that are equally good.
pub(super) fn grow(rows: &Rows, draws: &mut Draws) -> Vec<Leaf> {
    let order = |column: &Vec<f64>| {
        let mut order: Vec<usize> =
            (0..column.len()).filter(|row| rows.weights[*row] > 0.0).collect();
        order.sort_by(|a, b| column[*a].total_cmp(&column[*b]));
        order
    };
    let orders: Vec<Vec<usize>> = rows.columns.iter().map(order).collect();
    let sides = vec![(0.0, 1.0); rows.columns.len()];
    let mut parts = vec![Part { orders, sides, depth: 0 }];
    let mut leaves = Vec::new();
    while let Some(part) = parts.pop() {
        let best = if part.depth < DEPTH_MAX { rows.cut(&part, draws) } else { None };
        match best {
            Some(cut) => parts.extend(rows.halves(&part, cut)),
            None => leaves.push(Leaf { value: rows.mean(&part), sides: part.sides }),
        }
    }
    leaves
}

impl Rows {
    fn mean(&self, part: &Part) -> f64 {
        let (sum, weight) = self.sums(part);
        if weight > 0.0 { sum / weight } else { 0.0 }
    }

    /// Sum of values and of weights.
    fn sums(&self, part: &Part) -> (f64, f64) {
        let rows = part.orders.first().into_iter().flatten();
        rows.fold((0.0, 0.0), |(sum, weight), row| {
            (sum + self.values[*row] * self.weights[*row], weight + self.weights[*row])
        })
    }

    fn is_pure(&self, part: &Part) -> bool {
        let values = || part.orders.first().into_iter().flatten().map(|row| self.values[*row]);
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        high - low <= VALUE_STEP
    }

    /// The cut that leaves the least squared error; `None`: there is nothing to cut.
    fn cut(&self, part: &Part, draws: &mut Draws) -> Option<Cut> {
        if self.is_pure(part) {
            return None;
        }
        let (sum, weight) = self.sums(part);
        let mut sides: Vec<usize> = (0..part.orders.len()).collect();
        draws.shuffle(&mut sides);
        let mut best: Option<(f64, Cut)> = None;
        for side in sides {
            let column = &self.columns[side];
            let (mut sum_below, mut weight_below) = (0.0, 0.0);
            for pair in part.orders[side].windows(2) {
                let [row, next] = *pair else { continue };
                sum_below += self.values[row] * self.weights[row];
                weight_below += self.weights[row];
                if column[next] <= column[row] {
                    continue;
                }
                let (sum_above, weight_above) = (sum - sum_below, weight - weight_below);
                // The squared error is a constant less this.
                let gain =
                    sum_below * sum_below / weight_below + sum_above * sum_above / weight_above;
                if best.is_none_or(|(most, _)| gain > most) {
                    let middle = f64::midpoint(column[row], column[next]);
                    let place = if middle < column[next] { middle } else { column[row] };
                    best = Some((gain, Cut { side, place }));
                }
            }
        }
        best.map(|(_, cut)| cut)
    }

    fn halves(&self, part: &Part, cut: Cut) -> [Part; 2] {
        let column = &self.columns[cut.side];
        let split = |order: &Vec<usize>| -> (Vec<usize>, Vec<usize>) {
            order.iter().partition(|row| column[**row] <= cut.place)
        };
        let (below, above) = part.orders.iter().map(split).unzip();
        let half = |orders: Vec<Vec<usize>>, is_below: bool| {
            let mut sides = part.sides.clone();
            if let Some((low, high)) = sides.get_mut(cut.side) {
                *(if is_below { high } else { low }) = cut.place;
            }
            Part { orders, sides, depth: part.depth + 1 }
        };
        [half(below, true), half(above, false)]
    }
}
