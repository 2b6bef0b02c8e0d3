//! History entries, changes and log chunks.

use std::sync::Arc;

use super::timestamp;
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{Actor, Entry, HistoryRow, LogChunk};
use crate::pb;

/// The message of an actor.
pub(in crate::api) fn actor(actor: &Actor) -> pb::Actor {
    let kind = actor.kind.as_str().to_owned();
    pb::Actor { kind, name: actor.name.to_string(), verified: actor.verified }
}

/// The message of a row of the history.
pub(in crate::api) fn row(row: &HistoryRow) -> pb::HistoryEntry {
    let run_id = row.run_id.map(|id| id.to_string()).unwrap_or_default();
    entry(&row.entry, row.revision, row.at, row.machine_id.as_str(), &run_id)
}

/// The message of one entry of a commit.
pub(in crate::api) fn entry(
    entry: &Entry,
    revision: Revision,
    at: Timestamp,
    machine_id: &str,
    run_id: &str,
) -> pb::HistoryEntry {
    pb::HistoryEntry {
        revision: revision.0,
        at: Some(timestamp(at)),
        machine_id: machine_id.to_owned(),
        run_id: run_id.to_owned(),
        step: entry.step.clone(),
        kind: entry.kind.as_str().to_owned(),
        from: entry.from.clone(),
        to: entry.to.clone(),
        reason: entry.reason.clone(),
        message: entry.message.clone(),
        actor: Some(actor(&entry.actor)),
    }
}

/// What a commit did, for people: the messages of its entries, or their kinds where they have no message.
pub(in crate::api) fn summary(entries: &[Entry]) -> String {
    let words = entries.iter().map(|entry| {
        if entry.message.is_empty() {
            let kind = entry.kind.as_str().replace(['.', '-'], " ");
            match kind.split_once(' ') {
                Some((subject, verb)) if !entry.step.is_empty() => {
                    format!("{subject} {} {verb}", entry.step)
                }
                Some(_) | None => kind,
            }
        } else {
            entry.message.clone()
        }
    });
    words.collect::<Vec<_>>().join("; ")
}

/// The message of a log chunk.
pub(in crate::api) fn chunk(chunk: &Arc<LogChunk>) -> pb::LogChunk {
    pb::LogChunk {
        ts: Some(timestamp(chunk.at)),
        run_id: chunk.run_id.to_string(),
        stream: chunk.stream.as_str().to_owned(),
        data: chunk.text.clone().into_bytes(),
        offset: chunk.offset,
        step: chunk.step.clone(),
        attempt: i32::try_from(chunk.attempt).unwrap_or(i32::MAX),
        truncated: chunk.truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryKind;

    #[test]
    fn a_commit_is_summarized_in_words() {
        let engine = Actor::engine;
        let entries = [
            Entry::new(EntryKind::StepSucceeded, engine()).step("repave"),
            Entry::new(EntryKind::StepStarted, engine()).step("join").message("step join started"),
            Entry::new(EntryKind::RunCancelRequested, engine()),
        ];
        assert_eq!(
            summary(&entries),
            "step repave succeeded; step join started; run cancel requested"
        );
        assert_eq!(summary(&[]), "");
    }
}
