//! How many slots there are or may be: a gang that needs more is refused when it is submitted, not left
//! to wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use muster_common::manifest::Slots;

use crate::launcher::profile::ClusterProfile;
use crate::launcher::slurm::step::OwnAllocation;
use crate::machine::slots::LocalSlots;
use crate::settings::Settings;

/// What is known of the slots besides the workers that are connected.
#[derive(Debug, Clone, Default)]
pub struct Capacity {
    /// Workers that this process starts; they may not be connected yet.
    planned: Arc<AtomicU32>,
    /// Slots there may be one day, as the settings say; 0: they do not.
    most: u32,
}

/// A gang that could never start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "resources.slots: a trial trains on {slots}, but there are {available}; write {mend}, or give \
     the coordinator more: --slots {least}, more workers, or max_slots in its settings for those \
     that are still to come"
)]
pub struct TooLarge {
    slots: Slots,
    available: u32,
    least: u32,
    mend: String,
}

impl Capacity {
    /// `most` as the settings say it.
    pub fn new(most: u32) -> Self {
        Self { planned: Arc::default(), most }
    }

    /// Of a process that has its own workers only: those of its `local` slots, or of a cluster.
    pub fn local(settings: &Settings, local: Option<&LocalSlots>) -> Self {
        let capacity = Self::new(0);
        // A cluster that is not known has been refused before.
        let cluster = settings.profile().ok().flatten().map(|profile| {
            let variable = |name: &str| std::env::var(name).ok();
            let own = match &profile {
                ClusterProfile::Slurm(slurm) => OwnAllocation::of_environment(slurm, variable),
                ClusterProfile::Kubernetes(_) => None,
            };
            own.map_or_else(|| profile.pace().limits.max_slots(), |own| own.num_workers())
        });
        capacity.plan(cluster.or_else(|| local.map(LocalSlots::count)).unwrap_or(0));
        capacity
    }

    /// This process starts so many workers.
    pub fn plan(&self, num_workers: u32) {
        self.planned.store(num_workers, Ordering::Relaxed);
    }

    /// Refuses what could never start. One slot is always waited for: a service may be started before
    /// its first worker.
    pub fn check(&self, slots: Slots, num_workers: usize) -> Result<(), TooLarge> {
        let connected = u32::try_from(num_workers).unwrap_or(u32::MAX);
        let available = connected.max(self.planned.load(Ordering::Relaxed)).max(self.most);
        let least = slots.min();
        if least <= available.max(1) {
            return Ok(());
        }
        let mend = match (slots, available) {
            (_, 0 | 1) => "`slots: 1`".to_owned(),
            (Slots::Fixed(_), _) => format!("`slots: {available}`"),
            (Slots::Elastic { .. }, _) => format!("`min: {available}`"),
        };
        Err(TooLarge { slots, available, least, mend })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_never_start_is_refused_with_the_reason() {
        let capacity = Capacity::new(0);
        assert_eq!(capacity.check(Slots::Fixed(1), 0), Ok(()));
        let elastic = Slots::Elastic { min: 3, max: 9, grace_seconds: 1 };
        capacity.plan(2);
        assert_eq!(capacity.check(Slots::Fixed(2), 0), Ok(()));
        for (slots, words) in [(Slots::Fixed(4), "`slots: 2`"), (elastic, "`min: 2`")] {
            let text = capacity.check(slots, 1).unwrap_err().to_string();
            assert!(text.contains("there are 2") && text.contains(words), "{text}");
        }
        assert_eq!(capacity.check(elastic, 3), Ok(()));
        assert_eq!(Capacity::new(8).check(Slots::Fixed(8), 0), Ok(()));
        assert!(Capacity::new(8).check(Slots::Fixed(9), 0).is_err());
    }
}
