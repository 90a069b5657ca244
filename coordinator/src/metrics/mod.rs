//! What operators see at `/metrics`: counters that are added to where things happen, and gauges that are read
//! from the engine when somebody asks. `coordinator/README.md` has the table of names, which a test compares.
//!
//! Labels have few values, whatever runs: of many experiments the newest have series of their own and the
//! others share one; trials, runs, workers and hosts are counted and never named.

mod census;
mod process;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use census::Census;
pub(crate) use watch::Watch;

/// The media type of what [`Metrics::text`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label names and values of one series.
pub(crate) type Labels = Vec<(&'static str, String)>;
/// The one label of a series whose values are all known here: nothing is allocated to count.
pub(crate) type OneLabel = [(&'static str, &'static str); 1];

/// Bounds of buckets for writes to a disk, seconds.
const WRITE_SECONDS: [f64; 12] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];
/// Bounds of buckets for waits, seconds: from what a message takes to hours in a queue.
const WAIT_SECONDS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0];

/// Every metric of a coordinator. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) commits: Histogram,
    pub(crate) snapshots: Histogram,
    pub(crate) position: Gauge,
    pub(crate) reports: Family<OneLabel, Counter>,
    pub(crate) workers_lost: Family<OneLabel, Counter>,
    pub(crate) runs_started: Family<OneLabel, Counter>,
    pub(crate) restarts: Family<OneLabel, Counter>,
    pub(crate) queue_wait: Histogram,
    pub(crate) slot_idle: Histogram,
    pub(crate) effects: Family<OneLabel, Gauge>,
    refusals: Family<OneLabel, Counter>,
    is_insecure: Gauge,
    counted: Gauges,
    registry: Arc<Mutex<Registry>>,
}

/// What is read from the engine and the system at each scrape.
#[derive(Clone, Default)]
struct Gauges {
    experiments: Family<Labels, Gauge>,
    paused: Gauge,
    trials: Family<Labels, Gauge>,
    runs: Family<Labels, Gauge>,
    slots: Family<Labels, Gauge>,
    hosts_aside: Gauge,
    connections: Gauge,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    started_at: Gauge<f64, AtomicU64>,
    files: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            commits: Histogram::new(WRITE_SECONDS),
            snapshots: Histogram::new(WRITE_SECONDS),
            position: Gauge::default(),
            reports: Family::default(),
            workers_lost: Family::default(),
            runs_started: Family::default(),
            restarts: Family::default(),
            queue_wait: Histogram::new(WAIT_SECONDS),
            slot_idle: Histogram::new(WAIT_SECONDS),
            effects: Family::default(),
            refusals: Family::default(),
            is_insecure: Gauge::default(),
            counted: Gauges::default(),
            registry: Arc::default(),
        };
        let mut registry = Registry::default();
        metrics.register_happenings(&mut registry);
        metrics.counted.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics.show_zeros();
        metrics
    }
}

/// One label.
pub(crate) fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

impl Metrics {
    fn register_happenings(&self, registry: &mut Registry) {
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("muster_build", "The build of the coordinator", Info::new(version));
        let seconds = |registry: &mut Registry, name: &str, help: &str, metric: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        let name = "muster_journal_commit";
        seconds(registry, name, "Time of one durable write of events", &self.commits);
        let name = "muster_journal_snapshot";
        seconds(registry, name, "Time of one snapshot of the engine", &self.snapshots);
        let name = "muster_queue_wait";
        let help = "Time an experiment that nothing ran for waited for its next run to start";
        seconds(registry, name, help, &self.queue_wait);
        let help = "Time a slot was free before a run started on it";
        seconds(registry, "muster_slot_idle", help, &self.slot_idle);
        let help = "Number of the newest event in the journal";
        registry.register("muster_journal_position", help, self.position.clone());
        let help = "Reports of runs by what became of them";
        registry.register("muster_reports", help, self.reports.clone());
        let help = "Workers that are gone, by cause";
        registry.register("muster_workers_lost", help, self.workers_lost.clone());
        registry.register("muster_runs_started", "Runs started", self.runs_started.clone());
        let help = "Restarts of trials that counted, by class of failure";
        registry.register("muster_trial_restarts", help, self.restarts.clone());
        let help = "Actions that are decided and not yet performed";
        registry.register("muster_effects_pending", help, self.effects.clone());
        let help = "Calls that were refused, by what was wrong with their token or connection";
        registry.register("muster_calls_refused", help, self.refusals.clone());
        let help = "Whether other machines may call without a token or in clear text";
        registry.register("muster_insecure", help, self.is_insecure.clone());
    }

    /// Series exist before anything happens: a rate over an absent one is no zero.
    fn show_zeros(&self) {
        for value in ["new", "repeated", "gap"] {
            drop(self.reports.get_or_create(&[("admission", value)]));
        }
        for value in watch::CAUSES {
            drop(self.workers_lost.get_or_create(&[("cause", value)]));
        }
        for value in census::TASKS {
            drop(self.runs_started.get_or_create(&[("task", value)]));
        }
        for class in muster_common::run::FailureClass::ALL {
            drop(self.restarts.get_or_create(&[("class", watch::class_label(class))]));
        }
        for reason in crate::access::checker::Refusal::LABELS {
            drop(self.refusals.get_or_create(&[("reason", reason)]));
        }
        for kind in ["message", "chore"] {
            drop(self.effects.get_or_create(&[("kind", kind)]));
        }
    }

    /// What a scrape gives, in the text format of `OpenMetrics`.
    pub fn text(&self, census: &Census, num_connections: usize) -> Result<String, fmt::Error> {
        // Held for all of it: two scrapes must not mix.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted.show(census, num_connections);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// So many more actions wait to be performed, or fewer.
    pub(crate) fn pending(&self, kind: &'static str, change: i64) {
        if change != 0 {
            self.effects.get_or_create(&[("kind", kind)]).inc_by(change);
        }
    }

    /// A call was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Whether anybody may call.
    pub(crate) fn set_insecure(&self, is_insecure: bool) {
        self.is_insecure.set(i64::from(is_insecure));
    }

    pub(crate) fn committed(&self, took: Duration, position: u64) {
        self.commits.observe(took.as_secs_f64());
        self.position.set(i64::try_from(position).unwrap_or(i64::MAX));
    }
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        let help = "Experiments by phase, ended ones by how they ended";
        registry.register("muster_experiments", help, self.experiments.clone());
        let help = "Experiments that start no runs until they are resumed";
        registry.register("muster_experiments_paused", help, self.paused.clone());
        let help = "Trials by state; older experiments share the label _others, ended ones _ended";
        registry.register("muster_trials", help, self.trials.clone());
        registry.register("muster_runs", "Runs in progress by task", self.runs.clone());
        registry.register("muster_slots", "Slots by what they do", self.slots.clone());
        let help = "Machines that get no new runs because of their failures";
        registry.register("muster_hosts_aside", help, self.hosts_aside.clone());
        let help = "Workers with an open session";
        registry.register("muster_worker_connections", help, self.connections.clone());
        let help = "Processor time of the coordinator, of user and system";
        registry.register_with_unit("process_cpu", help, Unit::Seconds, self.cpu.clone());
        let help = "Memory of the coordinator that is in RAM";
        registry.register_with_unit(
            "process_resident_memory",
            help,
            Unit::Bytes,
            self.resident.clone(),
        );
        let help = "When the coordinator started, seconds since 1970";
        registry.register_with_unit(
            "process_start_time",
            help,
            Unit::Seconds,
            self.started_at.clone(),
        );
        let help = "Open files and sockets of the coordinator";
        registry.register("process_open_fds", help, self.files.clone());
    }

    fn show(&self, census: &Census, num_connections: usize) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (family, counts) in [
            (&self.experiments, &census.experiments),
            (&self.trials, &census.trials),
            (&self.runs, &census.runs),
            (&self.slots, &census.slots),
        ] {
            // What was counted at the last scrape may be gone.
            family.clear();
            for (labels, number) in counts {
                family.get_or_create(labels).set(gauge(*number));
            }
        }
        self.paused.set(gauge(census.num_paused));
        self.hosts_aside.set(gauge(census.num_hosts_aside));
        self.connections.set(gauge(num_connections));
        let usage = process::usage();
        self.cpu.inner().store(usage.cpu_seconds.to_bits(), Ordering::Relaxed);
        self.resident.set(gauge(usage.resident_bytes));
        self.started_at.set(usage.started_at);
        self.files.set(gauge(usage.num_files));
    }
}

#[cfg(test)]
mod tests;
