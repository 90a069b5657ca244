//! The process group of a runner. A slot is free when nothing of the group lives any more: what a dead
//! runner has left behind would hold its memory and its device.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::time::{Instant, sleep};

/// Between two looks at a group that was killed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A killed process that is still there after this is stuck in the kernel; it is said so, and waited
/// for all the same.
const SAID_AFTER: Duration = Duration::from_secs(10);

/// A process group, by the process that leads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessGroup(Pid);

impl ProcessGroup {
    /// The group that process `leader` was started in as its first.
    pub(super) fn of(leader: u32) -> Option<Self> {
        i32::try_from(leader).ok().and_then(Pid::from_raw).map(Self)
    }

    /// Kills all of it; stopped processes too.
    pub(super) fn kill(self) {
        match kill_process_group(self.0, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "the runner's process group cannot be killed"),
        }
    }

    /// Waits until nothing of it lives.
    pub(super) async fn gone(self) {
        let mut say_at = Some(Instant::now() + SAID_AFTER);
        while self.is_alive() {
            if say_at.is_some_and(|at| at <= Instant::now()) {
                tracing::warn!("what was killed is still there; the slot stays taken");
                say_at = None;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a process of it is there that is not a zombie. Orphans become zombies until whoever
    /// adopted them looks, which in a container may be never; they hold nothing.
    fn is_alive(self) -> bool {
        if test_kill_process_group(self.0) == Err(Errno::SRCH) {
            return false;
        }
        let group = self.0.as_raw_nonzero().get();
        let Ok(processes) = std::fs::read_dir("/proc") else { return true };
        processes.flatten().any(|process| {
            let status = std::fs::read_to_string(process.path().join("stat"));
            status.is_ok_and(|status| lives_in(&status, group))
        })
    }
}

/// Whether the process of a `/proc/PID/stat` line lives and belongs to `group`.
fn lives_in(status: &str, group: i32) -> bool {
    // The second field is the program's name in parentheses and may hold anything.
    let Some((_, rest)) = status.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let state = fields.next();
    let of = fields.nth(1).and_then(|field| field.parse::<i32>().ok());
    of == Some(group) && !matches!(state, None | Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_status_line_is_understood_whatever_the_program_is_called() {
        assert!(lives_in("12 (a) b) S 1 77 77 0 -1", 77));
        assert!(lives_in("12 (x) T 1 77 77 0 -1", 77));
        assert!(!lives_in("12 (x) Z 1 77 77 0 -1", 77));
        assert!(!lives_in("12 (x) S 1 78 77 0 -1", 77));
    }

    #[tokio::test]
    async fn a_group_is_gone_with_its_last_process() {
        // The leader ends at once and leaves a child behind.
        let script = "sleep 600 &";
        let mut leader = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let group = ProcessGroup::of(leader.id()).unwrap();
        leader.wait().unwrap();
        assert!(group.is_alive(), "the child is there");
        group.kill();
        group.gone().await;
        assert!(!group.is_alive());
    }
}
