//! The control service: what clients ask.

use std::time::Duration;

use muster_common::id::{ExperimentId, ProjectName, TrialId};
use muster_common::manifest::PRIORITY_MAX;
use muster_common::metric::MetricName;
use muster_common::time::Timestamp;
use muster_proto::v1;
use muster_proto::v1::control_service_server::ControlService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Service;
use super::curves::answer;
use super::insight;
use super::view::experiment_to_wire;
use crate::driver::Stopped;
use crate::engine::trial::TrialState;
use crate::engine::{Engine, Event};
use crate::logs::Position;
use crate::request::{RequestError, Submission, apply, submit};
use crate::view::{ExperimentView, hosts_aside, project, why};

/// Views or log blocks that may wait for a slow client.
const STREAM_MAX: usize = 4;
/// Shortest time between two views of one watcher: what a terminal can usefully show.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// What is read of a log by those who want its end.
const TAIL_BYTES: u64 = 64 << 10;
/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// Implementation of the control service.
pub(super) struct Control {
    service: Service,
}

type Reply<T> = Result<Response<T>, Status>;
type StreamOf<T> = ReceiverStream<Result<T, Status>>;

impl Control {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    async fn apply(&self, event: Event) -> Result<(), Status> {
        apply(&self.service.driver, event).await.map(drop).map_err(|error| refusing(&error))
    }
}

fn refusing(error: &RequestError) -> Status {
    let text = error.to_string();
    match error {
        RequestError::Manifest(_) => Status::invalid_argument(text),
        RequestError::TooLarge(_) | RequestError::Rejected(_) => Status::failed_precondition(text),
        RequestError::Nothing => Status::internal(text),
        RequestError::Stopped(stopped) => stopping(*stopped),
    }
}

pub(super) fn stopping(error: Stopped) -> Status {
    Status::unavailable(error.to_string())
}

fn parse_experiment(text: &str) -> Result<ExperimentId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("experiment_id: {error}")))
}

fn parse_trial(text: &str) -> Result<TrialId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("trial_id: {error}")))
}

/// The view of one experiment; an error names those that exist.
async fn look(service: &Service, id: &ExperimentId) -> Result<ExperimentView, Status> {
    let (wanted, live) = (id.clone(), service.live.clone());
    let find = move |engine: &Engine| {
        let found = engine.experiment(&wanted);
        let view = found.map(|found| project(engine, found, &live, Timestamp::now()));
        view.ok_or_else(|| {
            let known: Vec<String> =
                engine.experiments().map(|experiment| experiment.id.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Status::not_found(format!("no experiment `{wanted}`; known: {known}"))
        })
    };
    service.driver.read(find).await.map_err(stopping)?
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn submit_experiment(
        &self,
        request: Request<v1::SubmitExperimentRequest>,
    ) -> Reply<v1::SubmitExperimentResponse> {
        let request = request.into_inner();
        let submission = Submission {
            text: request.manifest,
            base: request.base_directory,
            owner: ProjectName::of_user(&request.user),
        };
        let Service { driver, capacity, store, .. } = &self.service;
        let made =
            submit(driver, capacity, store, submission).await.map_err(|error| refusing(&error))?;
        let experiment_id = made.to_string();
        Ok(Response::new(v1::SubmitExperimentResponse { experiment_id }))
    }

    async fn list_experiments(
        &self,
        _request: Request<v1::ListExperimentsRequest>,
    ) -> Reply<v1::ListExperimentsResponse> {
        let live = self.service.live.clone();
        let list = move |engine: &Engine| {
            let now = Timestamp::now();
            let view = |experiment| experiment_to_wire(&project(engine, experiment, &live, now));
            (engine.experiments().map(view).collect(), hosts_aside(engine, now))
        };
        let (experiments, hosts_aside) = self.service.driver.read(list).await.map_err(stopping)?;
        let allocations = self.service.live.allocations();
        Ok(Response::new(v1::ListExperimentsResponse { experiments, hosts_aside, allocations }))
    }

    type WatchExperimentStream = StreamOf<v1::WatchExperimentResponse>;

    async fn watch_experiment(
        &self,
        request: Request<v1::WatchExperimentRequest>,
    ) -> Reply<Self::WatchExperimentStream> {
        let request = request.into_inner();
        let id = parse_experiment(&request.experiment_id)?;
        let first = look(&self.service, &id).await?;
        let (sender, receiver) = mpsc::channel(STREAM_MAX);
        let service = self.service.clone();
        tokio::spawn(async move {
            let mut view = Ok(first);
            loop {
                let is_last = match &view {
                    Ok(view) => view.state.is_ended() || request.once,
                    Err(_) => true,
                };
                let response = view.map(|view| v1::WatchExperimentResponse {
                    experiment: Some(experiment_to_wire(&view)),
                });
                if sender.send(response).await.is_err() || is_last {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_EVERY) => {}
                    () = sender.closed() => return,
                    () = service.shutdown.cancelled() => {
                        // Nobody must take this for the end of the experiment.
                        let _gone = sender.try_send(Err(stopping(Stopped)));
                        return;
                    }
                }
                view = look(&service, &id).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn pause_experiment(
        &self,
        request: Request<v1::PauseExperimentRequest>,
    ) -> Reply<v1::PauseExperimentResponse> {
        let experiment = parse_experiment(&request.into_inner().experiment_id)?;
        look(&self.service, &experiment).await?;
        self.apply(Event::ExperimentPaused { experiment }).await?;
        Ok(Response::new(v1::PauseExperimentResponse {}))
    }

    async fn resume_experiment(
        &self,
        request: Request<v1::ResumeExperimentRequest>,
    ) -> Reply<v1::ResumeExperimentResponse> {
        let experiment = parse_experiment(&request.into_inner().experiment_id)?;
        look(&self.service, &experiment).await?;
        self.apply(Event::ExperimentResumed { experiment }).await?;
        Ok(Response::new(v1::ResumeExperimentResponse {}))
    }

    async fn cancel_experiment(
        &self,
        request: Request<v1::CancelExperimentRequest>,
    ) -> Reply<v1::CancelExperimentResponse> {
        let experiment = parse_experiment(&request.into_inner().experiment_id)?;
        look(&self.service, &experiment).await?;
        self.apply(Event::ExperimentCanceled { experiment }).await?;
        Ok(Response::new(v1::CancelExperimentResponse {}))
    }

    async fn pause_trial(
        &self,
        request: Request<v1::PauseTrialRequest>,
    ) -> Reply<v1::PauseTrialResponse> {
        let trial = parse_trial(&request.into_inner().trial_id)?;
        look(&self.service, &trial.experiment).await?;
        self.apply(Event::TrialPaused { trial }).await?;
        Ok(Response::new(v1::PauseTrialResponse {}))
    }

    async fn resume_trial(
        &self,
        request: Request<v1::ResumeTrialRequest>,
    ) -> Reply<v1::ResumeTrialResponse> {
        let trial = parse_trial(&request.into_inner().trial_id)?;
        look(&self.service, &trial.experiment).await?;
        self.apply(Event::TrialResumed { trial }).await?;
        Ok(Response::new(v1::ResumeTrialResponse {}))
    }

    async fn cancel_trial(
        &self,
        request: Request<v1::CancelTrialRequest>,
    ) -> Reply<v1::CancelTrialResponse> {
        let trial = parse_trial(&request.into_inner().trial_id)?;
        look(&self.service, &trial.experiment).await?;
        self.apply(Event::TrialCanceled { trial }).await?;
        Ok(Response::new(v1::CancelTrialResponse {}))
    }

    async fn prioritize_experiment(
        &self,
        request: Request<v1::PrioritizeExperimentRequest>,
    ) -> Reply<v1::PrioritizeExperimentResponse> {
        let request = request.into_inner();
        let experiment = parse_experiment(&request.experiment_id)?;
        let priority = request.priority;
        if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
            let text =
                format!("priority: {priority} lies outside -{PRIORITY_MAX} to {PRIORITY_MAX}");
            return Err(Status::invalid_argument(text));
        }
        look(&self.service, &experiment).await?;
        self.apply(Event::ExperimentPrioritized { experiment, priority }).await?;
        Ok(Response::new(v1::PrioritizeExperimentResponse {}))
    }

    async fn get_submission(
        &self,
        request: Request<v1::GetSubmissionRequest>,
    ) -> Reply<v1::GetSubmissionResponse> {
        let id = parse_experiment(&request.into_inner().experiment_id)?;
        look(&self.service, &id).await?;
        let find = move |engine: &Engine| {
            let experiment = engine.experiment(&id)?;
            Some((experiment.text.clone(), experiment.base.clone()))
        };
        let found = self.service.driver.read(find).await.map_err(stopping)?;
        let (manifest, base) = found.ok_or_else(|| Status::not_found("the experiment is gone"))?;
        let base_directory = base.unwrap_or_default();
        Ok(Response::new(v1::GetSubmissionResponse { manifest, base_directory }))
    }

    async fn explain_trial(
        &self,
        request: Request<v1::ExplainTrialRequest>,
    ) -> Reply<v1::ExplainTrialResponse> {
        let trial = parse_trial(&request.into_inner().trial_id)?;
        look(&self.service, &trial.experiment).await?;
        let allocations = self.service.live.allocations();
        let find = move |engine: &Engine| {
            let experiment = engine.experiment(&trial.experiment)?;
            let mut lines = why(engine, experiment, trial.number, Timestamp::now());
            let waits = experiment
                .trials
                .get(&trial.number)
                .is_some_and(|trial| trial.state == TrialState::Pending && !experiment.is_ended());
            // What it waits for may be in the hands of a cluster.
            if let Some(lines) = lines.as_mut().filter(|_| waits) {
                lines.extend(allocations);
            }
            Some(lines.ok_or_else(|| {
                let count = experiment.trials.len();
                Status::not_found(format!("no trial `{trial}`; there are {count} so far"))
            }))
        };
        let found = self.service.driver.read(find).await.map_err(stopping)?;
        let lines = found.unwrap_or_else(|| Err(Status::not_found("the experiment is gone")))?;
        Ok(Response::new(v1::ExplainTrialResponse { lines }))
    }

    async fn list_slots(
        &self,
        _request: Request<v1::ListSlotsRequest>,
    ) -> Reply<v1::ListSlotsResponse> {
        insight::slots(&self.service).await.map(Response::new)
    }

    async fn read_importance(
        &self,
        request: Request<v1::ReadImportanceRequest>,
    ) -> Reply<v1::ReadImportanceResponse> {
        let id = parse_experiment(&request.into_inner().experiment_id)?;
        look(&self.service, &id).await?;
        insight::importance(&self.service, id).await.map(Response::new)
    }

    type ReadCurvesStream = StreamOf<v1::ReadCurvesResponse>;

    async fn read_curves(
        &self,
        request: Request<v1::ReadCurvesRequest>,
    ) -> Reply<Self::ReadCurvesStream> {
        let request = request.into_inner();
        let trial = parse_trial(&request.trial_id)?;
        look(&self.service, &trial.experiment).await?;
        let names: Result<_, _> = request.names.into_iter().map(MetricName::try_from).collect();
        let names = names.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (sender, receiver) = mpsc::channel(STREAM_MAX);
        tokio::spawn(answer(self.service.clone(), trial, names, request.follow, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ReadLogsStream = StreamOf<v1::ReadLogsResponse>;

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Reply<Self::ReadLogsStream> {
        let request = request.into_inner();
        let id = parse_experiment(&request.experiment_id)?;
        let trial = request.trial_id.map(|text| parse_trial(&text)).transpose()?;
        let view = look(&self.service, &id).await?;
        let is_missing = |wanted: &TrialId| view.trials.iter().all(|trial| trial.id != *wanted);
        if let Some(missing) = trial.as_ref().filter(|trial| is_missing(trial)) {
            let count = view.trials.len();
            return Err(Status::not_found(format!(
                "no trial `{missing}`; there are {count} so far"
            )));
        }
        let (sender, receiver) = mpsc::channel(STREAM_MAX);
        let service = self.service.clone();
        tokio::spawn(async move {
            let found = if request.tail {
                service.logs.near_end(&id, TAIL_BYTES)
            } else {
                Ok(Position::default())
            };
            let mut position = found.unwrap_or_default();
            loop {
                // Asked before the read: lines written before the end are read after it.
                let is_ended = look(&service, &id).await.is_ok_and(|view| view.state.is_ended());
                let read = service.logs.read(&id, trial.as_ref(), &mut position);
                let lines = match read {
                    Ok(lines) => lines,
                    Err(error) => {
                        let status = Status::internal(format!("cannot read the log: {error}"));
                        let _gone = sender.send(Err(status)).await;
                        return;
                    }
                };
                let is_empty = lines.is_empty();
                if !is_empty && sender.send(Ok(v1::ReadLogsResponse { lines })).await.is_err() {
                    return;
                }
                if is_empty && (!request.follow || is_ended) {
                    return;
                }
                if is_empty {
                    tokio::select! {
                        () = tokio::time::sleep(FOLLOW_EVERY) => {}
                        () = sender.closed() => return,
                        () = service.shutdown.cancelled() => {
                            // Whoever follows it asks the next coordinator.
                            let _gone = sender.try_send(Err(stopping(Stopped)));
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
