//! The `resources` section: how many slots one trial trains on.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::Field;
use super::section::optional_or;

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
    section.finish();
    Some(Resources { slots: slots? })
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
        assert_eq!(read(r#"{"slots":1}"#), Resources { slots: Slots::Fixed(1) });
        let elastic = Resources { slots: Slots::Elastic { min: 2, max: 4, grace_seconds: 7 } };
        assert_eq!(read(&serde_json::to_string(&elastic).unwrap()), elastic);
    }
}
