//! The `limits` section: when a search ends although there is more to try.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::Field;
use super::section::optional;

/// Most hours accepted: more than a hundred years.
const HOURS_MAX: f64 = 1e6;

/// What an experiment may cost. When a limit is reached the search ends with the best result so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Time since its first run began, pauses included.
    pub hours: Option<f64>,
    /// Time of all its runs, each times its slots.
    pub slot_hours: Option<f64>,
    /// Time of all runs of one trial.
    pub trial_hours: Option<f64>,
}

impl Limits {
    /// A number of hours as a time.
    pub fn time(hours: f64) -> Duration {
        Duration::from_secs_f64((hours * 3600.0).clamp(0.0, HOURS_MAX * 3600.0))
    }
}

pub(super) fn read_limits(field: &Field<'_>) -> Option<Limits> {
    let section = field.section()?;
    let hours = optional(section.get("hours"), |field| read_hours(&field).map(Some));
    let slot_hours = optional(section.get("slot_hours"), |field| read_hours(&field).map(Some));
    let trial_hours = optional(section.get("trial_hours"), |field| read_hours(&field).map(Some));
    section.finish();
    Some(Limits { hours: hours?, slot_hours: slot_hours?, trial_hours: trial_hours? })
}

fn read_hours(field: &Field<'_>) -> Option<f64> {
    let hours = field.number()?;
    if hours > 0.0 && hours <= HOURS_MAX {
        return Some(hours);
    }
    field.refuse(format!("must be above 0 and at most {HOURS_MAX} hours"));
    None
}
