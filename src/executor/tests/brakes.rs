//! Stops, locks and pauses of plans: nothing begins while they are in force, nothing fails for it, and everything
//! continues afterwards.

use super::harness::{Harness, PLANS, machine_id, new_run, origin, refusal};
use crate::clock::Clock;
use crate::executor::request::{HeldBack, MachineChanges, Verb, WaitReason};
use crate::executor::waiting::waiting;
use crate::executor::{EngineError, Limits, Refusal};
use crate::ids::RunId;
use crate::lifecycle::run;
use crate::model::LockTarget;
use crate::plan::registry::BUILT_IN;
use crate::plan::{Registry, SourceFile, compile};
use crate::provider::fake::Timing;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Operations that have begun in the world.
fn begun(harness: &Harness) -> usize {
    harness.ledger().len()
}

async fn wait_reason(harness: &Harness, run: RunId) -> Option<WaitReason> {
    let run = harness.engine.run(run).await.unwrap();
    let held_back = harness.engine.held_back(&run);
    waiting(&run, held_back.as_ref()).map(|waiting| waiting.reason)
}

fn machines(rack: &str) -> LockTarget {
    LockTarget::Machines([("rack".to_owned(), rack.to_owned())].into())
}

/// Stops a run of each plan after each of many times, with and without a crash: nothing begins in an hour, and then it
/// ends as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn nothing_begins_while_everything_is_stopped() {
    for plan in PLANS {
        for after_ms in (0..400_000).step_by(20_000) {
            let (mut harness, run) = Harness::running("", plan).await;
            harness.pass(after_ms).await;
            if !harness.engine.run(run).await.unwrap().state.is_active() {
                break;
            }
            harness.engine.stop_all(&origin()).await.unwrap();
            let before = begun(&harness);
            if after_ms % 40_000 == 0 {
                harness.crash().await;
            }
            harness.pass(HOUR_MS).await;
            assert_eq!(begun(&harness), before, "{plan} after {after_ms} ms");
            let waits = harness.engine.run(run).await.unwrap();
            if waits.state.is_active() {
                assert_eq!(wait_reason(&harness, run).await, Some(WaitReason::Stopped), "{plan}");
                assert_eq!(harness.engine.held_runs(), 1);
            }
            if after_ms % 60_000 == 0 {
                harness.crash().await;
                harness.pass(HOUR_MS).await;
                assert_eq!(begun(&harness), before, "{plan} after {after_ms} ms and a crash");
            }
            harness.engine.resume_all(&origin()).await.unwrap();
            let ended = harness.finished(run).await;
            assert_eq!(ended.phase(), run::Phase::Succeeded, "{plan} after {after_ms} ms");
            harness.nothing_was_repeated();
            assert_eq!(harness.engine.held_runs(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_run_is_started_while_everything_is_stopped() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    let stop = harness.engine.stop_all(&origin()).await.unwrap();
    let again = harness.engine.stop_all(&origin()).await.unwrap();
    assert_eq!(again, stop, "who comes second learns of the first");
    let (why, message) = refusal(harness.start(1, "plan/reboot").await);
    assert_eq!(why, Refusal::Stopped);
    assert_eq!(message, "everything is stopped by tester: a test");
    // A dry run says what the run would do all the same.
    let (_, _, blockers) =
        harness.engine.dry_run(&origin(), &new_run(1, "plan/reboot")).await.unwrap();
    assert!(blockers.is_empty(), "{blockers:?}");
    let lifted = harness.engine.resume_all(&origin()).await.unwrap();
    assert_eq!(lifted.id, stop.id);
    assert!(matches!(
        harness.engine.resume_all(&origin()).await,
        Err(EngineError::NotFound { kind: "lock", .. })
    ));
    let run = harness.start(1, "plan/reboot").await.unwrap().id;
    harness.finished(run).await;
}

/// What an operator decides while everything is stopped is recorded: a cancel ends a run that has sent nothing, a
/// pause and an approval take effect.
#[tokio::test(start_paused = true)]
async fn operators_act_while_everything_is_stopped() {
    let (harness, run) = Harness::at_step("", "plan/repave-join", 0).await;
    harness.engine.stop_all(&origin()).await.unwrap();
    harness.pass(HOUR_MS).await;
    assert_eq!(wait_reason(&harness, run).await, Some(WaitReason::Stopped));
    harness.operate(run, Verb::Cancel).await.unwrap();
    harness.pass(HOUR_MS).await;
    let before = begun(&harness);
    harness.engine.resume_all(&origin()).await.unwrap();
    let ended = harness.finished(run).await;
    assert_eq!(ended.phase(), run::Phase::Canceled);
    // What the plan undoes after a cancel waited, too.
    assert!(begun(&harness) >= before);
}

/// A retry that is due, and an attempt whose time passes, wait like everything else.
#[tokio::test(start_paused = true)]
async fn a_retry_waits_and_no_attempt_times_out_for_it() {
    let script = "step=repave do=fail times=1";
    let (harness, run) = Harness::running(script, "plan/repave-join").await;
    let backs_off = |run: &crate::model::Run| {
        run.steps
            .iter()
            .any(|step| matches!(step.state, crate::lifecycle::step::State::BackingOff { .. }))
    };
    harness.until(run, backs_off).await;
    harness.engine.stop_all(&origin()).await.unwrap();
    let before = begun(&harness);
    harness.pass(24 * HOUR_MS).await;
    assert_eq!(begun(&harness), before);
    assert_eq!(wait_reason(&harness, run).await, Some(WaitReason::Stopped));
    harness.engine.resume_all(&origin()).await.unwrap();
    assert_eq!(harness.finished(run).await.phase(), run::Phase::Succeeded);
}

const LIMITED: &str = r#"
id = "plan/limited"
allowed_phases = ["FACTORY_READY", "READY"]
time_limit = "20m"

[[steps]]
name = "one"
action = "reboot"
on_unknown = "verify"

[[steps]]
name = "two"
action = "reboot"
on_unknown = "verify"
"#;

fn limited() -> Registry {
    let own = compile(&[SourceFile { name: "limited.toml", bytes: LIMITED.as_bytes() }]).unwrap();
    Registry::from_plans(BUILT_IN.iter().cloned().chain(own).collect()).unwrap()
}

/// The time limit of a run leaves out how long it was held back, also after a crash.
#[tokio::test(start_paused = true)]
async fn the_time_limit_leaves_a_stop_out() {
    for crash in [false, true] {
        let mut harness = Harness::new("").await;
        harness.plans = limited;
        harness.crash().await;
        harness.register(1).await;
        let run = harness.start(1, "plan/limited").await.unwrap().id;
        harness.pass(1_000).await;
        harness.engine.stop_all(&origin()).await.unwrap();
        harness.pass(5 * HOUR_MS).await;
        if crash {
            harness.crash().await;
        }
        harness.pass(5 * HOUR_MS).await;
        harness.engine.resume_all(&origin()).await.unwrap();
        if crash {
            harness.crash().await;
        }
        let ended = harness.finished(run).await;
        assert_eq!(ended.phase(), run::Phase::Succeeded, "{:?}", ended.error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_holds_back_the_machines_with_its_labels_alone() {
    let harness = Harness::new("").await;
    harness.register(2).await;
    let odd = harness.start(1, "plan/reboot").await.unwrap().id;
    let even = harness.start(2, "plan/reboot").await.unwrap().id;
    let until = harness.clock.now().plus_ms(2 * HOUR_MS);
    harness.engine.set_lock(&origin(), machines("odd"), Some(until)).await.unwrap();
    assert_eq!(harness.finished(even).await.phase(), run::Phase::Succeeded);
    harness.pass(HOUR_MS).await;
    let run = harness.engine.run(odd).await.unwrap();
    if run.state.is_active() {
        assert_eq!(wait_reason(&harness, odd).await, Some(WaitReason::Locked));
    }
    let other = harness.start(2, "plan/reboot").await.unwrap().id;
    harness.finished(other).await;
    // It ends by itself.
    harness.pass(HOUR_MS).await;
    assert_eq!(harness.finished(odd).await.phase(), run::Phase::Succeeded);
    assert!(harness.engine.locks().is_empty());
    // One without an end is lifted by its id.
    let lock = harness.engine.set_lock(&origin(), machines("odd"), None).await.unwrap();
    let (why, _) = refusal(harness.start(1, "plan/reboot").await);
    assert_eq!(why, Refusal::MachineLocked);
    let (_, _, blockers) =
        harness.engine.dry_run(&origin(), &new_run(1, "plan/reboot")).await.unwrap();
    assert_eq!(blockers.len(), 1);
    // Other labels do not take a machine out of it; labels that the lock does not name are free.
    let one = machine_id(1);
    let edit = |key: &str, value: Option<&str>| MachineChanges {
        label_edits: [(key.to_owned(), value.map(str::to_owned))].into(),
        ..MachineChanges::default()
    };
    for changes in [edit("rack", Some("even")), edit("rack", None)] {
        let (why, said) =
            refusal(harness.engine.update_machine(&origin(), &one, changes.clone()).await);
        assert_eq!(why, Refusal::MachineLocked);
        assert!(said.contains(&lock.id), "{said}");
        let (why, _) = refusal(harness.engine.would_update(&origin(), &one, &changes).await);
        assert_eq!(why, Refusal::MachineLocked);
    }
    harness.engine.update_machine(&origin(), &one, edit("note", Some("x"))).await.unwrap();
    harness.engine.lift_lock(&origin(), &lock.id).await.unwrap();
    harness.engine.update_machine(&origin(), &one, edit("rack", Some("odd"))).await.unwrap();
    let run = harness.start(1, "plan/reboot").await.unwrap().id;
    harness.finished(run).await;
}

/// The same request id gives the same answer; another request with it is refused.
#[tokio::test(start_paused = true)]
async fn locks_are_idempotent() {
    let harness = Harness::new("").await;
    let asked = crate::executor::request::Origin {
        request_id: "once".to_owned(),
        body_digest: "00".to_owned(),
        ..origin()
    };
    let first = harness.engine.set_lock(&asked, machines("odd"), None).await.unwrap();
    let again = harness.engine.set_lock(&asked, machines("odd"), None).await.unwrap();
    assert_eq!(first, again);
    let other = crate::executor::request::Origin { body_digest: "01".to_owned(), ..asked };
    let refused = harness.engine.set_lock(&other, machines("odd"), None).await;
    assert!(matches!(refused, Err(EngineError::RequestIdReused { .. })), "{refused:?}");
    assert_eq!(harness.engine.locks().len(), 1);
}

/// Three wipes in a row that fail pause their plan, also over a restart; a success in between starts the count again.
#[tokio::test(start_paused = true)]
async fn a_plan_that_fails_three_times_in_a_row_is_paused() {
    let script = "machine=machine-1 step=wipe do=fail-permanent; machine=machine-2 step=wipe do=fail-permanent; \
                  machine=machine-4 step=wipe do=fail-permanent; machine=machine-5 step=wipe do=fail-permanent; \
                  machine=machine-6 step=wipe do=fail-permanent";
    let limits = Limits { destructive_on_simulated: true, ..Limits::default() };
    let mut harness = Harness::with(script, Timing::Default, limits).await;
    harness.register(8).await;
    for (machine, fails) in [(1, true), (2, true), (3, false), (4, true), (5, true)] {
        let run = harness.start(machine, "plan/rma").await.unwrap().id;
        let phase = harness.finished(run).await.phase();
        assert_eq!(phase == run::Phase::Failed, fails, "machine-{machine}");
        assert!(harness.engine.locks().is_empty(), "after machine-{machine}");
        harness.crash().await;
    }
    // This one waits before its wipe when the plan is paused.
    let waits = harness.start(7, "plan/rma").await.unwrap().id;
    harness.operate(waits, Verb::Pause).await.unwrap();
    harness.until(waits, |run| run.state == run::State::Held).await;
    let last = harness.start(6, "plan/rma").await.unwrap().id;
    harness.finished(last).await;
    let locks = harness.engine.locks();
    let [pause] = locks.as_slice() else { panic!("{locks:?}") };
    assert!(pause.reason.contains("machine-6"), "{}", pause.reason);
    harness.crash().await;
    let (why, message) = refusal(harness.start(8, "plan/rma").await);
    assert_eq!(why, Refusal::PlanPaused, "{message}");
    let other = harness.start(8, "plan/reboot").await.unwrap().id;
    harness.finished(other).await;
    harness.operate(waits, Verb::Resume).await.unwrap();
    harness.pass(HOUR_MS).await;
    assert_eq!(wait_reason(&harness, waits).await, Some(WaitReason::PlanPaused));
    let wiped = |harness: &Harness| {
        harness
            .ledger()
            .iter()
            .any(|one| one.machine == machine_id(7) && one.operation.as_str().contains("/wipe/"))
    };
    assert!(!wiped(&harness));
    harness.engine.lift_lock(&origin(), &pause.id).await.unwrap();
    assert_eq!(harness.finished(waits).await.phase(), run::Phase::Succeeded);
    assert!(wiped(&harness));
    let run = harness.start(8, "plan/rma").await.unwrap().id;
    harness.finished(run).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_wait_for_a_slot_say_that_everything_is_stopped() {
    let harness =
        Harness::with("", Timing::Default, Limits { runs_max: 1, ..Limits::default() }).await;
    harness.register(3).await;
    let mut runs = Vec::new();
    for machine in 1..=3 {
        runs.push(harness.start(machine, "plan/reboot").await.unwrap().id);
    }
    harness.engine.stop_all(&origin()).await.unwrap();
    harness.pass(HOUR_MS).await;
    for run in &runs[1..] {
        let record = harness.engine.run(*run).await.unwrap();
        assert!(matches!(harness.engine.held_back(&record), Some(HeldBack::Locked(_))));
    }
    harness.engine.resume_all(&origin()).await.unwrap();
    let mut started = Vec::new();
    for run in runs {
        started.push(harness.finished(run).await.started_at.unwrap());
    }
    assert!(started.is_sorted(), "in their order: {started:?}");
}
