//! Soft state: who is connected, when each worker was last heard of, how far runs are. Rebuilt after a
//! restart; nothing here decides anything but that a lease has expired.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_common::id::{Generation, WorkerId};
use muster_common::metric::MetricName;
use muster_common::run::{Directive, RunProgress, RunSpec};
use tokio::sync::mpsc;

use crate::curve::{CurveSet, LiveCurves};

/// Messages a session may lag behind before it is cut: a worker gets a handful per run.
const SESSION_CAPACITY: usize = 64;

/// A session that deals with one message for longer hangs: nobody will hear its worker again.
const TAKING_MAX: Duration = Duration::from_secs(5 * 60);

/// Coordinator to worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// Do this.
    Assign(Box<RunSpec>),
    /// For the run in progress.
    Direct {
        /// Which.
        generation: Generation,
        /// What.
        directive: Directive,
    },
    /// Reports up to here are durable.
    Acknowledge {
        /// Of which run.
        generation: Generation,
        /// Up to and including.
        sequence: u64,
    },
    /// Kill the run and forget its reports.
    Abandon {
        /// Which.
        generation: Generation,
    },
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<WorkerId, Session>,
    heard: BTreeMap<WorkerId, Instant>,
    progress: BTreeMap<Generation, RunProgress>,
    /// Recent rates, to tell how fast things go while a run is between two messages.
    rates: VecDeque<(Instant, f64)>,
    allocations: Vec<String>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    token_name: Option<String>,
    sender: mpsc::Sender<ToWorker>,
    /// It deals with something that the worker has said, and reads nothing meanwhile.
    taking_since: Option<Instant>,
}

/// Shared by the service, the driver and the views. Locks are held for a few instructions.
#[derive(Debug, Clone, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
    /// Apart: there are many values, and nobody else should wait for them.
    curves: Arc<Mutex<LiveCurves>>,
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the token with which a worker's session was opened, if one is open.
    pub fn token_of(&self, worker: &WorkerId) -> Option<String> {
        self.state().sessions.get(worker)?.token_name.clone()
    }

    /// A worker opens session `number`; an older session of it gets no messages any more. `None`: one is open that
    /// was let in with another token than this one and `displaced`, and stays.
    pub fn connect(
        &self,
        worker: &WorkerId,
        number: u64,
        token_name: Option<&str>,
        displaced: Option<&str>,
        now: Instant,
    ) -> Option<mpsc::Receiver<ToWorker>> {
        let (sender, receiver) = mpsc::channel(SESSION_CAPACITY);
        let mut state = self.state();
        let open = state.sessions.get(worker).and_then(|session| session.token_name.as_deref());
        if is_of_another(open, token_name) && open != displaced {
            return None;
        }
        let token_name = token_name.map(ToOwned::to_owned);
        let session = Session { number, token_name, sender, taking_since: None };
        state.sessions.insert(worker.clone(), session);
        state.heard.insert(worker.clone(), now);
        Some(receiver)
    }

    /// Session `number` is closed.
    pub fn disconnect(&self, worker: &WorkerId, number: u64) {
        let mut state = self.state();
        if state.sessions.get(worker).is_some_and(|session| session.number == number) {
            state.sessions.remove(worker);
        }
    }

    /// Workers with an open session.
    pub fn num_connected(&self) -> usize {
        self.state().sessions.len()
    }

    /// Session `number` has heard something of a worker, and deals with it.
    pub fn begin_taking(&self, worker: &WorkerId, number: u64, now: Instant) {
        self.set_taking(worker, number, now, Some(now));
    }

    /// Session `number` reads on: what the worker has said meanwhile comes now.
    pub fn end_taking(&self, worker: &WorkerId, number: u64, now: Instant) {
        self.set_taking(worker, number, now, None);
    }

    fn set_taking(&self, worker: &WorkerId, number: u64, now: Instant, since: Option<Instant>) {
        let mut state = self.state();
        let State { sessions, heard, .. } = &mut *state;
        // One that was cut off, or has said goodbye, is not heard any more.
        let session = sessions.get_mut(worker).filter(|session| session.number == number);
        let Some(session) = session else { return };
        session.taking_since = since;
        heard.insert(worker.clone(), now);
    }

    /// Every worker counts as heard of now.
    pub fn renew_leases(&self, now: Instant) {
        self.state().heard.values_mut().for_each(|heard| *heard = now);
    }

    /// Time since a worker was last heard of; the first question about it starts its lease. While its session deals
    /// with something that it has said, its next words lie unread: then it is this process that is slow.
    pub fn silence(&self, worker: &WorkerId, now: Instant) -> Duration {
        let mut state = self.state();
        let heard = *state.heard.entry(worker.clone()).or_insert(now);
        let taking_since = state.sessions.get(worker).and_then(|session| session.taking_since);
        if taking_since.is_some_and(|since| now.saturating_duration_since(since) < TAKING_MAX) {
            return Duration::ZERO;
        }
        now.saturating_duration_since(heard)
    }

    /// A worker is gone for good.
    pub fn forget(&self, worker: &WorkerId) {
        let mut state = self.state();
        state.sessions.remove(worker);
        state.heard.remove(worker);
    }

    /// Sends if the worker is connected. One that is not will be told when it comes back; one whose
    /// queue is full is cut off, so that it comes back.
    pub fn send(&self, worker: &WorkerId, message: ToWorker) {
        let mut state = self.state();
        let Some(session) = state.sessions.get(worker) else { return };
        if session.sender.try_send(message).is_err() {
            tracing::warn!(%worker, "session does not keep up, cutting it");
            state.sessions.remove(worker);
        }
    }

    /// Notes what a cluster says about its allocations, for people.
    pub fn set_allocations(&self, lines: Vec<String>) {
        self.state().allocations = lines;
    }

    /// What a cluster says about its allocations; empty where there is no cluster.
    pub fn allocations(&self) -> Vec<String> {
        self.state().allocations.clone()
    }

    /// Notes how far a run is.
    pub fn set_progress(&self, generation: Generation, progress: RunProgress, now: Instant) {
        let mut state = self.state();
        state.progress.insert(generation, progress);
        let total: f64 = state.progress.values().map(|progress| progress.examples_per_second).sum();
        state.rates.push_back((now, total));
        while state
            .rates
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_WINDOW)
        {
            state.rates.pop_front();
        }
    }

    /// How far a run is, as last heard.
    pub fn progress(&self, generation: Generation) -> Option<RunProgress> {
        self.state().progress.get(&generation).cloned()
    }

    /// A run is over.
    pub fn end_run(&self, generation: Generation) {
        self.state().progress.remove(&generation);
        self.curves().retain(|other| other != generation);
    }

    /// Forgets what runs said that are not among these any more.
    pub fn keep_runs(&self, goes_on: impl Fn(Generation) -> bool) {
        self.state().progress.retain(|generation, _| goes_on(*generation));
        self.curves().retain(goes_on);
    }

    fn curves(&self) -> MutexGuard<'_, LiveCurves> {
        self.curves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes values of a metric of a run, steps rising.
    pub fn measured(
        &self,
        generation: Generation,
        name: MetricName,
        values: impl Iterator<Item = (u64, f64)>,
    ) {
        self.curves().extend(generation, name, values);
    }

    /// What a run has measured so far, as far as it was heard.
    pub fn curves_of(&self, generation: Generation) -> CurveSet {
        self.curves().of(generation)
    }

    /// The last value of a metric that was heard of a run.
    pub fn latest(&self, generation: Generation, name: &MetricName) -> Option<f64> {
        self.curves().latest(generation, name)
    }

    /// Mean of the summed rate over the last moments, examples per second.
    pub fn examples_per_second(&self) -> f64 {
        let state = self.state();
        let sum: f64 = state.rates.iter().map(|(_, rate)| rate).sum();
        if state.rates.is_empty() { 0.0 } else { sum / state.rates.len() as f64 }
    }
}

/// Whether what was let in with one token is not for who shows `shown`. Tokens are told by their names: a token that is
/// renewed keeps its own. Where none was asked for, then or now, anybody could be anybody.
pub fn is_of_another(known: Option<&str>, shown: Option<&str>) -> bool {
    matches!((known, shown), (Some(known), Some(shown)) if known != shown)
}

/// Rates older than this say nothing about the present.
const RATE_WINDOW: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_that_came_first_may_come_back_under_an_id() {
        let (live, now) = (Live::default(), Instant::now());
        let worker: WorkerId = "w-1".parse().unwrap();
        let connect = |number, token| live.connect(&worker, number, token, None, now);
        let mut first = connect(1, Some("a")).unwrap();
        assert!(connect(2, Some("b")).is_none());
        live.send(&worker, ToWorker::Abandon { generation: Generation(7) });
        assert!(first.try_recv().is_ok(), "the first one stays");
        // One that was refused ends, and takes nothing with it.
        live.disconnect(&worker, 2);
        assert_eq!(live.num_connected(), 1);
        assert!(connect(3, Some("a")).is_some(), "it comes back");
        live.disconnect(&worker, 1);
        assert!(connect(4, Some("b")).is_none(), "its older session ends, the newer one does not");
        live.disconnect(&worker, 3);
        assert!(connect(5, Some("b")).is_some(), "nobody has the id any more");
        assert_eq!(live.token_of(&worker).as_deref(), Some("b"));
        let displacing = |token| live.connect(&worker, 6, Some("c"), Some(token), now);
        assert!(displacing("a").is_none(), "another came between");
        assert!(displacing("b").is_some());
    }

    #[test]
    fn whose_words_lie_unread_is_not_silent_unless_its_session_hangs() {
        let (live, begun) = (Live::default(), Instant::now());
        let worker: WorkerId = "w-1".parse().unwrap();
        let _first = live.connect(&worker, 1, None, None, begun).unwrap();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        let silence = |seconds: u64| live.silence(&worker, after(seconds)).as_secs();
        assert_eq!(silence(20), 20);
        live.begin_taking(&worker, 1, after(20));
        assert_eq!(silence(50), 0);
        let hangs = 20 + TAKING_MAX.as_secs();
        assert_eq!(silence(hangs), TAKING_MAX.as_secs());
        live.end_taking(&worker, 1, after(60));
        assert_eq!(silence(75), 15);
        // A session that another has taken the place of says nothing about the worker.
        live.begin_taking(&worker, 1, after(80));
        let _second = live.connect(&worker, 2, None, None, after(90)).unwrap();
        assert_eq!(silence(100), 10);
        live.end_taking(&worker, 1, after(100));
        assert_eq!(silence(100), 10);
        // Nor does one about a worker that has left.
        live.forget(&worker);
        live.end_taking(&worker, 2, after(110));
        assert_eq!(silence(120), 0, "its lease begins when it is asked for");
        assert_eq!(silence(125), 5);
    }

    #[test]
    fn without_tokens_anybody_comes_back() {
        let (live, now) = (Live::default(), Instant::now());
        let worker: WorkerId = "w-1".parse().unwrap();
        for token in [None, None, Some("a"), None, Some("b")] {
            assert!(live.connect(&worker, 1, token, None, now).is_some(), "{token:?}");
        }
    }
}
