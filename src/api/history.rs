//! History: of one machine or run from its own rows, of the fleet from the change log that feeds the watches.

use std::collections::BTreeMap;

use super::caller::Caller;
use super::page::List;
use super::status::ApiError;
use super::validate::{Checks, NAME_CHARS_MAX};
use super::{convert, lists};
use crate::executor::Engine;
use crate::ids::{Revision, RunId};
use crate::model::{Change, EntryKind, HistoryRow, Object};
use crate::pb;
use crate::plan::suggest::nearest;
use crate::store::Subject;

/// Changes read from the change log at a time.
const CHANGES_PER_READ: usize = 500;
/// Most reads of the change log per request.
const READS_MAX: usize = 8;

/// A page of the history of one object, oldest first, and the token of the next.
pub(super) async fn of_object(
    engine: &Engine,
    caller: &Caller,
    method: &'static str,
    subject: Subject,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<pb::HistoryEntry>, String), ApiError> {
    let mut checks = Checks::default();
    let limit = checks.page_size(page_size);
    checks.done(Some(()))?;
    let id = match &subject {
        Subject::Machine(id) => id.to_string(),
        Subject::Run(id) => id.to_string(),
    };
    let list = List::new(method, &caller.bound(&[&id]));
    let mut after = match list.cursor(page_token)? {
        Some((revision, index)) => {
            let index = u32::try_from(index).map_err(|_| ApiError::PageTokenInvalid)?;
            Some((Revision(revision), index))
        }
        None => None,
    };
    // One more than requested shows whether there is another page.
    let mut rows = Vec::new();
    for _ in 0..READS_MAX {
        let read = engine.store().history(subject.clone(), after, limit + 1).await?;
        let is_last = read.len() <= limit;
        after = read.last().map(|last| (last.revision, last.index));
        rows.extend(within(engine, caller, read).await?);
        if is_last || rows.len() > limit {
            after = None;
            break;
        }
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut entries: Vec<_> = rows.iter().map(convert::history::row).collect();
    let fits = lists::fitting(&entries);
    let more = more || fits < entries.len();
    entries.truncate(fits);
    rows.truncate(fits);
    let last = rows.last().filter(|_| more).map(|last| (last.revision, last.index));
    // Without one, all that was read was left out, and there is more to read.
    let place = last.or(after);
    let token = place.map(|(revision, index)| list.token((revision.0, u64::from(index))));
    Ok((entries, token.unwrap_or_default()))
}

/// The entries that the caller may see. Of a machine: those from when it was in the scope. Of its runs: those of the runs
/// that are.
async fn within(
    engine: &Engine,
    caller: &Caller,
    rows: Vec<HistoryRow>,
) -> Result<Vec<HistoryRow>, ApiError> {
    let Some(scope) = caller.scope() else { return Ok(rows) };
    let store = engine.store();
    let mut judged: BTreeMap<(Option<RunId>, Revision), bool> = BTreeMap::new();
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        // The labels of a run never change.
        let key = (row.run_id, if row.run_id.is_some() { Revision(0) } else { row.revision });
        let is_within = match judged.get(&key) {
            Some(is_within) => *is_within,
            None => {
                let is_within = match row.run_id {
                    Some(id) => store.run(id).await?.is_some_and(|run| scope.takes_run(&run)),
                    None => {
                        // A deleted machine is judged as it was before.
                        let is_gone = row.entry.kind == EntryKind::MachineDeleted;
                        let at = Revision(row.revision.0.saturating_sub(is_gone.into()));
                        let machine = store.machine_at(&row.machine_id, at).await?;
                        machine.is_some_and(|machine| scope.takes_machine(&machine))
                    }
                };
                judged.insert(key, is_within);
                is_within
            }
        };
        if is_within {
            kept.push(row);
        }
    }
    Ok(kept)
}

/// One page of the history of everything, oldest first.
pub(super) async fn of_everything(
    engine: &Engine,
    caller: &Caller,
    request: &pb::ListHistoryRequest,
) -> Result<pb::ListHistoryResponse, ApiError> {
    let mut checks = Checks::default();
    let limit = checks.page_size(request.page_size);
    check_kind(&mut checks, &request.kind);
    checks.line("actor", &request.actor, NAME_CHARS_MAX);
    checks.done(Some(()))?;
    let list = List::new("ListHistory", &caller.bound(&[&request.kind, &request.actor]));
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
            if change.revision != after && entries.len() >= limit {
                let next_page_token = list.token((after.0, 0));
                return Ok(pb::ListHistoryResponse { entries, next_page_token });
            }
            after = change.revision;
            if caller.scope().is_some_and(|scope| !scope.takes_change(&change)) {
                continue;
            }
            let entries_of_change = entries_of(&change);
            entries.extend(entries_of_change.into_iter().filter(|entry| matches(request, entry)));
        }
    }
    Ok(pb::ListHistoryResponse { entries, next_page_token: list.token((after.0, 0)) })
}

/// Refuses a kind that no entry can have, so that a typing mistake is not taken for an empty history.
fn check_kind(checks: &mut Checks, kind: &str) {
    let group = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let begins = |known: &&str| {
        *known == kind || known.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'))
    };
    let mut known = EntryKind::ALL.iter().map(|known| known.as_str());
    if kind.is_empty() || known.clone().any(|known| begins(&known)) {
        return;
    }
    let mut groups: Vec<String> = Vec::new();
    for name in known.clone().map(group) {
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    let of_group: Vec<&str> = known.by_ref().filter(|known| group(known) == group(kind)).collect();
    let names = if of_group.is_empty() {
        format!("kinds begin with {}", groups.join(", "))
    } else {
        format!("the kinds of {} are {}", group(kind), of_group.join(", "))
    };
    let all = EntryKind::ALL.iter().map(|known| known.as_str());
    let near = nearest(kind, all.chain(groups.iter().map(String::as_str)));
    let meant = match near {
        Some(near) => format!("did you mean {near}? "),
        None => String::new(),
    };
    checks.refuse("kind", format!("{kind:?} is no kind of entry: {meant}{names}"));
}

fn matches(request: &pb::ListHistoryRequest, entry: &pb::HistoryEntry) -> bool {
    let kind = &request.kind;
    let of_kind = kind.is_empty()
        || entry.kind == *kind
        || entry.kind.strip_prefix(kind.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let name = entry.actor.as_ref().map_or("", |actor| actor.name.as_str());
    of_kind && (request.actor.is_empty() || name == request.actor)
}

fn entries_of(change: &Change) -> Vec<pb::HistoryEntry> {
    let entry = convert::history::entry;
    let (Change { revision, at, object, entries, .. }, machine_id) = (change, change.machine_id());
    let machine_id = machine_id.map_or("", |id| id.as_str());
    let run_id = match object {
        Object::Run(images) => images.last().map(|run| run.id.to_string()),
        Object::Machine(_) => None,
    };
    let run_id = run_id.unwrap_or_default();
    entries.iter().map(|one| entry(one, *revision, *at, machine_id, &run_id)).collect()
}
