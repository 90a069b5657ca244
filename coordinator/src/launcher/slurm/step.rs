//! Workers inside the allocation that this process runs in: each is a step of the job, started like a local
//! worker, with `srun` before it. They end with the coordinator, as local ones do.

use muster_common::time::Timestamp;

use crate::launcher::profile::{Profile, SlotDevice};

/// The allocation that a process runs in, as its environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAllocation {
    job: String,
    num_workers: u32,
    ends_at: Option<Timestamp>,
}

impl OwnAllocation {
    /// `None`: the process runs in none.
    pub fn of_environment(
        profile: &Profile,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let is_number = |job: &String| job.chars().all(|c| c.is_ascii_digit());
        let job = variable("SLURM_JOB_ID").filter(is_number)?;
        let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
        // Who asked for an allocation without tasks meant its nodes.
        // Each worker is a step of its own here, and steps do not share GPUs.
        let each = profile.workers_per_node / profile.slots_per_gpu.max(1);
        let by_nodes = || number("SLURM_JOB_NUM_NODES").unwrap_or(1) * each;
        let num_workers = number("SLURM_NTASKS").unwrap_or_else(by_nodes).max(1);
        let seconds = variable("SLURM_JOB_END_TIME").and_then(|text| text.parse::<u64>().ok());
        let ends_at = seconds.map(|seconds| Timestamp(seconds.saturating_mul(1000)));
        Some(Self { job, num_workers, ends_at })
    }

    /// Workers that it has room for.
    pub fn num_workers(&self) -> u32 {
        self.num_workers
    }

    /// Its number.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// When it ends, where the environment tells.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.ends_at
    }

    /// What stands before the worker program: one step of one task, with its share of the allocation.
    pub fn wrapper(&self, profile: &Profile) -> Vec<String> {
        let cpus = format!("--cpus-per-task={}", profile.cpus_per_worker);
        // Memory belongs to the job; without this the first step would take all of it.
        let usual = ["srun", "--nodes=1", "--ntasks=1", "--exact", "--mem=0", &cpus];
        let mut words: Vec<String> = usual.map(ToOwned::to_owned).to_vec();
        if profile.gpus_per_worker > 0 {
            words.push(format!("--gpus-per-task={}", profile.gpus_per_worker));
        }
        words
    }

    /// What the workers find in their environment.
    pub fn environment(
        &self,
        profile: &Profile,
        ends_at: Option<Timestamp>,
    ) -> Vec<(String, String)> {
        let device = match profile.device() {
            SlotDevice::Cpu => "cpu",
            SlotDevice::Cuda => "cuda:0",
        };
        let mut found = vec![
            ("MUSTER_SLOT_DEVICE".to_owned(), device.to_owned()),
            ("MUSTER_DRAIN_SECONDS".to_owned(), profile.drain_seconds.to_string()),
        ];
        found.extend(ends_at.map(|at| ("MUSTER_ENDS_AT".to_owned(), (at.0 / 1000).to_string())));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<OwnAllocation> {
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let profile = Profile { workers_per_node: 3, ..Profile::default() };
        OwnAllocation::of_environment(&profile, find)
    }

    #[test]
    fn an_allocation_has_a_worker_for_each_task_or_as_many_as_the_profile_says() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("SLURM_JOB_ID", "7; id")]), None);
        let tasks = of(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "5")]).unwrap();
        assert_eq!((tasks.num_workers(), tasks.ends_at()), (5, None));
        let variables =
            [("SLURM_JOB_ID", "7"), ("SLURM_JOB_NUM_NODES", "2"), ("SLURM_JOB_END_TIME", "9")];
        let nodes = of(&variables).unwrap();
        assert_eq!((nodes.num_workers(), nodes.ends_at()), (6, Some(Timestamp(9000))));
        let words = nodes.wrapper(&Profile { gpus_per_worker: 0, ..Profile::default() });
        assert!(!words.iter().any(|word| word.contains("gpus")), "{words:?}");
    }
}
