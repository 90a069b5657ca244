//! Curves of one trial, to the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_common::id::TrialId;
use muster_common::metric::MetricName;
use muster_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::Service;
use crate::curve::{Curve, CurveSet};
use crate::driver::Stopped;
use crate::measured::{MeasuredError, joined, look, read};

/// Shortest time between two answers to one who follows.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

fn status(error: MeasuredError) -> Status {
    match error {
        MeasuredError::Missing(text) => Status::not_found(text),
        MeasuredError::Unreadable(text) => Status::unavailable(text),
        MeasuredError::Stopped(stopped) => Status::unavailable(stopped.to_string()),
    }
}

fn all_to_wire(curves: &CurveSet, names: &BTreeSet<MetricName>) -> Vec<v1::Curve> {
    let wanted = curves.iter().filter(|(name, _)| names.is_empty() || names.contains(*name));
    wanted.map(|(name, curve)| to_wire(name, curve)).collect()
}

fn to_wire(name: &MetricName, curve: &Curve) -> v1::Curve {
    let points = curve.points();
    v1::Curve {
        name: name.to_string(),
        steps: points.iter().map(|point| point.last_step).collect(),
        means: points.iter().map(|point| point.mean).collect(),
        minima: points.iter().map(|point| point.min.into()).collect(),
        maxima: points.iter().map(|point| point.max.into()).collect(),
    }
}

/// Answers until everything is said, or for as long as the trial is followed.
pub(super) async fn answer(
    service: Service,
    trial: TrialId,
    names: BTreeSet<MetricName>,
    follow: bool,
    sender: mpsc::Sender<Result<v1::ReadCurvesResponse, Status>>,
) {
    tokio::select! {
        result = follow_up(&service, &trial, &names, follow, &sender) => {
            if let Err(error) = result {
                let _gone = sender.send(Err(status(error))).await;
            }
        }
        () = sender.closed() => {}
        () = service.shutdown.cancelled() => {
            // Nobody must take this for the end of the trial.
            let _gone = sender.try_send(Err(status(Stopped.into())));
        }
    }
}

async fn follow_up(
    service: &Service,
    trial: &TrialId,
    names: &BTreeSet<MetricName>,
    follow: bool,
    sender: &mpsc::Sender<Result<v1::ReadCurvesResponse, Status>>,
) -> Result<(), MeasuredError> {
    let mut kept = None;
    let mut last: Option<Vec<v1::Curve>> = None;
    loop {
        let at = look(&service.driver, trial).await?;
        // With a checkpoint the store may have what no live view was told: what was measured while there was no
        // coordinator.
        let moment = (at.epoch(), at.committed_step);
        let curves = match &kept {
            Some((known, curves)) if *known == moment => curves,
            _ => &kept.insert((moment, read(&at.store, trial).await?)).1,
        };
        let now = all_to_wire(&joined(curves, &service.live, at.run), names);
        if last.as_ref().is_none_or(|last| !is_same(last, &now)) {
            last = Some(now.clone());
            let response = v1::ReadCurvesResponse { curves: now };
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        if !follow || at.is_over {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// Whether two answers say the same, to the bit: what is no number is not equal to itself.
fn is_same(one: &[v1::Curve], other: &[v1::Curve]) -> bool {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            (&one.name, &one.steps) == (&other.name, &other.steps)
                && bits(&one.means) == bits(&other.means)
                && bits(&one.minima) == bits(&other.minima)
                && bits(&one.maxima) == bits(&other.maxima)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_that_is_no_number_is_sent_once() {
        let mut curve = Curve::default();
        curve.push(1, 0.5);
        curve.push(2, f64::NAN);
        let loss = |curve: &Curve| vec![to_wire(&MetricName::TRAIN_LOSS, curve)];
        let first = loss(&curve);
        assert!(first[0].means[1].is_nan() && is_same(&first, &loss(&curve)));
        curve.push(3, 0.25);
        assert!(!is_same(&first, &loss(&curve)));
        assert!(!is_same(&first, &[]));
    }
}
