//! How allocations have ended: what was there at one look and not at the next is asked of the cluster's records, and
//! what they say is told to people for a while. Pure: it is told what was seen and when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use muster_common::time::Timestamp;

use super::cluster::{End, Gone, Job};
use super::planner::Stage;

/// Records come later than the queue; what is not written down after so long will not be.
const RECORDED_WITHIN: Duration = Duration::from_secs(180);
/// Ends that are asked for at once; of more, nobody would read all.
const ASKED_MAX: usize = 100;
/// A bad end is told for so long.
const TOLD_FOR: Duration = Duration::from_secs(1800);
/// As many at once.
const TOLD_MAX: usize = 5;

/// What is known of jobs that are over.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Jobs of the last look, and since when those ran that did.
    there: BTreeMap<String, Option<Timestamp>>,
    /// Jobs that were ended from here; why is known.
    dismissed: BTreeSet<String>,
    /// Ends that nobody has told yet, and when they were missed.
    unknown: Vec<(Timestamp, Gone)>,
    told: VecDeque<(Timestamp, String)>,
    has_no_records: bool,
}

impl Aftermath {
    /// Compares a look with the one before. A job that ran and waits again has ended once, too.
    pub(super) fn see(&mut self, now: Timestamp, jobs: &[Job]) {
        let start = |job: &Job| match job.stage {
            Stage::Running { since, .. } => Some(since),
            Stage::Pending | Stage::Ending => None,
        };
        let seen: BTreeMap<&str, &Job> = jobs.iter().map(|job| (job.id.as_str(), job)).collect();
        for (id, since) in std::mem::take(&mut self.there) {
            let is_over = match seen.get(id.as_str()) {
                None => true,
                Some(job) if job.stage == Stage::Ending => {
                    // It is still the same, and has no start any more.
                    self.there.insert(id, since);
                    continue;
                }
                Some(job) => since.is_some() && start(job) != since,
            };
            if is_over && !self.dismissed.contains(&id) && !self.has_no_records {
                self.unknown.push((now, Gone { id, since }));
            }
        }
        self.dismissed.retain(|id| seen.contains_key(id.as_str()));
        let others = jobs.iter().filter(|job| job.stage != Stage::Ending);
        self.there.extend(others.map(|job| (job.id.clone(), start(job))));
        self.unknown.retain(|(at, _)| now.since(*at) < RECORDED_WITHIN);
        let surplus = self.unknown.len().saturating_sub(ASKED_MAX);
        self.unknown.drain(..surplus);
    }

    /// These are ended from here.
    pub(super) fn dismiss(&mut self, jobs: &[Job]) {
        self.dismissed.extend(jobs.iter().map(|job| job.id.clone()));
    }

    /// What to ask of the records.
    pub(super) fn questions(&self) -> Vec<Gone> {
        self.unknown.iter().map(|(_, gone)| gone.clone()).collect()
    }

    /// Whether there is anything to ask.
    pub(super) fn is_curious(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// What the records have said.
    pub(super) fn learn(&mut self, now: Timestamp, ends: &[End]) {
        for end in ends {
            self.unknown.retain(|(_, gone)| gone.id != end.id);
            if end.is_failure {
                self.told.push_back((now, format!("job {} has ended: {}", end.id, end.reason)));
            }
        }
        let surplus = self.told.len().saturating_sub(TOLD_MAX);
        self.told.drain(..surplus);
    }

    /// There are no records, and nobody is asked any more.
    pub(super) fn give_up(&mut self) {
        self.has_no_records = true;
        self.unknown.clear();
    }

    /// For people.
    pub(super) fn lines(&self, now: Timestamp) -> Vec<String> {
        let told = self.told.iter().filter(|(at, _)| now.since(*at) < TOLD_FOR);
        told.map(|(_, line)| line.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn job(id: &str, stage: Stage) -> Job {
        Job { number: 1, id: id.to_owned(), stage, reason: None }
    }

    fn running(since: u64) -> Stage {
        Stage::Running { since: Timestamp(since), ends_at: None }
    }

    fn gone(id: &str, since: Option<u64>) -> Gone {
        Gone { id: id.to_owned(), since: since.map(Timestamp) }
    }

    fn end(id: &str, is_failure: bool) -> End {
        End { id: id.to_owned(), reason: "it was so".to_owned(), is_failure }
    }

    #[test]
    fn what_is_missed_is_asked_until_it_is_known_and_bad_ends_are_told_for_a_while() {
        let mut aftermath = Aftermath::default();
        aftermath.see(NOW, &[job("1", running(5)), job("2", Stage::Pending), job("3", running(6))]);
        assert!(!aftermath.is_curious());
        aftermath.see(NOW, &[job("3", running(6))]);
        assert_eq!(aftermath.questions(), [gone("1", Some(5)), gone("2", None)]);
        aftermath.learn(NOW, &[end("1", true)]);
        assert_eq!(aftermath.questions(), [gone("2", None)]);
        assert_eq!(aftermath.lines(NOW), ["job 1 has ended: it was so"]);
        aftermath.see(NOW.after(RECORDED_WITHIN), &[job("3", running(6))]);
        assert!(!aftermath.is_curious(), "nobody has written it down");
        aftermath.see(NOW, &[]);
        aftermath.learn(NOW, &[end("3", false)]);
        assert_eq!(aftermath.lines(NOW).len(), 1, "a good end is no news");
        assert!(aftermath.lines(NOW.after(TOLD_FOR)).is_empty());
    }

    #[test]
    fn a_job_that_starts_again_has_ended_before() {
        let mut aftermath = Aftermath::default();
        aftermath.see(NOW, &[job("1", running(5)), job("2", running(5)), job("3", running(5))]);
        let again = [job("1", Stage::Pending), job("2", running(9)), job("3", running(5))];
        aftermath.see(NOW, &again);
        assert_eq!(aftermath.questions(), [gone("1", Some(5)), gone("2", Some(5))]);
        aftermath.learn(NOW, &[end("1", true), end("2", true)]);
        aftermath.see(NOW, &[job("1", running(12)), job("2", running(9)), job("3", running(5))]);
        assert!(!aftermath.is_curious(), "a job that begins has not ended");
    }

    #[test]
    fn what_is_ending_is_asked_when_it_is_gone_and_what_was_ended_from_here_is_not() {
        let mut aftermath = Aftermath::default();
        let both = |stage| [job("1", stage), job("2", stage)];
        aftermath.see(NOW, &both(running(5)));
        aftermath.dismiss(&[job("2", running(5))]);
        aftermath.see(NOW, &both(Stage::Ending));
        assert!(!aftermath.is_curious());
        aftermath.see(NOW, &[]);
        assert_eq!(aftermath.questions(), [gone("1", Some(5))]);
        aftermath.give_up();
        assert!(!aftermath.is_curious());
        aftermath.see(NOW, &both(running(7)));
        aftermath.see(NOW, &[]);
        assert!(!aftermath.is_curious(), "there are no records");
    }
}
