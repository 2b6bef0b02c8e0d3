//! `WatchRuns` and `WatchMachines`: the hub's watches as streams of messages.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _};

use super::caller::Caller;
use super::convert::history::{entry, summary};
use super::convert::machine::machine;
use super::convert::timestamp;
use super::show;
use super::status::{Answers, ApiError};
use crate::clock::Timestamp;
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::unfold::unfold;
use crate::executor::watch::{Start, WatchItem};
use crate::ids::{Revision, RunId};
use crate::model::filter::{Filter, Subject};
use crate::model::{Entry, Machine, Run};
use crate::pb;

type Items<T> = Pin<Box<dyn Stream<Item = Result<WatchItem<T>, EngineError>> + Send>>;

/// Opens a watch of runs.
pub(super) async fn runs(
    engine: &Engine,
    caller: &Caller,
    request: pb::WatchRunsRequest,
) -> Result<Answers<pb::RunEvent>, ApiError> {
    let filter = Filter::parse(&request.filter, Subject::Run)?.and(caller.scope(Subject::Run));
    if let Some(id) = filter.pinned("run_id") {
        // A watch of a run that does not exist would be silent for ever.
        let id = RunId::parse(id)
            .map_err(|error| EngineError::invalid("filter", format!("run_id {error}")))?;
        engine.run(id).await?;
    }
    let options = Options {
        resume_from: request.resume_from,
        allow_bookmarks: request.allow_bookmarks,
        allow_reset: request.allow_reset,
        changes_only: request.changes_only,
    };
    let open: Open<Run> = |engine, filter, start| {
        Box::pin(engine.watch().watch_runs(engine.store().clone(), filter, start))
    };
    let told = watch(engine, filter, options, open).await?;
    let engine = engine.clone();
    Ok(Box::pin(told.then(move |told| {
        let engine = engine.clone();
        async move {
            let told = told?;
            let snapshot = match &told.object {
                Some(run) => Some(show::run(&engine, run).await),
                None => None,
            };
            let run_id = snapshot.as_ref().map_or("", |run| run.run_id.as_str());
            let machine_id = snapshot.as_ref().map_or("", |run| run.machine_id.as_str());
            Ok(pb::RunEvent {
                ts: Some(timestamp(told.at)),
                message: summary(&told.entries),
                revision: told.resume.0,
                entries: told.entries(machine_id, run_id),
                r#type: match told.kind {
                    Kind::Snapshot => pb::RunEventType::Snapshot,
                    Kind::Synced => pb::RunEventType::Synced,
                    Kind::Change => pb::RunEventType::Change,
                    Kind::Removed => pb::RunEventType::Removed,
                    Kind::Bookmark => pb::RunEventType::Bookmark,
                    Kind::Reset => pb::RunEventType::Reset,
                }
                .into(),
                snapshot,
            })
        }
    })))
}

/// Opens a watch of machines.
pub(super) async fn machines(
    engine: &Engine,
    caller: &Caller,
    request: pb::WatchMachinesRequest,
) -> Result<Answers<pb::MachineEvent>, ApiError> {
    let filter =
        Filter::parse(&request.filter, Subject::Machine)?.and(caller.scope(Subject::Machine));
    let options = Options {
        resume_from: request.resume_from,
        allow_bookmarks: request.allow_bookmarks,
        allow_reset: request.allow_reset,
        changes_only: request.changes_only,
    };
    let open: Open<Machine> = |engine, filter, start| {
        Box::pin(engine.watch().watch_machines(engine.store().clone(), filter, start))
    };
    let told = watch(engine, filter, options, open).await?;
    Ok(Box::pin(told.map(|told| {
        let told = told?;
        let machine_id = told.object.as_ref().map_or("", |machine| machine.id.as_str());
        Ok(pb::MachineEvent {
            ts: Some(timestamp(told.at)),
            message: summary(&told.entries),
            revision: told.resume.0,
            entries: told.entries(machine_id, ""),
            r#type: match told.kind {
                Kind::Snapshot => pb::MachineEventType::Snapshot,
                Kind::Synced => pb::MachineEventType::Synced,
                Kind::Change => pb::MachineEventType::Change,
                Kind::Removed => pb::MachineEventType::Removed,
                Kind::Bookmark => pb::MachineEventType::Bookmark,
                Kind::Reset => pb::MachineEventType::Reset,
            }
            .into(),
            snapshot: told.object.as_deref().map(machine),
        })
    })))
}

#[derive(Debug, Clone, Copy)]
struct Options {
    resume_from: u64,
    allow_bookmarks: bool,
    allow_reset: bool,
    changes_only: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Snapshot,
    Synced,
    Change,
    Removed,
    Bookmark,
    Reset,
}

/// An event before it is shown.
struct Told<T> {
    kind: Kind,
    at: Timestamp,
    object: Option<Arc<T>>,
    /// Revision of the commit.
    revision: Revision,
    /// Where a client may resume; zero if it must begin anew.
    resume: Revision,
    entries: Arc<[Entry]>,
}

impl<T> Told<T> {
    fn entries(&self, machine_id: &str, run_id: &str) -> Vec<pb::HistoryEntry> {
        let entries = self.entries.iter();
        entries.map(|told| entry(told, self.revision, self.at, machine_id, run_id)).collect()
    }
}

type Open<T> = fn(&Engine, Filter, Start) -> Items<T>;

/// Opens a watch. What can be said now is an answer of its own, not a stream that fails.
async fn watch<T: Send + Sync + 'static>(
    engine: &Engine,
    filter: Filter,
    options: Options,
    open: Open<T>,
) -> Result<impl Stream<Item = Result<Told<T>, tonic::Status>> + Send + use<T>, ApiError> {
    if options.resume_from > 0 && !options.allow_reset {
        let (_, oldest) = engine.store().revisions().await?;
        if Revision(options.resume_from) < oldest {
            return Err(EngineError::Compacted { oldest }.into());
        }
    }
    let start = match (options.resume_from, options.changes_only) {
        (0, false) => Start::Snapshot,
        (0, true) => Start::Now,
        (revision, _) => Start::Resume(Revision(revision)),
    };
    let items = open(engine, filter.clone(), start);
    let watch = Watch { engine: engine.clone(), items, filter, options, open };
    Ok(unfold(watch, |mut watch| async move {
        let told = watch.next().await?;
        Some((told.map_err(|error| ApiError::from(error).into()), watch))
    }))
}

struct Watch<T> {
    engine: Engine,
    items: Items<T>,
    filter: Filter,
    options: Options,
    open: Open<T>,
}

impl<T> Watch<T> {
    async fn next(&mut self) -> Option<Result<Told<T>, EngineError>> {
        loop {
            let told = match self.items.next().await? {
                Ok(WatchItem::Bookmark(_)) if !self.options.allow_bookmarks => continue,
                // No revision: a client that stops here has not seen all of the present state.
                Ok(WatchItem::Snapshot(object, _)) => {
                    Told { object: Some(object), ..self.bare(Kind::Snapshot, Revision(0)) }
                }
                Ok(WatchItem::Synced(revision)) => self.bare(Kind::Synced, revision),
                Ok(WatchItem::Bookmark(revision)) => self.bare(Kind::Bookmark, revision),
                Ok(WatchItem::Change { revision, resume, at, object, entries }) => {
                    let object = Some(object);
                    Told { kind: Kind::Change, at, object, revision, resume, entries }
                }
                Ok(WatchItem::Removed { revision, resume, at, object, entries }) => {
                    let object = Some(object);
                    Told { kind: Kind::Removed, at, object, revision, resume, entries }
                }
                Err(EngineError::Compacted { .. }) if self.options.allow_reset => {
                    self.items = (self.open)(&self.engine, self.filter.clone(), Start::Snapshot);
                    self.bare(Kind::Reset, Revision(0))
                }
                Err(error) => return Some(Err(error)),
            };
            return Some(Ok(told));
        }
    }

    fn bare(&self, kind: Kind, resume: Revision) -> Told<T> {
        let at = self.engine.clock().now();
        Told { kind, at, object: None, revision: resume, resume, entries: Arc::new([]) }
    }
}
