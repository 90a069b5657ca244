//! What happens besides the work, and how often: every rate of the simulation is in this file.
//! `MUSTER_SIM_WITHOUT=crash,late` leaves some of it out, by name, to see what a failure needs.

use muster_common::seed::Draws;

/// Something that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    /// A user submits a manifest.
    Submit,
    /// A worker comes that was never there.
    Join,
    /// The process of a worker is killed; a remote one without a word.
    Kill,
    /// As `Kill`, and another process comes under the same name.
    Restart,
    /// A worker says goodbye.
    Leave,
    /// A worker says that it is about to leave.
    Drain,
    /// The lease of a worker expires, most likely of one that is not heard of.
    Lease,
    /// A user holds an experiment back.
    Pause,
    /// A user lets it go on.
    Resume,
    /// A user ends it.
    Cancel,
    /// A user changes their mind about something smaller.
    Wish,
    /// An event that was counted comes again, past all that would keep it out.
    Twice,
    /// Time passes.
    Wait,
    /// The wall clock is set back.
    ClockSetBack,
    /// Nothing gets through between a worker and the coordinator any more.
    Partition,
    /// It does again.
    Heal,
    /// The coordinator is killed, with all that is not on its disk, and started again.
    Crash,
    /// The disk takes nothing for a while.
    Stall,
    /// A checkpoint in the store comes to harm.
    Harm,
    /// On its way: a message arrives twice.
    Duplicate,
    /// On its way: a report overtakes the one before it.
    Overtake,
    /// What was under way when a session ended arrives later.
    Late,
    /// A report that does not count is put before the engine all the same.
    Old,
    /// A checkpoint cannot be written.
    WriteFails,
    /// A checkpoint cannot be deleted, or nobody hears that it was.
    DeleteFails,
    /// A manifest cannot be stored.
    StoreFails,
    /// What is on the disk is summed up in a snapshot.
    Snapshot,
}

/// By themselves: how often in relation to one another.
const WEIGHTS: [(&str, Chance, u64); 19] = [
    ("submit", Chance::Submit, 3),
    ("join", Chance::Join, 6),
    ("kill", Chance::Kill, 2),
    ("restart", Chance::Restart, 1),
    ("leave", Chance::Leave, 1),
    ("drain", Chance::Drain, 1),
    ("lease", Chance::Lease, 3),
    ("pause", Chance::Pause, 1),
    ("resume", Chance::Resume, 2),
    ("cancel", Chance::Cancel, 1),
    ("wish", Chance::Wish, 5),
    ("twice", Chance::Twice, 3),
    ("wait", Chance::Wait, 2),
    ("clock", Chance::ClockSetBack, 1),
    ("partition", Chance::Partition, 2),
    ("heal", Chance::Heal, 3),
    ("crash", Chance::Crash, 1),
    ("stall", Chance::Stall, 1),
    ("harm", Chance::Harm, 1),
];

/// With something else: once in so many times.
const ONE_IN: [(&str, Chance, u64); 8] = [
    ("duplicate", Chance::Duplicate, 12),
    ("overtake", Chance::Overtake, 8),
    ("late", Chance::Late, 2),
    ("old", Chance::Old, 6),
    ("write_fails", Chance::WriteFails, 60),
    ("delete_fails", Chance::DeleteFails, 6),
    ("store_fails", Chance::StoreFails, 6),
    ("snapshot", Chance::Snapshot, 12),
];

/// The rates in force.
#[derive(Debug)]
pub(super) struct Chances {
    weights: Vec<(Chance, u64)>,
    one_in: Vec<(Chance, u64)>,
}

impl Chances {
    /// All that the environment does not leave out.
    pub(super) fn of_environment() -> Self {
        let without = std::env::var("MUSTER_SIM_WITHOUT").unwrap_or_default();
        let without: Vec<&str> = without.split(',').filter(|name| !name.is_empty()).collect();
        let names: Vec<&str> = WEIGHTS.iter().chain(&ONE_IN).map(|(name, ..)| *name).collect();
        for name in &without {
            assert!(names.contains(name), "MUSTER_SIM_WITHOUT: `{name}` is none of {names:?}");
        }
        let kept = |rates: &[(&'static str, Chance, u64)]| -> Vec<(Chance, u64)> {
            let kept = rates.iter().filter(|(name, ..)| !without.contains(name));
            kept.map(|(_, chance, rate)| (*chance, *rate)).collect()
        };
        Self { weights: kept(&WEIGHTS), one_in: kept(&ONE_IN) }
    }

    /// What comes by itself next.
    pub(super) fn draw(&self, draws: &mut Draws) -> Option<Chance> {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut left = draws.below(total);
        for (chance, weight) in &self.weights {
            if left < *weight {
                return Some(*chance);
            }
            left -= weight;
        }
        None
    }

    /// Whether something comes with something else this time.
    pub(super) fn happens(&self, chance: Chance, draws: &mut Draws) -> bool {
        let rate = self.one_in.iter().find(|(known, _)| *known == chance);
        rate.is_some_and(|(_, one_in)| draws.below(*one_in) == 0)
    }
}
