//! Being alone: how long a worker that a cluster has started stays where no coordinator is. One that was killed and
//! that nobody starts again cannot give back what it asked for, so its workers do.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::Supervisor;

/// How long a worker without coordinator and without a run stays, seconds. Without it, for ever.
const ALONE_VARIABLE: &str = "MUSTER_ALONE_SECONDS";

/// How long a worker may be alone, and since when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solitude {
    /// Absent: it waits for ever.
    patience: Option<Duration>,
    /// Absent: it has a line to a coordinator.
    since: Option<Instant>,
}

impl Solitude {
    /// As the environment says; nobody has been heard of yet.
    pub fn of_environment() -> anyhow::Result<Self> {
        Self::of(std::env::var(ALONE_VARIABLE).ok().as_deref(), Instant::now())
    }

    fn of(patience: Option<&str>, now: Instant) -> anyhow::Result<Self> {
        let seconds = patience.map(|text| {
            let wrong = || format!("{ALONE_VARIABLE} is `{text}`, not a number of seconds");
            text.parse::<u32>().with_context(wrong)
        });
        let patience = seconds.transpose()?.map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Self { patience, since: Some(now) })
    }

    /// There is a coordinator.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// The coordinator is gone.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// A run has ended. Its results wait for a coordinator as long as the worker would without them, from now on.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        if let Some(since) = &mut self.since {
            *since = now;
        }
    }

    /// When there is no more use in waiting.
    fn ends_at(&self) -> Option<Instant> {
        Some(self.since? + self.patience?)
    }
}

impl Supervisor {
    /// When nobody is waited for any longer; never while a run is in progress.
    pub(super) fn deserted_at(&self) -> Option<Instant> {
        let is_idle = self.current.is_none() && self.waiting.is_none();
        self.solitude.ends_at().filter(|_| is_idle)
    }

    /// Whether nobody is waited for any longer.
    pub(super) fn is_deserted(&self) -> bool {
        self.deserted_at().is_some_and(|at| at <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_last_line_or_the_last_result() {
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        let mut alone = Solitude::of(Some("60"), now).unwrap();
        assert_eq!(alone.ends_at(), Some(after(60)), "nobody was ever there");
        alone.begin(after(30));
        assert_eq!(alone.ends_at(), Some(after(60)), "an attempt that fails is no sign of life");
        alone.end();
        assert_eq!(alone.ends_at(), None);
        alone.begin_anew(after(40));
        assert_eq!(alone.ends_at(), None, "a result that is told waits for nobody");
        alone.begin(after(50));
        alone.begin_anew(after(100));
        assert_eq!(alone.ends_at(), Some(after(160)));
        assert_eq!(Solitude::of(None, now).unwrap().ends_at(), None);
        assert!(Solitude::of(Some("a while"), now).is_err());
    }
}
