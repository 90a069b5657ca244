//! Variances of a function that is constant on boxes which fill the unit cube. Exact, with no sampling.

use super::tree::Leaf;

/// Over the whole cube.
pub(super) fn total(leaves: &[Leaf]) -> f64 {
    let weighted = || leaves.iter().map(|leaf| (volume(leaf, None), leaf.value));
    spread(weighted)
}

/// Along one side, with all others averaged out. Each box adds its value, times its extent in the other dimensions,
/// from where it begins on this side to where it ends.
pub(super) fn main_effect(leaves: &[Leaf], side: usize) -> f64 {
    let mut changes = Vec::with_capacity(2 * leaves.len());
    for leaf in leaves {
        let Some((low, high)) = leaf.sides.get(side) else { continue };
        let height = leaf.value * volume(leaf, Some(side));
        changes.push((*low, height));
        changes.push((*high, -height));
    }
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut height = 0.0;
    let mut pieces = Vec::new();
    for pair in changes.windows(2) {
        let [(place, change), (next, _)] = *pair else { continue };
        height += change;
        if next > place {
            pieces.push((next - place, height));
        }
    }
    spread(|| pieces.iter().copied())
}

/// The extent of a box, in all dimensions or in all but one.
fn volume(leaf: &Leaf, without: Option<usize>) -> f64 {
    let sides = leaf.sides.iter().enumerate().filter(|(side, _)| Some(*side) != without);
    sides.map(|(_, (low, high))| high - low).product()
}

/// Variance of values with weights that add up to 1.
fn spread<I: Iterator<Item = (f64, f64)>>(weighted: impl Fn() -> I) -> f64 {
    let mean: f64 = weighted().map(|(weight, value)| weight * value).sum();
    weighted().map(|(weight, value)| weight * ((value - mean) * (value - mean))).sum()
}
