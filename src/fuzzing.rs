//! Entry points for the fuzz targets of `fuzz/`, to code that is otherwise private.
//!
//! Hidden, and not part of the public API. Public code is called directly.

use crate::api::page::List;
use crate::ids::{Revision, RunId};
use crate::json::{self, Canonical};
use crate::store::codec;

/// A kind of stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A machine.
    Machine,
    /// A run.
    Run,
    /// What a commit changed in a run.
    Delta,
    /// Entries of a history.
    Entries,
}

impl Record {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Machine, Self::Run, Self::Delta, Self::Entries];
}

/// A stored record as it would be stored again; `None` if it cannot be decoded.
#[must_use]
pub fn stored_again(kind: Record, text: &str) -> Option<String> {
    let (ordinal, revision) = (1, Revision(1));
    Some(match kind {
        Record::Machine => {
            codec::encode_machine(&codec::decode_machine(text, ordinal, revision).ok()?)
        }
        Record::Run => codec::encode_run(&codec::decode_run(text, ordinal, revision).ok()?),
        Record::Delta => {
            let id = RunId::parse("018bcfe5-6800-7000-8000-000000000000").ok()?;
            codec::encode_delta(&codec::decode_delta(text, Some(id), ordinal, revision).ok()?, id)
        }
        Record::Entries => codec::encode_entries(&codec::decode_entries(text).ok()?),
    })
}

/// Where a page token says that a list continues; `None` if the token is not valid for that list, or is at its end.
#[must_use]
pub fn page_cursor(filter: &str, token: &str) -> Option<(u64, u64)> {
    List::new("ListRuns", &[filter]).cursor(token).ok()?
}

/// The page token of a list that continues there.
#[must_use]
pub fn page_token(filter: &str, cursor: (u64, u64)) -> String {
    List::new("ListRuns", &[filter]).token(cursor)
}

/// A JSON text as the message of the API with this number would be written again; `Err` with the reason if it is none.
///
/// # Errors
/// What is refused, as its sender reads it.
pub fn json_again(kind: usize, text: &[u8]) -> Result<Vec<u8>, String> {
    let file = json::pool().and_then(|pool| pool.get_file_by_name("baremetal/v1/baremetal.proto"));
    let kinds: Vec<_> = file.iter().flat_map(|file| file.messages()).collect();
    let kind = kinds.get(kind % kinds.len().max(1)).ok_or("no descriptors")?;
    let message = json::read(kind, text).map_err(|error| error.to_string())?;
    serde_json::to_vec(&Canonical::new(message)).map_err(|error| format!("not written: {error}"))
}
