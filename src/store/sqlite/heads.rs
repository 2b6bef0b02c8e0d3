//! What the writer needs to know of the rows that it writes again and again: those of active runs and their machines.
//!
//! Only the writer's connection writes, so what it wrote last is what is stored. A row is kept while its run is active,
//! so that memory is bounded by the work at hand; what is not kept is looked up.

use std::collections::HashMap;

use crate::ids::{MachineId, RunId};
use crate::lifecycle::machine::Phase;
use crate::store::check::{MachineHead, RunHead};

/// Of a machine whose run is active.
#[derive(Debug, Clone)]
pub(super) struct MachineRow {
    pub(super) head: MachineHead,
    pub(super) phase: Phase,
    pub(super) provider: String,
}

/// Of an active run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunRow {
    pub(super) head: RunHead,
    /// Name of its phase.
    pub(super) phase: &'static str,
    /// Log chunks stored, if that has been looked up.
    pub(super) chunks: Option<u64>,
}

/// The rows, by id. Forgotten as a whole when a transaction is rolled back.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) machines: HashMap<MachineId, MachineRow>,
    pub(super) runs: HashMap<RunId, RunRow>,
}
