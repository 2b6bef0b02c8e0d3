//! The state of the simulated world, and the records that change it.
//!
//! Every change is a [`Record`] given to [`State::apply`], which is all that replaying the journal does: what is read
//! back after a crash is what was there before it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::effect::Effect;
use super::ledger::{LedgerEntry, Outcome};
use crate::clock::Timestamp;
use crate::ids::{Epoch, MachineId, OperationId};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{ErrorCode, ProviderError, ProviderErrorKind};

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
    /// A run that was not known touched the machine.
    Run { machine: String, run: String },
    /// A rule of the script has been used this often.
    Rule { rule: String, used: u32 },
    /// An operation began; one that ends at once has ended.
    Start { machine: String, operation: Box<Operation> },
    /// The operation in flight ended.
    End { machine: String, at_ms: u64, ending: Ending },
    /// Everything about a machine, when the journal was written anew.
    Snapshot { machine: String, state: Box<Machine> },
    /// World time and counters, when the journal was written anew.
    Counters { latest_ms: u64, started: u64 },
}

/// How an operation is going to end, decided when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Planned {
    /// It takes effect.
    Effect,
    /// It says so, and it is not so.
    Lie,
    /// It fails without effect.
    Failure(Box<Failure>),
}

/// A failure of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    class: String,
    /// Empty in a journal of before there were codes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    code: String,
    message: String,
    expected: String,
    observed: String,
}

impl Failure {
    pub(super) fn of(error: &ProviderError) -> Self {
        let class = match error.kind {
            ProviderErrorKind::Class(class) => class,
            ProviderErrorKind::Fenced { .. } => ErrorClass::Permanent,
        };
        Self {
            class: class.as_str().to_owned(),
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            expected: error.expected.clone(),
            observed: error.observed.clone(),
        }
    }

    pub(super) fn class(&self) -> ErrorClass {
        let known = ErrorClass::ALL.into_iter().find(|class| class.as_str() == self.class);
        // A class that this version does not know is for a person to look at.
        known.unwrap_or(ErrorClass::NeedsHuman)
    }

    pub(super) fn error(&self) -> ProviderError {
        let code = ErrorCode::parse(&self.code).unwrap_or(ErrorCode::Failed);
        ProviderError::new(self.class(), code, &self.message).seen(&self.expected, &self.observed)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// As planned.
    AsPlanned,
    /// It was told to stop before it took effect.
    Stopped,
}

/// One operation on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    /// The how-manieth operation of the machine.
    pub(super) number: u64,
    pub(super) action: Action,
    pub(super) epoch: u64,
    pub(super) started_at_ms: u64,
    pub(super) until_ms: u64,
    pub(super) planned: Planned,
    pub(super) effect: Effect,
    /// Epoch in force at the machine when it began; set when the record is applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) fence: u64,
    /// Order of beginning in the whole world; set when the record is applied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) order: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<(u64, Ending)>,
    /// Number of the record that last changed it, to tell whether that is durable.
    #[serde(skip)]
    pub(super) recorded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Operation {
    pub(super) fn handle(&self) -> String {
        format!("fake-{}", self.number)
    }

    fn ledger_entry(&self, machine: &MachineId) -> LedgerEntry {
        let outcome = match (&self.ended, &self.planned) {
            (None, _) => Outcome::Running { until: Timestamp(self.until_ms) },
            (Some((_, Ending::Stopped)), _) => Outcome::Stopped,
            (Some((_, Ending::AsPlanned)), Planned::Effect) => Outcome::Done,
            (Some((_, Ending::AsPlanned)), Planned::Lie) => Outcome::Lied,
            (Some((_, Ending::AsPlanned)), Planned::Failure(_)) => Outcome::Failed,
        };
        LedgerEntry {
            machine: machine.clone(),
            operation: OperationId::from_stored(&self.id),
            action: self.action.as_str().to_owned(),
            epoch: Epoch(self.epoch),
            fence: Epoch(self.fence),
            started_at: Timestamp(self.started_at_ms),
            finished_at: self.ended.map(|(at_ms, _)| Timestamp(at_ms)),
            outcome,
        }
    }
}

/// What the cluster knows of join material; the secret itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinMaterial {
    pub(super) handle: String,
    pub(super) minted_by: String,
    pub(super) fingerprint: String,
    pub(super) expires_at_ms: u64,
}

/// One machine, as it really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) fence: u64,
    pub(super) powered: bool,
    pub(super) boots: u64,
    /// What the next boot, and only that, starts from.
    pub(super) boot_override: Option<String>,
    pub(super) image: Option<String>,
    pub(super) wiped: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) cordoned: bool,
    pub(super) net_profile: String,
    pub(super) net_profile_before: Option<String>,
    pub(super) notices: u64,
    pub(super) join_materials: Vec<JoinMaterial>,
    /// The operation that last took effect, by action.
    pub(super) last: BTreeMap<Action, String>,
    pub(super) runs: u32,
    pub(super) recent_runs: VecDeque<(String, u32)>,
    pub(super) operations_started: u64,
    /// Oldest first; only the last one can be in flight.
    pub(super) operations: VecDeque<Operation>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            fence: 0,
            powered: true,
            boots: 0,
            boot_override: None,
            image: None,
            wiped: None,
            cluster: None,
            cordoned: false,
            net_profile: "factory".to_owned(),
            net_profile_before: None,
            notices: 0,
            join_materials: Vec::new(),
            last: BTreeMap::new(),
            runs: 0,
            recent_runs: VecDeque::new(),
            operations_started: 0,
            operations: VecDeque::new(),
        }
    }
}

impl Machine {
    pub(super) fn boot(&mut self) {
        self.powered = true;
        self.boots += 1;
        self.boot_override = None;
    }

    pub(super) fn join_material(&self, handle: &str) -> Option<&JoinMaterial> {
        self.join_materials.iter().rev().find(|material| material.handle == handle)
    }

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
            effect.apply(self, &id, at_ms);
            self.last.insert(action, id);
        }
    }

    /// The same machine without all but its latest operations.
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
    /// Most operations remembered of a machine; `None` for all.
    operations_max: Option<usize>,
    machines: BTreeMap<MachineId, Machine>,
    rules: BTreeMap<String, u32>,
    started: u64,
    recorded: u64,
    /// Latest time that was seen: world time never goes back.
    pub(super) latest_ms: u64,
}

impl State {
    /// A world in which nothing has happened, which forgets all but the latest operations of each machine.
    pub(super) fn bounded(operations_max: usize) -> Self {
        Self { operations_max: Some(operations_max.max(1)), ..Self::default() }
    }

    /// Carries out a record. One about a machine whose name is no id is skipped: nobody can ask for it.
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
