//! What a batch is stored as.

use crate::model::{Object, RunDelta};
use crate::store::codec::{encode_delta, encode_entries, encode_machine, encode_run};
use crate::store::{Batch, Write};

/// The stored forms of a batch, made on the thread of its writer so that the writer thread only binds them.
#[derive(Debug)]
pub(super) struct Encoded(pub(super) Vec<EncodedWrite>);

/// The stored forms of one write.
#[derive(Debug)]
pub(super) struct EncodedWrite {
    /// The record after the change; before it, if it is deleted.
    pub(super) body: String,
    /// What changed, where the history keeps that instead of the record.
    pub(super) delta: String,
    pub(super) entries: String,
}

impl Encoded {
    pub(super) fn new(batch: &Batch) -> Self {
        Self(batch.writes.iter().map(EncodedWrite::new).collect())
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
