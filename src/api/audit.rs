//! `ListHistory`: what happened to everything, out of the log that feeds the watches.

use super::convert;
use super::page::List;
use super::status::ApiError;
use super::validate::{Checks, NAME_CHARS_MAX};
use crate::executor::Engine;
use crate::ids::Revision;
use crate::model::Change;
use crate::pb;

/// Changes read from the log at a time.
const CHANGES_PER_READ: usize = 500;
/// Reads of the log that one request makes at most.
const READS_MAX: usize = 8;

/// One page of the history of everything, oldest first.
pub(super) async fn list(
    engine: &Engine,
    request: &pb::ListHistoryRequest,
) -> Result<pb::ListHistoryResponse, ApiError> {
    let mut checks = Checks::default();
    let limit = checks.page_size(request.page_size);
    checks.line("kind", &request.kind, NAME_CHARS_MAX);
    checks.line("actor", &request.actor, NAME_CHARS_MAX);
    checks.done(Some(()))?;
    let list = List::new("ListHistory", &[&request.kind, &request.actor]);
    let store = engine.store();
    let mut after = match list.cursor(&request.page_token)? {
        Some((revision, _)) => Revision(revision),
        None => store.revisions().await?.1,
    };
    let mut entries = Vec::new();
    for _ in 0..READS_MAX {
        let changes = store.changes(after, CHANGES_PER_READ).await?;
        if changes.is_empty() {
            return Ok(pb::ListHistoryResponse { entries, next_page_token: String::new() });
        }
        for change in changes {
            // A page ends between commits: its token is a revision.
            if change.revision() != after && entries.len() >= limit {
                let next_page_token = list.token((after.0, 0));
                return Ok(pb::ListHistoryResponse { entries, next_page_token });
            }
            after = change.revision();
            let told = told(&change);
            entries.extend(told.into_iter().filter(|entry| matches(request, entry)));
        }
    }
    Ok(pb::ListHistoryResponse { entries, next_page_token: list.token((after.0, 0)) })
}

fn matches(request: &pb::ListHistoryRequest, entry: &pb::HistoryEntry) -> bool {
    let kind = &request.kind;
    let of_kind = kind.is_empty()
        || entry.kind == *kind
        || entry.kind.strip_prefix(kind.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let name = entry.actor.as_ref().map_or("", |actor| actor.name.as_str());
    of_kind && (request.actor.is_empty() || name == request.actor)
}

fn told(change: &Change) -> Vec<pb::HistoryEntry> {
    let entry = convert::history::entry;
    match change {
        Change::Machine { revision, at, machine, entries } => {
            let id = machine.id.as_str();
            entries.iter().map(|told| entry(told, *revision, *at, id, "")).collect()
        }
        Change::Run { revision, at, run, entries } => {
            let (machine_id, run_id) = (run.machine_id.as_str(), run.id.to_string());
            entries.iter().map(|told| entry(told, *revision, *at, machine_id, &run_id)).collect()
        }
        Change::MachineDeleted { revision, at, machine, entries } => {
            let id = machine.id.as_str();
            entries.iter().map(|told| entry(told, *revision, *at, id, "")).collect()
        }
    }
}
