//! Snapshots of an engine in memory, row by row as a journal keeps them.

use std::collections::BTreeMap;

use muster_coordinator::engine::Engine;
use muster_coordinator::engine::saved::{Restoring, RowKey};

/// The rows of all snapshots so far, and the head of the last.
#[derive(Debug, Default)]
pub struct Snapshots {
    rows: BTreeMap<RowKey, String>,
    head: Option<String>,
}

impl Snapshots {
    /// Takes a snapshot.
    pub fn take(&mut self, engine: &mut Engine) -> anyhow::Result<()> {
        self.rows.extend(engine.unsaved()?);
        self.head = Some(engine.head()?);
        engine.mark_saved();
        Ok(())
    }

    /// The engine that comes out of all there are; one that has seen nothing if there is none.
    pub fn restored(&self) -> anyhow::Result<Engine> {
        let Some(head) = &self.head else { return Ok(Engine::default()) };
        let mut restoring = Restoring::new(head)?;
        for (key, row) in &self.rows {
            let RowKey::Experiment(id) = key else { continue };
            restoring.experiment(row)?;
            for (key, row) in &self.rows {
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

    /// Takes a snapshot and gives the engine that comes out of all there are.
    pub fn restore(&mut self, engine: &mut Engine) -> anyhow::Result<Engine> {
        self.take(engine)?;
        self.restored()
    }
}
