//! Snapshots of an engine in memory, row by row as a journal keeps them.

use std::collections::BTreeMap;

use muster_coordinator::engine::Engine;
use muster_coordinator::engine::saved::{Restoring, RowKey};

/// The rows of all snapshots so far.
#[derive(Debug, Default)]
pub struct Snapshots(BTreeMap<RowKey, String>);

impl Snapshots {
    /// Takes a snapshot and gives the engine that comes out of all there are.
    pub fn restore(&mut self, engine: &mut Engine) -> anyhow::Result<Engine> {
        self.0.extend(engine.unsaved()?);
        engine.mark_saved();
        let mut restoring = Restoring::new(&engine.head()?)?;
        for (key, row) in &self.0 {
            let RowKey::Experiment(id) = key else { continue };
            restoring.experiment(row)?;
            for (key, row) in &self.0 {
                match key {
                    RowKey::Trial(trial) if trial.experiment == *id => restoring.trial(row)?,
                    RowKey::Decision(experiment, _) if experiment == id => {
                        restoring.decision(row)?;
                    }
                    RowKey::Experiment(_) | RowKey::Trial(_) | RowKey::Decision(..) => {}
                }
            }
        }
        Ok(restoring.finish())
    }
}
