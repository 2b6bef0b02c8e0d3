//! The stored forms of a batch.

use std::sync::Arc;

use crate::model::audit::digest;
use crate::model::{Images, Object, Run, RunDelta};
use crate::store::codec::{encode_audit, encode_delta, encode_entries, encode_machine, encode_run};
use crate::store::{Batch, Write};

/// The stored forms of a batch, encoded on its caller's thread so that the writer thread only binds them.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) writes: Vec<EncodedWrite>,
    pub(super) audit: Vec<EncodedAudit>,
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
    /// The record after the change; before it, if it is deleted. Empty for a run whose row need not be written.
    pub(super) body: String,
    /// The change, where the history stores that instead of the record.
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
                    (run_body(images, run), encode_delta(&delta, run.id))
                }
                None => Default::default(),
            },
        };
        Self { body, delta, entries: encode_entries(&write.entries) }
    }
}

/// Empty for a change that leaves the indexed columns of the run's row as they are.
fn run_body(images: &Images<Run>, run: &Run) -> String {
    let is_same = |before: &Arc<Run>| before.phase() == run.phase();
    if run.state.is_active() && images.before.as_ref().is_some_and(is_same) {
        String::new()
    } else {
        encode_run(run)
    }
}
