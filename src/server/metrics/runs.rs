//! Runs and steps, counted as their history is committed.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::seconds::{Seconds, seconds};
use crate::clock::Timestamp;
use crate::model::{Entry, EntryKind, Run};
use crate::store::{Committed, Listener};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    plan: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    plan: String,
    r#type: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    plan: String,
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepEndLabels {
    plan: String,
    step: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HoldLabels {
    reason: String,
}

/// Counters of runs and steps.
#[derive(Debug)]
pub(super) struct Runs {
    created: Family<PlanLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    run_seconds: Seconds<EndLabels>,
    queued_seconds: Seconds<PlanLabels>,
    held: Family<HoldLabels, Counter>,
    attempts: Family<StepLabels, Counter>,
    unknown: Family<StepLabels, Counter>,
    exhausted: Family<StepLabels, Counter>,
    steps_ended: Family<StepEndLabels, Counter>,
    step_seconds: Seconds<StepEndLabels>,
}

impl Runs {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let runs = Self {
            created: Family::default(),
            ended: Family::default(),
            run_seconds: Family::new_with_constructor(seconds),
            queued_seconds: Family::new_with_constructor(seconds),
            held: Family::default(),
            attempts: Family::default(),
            unknown: Family::default(),
            exhausted: Family::default(),
            steps_ended: Family::default(),
            step_seconds: Family::new_with_constructor(seconds),
        };
        registry.register("runs_created", "Runs accepted", runs.created.clone());
        registry.register("runs_ended", "Runs that ended, by outcome", runs.ended.clone());
        registry.register("runs_held", "Times that a run was held, by reason", runs.held.clone());
        let help = "Time from the acceptance of a run to its end";
        registry.register_with_unit("run_duration", help, Unit::Seconds, runs.run_seconds.clone());
        let help = "Time from the acceptance of a run to its start";
        registry.register_with_unit("run_queued", help, Unit::Seconds, runs.queued_seconds.clone());
        registry.register(
            "step_attempts",
            "Attempts of steps that were opened",
            runs.attempts.clone(),
        );
        let help = "Attempts whose outcome became unknown";
        registry.register("step_outcomes_unknown", help, runs.unknown.clone());
        let help = "Steps that failed after more than one attempt";
        registry.register("step_retries_exhausted", help, runs.exhausted.clone());
        registry.register("steps_ended", "Steps that ended, by outcome", runs.steps_ended.clone());
        let help = "Time from the first attempt of a step until it ended";
        registry.register_with_unit(
            "step_duration",
            help,
            Unit::Seconds,
            runs.step_seconds.clone(),
        );
        runs
    }

    fn count(&self, run: &Run, entry: &Entry, at: Timestamp) {
        match entry.kind {
            EntryKind::RunCreated => {
                self.created.get_or_create(&of_plan(run)).inc();
            }
            EntryKind::RunStarted => {
                let queued = run.started_at.unwrap_or(at).since(run.created_at);
                observe(&self.queued_seconds, &of_plan(run), queued);
            }
            EntryKind::RunHeld => {
                let reason = run.hold.as_ref().map_or("", |hold| hold.reason.as_str()).to_owned();
                self.held.get_or_create(&HoldLabels { reason }).inc();
            }
            EntryKind::RunSucceeded => self.run_ended(run, "succeeded", at),
            EntryKind::RunFailed => self.run_ended(run, "failed", at),
            EntryKind::RunCanceled => self.run_ended(run, "canceled", at),
            EntryKind::RunAborted => self.run_ended(run, "aborted", at),
            EntryKind::StepStarted => {
                self.attempts.get_or_create(&of_step(run, entry)).inc();
            }
            EntryKind::StepOutcomeUnknown => {
                self.unknown.get_or_create(&of_step(run, entry)).inc();
            }
            EntryKind::StepSucceeded => self.step_ended(run, entry, "succeeded", at),
            EntryKind::StepFailed => self.step_ended(run, entry, "failed", at),
            EntryKind::StepSkipped => self.step_ended(run, entry, "skipped", at),
            EntryKind::StepCanceled => self.step_ended(run, entry, "canceled", at),
            EntryKind::MachineRegistered
            | EntryKind::MachineUpdated
            | EntryKind::PhaseChanged
            | EntryKind::ConditionChanged
            | EntryKind::InterventionCleared
            | EntryKind::MachineDeleted
            | EntryKind::RunPauseRequested
            | EntryKind::RunResumed
            | EntryKind::RunCancelRequested
            | EntryKind::RunUnwinding
            | EntryKind::RunClosing
            | EntryKind::RunTimeUp
            | EntryKind::RunRecovered
            | EntryKind::StepRetrying
            | EntryKind::StepAccepted
            | EntryKind::StepAnswered
            | EntryKind::StepResolved => {}
        }
    }

    fn run_ended(&self, run: &Run, outcome: &'static str, at: Timestamp) {
        let PlanLabels { plan, r#type } = of_plan(run);
        let labels = EndLabels { plan, r#type, outcome };
        self.ended.get_or_create(&labels).inc();
        observe(&self.run_seconds, &labels, run.finished_at.unwrap_or(at).since(run.created_at));
    }

    fn step_ended(&self, run: &Run, entry: &Entry, outcome: &'static str, at: Timestamp) {
        let StepLabels { plan, step } = of_step(run, entry);
        let record = run.steps.iter().find(|record| record.name == step);
        if let Some(record) = record {
            if outcome == "failed" && record.attempt > 1 {
                self.exhausted.get_or_create(&of_step(run, entry)).inc();
            }
            if let Some(started_at) = record.started_at {
                let labels = StepEndLabels { plan: plan.clone(), step: step.clone(), outcome };
                let took = record.finished_at.unwrap_or(at).since(started_at);
                observe(&self.step_seconds, &labels, took);
            }
        }
        self.steps_ended.get_or_create(&StepEndLabels { plan, step, outcome }).inc();
    }
}

fn of_plan(run: &Run) -> PlanLabels {
    PlanLabels { plan: run.spec.plan_id.clone(), r#type: run.spec.run_type.as_str() }
}

fn of_step(run: &Run, entry: &Entry) -> StepLabels {
    StepLabels { plan: run.spec.plan_id.clone(), step: entry.step.clone() }
}

fn observe<L: Clone + std::hash::Hash + Eq>(family: &Seconds<L>, labels: &L, took: Duration) {
    family.get_or_create(labels).observe(took.as_secs_f64());
}

impl Listener for Runs {
    fn committed(&self, committed: &Arc<Committed>) {
        for change in &committed.changes {
            if let Some(run) = change.after::<Run>() {
                for entry in change.entries.iter() {
                    self.count(run, entry, change.at);
                }
            }
        }
    }
}
