//! What the API answers, as JSON. Times are milliseconds since 1970, durations are seconds, numbers that are not
//! finite are `null`. Fields are added, never changed: scripts may read them.

use std::collections::BTreeMap;

use muster_common::equipment::Workers;
use serde::{Deserialize, Serialize};

use crate::view::Setting;

/// `GET /api/v1/session`: who looks, and what they may do.
#[derive(Debug, Serialize)]
pub(super) struct SessionAnswer {
    /// Version of the coordinator.
    pub(super) version: &'static str,
    /// Whether tokens are asked for.
    pub(super) asks_for_tokens: bool,
    /// Name of the token; absent where none is asked for.
    pub(super) name: Option<String>,
    /// Whether pausing, canceling and the like are allowed.
    pub(super) may_act: bool,
}

/// `GET /api/v1/experiments`: one page of them.
#[derive(Debug, Serialize)]
pub(super) struct ExperimentsAnswer {
    /// When this was made.
    pub(super) now_ms: u64,
    /// How many match.
    pub(super) total: usize,
    /// Those of the page.
    pub(super) experiments: Vec<ExperimentRow>,
}

/// One experiment in a list.
#[derive(Debug, Serialize)]
pub(super) struct ExperimentRow {
    pub(super) id: String,
    pub(super) description: String,
    /// `preparing`, `searching`, `finishing`, `completed`, `canceled` or `failed`.
    pub(super) state: &'static str,
    pub(super) paused: bool,
    /// What it waits for or why it failed; may be empty.
    pub(super) reason: String,
    /// It failed when only the model of its best trial was left to write: `resume` has that tried again.
    pub(super) lacks_model: bool,
    pub(super) project: Option<String>,
    pub(super) priority: i32,
    pub(super) created_at_ms: u64,
    pub(super) ended_at_ms: Option<u64>,
    /// Names of the metrics that are wanted, the first one decides.
    pub(super) objectives: Vec<ObjectiveAnswer>,
    /// Trials by state; states that no trial is in are left out.
    pub(super) trials: BTreeMap<&'static str, usize>,
    pub(super) num_trials: usize,
    pub(super) max_trials: u32,
    pub(super) best: Option<BestAnswer>,
    /// Parts of the preparation that are done, of how many.
    pub(super) preparation: (u32, u32),
    /// A guess.
    pub(super) seconds_left: Option<f64>,
    /// Slots that it has now.
    pub(super) slots: u32,
    /// Time of its slots that are free again.
    pub(super) slot_seconds: f64,
}

/// What is wanted.
#[derive(Debug, Serialize)]
pub(super) struct ObjectiveAnswer {
    pub(super) metric: &'static str,
    /// `max` or `min`.
    pub(super) mode: &'static str,
}

/// The best result.
#[derive(Debug, Serialize)]
pub(super) struct BestAnswer {
    pub(super) trial: u32,
    pub(super) step: u64,
    pub(super) objective: f64,
    /// The same metric on the test split; only at the end.
    pub(super) test: Option<f64>,
    /// Where the model lies; empty until it is written.
    pub(super) model: String,
}

/// `GET /api/v1/experiments/ID`.
#[derive(Debug, Serialize)]
pub(super) struct ExperimentAnswer {
    pub(super) now_ms: u64,
    #[serde(flatten)]
    pub(super) row: ExperimentRow,
    /// Budgets of the rungs for people, lowest first.
    pub(super) rungs: Vec<String>,
    pub(super) constraints: Vec<String>,
    /// What is searched, by name.
    pub(super) parameters: Vec<ParameterAnswer>,
    /// Hyperparameters that are the same in every trial.
    pub(super) constants: BTreeMap<String, Setting>,
    pub(super) sampler: &'static str,
    pub(super) pruner: &'static str,
    pub(super) seed: String,
    pub(super) model: String,
    pub(super) learns: &'static str,
    pub(super) slots_per_trial: String,
    pub(super) data: Option<DataAnswer>,
    pub(super) warnings: Vec<String>,
    /// Directory or URL of everything it writes.
    pub(super) location: String,
    pub(super) examples_per_second: f64,
    pub(super) savings: SavingsAnswer,
    /// The newest decisions about the experiment or any trial, newest first.
    pub(super) decisions: Vec<DecisionAnswer>,
    pub(super) num_decisions: usize,
}

/// A searched hyperparameter.
#[derive(Debug, Serialize)]
pub(super) struct ParameterAnswer {
    pub(super) name: String,
    /// `float`, `int`, `steps`, `values`, or `words`, of which `min` and `max` say nothing.
    pub(super) kind: &'static str,
    /// Equal factors rather than equal differences are alike.
    pub(super) log: bool,
    pub(super) min: f64,
    pub(super) max: f64,
    /// The legal values, where there are few; else empty.
    pub(super) values: Vec<Setting>,
}

/// What the data turned out to be.
#[derive(Debug, Serialize)]
pub(super) struct DataAnswer {
    pub(super) num_train: u64,
    pub(super) num_validation: u64,
    pub(super) num_test: u64,
    pub(super) labels: Vec<String>,
    /// Directory of the tokenized data, a content hash.
    pub(super) cache: String,
    pub(super) remarks: Vec<String>,
}

/// What early stopping has saved: steps that ended trials would have trained, had each used its whole budget.
#[derive(Debug, Serialize)]
pub(super) struct SavingsAnswer {
    /// Trials that have ended.
    pub(super) num_ended: usize,
    /// Of these, with less than their whole budget, by a pruner or early stopping.
    pub(super) num_stopped: usize,
    pub(super) trained_steps: u64,
    pub(super) full_steps: u64,
    /// Of `full_steps`, those that were not trained.
    pub(super) saved_share: Option<f64>,
    /// What they would have taken, each at the speed of its trial.
    pub(super) saved_seconds: f64,
}

/// Why something happened.
#[derive(Debug, Serialize)]
pub(super) struct DecisionAnswer {
    pub(super) at_ms: u64,
    pub(super) trial: Option<u32>,
    pub(super) text: String,
}

/// `GET /api/v1/experiments/ID/trials`: one page of them.
#[derive(Debug, Serialize)]
pub(super) struct TrialsAnswer {
    pub(super) total: usize,
    pub(super) trials: Vec<TrialRow>,
}

/// One trial in a list.
#[derive(Debug, Serialize)]
pub(super) struct TrialRow {
    pub(super) number: u32,
    /// `running`, `pending`, `paused`, `completed`, `stopped`, `canceled` or `failed`.
    pub(super) state: &'static str,
    /// Why it stopped or failed.
    pub(super) reason: String,
    /// Place among all trials, from 1; absent without a result.
    pub(super) rank: Option<usize>,
    pub(super) parameters: BTreeMap<String, Setting>,
    pub(super) step: u64,
    pub(super) target_step: u64,
    /// A value for each objective of its best result; empty without one.
    pub(super) objectives: Vec<f64>,
    /// How far constraints are broken, 0 if they are kept.
    pub(super) violation: f64,
    pub(super) rungs_passed: u32,
    pub(super) last_loss: Option<f64>,
    pub(super) examples_per_second: f64,
    pub(super) attempts: u32,
    pub(super) restarts: u32,
    /// Held back by a user.
    pub(super) held: bool,
    /// Time of its runs that are over.
    pub(super) used_seconds: f64,
    /// Where its ranks are, for people.
    pub(super) ranks: Vec<String>,
}

/// `GET /api/v1/experiments/ID/results`: the results of trials at their rungs, best trial first.
#[derive(Debug, Serialize)]
pub(super) struct ResultsAnswer {
    pub(super) metric: &'static str,
    /// Trials with a result; more than are given if `limit` was smaller.
    pub(super) total: usize,
    pub(super) trials: Vec<ResultCurve>,
}

/// Results of one trial.
#[derive(Debug, Serialize)]
pub(super) struct ResultCurve {
    pub(super) number: u32,
    pub(super) state: &'static str,
    pub(super) rank: usize,
    pub(super) steps: Vec<u64>,
    pub(super) values: Vec<f64>,
}

/// `GET /api/v1/experiments/ID/points`: hyperparameters and results as columns, best trial first.
#[derive(Debug, Serialize)]
pub(super) struct PointsAnswer {
    pub(super) total: usize,
    pub(super) numbers: Vec<u32>,
    pub(super) states: Vec<&'static str>,
    /// Best value of each objective, one column for each.
    pub(super) objectives: Vec<Vec<f64>>,
    /// Names of the columns of `values`.
    pub(super) parameters: Vec<String>,
    /// One column for each hyperparameter; `null` where a trial has none.
    pub(super) values: Vec<Vec<Option<Setting>>>,
}

/// `GET /api/v1/experiments/ID/rungs`.
#[derive(Debug, Serialize)]
pub(super) struct RungsAnswer {
    pub(super) metric: &'static str,
    pub(super) rungs: Vec<RungAnswer>,
}

/// One rung.
#[derive(Debug, Serialize)]
pub(super) struct RungAnswer {
    /// From 1.
    pub(super) number: usize,
    /// For people.
    pub(super) budget: String,
    pub(super) num_results: usize,
    /// Went beyond it.
    pub(super) num_promoted: usize,
    /// Ended at it before their whole budget was used.
    pub(super) num_stopped: usize,
    /// Wait at it.
    pub(super) num_waiting: usize,
    /// Best first; not all of them if there are many.
    pub(super) entries: Vec<RungEntry>,
}

/// A result at a rung.
#[derive(Debug, Serialize)]
pub(super) struct RungEntry {
    pub(super) trial: u32,
    /// From 1.
    pub(super) place: usize,
    pub(super) step: u64,
    pub(super) objective: f64,
    /// `went on`, `waits`, `finished`, `stopped`, `canceled` or `failed`.
    pub(super) fate: &'static str,
    /// Why, where there is more to say.
    pub(super) reason: String,
}

/// `GET /api/v1/experiments/ID/importance`.
#[derive(Debug, Serialize)]
pub(super) struct ImportanceAnswer {
    /// Results that were compared, all of one rung.
    pub(super) num_results: usize,
    /// Which rung; empty: there is no result.
    pub(super) rung: String,
    /// Share of the objective's variance that each hyperparameter explains, largest first; `null`: nothing can be
    /// said, for `reason`.
    pub(super) shares: Option<Vec<ShareAnswer>>,
    pub(super) reason: String,
}

/// A hyperparameter's share.
#[derive(Debug, Serialize)]
pub(super) struct ShareAnswer {
    pub(super) name: String,
    /// 0 to 1.
    pub(super) share: f64,
}

/// `GET /api/v1/timeline`, `GET /api/v1/experiments/ID/timeline`: which slot did what when.
#[derive(Debug, Serialize)]
pub(super) struct TimelineAnswer {
    pub(super) now_ms: u64,
    /// Nothing is known of what was over before.
    pub(super) since_ms: u64,
    /// Slots that had runs.
    pub(super) slots: Vec<SlotName>,
    pub(super) spans: Vec<SpanAnswer>,
    /// Spans that are left out, the oldest.
    pub(super) num_left_out: usize,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct SlotName {
    pub(super) host: String,
    pub(super) worker: String,
}

/// One rank of a run.
#[derive(Debug, Serialize)]
pub(super) struct SpanAnswer {
    /// Index into `slots`.
    pub(super) slot: usize,
    pub(super) run: u64,
    pub(super) rank: usize,
    pub(super) experiment: String,
    pub(super) trial: Option<u32>,
    /// `prepare`, `train` or `finish`.
    pub(super) task: String,
    pub(super) from_ms: u64,
    /// Absent: it goes on.
    pub(super) to_ms: Option<u64>,
}

/// `GET /api/v1/experiments/ID/trials/N`.
#[derive(Debug, Serialize)]
pub(super) struct TrialAnswer {
    pub(super) now_ms: u64,
    pub(super) experiment: String,
    pub(super) experiment_ended: bool,
    /// What the values of `objectives` are.
    pub(super) goals: Vec<ObjectiveAnswer>,
    pub(super) num_trials: usize,
    #[serde(flatten)]
    pub(super) row: TrialRow,
    /// Why it is where it is, a line for each thing to say.
    pub(super) why: Vec<String>,
    pub(super) results: Vec<ResultAnswer>,
    /// Scores of its best result.
    pub(super) validation: Option<EvaluationAnswer>,
    /// Scores on the test split, of the chosen trial at the end.
    pub(super) test: Option<EvaluationAnswer>,
    pub(super) lineage: Vec<DescentAnswer>,
    /// Trials that went on from its checkpoints.
    pub(super) descendants: Vec<u32>,
}

/// A result at a rung with all its scores.
#[derive(Debug, Serialize)]
pub(super) struct ResultAnswer {
    pub(super) rung: usize,
    pub(super) budget: String,
    pub(super) step: u64,
    pub(super) checkpoint: String,
    pub(super) scores: BTreeMap<&'static str, f64>,
}

/// Scores of a split.
#[derive(Debug, Serialize)]
pub(super) struct EvaluationAnswer {
    pub(super) step: u64,
    pub(super) scores: BTreeMap<&'static str, f64>,
    pub(super) labels: Vec<String>,
    /// `confusion[truth][prediction]`, counts.
    pub(super) confusion: Vec<Vec<u64>>,
    pub(super) classes: Vec<ClassAnswer>,
}

/// A row of the classification report.
#[derive(Debug, Serialize)]
pub(super) struct ClassAnswer {
    pub(super) label: String,
    pub(super) precision: f64,
    pub(super) recall: f64,
    pub(super) f1: f64,
    pub(super) support: u64,
}

/// A trial went on from another's checkpoint.
#[derive(Debug, Serialize)]
pub(super) struct DescentAnswer {
    pub(super) rung: usize,
    pub(super) parent: u32,
    pub(super) parent_step: u64,
    /// Its hyperparameters until then.
    pub(super) before: BTreeMap<String, Setting>,
}

/// `GET /api/v1/experiments/ID/trials/N/curves`.
#[derive(Debug, Serialize)]
pub(super) struct CurvesAnswer {
    pub(super) curves: Vec<CurveAnswer>,
}

/// One metric, at a resolution for the eye.
#[derive(Debug, Serialize)]
pub(super) struct CurveAnswer {
    pub(super) name: String,
    /// `1`: none; empty: not known.
    pub(super) unit: &'static str,
    /// The last step that each point stands for.
    pub(super) steps: Vec<u64>,
    pub(super) means: Vec<f64>,
    pub(super) minima: Vec<f32>,
    pub(super) maxima: Vec<f32>,
}

/// `GET /api/v1/experiments/ID/trials/N/checkpoints`.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointsAnswer {
    pub(super) checkpoints: Vec<CheckpointAnswer>,
    /// Empty, or why the store could not be asked for sizes.
    pub(super) problem: String,
}

/// A checkpoint that exists.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointAnswer {
    pub(super) name: String,
    pub(super) step: u64,
    pub(super) run: u64,
    pub(super) bytes: Option<u64>,
    pub(super) written_at_ms: Option<u64>,
    pub(super) parent: Option<String>,
    /// Its result was the best of the trial.
    pub(super) is_best: bool,
}

/// `GET /api/v1/experiments/ID/trials/N/equipment`.
#[derive(Debug, Serialize)]
pub(super) struct EquipmentAnswer {
    /// What its ranks trained with, a row for each kind of hardware and version; empty until something is measured,
    /// and where a build trained that kept nothing.
    pub(super) workers: Vec<Workers>,
    /// Empty, or why the store could not be asked.
    pub(super) problem: String,
}

/// `GET .../logs`: lines up to now, and where to go on.
#[derive(Debug, Serialize)]
pub(super) struct LogsAnswer {
    pub(super) lines: Vec<String>,
    /// For `from` of the next request.
    pub(super) next: u64,
    /// Older lines were left out.
    pub(super) is_cut: bool,
}

/// `GET /api/v1/cluster`.
#[derive(Debug, Serialize)]
pub(super) struct ClusterAnswer {
    pub(super) now_ms: u64,
    pub(super) num_slots: usize,
    pub(super) num_busy: usize,
    pub(super) examples_per_second: f64,
    pub(super) hosts: Vec<HostAnswer>,
    /// Experiments that have not ended, in the order of their turn.
    pub(super) waiting: Vec<WaitingAnswer>,
    /// Hosts that get no new runs, and what a cluster says of its allocations.
    pub(super) notes: Vec<String>,
}

/// A machine.
#[derive(Debug, Serialize)]
pub(super) struct HostAnswer {
    pub(super) name: String,
    /// Failures that were blamed on it lately.
    pub(super) num_failures: usize,
    pub(super) aside_until_ms: Option<u64>,
    pub(super) slots: Vec<SlotAnswer>,
}

/// A slot and what it does.
#[derive(Debug, Serialize)]
pub(super) struct SlotAnswer {
    pub(super) worker: String,
    /// `free`, `working` or `leaving`.
    pub(super) state: &'static str,
    pub(super) run: Option<u64>,
    pub(super) rank: Option<u32>,
    pub(super) experiment: Option<String>,
    pub(super) trial: Option<u32>,
    pub(super) task: Option<&'static str>,
    pub(super) started_at_ms: Option<u64>,
    pub(super) step: Option<u64>,
    pub(super) target_step: Option<u64>,
    pub(super) examples_per_second: Option<f64>,
}

/// An experiment that has not ended.
#[derive(Debug, Serialize)]
pub(super) struct WaitingAnswer {
    pub(super) experiment: String,
    pub(super) project: Option<String>,
    pub(super) priority: i32,
    pub(super) slots: u32,
    pub(super) num_running: usize,
    pub(super) num_pending: usize,
    /// Empty: it has what it wants.
    pub(super) reason: String,
}

/// What an action answers.
#[derive(Debug, Serialize)]
pub(super) struct DoneAnswer {
    /// For people.
    pub(super) message: String,
    /// The experiment that was made, by `fork`.
    pub(super) experiment: Option<String>,
    /// What would be submitted, where that was asked for.
    pub(super) manifest: Option<String>,
}
