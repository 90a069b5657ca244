//! What to ask of a cluster: a pure state machine. It is told what was seen and how many slots are wanted,
//! and says what to submit, to drain and to cancel. It reads no clock and does nothing itself.
//!
//! ```text
//! wish --submitted--> unseen --seen--> pending --> running --idle, or its time is nearly over--> draining
//!   ^                    |                |                                                         |
//!   |              never came        not wanted                                      nothing runs there
//!   +--------------------+                +-----------------------> canceled <-----------------------+
//! ```
//!
//! Every allocation has a number that is used once. A wish whose answer got lost keeps its number and its
//! place under the limits until it is seen, or until it is certain that it will not come.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_common::time::Timestamp;

/// After this a submission that was not answered, and that nobody has seen, did not happen: longer than any
/// command may take, its retries included.
pub const UNCLEAR: Duration = Duration::from_secs(180);
/// A cancellation is said again when it has had no effect for so long.
const CANCEL_AGAIN: Duration = Duration::from_secs(60);
/// Waits after refused submissions: the first, doubled with each further one up to the longest.
const HOLD_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What may be asked of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Allocations at the same time, waiting ones included.
    pub max_allocations: u32,
    /// Workers at the same time, in all of them.
    pub max_workers: u32,
    /// Workers of one allocation; at least 1.
    pub workers_each: u32,
    /// An allocation that does nothing for so long is given back, and one that waits and is not wanted for
    /// so long is withdrawn.
    pub idle: Duration,
    /// Time for the first worker of an allocation that has begun.
    pub start: Duration,
    /// So long before an allocation ends another is asked for.
    pub renew: Duration,
    /// So long before an allocation ends its runs save themselves and leave.
    pub drain: Duration,
}

impl Limits {
    /// Allocations that may be there at the same time.
    fn num_allowed(&self) -> u32 {
        (self.max_workers / self.workers_each.max(1)).min(self.max_allocations)
    }

    /// Most slots that there can be at the same time.
    pub fn max_slots(&self) -> u32 {
        self.num_allowed().saturating_mul(self.workers_each)
    }
}

/// Where an allocation is, as the cluster says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits.
    Pending,
    /// It has its nodes.
    Running {
        /// Since when.
        since: Timestamp,
        /// When the cluster ends it; absent: never.
        ends_at: Option<Timestamp>,
    },
    /// It is being ended, and still holds what it had.
    Ending,
}

/// One allocation, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub stage: Stage,
    /// Its workers that have dialled in.
    pub num_workers: u32,
    /// Those of them that have a run.
    pub num_busy: u32,
}

/// What a look at the cluster has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When the look began: what was answered later may be missing.
    pub asked_at: Timestamp,
    /// By number; all that is not over.
    pub allocations: BTreeMap<u64, Seen>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask for allocations with the numbers from `first` on.
    Submit {
        /// The first number.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Give its workers no new runs, and have those in progress saved.
    Drain {
        /// Which.
        number: u64,
        /// Why, for people.
        reason: String,
    },
    /// End it.
    Cancel {
        /// Which.
        number: u64,
        /// Why, for people.
        reason: String,
    },
}

/// How a submission went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the cluster's queue.
    Accepted,
    /// It is not, and will not be.
    Refused,
    /// Nobody knows.
    Unclear,
}

/// A submission whose allocation was not seen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    submitted_at: Timestamp,
    accepted_at: Option<Timestamp>,
}

/// What is known of an allocation besides what is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standing {
    has_begun: bool,
    had_workers: bool,
    idle_since: Option<Timestamp>,
    surplus_since: Option<Timestamp>,
    draining: Option<String>,
    canceled_at: Option<Timestamp>,
}

impl Standing {
    /// Whether it began, and ended without having brought a worker.
    fn is_vain(&self) -> bool {
        self.has_begun && !self.had_workers && self.canceled_at.is_none()
    }
}

/// The state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planner {
    limits: Limits,
    next_number: u64,
    wishes: BTreeMap<u64, Wish>,
    standings: BTreeMap<u64, Standing>,
    /// Submissions in a row that brought no worker.
    num_vain: u32,
    hold_off_until: Option<Timestamp>,
}

impl Planner {
    /// One that has asked for nothing yet. `unclear` are submissions of a process before this one that may
    /// have happened.
    pub fn new(limits: Limits, next_number: u64, unclear: &BTreeMap<u64, Timestamp>) -> Self {
        let wish = |at: &Timestamp| Wish { submitted_at: *at, accepted_at: None };
        Self {
            limits,
            next_number,
            wishes: unclear.iter().map(|(number, at)| (*number, wish(at))).collect(),
            standings: BTreeMap::new(),
            num_vain: 0,
            hold_off_until: None,
        }
    }

    /// The number that the next allocation will have.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Submissions that were not seen yet, and when they were made: to be known after a restart.
    pub fn unseen(&self) -> BTreeMap<u64, Timestamp> {
        self.wishes.iter().map(|(number, wish)| (*number, wish.submitted_at)).collect()
    }

    /// How a [`Step::Submit`] went.
    pub fn submitted(&mut self, now: Timestamp, first: u64, count: u32, outcome: Outcome) {
        let numbers = first..first.saturating_add(u64::from(count));
        match outcome {
            Outcome::Accepted => {
                self.wishes.range_mut(numbers).for_each(|(_, wish)| wish.accepted_at = Some(now));
                return;
            }
            Outcome::Refused => self.wishes.retain(|number, _| !numbers.contains(number)),
            Outcome::Unclear => {}
        }
        self.hold_off(now);
    }

    fn hold_off(&mut self, now: Timestamp) {
        let doublings = 1u32.checked_shl(self.num_vain).unwrap_or(u32::MAX);
        self.num_vain = self.num_vain.saturating_add(1);
        self.hold_off_until = Some(now.after(HOLD_OFF.0.saturating_mul(doublings).min(HOLD_OFF.1)));
    }

    /// What to do now, `wanted` slots being of use in all. Steps are to be performed; submissions are
    /// answered with [`Planner::submitted`].
    pub fn plan(&mut self, now: Timestamp, wanted: u32, seen: &Observation) -> Vec<Step> {
        self.reconcile(now, seen);
        let mut steps = Vec::new();
        // What is told to drain now is ended by a later plan: it may have been given a run just now.
        self.cancel(now, wanted, seen, &mut steps);
        self.drain(now, seen, &mut steps);
        self.submit(now, wanted, seen, &mut steps);
        steps
    }

    /// Whether there is anything to look at: wishes, or allocations seen before.
    pub fn is_busy(&self) -> bool {
        !self.wishes.is_empty() || !self.standings.is_empty()
    }

    /// Whether an allocation is on its way out.
    pub fn is_draining(&self, number: u64) -> bool {
        self.standings.get(&number).is_some_and(|standing| standing.draining.is_some())
    }

    fn reconcile(&mut self, now: Timestamp, seen: &Observation) {
        if let Some((highest, _)) = seen.allocations.last_key_value() {
            self.next_number = self.next_number.max(highest.saturating_add(1));
        }
        let mut has_failed = false;
        self.wishes.retain(|number, wish| {
            let is_settled = match wish.accepted_at {
                Some(at) => seen.asked_at > at,
                None => seen.asked_at > wish.submitted_at.after(UNCLEAR),
            };
            let is_seen = seen.allocations.contains_key(number);
            // It was in the queue, and is over already.
            has_failed |= is_settled && !is_seen && wish.accepted_at.is_some();
            !is_seen && !is_settled
        });
        self.standings.retain(|number, standing| {
            let is_there = seen.allocations.contains_key(number);
            has_failed |= !is_there && standing.is_vain();
            is_there
        });
        for (number, allocation) in &seen.allocations {
            let standing = self.standings.entry(*number).or_default();
            if allocation.stage == Stage::Pending {
                // Perhaps again, after its node has failed: then it begins anew.
                *standing = Standing {
                    surplus_since: standing.surplus_since,
                    canceled_at: standing.canceled_at,
                    ..Standing::default()
                };
            }
            standing.has_begun |= allocation.stage != Stage::Pending;
            if allocation.num_workers > 0 {
                standing.had_workers = true;
                self.num_vain = 0;
            }
        }
        // Another would most likely fare no better.
        if has_failed {
            self.hold_off(now);
        }
    }

    /// Begins to give back what does nothing and what is nearly over.
    fn drain(&mut self, now: Timestamp, seen: &Observation, steps: &mut Vec<Step>) {
        for (number, allocation) in &seen.allocations {
            let Some(standing) = self.standings.get_mut(number) else { continue };
            let Stage::Running { since, ends_at } = allocation.stage else {
                standing.idle_since = None;
                continue;
            };
            if allocation.num_busy > 0 {
                standing.idle_since = None;
            } else {
                let from = if standing.had_workers { now } else { since.min(now) };
                standing.idle_since.get_or_insert(from);
            }
            if standing.draining.is_some() {
                continue;
            }
            let patience = if standing.had_workers { self.limits.idle } else { self.limits.start };
            let idle = standing.idle_since.map(|at| now.since(at)).filter(|idle| *idle >= patience);
            let left = ends_at.map(|at| at.since(now)).filter(|left| *left <= self.limits.drain);
            let reason = match (left, idle) {
                (Some(left), _) => format!("its time is over in {} s", left.as_secs()),
                (None, Some(_)) if !standing.had_workers => {
                    format!("no worker of it has dialled in for {} s", patience.as_secs())
                }
                (None, Some(idle)) => format!("it has had nothing to do for {} s", idle.as_secs()),
                (None, None) => continue,
            };
            standing.draining = Some(reason.clone());
            steps.push(Step::Drain { number: *number, reason });
        }
    }

    /// Ends what is drained, and what waits and is not wanted.
    fn cancel(&mut self, now: Timestamp, wanted: u32, seen: &Observation, steps: &mut Vec<Step>) {
        let each = self.limits.workers_each;
        let mut supply = self.supply(now, seen);
        let mut num_held = self.num_held(seen);
        // The newest first: the others are nearer to their turn.
        for (number, allocation) in seen.allocations.iter().rev() {
            let Some(standing) = self.standings.get_mut(number) else { continue };
            if let Some(at) = standing.canceled_at {
                if now.since(at) >= CANCEL_AGAIN && allocation.stage != Stage::Ending {
                    standing.canceled_at = Some(now);
                    let reason = "it was canceled and is still there".to_owned();
                    steps.push(Step::Cancel { number: *number, reason });
                }
                continue;
            }
            let is_surplus = allocation.stage == Stage::Pending
                && supply.checked_sub(each).is_some_and(|others| others >= wanted);
            standing.surplus_since = is_surplus.then(|| standing.surplus_since.unwrap_or(now));
            let reason = match (allocation.stage, &standing.draining, standing.surplus_since) {
                (Stage::Running { .. }, Some(reason), _) if allocation.num_busy == 0 => {
                    reason.clone()
                }
                (Stage::Pending, _, _) if num_held > self.limits.num_allowed() => {
                    "there are more than are allowed".to_owned()
                }
                (_, _, Some(since)) if now.since(since) >= self.limits.idle => {
                    "it is not wanted any more".to_owned()
                }
                _ => {
                    // Not wanted, but perhaps soon again.
                    supply = supply.saturating_sub(if is_surplus { each } else { 0 });
                    continue;
                }
            };
            if allocation.stage == Stage::Pending {
                supply = supply.saturating_sub(each);
                num_held = num_held.saturating_sub(1);
            }
            standing.canceled_at = Some(now);
            steps.push(Step::Cancel { number: *number, reason });
        }
    }

    fn submit(&mut self, now: Timestamp, wanted: u32, seen: &Observation, steps: &mut Vec<Step>) {
        if self.hold_off_until.is_some_and(|until| until > now) {
            return;
        }
        let each = self.limits.workers_each.max(1);
        let missing = wanted.saturating_sub(self.supply(now, seen)).div_ceil(each);
        let num_held = self.num_held(seen);
        let count = missing.min(self.limits.num_allowed().saturating_sub(num_held));
        if count == 0 {
            return;
        }
        let first = self.next_number;
        self.next_number = first.saturating_add(u64::from(count));
        for number in first..self.next_number {
            self.wishes.insert(number, Wish { submitted_at: now, accepted_at: None });
        }
        steps.push(Step::Submit { first, count });
    }

    /// Allocations that count under the limits.
    fn num_held(&self, seen: &Observation) -> u32 {
        u32::try_from(seen.allocations.len() + self.wishes.len()).unwrap_or(u32::MAX)
    }

    /// Slots that there are or will be, without those that are about to go.
    fn supply(&self, now: Timestamp, seen: &Observation) -> u32 {
        let lasts = |(number, allocation): &(&u64, &Seen)| {
            let standing = self.standings.get(number);
            if standing.is_some_and(|s| s.draining.is_some() || s.canceled_at.is_some()) {
                return false;
            }
            match allocation.stage {
                Stage::Pending | Stage::Running { ends_at: None, .. } => true,
                Stage::Ending => false,
                Stage::Running { since, ends_at: Some(ends_at) } => {
                    // Short ones would be renewed as soon as they begin.
                    let renew = self.limits.renew.min(ends_at.since(since) / 2);
                    ends_at.since(now) > renew
                }
            }
        };
        let num_lasting = seen.allocations.iter().filter(lasts).count() + self.wishes.len();
        let num_lasting = u32::try_from(num_lasting).unwrap_or(u32::MAX);
        num_lasting.saturating_mul(self.limits.workers_each)
    }
}

#[cfg(test)]
mod tests;
