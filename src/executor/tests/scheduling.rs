//! Scheduling of workers: waiting runs have none, and no run is ever without something that will continue it.

use super::harness::{Harness, machine_id};
use crate::executor::Limits;
use crate::executor::request::{HeldBack, Verb, WaitReason};
use crate::executor::waiting::waiting;
use crate::ids::RunId;
use crate::lifecycle::run;
use crate::lifecycle::step::State;
use crate::model::{EntryKind, Run};
use crate::provider::fake::Timing;

/// An hour for every step.
async fn slow() -> (Harness, RunId) {
    let harness = Harness::with("", Timing::Scaled(100.0), Limits::default()).await;
    harness.register(1).await;
    let id = harness.start_where_allowed("plan/repave-join").await;
    harness.polling(id, 1).await;
    harness.pass(1_000).await;
    (harness, id)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_has_no_worker() {
    let (harness, id) = slow().await;
    assert_eq!(harness.engine.at_work(), 0, "the provider works");
    assert_eq!(harness.engine.load().2, 1);
    let before = harness.machine(1).await.epoch;
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Succeeded);
    assert!(run.steps.iter().all(|step| step.attempt == 1));
    assert_eq!(harness.machine(1).await.epoch, before, "it was claimed once");
    harness.nothing_was_repeated();
    harness.pass(1).await;
    assert_eq!((harness.engine.at_work(), harness.engine.load().2), (0, 0));

    let limits = Limits { runs_max: 1, ..Limits::default() };
    let harness = Harness::with("step=repave do=fail times=1", Timing::Default, limits).await;
    harness.register(2).await;
    let first = harness.start(1, "plan/repave-join").await.unwrap().id;
    let second = harness.start(2, "plan/repave-join").await.unwrap().id;
    let backing_off = |run: &Run| matches!(run.steps[1].state, State::BackingOff { .. });
    harness.until(first, backing_off).await;
    harness.pass(1).await;
    assert_eq!(harness.engine.at_work(), 0, "one waits for its next attempt, one for a slot");
    harness.operate(first, Verb::Pause).await.unwrap();
    harness.until(second, |run| run.state == run::State::Running).await;
    harness.finished(second).await;
    harness.pass(1).await;
    assert_eq!(harness.engine.at_work(), 0, "it waits for an operator");
    harness.operate(first, Verb::Resume).await.unwrap();
    assert_eq!(harness.finished(first).await.phase(), run::Phase::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_while_a_run_waits_changes_nothing() {
    let mut wanted = None;
    for jump_ms in [0, -86_400_000, 86_400_000] {
        let (harness, id) = slow().await;
        let began = crate::clock::Clock::monotonic(&*harness.clock);
        harness.clock.jump(jump_ms);
        let run = harness.finished(id).await;
        let took = crate::clock::Clock::monotonic(&*harness.clock) - began;
        let attempts: Vec<_> = run.steps.iter().map(|step| (step.attempt, step.unknowns)).collect();
        let seen = (run.phase(), attempts, took.as_secs());
        assert_eq!(*wanted.get_or_insert_with(|| seen.clone()), seen, "{jump_ms}: {run:#?}");
    }
}

async fn recovered(harness: &Harness, id: RunId) -> usize {
    let history = harness.history(id).await;
    history.iter().filter(|entry| entry.kind == EntryKind::RunRecovered).count()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_lost_is_found() {
    let (harness, id) = slow().await;
    harness.engine.lose(&machine_id(1));
    harness.pass(61_000).await;
    assert_eq!(recovered(&harness, id).await, 1, "by the sweep");
    harness.engine.lose(&machine_id(1));
    let run = harness.operate(id, Verb::Cancel).await.unwrap();
    assert!(run.cancel_requested_at.is_some());
    assert_eq!(recovered(&harness, id).await, 2, "by the verb");
    harness.finished(id).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_serves_before_its_runs_are_recovered() {
    let (mut harness, id) = slow().await;
    harness.register(2).await;
    harness.engine.kill();
    harness.serve().await;
    let run = harness.engine.run(id).await.unwrap();
    let held_back = harness.engine.held_back(&run);
    assert_eq!(held_back, Some(HeldBack::Recovery));
    assert_eq!(waiting(&run, held_back.as_ref()).unwrap().reason, WaitReason::Recovery);
    // A verb waits for the recovery of its run, and a request on an idle machine for nothing.
    let started = harness.start(2, "plan/repave-join").await.unwrap();
    let paused = harness.operate(id, Verb::Pause).await.unwrap();
    assert_eq!(paused.state, run::State::Pausing);
    harness.engine.recovered().await;
    assert_eq!(harness.engine.held_back(&paused), None);
    let kinds: Vec<_> = harness.history(id).await.iter().map(|entry| entry.kind).collect();
    let place = |kind| kinds.iter().position(|found| *found == kind).unwrap();
    assert!(place(EntryKind::RunRecovered) < place(EntryKind::RunPauseRequested), "{kinds:?}");
    assert_eq!(harness.finished(started.id).await.phase(), run::Phase::Succeeded);
}
