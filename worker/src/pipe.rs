//! What supervisor and runner say to each other: JSON lines over the runner's standard input and
//! output. End of input means that the supervisor is gone, and the runner ends at once.

use muster_common::id::Generation;
use muster_common::metric::MetricSeries;
use muster_common::run::{Directive, RunProgress, RunReport, RunSpec};
use serde::{Deserialize, Serialize};

/// Supervisor to runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Do this. Sent only while the runner has nothing to do.
    Start(Box<RunSpec>),
    /// For the run that is going on; one for another generation is ignored.
    Direct {
        /// Which run.
        generation: Generation,
        /// What it should do.
        directive: Directive,
    },
}

/// Runner to supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// Libtorch is loaded; a run can be started.
    Ready,
    /// Must arrive, in order. [`RunReport::Ended`] is the last of a run; the runner is ready again.
    Report {
        /// Which run.
        generation: Generation,
        /// What it says.
        report: RunReport,
    },
    /// May be lost.
    Progress {
        /// Which run.
        generation: Generation,
        /// Where it is.
        progress: RunProgress,
    },
    /// May be lost.
    Measured {
        /// Which run.
        generation: Generation,
        /// What, since the last message of this kind.
        series: Vec<MetricSeries>,
    },
}
