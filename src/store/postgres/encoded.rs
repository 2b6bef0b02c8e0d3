//! The stored forms of a batch, encoded on its caller's thread so that the writer only binds them.

use crate::model::audit::digest;
use crate::model::{Object, RunDelta};
use crate::store::codec::{
    encode_audit, encode_delta, encode_entries, encode_installation, encode_machine,
    encode_observed, encode_run,
};
use crate::store::{Batch, Write};

/// The stored forms of a batch.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) writes: Vec<EncodedWrite>,
    pub(super) audit: Vec<EncodedAudit>,
    pub(super) observed: Vec<String>,
    pub(super) installations: Vec<String>,
}

/// The stored text of an audit entry, and its digest.
#[derive(Debug)]
pub(super) struct EncodedAudit {
    pub(super) body: String,
    pub(super) digest: [u8; 32],
}

/// The stored forms of one write.
#[derive(Debug)]
pub(super) struct EncodedWrite {
    /// The record after the change; before it, if it is deleted.
    pub(super) body: String,
    /// The change of a run, which the history stores instead of the record.
    pub(super) delta: String,
    pub(super) entries: String,
}

impl Encoded {
    pub(super) fn new(batch: &Batch) -> Self {
        let audit = batch.audit.iter().map(|entry| {
            let body = encode_audit(entry);
            EncodedAudit { digest: digest(&body), body }
        });
        Self {
            writes: batch.writes.iter().map(EncodedWrite::new).collect(),
            audit: audit.collect(),
            observed: batch.observed.iter().map(|(_, seen)| encode_observed(seen)).collect(),
            installations: batch
                .installations
                .iter()
                .map(|(_, installation)| encode_installation(installation))
                .collect(),
        }
    }
}

impl EncodedWrite {
    fn new(write: &Write) -> Self {
        let (body, delta) = match &write.object {
            Object::Machine(images) => (
                images.last().map_or_else(String::new, |machine| encode_machine(machine)),
                String::new(),
            ),
            Object::Run(images) => match &images.after {
                Some(run) => {
                    let delta = RunDelta::between(images.before.as_deref(), run);
                    (encode_run(run), encode_delta(&delta, run.id))
                }
                None => Default::default(),
            },
        };
        Self { body, delta, entries: encode_entries(&write.entries) }
    }
}
