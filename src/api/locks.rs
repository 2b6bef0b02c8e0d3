//! `LockService`.

use tonic::{Request, Response, Status};

use super::caller::{Caller, handle};
use super::convert::history::actor;
use super::convert::timestamp;
use super::status::ApiError;
use super::validate::{Checks, NAME_CHARS_MAX};
use crate::executor::Engine;
use crate::model::{Lock, LockTarget};
use crate::pb;
use crate::pb::lock_service_server::LockService;

/// Longest time of a lock, in seconds.
const DURATION_S_MAX: i64 = 365 * 24 * 60 * 60;

/// The service.
pub(super) struct Locks {
    engine: Engine,
}

#[tonic::async_trait]
impl LockService for Locks {
    async fn stop_all(
        &self,
        request: Request<pb::StopAllRequest>,
    ) -> Result<Response<pb::Lock>, Status> {
        handle(&self.engine, request, async |caller, message| self.stop(&caller, message).await)
            .await
    }

    async fn resume_all(
        &self,
        request: Request<pb::ResumeAllRequest>,
    ) -> Result<Response<pb::Lock>, Status> {
        handle(&self.engine, request, async |caller, message| self.resume(&caller, message).await)
            .await
    }

    async fn create_lock(
        &self,
        request: Request<pb::CreateLockRequest>,
    ) -> Result<Response<pb::Lock>, Status> {
        handle(&self.engine, request, async |caller, message| self.create(&caller, message).await)
            .await
    }

    async fn delete_lock(
        &self,
        request: Request<pb::DeleteLockRequest>,
    ) -> Result<Response<pb::Lock>, Status> {
        handle(&self.engine, request, async |caller, message| self.delete(&caller, message).await)
            .await
    }

    async fn list_locks(
        &self,
        request: Request<pb::ListLocksRequest>,
    ) -> Result<Response<pb::ListLocksResponse>, Status> {
        handle(&self.engine, request, async |_, _| {
            Ok(pb::ListLocksResponse {
                locks: self.engine.locks().iter().map(|lock| message(lock)).collect(),
                runs_held_back: self.engine.held_runs() as u64,
            })
        })
        .await
    }
}

impl Locks {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn stop(
        &self,
        caller: &Caller,
        mut request: pb::StopAllRequest,
    ) -> Result<pb::Lock, ApiError> {
        checked(&request.request_id, &request.reason).done(Some(()))?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, None);
        Ok(message(&*self.engine.stop_all(&origin).await?))
    }

    async fn resume(
        &self,
        caller: &Caller,
        mut request: pb::ResumeAllRequest,
    ) -> Result<pb::Lock, ApiError> {
        checked(&request.request_id, &request.reason).done(Some(()))?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, None);
        Ok(message(&*self.engine.resume_all(&origin).await?))
    }

    async fn create(
        &self,
        caller: &Caller,
        mut request: pb::CreateLockRequest,
    ) -> Result<pb::Lock, ApiError> {
        let mut checks = checked(&request.request_id, &request.reason);
        let target = target(&mut checks, caller, &request);
        let seconds = match &request.duration {
            None => None,
            Some(span) if (1..=DURATION_S_MAX).contains(&span.seconds) => {
                Some(u64::try_from(span.seconds).unwrap_or(0))
            }
            Some(_) => {
                checks.refuse(
                    "duration",
                    "must be from 1 s to 365 days; leave it out for one without an end",
                );
                None
            }
        };
        let target = checks.done(target)?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, None);
        let now = self.engine.clock().now();
        let until = seconds.map(|seconds| now.plus_ms(seconds.saturating_mul(1000)));
        Ok(message(&*self.engine.set_lock(&origin, target, until).await?))
    }

    async fn delete(
        &self,
        caller: &Caller,
        mut request: pb::DeleteLockRequest,
    ) -> Result<pb::Lock, ApiError> {
        let mut checks = checked(&request.request_id, &request.reason);
        checks.name("lock_id", &request.lock_id);
        checks.done(Some(()))?;
        let reason = request.reason.clone();
        let id = request.lock_id.clone();
        let origin = caller.origin(&mut request, &reason, None);
        Ok(message(&*self.engine.lift_lock(&origin, &id).await?))
    }
}

/// What every request of the service has.
fn checked(request_id: &str, reason: &str) -> Checks {
    let mut checks = Checks::default();
    checks.request_id(request_id);
    checks.required_reason(reason);
    checks
}

fn target(
    checks: &mut Checks,
    caller: &Caller,
    request: &pb::CreateLockRequest,
) -> Option<LockTarget> {
    match (request.principal.as_str(), request.labels.is_empty()) {
        ("", true) => {
            checks.refuse("principal", "give a principal, or labels of machines");
            None
        }
        ("", false) => {
            checks.labels("labels", &request.labels);
            Some(LockTarget::Machines(request.labels.clone()))
        }
        (_, false) => {
            checks.refuse("labels", "give a principal or labels, not both: set two locks");
            None
        }
        (name, true) => {
            checks.line("principal", name, NAME_CHARS_MAX);
            match caller.identity() {
                None => checks.refuse(
                    "principal",
                    "means nothing here: this server asks no one for proof, so no name can be locked",
                ),
                Some(identity) if *identity.name == *name => checks.refuse(
                    "principal",
                    "is you: who locks himself out cannot unlock; have another admin do it",
                ),
                Some(_) => {}
            }
            Some(LockTarget::Principal(name.to_owned()))
        }
    }
}

/// The message of a lock.
pub(super) fn message(lock: &Lock) -> pb::Lock {
    let message = pb::Lock {
        lock_id: lock.id.clone(),
        reason: lock.reason.clone(),
        actor: Some(actor(&lock.by)),
        created_at: Some(timestamp(lock.at)),
        expires_at: lock.until.map(timestamp),
        lifted_at: lock.lifted_at.map(timestamp),
        ..Default::default()
    };
    match &lock.target {
        LockTarget::All => pb::Lock { kind: pb::LockKind::Stop.into(), ..message },
        LockTarget::Principal(name) => {
            pb::Lock { kind: pb::LockKind::Principal.into(), principal: name.clone(), ..message }
        }
        LockTarget::Machines(labels) => {
            pb::Lock { kind: pb::LockKind::Machines.into(), labels: labels.clone(), ..message }
        }
        LockTarget::Plan { digest, plan_id } => pb::Lock {
            kind: pb::LockKind::Plan.into(),
            plan_id: plan_id.clone(),
            plan_digest: digest.clone(),
            ..message
        },
    }
}
