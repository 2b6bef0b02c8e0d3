//! The machines that are still waited for.

use std::collections::BTreeSet;

use tonic::Status;

use crate::pb;

use super::super::super::error::Error;
use super::super::super::output::{effective_name, phase_name, sanitized};
use super::super::super::query::quoted;
use super::super::super::session::Session;
use super::goal::Goal;

/// Most machines named in the filter of a watch; with more, every machine is watched.
const NAMED_MAX: usize = 64;

/// Machines that have not reached the goal yet.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) ids: BTreeSet<String>,
    /// The last seen state of one of them.
    pub(super) seen: String,
}

impl Left {
    pub(super) fn filter(&self) -> String {
        if self.ids.len() > NAMED_MAX {
            return String::new();
        }
        let terms = self.ids.iter().map(|id| format!("machine_id = {}", quoted(id)));
        terms.collect::<Vec<_>>().join(" OR ")
    }

    /// Records that a machine does not exist any more.
    pub(super) fn lose(
        &mut self,
        session: &mut Session,
        what: &str,
        goal: &Goal,
        id: &str,
    ) -> Result<(), Error> {
        if *goal == Goal::Deleted {
            self.ids.remove(id);
            return met(session, id, what);
        }
        Err(Error::rpc(Status::not_found(format!("machine {id} was deleted"))))
    }

    /// Records the state of a machine, and prints it if it has reached the goal.
    pub(super) fn see(
        &mut self,
        session: &mut Session,
        what: &str,
        goal: &Goal,
        machine: &pb::Machine,
    ) -> Result<(), Error> {
        let id = sanitized(&machine.machine_id);
        if !self.ids.contains(&machine.machine_id) {
            return Ok(());
        }
        if goal.is_met(machine) {
            self.ids.remove(&machine.machine_id);
            return met(session, &machine.machine_id, what);
        }
        if goal.is_out_of_reach(machine) {
            let message = format!("machine {id} is RETIRED: {what} can never become true");
            return Err(Error::rpc(Status::failed_precondition(message)));
        }
        let status = machine.status.clone().unwrap_or_default();
        let (phase, effective) = (phase_name(status.phase), effective_name(status.effective_state));
        self.seen = format!("{id}: phase {phase}, effective {effective}");
        Ok(())
    }
}

/// Prints that a machine has reached the goal.
pub(super) fn met(session: &mut Session, id: &str, what: &str) -> Result<(), Error> {
    writeln!(session.ui.out(), "{}: {} is met", sanitized(id), sanitized(what))?;
    session.ui.flush()?;
    Ok(())
}
