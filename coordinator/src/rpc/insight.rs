//! What slots do and which hyperparameters matter, to the wire and back.

use muster_common::id::{ExperimentId, TrialId};
use muster_common::time::Timestamp;
use muster_proto::convert::ConvertError;
use muster_proto::v1;
use tonic::Status;

use super::Service;
use super::control::stopping;
use super::view::{illegal, missing};
use crate::engine::Engine;
use crate::sweep::importance::Share;
use crate::view::{
    ImportanceView, Observed, SlotStateName, SlotView, WorkView, metric_named, slots as view_slots,
};

/// Every slot.
pub(super) async fn slots(service: &Service) -> Result<v1::ListSlotsResponse, Status> {
    let live = service.live.clone();
    let look = move |engine: &Engine| view_slots(engine, &live);
    let views = service.driver.read(look).await.map_err(stopping)?;
    Ok(v1::ListSlotsResponse { slots: views.into_iter().map(slot_to_wire).collect() })
}

/// The driver only hands out the results: the forest takes longer than others should wait for it.
pub(super) async fn importance(
    service: &Service,
    id: ExperimentId,
) -> Result<v1::ReadImportanceResponse, Status> {
    let observe = move |engine: &Engine| engine.experiment(&id).map(Observed::of);
    let observed = service.driver.read(observe).await.map_err(stopping)?;
    let observed = observed.ok_or_else(|| Status::not_found("the experiment is gone"))?;
    let view = tokio::task::spawn_blocking(|| observed.view()).await;
    let view = view.map_err(|error| Status::internal(format!("importance: {error}")))?;
    let share = |share: Share| v1::HyperparameterShare { name: share.name, share: share.share };
    Ok(v1::ReadImportanceResponse {
        metric: view.metric.name().to_owned(),
        rung: view.rung,
        num_results: view.num_results,
        shares: view.shares.into_iter().map(share).collect(),
    })
}

/// From the wire.
pub fn importance_from_wire(
    wire: v1::ReadImportanceResponse,
) -> Result<ImportanceView, ConvertError> {
    let share = |wire: v1::HyperparameterShare| Share { name: wire.name, share: wire.share };
    Ok(ImportanceView {
        metric: metric_named(&wire.metric).ok_or_else(|| illegal("metric", &wire.metric))?,
        rung: wire.rung,
        num_results: wire.num_results,
        shares: wire.shares.into_iter().map(share).collect(),
    })
}

fn slot_to_wire(view: SlotView) -> v1::Slot {
    let state = match view.state {
        SlotStateName::Free => v1::SlotState::Free,
        SlotStateName::Busy => v1::SlotState::Busy,
        SlotStateName::Draining => v1::SlotState::Draining,
    };
    v1::Slot {
        worker_id: view.worker.to_string(),
        host: view.host,
        state: state.into(),
        work: view.work.map(|work| v1::SlotWork {
            experiment_id: work.experiment.to_string(),
            trial_id: work.trial.map(|trial| trial.to_string()).unwrap_or_default(),
            text: work.text,
            rank: work.rank,
            num_ranks: work.num_ranks,
            started_at_ms: work.started_at.0,
            step: work.step,
            target_step: work.target_step,
            examples_per_second: work.examples_per_second,
            tokens_per_second: work.tokens_per_second,
        }),
    }
}

/// From the wire.
pub fn slot_from_wire(wire: v1::Slot) -> Result<SlotView, ConvertError> {
    let state = match wire.state() {
        v1::SlotState::Free => SlotStateName::Free,
        v1::SlotState::Busy => SlotStateName::Busy,
        v1::SlotState::Draining => SlotStateName::Draining,
        v1::SlotState::Unspecified => return Err(missing("slot.state")),
    };
    let work = |work: v1::SlotWork| {
        let trial = Some(work.trial_id).filter(|id| !id.is_empty()).map(|id| id.parse::<TrialId>());
        let experiment = work.experiment_id.parse::<ExperimentId>();
        Ok::<_, ConvertError>(WorkView {
            experiment: experiment.map_err(|error| illegal("slot.experiment_id", &error))?,
            trial: trial.transpose().map_err(|error| illegal("slot.trial_id", &error))?,
            text: work.text,
            rank: work.rank,
            num_ranks: work.num_ranks,
            started_at: Timestamp(work.started_at_ms),
            step: work.step,
            target_step: work.target_step,
            examples_per_second: work.examples_per_second,
            tokens_per_second: work.tokens_per_second,
        })
    };
    Ok(SlotView {
        worker: wire.worker_id.parse().map_err(|error| illegal("slot.worker_id", &error))?,
        host: wire.host,
        state,
        work: wire.work.map(work).transpose()?,
    })
}
