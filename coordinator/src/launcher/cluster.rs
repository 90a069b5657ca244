//! What the keeper needs of a cluster, whatever its kind, and how an allocation is known as ours.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

use muster_common::id::WorkerId;
use muster_common::time::Timestamp;

use super::planner::{Outcome, Stage};

/// Every job of a coordinator is called so, its identity and a number.
const PREFIX: &str = "muster-";
/// Characters of an identity.
const IDENTITY_LEN: usize = 12;

/// Tells the jobs of one coordinator from those of all others, also of the same user: made once with its
/// state, and kept there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(String);

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no identity of a coordinator: it has {IDENTITY_LEN} characters of 0-9 and a-f")]
pub struct NotAnIdentity(String);

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let legal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == IDENTITY_LEN && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotAnIdentity(text.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identity {
    /// From six random bytes.
    pub fn of_bytes(bytes: [u8; 6]) -> Self {
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        Self(format!("{number:012x}"))
    }

    /// The name of allocation `number`; of a job array, that of its first.
    pub fn name_of(&self, number: u64) -> String {
        format!("{PREFIX}{self}-{number}")
    }

    /// The number in a name that [`Identity::name_of`] has made; `None`: it is somebody else's.
    pub fn number_in(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(PREFIX)?.strip_prefix(&self.0)?.strip_prefix('-')?;
        // A name that is written otherwise is not one of ours, even if it gives a number.
        number.parse().ok().filter(|parsed: &u64| parsed.to_string() == number)
    }

    /// The allocation that a worker was started by. Its id is the name of the allocation and what tells it
    /// from the others there.
    pub fn allocation_of(&self, worker: &WorkerId) -> Option<u64> {
        let rest =
            worker.as_str().strip_prefix(PREFIX)?.strip_prefix(&self.0)?.strip_prefix('-')?;
        rest.split_once('-')?.0.parse().ok()
    }
}

/// Allocations to ask for, with the numbers from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The first number.
    pub first: u64,
    /// How many; at least 1.
    pub count: u32,
}

/// A job of ours in the cluster's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The number of its allocation.
    pub number: u64,
    /// What the cluster calls it.
    pub id: String,
    /// Where it is.
    pub stage: Stage,
    /// Why it waits, as the cluster says it.
    pub reason: Option<String>,
}

/// A job of ours that the queue shows no more, or that has begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// What the cluster calls it.
    pub id: String,
    /// When it had begun, where that was seen, by the cluster's clock.
    pub since: Option<Timestamp>,
}

/// How such a job has ended, as the cluster's records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the cluster calls it.
    pub id: String,
    /// For people, with the cluster's own word.
    pub reason: String,
    /// Whether nobody here wanted it.
    pub is_failure: bool,
}

/// The cluster was asked for something, and did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{command}: {message}")]
pub struct ClusterError {
    /// What was called.
    pub command: &'static str,
    /// What it said, in one line.
    pub message: String,
    /// What that means for a submission: never [`Outcome::Accepted`].
    pub outcome: Outcome,
}

/// A cluster with a queue. No call lasts longer than [`UNCLEAR`](super::planner::UNCLEAR).
pub trait Cluster: Send + Sync + 'static {
    /// Puts an order into the queue, under our names.
    fn submit(&self, order: Order) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// All our jobs that are not over, from one question.
    fn list(&self) -> impl Future<Output = Result<Vec<Job>, ClusterError>> + Send;

    /// Ends jobs that [`Cluster::list`] has shown.
    fn cancel(&self, jobs: &[Job]) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// How jobs have ended, from one question; left out is what is not written down yet. `None`: nothing ever is.
    fn ends(
        &self,
        _gone: &[Gone],
    ) -> impl Future<Output = Result<Option<Vec<End>>, ClusterError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Comes when [`Cluster::list`] would show something else than before; never, where the cluster tells nothing by
    /// itself. May be dropped and asked for again without missing anything.
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        let own = Identity::of_bytes([0x0a, 1, 2, 3, 4, 0xff]);
        assert_eq!(own.to_string(), "0a01020304ff");
        assert_eq!("0a01020304ff".parse(), Ok(own.clone()));
        assert_eq!(own.number_in(&own.name_of(17)), Some(17));
        for other in ["muster-0a01020304fe-17", "muster-17", "0a01020304ff-17", "x", ""] {
            assert_eq!(own.number_in(other), None, "{other}");
        }
        for odd in ["", "+7", "07", "7-", "7x", "-7", "99999999999999999999999"] {
            assert_eq!(own.number_in(&format!("muster-{own}-{odd}")), None, "{odd}");
        }
        let worker = |text: &str| text.parse::<WorkerId>().unwrap();
        let of_worker = own.allocation_of(&worker("muster-0a01020304ff-17-3-1795874712000-5"));
        assert_eq!(of_worker, Some(17));
        assert_eq!(own.allocation_of(&worker("muster-0a01020304fe-17-3-1-5")), None);
        assert_eq!(own.allocation_of(&worker("worker-1-2")), None);
        for bad in ["", "0a01020304f", "0A01020304FF", "0a01020304fg"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
