//! `RunService`.

use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

use super::caller::{Caller, handle};
use super::codec::Encoded;
use super::lists::{self, ListRequest};
use super::status::{Answers, ApiError};
use super::validate::{Checks, NAME_CHARS_MAX};
use super::{batch, convert, history, show, start, wait, watch};
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::feed::{LogQuery, follow_logs};
use crate::executor::request::{Origin, Verb};
use crate::ids::RunId;
use crate::lifecycle::step::Resolution;
use crate::model::{Run, filter};
use crate::pb;
use crate::pb::run_service_server::RunService;
use crate::plan::suggest::nearest;
use crate::store::{Store, Subject};

/// The service.
pub(super) struct Runs {
    engine: Engine,
}

/// A control verb on a run: its request, and what to do.
macro_rules! verb {
    ($self:ident, $request:ident, $checks:ident, $reason:ident, $verb:expr) => {
        handle(&$self.engine, $request, async |caller, mut message| {
            let mut $checks = Checks::default();
            $checks.$reason(&message.reason);
            let id = $checks.run_id("run_id", &message.run_id);
            $checks.request_id(&message.request_id);
            let expected = $checks.etag("etag", &message.etag);
            let verb = $verb(&mut $checks, &message);
            let (id, verb) = $checks.done(id.zip(verb))?;
            let reason = message.reason.clone();
            let origin = caller.origin(&mut message, &reason, expected);
            $self.operate(&origin, id, verb).await
        })
        .await
    };
}

#[tonic::async_trait]
impl RunService for Runs {
    async fn start_run(
        &self,
        request: Request<pb::StartRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        handle(&self.engine, request, async |caller, message| self.start(&caller, message).await)
            .await
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        handle(&self.engine, request, async |caller, message| self.get(&caller, message).await)
            .await
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        handle(&self.engine, request, async |caller, message| self.list(&caller, message).await)
            .await
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
    ) -> Result<Response<Answers<Encoded<pb::RunEvent>>>, Status> {
        handle(&self.engine, request, async |caller, message| {
            watch::runs(&self.engine, &caller, message).await
        })
        .await
    }

    async fn stream_run_logs(
        &self,
        request: Request<pb::StreamRunLogsRequest>,
    ) -> Result<Response<Answers<pb::LogChunk>>, Status> {
        handle(&self.engine, request, async |caller, message| self.logs(&caller, message).await)
            .await
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
        handle(&self.engine, request, async |caller, message| self.retry(&caller, message).await)
            .await
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
        handle(&self.engine, request, async |caller, message| self.history(&caller, message).await)
            .await
    }

    async fn batch_start_runs(
        &self,
        request: Request<pb::BatchStartRunsRequest>,
    ) -> Result<Response<pb::BatchStartRunsResponse>, Status> {
        handle(&self.engine, request, async |caller, message| {
            batch::start_runs(&self.engine, &caller, message).await
        })
        .await
    }

    async fn wait_run(
        &self,
        request: Request<pb::WaitRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        handle(&self.engine, request, async |caller, message| {
            wait::wait(&self.engine, &caller, message).await
        })
        .await
    }
}

fn resolve(checks: &mut Checks, message: &pb::ResolveStepRequest) -> Option<Verb> {
    let given = checks.given("resolution", message.resolution);
    let answer = match given {
        Some(pb::StepResolution::Approve) => Some(true),
        Some(pb::StepResolution::Reject) => Some(false),
        Some(_) | None => None,
    };
    // A run has at most one step that waits for approval.
    if answer.is_none() || !message.step.is_empty() {
        checks.name("step", &message.step);
    }
    if let Some(yes) = answer {
        return Some(Verb::Answer { step: message.step.clone(), yes });
    }
    let resolution = match given? {
        pb::StepResolution::Done => Some(Resolution::Done),
        pb::StepResolution::Retry => Some(Resolution::Retry),
        pb::StepResolution::Skip => Some(Resolution::Skip),
        pb::StepResolution::Abort
        | pb::StepResolution::Approve
        | pb::StepResolution::Reject
        | pb::StepResolution::Unspecified => None,
    };
    Some(Verb::Resolve { step: message.step.clone(), resolution })
}

impl Runs {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn start(
        &self,
        caller: &Caller,
        mut request: pb::StartRunRequest,
    ) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        checks.request_id(&request.request_id);
        let machine_id = checks.machine_id("machine_id", &request.machine_id);
        let expected = checks.etag("machine_etag", &request.machine_etag);
        let recipe = start::recipe(
            &mut checks,
            start::Asked {
                plan_id: &request.plan_id,
                run_type: request.r#type,
                plan_digest: &request.plan_digest,
            },
            &request.parameters,
            request.force,
            &request.reason,
        );
        let (machine_id, recipe) = checks.done(machine_id.zip(recipe))?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, expected);
        let new = recipe.on(machine_id);
        if request.validate_only {
            start::dry_run(&self.engine, &origin, &new).await
        } else {
            start::start(&self.engine, &origin, new).await
        }
    }

    async fn get(&self, caller: &Caller, request: pb::GetRunRequest) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        let mask = checks.read_mask::<pb::Run>(request.read_mask.as_ref());
        let id = checks.done(id)?;
        let run = caller.run(&self.engine, id).await?;
        let mut shown = show::run(&self.engine, &run).await;
        mask.apply(&mut shown);
        Ok(shown)
    }

    async fn list(
        &self,
        caller: &Caller,
        request: pb::ListRunsRequest,
    ) -> Result<pb::ListRunsResponse, ApiError> {
        let mut checks = Checks::default();
        let mask = checks.read_mask::<pb::Run>(request.read_mask.as_ref());
        checks.done(Some(()))?;
        let wanted = ListRequest {
            method: "ListRuns",
            subject: filter::Subject::Run,
            filter: &request.filter,
            scope: caller.sees(),
            order_by: &request.order_by,
            page_size: request.page_size,
            page_token: &request.page_token,
            with_total_size: request.with_total_size,
        };
        let store = self.engine.store().as_ref();
        let now = self.engine.clock().now();
        let mut listed =
            lists::list(store, now, wanted, <dyn Store>::runs, <dyn Store>::count_runs).await?;
        let mut runs = Vec::with_capacity(listed.page.items.len());
        for part in listed.page.items.chunks(lists::PART) {
            for run in part {
                let mut shown = show::run(&self.engine, run).await;
                mask.apply(&mut shown);
                runs.push(shown);
            }
            // Other calls come in between.
            tokio::task::yield_now().await;
        }
        Ok(pb::ListRunsResponse {
            runs: listed.bounded(runs, |run| (run.ordinal, &run.id)),
            next_page_token: listed.next_page_token,
            revision: listed.page.as_of.0,
            total_size: listed.total_size,
            unreadable_count: caller.counted(listed.unreadable_count),
        })
    }

    async fn operate(&self, origin: &Origin, id: RunId, verb: Verb) -> Result<pb::Run, ApiError> {
        let run = self.engine.operate(origin, id, verb).await?;
        Ok(show::run(&self.engine, &run).await)
    }

    async fn retry(
        &self,
        caller: &Caller,
        mut request: pb::RetryRunRequest,
    ) -> Result<pb::Run, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        checks.request_id(&request.request_id);
        checks.reason(&request.reason);
        let id = checks.done(id)?;
        // A retry repeats what its run was started with.
        if caller.run(&self.engine, id).await?.spec.forced {
            caller.may_force("RetryRun of a run that was started with force")?;
        }
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, None);
        let run = self.engine.retry_run(&origin, id).await?;
        Ok(show::run(&self.engine, &run).await)
    }

    async fn logs(
        &self,
        caller: &Caller,
        request: pb::StreamRunLogsRequest,
    ) -> Result<Answers<pb::LogChunk>, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        checks.line("step", &request.step, NAME_CHARS_MAX);
        let id = checks.done(id)?;
        // An unknown run is answered at once, not by a stream that fails; so are logs that can never exist.
        let run = caller.run(&self.engine, id).await?;
        let mut checks = Checks::default();
        printable(&mut checks, &run, &request);
        if !run.state.is_active() && request.offset > 0 {
            // A reader that has everything continues at the end, which is no error.
            let chunks = self.engine.store().log_head(id).await.map_err(EngineError::from)?.chunks;
            if request.offset > chunks {
                checks.refuse(
                    "offset",
                    format!(
                        "must be at most {chunks}: the run has ended and printed no more chunks"
                    ),
                );
            }
        }
        checks.done(Some(()))?;
        let query = LogQuery {
            from: request.offset,
            tail: (request.tail > 0).then_some(request.tail),
            follow: request.follow,
            step: request.step,
        };
        let hub = self.engine.watch().clone();
        let chunks = follow_logs(self.engine.store().clone(), hub, id, query);
        let chunks = chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(convert::history::chunk(&chunk)),
            Err(error) => Err(ApiError::from(error).into()),
        });
        // Who reads them knows the offset.
        Ok(watch::while_accepted(chunks, caller.ended()))
    }

    async fn history(
        &self,
        caller: &Caller,
        request: pb::ListRunHistoryRequest,
    ) -> Result<pb::ListRunHistoryResponse, ApiError> {
        let mut checks = Checks::default();
        let id = checks.run_id("run_id", &request.run_id);
        let id = checks.done(id)?;
        caller.run(&self.engine, id).await?;
        let (entries, next_page_token) = history::of_object(
            &self.engine,
            caller,
            "ListRunHistory",
            Subject::Run(id),
            request.page_size,
            &request.page_token,
        )
        .await?;
        Ok(pb::ListRunHistoryResponse { entries, next_page_token })
    }
}

/// Refuses logs of a step that the run does not have.
fn printable(checks: &mut Checks, run: &Run, request: &pb::StreamRunLogsRequest) {
    let steps: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
    // An active run may still get a compensation to undo one.
    let undone = request.step.strip_prefix("undo ").filter(|_| run.state.is_active());
    let known =
        steps.contains(&request.step.as_str()) || undone.is_some_and(|step| steps.contains(&step));
    if !request.step.is_empty() && !known {
        let meant = match nearest(&request.step, steps.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("its steps are {}", steps.join(", ")),
        };
        checks.refuse("step", format!("the run has no step {:?}: {meant}", request.step));
    }
}
