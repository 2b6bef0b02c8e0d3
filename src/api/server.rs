//! `ServerService`.

use tonic::{Request, Response, Status};

use super::caller::handle;
use super::convert::timestamp;
use super::status::ApiError;
use crate::executor::Engine;
use crate::pb;
use crate::pb::server_service_server::ServerService;

/// The service.
pub(super) struct Server {
    engine: Engine,
}

#[tonic::async_trait]
impl ServerService for Server {
    async fn get_server_info(
        &self,
        request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        handle(&self.engine, request, async |_, _| self.info().await).await
    }
}

impl Server {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn info(&self) -> Result<pb::ServerInfo, ApiError> {
        let engine = &self.engine;
        let (revision, oldest) = engine.store().revisions().await?;
        let limits = engine.run_limits();
        let (in_progress, waiting, _) = engine.load();
        let counted = |limits: std::collections::BTreeMap<String, usize>| {
            limits.into_iter().map(|(name, most)| (name, most as u64)).collect()
        };
        Ok(pb::ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Some(timestamp(engine.clock().now())),
            store: engine.store().kind().to_owned(),
            revision: revision.0,
            oldest_revision: oldest.0,
            providers: engine.providers().keys().cloned().collect(),
            runs_max: limits.runs_max as u64,
            runs_max_by_provider: counted(limits.runs_max_by_provider),
            runs_max_by_label: counted(limits.runs_max_by_label),
            runs_in_progress: in_progress as u64,
            runs_waiting: waiting as u64,
            watchers: engine.watch().watchers() as u64,
        })
    }
}
