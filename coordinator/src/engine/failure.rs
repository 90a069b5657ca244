//! What a failure means: whether a trial is tried again, and when. One rule per class.

use std::time::Duration;

use muster_common::run::{FailureClass, RunExit};
use muster_common::time::Timestamp;

use super::Rules;
use super::run::Ending;
use super::trial::{Trial, TrialState};

/// Waits before the second restart, doubled for each further one up to the longest. The first restart
/// is made at once: most failures are somebody else's.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// As [`BACKOFF`], from the first restart on: a disk does not become empty in a second.
const DISK_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// What becomes of a trial whose run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// It goes on after a wait, and it does not count.
    Free(Duration),
    /// It goes on after a wait, as one of `max_restarts`.
    After(Duration),
    /// It is given up.
    Never,
}

/// The class of an exit that is a failure.
pub(crate) fn class_of(exit: &RunExit) -> Option<FailureClass> {
    match exit {
        RunExit::Completed | RunExit::Canceled | RunExit::Preempted => None,
        RunExit::Diverged { .. } => Some(FailureClass::Diverged),
        RunExit::Lost { .. } => Some(FailureClass::Lost),
        RunExit::Failed { permanent: true, .. } => Some(FailureClass::BadData),
        RunExit::Failed { class, .. } => Some(*class),
    }
}

/// How long something waits that was preempted so many times in a row before it had saved anything. It is tried
/// again for ever, as it is not to blame, and the first time at once; but a place where every run is preempted as
/// soon as it has begun would else be given one after the other. Ray Train has no limit to preemptions either;
/// Kueue lets what is evicted again and again wait longer and longer.
pub(super) fn wait_after_preemptions(num_in_vain: u32) -> Duration {
    num_in_vain.checked_sub(2).map_or(Duration::ZERO, |doublings| doubled(BACKOFF, doublings))
}

fn doubled((first, longest): (Duration, Duration), doublings: u32) -> Duration {
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// How long work waits that has failed so many times before: of a trial, and of the preparation and the end of an
/// experiment.
pub(super) fn wait_after(class: FailureClass, num_before: u32) -> Duration {
    match (class, num_before.checked_sub(1)) {
        (FailureClass::DiskFull, _) => doubled(DISK_BACKOFF, num_before),
        (_, None) => Duration::ZERO,
        (_, Some(doublings)) => doubled(BACKOFF, doublings),
    }
}

/// When that is, in words.
pub(super) fn when(wait: Duration) -> String {
    match wait.as_secs() {
        0 => "at once".to_owned(),
        seconds => format!("in {seconds} s"),
    }
}

/// The rule of each class.
pub(super) fn retry(
    class: FailureClass,
    trial: &Trial,
    max_restarts: u32,
    is_elastic: bool,
) -> Retry {
    match class {
        FailureClass::BadData | FailureClass::Diverged => Retry::Never,
        FailureClass::Preempted => Retry::Free(wait_after_preemptions(trial.preempted_in_vain)),
        // The same step needs the same memory. Once may have been a neighbour's doing; an elastic
        // gang may find itself on other hosts or more of them.
        FailureClass::OutOfMemory if trial.memory_failures > 0 && !is_elastic => Retry::Never,
        _ if trial.restarts >= max_restarts => Retry::Never,
        FailureClass::DiskFull
        | FailureClass::OutOfMemory
        | FailureClass::Lost
        | FailureClass::Hang
        | FailureClass::Other => Retry::After(wait_after(class, trial.restarts)),
    }
}

impl Ending {
    /// Whether somebody else wanted the slot: not the engine, which would have said so, but whoever the worker obeys.
    pub(super) fn is_set_back(&self, rules: Rules) -> bool {
        let is_preempted = match &self.exit {
            RunExit::Preempted => true,
            RunExit::Failed { class, .. } => *class == FailureClass::Preempted,
            _ => false,
        };
        rules.are_exact() && is_preempted && !self.was_told
    }
}

impl Trial {
    /// It goes on, after a wait.
    pub(super) fn wait(&mut self, now: Timestamp, wait: Duration) {
        self.state = TrialState::Pending;
        self.not_before = (!wait.is_zero()).then(|| now.after(wait));
    }

    /// Counts a run that was preempted in vain, and says how often that was and how long it waits, if it does.
    pub(super) fn set_back(&mut self, now: Timestamp) -> Option<String> {
        self.preempted_in_vain = self.preempted_in_vain.saturating_add(1);
        let wait = wait_after_preemptions(self.preempted_in_vain);
        self.wait(now, wait);
        set_back_text(self.preempted_in_vain, wait)
    }
}

/// How often something was preempted in vain, and for how long it waits, if it does.
pub(super) fn set_back_text(num_in_vain: u32, wait: Duration) -> Option<String> {
    let seconds = wait.as_secs();
    (seconds > 0).then(|| {
        format!(
            "{num_in_vain} times in a row and in vain; it goes on in {seconds} s, which costs no restart"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::manifest::Assignment;

    fn after(class: FailureClass, restarts: u32, is_elastic: bool) -> Retry {
        let mut trial = Trial::new(1, 0, Assignment::new());
        trial.restarts = restarts;
        trial.memory_failures = restarts;
        retry(class, &trial, 20, is_elastic)
    }

    #[test]
    fn what_stays_wrong_is_never_tried_again() {
        for class in [FailureClass::BadData, FailureClass::Diverged] {
            assert_eq!(after(class, 0, true), Retry::Never);
        }
        let exit =
            RunExit::Failed { message: String::new(), permanent: true, class: FailureClass::Other };
        assert_eq!(class_of(&exit), Some(FailureClass::BadData));
    }

    #[test]
    fn memory_is_tried_once_unless_the_gang_is_elastic() {
        assert_eq!(after(FailureClass::OutOfMemory, 0, false), Retry::After(Duration::ZERO));
        assert_eq!(after(FailureClass::OutOfMemory, 1, false), Retry::Never);
        assert_eq!(after(FailureClass::OutOfMemory, 1, true), Retry::After(BACKOFF.0));
    }

    #[test]
    fn losses_are_tried_again_later_and_later_until_the_restarts_are_used() {
        for class in [FailureClass::Lost, FailureClass::Hang, FailureClass::Other] {
            let waits: Vec<Retry> =
                [0, 1, 2, 3, 19, 20].map(|restarts| after(class, restarts, false)).to_vec();
            let seconds = |seconds| Retry::After(Duration::from_secs(seconds));
            let expected =
                vec![seconds(0), seconds(1), seconds(2), seconds(4), seconds(60), Retry::Never];
            assert_eq!(waits, expected);
        }
        assert_eq!(after(FailureClass::DiskFull, 0, false), Retry::After(DISK_BACKOFF.0));
        assert_eq!(after(FailureClass::DiskFull, 9, false), Retry::After(DISK_BACKOFF.1));
        assert_eq!(after(FailureClass::Preempted, 20, false), Retry::Free(Duration::ZERO));
    }

    #[test]
    fn preemptions_in_vain_are_waited_for_longer_and_longer_and_for_ever() {
        let seconds = [0, 1, 2, 3, 4, 7, 8, 9, 40, u32::MAX].map(wait_after_preemptions);
        let expected = [0, 0, 1, 2, 4, 32, 60, 60, 60, 60].map(Duration::from_secs);
        assert_eq!(seconds, expected);
    }
}
