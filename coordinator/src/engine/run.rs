//! A run that has not ended: one task and the gang of slots that does it, one member per rank. All
//! slots are granted together, and a slot is free again only when its member has ended.
//!
//! ```text
//! rank 0   Working ------------------------------> Ended
//! others   Waiting --rank 0 opened a rendezvous--> Working --> Ended
//! ```

use muster_common::id::{ExperimentId, WorkerId};
use muster_common::run::{Directive, FailureClass, Gang, RunExit, Task};
use muster_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rules;
use super::table::Row;

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "RunRecord")]
pub struct Run {
    /// Who does it, by rank.
    pub members: Vec<Member>,
    /// For which experiment.
    pub experiment: ExperimentId,
    /// What.
    pub task: Task,
    /// When it was assigned.
    pub started_at: Timestamp,
    /// What it was told; see [`Run::directive_for`].
    pub directive: Option<Directive>,
    /// Where rank 0 waits for the others, once it does.
    pub rendezvous: Option<String>,
    /// It was told to leave because there are slots for a larger gang.
    pub grows: bool,
    /// Its slots are kept for somebody else, who gets them back as soon as that is of use.
    #[serde(default)]
    pub lent: bool,
}

/// What the engine asks of runs; those that go their way are of no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunKind {
    /// Its ranks have not met.
    Gathering,
    /// It was told to leave.
    Leaving,
    /// It has slots that are kept for somebody else.
    Lent,
}

impl Row for Run {
    type Kind = RunKind;

    fn kind(&self) -> Option<RunKind> {
        match self.directive {
            Some(_) => Some(RunKind::Leaving),
            None if self.gathers() => Some(RunKind::Gathering),
            None => self.lent.then_some(RunKind::Lent),
        }
    }
}

/// One rank of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is.
    pub worker: WorkerId,
    /// The machine it runs on.
    pub host: String,
    /// Number of its next report to count.
    pub next_sequence: u64,
    /// Where it is.
    pub state: MemberState,
}

/// Where a rank is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Its slot is kept, and it is told nothing until rank 0 has opened the rendezvous.
    Waiting,
    /// It has been told what to do.
    Working,
    /// It is over and its slot is free.
    Ended {
        /// How.
        exit: RunExit,
        /// Whether a loss counts against the trial.
        counts: bool,
        /// It was told to leave because another rank had vanished, and did not: it had to be killed.
        #[serde(default)]
        is_late: bool,
    },
}

impl MemberState {
    /// Ended, and not late.
    pub(super) fn ended(exit: RunExit, counts: bool) -> Self {
        Self::Ended { exit, counts, is_late: false }
    }
}

/// How a whole run ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    /// The exit of the rank that explains the others'.
    pub(super) exit: RunExit,
    /// Whether a loss counts against the trial.
    pub(super) counts: bool,
    /// The engine told it to save itself and leave.
    pub(super) was_told: bool,
}

/// As [`Run`] is written, and as it was written when a run had one worker.
#[derive(Deserialize)]
struct RunRecord {
    #[serde(default)]
    members: Vec<Member>,
    experiment: ExperimentId,
    task: Task,
    started_at: Timestamp,
    directive: Option<Directive>,
    #[serde(default)]
    rendezvous: Option<String>,
    #[serde(default)]
    grows: bool,
    #[serde(default)]
    lent: bool,
    #[serde(default)]
    worker: Option<WorkerId>,
    #[serde(default)]
    next_sequence: u64,
}

impl From<RunRecord> for Run {
    fn from(record: RunRecord) -> Self {
        let alone = record.worker.map(|worker| Member {
            worker,
            host: String::new(),
            next_sequence: record.next_sequence,
            state: MemberState::Working,
        });
        Self {
            members: alone.into_iter().chain(record.members).collect(),
            experiment: record.experiment,
            task: record.task,
            started_at: record.started_at,
            directive: record.directive,
            rendezvous: record.rendezvous,
            grows: record.grows,
            lent: record.lent,
        }
    }
}

impl Run {
    /// A run of the workers, with their hosts, in the order of ranks.
    pub(super) fn new(
        now: Timestamp,
        experiment: ExperimentId,
        task: Task,
        workers: Vec<(WorkerId, String)>,
    ) -> Self {
        let member = |(rank, (worker, host)): (usize, (WorkerId, String))| Member {
            worker,
            host,
            next_sequence: 1,
            state: if rank == 0 { MemberState::Working } else { MemberState::Waiting },
        };
        Self {
            members: workers.into_iter().enumerate().map(member).collect(),
            experiment,
            task,
            started_at: now,
            directive: None,
            rendezvous: None,
            grows: false,
            lent: false,
        }
    }

    /// Number of its ranks.
    pub fn world_size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// A worker's rank in it.
    pub fn rank_of(&self, worker: &WorkerId) -> Option<u32> {
        let rank = self.members.iter().position(|member| member.worker == *worker)?;
        u32::try_from(rank).ok()
    }

    /// One rank.
    pub fn member(&self, rank: u32) -> Option<&Member> {
        self.members.get(rank as usize)
    }

    pub(super) fn member_mut(&mut self, rank: u32) -> Option<&mut Member> {
        self.members.get_mut(rank as usize)
    }

    /// What rank `rank` is told of its place; absent for a run on one slot.
    pub(super) fn gang(&self, rank: u32) -> Option<Gang> {
        let world_size = self.world_size();
        let rendezvous = self.rendezvous.clone().filter(|_| rank > 0);
        (world_size > 1).then_some(Gang { rank, world_size, rendezvous })
    }

    /// Whether its ranks wait for rank 0 to open the rendezvous.
    pub(super) fn gathers(&self) -> bool {
        self.members.len() > 1 && self.rendezvous.is_none()
    }

    /// What its ranks are told. Before the rendezvous there is nothing to save, and rank 0 may wait
    /// for ranks that never come.
    pub fn directive_for_ranks(&self) -> Option<Directive> {
        let directive = self.directive?;
        Some(if self.gathers() { Directive::Cancel } else { directive })
    }

    /// Ranks that have slots.
    pub(super) fn num_working(&self) -> usize {
        let ended = |member: &&Member| matches!(member.state, MemberState::Ended { .. });
        self.members.len() - self.members.iter().filter(ended).count()
    }

    /// Whether every rank has ended.
    pub(super) fn is_over(&self) -> bool {
        self.num_working() == 0
    }

    /// Whether a rank has vanished, as far as is known.
    pub(super) fn has_vanished(&self) -> bool {
        let vanished = |member: &Member| {
            matches!(member.state, MemberState::Ended { exit: RunExit::Lost { .. }, .. })
        };
        self.members.iter().any(vanished)
    }

    /// Whether a rank was preempted.
    pub(super) fn has_preempted_rank(&self) -> bool {
        let is_preempted = |member: &Member| {
            matches!(member.state, MemberState::Ended { exit: RunExit::Preempted, .. })
        };
        self.members.iter().any(is_preempted)
    }

    /// Whether a rank has left in a way that the others cannot go on from. Preempted ranks have
    /// agreed to leave, and each does so when it has saved what it has to.
    pub(super) fn is_broken(&self) -> bool {
        let breaks = |member: &Member| match &member.state {
            MemberState::Waiting | MemberState::Working => false,
            MemberState::Ended { exit, .. } => match exit {
                RunExit::Completed => false,
                RunExit::Preempted => self.directive != Some(Directive::Preempt),
                _ => true,
            },
        };
        self.members.iter().any(breaks)
    }

    /// How it ended, from how its ranks did: what is nearest to the cause wins. A rank that vanished
    /// explains those that miss it, so does one that was preempted, and a rank that found its data damaged explains
    /// all of them.
    pub(super) fn ending(&self, rules: Rules) -> Ending {
        let is_preempted = rules.are_exact() && self.has_preempted_rank();
        let misses = |exit: &RunExit| {
            matches!(exit, RunExit::Failed { class: FailureClass::Lost, permanent: false, .. })
        };
        let mut chosen: Option<(usize, &Member, &RunExit, bool)> = None;
        let mut nearest = 0;
        for (rank, member) in self.members.iter().enumerate() {
            let MemberState::Ended { exit, counts, is_late } = &member.state else { continue };
            let is_consequence = *is_late || (is_preempted && misses(exit));
            let nearness = causality(if is_consequence { &RunExit::Canceled } else { exit });
            if chosen.is_none() || nearness > nearest {
                nearest = nearness;
                chosen = Some((rank, member, exit, *counts));
            }
        }
        let was_told = self.directive == Some(Directive::Preempt);
        let Some((rank, member, exit, counts)) = chosen else {
            return Ending { exit: RunExit::Canceled, counts: false, was_told };
        };
        if self.members.len() == 1 {
            return Ending { exit: exit.clone(), counts, was_told };
        }
        let place = |rank: usize, member: &Member| format!("rank {rank} on {}", member.host);
        let mut exit = exit.clone();
        if let RunExit::Failed { message: text, .. } | RunExit::Lost { reason: text } = &mut exit {
            *text = format!("{}: {text}", place(rank, member));
            // Those that hang or are missed are known by name only when they have been killed.
            let vanished =
                self.members.iter().enumerate().find_map(|(other, member)| match &member.state {
                    MemberState::Ended {
                        exit: RunExit::Lost { reason }, is_late: false, ..
                    } if other != rank => Some(format!("; {}: {reason}", place(other, member))),
                    _ => None,
                });
            text.push_str(&vanished.unwrap_or_default());
        }
        Ending { exit, counts, was_told }
    }
}

/// How near an exit is to the cause of a run's end.
fn causality(exit: &RunExit) -> u8 {
    match exit {
        RunExit::Completed => 0,
        RunExit::Canceled => 1,
        RunExit::Preempted => 2,
        RunExit::Lost { .. } => 5,
        RunExit::Diverged { .. } => 10,
        RunExit::Failed { permanent: true, .. } => 11,
        RunExit::Failed { class, .. } => match class {
            FailureClass::Preempted => 3,
            // Said by those that miss a rank; that rank's own end says more.
            FailureClass::Lost => 4,
            FailureClass::Hang => 6,
            FailureClass::Other => 7,
            FailureClass::DiskFull => 8,
            FailureClass::OutOfMemory => 9,
            FailureClass::Diverged => 10,
            FailureClass::BadData => 11,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULES;
    use super::*;

    fn gang(exits: &[RunExit]) -> Run {
        let workers = (0..exits.len()).map(|rank| {
            (format!("w{rank}").parse().unwrap_or_else(|error| panic!("{error}")), "h".to_owned())
        });
        let experiment = "e-1".parse().unwrap_or_else(|error| panic!("{error}"));
        let task = Task::Prepare { part: 0, num_parts: 1 };
        let mut run = Run::new(Timestamp(1), experiment, task, workers.collect());
        for (member, exit) in run.members.iter_mut().zip(exits) {
            member.state = MemberState::ended(exit.clone(), true);
        }
        run
    }

    fn failed(class: FailureClass) -> RunExit {
        RunExit::Failed { message: format!("{class:?}"), permanent: false, class }
    }

    #[test]
    fn the_cause_wins_over_its_consequences() {
        let lost = RunExit::Lost { reason: "signal 9".to_owned() };
        let missed = failed(FailureClass::Lost);
        let ending = |exits: &[RunExit]| gang(exits).ending(Rules(RULES)).exit.to_string();
        let text = ending(&[missed.clone(), lost.clone(), RunExit::Canceled]);
        assert_eq!(text, "lost: rank 1 on h: signal 9");
        let text = ending(&[missed.clone(), RunExit::Canceled, failed(FailureClass::OutOfMemory)]);
        assert_eq!(text, "failed: rank 2 on h: OutOfMemory");
        let text = ending(&[failed(FailureClass::Hang), lost.clone()]);
        assert_eq!(text, "failed: rank 0 on h: Hang; rank 1 on h: signal 9");
        assert_eq!(ending(&[RunExit::Completed, RunExit::Completed]), "completed");
        assert_eq!(ending(&[RunExit::Canceled, RunExit::Preempted]), "preempted");
        assert_eq!(ending(&[missed.clone(), RunExit::Diverged { step: 3 }]), "diverged at step 3");
        // Who misses a rank that was preempted has not failed, unless another one vanished.
        let exits = [missed.clone(), RunExit::Preempted, RunExit::Canceled];
        assert_eq!(ending(&exits), "preempted");
        let older = gang(&exits).ending(Rules(4)).exit.to_string();
        assert_eq!(older, "failed: rank 0 on h: Lost");
        let text = ending(&[missed, RunExit::Preempted, lost]);
        assert_eq!(text, "lost: rank 2 on h: signal 9");
    }

    #[test]
    fn a_run_journaled_when_it_had_one_worker_is_read() {
        let old = r#"{"worker":"w1","experiment":"e-1","task":{"prepare":{"part":0,"num_parts":1}},
            "next_sequence":4,"started_at":7,"directive":null}"#;
        let run: Run = serde_json::from_str(old).unwrap();
        assert_eq!((run.world_size(), run.members[0].next_sequence), (1, 4));
        assert_eq!(run.members[0].state, MemberState::Working);
        assert_eq!(run.gang(0), None);
        let again: Run = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
        assert_eq!(again, run);
    }
}
