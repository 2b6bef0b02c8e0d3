//! Idempotency: a repeated request id gets the first answer again.

use std::sync::Arc;

use super::error::EngineError;
use super::ports::Ports;
use super::request::Origin;
use crate::ids::{MachineId, Revision, RunId};
use crate::model::{Machine, Run};
use crate::store::RequestRecord;

impl Ports {
    /// The first answer to a request id, if it was used before.
    pub(super) async fn repeated_run(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<Arc<Run>>, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(None),
            Some(record) => self.run_of_request(origin, &record).await.map(Some),
        }
    }

    /// The first answer to a request id, if it was used before.
    pub(super) async fn repeated_machine(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<Arc<Machine>>, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(None),
            Some(record) => self.machine_of_request(origin, &record).await.map(Some),
        }
    }

    /// Whether a request without an object was carried out before.
    pub(super) async fn is_repeated(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<bool, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(false),
            Some(record) => check_same(origin, &record).map(|()| true),
        }
    }

    /// The object of the first answer to a request id, if it was used before.
    pub(super) async fn repeated_object(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<String>, EngineError> {
        match self.used(origin, scope).await? {
            None => Ok(None),
            Some(record) => check_same(origin, &record).map(|()| Some(record.object_id)),
        }
    }

    async fn used(
        &self,
        origin: &Origin,
        scope: &str,
    ) -> Result<Option<RequestRecord>, EngineError> {
        if origin.request_id.is_empty() {
            return Ok(None);
        }
        Ok(self.store.request(scope, &origin.request_id).await?)
    }

    /// The run as the first answer had it; in its present state if that history is gone.
    pub(super) async fn run_of_request(
        &self,
        origin: &Origin,
        record: &RequestRecord,
    ) -> Result<Arc<Run>, EngineError> {
        check_same(origin, record)?;
        let id = RunId::parse(&record.object_id)
            .map_err(|error| EngineError::Internal(format!("stored request: {error}")))?;
        match self.store.run_at(id, record.revision).await? {
            Some(run) => Ok(run),
            None => self.run(id).await,
        }
    }

    /// The machine as the first answer had it; in its present state if that history is gone.
    pub(super) async fn machine_of_request(
        &self,
        origin: &Origin,
        record: &RequestRecord,
    ) -> Result<Arc<Machine>, EngineError> {
        check_same(origin, record)?;
        let id = MachineId::parse(&record.object_id)
            .map_err(|error| EngineError::Internal(format!("stored request: {error}")))?;
        if let Some(machine) = self.store.machine_at(&id, record.revision).await? {
            return Ok(machine);
        }
        self.store
            .machine(&id)
            .await?
            .ok_or_else(|| EngineError::NotFound { kind: "machine", id: id.to_string() })
    }
}

/// The record of a request with an id, for its commit.
pub(super) fn request(
    origin: &Origin,
    scope: &str,
    object_id: &str,
    at: crate::clock::Timestamp,
) -> Option<RequestRecord> {
    (!origin.request_id.is_empty()).then(|| RequestRecord {
        scope: scope.to_owned(),
        request_id: origin.request_id.clone(),
        body_digest: origin.body_digest.clone(),
        object_id: object_id.to_owned(),
        at,
        revision: Revision(0),
    })
}

fn check_same(origin: &Origin, record: &RequestRecord) -> Result<(), EngineError> {
    if record.body_digest == origin.body_digest {
        Ok(())
    } else {
        Err(EngineError::RequestIdReused { request_id: origin.request_id.clone() })
    }
}
