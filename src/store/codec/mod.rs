//! Stored forms of records: JSON objects with short names that never change their meaning.
//!
//! Nothing else knows the stored bytes. Growth is additive: a new field has a default, and is left out while it has
//! it. Enums are stored by name; an unknown name is an error, never guessed. The ordinal and the revision of a record
//! are separate columns, since the store assigns them after a record has been encoded.

mod audit;
mod delta;
mod entry;
mod format;
mod installation;
mod lock;
mod machine;
mod observed;
mod run;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use audit::{decode_audit, encode_audit};
pub(crate) use delta::{decode_delta, encode_delta};
pub(crate) use entry::{decode_entries, encode_entries};
pub(crate) use format::DecodeError;
pub(crate) use installation::{decode_installation, encode_installation};
pub(crate) use lock::{decode_lock, encode_lock};
pub(crate) use machine::{decode_machine, encode_machine};
pub(crate) use observed::{decode_observed, encode_observed};
pub(crate) use run::{decode_run, encode_run, state_name};
