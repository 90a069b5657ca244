//! This machine, and what this process takes of it.

use std::fs;
use std::time::{Duration, Instant};

use muster_common::metric::MetricName;

use crate::ffi::Nvml;

/// Ticks of the processor times in `/proc`: 100 a second on every Linux, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Its name, for people and for rows of metrics: that which Slurm knows it by, where there is one.
pub(crate) fn host_name() -> String {
    if let Ok(name) = std::env::var("SLURMD_NODENAME") {
        return name;
    }
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// What `nvidia-smi` and NVML call the GPU that CUDA calls `device` where `visible` are.
pub(crate) fn gpu_of(device: &str, visible: Option<&str>) -> Option<String> {
    let number = device.strip_prefix("cuda:")?;
    let index: usize = number.parse().ok()?;
    match visible {
        None => Some(number.to_owned()),
        Some(visible) => visible.split(',').nth(index).map(|name| name.trim().to_owned()),
    }
}

/// The same for the GPU of this process's slot. `None`: it has none.
pub(crate) fn gpu_of_slot() -> Option<String> {
    let device = std::env::var("MUSTER_SLOT_DEVICE").ok()?;
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    gpu_of(&device, visible.as_deref())
}

/// What a run takes of the machine, looked at now and then.
#[derive(Debug)]
pub(crate) struct Usage {
    since: Instant,
    cpu_seconds: Option<f64>,
    is_new: bool,
    gpu: Option<Nvml>,
}

impl Usage {
    /// Of a run that begins now.
    pub(crate) fn begin() -> Self {
        let gpu = gpu_of_slot().and_then(|gpu| {
            let opened = Nvml::open(&gpu);
            if let Err(reason) = &opened {
                tracing::warn!("no metrics of GPU {gpu}: {reason}");
            }
            opened.ok()
        });
        Self { since: Instant::now(), cpu_seconds: cpu_seconds(), is_new: true, gpu }
    }

    /// What it has taken since the last look; nothing if that was just now.
    pub(crate) fn measure(&mut self) -> Vec<(MetricName, f64)> {
        let passed = self.since.elapsed();
        if passed < LOOK_EVERY && !self.is_new {
            return Vec::new();
        }
        self.is_new = false;
        self.since = Instant::now();
        let before = std::mem::replace(&mut self.cpu_seconds, cpu_seconds());
        let mut found = Vec::new();
        if let (Some(before), Some(now)) = (before, self.cpu_seconds) {
            let share = (now - before) / passed.as_secs_f64().max(1.0 / TICKS_PER_SECOND);
            found.push((MetricName::CPU_SHARE, share));
        }
        if let Some(bytes) = resident_bytes() {
            found.push((MetricName::MEMORY_BYTES, bytes as f64));
        }
        if let Some(gpu) = self.gpu.as_ref().and_then(Nvml::now) {
            found.push((MetricName::GPU_SHARE, gpu.share));
            found.push((MetricName::GPU_MEMORY_BYTES, gpu.memory_bytes as f64));
        }
        found
    }
}

/// Processor time of this process, user and system, all threads.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // proc(5): the second field, the name in parentheses, may hold blanks; 14 and 15 are the times.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// Memory of this process that is in RAM.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_behind_what_is_visible() {
        assert_eq!(gpu_of("cuda:1", None).as_deref(), Some("1"));
        assert_eq!(gpu_of("cuda:1", Some("GPU-a, GPU-b")).as_deref(), Some("GPU-b"));
        assert_eq!(gpu_of("cuda:0", Some("3")).as_deref(), Some("3"));
        assert_eq!(gpu_of("cuda:2", Some("3")), None);
        assert_eq!(gpu_of("cpu", None), None);
    }

    #[test]
    fn a_process_that_computes_and_holds_memory_shows_both() {
        let mut usage = Usage::begin();
        let held = vec![1u8; 64 << 20];
        let (begun, before) = (Instant::now(), cpu_seconds().unwrap());
        let mut sum = 0u64;
        while cpu_seconds().unwrap() < before + 0.3 {
            sum = held.iter().step_by(4096).fold(sum, |sum, byte| sum.wrapping_add((*byte).into()));
        }
        assert!(sum > 0);
        let found = usage.measure();
        let value = |name: MetricName| found.iter().find(|(n, _)| *n == name).unwrap().1;
        // However long it took, the machine being busy; other tests of this process compute too.
        let least = 0.25 / begun.elapsed().as_secs_f64();
        assert!((least..512.0).contains(&value(MetricName::CPU_SHARE)), "{found:?}");
        assert!(value(MetricName::MEMORY_BYTES) >= 67_108_864.0, "{found:?}");
        assert!(usage.measure().is_empty(), "the last look was just now");
    }
}
