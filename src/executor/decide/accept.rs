//! Acceptance of a run.

use super::draft::Draft;
use crate::executor::request::Origin;
use crate::ids::Epoch;
use crate::model::{Entry, EntryKind};

impl Draft {
    /// Accepts the run: claims the machine under a new epoch.
    pub fn accept(&mut self, origin: &Origin, epoch_per_run: bool) {
        self.machine_mut().active_run = Some(self.run.id);
        let epoch = if epoch_per_run { Epoch(1) } else { self.machine.epoch.next() };
        self.machine_mut().epoch = epoch;
        self.machine_changed = true;
        let message = format!(
            "{} accepted from {}{}",
            self.run.spec.plan_id,
            origin.actor.name,
            if self.run.spec.forced { ", forced" } else { "" }
        );
        self.run_entries.push(
            Entry::new(EntryKind::RunCreated, origin.actor.clone())
                .reason(&origin.reason)
                .message(message),
        );
    }
}
