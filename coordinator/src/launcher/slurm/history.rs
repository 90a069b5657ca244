//! What `sacct` prints of jobs that are over, understood.

use std::collections::BTreeMap;

use muster_common::time::Timestamp;

use crate::launcher::cluster::{End, Gone};

/// Id, state, exit code, start, end, nodes.
pub(super) const FORMAT: &str = "JobID,State,ExitCode,Start,End,NodeList";
/// What `sacct` says where nobody writes anything down.
const NO_RECORDS: &str = "accounting storage is disabled";

/// Whether `sacct` will never know anything here.
pub(super) fn says_there_are_none(said: &str) -> bool {
    said.to_lowercase().contains(NO_RECORDS)
}

/// One time that a job was started.
struct Row<'a> {
    state: &'a str,
    exit_code: &'a str,
    start: &'a str,
    end: u64,
    nodes: &'a str,
}

impl<'a> Row<'a> {
    /// `None`: it is not over, or not a line of `sacct`.
    fn of(line: &'a str) -> Option<(&'a str, Self)> {
        let mut fields = line.split('|').map(str::trim);
        let id = fields.next()?;
        let row = Self {
            state: fields.next()?,
            exit_code: fields.next()?,
            start: fields.next()?,
            end: fields.next()?.parse().ok()?,
            nodes: fields.next()?,
        };
        meaning(row.state).map(|_| (id, row))
    }

    fn began_at(&self, since: Timestamp) -> bool {
        self.start.parse::<u64>().is_ok_and(|start| start == since.0 / 1000)
    }

    fn end(&self, id: &str) -> End {
        let (words, is_failure) = meaning(self.state).unwrap_or((self.state, true));
        let exit = match self.exit_code {
            "0:0" | "" => String::new(),
            code => format!(", exit code {code}"),
        };
        let nodes = match self.nodes {
            "None assigned" | "" => String::new(),
            nodes => format!(", on {nodes}"),
        };
        let reason = format!("{words} ({}{exit}{nodes})", self.state);
        End { id: id.to_owned(), reason, is_failure }
    }
}

/// How jobs have ended, of those that were asked for and whose end is written down. A job that was started more than
/// once has a line for each time.
pub(super) fn parse(text: &str, gone: &[Gone]) -> Vec<End> {
    let mut rows: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
    for (id, row) in text.lines().filter_map(Row::of) {
        rows.entry(id).or_default().push(row);
    }
    let end = |gone: &Gone| {
        let rows = rows.get(gone.id.as_str())?.iter();
        let fits = rows.filter(|row| gone.since.is_none_or(|since| row.began_at(since)));
        Some(fits.max_by_key(|row| row.end)?.end(&gone.id))
    };
    gone.iter().filter_map(end).collect()
}

/// States of sacct(1) that are ends, in words, and whether something went wrong. What else there is goes on.
fn meaning(state: &str) -> Option<(&'static str, bool)> {
    Some(match state.split(' ').next().unwrap_or_default() {
        "COMPLETED" => ("its workers have left", false),
        "CANCELLED" => ("somebody has canceled it", true),
        "TIMEOUT" => ("its time was over", true),
        "DEADLINE" => ("its deadline was over", true),
        "NODE_FAIL" => ("a node of it has failed", true),
        "BOOT_FAIL" => ("a node of it did not start", true),
        "OUT_OF_MEMORY" => ("it had not enough memory", true),
        "PREEMPTED" => ("another job took its place", true),
        "REQUEUED" => ("it was put back into the queue", true),
        "REVOKED" => ("another cluster runs it", true),
        "FAILED" => ("its script has failed", true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(id: &str, since: Option<u64>) -> Gone {
        Gone { id: id.to_owned(), since: since.map(|seconds| Timestamp(seconds * 1000)) }
    }

    #[test]
    fn ends_are_told_of_those_that_are_over() {
        // The lines of Slurm 22.05.
        let text = "11|COMPLETED|0:0|1795874713|1795874800|n1\n\
            12|OUT_OF_MEMORY|0:125|1795874713|1795874800|n[1-2]\n\
            13|RUNNING|0:0|1795874713|Unknown|n1\n\
            14_1|CANCELLED by 1000|0:15|1795874713|1795874800|n1\n\
            15|CANCELLED by 0|0:0|None|1795874800|None assigned\n\
            16|TIMEOUT|0:0|1795874713|1795874800|n3\n\
            99|FAILED|1:0|1795874713|1795874800|n3\n\
            odd\n";
        let all = ["11", "12", "13", "14_1", "15", "16", "17"].map(|id| gone(id, None));
        let ends = parse(text, &all);
        let told: Vec<(&str, &str, bool)> =
            ends.iter().map(|end| (end.id.as_str(), end.reason.as_str(), end.is_failure)).collect();
        assert_eq!(
            told,
            [
                ("11", "its workers have left (COMPLETED, on n1)", false),
                (
                    "12",
                    "it had not enough memory (OUT_OF_MEMORY, exit code 0:125, on n[1-2])",
                    true
                ),
                (
                    "14_1",
                    "somebody has canceled it (CANCELLED by 1000, exit code 0:15, on n1)",
                    true
                ),
                ("15", "somebody has canceled it (CANCELLED by 0)", true),
                ("16", "its time was over (TIMEOUT, on n3)", true),
            ]
        );
    }

    #[test]
    fn of_a_job_that_was_started_again_the_right_time_is_told() {
        let text = "7|NODE_FAIL|0:0|1000|1060|n1\n7|PREEMPTED|0:0|2000|2100|n2\n7|RUNNING|0:0|3000|Unknown|n1\n";
        let reason = |since| parse(text, &[gone("7", since)]).pop().map(|end| end.reason);
        assert!(reason(Some(1000)).unwrap().contains("NODE_FAIL"));
        assert!(reason(Some(2000)).unwrap().contains("PREEMPTED"));
        assert_eq!(reason(Some(3000)), None, "it is not written down yet");
        assert!(reason(None).unwrap().contains("PREEMPTED"), "the last one");
    }

    #[test]
    fn without_accounting_nobody_is_asked_again() {
        assert!(says_there_are_none("Slurm accounting storage is disabled\n"));
        let away = "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection";
        assert!(!says_there_are_none(away));
    }
}
