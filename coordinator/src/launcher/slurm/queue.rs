//! What `squeue` prints, understood.

use muster_common::time::Timestamp;

use crate::launcher::cluster::{Identity, Job};
use crate::launcher::planner::Stage;

/// Id, name, array index, state, start, end, reason. The reason stands last: it may hold anything.
pub(super) const FORMAT: &str = "%i|%j|%K|%T|%S|%e|%r";

/// A line of ours that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("squeue printed `{0}`, which is not understood")]
pub(super) struct BadLine(String);

/// Our jobs among all that were printed.
pub(super) fn parse(text: &str, identity: &Identity) -> Result<Vec<Job>, BadLine> {
    let mut jobs = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(7, '|');
        let (Some(id), Some(name)) = (fields.next(), fields.next()) else { continue };
        let Some(first) = identity.number_in(name.trim()) else { continue };
        let bad = || BadLine(line.to_owned());
        let mut field = || fields.next().map(str::trim).ok_or_else(bad);
        let (index, state) = (field()?, field()?);
        let (start, end, reason) = (field()?, field()?, field()?);
        let index = match index {
            "N/A" | "" | "(null)" => 0,
            index => index.parse::<u64>().map_err(|_| bad())?,
        };
        let id = id.trim();
        // It becomes an argument of scancel.
        let is_id = id.starts_with(|c: char| c.is_ascii_digit())
            && id.chars().all(|c| c.is_ascii_digit() || c == '_');
        if !is_id {
            return Err(bad());
        }
        let stage = stage(state, start, end);
        let waits = stage == Stage::Pending && !reason.is_empty() && reason != "None";
        jobs.push(Job {
            number: first.saturating_add(index),
            id: id.to_owned(),
            stage,
            reason: waits.then(|| reason.to_owned()),
        });
    }
    Ok(jobs)
}

/// States as squeue(1) lists them.
fn stage(state: &str, start: &str, end: &str) -> Stage {
    match state {
        "RUNNING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
            let since = seconds(start).unwrap_or(Timestamp(0));
            Stage::Running { since, ends_at: seconds(end).filter(|end| *end > since) }
        }
        // Its nodes are being started, which may take as long as waiting for them.
        "CONFIGURING" | "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD"
        | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => Stage::Pending,
        _ => Stage::Ending,
    }
}

/// A time that was asked for in seconds since 1970; without one there are words.
fn seconds(text: &str) -> Option<Timestamp> {
    text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000)).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::of_bytes([1; 6])
    }

    #[test]
    fn our_jobs_are_found_among_others() {
        // The lines of Slurm 22.05, with our names in them.
        let text = "2_0|muster-010101010101-3|0|PENDING|N/A|N/A|Resources\n\
            2_1|muster-010101010101-3|1|PENDING|N/A|N/A|None\n\
            1|muster-010101010101-1|N/A|RUNNING|1795874713|1795875013|None\n\
            9|muster-010101010101-2|N/A|RUNNING|1795874713|Unknown|None\n\
            5|muster-020202020202-8|N/A|RUNNING|1795874713|1795875013|None\n\
            6|a|b|N/A|RUNNING|1|2|None\n\
            7|muster-010101010101-6|N/A|COMPLETING|1795874713|1795874714|NonZeroExitCode\n\
            8|muster-010101010101-7|N/A|PENDING|N/A|N/A|(Nodes|required|are DOWN)\n";
        let jobs = parse(text, &identity()).unwrap();
        let numbers: Vec<u64> = jobs.iter().map(|job| job.number).collect();
        assert_eq!(numbers, [3, 4, 1, 2, 6, 7]);
        assert_eq!(jobs[0].reason.as_deref(), Some("Resources"));
        assert_eq!(jobs[1].reason, None);
        let since = Timestamp(1_795_874_713_000);
        let ends_at = Some(Timestamp(1_795_875_013_000));
        assert_eq!(jobs[2].stage, Stage::Running { since, ends_at });
        assert_eq!(jobs[3].stage, Stage::Running { since, ends_at: None });
        assert_eq!(jobs[4].stage, Stage::Ending);
        assert_eq!(jobs[5].reason.as_deref(), Some("(Nodes|required|are DOWN)"));
    }

    #[test]
    fn a_line_of_ours_that_is_odd_is_said() {
        for bad in [
            "2|muster-010101010101-3|N/A|PENDING",
            "-u|muster-010101010101-3|N/A|PENDING|N/A|N/A|None",
            "2_[0-1]|muster-010101010101-3|0-1|PENDING|N/A|N/A|None",
        ] {
            assert!(parse(bad, &identity()).unwrap_err().to_string().contains(bad));
        }
    }
}
