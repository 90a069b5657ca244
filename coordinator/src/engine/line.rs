//! In which order experiments are served, and how many slots each may have.
//!
//! Those with more priority go first. Among equals a gang that slots are kept for goes first, then whose
//! project uses the smallest part of its share, then who came first. A project's share is its weight: with
//! one more slot, the project with the lowest `slots / weight` is served (the highest averages method of
//! Webster and Sainte-Lague, with d'Hondt's divisors). So idle shares are used by those who have work.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use muster_common::id::ProjectName;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::experiment::Experiment;

/// What a project may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectPolicy {
    /// Its part of the slots in relation to others', 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Slots of all its runs at a time, at most.
    #[serde(default)]
    pub max_slots: Option<u32>,
}

fn one() -> u32 {
    1
}

impl Default for ProjectPolicy {
    fn default() -> Self {
        Self { weight: 1, max_slots: None }
    }
}

/// Room for another run of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Slots it may have besides those it has.
    pub slots: u32,
    /// What sets the limit.
    pub bound: Bound,
}

/// What limits the slots of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Its own `resources.max_slots`.
    Experiment(u32),
    /// The quota of its project.
    Project(u32),
    /// Nothing.
    Nothing,
}

impl Engine {
    /// What a project may use.
    pub fn policy(&self, project: &ProjectName) -> ProjectPolicy {
        self.projects.get(project).copied().unwrap_or_default()
    }

    /// Slots that every project has now.
    pub fn held_by_project(&self) -> BTreeMap<ProjectName, u32> {
        let mut held = BTreeMap::new();
        for (id, count) in &self.held {
            if let Some(project) = self.experiments.get(id).and_then(|e| e.project.clone()) {
                *held.entry(project).or_insert(0) += count;
            }
        }
        held
    }

    /// Open experiments in the order in which they are served.
    pub(super) fn line(&self) -> Vec<&Experiment> {
        let mut line = self.open_experiments();
        if !self.has_shares() {
            // As it was before there were projects: journals of that time are replayed by this code.
            line.sort_by_key(|e| (e.waiting_since.is_none(), e.waiting_since));
            return line;
        }
        let held = self.held_by_project();
        let share = |experiment: &Experiment| {
            let Some(project) = &experiment.project else { return 0 };
            let next = u64::from(held.get(project).copied().unwrap_or(0)) + 1;
            next * 1_000_000 / u64::from(self.policy(project).weight.max(1))
        };
        // Stable: the order of submission decides what is left.
        line.sort_by_cached_key(|experiment| {
            let waiting = (experiment.waiting_since.is_none(), experiment.waiting_since);
            (Reverse(experiment.priority), waiting, share(experiment))
        });
        line
    }

    /// How many more slots an experiment may have.
    pub fn room(&self, experiment: &Experiment) -> Room {
        let own = experiment.manifest.resources.max_slots.map(|most| Room {
            slots: most.saturating_sub(self.held(&experiment.id)),
            bound: Bound::Experiment(most),
        });
        let quota = experiment.project.as_ref().and_then(|project| {
            let most = self.policy(project).max_slots?;
            let held = self.held_by_project().get(project).copied().unwrap_or(0);
            Some(Room { slots: most.saturating_sub(held), bound: Bound::Project(most) })
        });
        let nothing = Room { slots: u32::MAX, bound: Bound::Nothing };
        let all = [own, quota, Some(nothing)].into_iter().flatten();
        all.min_by_key(|room| room.slots).unwrap_or(nothing)
    }
}
