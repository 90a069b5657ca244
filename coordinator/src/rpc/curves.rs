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
        () = service.shutdown.cancelled() => {}
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
    let mut last = None;
    loop {
        let at = look(&service.driver, trial).await?;
        let epoch = at.epoch();
        let curves = match &kept {
            Some((known, curves)) if *known == epoch => curves,
            _ => &kept.insert((epoch, read(&at.store, trial).await?)).1,
        };
        let now = all_to_wire(&joined(curves, &service.live, at.run), names);
        if last.as_ref() != Some(&now) {
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
