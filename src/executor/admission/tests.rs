//! Which plan a request selects, and every blocker of a run at once.

use super::*;
use crate::ids::MachineId;
use crate::lifecycle::machine::Phase;
use crate::model::machine::{Condition, REASON_ABORTED};
use crate::model::{ConditionKind, MachineSpec};
use crate::plan::{Capability, SourceFile};

const PLAN: &str = r#"
id = "plan/test"
allowed_phases = ["READY", "FACTORY_READY"]
required_conditions = { Reachable = true, Degraded = false }

[[steps]]
name = "boot"
action = "set-netboot"

[result]
phase = "IN_SERVICE"
"#;

fn machine(phase: Phase) -> Machine {
    let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
    let id = MachineId::parse("machine-1").unwrap();
    let mut machine = Machine::registered(id, BTreeMap::new(), spec, Timestamp(1));
    machine.phase = phase;
    set(&mut machine, ConditionKind::Reachable, true, "PROBE");
    machine
}

fn set(machine: &mut Machine, kind: ConditionKind, status: bool, reason: &str) {
    let condition = Condition {
        status,
        reason: reason.to_owned(),
        message: "a test".to_owned(),
        last_transition_at: Timestamp(1),
        observed_by: "probe".to_owned(),
        plan_id: String::new(),
    };
    machine.conditions.set(kind, condition);
}

fn plan(text: &str) -> Plan {
    let file = SourceFile { name: "test.toml", bytes: text.as_bytes() };
    crate::plan::compile(&[file]).unwrap().remove(0)
}

fn refusals(machine: &Machine, capabilities: Option<&[Capability]>) -> Vec<Refusal> {
    let plan = plan(PLAN);
    let capabilities = capabilities.map(|some| some.iter().copied().collect());
    let found = blockers(&plan, machine, capabilities, Terms::default());
    let refusal = |error| match error {
        EngineError::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    };
    found.into_iter().map(refusal).collect()
}

#[test]
fn a_plan_is_named_by_its_id_or_by_a_type() {
    let registry = Registry::built_in();
    let choose = |run_type: Option<RunType>, plan_id: &str| {
        let new = NewRun {
            machine_id: MachineId::parse("machine-1").unwrap(),
            run_type,
            plan_id: plan_id.to_owned(),
            parameters: BTreeMap::new(),
            force: false,
            plan_digest: String::new(),
        };
        match choose_plan(&registry, &new) {
            Ok(chosen) => chosen.plan.id.to_string(),
            Err(EngineError::Invalid(violations)) => {
                format!("{}: {}", violations[0].field, violations[0].description)
            }
            Err(other) => other.to_string(),
        }
    };
    assert_eq!(choose(None, "plan/reboot"), "plan/reboot");
    assert_eq!(choose(None, "reboot"), "plan/reboot");
    assert_eq!(choose(Some(RunType::Reboot), "reboot"), "plan/reboot");
    assert_eq!(choose(Some(RunType::Repave), ""), "plan/repave-join");
    assert_eq!(choose(None, ""), "plan_id: give a plan_id or a type");
    assert_eq!(
        choose(Some(RunType::Custom), ""),
        "type: CUSTOM has no default plan: give a plan_id"
    );
    assert_eq!(
        choose(Some(RunType::Repave), "reboot"),
        "type: plan/reboot is of type REBOOT, not REPAVE: remove the type or correct it"
    );
    assert!(choose(None, "rebot").contains("rebot"));
}

#[test]
fn a_machine_that_is_as_the_plan_wants_it_is_not_refused() {
    assert_eq!(refusals(&machine(Phase::Ready), Some(&[Capability::Netboot])), []);
}

#[test]
fn each_condition_that_the_plan_requires_must_hold() {
    let mut unreachable = machine(Phase::Ready);
    set(&mut unreachable, ConditionKind::Reachable, false, "PROBE");
    assert_eq!(refusals(&unreachable, Some(&[Capability::Netboot])), [Refusal::ConditionNotMet]);
    set(&mut unreachable, ConditionKind::Degraded, true, "FAN");
    assert_eq!(refusals(&unreachable, Some(&[Capability::Netboot])), [Refusal::ConditionNotMet; 2]);
    // Never observed: not known to be reachable, and not known to be degraded.
    let mut unknown = machine(Phase::Ready);
    unknown.conditions = Default::default();
    assert_eq!(refusals(&unknown, Some(&[Capability::Netboot])), [Refusal::ConditionNotMet]);
}

#[test]
fn a_result_that_the_machine_cannot_reach_is_refused_before_anything_is_done() {
    assert_eq!(
        refusals(&machine(Phase::FactoryReady), Some(&[Capability::Netboot])),
        [Refusal::PhaseNotAllowed]
    );
}

#[test]
fn every_reason_is_named_the_most_important_first() {
    let mut worst = machine(Phase::Retired);
    worst.active_run = Some(RunId::new(Timestamp(1), [1, 0]));
    worst.conditions = Default::default();
    set(&mut worst, ConditionKind::NeedsIntervention, true, REASON_ABORTED);
    assert_eq!(
        refusals(&worst, Some(&[])),
        [
            Refusal::RunActive,
            Refusal::InterventionNeeded,
            Refusal::PhaseNotAllowed,
            Refusal::ConditionNotMet,
            Refusal::PhaseNotAllowed,
            Refusal::CapabilityMissing,
        ]
    );
    assert_eq!(refusals(&machine(Phase::Ready), None), [Refusal::ProviderMissing]);
}

#[test]
fn the_way_to_a_phase_that_is_allowed_is_one_that_exists() {
    use crate::plan::Phase as Allowed;
    for (from, allowed, hint) in [
        (Phase::Maintenance, &[Allowed::Ready][..], "set the phase of the machine to READY first"),
        (
            Phase::Rma,
            &[Allowed::Ready, Allowed::FactoryReady],
            "set the phase of the machine to FACTORY_READY first",
        ),
        (
            Phase::Rma,
            &[Allowed::Ready],
            "from RMA a machine can only be set to FACTORY_READY or RETIRED",
        ),
        (Phase::Retired, &[Allowed::Ready], "a machine in RETIRED stays in it"),
    ] {
        assert_eq!(phase_hint(from, allowed), hint);
    }
}

/// What the steps of a plan change need not be as it was before them, when a run is repeated.
#[test]
fn a_retry_does_not_need_what_its_run_has_changed() {
    let plan = plan(&PLAN.replace("Degraded = false", "InCustomerCluster = true").replace(
        "action = \"set-netboot\"",
        "action = \"set-netboot\"\nsets = { InCustomerCluster = false }",
    ));
    let machine = machine(Phase::Ready);
    let can = || Some([Capability::Netboot].into_iter().collect());
    let count = |terms| blockers(&plan, &machine, can(), terms).len();
    assert_eq!(count(Terms::default()), 1);
    assert_eq!(count(Terms { is_retry: true, ..Terms::default() }), 0);
    let mut unreachable = machine.clone();
    set(&mut unreachable, ConditionKind::Reachable, false, "PROBE");
    let terms = Terms { is_retry: true, ..Terms::default() };
    assert_eq!(blockers(&plan, &unreachable, can(), terms).len(), 1, "no step changes that");
}

/// The hint for a machine that serves is the way around its protection, not the way out of it.
#[test]
fn who_would_image_a_serving_machine_is_shown_the_plan_that_drains_it() {
    let registry = Registry::built_in();
    let repave = &registry.get("plan/repave-join").unwrap().plan;
    let found = blockers(repave, &machine(Phase::InService), None, Terms::default());
    let Some(EngineError::Refused { refusal: Refusal::PhaseNotAllowed, hint, .. }) = found.first()
    else {
        panic!("{found:?}");
    };
    assert!(hint.starts_with("use plan/upgrade"), "{hint}");
}

/// Force overrides the effective state only: where the phase refuses too, no hint offers it.
#[test]
fn force_is_offered_where_it_helps() {
    let repave = Registry::built_in().get("plan/repave-join").unwrap().plan.clone();
    let said = |plan: &Plan, machine: &Machine, force: bool| -> Vec<String> {
        let can = Some(Capability::ALL.iter().copied().collect());
        let found = blockers(plan, machine, can, Terms { force, is_retry: false });
        let hint = |error| match error {
            EngineError::Refused { hint, .. } => hint,
            other => panic!("{other:?}"),
        };
        found.into_iter().map(hint).collect()
    };
    let instead =
        "use plan/upgrade, which drains the machine first; or set the phase to MAINTENANCE";
    let in_phase = machine(Phase::InService);
    assert_eq!(said(&repave, &in_phase, false), [instead, instead]);
    assert_eq!(said(&repave, &in_phase, true), [instead], "force does not help");
    let mut in_effect = machine(Phase::Ready);
    set(&mut in_effect, ConditionKind::InCustomerCluster, true, "JOINED");
    let hints = said(&repave, &in_effect, false);
    assert!(hints.len() == 1 && hints[0].contains("`force`"), "{hints:?}");
    assert!(said(&repave, &in_effect, true).is_empty());
    // A plan that knows nothing else than force: the phase says what helps.
    let mut only_force = Plan::clone(&repave);
    only_force.refused_hint = Some("say --force with a reason".into());
    assert_eq!(
        said(&only_force, &in_phase, true),
        [phase_hint(Phase::InService, &only_force.allowed_phases)]
    );
}

#[test]
fn a_blocked_machine_is_cleared_by_the_command_that_is_named() {
    let mut blocked = machine(Phase::Ready);
    set(&mut blocked, ConditionKind::NeedsIntervention, true, REASON_ABORTED);
    let found = blockers(&plan(PLAN), &blocked, None, Terms::default());
    let Some(EngineError::Refused { hint, .. }) = found.first() else { panic!("{found:?}") };
    assert!(
        hint.ends_with("machine clear-intervention machine-1 --reason \"what you found\""),
        "{hint}"
    );
}
