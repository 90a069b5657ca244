//! Runs: what a worker is told to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_common::id::{Attempt, Generation};
use muster_common::manifest::{Assignment, Category, Manifest, ParameterValue};
use muster_common::run::{Directive, Gang, RunSpec, Task, TrainTask};
use muster_common::storage::CheckpointKey;

use super::{ConvertError, required};
use crate::v1;

impl From<&CheckpointKey> for v1::Checkpoint {
    fn from(key: &CheckpointKey) -> Self {
        Self { trial_id: key.trial.to_string(), step: key.step, generation: key.generation.0 }
    }
}

impl TryFrom<v1::Checkpoint> for CheckpointKey {
    type Error = ConvertError;
    fn try_from(wire: v1::Checkpoint) -> Result<Self, ConvertError> {
        let trial = wire.trial_id.parse().map_err(ConvertError::id("checkpoint.trial_id"))?;
        Ok(Self { trial, step: wire.step, generation: Generation(wire.generation) })
    }
}

/// An assignment as the wire writes it.
pub fn assignment_to_wire(assignment: &Assignment) -> BTreeMap<String, v1::ParameterValue> {
    use v1::parameter_value::Value;
    let value = |value: &ParameterValue| match value {
        ParameterValue::Int(n) => Value::Int(*n),
        ParameterValue::Float(x) => Value::Float(*x),
        ParameterValue::Category(category) => Value::Category(category.name().to_owned()),
    };
    let entry = |(name, found): (&String, &ParameterValue)| {
        (name.clone(), v1::ParameterValue { value: Some(value(found)) })
    };
    assignment.iter().map(entry).collect()
}

/// An assignment from the wire.
pub fn assignment_from_wire(
    wire: BTreeMap<String, v1::ParameterValue>,
) -> Result<Assignment, ConvertError> {
    use v1::parameter_value::Value;
    let entry = |(name, found): (String, v1::ParameterValue)| {
        let value = match required(found.value, "assignment.value")? {
            Value::Int(n) => ParameterValue::Int(n),
            Value::Float(x) => ParameterValue::Float(x),
            Value::Category(word) => {
                let illegal = || ConvertError::Illegal {
                    field: "assignment.value",
                    reason: format!("`{word}` is no word that this build knows"),
                };
                ParameterValue::Category(Category::find(&word).ok_or_else(illegal)?)
            }
        };
        Ok((name, value))
    };
    wire.into_iter().map(entry).collect()
}

impl From<&Task> for v1::run_spec::Task {
    fn from(task: &Task) -> Self {
        match task {
            Task::Prepare { part, num_parts } => {
                Self::Prepare(v1::PrepareTask { part: *part, num_parts: *num_parts })
            }
            Task::Train(task) => Self::Train(v1::TrainTask {
                trial_id: task.trial.to_string(),
                attempt: task.attempt.0,
                assignment: assignment_to_wire(&task.assignment),
                target_step: task.target_step,
                total_steps: task.total_steps,
                resume_from: task.resume_from.as_ref().map(Into::into),
                seed_of: task.seed_of,
                earlier: task.earlier.iter().map(Into::into).collect(),
            }),
            Task::Finish { trial, assignment, checkpoint } => Self::Finish(v1::FinishTask {
                trial_id: trial.to_string(),
                assignment: assignment_to_wire(assignment),
                checkpoint: Some(checkpoint.into()),
            }),
        }
    }
}

impl TryFrom<v1::run_spec::Task> for Task {
    type Error = ConvertError;
    fn try_from(wire: v1::run_spec::Task) -> Result<Self, ConvertError> {
        match wire {
            v1::run_spec::Task::Prepare(task) => {
                Ok(Self::Prepare { part: task.part, num_parts: task.num_parts })
            }
            v1::run_spec::Task::Train(task) => Ok(Self::Train(TrainTask {
                trial: task.trial_id.parse().map_err(ConvertError::id("train.trial_id"))?,
                attempt: Attempt(task.attempt),
                assignment: assignment_from_wire(task.assignment)?,
                target_step: task.target_step,
                total_steps: task.total_steps,
                resume_from: task.resume_from.map(TryInto::try_into).transpose()?,
                seed_of: task.seed_of,
                earlier: task
                    .earlier
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
            })),
            v1::run_spec::Task::Finish(task) => Ok(Self::Finish {
                trial: task.trial_id.parse().map_err(ConvertError::id("finish.trial_id"))?,
                assignment: assignment_from_wire(task.assignment)?,
                checkpoint: required(task.checkpoint, "finish.checkpoint")?.try_into()?,
            }),
        }
    }
}

impl From<&Gang> for v1::Gang {
    fn from(gang: &Gang) -> Self {
        let rendezvous = gang.rendezvous.clone();
        Self { rank: gang.rank, world_size: gang.world_size, rendezvous }
    }
}

impl TryFrom<v1::Gang> for Gang {
    type Error = ConvertError;
    fn try_from(wire: v1::Gang) -> Result<Self, ConvertError> {
        let (rank, world_size) = (wire.rank, wire.world_size);
        if world_size < 2 || rank >= world_size {
            let reason = format!("rank {rank} of {world_size}");
            return Err(ConvertError::Illegal { field: "gang", reason });
        }
        if (rank == 0) != wire.rendezvous.is_none() {
            let reason = format!("rank {rank} has {:?}", wire.rendezvous);
            return Err(ConvertError::Illegal { field: "gang.rendezvous", reason });
        }
        Ok(Self { rank, world_size, rendezvous: wire.rendezvous })
    }
}

/// Writes runs for the wire. The text of the manifest is kept: most runs that start one after the other have the same.
#[derive(Debug, Default)]
pub struct RunWriter {
    last: Mutex<Option<(Arc<Manifest>, String)>>,
}

impl RunWriter {
    /// The message that says what `spec` does.
    pub fn write(&self, spec: &RunSpec) -> Result<v1::RunSpec, ConvertError> {
        Ok(v1::RunSpec {
            generation: spec.generation.0,
            experiment_id: spec.experiment.to_string(),
            manifest_json: self.text(&spec.manifest)?,
            store: spec.store.clone(),
            task: Some((&spec.task).into()),
            gang: spec.gang.as_ref().map(Into::into),
        })
    }

    fn text(&self, manifest: &Arc<Manifest>) -> Result<String, ConvertError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, text)) = &*last
            && Arc::ptr_eq(known, manifest)
        {
            return Ok(text.clone());
        }
        let text = serde_json::to_string(&**manifest).map_err(|error| ConvertError::Illegal {
            field: "manifest_json",
            reason: error.to_string(),
        })?;
        *last = Some((Arc::clone(manifest), text.clone()));
        Ok(text)
    }
}

impl TryFrom<v1::RunSpec> for RunSpec {
    type Error = ConvertError;
    fn try_from(wire: v1::RunSpec) -> Result<Self, ConvertError> {
        let manifest = serde_json::from_str(&wire.manifest_json).map_err(|error| {
            ConvertError::Illegal { field: "manifest_json", reason: error.to_string() }
        })?;
        Ok(Self {
            generation: Generation(wire.generation),
            experiment: wire.experiment_id.parse().map_err(ConvertError::id("experiment_id"))?,
            task: required(wire.task, "task")?.try_into()?,
            manifest: Arc::new(manifest),
            store: wire.store,
            gang: wire.gang.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Directive> for v1::Directive {
    fn from(directive: Directive) -> Self {
        match directive {
            Directive::Preempt => Self::Preempt,
            Directive::Cancel => Self::Cancel,
        }
    }
}

impl TryFrom<v1::Directive> for Directive {
    type Error = ConvertError;
    fn try_from(wire: v1::Directive) -> Result<Self, ConvertError> {
        match wire {
            v1::Directive::Preempt => Ok(Self::Preempt),
            v1::Directive::Cancel => Ok(Self::Cancel),
            v1::Directive::Unspecified => Err(ConvertError::Missing { field: "directive" }),
        }
    }
}
