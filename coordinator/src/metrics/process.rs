//! What the kernel says of this process. On a system without `/proc` all of it is zero.

use std::fs;
use std::sync::OnceLock;

/// Ticks of the processor times in `/proc`: 100 a second on every Linux, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    /// Of user and system.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: usize,
    /// Seconds since 1970.
    pub(super) started_at: f64,
    pub(super) num_files: usize,
}

/// Of this process, now.
pub(super) fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let num_files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let ticks = |field| stat_field(&stat, field).unwrap_or(0.0);
    Usage {
        cpu_seconds: (ticks(14) + ticks(15)) / TICKS_PER_SECOND,
        resident_bytes: resident_bytes(&status).unwrap_or(0),
        started_at: booted_at().map_or(0.0, |booted| booted + ticks(22) / TICKS_PER_SECOND),
        num_files,
    }
}

/// Field `number` of `/proc/PID/stat`, as proc(5) counts them from 1. The second, the name, may hold blanks.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn resident_bytes(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// When the machine started, seconds since 1970.
fn booted_at() -> Option<f64> {
    static BOOTED_AT: OnceLock<Option<f64>> = OnceLock::new();
    *BOOTED_AT.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 3 0 800 1 2";
        assert_eq!(stat_field(stat, 14), Some(250.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 22), Some(800.0));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288));
    }

    #[test]
    fn this_process_uses_memory_and_files() {
        let usage = usage();
        assert!(usage.resident_bytes > 100_000 && usage.num_files > 0, "{usage:?}");
        assert!(usage.started_at > 1e9, "{usage:?}");
    }
}
