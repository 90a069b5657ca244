//! Why things happened.

use std::ops::Deref;

use muster_common::id::TrialId;
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One line of explanation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// About which trial; absent: the experiment.
    pub trial: Option<TrialId>,
    /// For people.
    pub text: String,
}

/// All decisions of an experiment, oldest first. None is ever changed or taken back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Decision>", into = "Vec<Decision>")]
pub struct Decisions {
    list: Vec<Decision>,
    num_saved: usize,
}

impl Decisions {
    pub(super) fn push(&mut self, decision: Decision) {
        self.list.push(decision);
    }

    /// Those that are not saved, with their places.
    pub fn unsaved(&self) -> impl Iterator<Item = (usize, &Decision)> {
        self.list.iter().enumerate().skip(self.num_saved)
    }

    pub(super) fn mark_saved(&mut self) {
        self.num_saved = self.list.len();
    }
}

impl Deref for Decisions {
    type Target = [Decision];

    fn deref(&self) -> &[Decision] {
        &self.list
    }
}

impl PartialEq for Decisions {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl From<Vec<Decision>> for Decisions {
    fn from(list: Vec<Decision>) -> Self {
        Self { list, num_saved: 0 }
    }
}

impl From<Decisions> for Vec<Decision> {
    fn from(decisions: Decisions) -> Self {
        decisions.list
    }
}
