//! Curves of one trial: what is in the object store, and behind it what its run has said since.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_common::id::{Generation, TrialId};
use muster_common::metric::{MetricName, read_trial};
use muster_common::storage::Store;
use muster_proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use super::Service;
use crate::curve::{Curve, CurveSet, stored};
use crate::engine::Engine;
use crate::engine::trial::TrialState;

/// Longest wait for the store.
const STORE_DEADLINE: Duration = Duration::from_secs(30);
/// Shortest time between two answers to one who follows.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Where a trial is.
struct Whereabouts {
    store: String,
    attempts: u32,
    run: Option<Generation>,
    is_over: bool,
}

async fn look(service: &Service, trial: &TrialId) -> Result<Whereabouts, Status> {
    let wanted = trial.clone();
    let find = move |engine: &Engine| {
        let experiment = engine
            .experiment(&wanted.experiment)
            .ok_or_else(|| Status::not_found(format!("no experiment `{}`", wanted.experiment)))?;
        let count = experiment.trials.len();
        let found = experiment.trials.get(&wanted.number).ok_or_else(|| {
            Status::not_found(format!("no trial `{wanted}`; there are {count} so far"))
        })?;
        let run = match found.state {
            TrialState::Running { generation } => Some(generation),
            _ => None,
        };
        Ok(Whereabouts {
            store: experiment.store.clone(),
            attempts: found.attempts,
            run,
            is_over: found.is_terminal() || experiment.is_ended(),
        })
    };
    let found = service.driver.read(find).await;
    found.map_err(|error| Status::unavailable(error.to_string()))?
}

async fn read(store: &str, trial: &TrialId) -> Result<CurveSet, Status> {
    let unreadable = |error: &dyn std::error::Error| {
        let mut text = format!("cannot read the metrics of {trial}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        Status::unavailable(text)
    };
    let store = Store::open(store).map_err(|error| unreadable(&error))?;
    let reading = timeout(STORE_DEADLINE, read_trial(&store, trial)).await;
    let points = reading.map_err(|_| {
        let seconds = STORE_DEADLINE.as_secs();
        Status::unavailable(format!("the store did not answer within {seconds} s"))
    })?;
    Ok(stored(&points.map_err(|error| unreadable(&error))?))
}

/// What has been measured up to now.
fn joined(kept: &CurveSet, live: CurveSet, names: &BTreeSet<MetricName>) -> Vec<v1::Curve> {
    let mut all = live;
    for (name, curve) in kept {
        let later = all.remove(name).unwrap_or_default();
        all.insert(name.clone(), curve.followed_by(&later));
    }
    all.retain(|name, curve| {
        !curve.points().is_empty() && (names.is_empty() || names.contains(name))
    });
    all.iter().map(|(name, curve)| to_wire(name, curve)).collect()
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
            if let Err(status) = result {
                let _gone = sender.send(Err(status)).await;
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
) -> Result<(), Status> {
    let mut kept = None;
    let mut last = None;
    loop {
        let at = look(service, trial).await?;
        // What a run has measured is in the store when it has ended.
        let epoch = (at.attempts, at.run);
        let curves = match &kept {
            Some((known, curves)) if *known == epoch => curves,
            _ => &kept.insert((epoch, read(&at.store, trial).await?)).1,
        };
        let live = at.run.map(|run| service.live.curves_of(run)).unwrap_or_default();
        let now = joined(curves, live, names);
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
