//! The worker of each machine, and what waits for its time. A waiting run is one entry here, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::executor::worker::{FAULTS_MAX, Message, Parked, Rest};
use crate::ids::{MachineId, RunId};

/// Where a worker is reached.
type Mailbox = mpsc::UnboundedSender<Message>;

/// State of a machine with work.
#[derive(Debug)]
enum Seat {
    Working(Mailbox),
    Parked(Parked),
    /// A run that was active before the start.
    Unrecovered,
    /// A run at which workers have panicked too often.
    Faulty,
    Lost(RunId),
}

/// See the module. Instants are on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Seats {
    machines: HashMap<MachineId, Seat>,
    due: BTreeSet<(Duration, MachineId)>,
    /// How often workers have panicked at a machine since its last one left with nothing to do.
    panics: BTreeMap<MachineId, u32>,
}

impl Seats {
    /// Machines with work.
    pub(super) fn len(&self) -> usize {
        self.machines.len()
    }

    /// The worker of a machine.
    pub(super) fn worker(&self, machine: &MachineId) -> Option<&Mailbox> {
        match self.machines.get(machine) {
            Some(Seat::Working(mailbox)) => Some(mailbox),
            Some(Seat::Parked(_) | Seat::Unrecovered | Seat::Faulty | Seat::Lost(_)) | None => None,
        }
    }

    /// Every worker.
    pub(super) fn workers(&self) -> Vec<Mailbox> {
        let working = |seat: &Seat| match seat {
            Seat::Working(mailbox) => Some(mailbox.clone()),
            Seat::Parked(_) | Seat::Unrecovered | Seat::Faulty | Seat::Lost(_) => None,
        };
        self.machines.values().filter_map(working).collect()
    }

    /// A worker begins.
    pub(super) fn occupy(&mut self, machine: &MachineId, mailbox: Mailbox) {
        self.machines.insert(machine.clone(), Seat::Working(mailbox));
    }

    /// A worker has panicked: sets what the next one starts with.
    pub(super) fn panicked(&mut self, machine: &MachineId) {
        let panics = self.panics.entry(machine.clone()).or_default();
        *panics += 1;
        let seat = if *panics >= FAULTS_MAX {
            self.panics.remove(machine);
            Seat::Faulty
        } else {
            Seat::Unrecovered
        };
        self.machines.insert(machine.clone(), seat);
    }

    /// A machine has an active run. `false` if that is already known.
    pub(super) fn expect(&mut self, machine: &MachineId) -> bool {
        let is_new = !self.machines.contains_key(machine);
        if is_new {
            self.machines.insert(machine.clone(), Seat::Unrecovered);
        }
        is_new
    }

    /// Whether the machine's active run is still to be recovered; `None` if nothing is known about the machine.
    pub(super) fn is_unrecovered(&self, machine: &MachineId) -> Option<bool> {
        self.machines.get(machine).map(|seat| matches!(seat, Seat::Unrecovered | Seat::Faulty))
    }

    /// Takes out the machine's saved state.
    pub(super) fn take(&mut self, machine: &MachineId) -> Rest {
        match self.machines.remove(machine) {
            Some(Seat::Parked(parked)) => {
                if let Some(due_at) = parked.due_at() {
                    self.due.remove(&(due_at, machine.clone()));
                }
                Rest::Parked(parked)
            }
            Some(Seat::Unrecovered) => Rest::Unrecovered(None),
            Some(Seat::Faulty) => Rest::Faulty,
            Some(Seat::Lost(run_id)) => Rest::Lost(run_id),
            Some(Seat::Working(_)) | None => Rest::Nothing,
        }
    }

    /// A worker leaves. `true` if something is now due earlier than anything before.
    pub(super) fn leave(&mut self, machine: &MachineId, rest: Rest) -> bool {
        match rest {
            Rest::Nothing => {
                self.machines.remove(machine);
                self.panics.remove(machine);
                false
            }
            Rest::Faulty => {
                self.machines.insert(machine.clone(), Seat::Faulty);
                false
            }
            Rest::Unrecovered(_) => {
                self.machines.insert(machine.clone(), Seat::Unrecovered);
                false
            }
            Rest::Lost(run_id) => {
                self.machines.insert(machine.clone(), Seat::Lost(run_id));
                false
            }
            Rest::Parked(parked) => {
                let due_at = parked.due_at();
                // Share one allocation of the id.
                let id = match self.machines.get_key_value(machine) {
                    Some((id, _)) => id.clone(),
                    None => machine.clone(),
                };
                self.machines.insert(id.clone(), Seat::Parked(parked));
                let Some(due_at) = due_at else { return false };
                let sooner = self.due.first().is_none_or(|(first, _)| due_at < *first);
                self.due.insert((due_at, id));
                sooner
            }
        }
    }

    /// Takes out a run that is due.
    ///
    /// # Errors
    /// When the next one is due, if there is any.
    pub(super) fn take_due(
        &mut self,
        now: Duration,
    ) -> Result<(MachineId, Parked), Option<Duration>> {
        while let Some((due_at, _)) = self.due.first() {
            if *due_at > now {
                return Err(Some(*due_at));
            }
            let Some((_, machine)) = self.due.pop_first() else { break };
            if let Some(Seat::Parked(_)) = self.machines.get(&machine)
                && let Some(Seat::Parked(parked)) = self.machines.remove(&machine)
            {
                return Ok((machine, parked));
            }
        }
        Err(None)
    }
}
