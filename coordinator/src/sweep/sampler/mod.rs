//! Which assignment trial `n` gets: a pure function of the settings, the seed, `n` and, for samplers
//! that learn, of the results so far. So a replay of the journal proposes the same again, and does so on every machine:
//! there are exact operations here, whose order is written down, and the functions of [`Elementary`].

mod axis;
mod climb;
mod cmaes;
mod good;
mod gp;
mod grid;
mod linear;
mod parzen;
mod process;
mod random;
mod scalar;
mod sobol;
mod tpe;
mod units;

use muster_common::elementary::Elementary;
use muster_common::goal::{Goal, Merit};
use muster_common::manifest::{Assignment, Domain, SamplerSettings, SearchSpace};
use muster_common::seed::Seed;

pub(super) use units::Units;

/// Draws that a proposal which was tried before is replaced by, at most.
const REDRAWS_MAX: u64 = 32;

/// What is known of an earlier trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<'a> {
    /// Its hyperparameters.
    pub assignment: &'a Assignment,
    /// Index of the rung that its first result is at.
    pub first_rung: usize,
    /// How good it was at each rung it has passed, lowest rung first. Not finite: diverged.
    pub merits: Vec<Merit>,
    /// Nothing of it is at work: it has ended, or waits at a rung.
    pub is_over: bool,
    /// It is a trial of an earlier experiment.
    pub is_prior: bool,
}

impl<'a> Observation<'a> {
    /// A trial that is over, with the results of all rungs.
    pub fn over<M: Into<Merit>>(assignment: &'a Assignment, results: Vec<M>) -> Self {
        let merits = results.into_iter().map(Into::into).collect();
        Self { assignment, first_rung: 0, merits, is_over: true, is_prior: false }
    }

    /// How good it was at a rung.
    fn merit_at(&self, rung: usize) -> Option<Merit> {
        self.merits.get(rung.checked_sub(self.first_rung)?).copied()
    }

    /// How good it was at its last rung.
    fn last(&self) -> Merit {
        self.merits.last().copied().unwrap_or(Merit::NONE)
    }
}

/// Everything a proposal depends on.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// What is searched.
    pub space: &'a SearchSpace,
    /// What is wanted.
    pub goal: &'a Goal,
    /// Root of the experiment's random choices.
    pub seed: Seed,
    /// Number of the trial to propose, from 1.
    pub number: u32,
    /// Trials of earlier experiments first, then earlier trials by number, running ones too.
    pub history: &'a [Observation<'a>],
}

impl Proposal<'_> {
    /// What it is computed with.
    fn functions(&self) -> Elementary {
        self.goal.functions
    }
}

/// The assignment of a trial. Constants are not part of an assignment.
pub fn propose(settings: &SamplerSettings, proposal: &Proposal<'_>) -> Assignment {
    let Proposal { space, number, .. } = *proposal;
    match settings {
        SamplerSettings::Grid => grid::point(space, number),
        SamplerSettings::List(points) => {
            let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
            points.get(index).cloned().unwrap_or_default()
        }
        SamplerSettings::Random => fresh(proposal, |draw| random::point(proposal, draw)),
        SamplerSettings::Sobol => spread(proposal),
        SamplerSettings::Tpe(settings) | SamplerSettings::Bohb(settings) => {
            tpe::point(settings, proposal)
        }
        SamplerSettings::Gp(settings) => gp::point(*settings, proposal),
        SamplerSettings::CmaEs(settings) => cmaes::point(settings, proposal),
    }
}

/// Whether a sampler looks at what was tried before.
pub fn needs_history(settings: &SamplerSettings, space: &SearchSpace) -> bool {
    match settings {
        SamplerSettings::Grid | SamplerSettings::List(_) => false,
        SamplerSettings::Random | SamplerSettings::Sobol => can_repeat(space),
        SamplerSettings::Tpe(_)
        | SamplerSettings::Bohb(_)
        | SamplerSettings::Gp(_)
        | SamplerSettings::CmaEs(_) => true,
    }
}

/// Draws of real numbers never meet; only lists and whole numbers do.
fn can_repeat(space: &SearchSpace) -> bool {
    searched(space).all(|(_, domain)| domain.enumerate().is_some())
}

/// A Sobol point, or a random one where that was tried before.
fn spread(proposal: &Proposal<'_>) -> Assignment {
    fresh(proposal, |draw| match draw {
        0 => sobol::point(proposal),
        _ => random::point(proposal, draw),
    })
}

/// The first of a few draws that no earlier trial has. Where all are taken the first draw stays: a
/// small space is used up, and the manifest asks for more trials than it has points.
fn fresh(proposal: &Proposal<'_>, draw: impl Fn(u64) -> Assignment) -> Assignment {
    let first = draw(0);
    if !can_repeat(proposal.space) || !is_taken(proposal.history, &first) {
        return first;
    }
    (1..=REDRAWS_MAX).map(draw).find(|found| !is_taken(proposal.history, found)).unwrap_or(first)
}

fn is_taken(history: &[Observation<'_>], assignment: &Assignment) -> bool {
    history.iter().any(|observation| observation.assignment == assignment)
}

/// The highest rung with at least `startup` results.
fn model_rung(history: &[Observation<'_>], startup: usize) -> Option<usize> {
    let rungs = history.iter().map(|observation| observation.first_rung + observation.merits.len());
    let num_rungs = rungs.max()?;
    let num_results = |rung: usize| {
        history.iter().filter(|observation| observation.merit_at(rung).is_some()).count()
    };
    (0..num_rungs).rev().find(|rung| num_results(*rung) >= startup)
}

/// The searched hyperparameters by name.
pub(super) fn searched(space: &SearchSpace) -> impl Iterator<Item = (&String, &Domain)> {
    space.iter().filter(|(_, domain)| domain.is_searched())
}

#[cfg(test)]
mod tests;
