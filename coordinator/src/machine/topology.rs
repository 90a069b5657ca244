//! The processors that this process may use, as the kernel shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::cores::{Core, of_list};

/// Where the kernel tells about the machine.
pub(super) const SYS: &str = "/sys";

/// Processors that the calling thread may use; `None`: there are more than can be asked for (1024), or
/// this kernel does not say.
pub(super) fn allowed() -> Option<BTreeSet<u32>> {
    let set = sched_getaffinity(None).ok()?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    Some(cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect())
}

/// Processors as cores and nodes. What `/sys` does not tell is taken for a core of its own, on node 0.
pub(super) fn cores(sys: &Path, allowed: &BTreeSet<u32>) -> Vec<Core> {
    let nodes = nodes(sys);
    let mut seen = BTreeSet::new();
    let mut cores = Vec::new();
    for cpu in allowed {
        if seen.contains(cpu) {
            continue;
        }
        let file = sys.join(format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        let siblings = std::fs::read_to_string(file).ok().and_then(|text| of_list(&text));
        let mut cpus: Vec<u32> = siblings.unwrap_or_default();
        cpus.retain(|sibling| allowed.contains(sibling) && !seen.contains(sibling));
        if !cpus.contains(cpu) {
            cpus = vec![*cpu];
        }
        seen.extend(cpus.iter().copied());
        let node = nodes.get(cpu).copied().unwrap_or(0);
        cores.push(Core { cpus, node });
    }
    cores
}

/// The NUMA node of every processor.
fn nodes(sys: &Path) -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir(sys.join("devices/system/node")).into_iter().flatten();
    let mut nodes = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        let Some(node) = number.and_then(|number| number.parse::<u32>().ok()) else { continue };
        let text = std::fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
        nodes.extend(of_list(&text).unwrap_or_default().into_iter().map(|cpu| (cpu, node)));
    }
    nodes
}

/// Calls `start` with the calling thread on `cpus` only: a process that it starts inherits that. Afterwards
/// the thread may run where it could before. Without any, or where the kernel refuses, nothing changes.
pub(crate) fn pinned_to<T>(cpus: &[u32], start: impl FnOnce() -> T) -> T {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter_map(|cpu| usize::try_from(*cpu).ok()) {
        if cpu < CpuSet::MAX_CPU {
            set.set(cpu);
        }
    }
    let before = if cpus.is_empty() { None } else { sched_getaffinity(None).ok() };
    let Some(before) = before else { return start() };
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(%error, ?cpus, "a worker is not pinned to its processors");
        return start();
    }
    let started = start();
    if let Err(error) = sched_setaffinity(None, &before) {
        tracing::warn!(%error, "a thread of the coordinator stays on a worker's processors");
    }
    started
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn cores_and_nodes_are_read_as_the_kernel_writes_them() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = sys.path().join("devices/system").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for (cpu, siblings) in
            [(0, "0,4"), (1, "1,5"), (2, "2,6"), (4, "0,4"), (5, "1,5"), (6, "2,6")]
        {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{siblings}\n"));
        }
        write("node/node0/cpulist", "0-1,4-5\n");
        write("node/node1/cpulist", "2-3,6-7\n");
        write("node/possible", "0-1\n");
        let allowed = BTreeSet::from([0, 2, 3, 4, 6]);
        let core = |cpus: &[u32], node| Core { cpus: cpus.to_vec(), node };
        let expected = [core(&[0, 4], 0), core(&[2, 6], 1), core(&[3], 1)];
        assert_eq!(cores(sys.path(), &allowed), expected);
        let nowhere = cores(Path::new("/nowhere"), &BTreeSet::from([7, 9]));
        assert_eq!(nowhere, [core(&[7], 0), core(&[9], 0)]);
    }

    #[test]
    fn a_process_starts_where_it_is_pinned_and_the_thread_goes_back() {
        let before = allowed().unwrap();
        let last = *before.iter().last().unwrap();
        let shown = || Command::new("cat").arg("/proc/self/status").output().unwrap();
        let of_child = |cpus: &[u32]| {
            let text = String::from_utf8(pinned_to(cpus, shown).stdout).unwrap();
            let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            of_list(list.unwrap()).unwrap()
        };
        assert_eq!(of_child(&[last]), [last]);
        assert_eq!(allowed().unwrap(), before);
        let all: Vec<u32> = before.iter().copied().collect();
        assert_eq!(of_child(&[]), all);
        // A processor that is not there: the process starts all the same.
        assert_eq!(of_child(&[1023]), all);
    }
}
