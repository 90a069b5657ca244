//! Limits that the kernel sets: memory of a process, and the size of a disk. Both need root.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A control group whose processes may not have more memory; removed when dropped.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    /// Makes a group beside that of this process, or says why that is impossible here.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("muster-test-{}", std::process::id());
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (root, limit) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                _ => continue,
            };
            for parent in [Path::new(root).join(path.trim_start_matches('/')), root.into()] {
                let folder = parent.join(&name);
                if !parent.is_dir() || fs::create_dir(&folder).is_err() {
                    continue;
                }
                let group = Self { folder };
                if fs::write(group.folder.join(limit), bytes.to_string()).is_ok() {
                    return Ok(group);
                }
            }
        }
        Err("root: no control groups with a memory limit can be made here".to_owned())
    }

    /// What process `pid` takes from now on counts.
    pub fn hold(&self, pid: u32) -> std::io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _still_used = fs::remove_dir(&self.folder);
    }
}

/// A file system of its own in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts it at `folder`, or says why that is impossible here.
    pub fn mount(folder: &Path, mebibytes: u32) -> Result<Self, String> {
        let said =
            |error: std::io::Error| format!("root: no file system can be mounted here: {error}");
        fs::create_dir_all(folder).map_err(said)?;
        let size = format!("size={mebibytes}m");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .map_err(said)?;
        if done.status.success() {
            return Ok(Self { folder: folder.to_owned() });
        }
        Err(said(std::io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned())))
    }

    /// Fills it to the last byte.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut file = File::create(self.ballast())?;
        for block in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; block];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes away what filled it.
    pub fn clear(&self) -> std::io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: who still writes there is killed by its own guard.
        let _gone = Command::new("umount").arg("-l").arg(&self.folder).output();
    }
}
