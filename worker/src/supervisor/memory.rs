//! Whether the kernel has killed somebody because memory ran out. A process that it kills says nothing
//! itself, and its end looks like any other `kill -9`.

use std::path::{Path, PathBuf};

/// A counter of such kills: that of our control group where there is one, else the machine's.
#[derive(Debug)]
pub(super) struct MemoryKills {
    file: Option<PathBuf>,
    before: u64,
}

impl MemoryKills {
    /// Counts from here on.
    pub(super) fn watch() -> Self {
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let files = events_file(&group).into_iter().chain([PathBuf::from("/proc/vmstat")]);
        let found = files.into_iter().find_map(|file| {
            let count = read(&file)?;
            Some((file, count))
        });
        let (file, before) = found.map_or((None, 0), |(file, count)| (Some(file), count));
        Self { file, before }
    }

    /// Whether there was one since.
    pub(super) fn any(&self) -> bool {
        self.file.as_deref().and_then(read).is_some_and(|now| now > self.before)
    }
}

/// The file of our group, from `/proc/self/cgroup`; control groups of version 2 only.
fn events_file(group: &str) -> Option<PathBuf> {
    let path = group.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path).join("memory.events"))
}

fn read(file: &Path) -> Option<u64> {
    count(&std::fs::read_to_string(file).ok()?)
}

/// The number after `oom_kill`, which both files have on a line of its own.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_files_are_understood() {
        assert_eq!(count("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(count("pgfault 1\noom_kill 7\n"), Some(7));
        assert_eq!(count("pgfault 1\n"), None);
        let file = events_file("1:name=x:/a\n0::/user/job\n").unwrap();
        assert_eq!(file, Path::new("/sys/fs/cgroup/user/job/memory.events"));
        assert_eq!(events_file("1:memory:/a\n"), None);
    }

    #[test]
    fn a_kill_after_the_start_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        std::fs::write(&file, "oom_kill 4\n").unwrap();
        let kills = MemoryKills { file: Some(file.clone()), before: 4 };
        assert!(!kills.any());
        std::fs::write(&file, "oom_kill 5\n").unwrap();
        assert!(kills.any());
        assert!(!MemoryKills { file: None, before: 0 }.any());
    }
}
