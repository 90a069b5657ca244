//! Memory of the slot's GPU. A dead runner's memory there is free a moment later than its process is gone;
//! who gets the slot before would run out of it.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::machine::gpu_of_slot;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time one look may take: drivers wake up slowly.
const ANSWER: Duration = Duration::from_secs(5);
/// After this the slot is offered all the same: others may use the GPU too.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a GPU may hold more than at first, MiB: the driver keeps a little for itself.
const SLACK_MIB: u64 = 64;

/// How many slots the GPU has, where that is not one.
const SLOTS_ON_GPU: &str = "MUSTER_SLOTS_ON_GPU";

/// The GPU of a slot, and what was in use on it before the slot's first runner.
#[derive(Debug, Clone)]
pub(super) struct GpuMemory {
    /// Prints what is in use, MiB.
    command: Vec<String>,
    baseline_mib: u64,
}

impl GpuMemory {
    /// That of this process's slot. `None`: it has no GPU, not one for itself, or nobody here can tell.
    pub(super) async fn of_slot() -> Option<Self> {
        let gpu = gpu_of_slot()?;
        if is_shared(std::env::var(SLOTS_ON_GPU).ok().as_deref()) {
            // What is in use there says nothing about this slot.
            return None;
        }
        let words =
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", &gpu];
        let found = Self::of(words.map(ToOwned::to_owned).to_vec()).await;
        if found.is_none() {
            tracing::warn!(
                "nvidia-smi does not tell the memory of GPU {gpu}: nobody waits until it is free"
            );
        }
        found
    }

    async fn of(command: Vec<String>) -> Option<Self> {
        let mut memory = Self { command, baseline_mib: 0 };
        memory.baseline_mib = memory.used_mib().await?;
        Some(memory)
    }

    /// Waits until no more is in use than at first.
    pub(super) async fn freed(&self) {
        let begun = Instant::now();
        while let Some(used) = self.used_mib().await {
            if used <= self.baseline_mib + SLACK_MIB {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let baseline = self.baseline_mib;
                tracing::warn!(used, baseline, "memory of the GPU is not free, MiB");
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn used_mib(&self) -> Option<u64> {
        let (program, arguments) = self.command.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments);
        let output = timeout(ANSWER, command.kill_on_drop(true).output()).await.ok()?.ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }
}

fn is_shared(num_slots: Option<&str>) -> bool {
    num_slots.and_then(|text| text.parse::<u32>().ok()).is_some_and(|num_slots| num_slots > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_gpu_of_several_slots_is_known_as_such() {
        assert!(is_shared(Some("2")));
        assert!(
            [None, Some("1"), Some("0"), Some("many")].into_iter().all(|text| !is_shared(text))
        );
    }

    #[tokio::test]
    async fn what_is_in_use_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let used = folder.path().join("used");
        fs::write(&used, "500\n").unwrap();
        let command = |program: &str| vec![program.to_owned(), used.display().to_string()];
        let memory = GpuMemory::of(command("cat")).await.unwrap();
        memory.freed().await;
        fs::write(&used, "9000\n").unwrap();
        let waiting = tokio::spawn(async move { memory.freed().await });
        sleep(Duration::from_millis(200)).await;
        assert!(!waiting.is_finished());
        fs::write(&used, "510\n").unwrap();
        waiting.await.unwrap();
        assert!(GpuMemory::of(command("/nowhere/smi")).await.is_none());
    }
}
