//! `WatchRuns`: the hub's watch as a stream of messages.

use std::pin::Pin;

use tokio_stream::Stream;

use super::convert::history::{entry, summary};
use super::convert::timestamp;
use super::runs::Answers;
use super::show;
use super::status::ApiError;
use crate::clock::Timestamp;
use crate::executor::Engine;
use crate::executor::error::EngineError;
use crate::executor::unfold::unfold;
use crate::executor::watch::{RunWatchItem, Start, WatchItem};
use crate::ids::{Revision, RunId};
use crate::model::filter::{Filter, Subject};
use crate::model::{Entry, Run};
use crate::pb;

type Items = Pin<Box<dyn Stream<Item = Result<RunWatchItem, EngineError>> + Send>>;

/// Opens a watch of runs.
pub(super) async fn runs(
    engine: &Engine,
    request: pb::WatchRunsRequest,
) -> Result<Answers<pb::RunEvent>, ApiError> {
    let filter = Filter::parse(&request.filter, Subject::Run)?;
    if let Some(id) = filter.pinned("run_id") {
        // A watch of a run that does not exist would be silent for ever.
        let id = RunId::parse(id)
            .map_err(|error| EngineError::invalid("filter", format!("run_id {error}")))?;
        engine.run(id).await?;
    }
    if request.resume_from > 0 && !request.allow_reset {
        // What can be said now is an answer of its own, not a stream that fails.
        let (_, oldest) = engine.store().revisions().await?;
        if Revision(request.resume_from) < oldest {
            return Err(EngineError::Compacted { oldest }.into());
        }
    }
    let start = match (request.resume_from, request.changes_only) {
        (0, false) => Start::Snapshot,
        (0, true) => Start::Now,
        (revision, _) => Start::Resume(Revision(revision)),
    };
    let watch = Watch { engine: engine.clone(), items: None, filter, start, request };
    Ok(Box::pin(unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((event.map_err(|error| ApiError::from(error).into()), watch))
    })))
}

struct Watch {
    engine: Engine,
    items: Option<Items>,
    filter: Filter,
    start: Start,
    request: pb::WatchRunsRequest,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<pb::RunEvent, EngineError>> {
        use tokio_stream::StreamExt as _;
        loop {
            let items = self.items.get_or_insert_with(|| {
                let store = self.engine.store().clone();
                Box::pin(self.engine.watch().watch_runs(store, self.filter.clone(), self.start))
            });
            match items.next().await? {
                Ok(WatchItem::Bookmark(_)) if !self.request.allow_bookmarks => {}
                Ok(item) => return Some(Ok(event(&self.engine, item).await)),
                Err(EngineError::Compacted { .. }) if self.request.allow_reset => {
                    self.items = None;
                    self.start = Start::Snapshot;
                    return Some(Ok(bare(&self.engine, pb::RunEventType::Reset, Revision(0))));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

async fn event(engine: &Engine, item: RunWatchItem) -> pb::RunEvent {
    match item {
        // No revision: a client that stops here has not seen all of the present state, and must begin anew.
        WatchItem::Snapshot(run, _) => pb::RunEvent {
            snapshot: Some(show::run(engine, &run).await),
            ..bare(engine, pb::RunEventType::Snapshot, Revision(0))
        },
        WatchItem::Synced(revision) => bare(engine, pb::RunEventType::Synced, revision),
        WatchItem::Bookmark(revision) => bare(engine, pb::RunEventType::Bookmark, revision),
        WatchItem::Change { revision, resume, at, object, entries } => {
            let kind = pb::RunEventType::Change;
            changed(engine, kind, revision, resume, at, &object, &entries).await
        }
        WatchItem::Removed { revision, resume, at, object, entries } => {
            let kind = pb::RunEventType::Removed;
            changed(engine, kind, revision, resume, at, &object, &entries).await
        }
    }
}

async fn changed(
    engine: &Engine,
    kind: pb::RunEventType,
    revision: Revision,
    resume: Revision,
    at: Timestamp,
    run: &Run,
    entries: &[Entry],
) -> pb::RunEvent {
    let (machine_id, run_id) = (run.machine_id.as_str(), run.id.to_string());
    let told = entries.iter().map(|told| entry(told, revision, at, machine_id, &run_id));
    pb::RunEvent {
        ts: Some(timestamp(at)),
        snapshot: Some(show::run(engine, run).await),
        message: summary(entries),
        revision: resume.0,
        entries: told.collect(),
        r#type: kind.into(),
    }
}

fn bare(engine: &Engine, kind: pb::RunEventType, revision: Revision) -> pb::RunEvent {
    pb::RunEvent {
        ts: Some(timestamp(engine.clock().now())),
        revision: revision.0,
        r#type: kind.into(),
        ..pb::RunEvent::default()
    }
}
