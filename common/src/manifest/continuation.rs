//! Trials that begin where a trial of an earlier experiment had come to.

use serde::{Deserialize, Serialize};

use super::reader::Field;
use super::section::BUDGET_MAX;
use crate::id::TrialId;

/// Where every trial begins, instead of at the pretrained weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// A trial that the coordinator knows.
    pub trial: TrialId,
    /// Which of its checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointChoice,
}

/// One of the checkpoints that a trial has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointChoice {
    /// The newest.
    #[default]
    Last,
    /// That of its best result.
    Best,
    /// That of a step.
    Step(u64),
}

impl std::fmt::Display for CheckpointChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => formatter.write_str("last"),
            Self::Best => formatter.write_str("best"),
            Self::Step(step) => write!(formatter, "{step}"),
        }
    }
}

impl std::str::FromStr for CheckpointChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("last", _) => Ok(Self::Last),
            ("best", _) => Ok(Self::Best),
            (_, Ok(step)) if (1..=BUDGET_MAX).contains(&step) => Ok(Self::Step(step)),
            _ => Err(format!("`{text}` is none of last, best, or a step from 1")),
        }
    }
}

pub(super) fn read_continuation(field: &Field<'_>) -> Option<Continuation> {
    let section = field.section()?;
    let trial = section.require("trial", "demo-1/t3").and_then(|field| {
        let text = field.text()?;
        text.parse().map_err(|error| field.refuse(format!("{error}"))).ok()
    });
    let checkpoint = match section.get("checkpoint") {
        None => Some(CheckpointChoice::Last),
        Some(field) => read_choice(&field),
    };
    section.finish();
    Some(Continuation { trial: trial?, checkpoint: checkpoint? })
}

fn read_choice(field: &Field<'_>) -> Option<CheckpointChoice> {
    if field.as_whole().is_some() {
        return field.whole(1, BUDGET_MAX).map(CheckpointChoice::Step);
    }
    let choices = [("last", CheckpointChoice::Last), ("best", CheckpointChoice::Best)];
    field.choice(&choices)
}
