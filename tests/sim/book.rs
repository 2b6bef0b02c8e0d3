//! Facts: what the store, the wire and the world have shown so far, in one order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bmdemo::ids::{Epoch, MachineId, Revision, RunId};
use bmdemo::lifecycle::run::{Phase, State};
use bmdemo::model::{Change, EntryKind, Machine, Run, StepRecord};
use bmdemo::plan::OnUnknown;

use crate::gate::Incarnation;
use crate::oracle::Look;
use crate::plans::known;

/// An epoch claimed by an incarnation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) epoch: Epoch,
    pub(crate) by: Incarnation,
}

/// A durable intent to act.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intent {
    pub(crate) revision: Revision,
    pub(crate) epoch: Epoch,
}

/// An operation that started in the world.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) sequence: u64,
    pub(crate) operation: String,
}

/// The result of an observation or a check of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    pub(crate) sequence: u64,
    pub(crate) look: Look,
}

/// An object in the feed of changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Machine(MachineId),
    Run(MachineId, RunId),
}

/// Everything known.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) sequence: u64,
    pub(crate) head: Revision,
    pub(crate) machines: BTreeMap<MachineId, Arc<Machine>>,
    pub(crate) runs: BTreeMap<RunId, Arc<Run>>,
    /// Runs that own each machine.
    pub(crate) active: BTreeMap<MachineId, BTreeSet<RunId>>,
    /// Runs that wait for a slot, and the commit that made them wait.
    pub(crate) queued: BTreeMap<RunId, Revision>,
    /// Every run as it was when it ended.
    pub(crate) ended: BTreeMap<RunId, Arc<Run>>,
    pub(crate) claims: BTreeMap<MachineId, Claim>,
    pub(crate) intents: BTreeMap<String, Intent>,
    pub(crate) feed: Vec<(Revision, Object)>,
    /// The changes among these of runs that were running before or after.
    pub(crate) running: Vec<(Revision, Object)>,
    /// How often each operation's action was sent.
    pub(crate) acts_sent: BTreeMap<String, u32>,
    pub(crate) looks: BTreeMap<String, Vec<Looked>>,
    /// Newest epoch under which each machine was read.
    pub(crate) read_under: BTreeMap<MachineId, Epoch>,
    /// Started operations, by run and step.
    pub(crate) begun: BTreeMap<(String, String), Vec<Begun>>,
    /// When an operator last resolved a step.
    pub(crate) resolved: BTreeMap<(String, String), u64>,
    /// Steps whose action had been sent when a cancel of their run was acknowledged.
    pub(crate) canceled: BTreeMap<RunId, BTreeSet<String>>,
    /// Everything is stopped: it was acknowledged, and no one has asked to resume.
    pub(crate) is_stopped: bool,
    /// Failures in a row of plans that destroy data, by digest.
    pub(crate) failures: BTreeMap<String, u32>,
    /// Runs that an operator aborted.
    pub(crate) aborted: BTreeSet<RunId>,
}

/// Run, step and attempt of an operation id.
pub(crate) fn parts(operation: &str) -> (String, String, u32) {
    let (run, rest) = operation.split_once('/').expect("run/step/attempt");
    let (step, attempt) = rest.rsplit_once('/').expect("run/step/attempt");
    (run.to_owned(), step.to_owned(), attempt.parse().expect("an attempt"))
}

/// The name of a step in operation ids.
pub(crate) fn in_operation(step: &str) -> String {
    step.replace(' ', "-")
}

impl Book {
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The run and the step that an operation belongs to, as they are stored.
    pub(crate) fn step_of(&self, operation: &str) -> Option<(&Arc<Run>, &StepRecord)> {
        let (run, step, _) = parts(operation);
        let run = self.runs.get(&RunId::parse(&run).ok()?)?;
        let record = run.steps.iter().find(|record| in_operation(&record.name) == step)?;
        Some((run, record))
    }

    /// The rule for an unknown outcome of an operation, from the plan as written.
    pub(crate) fn rule(&self, operation: &str) -> Option<OnUnknown> {
        let (run, record) = self.step_of(operation)?;
        let plan = &known().get(&run.spec.plan_id)?.plan;
        match record.compensates {
            None => plan.step(&record.name).map(|step| step.on_unknown),
            Some(undone) => {
                let undo = plan.steps.get(undone)?.compensation.as_ref()?;
                Some(if undo.action.traits.idempotent {
                    OnUnknown::Retry
                } else {
                    OnUnknown::Verify
                })
            }
        }
    }

    /// Adds a commit.
    pub(crate) fn fold(&mut self, by: Incarnation, revision: Revision, changes: &[Change]) {
        self.head = revision;
        // Machines first: the epoch of an intent is that of the machine after the commit.
        for change in changes {
            if let Some(images) = change.images::<Machine>() {
                match (&images.before, &images.after) {
                    (_, Some(machine)) => self.fold_machine(by, machine),
                    (Some(machine), None) => {
                        self.machines.remove(&machine.id);
                    }
                    (None, None) => {}
                }
                let machine = images.last().map(|machine| machine.id.clone());
                self.feed.extend(machine.map(|id| (revision, Object::Machine(id))));
            }
            if let Some(run) = change.after::<Run>() {
                let object = Object::Run(run.machine_id.clone(), run.id);
                let before = self.runs.get(&run.id).map(|run| run.phase());
                if [before, Some(run.phase())].contains(&Some(Phase::Running)) {
                    self.running.push((revision, object.clone()));
                }
                self.feed.push((revision, object));
            }
        }
        for change in changes {
            if let Some(run) = change.after::<Run>() {
                self.fold_run(revision, run, &change.entries);
            }
        }
    }

    fn fold_machine(&mut self, by: Incarnation, machine: &Arc<Machine>) {
        let before = self.machines.insert(machine.id.clone(), machine.clone());
        if before.is_none_or(|before| before.epoch != machine.epoch) {
            let claim = Claim { epoch: machine.epoch, by };
            self.claims.insert(machine.id.clone(), claim);
        }
    }

    fn fold_run(&mut self, revision: Revision, run: &Arc<Run>, entries: &[bmdemo::model::Entry]) {
        let sequence = self.next();
        let epoch = self.machines.get(&run.machine_id).map_or(Epoch(0), |machine| machine.epoch);
        for entry in entries {
            let step = (run.id.to_string(), in_operation(&entry.step));
            if entry.kind == EntryKind::StepStarted {
                let record = run.steps.iter().find(|record| record.name == entry.step);
                if let Some(operation) = record.and_then(|record| record.operation.as_ref()) {
                    self.intents.insert(operation.to_string(), Intent { revision, epoch });
                }
            }
            if entry.kind == EntryKind::StepResolved {
                self.resolved.insert(step, sequence);
            }
            if entry.kind == EntryKind::RunAborted {
                self.aborted.insert(run.id);
            }
        }
        if matches!(run.state, State::Pending | State::Resuming) {
            self.queued.entry(run.id).or_insert(revision);
        } else {
            self.queued.remove(&run.id);
        }
        let owners = self.active.entry(run.machine_id.clone()).or_default();
        if run.state.is_active() {
            owners.insert(run.id);
        } else {
            owners.remove(&run.id);
            self.ended.entry(run.id).or_insert_with(|| run.clone());
        }
        self.runs.insert(run.id, run.clone());
    }
}
