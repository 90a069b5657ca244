//! Cartesian product, the last name varying fastest.

use muster_common::manifest::{Assignment, ParameterValue, SearchSpace, grid_points};

use super::searched;

pub(super) fn point(space: &SearchSpace, number: u32) -> Assignment {
    let index = number.saturating_sub(1) as usize;
    if space.values().any(|domain| domain.condition().is_some()) {
        return grid_points(space).nth(index).unwrap_or_default();
    }
    let axes: Vec<(&String, Vec<ParameterValue>)> = searched(space)
        .filter_map(|(name, domain)| domain.enumerate().map(|values| (name, values)))
        .collect();
    let mut rest = index;
    let mut assignment = Assignment::new();
    for (name, values) in axes.iter().rev() {
        if let Some(value) = values.get(rest % values.len().max(1)) {
            assignment.insert((*name).clone(), *value);
        }
        rest /= values.len().max(1);
    }
    assignment
}
