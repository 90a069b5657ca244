use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_allocations: 3,
    max_workers: 12,
    workers_each: 4,
    idle: Duration::from_secs(60),
    start: Duration::from_secs(120),
    renew: Duration::from_secs(600),
    drain: Duration::from_secs(120),
};

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn planner() -> Planner {
    Planner::new(LIMITS, 1, &BTreeMap::new())
}

fn observed(seconds: u64, allocations: &[(u64, Seen)]) -> Observation {
    Observation { asked_at: at(seconds), allocations: allocations.iter().copied().collect() }
}

fn pending() -> Seen {
    Seen { stage: Stage::Pending, num_workers: 0, num_busy: 0 }
}

fn running(since: u64, ends_at: u64, num_workers: u32, num_busy: u32) -> Seen {
    let stage = Stage::Running { since: at(since), ends_at: Some(at(ends_at)) };
    Seen { stage, num_workers, num_busy }
}

#[test]
fn as_many_are_asked_for_as_are_of_use_and_allowed() {
    let mut planner = planner();
    assert_eq!(planner.plan(at(0), 0, &observed(0, &[])), []);
    assert_eq!(planner.plan(at(0), 5, &observed(0, &[])), [Step::Submit { first: 1, count: 2 }]);
    planner.submitted(at(1), 1, 2, Outcome::Accepted);
    // They were answered after the look began, so that it says nothing about them.
    assert_eq!(planner.plan(at(1), 5, &observed(1, &[])), []);
    let both = [(1, pending()), (2, pending())];
    assert_eq!(planner.plan(at(2), 5, &observed(2, &both)), []);
    assert_eq!(planner.plan(at(3), 99, &observed(3, &both)), [Step::Submit { first: 3, count: 1 }]);
}

#[test]
fn an_answer_that_got_lost_is_no_reason_to_ask_again() {
    let mut planner = planner();
    planner.plan(at(0), 1, &observed(0, &[]));
    planner.submitted(at(30), 1, 1, Outcome::Unclear);
    for seconds in [40, 100, 180] {
        assert_eq!(planner.plan(at(seconds), 1, &observed(seconds, &[])), [], "{seconds}");
    }
    let unseen = planner.unseen();
    assert_eq!(unseen, BTreeMap::from([(1, at(0))]));
    let mut restarted = Planner::new(LIMITS, planner.next_number(), &unseen);
    assert_eq!(restarted.plan(at(50), 1, &observed(50, &[])), []);
    assert_eq!(restarted.plan(at(60), 1, &observed(60, &[(1, pending())])), []);
    assert_eq!(restarted.unseen(), BTreeMap::new());
    let again = [Step::Submit { first: 2, count: 1 }];
    assert_eq!(planner.plan(at(181), 1, &observed(181, &[])), again);
}

#[test]
fn refusals_are_asked_again_later_and_later() {
    let mut planner = planner();
    let mut seconds = 0;
    for wait in [5, 10, 20, 40] {
        let steps = planner.plan(at(seconds), 1, &observed(seconds, &[]));
        let [Step::Submit { first, count: 1 }] = steps[..] else { panic!("{steps:?}") };
        planner.submitted(at(seconds), first, 1, Outcome::Refused);
        assert_eq!(planner.unseen(), BTreeMap::new());
        seconds += wait;
        assert_eq!(planner.plan(at(seconds - 1), 1, &observed(seconds - 1, &[])), []);
    }
}

#[test]
fn allocations_that_end_before_they_bring_a_worker_are_not_asked_for_all_the_time() {
    let mut planner = planner();
    assert_eq!(planner.plan(at(0), 4, &observed(0, &[])), [Step::Submit { first: 1, count: 1 }]);
    planner.submitted(at(0), 1, 1, Outcome::Accepted);
    // Over before anybody looked.
    assert_eq!(planner.plan(at(1), 4, &observed(1, &[])), []);
    assert_eq!(planner.plan(at(6), 4, &observed(6, &[])), [Step::Submit { first: 2, count: 1 }]);
    planner.submitted(at(6), 2, 1, Outcome::Accepted);
    assert_eq!(planner.plan(at(7), 4, &observed(7, &[(2, running(7, 9000, 0, 0))])), []);
    assert_eq!(planner.plan(at(8), 4, &observed(8, &[])), []);
    assert_eq!(planner.plan(at(17), 4, &observed(17, &[])), []);
    assert_eq!(planner.plan(at(18), 4, &observed(18, &[])), [Step::Submit { first: 3, count: 1 }]);
    planner.submitted(at(18), 3, 1, Outcome::Accepted);
    planner.plan(at(19), 4, &observed(19, &[(3, running(19, 9000, 1, 1))]));
    // A worker came: what happens later is another story.
    let again = planner.plan(at(20), 4, &observed(20, &[]));
    assert_eq!(again, [Step::Submit { first: 4, count: 1 }]);
}

#[test]
fn what_is_idle_is_drained_and_then_ended_unless_it_got_a_run() {
    let mut planner = planner();
    let idle = [(1, running(0, 9000, 4, 0))];
    assert_eq!(planner.plan(at(10), 4, &observed(10, &idle)), []);
    assert_eq!(planner.plan(at(69), 4, &observed(69, &idle)), []);
    let steps = planner.plan(at(70), 0, &observed(70, &idle));
    assert!(matches!(steps[..], [Step::Drain { number: 1, .. }]), "{steps:?}");
    assert!(planner.is_draining(1));
    let late = [(1, running(0, 9000, 4, 1))];
    assert_eq!(planner.plan(at(70), 0, &observed(70, &late)), []);
    let steps = planner.plan(at(75), 0, &observed(75, &idle));
    assert!(matches!(steps[..], [Step::Cancel { number: 1, .. }]), "{steps:?}");
    assert_eq!(planner.plan(at(80), 0, &observed(80, &idle)), [], "said once");
    let steps = planner.plan(at(135), 0, &observed(135, &idle));
    assert!(matches!(steps[..], [Step::Cancel { number: 1, .. }]), "said again: {steps:?}");
}

#[test]
fn workers_that_never_dial_in_are_given_time_to_start() {
    let mut planner = planner();
    let silent = [(1, running(100, 9000, 0, 0))];
    assert_eq!(planner.plan(at(219), 4, &observed(219, &silent)), []);
    let steps = planner.plan(at(220), 4, &observed(220, &silent));
    let [Step::Drain { number: 1, reason }, Step::Submit { first: 2, count: 1 }] = &steps[..]
    else {
        panic!("{steps:?}");
    };
    assert!(reason.contains("dialled in"), "{reason}");
}

#[test]
fn an_allocation_is_replaced_before_its_end_and_drained_in_time() {
    let mut planner = planner();
    let busy = |seconds| observed(seconds, &[(1, running(0, 3600, 4, 4))]);
    assert_eq!(planner.plan(at(2999), 4, &busy(2999)), []);
    assert_eq!(planner.plan(at(3000), 4, &busy(3000)), [Step::Submit { first: 2, count: 1 }]);
    planner.submitted(at(3001), 2, 1, Outcome::Accepted);
    let both = |seconds, second| observed(seconds, &[(1, running(0, 3600, 4, 4)), (2, second)]);
    assert_eq!(planner.plan(at(3479), 4, &both(3479, pending())), []);
    let steps = planner.plan(at(3480), 4, &both(3480, pending()));
    assert!(matches!(steps[..], [Step::Drain { number: 1, .. }]), "{steps:?}");
    // The next one waits in the queue as long as it must.
    let gone = observed(3700, &[(2, pending())]);
    assert_eq!(planner.plan(at(3700), 4, &gone), []);
}

#[test]
fn a_short_allocation_is_not_renewed_as_soon_as_it_begins() {
    let mut planner = planner();
    let short = |seconds| observed(seconds, &[(1, running(0, 400, 4, 4))]);
    assert_eq!(planner.plan(at(1), 4, &short(1)), []);
    assert_eq!(planner.plan(at(200), 4, &short(200)), [Step::Submit { first: 2, count: 1 }]);
    assert_eq!(planner.plan(at(201), 4, &short(201)), [], "once");
}

#[test]
fn what_waits_and_is_not_wanted_is_withdrawn_the_newest_first() {
    let mut planner = planner();
    let three = |seconds| observed(seconds, &[(1, pending()), (2, pending()), (3, pending())]);
    assert_eq!(planner.plan(at(0), 12, &three(0)), []);
    assert_eq!(planner.plan(at(5), 4, &three(5)), []);
    assert_eq!(planner.plan(at(20), 12, &three(20)), [], "wanted again: the wait begins anew");
    assert_eq!(planner.plan(at(30), 4, &three(30)), []);
    let numbers: Vec<u64> = planner
        .plan(at(90), 4, &three(90))
        .into_iter()
        .map(|step| match step {
            Step::Cancel { number, .. } => number,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [3, 2]);
}

#[test]
fn a_job_that_begins_anew_after_its_node_failed_is_waited_for() {
    let mut planner = planner();
    planner.plan(at(0), 4, &observed(0, &[(1, running(0, 100, 4, 4))]));
    assert!(planner.is_draining(1));
    assert_eq!(planner.plan(at(10), 4, &observed(10, &[(1, pending())])), []);
    assert!(!planner.is_draining(1));
    let again = observed(500, &[(1, running(400, 9000, 0, 0))]);
    assert_eq!(planner.plan(at(500), 4, &again), [], "it has its time to start again");
}

#[test]
fn jobs_that_nobody_remembers_are_taken_over_with_their_numbers() {
    let mut planner = planner();
    let found = observed(0, &[(7, running(0, 9000, 4, 4))]);
    assert_eq!(planner.plan(at(0), 8, &found), [Step::Submit { first: 8, count: 1 }]);
}

/// A cluster that does what it likes.
#[derive(Debug, Default)]
struct Cluster {
    jobs: BTreeMap<u64, Job>,
    submitted: Vec<u64>,
    /// Not there yet: the number and when it will be.
    on_the_way: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    begun: Option<u64>,
    busy: bool,
    idle_since: Option<u64>,
}

/// What the world does in one tick.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each happens or not, whatever the others do")]
struct Weather {
    wanted: u32,
    /// 0: accepted, 1: refused, 2: the answer gets lost and it happens, 3: it gets lost and does not happen.
    answer: u8,
    begins: bool,
    works: bool,
    fails: bool,
    restarts: bool,
}

fn weather() -> impl Strategy<Value = Weather> {
    let rare = || prop::bool::weighted(0.05);
    let answer = prop_oneof![8 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8), 1 => Just(3u8)];
    (0u32..20, answer, any::<bool>(), any::<bool>(), rare(), rare()).prop_map(
        |(wanted, answer, begins, works, fails, restarts)| Weather {
            wanted,
            answer,
            begins,
            works,
            fails,
            restarts,
        },
    )
}

const TICK: u64 = 10;
const WALLTIME: u64 = 1200;

impl Cluster {
    fn pass(&mut self, now: u64, weather: Weather) {
        let arrived: Vec<u64> = self
            .on_the_way
            .iter()
            .filter(|(_, at)| *at <= now)
            .map(|(number, _)| *number)
            .collect();
        self.on_the_way.retain(|(_, at)| *at > now);
        for number in arrived {
            self.jobs.insert(number, Job { begun: None, busy: false, idle_since: None });
        }
        self.jobs.retain(|_, job| job.begun.is_none_or(|begun| now < begun + WALLTIME));
        if weather.fails {
            self.jobs.pop_first();
        }
        for job in self.jobs.values_mut() {
            if job.begun.is_none() && weather.begins {
                job.begun = Some(now);
            }
            if job.begun.is_some() {
                job.busy = weather.works && weather.wanted > 0;
                job.idle_since = if job.busy { None } else { job.idle_since.or(Some(now)) };
            }
        }
    }

    fn look(&self, now: u64) -> Observation {
        let seen = |job: &Job| match job.begun {
            None => pending(),
            Some(begun) => running(begun, begun + WALLTIME, 4, if job.busy { 3 } else { 0 }),
        };
        let allocations = self.jobs.iter().map(|(number, job)| (*number, seen(job))).collect();
        Observation { asked_at: at(now), allocations }
    }

    fn check(&self, now: u64) -> Result<(), TestCaseError> {
        let num_jobs = self.jobs.len() + self.on_the_way.len();
        prop_assert!(num_jobs <= 3, "{num_jobs} jobs");
        let mut numbers = self.submitted.clone();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), self.submitted.len(), "a wish was submitted twice");
        for (number, job) in &self.jobs {
            // A job that begins has its first look one tick later, and is ended one tick after draining.
            let idle = job.idle_since.map_or(0, |since| now - since);
            prop_assert!(idle <= 60 + 2 * TICK, "{number} is idle for {idle} s");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_weather_breaks_the_limits(days in prop::collection::vec(weather(), 1..200)) {
        let mut cluster = Cluster::default();
        let mut planner = planner();
        for (index, weather) in days.into_iter().enumerate() {
            let now = index as u64 * TICK;
            cluster.pass(now, weather);
            if weather.restarts {
                planner = Planner::new(LIMITS, planner.next_number(), &planner.unseen());
                // The new process knows nothing of how long allocations have been idle.
                cluster.jobs.values_mut().for_each(|job| job.idle_since = None);
            }
            let seen = cluster.look(now);
            let steps = planner.plan(at(now), weather.wanted, &seen);
            // A process may die between the record of a submission and the submission.
            for step in steps {
                match step {
                    Step::Drain { .. } => {}
                    Step::Cancel { number, .. } => {
                        prop_assert!(!cluster.jobs[&number].busy, "{number} was at work");
                        cluster.jobs.remove(&number);
                    }
                    Step::Submit { first, count } => {
                        let numbers = first..first + u64::from(count);
                        cluster.submitted.extend(numbers.clone());
                        let delay = if weather.answer == 2 { 100 } else { 0 };
                        if matches!(weather.answer, 0 | 2) {
                            cluster.on_the_way.extend(numbers.map(|n| (n, now + delay)));
                        }
                        let outcome = match weather.answer {
                            0 => Outcome::Accepted,
                            1 => Outcome::Refused,
                            _ => Outcome::Unclear,
                        };
                        if outcome == Outcome::Accepted {
                            // What is accepted can be seen from then on.
                            cluster.pass(now, Weather { fails: false, ..weather });
                        }
                        planner.submitted(at(now), first, count, outcome);
                    }
                }
            }
            cluster.check(now)?;
        }
    }

    #[test]
    fn what_is_wanted_comes_in_the_end(days in prop::collection::vec(weather(), 0..60)) {
        let mut cluster = Cluster::default();
        let mut planner = planner();
        let calm = Weather {
            wanted: 6, answer: 0, begins: true, works: true, fails: false, restarts: false,
        };
        let calm_ticks = std::iter::repeat_n(calm, 60);
        let num_ticks = days.len() + 60;
        let mut now = 0;
        let mut num_well = 0;
        for (tick, weather) in days.into_iter().chain(calm_ticks).enumerate() {
            now += TICK;
            cluster.pass(now, weather);
            for step in planner.plan(at(now), weather.wanted, &cluster.look(now)) {
                match step {
                    Step::Drain { .. } => {}
                    Step::Cancel { number, .. } => {
                        cluster.jobs.remove(&number);
                    }
                    Step::Submit { first, count } => {
                        let numbers = first..first + u64::from(count);
                        let is_there = weather.answer == 0 || weather.answer == 2;
                        if is_there {
                            cluster.on_the_way.extend(numbers.map(|n| (n, now)));
                        }
                        let outcome = match weather.answer {
                            0 => Outcome::Accepted,
                            1 => Outcome::Refused,
                            _ => Outcome::Unclear,
                        };
                        planner.submitted(at(now), first, count, outcome);
                    }
                }
            }
            let num_working = cluster.jobs.values().filter(|job| job.busy).count();
            num_well += u32::from(num_working >= 2 && tick + 30 >= num_ticks);
        }
        // Now and then two end at once, and only one could be asked for before.
        prop_assert!(num_well >= 20, "{num_well} of 30: {:?}", cluster);
    }
}
