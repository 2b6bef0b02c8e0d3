//! `RunService`.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::convert;
use super::convert::run::run_type_given;
use super::lists::{self, ListRequest};
use super::origin::{Mutation, origin};
use super::status::{ApiError, answer};
use super::validate::{Checks, NAME_CHARS_MAX};
use super::{plans, show, watch};
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::logs::{LogQuery, follow_logs};
use crate::executor::request::{NewRun, Verb};
use crate::ids::RunId;
use crate::lifecycle::step::Resolution;
use crate::model::filter;
use crate::pb;
use crate::pb::run_service_server::RunService;
use crate::store::{Store, Subject};

/// The service.
pub(super) struct Runs {
    engine: Engine,
}

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A verb on a run: its request, and what to do.
macro_rules! verb {
    ($self:ident, $request:ident, $checks:ident, $reason:ident, $verb:expr) => {{
        let (metadata, _, mut message) = $request.into_parts();
        let mut $checks = Checks::default();
        $checks.$reason(&message.reason);
        let id = $checks.run_id("run_id", &message.run_id);
        $checks.request_id(&message.request_id);
        let verb = $verb(&mut $checks, &message);
        let checked = $checks.done(id.zip(verb));
        let reason = message.reason.clone();
        answer(match checked {
            Ok((id, verb)) => $self.operate(&metadata, &mut message, &reason, id, verb).await,
            Err(error) => Err(error),
        })
    }};
}

#[tonic::async_trait]
impl RunService for Runs {
    type WatchRunsStream = Answers<pb::RunEvent>;
    type StreamRunLogsStream = Answers<pb::LogChunk>;

    async fn start_run(
        &self,
        request: Request<pb::StartRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer(self.start(&metadata, message).await)
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }

    async fn cancel_run(
        &self,
        request: Request<pb::CancelRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(self, request, checks, reason, |_: &mut Checks, _: &_| Some(Verb::Cancel))
    }

    async fn watch_runs(
        &self,
        request: Request<pb::WatchRunsRequest>,
    ) -> Result<Response<Self::WatchRunsStream>, Status> {
        answer(watch::runs(&self.engine, request.into_inner()).await)
    }

    async fn stream_run_logs(
        &self,
        request: Request<pb::StreamRunLogsRequest>,
    ) -> Result<Response<Self::StreamRunLogsStream>, Status> {
        answer(self.logs(request.into_inner()).await)
    }

    async fn abort_run(
        &self,
        request: Request<pb::AbortRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(self, request, checks, required_reason, |_: &mut Checks, _: &_| Some(Verb::Abort))
    }

    async fn pause_run(
        &self,
        request: Request<pb::PauseRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(self, request, checks, reason, |_: &mut Checks, _: &_| Some(Verb::Pause))
    }

    async fn resume_run(
        &self,
        request: Request<pb::ResumeRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(self, request, checks, reason, |_: &mut Checks, _: &_| Some(Verb::Resume))
    }

    async fn retry_run(
        &self,
        request: Request<pb::RetryRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer(self.retry(&metadata, message).await)
    }

    async fn skip_step(
        &self,
        request: Request<pb::SkipStepRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(
            self,
            request,
            checks,
            required_reason,
            |checks: &mut Checks, message: &pb::SkipStepRequest| {
                checks.name("step", &message.step);
                Some(Verb::Skip { step: message.step.clone() })
            }
        )
    }

    async fn resolve_step(
        &self,
        request: Request<pb::ResolveStepRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        verb!(self, request, checks, required_reason, resolve)
    }

    async fn list_run_history(
        &self,
        request: Request<pb::ListRunHistoryRequest>,
    ) -> Result<Response<pb::ListRunHistoryResponse>, Status> {
        answer(self.history(request.into_inner()).await)
    }
}

fn resolve(checks: &mut Checks, message: &pb::ResolveStepRequest) -> Option<Verb> {
    checks.name("step", &message.step);
    let resolution = match checks.given("resolution", message.resolution)? {
        pb::StepResolution::Done => Some(Resolution::Done),
        pb::StepResolution::Retry => Some(Resolution::Retry),
        pb::StepResolution::Skip => Some(Resolution::Skip),
        pb::StepResolution::Abort | pb::StepResolution::Unspecified => None,
    };
    Some(Verb::Resolve { step: message.step.clone(), resolution })
}

impl Runs {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn start(
        &self,
        metadata: &MetadataMap,
        mut request: pb::StartRunRequest,
    ) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        checks.request_id(&request.request_id);
        let machine_id = checks.machine_id("machine_id", &request.machine_id);
        let run_type = checks.optional("type", request.r#type);
        if request.plan_id.is_empty() {
            if run_type == Some(None) {
                checks.refuse("plan_id", "must be given, or else a type with a default plan");
            }
        } else {
            checks.line("plan_id", &request.plan_id, NAME_CHARS_MAX);
        }
        checks.parameters(&request.parameters);
        checks.reason(&request.reason);
        let (machine_id, run_type) = checks.done(machine_id.zip(run_type))?;
        let reason = request.reason.clone();
        let origin = origin(metadata, &mut request, &reason, None);
        let new = NewRun {
            machine_id,
            run_type: run_type.and_then(run_type_given),
            plan_id: request.plan_id,
            parameters: request.parameters,
            force: request.force,
        };
        let started = self.engine.start_run(&origin, new).await;
        let started = started.map_err(|error| self.with_suggestion(error))?;
        Ok(show::run(&self.engine, &started).await)
    }

    fn with_suggestion(&self, error: EngineError) -> ApiError {
        match error {
            EngineError::NotFound { kind: "plan", id } => {
                plans::not_found(&self.engine.plans(), &id)
            }
            other => other.into(),
        }
    }

    async fn get(&self, request: pb::GetRunRequest) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        let id = checks.done(id)?;
        let run = self.engine.run(id).await?;
        Ok(show::run(&self.engine, &run).await)
    }

    async fn list(&self, request: pb::ListRunsRequest) -> Result<pb::ListRunsResponse, ApiError> {
        let wanted = ListRequest {
            method: "ListRuns",
            subject: filter::Subject::Run,
            filter: &request.filter,
            page_size: request.page_size,
            page_token: &request.page_token,
        };
        let listed = lists::list(self.engine.store().as_ref(), wanted, <dyn Store>::runs).await?;
        let mut runs = Vec::with_capacity(listed.page.items.len());
        for run in &listed.page.items {
            runs.push(show::run(&self.engine, run).await);
        }
        let next_page_token = listed.next_page_token;
        Ok(pb::ListRunsResponse { runs, next_page_token, revision: listed.page.as_of.0 })
    }

    async fn operate<M: Mutation>(
        &self,
        metadata: &MetadataMap,
        message: &mut M,
        reason: &str,
        id: RunId,
        verb: Verb,
    ) -> Result<pb::Run, ApiError> {
        let origin = origin(metadata, message, reason, None);
        let run = self.engine.operate(&origin, id, verb).await?;
        Ok(show::run(&self.engine, &run).await)
    }

    async fn retry(
        &self,
        metadata: &MetadataMap,
        mut request: pb::RetryRunRequest,
    ) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        checks.request_id(&request.request_id);
        checks.reason(&request.reason);
        let id = checks.done(id)?;
        let reason = request.reason.clone();
        let origin = origin(metadata, &mut request, &reason, None);
        let run = self.engine.retry_run(&origin, id).await?;
        Ok(show::run(&self.engine, &run).await)
    }

    async fn logs(
        &self,
        request: pb::StreamRunLogsRequest,
    ) -> Result<Answers<pb::LogChunk>, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        checks.line("step", &request.step, NAME_CHARS_MAX);
        let id = checks.done(id)?;
        // An unknown run is an answer of its own, not a stream that fails.
        self.engine.run(id).await?;
        let query = LogQuery {
            from: request.offset,
            tail: None,
            follow: request.follow,
            step: request.step,
        };
        let hub = self.engine.watch().clone();
        let chunks = follow_logs(self.engine.store().clone(), hub, id, query);
        Ok(Box::pin(chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(convert::history::chunk(&chunk)),
            Err(error) => Err(ApiError::from(error).into()),
        })))
    }

    async fn history(
        &self,
        request: pb::ListRunHistoryRequest,
    ) -> Result<pb::ListRunHistoryResponse, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        let id = checks.done(id)?;
        self.engine.run(id).await?;
        let (entries, next_page_token) = lists::history(
            &self.engine,
            "ListRunHistory",
            Subject::Run(id),
            request.page_size,
            &request.page_token,
        )
        .await?;
        Ok(pb::ListRunHistoryResponse { entries, next_page_token })
    }
}
