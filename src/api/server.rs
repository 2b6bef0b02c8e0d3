//! `ServerService`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::access;
use super::caller::{Caller, handle};
use super::convert::timestamp;
use super::locks;
use super::status::ApiError;
use crate::clock::Timestamp;
use crate::executor::{Cap, Engine, RiskLimits};
use crate::pb;
use crate::pb::server_service_server::ServerService;

/// Facts about the server that its engine does not have.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Where machines and runs are stored, if not in memory.
    pub data: Option<DataFacts>,
    /// When configuration and plans were last reloaded, and why they were refused, if they were.
    pub last_reload: Option<(Timestamp, Option<String>)>,
    /// The receivers of notifications.
    pub receivers: Vec<ReceiverFacts>,
}

/// How a receiver of notifications is doing; counted since the start of the server.
#[derive(Debug, Clone, Default)]
pub struct ReceiverFacts {
    /// Its name in the configuration.
    pub name: String,
    /// Events that it has taken.
    pub delivered: u64,
    /// Events that were left out, since it refused them or did not take them for too long.
    pub refused: u64,
    /// Attempts that were not the first of their event.
    pub retries: u64,
    /// How often changes were deleted before they were sent.
    pub gaps: u64,
    /// Events known to wait.
    pub waiting: u64,
    /// When the oldest event that waits happened.
    pub oldest: Option<Timestamp>,
    /// When it last took an event.
    pub delivered_at: Option<Timestamp>,
    /// Why the event that waits was not taken; empty if nothing is wrong.
    pub error: String,
}

/// Facts about a data directory.
#[derive(Debug, Clone, Default)]
pub struct DataFacts {
    /// The directory.
    pub dir: PathBuf,
    /// Bytes that its files take.
    pub bytes: u64,
    /// Bytes that are free for the server on its file system.
    pub bytes_free: u64,
    /// When the last backup was finished, if one is known.
    pub last_backup_at: Option<Timestamp>,
}

/// Collects facts about the host. May block on a disk: it is called on a blocking thread.
pub type Host = Arc<dyn Fn() -> Facts + Send + Sync>;

/// What an older server would do wrongly without saying so.
const FEATURES: [&str; 2] = ["machines.validate_only", "machines.in_service"];

fn receiver(facts: ReceiverFacts) -> pb::NotificationReceiver {
    pb::NotificationReceiver {
        name: facts.name,
        events_waiting: facts.waiting,
        oldest_event_at: facts.oldest.map(timestamp),
        last_delivered_at: facts.delivered_at.map(timestamp),
        error: facts.error,
        delivered: facts.delivered,
        refused: facts.refused,
        retries: facts.retries,
        gaps: facts.gaps,
    }
}

/// The service.
pub(super) struct Server {
    engine: Engine,
    /// Absent in virtual time: waiting for a thread would let time advance.
    host: Option<Host>,
}

#[tonic::async_trait]
impl ServerService for Server {
    async fn get_server_info(
        &self,
        request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        handle(&self.engine, request, async |caller, _| self.info(&caller).await).await
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        handle(&self.engine, request, async |caller, _| {
            let identity = caller.identity();
            Ok(pb::WhoAmIResponse {
                name: caller.actor().name.to_string(),
                verified: identity.is_some(),
                proof: identity
                    .map(|identity| identity.proof.as_str())
                    .unwrap_or_default()
                    .to_owned(),
                expires_at: identity.and_then(|identity| identity.expires_at).map(timestamp),
                role: identity.map_or(pb::Role::Unspecified, |identity| identity.role).into(),
                scope: caller.scope().map(ToString::to_string).unwrap_or_default(),
            })
        })
        .await
    }

    async fn check_access(
        &self,
        request: Request<pb::CheckAccessRequest>,
    ) -> Result<Response<pb::CheckAccessResponse>, Status> {
        handle(&self.engine, request, async |caller, message| {
            access::check(&self.engine, &caller, &message).await
        })
        .await
    }
}

fn shown(cap: Cap) -> String {
    cap.to_string()
}

fn by_label(limits: &RiskLimits) -> BTreeMap<String, String> {
    limits.max_by_label.iter().map(|(label, cap)| (label.clone(), shown(*cap))).collect()
}

impl Server {
    pub(super) fn new(engine: Engine, host: Option<Host>) -> Self {
        Self { engine, host }
    }

    async fn info(&self, caller: &Caller) -> Result<pb::ServerInfo, ApiError> {
        let engine = &self.engine;
        let (revision, oldest) = engine.store().revisions().await?;
        let limits = engine.run_limits();
        let (in_progress, waiting, _) = engine.load();
        let counted = |limits: BTreeMap<String, usize>| {
            limits.into_iter().map(|(name, most)| (name, most as u64)).collect()
        };
        // Facts that cannot be determined are left out.
        let Facts { data, last_reload, receivers } = match self.host.clone() {
            Some(host) => tokio::task::spawn_blocking(move || host()).await.unwrap_or_default(),
            None => Facts::default(),
        };
        let data = data.unwrap_or_default();
        let info = pb::ServerInfo {
            data_dir: data.dir.to_string_lossy().into_owned(),
            data_bytes: data.bytes,
            data_bytes_free: data.bytes_free,
            last_backup_at: data.last_backup_at.map(timestamp),
            last_reload: last_reload.map(|(at, error)| pb::Reload {
                at: Some(timestamp(at)),
                error: error.unwrap_or_default(),
            }),
            receivers: receivers.into_iter().map(receiver).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Some(timestamp(engine.clock().now())),
            store: engine.store().kind().to_owned(),
            revision: revision.0,
            oldest_revision: oldest.0,
            providers: engine.providers().keys().cloned().collect(),
            runs_max: limits.runs_max as u64,
            runs_max_by_provider: counted(limits.runs_max_by_provider),
            runs_max_by_label: counted(limits.runs_max_by_label),
            disruptive_max: limits.disruptive.max.map(shown).unwrap_or_default(),
            disruptive_max_by_label: by_label(&limits.disruptive),
            data_destroying_max: limits.data_destroying.max.map(shown).unwrap_or_default(),
            data_destroying_max_by_label: by_label(&limits.data_destroying),
            runs_in_progress: in_progress as u64,
            runs_waiting: waiting as u64,
            watchers: engine.watch().watchers() as u64,
            locks: engine.locks().iter().map(|lock| locks::message(lock)).collect(),
            runs_held_back: engine.held_runs() as u64,
            features: FEATURES.map(str::to_owned).to_vec(),
        };
        if caller.scope().is_none() {
            return Ok(info);
        }
        // What is left is no one's in particular.
        Ok(pb::ServerInfo {
            version: info.version,
            time: info.time,
            store: info.store,
            revision: info.revision,
            oldest_revision: info.oldest_revision,
            providers: info.providers,
            features: info.features,
            ..pb::ServerInfo::default()
        })
    }
}
