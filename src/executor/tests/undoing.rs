//! The state after a failed run is recorded correctly: no machine that works in its cluster is recorded as one that
//! does not, and disks that are not trusted are not put to use.

use std::path::Path;

use super::harness::{Harness, machine_id, new_run, origin, refusal};
use crate::executor::request::{MachineChanges, Verb};
use crate::executor::{EngineError, Refusal};
use crate::ids::RunId;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::machine::{REASON_MAY_SERVE, REASON_STEP_UNDONE};
use crate::model::{ConditionKind, EntryKind, Run};
use crate::plan::registry::BUILT_IN;
use crate::plan::{Phase as PlanPhase, Plan, Registry, SourceFile, compile_actions, compile_with};
use crate::store::Subject;

/// The plan that `plan new` begins with.
const TEMPLATE: &str = include_str!("../../cli/output/template.toml");

/// A plan that takes a machine out of service and puts it back, as in the docs and in operators' reports.
const MAINTENANCE: &str = r#"
id = "plan/maintenance"
allowed_phases = ["READY", "IN_SERVICE", "MAINTENANCE"]
[[steps]]
name = "drain"
action = "drain"
on_unknown = "retry"
sets = { InCustomerCluster = false }
compensation = { action = "undrain" }
[[steps]]
name = "reboot"
action = "reboot"
on_unknown = "verify"
[[steps]]
name = "undrain"
action = "undrain"
sets = { InCustomerCluster = true }
[[steps]]
name = "verify"
action = "verify"
sets = { Reachable = true, InCustomerCluster = true }
"#;

/// The built-in plans, the template, the plan above, and the examples.
fn plans() -> Vec<Plan> {
    let template = TEMPLATE.replace("{name}", "new-plan").replace("{title}", "New plan");
    let mut texts = vec![template, MAINTENANCE.to_owned()];
    for folder in ["examples/plans", "tests/conformance/plans"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            texts.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/actions");
    let declared: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    let declared: Vec<SourceFile<'_>> =
        declared.iter().map(|bytes| SourceFile { name: "action.toml", bytes }).collect();
    let actions = compile_actions(&declared).unwrap();
    let own = texts.iter().map(|text| {
        let file = SourceFile { name: "plan.toml", bytes: text.as_bytes() };
        compile_with(&[file], &actions).unwrap().remove(0)
    });
    BUILT_IN.iter().cloned().chain(own).collect()
}

fn registry() -> Registry {
    Registry::from_plans(plans()).unwrap()
}

/// An engine whose `machine-1` is in service in its cluster after a first run; `script` applies to the second.
async fn serving(script: &str) -> Harness {
    let mut harness = Harness::new(script).await;
    harness.plans = registry;
    harness.crash().await;
    harness.register(1).await;
    let first = harness.start(1, "plan/repave-join").await.unwrap();
    assert_eq!(harness.finished(first.id).await.phase(), run::Phase::Succeeded);
    harness
}

async fn start_forced(harness: &Harness, plan: &Plan) -> RunId {
    let wanted = [PlanPhase::Ready, PlanPhase::Maintenance];
    if !plan.allowed_phases.contains(&PlanPhase::Ready) {
        assert!(wanted.iter().any(|phase| plan.allowed_phases.contains(phase)), "{}", plan.id);
        harness.set_phase(1, Phase::Maintenance).await.unwrap();
    }
    let required = plan.params.iter().filter(|param| param.required());
    let parameters = required.map(|param| (param.name.to_string(), "0".to_owned())).collect();
    let new = crate::executor::request::NewRun { force: true, parameters, ..new_run(1, &plan.id) };
    harness.engine.start_run(&origin(), new).await.unwrap().id
}

/// Waits until the run has ended. A run that asks for approval is approved, one held for an operator is aborted.
async fn ended(harness: &Harness, id: RunId) -> std::sync::Arc<Run> {
    let stops = |run: &Run| !run.state.is_active() || run.state == run::State::Held;
    loop {
        let run = harness.until(id, stops).await;
        if run.asks() {
            harness.operate(id, YES).await.unwrap();
        } else if run.state == run::State::Held {
            harness.operate(id, Verb::Abort).await.unwrap();
        } else {
            return run;
        }
    }
}

const YES: Verb = Verb::Answer { step: String::new(), yes: true };

async fn is_recorded_truly(harness: &Harness, what: &str) {
    let world = harness.world.machine(&machine_id(1)).unwrap();
    let works = world.cluster.is_some() && !world.cordoned && world.powered;
    let machine = harness.machine(1).await;
    let recorded = machine.conditions.is_true(ConditionKind::InCustomerCluster);
    assert!(recorded || !works, "{what}: {world:?}, {:?}", machine.conditions);
}

const FAULTS: [&str; 4] = ["do=fail-permanent", "do=fail-late", "do=fail-after", "do=hang"];

#[tokio::test(start_paused = true)]
async fn no_machine_that_works_is_recorded_as_one_that_does_not() {
    // After each change in the long form, after every third in the short one, never the same three.
    let stride = if std::env::var("BMDEMO_PROOF").is_ok_and(|form| form == "full") { 1 } else { 3 };
    let (mut cases, mut scripts) = (0, 0);
    for plan in plans() {
        for step in plan.steps.iter() {
            // Nothing fails in a step of the engine itself: only crashes are of interest.
            let faults = if step.action.is_own() { &FAULTS[..1] } else { &FAULTS[..] };
            for &fault in faults {
                // A lost result with an unknown outcome: an operator gives up.
                let blind = if fault == "do=fail-after" {
                    format!("; run=2 step={0} call=observe do=unknowable", step.name)
                } else {
                    String::new()
                };
                let script = format!("run=2 step={} {fault}{blind}", step.name);
                scripts += 1;
                // Once without a crash, then with one after changes of the run.
                let crashes = (1 + scripts % stride..).step_by(stride);
                for crash_after in std::iter::once(0).chain(crashes) {
                    let mut harness = serving(&script).await;
                    let id = start_forced(&harness, &plan).await;
                    let what = format!("{}, {script}, crash after {crash_after}", plan.id);
                    let crashed = crash_after > 0 && crash(&mut harness, id, crash_after).await;
                    ended(&harness, id).await;
                    is_recorded_truly(&harness, &what).await;
                    cases += 1;
                    if crash_after > 0 && !crashed {
                        break;
                    }
                }
            }
        }
    }
    assert!(cases > 1200 / stride, "{cases}");
}

/// Kills the server after `changes` changes of the run; `false` if the run has ended, or is held permanently, before.
async fn crash(harness: &mut Harness, id: RunId, changes: usize) -> bool {
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let run = loop {
        let stops = |run: &Run| {
            seen.borrow_mut().insert(run.revision);
            let enough = seen.borrow().len() >= changes;
            enough || !run.state.is_active() || run.state == run::State::Held
        };
        let run = harness.until(id, stops).await;
        if !run.asks() || seen.borrow().len() >= changes {
            break run;
        }
        harness.operate(id, YES).await.unwrap();
    };
    let alive = run.state.is_active() && (run.state != run::State::Held || run.asks());
    if alive {
        harness.crash().await;
    }
    alive
}

fn plan(id: &str) -> Plan {
    plans().into_iter().find(|plan| plan.id == id).unwrap()
}

async fn in_cluster(harness: &Harness) -> (bool, String) {
    let machine = harness.machine(1).await;
    let condition = machine.conditions.get(ConditionKind::InCustomerCluster).unwrap();
    (condition.status, condition.reason.clone())
}

#[tokio::test(start_paused = true)]
async fn undoing_a_step_takes_back_what_it_set() {
    let harness = serving("run=2 step=reboot do=fail-permanent").await;
    let id = start_forced(&harness, &plan("plan/maintenance")).await;
    let run = harness.finished(id).await;
    assert_eq!(run.steps.iter().last().unwrap().state, State::Succeeded, "undo drain");
    assert_eq!(in_cluster(&harness).await, (true, REASON_STEP_UNDONE.to_owned()));
    let refused = refusal(harness.start(1, "plan/repave-join").await).0;
    assert_eq!(refused, Refusal::EffectiveStateRefused);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_may_serve_again_counts_as_serving() {
    let script = "run=2 step=reboot do=fail-permanent; run=2 step=undo-drain do=fail-after; \
                  run=2 step=undo-drain call=observe do=unknowable; run=2 step=undo-drain call=verify do=fail";
    let mut harness = serving(script).await;
    let id = start_forced(&harness, &plan("plan/maintenance")).await;
    let undoing =
        |run: &Run| run.steps.iter().any(|step| step.compensates.is_some() && step.attempt > 0);
    harness.until(id, undoing).await;
    harness.pass(1).await;
    harness.crash().await;
    // An abort while the machine is being put back in service: whether it is, is unknown.
    harness.operate(id, Verb::Abort).await.unwrap();
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Failed);
    assert_eq!(in_cluster(&harness).await, (true, REASON_MAY_SERVE.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn disks_that_cannot_be_trusted_are_not_offered() {
    let harness = serving("run=2 step=wipe do=fail-late").await;
    let id = start_forced(&harness, &plan("plan/rma")).await;
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Failed);
    let disks = harness.machine(1).await.untrusted_disks.clone().unwrap();
    assert_eq!((disks.run_id, disks.step.as_str()), (id, "wipe"));
    harness.set_phase(1, Phase::Maintenance).await.unwrap();
    let offer = |force: bool, reason: &str| {
        let changes =
            MachineChanges { phase: Some(Phase::Ready), force, ..MachineChanges::default() };
        let origin = crate::executor::request::Origin { reason: reason.to_owned(), ..origin() };
        let engine = harness.engine.clone();
        async move { engine.update_machine(&origin, &machine_id(1), changes).await }
    };
    let (reason, message) = refusal(offer(false, "").await);
    assert_eq!(reason, Refusal::DisksUntrusted);
    assert!(message.contains("step wipe of plan/rma"), "{message}");
    assert!(matches!(offer(true, " ").await, Err(EngineError::Invalid(_))));
    // Another run's success says nothing about them.
    let other = harness.start(1, "plan/reboot").await.unwrap();
    assert_eq!(harness.finished(other.id).await.phase(), run::Phase::Succeeded);
    assert!(harness.machine(1).await.untrusted_disks.is_some());
    offer(true, "disks were replaced").await.unwrap();
    assert!(harness.machine(1).await.untrusted_disks.is_some(), "marked until it is cleared");
    harness.engine.clear_intervention(&origin(), &machine_id(1)).await.unwrap();
    assert!(harness.machine(1).await.untrusted_disks.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_run_of_the_same_kind_makes_disks_trusted_again() {
    let harness = serving("run=2 step=wipe do=fail-late").await;
    let id = start_forced(&harness, &plan("plan/rma")).await;
    harness.finished(id).await;
    let again = start_forced(&harness, &plan("plan/rma")).await;
    assert_eq!(harness.finished(again).await.phase(), run::Phase::Succeeded);
    assert!(harness.machine(1).await.untrusted_disks.is_none());
}

#[tokio::test(start_paused = true)]
async fn history_has_no_change_from_a_status_to_itself() {
    let harness = serving("run=2 step=wipe do=fail-late; run=3 step=wipe do=fail-late").await;
    for _ in 0..2 {
        let id = start_forced(&harness, &plan("plan/rma")).await;
        harness.finished(id).await;
    }
    let rows = harness.store.history(Subject::Machine(machine_id(1)), None, 1_000).await.unwrap();
    let changes: Vec<_> = rows
        .iter()
        .map(|row| &row.entry)
        .filter(|entry| entry.kind == EntryKind::ConditionChanged)
        .collect();
    assert!(changes.iter().any(|entry| entry.from.is_empty()), "{changes:#?}");
    assert!(changes.iter().all(|entry| entry.from.is_empty() || entry.from != entry.to));
}

#[tokio::test(start_paused = true)]
async fn what_calls_depend_on_stays_while_a_run_is_active() {
    let (harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
    let update = |changes| {
        let engine = harness.engine.clone();
        async move { engine.update_machine(&origin(), &machine_id(1), changes).await }
    };
    let bmc = Some("https://bmc-2".to_owned());
    let changes = [
        ("spec.bmc_endpoint", MachineChanges { bmc_endpoint: bmc.clone(), ..Default::default() }),
        (
            "spec.bmc_system_id",
            MachineChanges { bmc_system_id: Some("1".to_owned()), ..Default::default() },
        ),
        (
            "spec.bmc_credentials",
            MachineChanges { bmc_credentials: Some("rack".to_owned()), ..Default::default() },
        ),
        (
            "spec.bmc_certificate_sha256",
            MachineChanges { bmc_certificate_sha256: Some("0".repeat(64)), ..Default::default() },
        ),
        (
            "spec.ssh_endpoint",
            MachineChanges { ssh_endpoint: Some("host:22".to_owned()), ..Default::default() },
        ),
        (
            "spec.mac_addresses",
            MachineChanges {
                mac_addresses: Some(vec!["02:00:00:00:00:09".to_owned()]),
                ..Default::default()
            },
        ),
    ];
    for (field, change) in changes {
        let (reason, message) = refusal(update(change).await);
        assert_eq!(reason, Refusal::RunActive);
        assert!(message.starts_with(field), "{message}");
    }
    // Fields that stay as they are, and fields that no call depends on.
    let serial = MachineChanges {
        bmc_endpoint: Some(String::new()),
        serial: Some("S1".to_owned()),
        ..Default::default()
    };
    update(serial).await.unwrap();
    harness.finished(id).await;
    update(MachineChanges { bmc_endpoint: bmc, ..Default::default() }).await.unwrap();
}

/// A provider that asks for a later retry gets it, even across a restart, and no earlier than the plan's backoff.
#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_to_be_tried_later_is_tried_later() {
    let (mut harness, id) =
        Harness::running("step=reboot do=busy:10m times=1", "plan/reboot").await;
    let backing_off = |run: &Run| matches!(run.steps[0].state, State::BackingOff { .. });
    let asked = harness.until(id, backing_off).await;
    let State::BackingOff { until, .. } = asked.steps[0].state else { unreachable!() };
    assert_eq!(until, super::harness::START.plus_ms(600_000), "the plan pauses for 10 s to 1 m");
    harness.crash().await;
    harness.pass(300_000).await;
    assert_eq!(harness.engine.run(id).await.unwrap().steps[0].attempt, 1);
    let run = harness.finished(id).await;
    assert_eq!((run.phase(), run.steps[0].attempt), (run::Phase::Succeeded, 2));
}
