//! The state of the simulated world, and the records that change it.
//!
//! Every change is a [`Record`] passed to [`State::apply`], which is all that replaying the journal does: the state
//! after a crash is the state before it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::hardware::Hardware;
use super::ledger::LedgerEntry;
use super::operation::{Ending, Operation, Planned};
use crate::ids::MachineId;

/// Run ids remembered per machine, to count runs.
const RUNS_MAX: usize = 32;

/// A change of the world, as the journal stores it. Times are world time in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Record {
    /// First line of a journal.
    Header { format: u32 },
    /// Everything before this offset was durable when the records after it were written.
    Synced { offset: u64 },
    /// The machine's epoch was raised.
    Fence { machine: String, epoch: u64 },
    /// A new run called the machine.
    Run { machine: String, run: String },
    /// A rule of the script has been used this often.
    Rule { rule: String, used: u32 },
    /// An operation started; one that ends at once has ended.
    Start { machine: String, operation: Box<Operation> },
    /// The operation in flight ended.
    End { machine: String, at_ms: u64, ending: Ending },
    /// The whole state of a machine, written by a compaction.
    Snapshot { machine: String, state: Box<Machine> },
    /// World time and counters, written by a compaction.
    Counters { latest_ms: u64, started: u64 },
}

/// The real state of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) fence: u64,
    #[serde(flatten)]
    pub(super) hardware: Hardware,
    pub(super) runs: u32,
    pub(super) recent_runs: VecDeque<(String, u32)>,
    pub(super) operations_started: u64,
    /// Oldest first; only the last one can be in flight.
    pub(super) operations: VecDeque<Operation>,
}

impl Machine {
    pub(super) fn operation(&self, id: &str) -> Option<&Operation> {
        self.operations.iter().rev().find(|operation| operation.id == id)
    }

    pub(super) fn in_flight(&self) -> Option<&Operation> {
        self.operations.back().filter(|operation| operation.ended.is_none())
    }

    pub(super) fn run_number(&self, run: &str) -> Option<u32> {
        self.recent_runs.iter().rev().find(|(id, _)| id == run).map(|(_, number)| *number)
    }

    fn end(&mut self, at_ms: u64, ending: Ending, recorded: u64) {
        let Some(operation) = self.operations.back_mut() else { return };
        operation.ended = Some((at_ms, ending));
        operation.recorded = recorded;
        if ending == Ending::AsPlanned && operation.planned == Planned::Effect {
            let (action, id, effect) =
                (operation.action, operation.id.clone(), operation.effect.clone());
            effect.apply(&mut self.hardware, &id, at_ms);
            self.hardware.last.insert(action, id);
        }
    }

    /// The same machine with only its latest operations.
    pub(super) fn abridged(&self, operations_max: usize) -> Self {
        let mut machine = self.clone();
        let excess = machine.operations.len().saturating_sub(operations_max);
        machine.operations.drain(..excess);
        machine
    }
}

/// The world.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Most operations remembered per machine; `None` for all.
    operations_max: Option<usize>,
    machines: BTreeMap<MachineId, Machine>,
    rules: BTreeMap<String, u32>,
    started: u64,
    recorded: u64,
    /// Latest time seen: world time never goes back.
    pub(super) latest_ms: u64,
}

impl State {
    /// A new world, which keeps only the latest operations of each machine.
    pub(super) fn bounded(operations_max: usize) -> Self {
        Self { operations_max: Some(operations_max.max(1)), ..Self::default() }
    }

    /// Applies a record. A record about a machine whose name is not a valid id is skipped: it cannot be requested.
    pub(super) fn apply(&mut self, record: Record) {
        self.recorded += 1;
        let recorded = self.recorded;
        match record {
            Record::Header { .. } | Record::Synced { .. } => {}
            Record::Fence { machine, epoch } => {
                if let Some(machine) = self.entry(&machine) {
                    machine.fence = machine.fence.max(epoch);
                }
            }
            Record::Run { machine, run } => {
                if let Some(machine) = self.entry(&machine) {
                    machine.runs += 1;
                    machine.recent_runs.push_back((run, machine.runs));
                    if machine.recent_runs.len() > RUNS_MAX {
                        machine.recent_runs.pop_front();
                    }
                }
            }
            Record::Rule { rule, used } => {
                self.rules.insert(rule, used);
            }
            Record::Start { machine, mut operation } => {
                self.latest_ms = self.latest_ms.max(operation.started_at_ms);
                self.started += 1;
                operation.order = self.started;
                operation.recorded = recorded;
                let operations_max = self.operations_max;
                if let Some(machine) = self.entry(&machine) {
                    operation.fence = machine.fence;
                    machine.operations_started = operation.number;
                    let at_once = operation.until_ms <= operation.started_at_ms;
                    let at_ms = operation.started_at_ms;
                    machine.operations.push_back(*operation);
                    if operations_max.is_some_and(|max| machine.operations.len() > max) {
                        machine.operations.pop_front();
                    }
                    if at_once {
                        machine.end(at_ms, Ending::AsPlanned, recorded);
                    }
                }
            }
            Record::End { machine, at_ms, ending } => {
                self.latest_ms = self.latest_ms.max(at_ms);
                if let Some(machine) = self.entry(&machine) {
                    machine.end(at_ms, ending, recorded);
                }
            }
            Record::Snapshot { machine, state } => {
                if let Some(machine) = self.entry(&machine) {
                    *machine = *state;
                }
            }
            Record::Counters { latest_ms, started } => {
                self.latest_ms = self.latest_ms.max(latest_ms);
                self.started = self.started.max(started);
            }
        }
    }

    fn entry(&mut self, machine: &str) -> Option<&mut Machine> {
        let id = MachineId::parse(machine).ok()?;
        Some(self.machines.entry(id).or_default())
    }

    pub(super) fn machine(&self, id: &MachineId) -> Option<&Machine> {
        self.machines.get(id)
    }

    /// Machines with an operation whose end has not been recorded.
    pub(super) fn busy_machines(&self) -> Vec<MachineId> {
        let busy = self.machines.iter().filter(|(_, machine)| machine.in_flight().is_some());
        busy.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn rule_used(&self, rule: &str) -> u32 {
        self.rules.get(rule).copied().unwrap_or(0)
    }

    /// Records applied so far.
    pub(super) fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Every remembered operation, in the order in which they began.
    pub(super) fn ledger(&self) -> Vec<LedgerEntry> {
        let mut entries: Vec<_> = self
            .machines
            .iter()
            .flat_map(|(id, machine)| {
                machine.operations.iter().map(|one| (one.order, one.ledger_entry(id)))
            })
            .collect();
        entries.sort_by_key(|(order, _)| *order);
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Records that make this state, with only the latest operations of each machine.
    pub(super) fn snapshot(&self, operations_max: usize) -> Vec<Record> {
        let counters = Record::Counters { latest_ms: self.latest_ms, started: self.started };
        let rules =
            self.rules.iter().map(|(rule, used)| Record::Rule { rule: rule.clone(), used: *used });
        let machines = self.machines.iter().map(|(id, machine)| Record::Snapshot {
            machine: id.to_string(),
            state: Box::new(machine.abridged(operations_max)),
        });
        std::iter::once(counters).chain(rules).chain(machines).collect()
    }
}
