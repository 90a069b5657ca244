//! The `resources` section: how many slots one trial trains on.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::Field;
use super::section::{optional, optional_or};

/// Highest priority; its negative is the lowest.
pub const PRIORITY_MAX: i32 = 100;
/// Most slots of one trial.
const SLOTS_MAX: u32 = 1024;
/// How long an elastic gang waits for a lost worker's replacement when the manifest is silent: a
/// local worker is back after two seconds, a machine that starts anew is not back at all.
const GRACE_SECONDS: u32 = 10;
/// Longest such wait.
const GRACE_SECONDS_MAX: u32 = 86_400;

/// What one trial occupies while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Slots of one run, granted together.
    pub slots: Slots,
    /// Slots of all runs of the experiment at a time, at most; absent: as many as there are.
    #[serde(default)]
    pub max_slots: Option<u32>,
    /// Those with more go first, and take the slots of those with less; 0 unless it says otherwise.
    #[serde(default)]
    pub priority: i32,
}

impl Default for Resources {
    fn default() -> Self {
        Self { slots: Slots::Fixed(1), max_slots: None, priority: 0 }
    }
}

/// How many slots one run trains on, one rank each. The global batch is the same for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Slots {
    /// So many, never more or fewer.
    Fixed(u32),
    /// As many as there are, within bounds.
    Elastic {
        /// With fewer it waits.
        min: u32,
        /// More are left to others.
        max: u32,
        /// After a worker was lost, so long is waited for another before going on with fewer.
        grace_seconds: u32,
    },
}

impl Slots {
    /// Fewest slots it runs on, at least 1.
    pub fn min(self) -> u32 {
        match self {
            Self::Fixed(slots) => slots,
            Self::Elastic { min, .. } => min,
        }
    }

    /// Most slots it runs on.
    pub fn max(self) -> u32 {
        match self {
            Self::Fixed(slots) => slots,
            Self::Elastic { max, .. } => max,
        }
    }

    /// Whether the number may change from run to run.
    pub fn is_elastic(self) -> bool {
        matches!(self, Self::Elastic { .. })
    }

    /// How long to wait for a lost worker's replacement.
    pub fn grace(self) -> Duration {
        match self {
            Self::Fixed(_) => Duration::ZERO,
            Self::Elastic { grace_seconds, .. } => Duration::from_secs(grace_seconds.into()),
        }
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(1) => f.write_str("1 slot"),
            Self::Fixed(slots) => write!(f, "{slots} slots"),
            Self::Elastic { min, max, .. } => write!(f, "{min} to {max} slots"),
        }
    }
}

pub(super) fn read_resources(field: &Field<'_>) -> Option<Resources> {
    let section = field.section()?;
    let slots = optional_or(section.get("slots"), Slots::Fixed(1), |field| read_slots(&field));
    let max_slots = optional(section.get("max_slots"), |field| {
        let most = field.whole_u32(1, SLOTS_MAX)?;
        if slots.is_some_and(|slots| slots.min() > most) {
            let mend = "write at least as many as one trial trains on";
            field.refuse_mend(format!("{most} is fewer than `slots`"), mend);
            return None;
        }
        Some(Some(most))
    });
    let priority = optional_or(section.get("priority"), 0, |field| {
        let found = field.as_whole().and_then(|priority| i32::try_from(priority).ok());
        match found.filter(|priority| priority.abs() <= PRIORITY_MAX) {
            Some(priority) => Some(priority),
            None => {
                field.expected(&format!("a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"))
            }
        }
    });
    section.finish();
    Some(Resources { slots: slots?, max_slots: max_slots?, priority: priority? })
}

fn read_slots(field: &Field<'_>) -> Option<Slots> {
    if !field.is_mapping() {
        return field.whole_u32(1, SLOTS_MAX).map(Slots::Fixed);
    }
    let section = field.section()?;
    let bound = |field: Field<'_>| field.whole_u32(1, SLOTS_MAX);
    let min = section.require("min", "2").and_then(bound);
    let max = section.require("max", "4").and_then(bound);
    let grace_seconds = optional_or(section.get("grace_seconds"), GRACE_SECONDS, |field| {
        field.whole_u32(0, GRACE_SECONDS_MAX)
    });
    section.finish();
    let (min, max, grace_seconds) = (min?, max?, grace_seconds?);
    if min >= max {
        let mend =
            if min == max { format!("write `slots: {min}`") } else { "swap them".to_owned() };
        field.refuse_mend(format!("min {min} is not below max {max}"), mend);
        return None;
    }
    Some(Slots::Elastic { min, max, grace_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_journaled_before_there_were_bounds_is_read() {
        let read = |json: &str| serde_json::from_str::<Resources>(json).unwrap();
        assert_eq!(read(r#"{"slots":1}"#), Resources::default());
        let elastic = Resources {
            slots: Slots::Elastic { min: 2, max: 4, grace_seconds: 7 },
            ..Resources::default()
        };
        assert_eq!(read(&serde_json::to_string(&elastic).unwrap()), elastic);
    }
}
