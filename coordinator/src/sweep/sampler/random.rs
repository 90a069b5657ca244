//! Independent draws.

use muster_common::manifest::{Assignment, SearchSpace, keep_active};
use muster_common::seed::Seed;

use super::searched;

/// Draw `draw` for trial `number`. Every hyperparameter has a generator of its own: adding one to a
/// manifest leaves the values of the others as they were.
pub(super) fn point(space: &SearchSpace, seed: Seed, number: u32, draw: u64) -> Assignment {
    let seed = seed.child("sampler", u64::from(number));
    let mut point = searched(space)
        .map(|(name, domain)| (name.clone(), domain.draw(&mut seed.child(name, draw).draws())))
        .collect();
    keep_active(space, &mut point);
    point
}
