//! The loop around the planner: look at the cluster, read the engine, do what is to be done. One question
//! for all jobs, not more often than the profile allows, and none while nothing is wanted and nothing is
//! there.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_common::id::WorkerId;
use muster_common::time::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::aftermath::Aftermath;
use super::cluster::{Cluster, ClusterError, End, Job, Order};
use super::planner::{Observation, Outcome, Planner, Seen, Stage, Step};
use super::profile::Pace;
use super::record::Record;
use crate::driver::{Driver, Stopped};
use crate::engine::{Engine, Event};
use crate::live::Live;

/// Between two plans, when things change quickly.
const PLAN_EVERY: Duration = Duration::from_millis(500);
/// Time to end all jobs when the coordinator ends with them.
const GOODBYE: Duration = Duration::from_secs(8);
/// A job that was just ended may have to be asked for again as often.
const GOODBYE_ATTEMPTS: u32 = 3;

/// Keeps the allocations of one cluster.
#[derive(Debug)]
pub struct Keeper<C> {
    cluster: C,
    record: Record,
    planner: Planner,
    driver: Driver,
    live: Live,
    poll: Duration,
    array: bool,
    looked_at: Option<Instant>,
    /// The cluster itself says that something is different.
    is_stale: bool,
    asked_at: Timestamp,
    /// What the last look has shown; nothing is planned without it.
    jobs: Option<Vec<Job>>,
    aftermath: Aftermath,
    /// What went wrong when it was looked, and when something was done, for people.
    blindness: Option<String>,
    trouble: Option<String>,
}

/// Workers of one allocation, and whether each has a run.
type Crew = BTreeMap<u64, Vec<(WorkerId, bool)>>;

impl<C: Cluster> Keeper<C> {
    /// One that goes on where the record ends.
    pub fn new(cluster: C, record: Record, pace: Pace, driver: Driver, live: Live) -> Self {
        let Pace { limits, poll, array } = pace;
        let planner = record.planner(limits);
        Self {
            cluster,
            record,
            planner,
            driver,
            live,
            poll,
            array,
            looked_at: None,
            is_stale: false,
            asked_at: Timestamp(0),
            jobs: None,
            aftermath: Aftermath::default(),
            blindness: None,
            trouble: None,
        }
    }

    /// Works until `shutdown`. With `ends_all` no job outlives it.
    pub async fn keep(mut self, ends_all: bool, shutdown: CancellationToken) {
        let mut changes = self.driver.changes();
        loop {
            let next = tokio::select! {
                done = self.tick() => done,
                () = shutdown.cancelled() => break,
            };
            if next.is_err() {
                break;
            }
            let now = Instant::now();
            let earliest = now + PLAN_EVERY;
            let due_at = self.looked_at.map_or(earliest, |at| at + self.poll);
            // Nobody looks while nothing is wanted: then only a change matters.
            let look_at = if due_at > now { due_at } else { now + self.poll };
            tokio::select! {
                () = sleep_until(look_at.max(earliest)) => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    sleep_until(earliest).await;
                }
                () = self.cluster.changed() => {
                    self.is_stale = true;
                    sleep_until(earliest).await;
                }
                () = shutdown.cancelled() => break,
            }
        }
        if ends_all && timeout(GOODBYE, self.end_all()).await.is_err() {
            tracing::warn!("the cluster does not answer; jobs of this coordinator may go on");
        }
    }

    async fn tick(&mut self) -> Result<(), Stopped> {
        let (mut wanted, mut crew) = self.read().await?;
        let is_due = self.is_stale || self.looked_at.is_none_or(|at| at.elapsed() >= self.poll);
        let is_first = self.looked_at.is_none();
        let is_open = self.planner.is_busy() || self.aftermath.is_curious();
        if is_due && (is_first || wanted > 0 || is_open) {
            self.look().await;
        }
        // What drains now may be found idle at once.
        for _ in 0..2 {
            let Some(jobs) = self.jobs.clone() else { break };
            let seen = observe(self.asked_at, &jobs, &crew);
            let steps = self.planner.plan(Timestamp::now(), wanted, &seen);
            let drains = steps.iter().any(|step| matches!(step, Step::Drain { .. }));
            self.perform(steps, &jobs, &crew).await?;
            if !drains {
                break;
            }
            (wanted, crew) = self.read().await?;
        }
        self.remember();
        self.tell(&crew);
        Ok(())
    }

    /// Writes down what has been seen meanwhile; before a submission that is not enough.
    fn remember(&mut self) {
        if let Err(error) = self.record.keep(&self.planner) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the record is not written");
        }
    }

    /// What the engine could use, and what it knows of our workers.
    async fn read(&self) -> Result<(u32, Crew), Stopped> {
        let identity = self.record.identity().clone();
        let look = move |engine: &Engine| {
            let mut crew = Crew::new();
            for (id, worker) in engine.workers() {
                if let Some(number) = identity.allocation_of(id) {
                    crew.entry(number).or_default().push((id.clone(), worker.run.is_some()));
                }
            }
            (engine.slots_of_use(Timestamp::now()), crew)
        };
        self.driver.read(look).await
    }

    async fn look(&mut self) {
        self.looked_at = Some(Instant::now());
        self.is_stale = false;
        let asked_at = Timestamp::now();
        match self.cluster.list().await {
            Ok(jobs) => {
                self.asked_at = asked_at;
                self.blindness = None;
                let surplus = duplicates(&jobs);
                self.aftermath.see(asked_at, &jobs);
                self.jobs = Some(jobs);
                self.aftermath.dismiss(&surplus);
                if let Err(error) = self.cluster.cancel(&surplus).await {
                    self.complain(&error);
                }
                self.ask_for_ends().await;
            }
            Err(error) => {
                self.jobs = None;
                tracing::warn!(error = &error as &dyn std::error::Error, "the cluster");
                self.blindness = Some(error.to_string());
            }
        }
    }

    /// How those have ended that are gone, as part of a look, so that it is not asked more often.
    async fn ask_for_ends(&mut self) {
        if !self.aftermath.is_curious() {
            return;
        }
        match self.cluster.ends(&self.aftermath.questions()).await {
            Ok(Some(ends)) => {
                for End { id, reason, is_failure } in &ends {
                    if *is_failure {
                        tracing::warn!(job = id, reason, "an allocation has ended");
                    } else {
                        tracing::info!(job = id, reason, "an allocation has ended");
                    }
                }
                self.aftermath.learn(Timestamp::now(), &ends);
            }
            Ok(None) => {
                tracing::info!("this cluster keeps no records: why allocations end is not told");
                self.aftermath.give_up();
            }
            // It is asked again at the next look, for a while.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the cluster's records");
            }
        }
    }

    fn complain(&mut self, error: &ClusterError) {
        tracing::warn!(error = error as &dyn std::error::Error, "the cluster");
        self.trouble = Some(error.to_string());
    }

    async fn perform(
        &mut self,
        steps: Vec<Step>,
        jobs: &[Job],
        crew: &Crew,
    ) -> Result<(), Stopped> {
        let mut ending = Vec::new();
        for step in steps {
            match step {
                Step::Submit { first, count } => self.submit(first, count).await,
                Step::Drain { number, reason } => {
                    tracing::info!(number, reason, "an allocation is drained");
                    for (worker, _) in crew.get(&number).into_iter().flatten() {
                        let (worker, reason) = (worker.clone(), reason.clone());
                        let reason = format!("allocation {number}: {reason}");
                        self.driver.apply(Event::WorkerDraining { worker, reason }).await?;
                    }
                }
                Step::Cancel { number, reason } => {
                    tracing::info!(number, reason, "an allocation is ended");
                    ending.extend(jobs.iter().filter(|job| job.number == number).cloned());
                }
            }
        }
        self.aftermath.dismiss(&ending);
        if let Err(error) = self.cluster.cancel(&ending).await {
            self.complain(&error);
        }
        Ok(())
    }

    async fn submit(&mut self, first: u64, count: u32) {
        let orders: Vec<Order> = if self.array {
            vec![Order { first, count }]
        } else {
            let numbers = (0..u64::from(count)).map(|index| first.saturating_add(index));
            numbers.map(|first| Order { first, count: 1 }).collect()
        };
        // Whatever becomes of this process, the next one knows that these may be on their way.
        if let Err(error) = self.record.keep(&self.planner) {
            tracing::error!(error = &error as &dyn std::error::Error, "no allocation is asked for");
            self.trouble = Some(error.to_string());
            self.planner.submitted(Timestamp::now(), first, count, Outcome::Refused);
            return;
        }
        for order in orders {
            let Order { first, count } = order;
            let outcome = match self.cluster.submit(order).await {
                Ok(()) => {
                    tracing::info!(first, count, "allocations are asked for");
                    self.trouble = None;
                    Outcome::Accepted
                }
                Err(error) => {
                    self.complain(&error);
                    error.outcome
                }
            };
            self.planner.submitted(Timestamp::now(), first, count, outcome);
        }
    }

    /// Puts into words how it stands.
    fn tell(&self, crew: &Crew) {
        let now = Timestamp::now();
        let jobs = self.jobs.iter().flatten();
        let mut lines: Vec<String> = jobs.map(|job| line(job, crew, now)).collect();
        lines.extend(self.aftermath.lines(now));
        lines.extend(self.blindness.iter().chain(&self.trouble).cloned());
        self.live.set_allocations(lines);
    }

    /// Ends every job of ours.
    async fn end_all(&mut self) {
        for _ in 0..GOODBYE_ATTEMPTS {
            if self.looked_at.is_some() && !self.planner.is_busy() {
                return;
            }
            let jobs = match self.cluster.list().await {
                Ok(jobs) => jobs,
                Err(error) => return self.complain(&error),
            };
            let seen = observe(Timestamp::now(), &jobs, &Crew::new());
            let left = jobs.into_iter().filter(|job| job.stage != Stage::Ending);
            let left: Vec<Job> = left.collect();
            // What was asked for and not seen yet may come any moment.
            if left.is_empty() && self.planner.unseen().is_empty() {
                return;
            }
            tracing::info!(count = left.len(), "the last allocations are ended");
            if let Err(error) = self.cluster.cancel(&left).await {
                self.complain(&error);
            }
            self.planner.plan(Timestamp::now(), 0, &seen);
            tokio::time::sleep(PLAN_EVERY).await;
        }
    }
}

/// What a look has shown, with what the engine knows.
fn observe(asked_at: Timestamp, jobs: &[Job], crew: &Crew) -> Observation {
    let mut allocations = BTreeMap::new();
    for job in jobs {
        let workers = crew.get(&job.number).map_or(&[][..], Vec::as_slice);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let num_busy = count(workers.iter().filter(|(_, is_busy)| *is_busy).count());
        let seen = Seen { stage: job.stage, num_workers: count(workers.len()), num_busy };
        allocations.entry(job.number).or_insert(seen);
    }
    Observation { asked_at, allocations }
}

/// Jobs with a number that another one has too: a submission that was repeated on its way.
fn duplicates(jobs: &[Job]) -> Vec<Job> {
    let is_second = |(index, job): &(usize, &Job)| {
        jobs.iter().take(*index).any(|earlier| earlier.number == job.number)
    };
    jobs.iter().enumerate().filter(is_second).map(|(_, job)| job.clone()).collect()
}

fn line(job: &Job, crew: &Crew, now: Timestamp) -> String {
    let id = &job.id;
    let workers = crew.get(&job.number).map_or(&[][..], Vec::as_slice);
    match job.stage {
        Stage::Pending => {
            let reason = job.reason.as_deref().unwrap_or("it has not been looked at yet");
            format!("job {id} waits in the cluster's queue: {reason}")
        }
        Stage::Ending => format!("job {id} is ending"),
        Stage::Running { .. } if workers.is_empty() => {
            format!("job {id} has begun; its workers have not dialled in")
        }
        Stage::Running { ends_at, .. } => {
            let num_busy = workers.iter().filter(|(_, is_busy)| *is_busy).count();
            let left = ends_at.map_or_else(String::new, |at| {
                format!(", {} min left", at.since(now).as_secs() / 60)
            });
            format!("job {id}: workers {}, at work {num_busy}{left}", workers.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64, id: &str, stage: Stage, reason: Option<&str>) -> Job {
        Job { number, id: id.to_owned(), stage, reason: reason.map(ToOwned::to_owned) }
    }

    #[test]
    fn every_job_is_said_in_words() {
        let crew = Crew::from([(2, vec![("w-1".parse().unwrap(), true)])]);
        let running = |ends_at| Stage::Running { since: Timestamp(0), ends_at };
        let say = |job| line(&job, &crew, Timestamp(60_000));
        let text = say(job(1, "17", Stage::Pending, Some("Resources")));
        assert_eq!(text, "job 17 waits in the cluster's queue: Resources");
        let text = say(job(2, "18", running(Some(Timestamp(300_000))), None));
        assert_eq!(text, "job 18: workers 1, at work 1, 4 min left");
        let text = say(job(3, "19", running(None), None));
        assert_eq!(text, "job 19 has begun; its workers have not dialled in");
    }

    #[test]
    fn a_number_that_two_jobs_have_is_one_allocation_and_one_job_too_many() {
        let jobs = [
            job(1, "17", Stage::Pending, None),
            job(2, "18", Stage::Pending, None),
            job(1, "19", Stage::Pending, None),
        ];
        assert_eq!(duplicates(&jobs), jobs[2..]);
        assert_eq!(observe(Timestamp(0), &jobs, &Crew::new()).allocations.len(), 2);
    }
}
