//! Leaving in good order: when the worker is told to end, or when the time of its allocation is nearly over.
//! The coordinator is told, and tells all ranks of the run to save themselves; one that cannot be reached is
//! not waited for.

use std::time::Duration;

use anyhow::Context;
use muster_common::id::Generation;
use muster_common::run::Directive;
use muster_common::time::Timestamp;
use tokio::time::Instant;

use super::{PREEMPT_DEADLINE, Supervisor};

/// When the allocation ends: seconds since 1970. Without a number in it there is no end.
const END_VARIABLE: &str = "MUSTER_ENDS_AT";
/// How long before it the worker begins to leave, seconds.
const DRAIN_VARIABLE: &str = "MUSTER_DRAIN_SECONDS";
/// What that is by default: a run gets as long to save itself.
const DRAIN_DEFAULT: Duration = Duration::from_secs(120);
/// Time for the coordinator to tell the run to save itself.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a worker may stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    ends_at: Option<Timestamp>,
    drain: Duration,
}

impl Allocation {
    /// As the environment says.
    pub fn of_environment() -> anyhow::Result<Self> {
        let text = |name| std::env::var(name).ok();
        Self::of(text(END_VARIABLE).as_deref(), text(DRAIN_VARIABLE).as_deref())
    }

    fn of(end: Option<&str>, drain: Option<&str>) -> anyhow::Result<Self> {
        // Slurm says `Unknown` or `N/A` where there is no limit.
        let seconds = end.and_then(|text| text.trim().parse::<u64>().ok());
        let ends_at = seconds.filter(|seconds| *seconds > 0);
        let drain = match drain {
            None => DRAIN_DEFAULT,
            Some(text) => {
                let seconds = text.parse().with_context(|| {
                    format!("{DRAIN_VARIABLE} is `{text}`, not a number of seconds")
                })?;
                Duration::from_secs(seconds)
            }
        };
        Ok(Self { ends_at: ends_at.map(|at| Timestamp(at.saturating_mul(1000))), drain })
    }

    /// When the worker is to begin to leave.
    pub(super) fn leave_at(&self) -> Option<Instant> {
        let left = self.ends_at?.since(Timestamp::now());
        Some(Instant::now() + left.saturating_sub(self.drain))
    }
}

/// A worker that is about to leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// Until then the coordinator may tell the run.
    answer_by: Instant,
    is_answer_due: bool,
    give_up_at: Instant,
}

impl Leaving {
    fn begin(now: Instant) -> Self {
        let answer_by = now + ANSWER;
        Self { answer_by, is_answer_due: true, give_up_at: answer_by + PREEMPT_DEADLINE + ANSWER }
    }

    /// When there is something to do next.
    pub(super) fn due_at(&self) -> Instant {
        if self.is_answer_due { self.answer_by } else { self.give_up_at }
    }
}

impl Supervisor {
    /// Begins to leave.
    pub(super) async fn leave(&mut self, reason: &str) {
        self.leave_at = None;
        if self.leaving.is_none() {
            tracing::info!(reason, "leaving");
            self.leaving = Some(Leaving::begin(Instant::now()));
            self.link.drain(reason.to_owned()).await;
        }
    }

    /// Whether it has left all it had to do, or has waited for that long enough.
    pub(super) fn may_leave(&self) -> bool {
        self.leaving.is_some_and(|leaving| {
            let is_idle = self.current.is_none() && self.waiting.is_none();
            is_idle || leaving.give_up_at <= Instant::now()
        })
    }

    /// Does what is due about leaving.
    pub(super) async fn leave_if_due(&mut self, now: Instant) {
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave("the time of its allocation is nearly over").await;
        }
        if let Some(leaving) = &mut self.leaving
            && leaving.is_answer_due
            && leaving.answer_by <= now
        {
            leaving.is_answer_due = false;
            let untold = self.current.filter(|run| run.directive.is_none());
            let waiting = self.waiting.as_ref().map(|spec| spec.generation);
            let generation: Option<Generation> = untold.map(|run| run.generation).or(waiting);
            if let Some(generation) = generation {
                tracing::warn!("the coordinator says nothing; the run saves itself");
                self.direct(generation, Directive::Preempt).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_number_or_there_is_none() {
        let of = |end: &str| Allocation::of(Some(end), Some("60")).unwrap();
        assert_eq!(of("1795875013").ends_at, Some(Timestamp(1_795_875_013_000)));
        for none in ["", "Unknown", "N/A", "0"] {
            assert_eq!(of(none).ends_at, None, "{none}");
            assert_eq!(of(none).leave_at(), None);
        }
        assert!(Allocation::of(None, Some("soon")).is_err());
        let now = Timestamp::now().0 / 1000;
        let left = of(&(now + 100).to_string()).leave_at().unwrap() - Instant::now();
        assert!((38..=40).contains(&left.as_secs()), "{left:?}");
        let over = of(&(now - 100).to_string()).leave_at().unwrap();
        assert!(over <= Instant::now() + Duration::from_millis(1));
    }
}
