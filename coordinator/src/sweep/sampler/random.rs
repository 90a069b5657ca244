//! Independent draws.

use muster_common::manifest::{Assignment, keep_active};

use super::{Proposal, searched};

/// Draw `draw` for a trial. Every hyperparameter has a generator of its own: adding one to a
/// manifest leaves the values of the others as they were.
pub(super) fn point(proposal: &Proposal<'_>, draw: u64) -> Assignment {
    let Proposal { space, seed, number, .. } = *proposal;
    let (seed, functions) = (seed.child("sampler", u64::from(number)), proposal.functions());
    let mut point = searched(space)
        .map(|(name, domain)| {
            let mut draws = seed.child(name, draw).draws();
            (name.clone(), domain.draw(&mut draws, functions))
        })
        .collect();
    keep_active(space, &mut point);
    point
}
