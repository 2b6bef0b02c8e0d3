//! Probes, and the conditions that they update.

use std::collections::BTreeMap;

use super::harness::{Harness, machine_id, origin, refusal};
use crate::executor::Refusal;
use crate::executor::probes::ProbePolicy;
use crate::executor::request::{MachineChanges, Verb};
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::model::{ConditionKind, EntryKind, Power};
use crate::store::Subject;

const MINUTE_MS: u64 = 60_000;

async fn probed(script: &str) -> Harness {
    let harness = Harness::new(script).await;
    harness.register(2).await;
    harness.set_phase(1, Phase::Ready).await.unwrap();
    let policies: BTreeMap<_, _> = [("fake".to_owned(), ProbePolicy::default())].into();
    harness.engine.start_probes(policies);
    harness
}

async fn reachable(harness: &Harness, machine: usize) -> Option<bool> {
    let machine = harness.machine(machine).await;
    machine.conditions.get(ConditionKind::Reachable).map(|condition| condition.status)
}

#[tokio::test(start_paused = true)]
async fn reachable_follows_a_machine_that_flaps() {
    let harness = probed("call=probe machine=machine-1 do=flap times=3").await;
    harness.pass(12 * MINUTE_MS).await;
    assert_eq!(reachable(&harness, 1).await, Some(true));
    let rows = harness.store.history(Subject::Machine(machine_id(1)), None, 1_000).await.unwrap();
    let changes: Vec<_> = rows
        .iter()
        .filter(|row| row.entry.kind == EntryKind::ConditionChanged)
        .map(|row| (row.entry.from.as_str(), row.entry.to.as_str()))
        .collect();
    let wanted = [("unknown", "false"), ("false", "true")];
    let flaps = [("true", "false"), ("false", "true")];
    // Written when it changes, and only then.
    assert_eq!(changes, [&wanted[..], &flaps, &flaps].concat());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_or_is_degraded_is_seen() {
    let harness = probed("call=probe do=hang times=1; do=degraded times=1").await;
    harness.pass(MINUTE_MS + 15_000).await;
    assert_eq!(reachable(&harness, 1).await, Some(false), "no answer in time is none");
    for degraded in [true, false] {
        let mut seconds = 0;
        while harness.machine(1).await.conditions.is_true(ConditionKind::Degraded) != degraded {
            assert!(seconds < 150, "two intervals have passed");
            harness.pass(1_000).await;
            seconds += 1;
        }
        assert_eq!(reachable(&harness, 1).await, Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_probed_follows_phase_and_run() {
    let harness = probed("").await;
    harness.pass(5 * MINUTE_MS).await;
    assert_eq!(reachable(&harness, 1).await, Some(true));
    assert_eq!(reachable(&harness, 2).await, None, "FACTORY_READY machines are never asked");
    harness.set_phase(2, Phase::Ready).await.unwrap();
    harness.pass(2 * MINUTE_MS).await;
    assert_eq!(reachable(&harness, 2).await, Some(true), "the feed of commits reports it");
    // While a run is active its steps know better: a reboot is no outage.
    let run = harness.start(1, "plan/reboot").await.unwrap();
    assert_eq!(harness.finished(run.id).await.phase(), run::Phase::Succeeded);
    let wiped = harness.start(2, "plan/rma").await.unwrap();
    harness.finished(wiped.id).await;
    harness.set_phase(2, Phase::Retired).await.unwrap();
    let before = harness.machine(2).await.revision;
    harness.pass(10 * MINUTE_MS).await;
    assert_eq!(harness.machine(2).await.revision, before, "RETIRED machines are never asked");
    assert_eq!(reachable(&harness, 1).await, Some(true));
}

/// Observed facts are stored beside the machine's record: they move no etag, and confirmations are not written.
#[tokio::test(start_paused = true)]
async fn facts_are_kept_beside_the_machine() {
    let harness = probed("").await;
    harness.pass(3 * MINUTE_MS).await;
    let seen = harness.store.observed(&machine_id(1)).await.unwrap().unwrap();
    assert_eq!((seen.facts.power, seen.facts.serial.as_str()), (Power::On, "FAKE-machine-1"));
    assert_eq!(harness.store.observed(&machine_id(2)).await.unwrap(), None, "it is not asked");
    let revisions = harness.store.revisions().await.unwrap();
    harness.pass(30 * MINUTE_MS).await;
    assert_eq!(harness.store.revisions().await.unwrap(), revisions);
    // The conditions, which belong to the machine, have the revision of the commit that made it reachable.
    let machine = harness.machine(1).await;
    let rows = harness.store.history(Subject::Machine(machine_id(1)), None, 1_000).await.unwrap();
    assert_eq!(rows.last().unwrap().revision, machine.revision);
    assert_eq!(rows.last().unwrap().entry.kind, EntryKind::ConditionChanged);
}

async fn named(harness: &Harness, serial: &str) {
    let changes = MachineChanges { serial: Some(serial.to_owned()), ..MachineChanges::default() };
    harness.engine.update_machine(&origin(), &machine_id(1), changes).await.unwrap();
}

async fn hardware(harness: &Harness) -> Option<bool> {
    let machine = harness.machine(1).await;
    machine.conditions.get(ConditionKind::HardwareMatches).map(|condition| condition.status)
}

/// A machine with another serial number than the registered one can be worked on, and nothing destroys its data.
#[tokio::test(start_paused = true)]
async fn hardware_that_is_not_the_registered_one_is_not_written() {
    let harness = probed("call=probe machine=machine-1 do=swapped times=2").await;
    assert_eq!(hardware(&harness).await, None);
    named(&harness, "S-1").await;
    harness.pass(MINUTE_MS).await;
    assert_eq!(hardware(&harness).await, Some(false));
    let stored = harness.store.observed(&machine_id(1)).await.unwrap().unwrap();
    assert_eq!(stored.facts.serial, "OTHER-machine-1");
    let before = harness.machine(1).await.revision;
    for plan in ["plan/repave-join", "plan/rma"] {
        let (why, message) = refusal(harness.start(1, plan).await);
        assert_eq!(why, Refusal::HardwareMismatch);
        let said = "serial number: S-1 registered, OTHER-machine-1 observed";
        assert!(message.ends_with(said), "{message}");
    }
    assert_eq!(harness.machine(1).await.revision, before, "a refusal changes nothing");
    let run = harness.start(1, "plan/reboot").await.unwrap();
    assert_eq!(harness.finished(run.id).await.phase(), run::Phase::Succeeded);
    // The second wrong answer; what is registered now is what is there.
    named(&harness, "OTHER-machine-1").await;
    assert_eq!(hardware(&harness).await, Some(false), "until it was looked at");
    let seen = harness.engine.inspect_machine(&origin(), &machine_id(1)).await.unwrap();
    assert!(seen.conditions.is_true(ConditionKind::HardwareMatches));
    harness.start(1, "plan/repave-join").await.unwrap();
}

/// It is found out while a run is active: the run is held before the step that would destroy data, also when it is resumed.
#[tokio::test(start_paused = true)]
async fn a_run_is_held_before_it_writes_other_hardware() {
    let harness = Harness::new("call=probe do=swapped times=1").await;
    harness.register(1).await;
    named(&harness, "S-1").await;
    let run = harness.start(1, "plan/repave-join").await.unwrap().id;
    harness.polling(run, 0).await;
    let seen = harness.engine.inspect_machine(&origin(), &machine_id(1)).await.unwrap();
    assert_eq!(seen.conditions.get(ConditionKind::Reachable), None, "the run's own steps say that");
    let is_held = |run: &crate::model::Run| run.state == run::State::Held;
    let held = harness.until(run, is_held).await;
    assert_eq!(held.hold.as_ref().unwrap().reason, crate::model::HoldReason::WrongHardware);
    let place = held.steps.iter().position(|step| step.name == "repave").unwrap();
    assert_eq!(held.steps[place].attempt, 0);
    harness.operate(run, Verb::Resume).await.unwrap();
    harness.until(run, is_held).await;
    harness.engine.inspect_machine(&origin(), &machine_id(1)).await.unwrap();
    assert_eq!(hardware(&harness).await, Some(true));
    harness.operate(run, Verb::Resume).await.unwrap();
    assert_eq!(harness.finished(run).await.phase(), run::Phase::Succeeded);
}

/// An inspection stores what it sees at once, for machines that no probe asks too, and the next probe compares with that.
#[tokio::test(start_paused = true)]
async fn an_inspection_shows_what_is_so_now() {
    let harness = probed("call=probe machine=machine-2 do=unreachable times=1").await;
    let id = machine_id(2);
    let seen = harness.engine.inspect_machine(&origin(), &id).await.unwrap();
    let reachable = seen.conditions.get(ConditionKind::Reachable).unwrap();
    assert_eq!((reachable.status, reachable.observed_by.as_str()), (false, "probe"));
    assert_eq!(harness.store.observed(&id).await.unwrap(), None);
    let mut asked = origin();
    asked.request_id = "look".to_owned();
    let seen = harness.engine.inspect_machine(&asked, &id).await.unwrap();
    assert!(seen.conditions.is_true(ConditionKind::Reachable));
    assert_eq!(harness.store.observed(&id).await.unwrap().unwrap().facts.power, Power::On);
    let again = harness.engine.inspect_machine(&asked, &id).await.unwrap();
    assert_eq!(again.revision, seen.revision, "the first answer");
}
