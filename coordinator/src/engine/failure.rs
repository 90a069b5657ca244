//! What a failure means: whether a trial is tried again, and when. One rule per class.

use std::time::Duration;

use muster_common::run::{FailureClass, RunExit};

use super::trial::Trial;

/// Waits before the second restart, doubled for each further one up to the longest. The first restart
/// is made at once: most failures are somebody else's.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// As [`BACKOFF`], from the first restart on: a disk does not become empty in a second.
const DISK_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// What becomes of a trial whose run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// It goes on, and it does not count.
    Free,
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

/// The rule of each class.
pub(super) fn retry(
    class: FailureClass,
    trial: &Trial,
    max_restarts: u32,
    is_elastic: bool,
) -> Retry {
    let again = |(first, longest): (Duration, Duration), doublings: u32| {
        if trial.restarts >= max_restarts {
            return Retry::Never;
        }
        let wait = first.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        Retry::After(wait.min(longest))
    };
    match class {
        FailureClass::BadData | FailureClass::Diverged => Retry::Never,
        FailureClass::Preempted => Retry::Free,
        // The same step needs the same memory. Once may have been a neighbour's doing; an elastic
        // gang may find itself on other hosts or more of them.
        FailureClass::OutOfMemory if trial.memory_failures > 0 && !is_elastic => Retry::Never,
        FailureClass::DiskFull => again(DISK_BACKOFF, trial.restarts),
        FailureClass::OutOfMemory
        | FailureClass::Lost
        | FailureClass::Hang
        | FailureClass::Other => match trial.restarts.checked_sub(1) {
            None => again((Duration::ZERO, Duration::ZERO), 0),
            Some(doublings) => again(BACKOFF, doublings),
        },
    }
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
        assert_eq!(after(FailureClass::Preempted, 20, false), Retry::Free);
    }
}
