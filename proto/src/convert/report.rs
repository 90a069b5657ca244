//! Reports: what a run says and how it ends.

use muster_common::evaluation::{Evaluation, MaskedScore};
use muster_common::metric::MetricSeries;
use muster_common::run::{DataFlaws, DataSummary, FailureClass, RunExit, RunProgress, RunReport};

use super::{ConvertError, required};
use crate::v1;

impl From<&Evaluation> for v1::Evaluation {
    fn from(evaluation: &Evaluation) -> Self {
        Self {
            loss: evaluation.loss,
            num_classes: u32::try_from(evaluation.confusion.len()).unwrap_or(u32::MAX),
            confusion: evaluation.confusion.concat(),
            auc: evaluation.auc,
            masked: evaluation.masked.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Evaluation> for Evaluation {
    type Error = ConvertError;
    fn try_from(wire: v1::Evaluation) -> Result<Self, ConvertError> {
        let num_classes = wire.num_classes as usize;
        let cells = wire.confusion.len();
        let without_classes = num_classes == 0 && wire.masked.is_none();
        if without_classes || num_classes.checked_mul(num_classes) != Some(cells) {
            let reason = format!("{cells} counts for {num_classes} classes");
            return Err(ConvertError::Illegal { field: "evaluation.confusion", reason });
        }
        if !wire.loss.is_finite() {
            let reason = "a loss that is not finite is a divergence, not an evaluation".to_owned();
            return Err(ConvertError::Illegal { field: "evaluation.loss", reason });
        }
        let confusion = wire.confusion.chunks(num_classes.max(1)).map(<[u64]>::to_vec).collect();
        let auc = wire.auc.filter(|auc| auc.is_finite());
        let masked = wire.masked.map(MaskedScore::try_from).transpose()?;
        Ok(Self { loss: wire.loss, confusion, auc, masked })
    }
}

impl From<&MaskedScore> for v1::MaskedScore {
    fn from(score: &MaskedScore) -> Self {
        let MaskedScore { loss, num_masked, num_right } = *score;
        Self { loss, num_masked, num_right }
    }
}

impl TryFrom<v1::MaskedScore> for MaskedScore {
    type Error = ConvertError;
    fn try_from(wire: v1::MaskedScore) -> Result<Self, ConvertError> {
        let v1::MaskedScore { loss, num_masked, num_right } = wire;
        // JSON has no word for it: a journal that holds it could not be read again.
        if !loss.is_finite() {
            let reason = "a loss that is not finite is a divergence, not an evaluation".to_owned();
            return Err(ConvertError::Illegal { field: "evaluation.masked.loss", reason });
        }
        if num_right > num_masked {
            let reason = format!("{num_right} of {num_masked} are right");
            return Err(ConvertError::Illegal { field: "evaluation.masked", reason });
        }
        Ok(Self { loss, num_masked, num_right })
    }
}

impl From<&DataSummary> for v1::DataSummary {
    fn from(data: &DataSummary) -> Self {
        Self {
            cache: data.cache.clone(),
            num_train: data.num_train,
            num_validation: data.num_validation,
            num_test: data.num_test,
            labels: data.labels.clone(),
            num_rows: data.num_rows,
            num_left_out: data.num_left_out,
            num_duplicates: data.num_duplicates,
            mean_tokens: data.mean_tokens,
            remarks: data.remarks.clone(),
            flaws: Some((&data.flaws).into()),
        }
    }
}

impl From<v1::DataSummary> for DataSummary {
    fn from(wire: v1::DataSummary) -> Self {
        Self {
            cache: wire.cache,
            num_train: wire.num_train,
            num_validation: wire.num_validation,
            num_test: wire.num_test,
            labels: wire.labels,
            num_rows: wire.num_rows,
            num_left_out: wire.num_left_out,
            num_duplicates: wire.num_duplicates,
            mean_tokens: wire.mean_tokens,
            remarks: wire.remarks,
            flaws: wire.flaws.map(DataFlaws::from).unwrap_or_default(),
        }
    }
}

impl From<&DataFlaws> for v1::DataFlaws {
    fn from(flaws: &DataFlaws) -> Self {
        Self {
            num_empty: flaws.num_empty,
            num_unknown_labels: flaws.num_unknown_labels,
            num_bad_utf8: flaws.num_bad_utf8,
            num_leaks: flaws.num_leaks,
            num_near_leaks: flaws.num_near_leaks,
            num_near_duplicates: flaws.num_near_duplicates,
        }
    }
}

impl From<v1::DataFlaws> for DataFlaws {
    fn from(wire: v1::DataFlaws) -> Self {
        Self {
            num_empty: wire.num_empty,
            num_unknown_labels: wire.num_unknown_labels,
            num_bad_utf8: wire.num_bad_utf8,
            num_leaks: wire.num_leaks,
            num_near_leaks: wire.num_near_leaks,
            num_near_duplicates: wire.num_near_duplicates,
        }
    }
}

impl From<&RunExit> for v1::RunExit {
    fn from(exit: &RunExit) -> Self {
        use v1::run_exit::{self as wire, Exit};
        let exit = match exit {
            RunExit::Completed => Exit::Completed(wire::Completed {}),
            RunExit::Canceled => Exit::Canceled(wire::Canceled {}),
            RunExit::Preempted => Exit::Preempted(wire::Preempted {}),
            RunExit::Diverged { step } => Exit::Diverged(wire::Diverged { step: *step }),
            RunExit::Failed { message, permanent, class } => Exit::Failed(wire::Failed {
                message: message.clone(),
                permanent: *permanent,
                class: v1::FailureClass::from(*class).into(),
            }),
            RunExit::Lost { reason } => Exit::Lost(wire::Lost { reason: reason.clone() }),
        };
        Self { exit: Some(exit) }
    }
}

impl TryFrom<v1::RunExit> for RunExit {
    type Error = ConvertError;
    fn try_from(wire: v1::RunExit) -> Result<Self, ConvertError> {
        use v1::run_exit::Exit;
        Ok(match required(wire.exit, "exit")? {
            Exit::Completed(_) => Self::Completed,
            Exit::Canceled(_) => Self::Canceled,
            Exit::Preempted(_) => Self::Preempted,
            Exit::Diverged(wire) => Self::Diverged { step: wire.step },
            Exit::Failed(wire) => Self::Failed {
                class: wire.class().into(),
                message: wire.message,
                permanent: wire.permanent,
            },
            Exit::Lost(wire) => Self::Lost { reason: wire.reason },
        })
    }
}

impl From<FailureClass> for v1::FailureClass {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::OutOfMemory => Self::OutOfMemory,
            FailureClass::Lost => Self::Lost,
            FailureClass::Hang => Self::Hang,
            FailureClass::Diverged => Self::Diverged,
            FailureClass::BadData => Self::BadData,
            FailureClass::Preempted => Self::Preempted,
            FailureClass::DiskFull => Self::DiskFull,
            FailureClass::Other => Self::Other,
        }
    }
}

impl From<v1::FailureClass> for FailureClass {
    fn from(wire: v1::FailureClass) -> Self {
        match wire {
            v1::FailureClass::OutOfMemory => Self::OutOfMemory,
            v1::FailureClass::Lost => Self::Lost,
            v1::FailureClass::Hang => Self::Hang,
            v1::FailureClass::Diverged => Self::Diverged,
            v1::FailureClass::BadData => Self::BadData,
            v1::FailureClass::Preempted => Self::Preempted,
            v1::FailureClass::DiskFull => Self::DiskFull,
            v1::FailureClass::Other | v1::FailureClass::Unspecified => Self::Other,
        }
    }
}

impl From<&RunReport> for v1::RunReport {
    fn from(report: &RunReport) -> Self {
        use v1::run_report::Report;
        let report = match report {
            RunReport::Prepared(data) => Report::Prepared(data.into()),
            RunReport::CheckpointCommitted { checkpoint } => {
                Report::CheckpointCommitted(checkpoint.into())
            }
            RunReport::Evaluated { step, evaluation } => Report::Evaluated(v1::Evaluated {
                step: *step,
                evaluation: Some(evaluation.into()),
            }),
            RunReport::EarlyStopped { step, best_step, evaluation } => {
                Report::EarlyStopped(v1::EarlyStopped {
                    step: *step,
                    best_step: *best_step,
                    evaluation: Some(evaluation.into()),
                })
            }
            RunReport::Finished { test, model } => Report::Finished(v1::Finished {
                test: test.as_ref().map(Into::into),
                model: model.clone(),
            }),
            RunReport::RendezvousOpened { address } => {
                Report::RendezvousOpened(v1::RendezvousOpened { address: address.clone() })
            }
            RunReport::Ended { exit } => Report::Ended(exit.into()),
        };
        Self { report: Some(report) }
    }
}

impl TryFrom<v1::RunReport> for RunReport {
    type Error = ConvertError;
    fn try_from(wire: v1::RunReport) -> Result<Self, ConvertError> {
        use v1::run_report::Report;
        Ok(match required(wire.report, "report")? {
            Report::Prepared(data) => Self::Prepared(data.into()),
            Report::CheckpointCommitted(checkpoint) => {
                Self::CheckpointCommitted { checkpoint: checkpoint.try_into()? }
            }
            Report::Evaluated(wire) => Self::Evaluated {
                step: wire.step,
                evaluation: required(wire.evaluation, "evaluated.evaluation")?.try_into()?,
            },
            Report::EarlyStopped(wire) => Self::EarlyStopped {
                step: wire.step,
                best_step: wire.best_step,
                evaluation: required(wire.evaluation, "early_stopped.evaluation")?.try_into()?,
            },
            Report::Finished(wire) => Self::Finished {
                test: wire.test.map(TryInto::try_into).transpose()?,
                model: wire.model,
            },
            Report::RendezvousOpened(wire) if wire.address.is_empty() => {
                return Err(ConvertError::Missing { field: "rendezvous_opened.address" });
            }
            Report::RendezvousOpened(wire) => Self::RendezvousOpened { address: wire.address },
            Report::Ended(exit) => Self::Ended { exit: exit.try_into()? },
        })
    }
}

impl From<&RunProgress> for v1::RunProgress {
    fn from(progress: &RunProgress) -> Self {
        Self {
            step: progress.step,
            target_step: progress.target_step,
            examples_per_second: progress.examples_per_second,
            loss: progress.loss,
            activity: progress.activity.clone(),
        }
    }
}

impl From<v1::RunProgress> for RunProgress {
    fn from(wire: v1::RunProgress) -> Self {
        Self {
            step: wire.step,
            target_step: wire.target_step,
            examples_per_second: wire.examples_per_second,
            loss: wire.loss,
            activity: wire.activity,
        }
    }
}

impl From<MetricSeries> for v1::MetricSeries {
    fn from(series: MetricSeries) -> Self {
        let value = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Self {
            name: series.name.into(),
            steps: series.steps,
            values: series.values.into_iter().map(value).collect(),
        }
    }
}
