//! Scrambled Sobol points: every power of two of them spreads evenly over each hyperparameter and
//! over each pair.
//!
//! Sobol 1967; Owen scrambling by hashing: Burley 2020, "Practical Hash-based Owen Scrambling"
//! (JCGT 9:4).

use muster_common::manifest::{Assignment, keep_active};

use super::{Proposal, searched};

/// The sequence is exact up to here; beyond, points would repeat.
const NUMBER_MAX: u32 = 1 << 16;

pub(super) fn point(proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, seed, number, .. } = *proposal;
    let index = number.saturating_sub(1);
    // Another scrambling begins behind the end of the sequence.
    let scrambling = seed.child("sobol", u64::from(index / NUMBER_MAX)).0;
    let scrambling = u32::try_from(scrambling & u64::from(u32::MAX)).unwrap_or_default();
    let mut point = (0..)
        .zip(searched(space))
        .map(|(dimension, (name, domain))| {
            let unit = sobol_burley::sample(index % NUMBER_MAX, dimension, scrambling);
            (name.clone(), domain.at(f64::from(unit), proposal.functions()))
        })
        .collect();
    keep_active(space, &mut point);
    point
}
