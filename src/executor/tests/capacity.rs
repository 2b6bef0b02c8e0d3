//! Limits on what runs at the same time.

use super::harness::{Harness, new_run, origin};
use crate::executor::request::{HeldBack, Verb, WaitReason};
use crate::executor::waiting::waiting;
use crate::executor::{Cap, Limits, RiskLimits};
use crate::ids::RunId;
use crate::lifecycle::run;
use crate::model::{ActorKind, EntryKind};
use crate::provider::fake::Timing;
use crate::store::Subject;

async fn harness(limits: Limits) -> Harness {
    let harness = Harness::with("", Timing::Default, limits).await;
    harness.register(6).await;
    harness
}

async fn start_all(harness: &Harness) -> Vec<RunId> {
    let mut runs = Vec::new();
    for machine in 1..=6 {
        runs.push(harness.start(machine, "plan/reboot").await.unwrap().id);
    }
    runs
}

async fn phases(harness: &Harness, runs: &[RunId]) -> String {
    let mut text = String::new();
    for run in runs {
        let phase = harness.engine.run(*run).await.unwrap().phase();
        text.push_str(&phase.as_str()[..1]);
    }
    text
}

#[tokio::test(start_paused = true)]
async fn the_global_limit_is_exact_and_first_come_first_served() {
    let harness = harness(Limits { runs_max: 2, ..Limits::default() }).await;
    let runs = start_all(&harness).await;
    assert_eq!(phases(&harness, &runs).await, "RRPPPP");
    let mut finished = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        let run = harness.finished(*run).await;
        assert_eq!(run.phase(), run::Phase::Succeeded);
        finished.push((run.started_at.unwrap(), place));
    }
    assert!(finished.is_sorted(), "{finished:?}");
    assert_eq!(harness.engine.load(), (0, 0, 0));
    harness.ledger();
}

#[tokio::test(start_paused = true)]
async fn a_full_rack_delays_no_other_rack_and_says_why() {
    let limits = [("rack".to_owned(), 1)].into_iter().collect();
    let harness = harness(Limits { runs_max_by_label: limits, ..Limits::default() }).await;
    let runs = start_all(&harness).await;
    assert_eq!(phases(&harness, &runs).await, "RRPPPP", "one odd, one even");
    let run = harness.engine.run(runs[4]).await.unwrap();
    let message = harness.engine.held_back(&harness.engine.run(runs[4]).await.unwrap());
    let text = "the limit of 1 runs with rack=odd is reached; 1 ahead of it".to_owned();
    assert_eq!(message, Some(HeldBack::Capacity(text.clone())));
    let why = waiting(&run, message.as_ref()).unwrap();
    assert_eq!((why.reason, why.message), (WaitReason::Capacity, text));
    assert_eq!(harness.engine.held_back(&harness.engine.run(runs[0]).await.unwrap()), None);
    // A run that leaves the queue frees nothing.
    harness.operate(runs[2], Verb::Cancel).await.unwrap();
    assert_eq!(phases(&harness, &runs).await, "RRCPPP");
    for run in runs {
        harness.finished(run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_run_gives_its_slot_back_and_waits_for_another() {
    let harness = harness(Limits { runs_max: 1, ..Limits::default() }).await;
    let first = harness.start(1, "plan/net-reconfig").await.unwrap().id;
    let second = harness.start(2, "plan/net-reconfig").await.unwrap().id;
    harness.operate(first, Verb::Pause).await.unwrap();
    harness.until(first, |run| run.state == run::State::Held).await;
    harness.until(second, |run| run.phase() == run::Phase::Running).await;
    let resumed = harness.operate(first, Verb::Resume).await.unwrap();
    assert_eq!(resumed.state, run::State::Resuming);
    assert_eq!(harness.engine.load().0, 1, "one slot, however many ask");
    let second = harness.finished(second).await;
    let first = harness.finished(first).await;
    assert_eq!((first.phase(), second.phase()), (run::Phase::Succeeded, run::Phase::Succeeded));
    assert!(first.finished_at > second.finished_at);
}

/// Two servers on one store: neither knows what the other has granted, and the commit refuses what exceeds the limit.
#[tokio::test(start_paused = true)]
async fn the_limit_is_exact_in_the_store() {
    let mut harness = harness(Limits { runs_max: 1, ..Limits::default() }).await;
    let other = harness.engine.clone();
    harness.restart().await;
    let first = other.start_run(&origin(), new_run(1, "plan/reboot")).await.unwrap().id;
    let second = harness.start(2, "plan/reboot").await.unwrap();
    assert_eq!(second.state, run::State::Pending);
    let third = harness.start(3, "plan/reboot").await.unwrap().id;
    harness.pass(10).await;
    assert_eq!(phases(&harness, &[first, second.id, third]).await, "RPP");
    assert_eq!(slots(&harness).await, [("runs".to_owned(), 1)]);
    harness.operate(third, Verb::Cancel).await.unwrap();
    let first = harness.finished(first).await;
    let second = harness.finished(second.id).await;
    assert_eq!(second.phase(), run::Phase::Succeeded);
    assert!(second.started_at > first.finished_at, "{second:#?}");
    assert_eq!(slots(&harness).await, []);
}

async fn slots(harness: &Harness) -> Vec<(String, u64)> {
    let slots = harness.store.slots().await.unwrap();
    slots.into_iter().map(|(key, taken)| (key.to_string(), taken)).collect()
}

/// The count in the store follows every run: held, released, canceled, recovered, ended.
#[tokio::test(start_paused = true)]
async fn the_store_counts_what_the_scheduler_counts() {
    let limits = Limits {
        runs_max_by_provider: [("fake".to_owned(), 3)].into(),
        runs_max_by_label: [("rack".to_owned(), 2)].into(),
        ..Limits::default()
    };
    let mut harness = harness(limits).await;
    let taken = |runs: u64, odd: u64, even: u64| {
        let racks = [("label/rack=even", even), ("label/rack=odd", odd)];
        let all = racks.into_iter().chain([("provider/fake", runs), ("runs", runs)]);
        let taken = all.filter(|(_, taken)| *taken > 0);
        taken.map(|(key, taken)| (key.to_owned(), taken)).collect::<Vec<_>>()
    };
    let mut runs = Vec::new();
    for machine in 1..=4 {
        runs.push(harness.start(machine, "plan/net-reconfig").await.unwrap().id);
    }
    assert_eq!(slots(&harness).await, taken(3, 2, 1));
    harness.operate(runs[0], Verb::Pause).await.unwrap();
    harness.until(runs[0], |run| run.state == run::State::Held).await;
    harness.until(runs[3], |run| run.phase() == run::Phase::Running).await;
    assert_eq!(slots(&harness).await, taken(3, 1, 2));
    harness.crash().await;
    assert_eq!(slots(&harness).await, taken(3, 1, 2));
    // A held run that is canceled is not made to wait: it counts beyond the limit.
    harness.operate(runs[0], Verb::Cancel).await.unwrap();
    let mut most = 0;
    while !slots(&harness).await.is_empty() {
        let stored = slots(&harness).await.last().unwrap().1;
        assert_eq!(stored, harness.engine.load().0 as u64);
        most = most.max(stored);
        harness.pass(10).await;
    }
    assert_eq!(most, 4);
    for run in runs {
        assert!(!harness.engine.run(run).await.unwrap().state.is_active());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_slots_and_the_queue() {
    let mut harness = harness(Limits { runs_max: 2, ..Limits::default() }).await;
    let runs = start_all(&harness).await;
    harness.pass(100).await;
    harness.crash().await;
    assert_eq!(phases(&harness, &runs).await, "RRPPPP");
    for run in &runs {
        assert_eq!(harness.finished(*run).await.phase(), run::Phase::Succeeded);
    }
}

/// However often the server is killed, and also for runs that were held and released in between.
#[tokio::test(start_paused = true)]
async fn the_queue_is_in_the_order_of_acceptance_after_any_number_of_restarts() {
    for limits in [
        Limits { runs_max: 1, ..Limits::default() },
        Limits { runs_max_by_provider: [("fake".to_owned(), 1)].into(), ..Limits::default() },
    ] {
        let mut harness = Harness::with("", Timing::Default, limits).await;
        harness.register(8).await;
        let mut runs = Vec::new();
        for machine in [5, 3, 8, 1] {
            runs.push(harness.start(machine, "plan/reboot").await.unwrap().id);
        }
        // The clock is set back: the order is that of the commits.
        harness.clock.jump(-3_600_000);
        let paused = runs.remove(1);
        harness.operate(paused, Verb::Pause).await.unwrap();
        runs.push(harness.start(2, "plan/reboot").await.unwrap().id);
        harness.crash().await;
        harness.operate(paused, Verb::Resume).await.unwrap();
        runs.push(paused);
        for machine in [7, 4] {
            runs.push(harness.start(machine, "plan/reboot").await.unwrap().id);
        }
        let mut started = Vec::new();
        for run in &runs {
            for _ in 0..2 {
                harness.crash().await;
            }
            harness.finished(*run).await;
            let rows = harness.store.history(Subject::Run(*run), None, 1_000).await.unwrap();
            let admitted = rows.iter().rfind(|row| {
                row.entry.kind == EntryKind::RunStarted
                    || (row.entry.kind == EntryKind::RunResumed
                        && row.entry.actor.kind == ActorKind::Engine)
            });
            started.push(admitted.unwrap().revision);
        }
        assert!(started.is_sorted(), "{started:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_loop_breaker_holds_a_machine_that_is_destroyed_again_and_again() {
    let limits = Limits { destructive_max: 2, destructive_on_simulated: true, ..Limits::default() };
    let harness = harness(limits).await;
    for _ in 0..2 {
        let run = harness.start(1, "plan/reboot").await.unwrap();
        assert_eq!(harness.finished(run.id).await.phase(), run::Phase::Succeeded);
    }
    let run = harness.start(1, "plan/reboot").await.unwrap().id;
    let held = harness.until(run, |run| run.state == run::State::Held).await;
    let why = waiting(&held, None).unwrap();
    assert_eq!(why.reason, WaitReason::LoopBreaker);
    assert!(why.message.contains("2 destructive attempts on machine-1 within 3600 s"));
    harness.operate(run, Verb::Resume).await.unwrap();
    assert_eq!(harness.finished(run).await.phase(), run::Phase::Succeeded);
}

/// A controller that fails is left alone for a while, and says until when: meanwhile another run has the slot.
#[tokio::test(start_paused = true)]
async fn a_run_gives_its_slot_back_until_its_controller_is_called_again() {
    let script = "machine=machine-1 step=reboot do=busy:10m times=1; machine=machine-3 step=reboot do=slow:10m";
    let limits = Limits { runs_max: 1, ..Limits::default() };
    let mut harness = Harness::with(script, Timing::Default, limits).await;
    harness.register(4).await;
    let first = harness.start(1, "plan/reboot").await.unwrap().id;
    let second = harness.start(2, "plan/reboot").await.unwrap().id;
    let deferred = harness.until(first, |run| run.state == run::State::Deferred).await;
    let why = waiting(&deferred, None).unwrap();
    assert_eq!(why.reason, WaitReason::Backoff);
    assert!(why.next_wake_at.unwrap() >= deferred.created_at.plus_ms(600_000));
    harness.finished(second).await;
    assert_eq!(harness.engine.load().0, 0, "no run has the slot");
    // It is due while others have the slot and wait for it: it waits its turn, over a restart too.
    harness.pass(500_000).await;
    let third = harness.start(3, "plan/reboot").await.unwrap().id;
    harness.until(third, |run| run.phase() == run::Phase::Running).await;
    let before = harness.start(2, "plan/reboot").await.unwrap().id;
    harness.crash().await;
    let due = harness.until(first, |run| run.state == run::State::Resuming).await;
    assert_eq!(waiting(&due, None).unwrap().reason, WaitReason::Capacity);
    let after = harness.start(4, "plan/reboot").await.unwrap().id;
    harness.crash().await;
    let mut started = Vec::new();
    for run in [third, before, first, after] {
        let run = harness.finished(run).await;
        assert_eq!(run.phase(), run::Phase::Succeeded);
        started.push(run.finished_at.unwrap());
    }
    assert!(started.is_sorted(), "{started:?}");
    assert_eq!(harness.engine.load(), (0, 0, 0));
    harness.nothing_was_repeated();
}

/// What an operator can do with a run that waits without a slot.
#[tokio::test(start_paused = true)]
async fn a_deferred_run_can_be_paused_canceled_and_skipped() {
    let script = "step=reboot do=busy:10m times=4";
    let harness = Harness::new(script).await;
    harness.register(4).await;
    let mut runs = Vec::new();
    for machine in 1..=4 {
        let run = harness.start(machine, "plan/reboot").await.unwrap().id;
        harness.until(run, |run| run.state == run::State::Deferred).await;
        runs.push(run);
    }
    let paused = harness.operate(runs[0], Verb::Pause).await.unwrap();
    assert_eq!(paused.state, run::State::Held);
    harness.operate(runs[0], Verb::Resume).await.unwrap();
    harness.operate(runs[1], Verb::Cancel).await.unwrap();
    let skip = Verb::Skip { step: "reboot".to_owned() };
    harness.operate(runs[2], skip).await.unwrap();
    harness.operate(runs[3], Verb::Abort).await.unwrap();
    assert_eq!(harness.finished(runs[1]).await.phase(), run::Phase::Canceled);
    assert_eq!(harness.finished(runs[2]).await.phase(), run::Phase::Succeeded);
    // Resumed before its time has come, it waits for that.
    let resumed = harness.finished(runs[0]).await;
    assert_eq!(resumed.phase(), run::Phase::Succeeded);
    assert!(resumed.finished_at.unwrap() >= resumed.created_at.plus_ms(600_000));
    assert_eq!(harness.engine.load(), (0, 0, 0));
}

/// A share of a rack follows the number of its machines, and survives a crash.
#[tokio::test(start_paused = true)]
async fn a_share_of_a_rack_bounds_what_destroys_data() {
    let half = [("rack".to_owned(), Cap::Percent(67))].into();
    let data_destroying = RiskLimits { max: None, max_by_label: half };
    let mut harness = harness(Limits { data_destroying, ..Limits::default() }).await;
    let mut runs = Vec::new();
    for machine in [1, 3, 5] {
        runs.push(harness.start(machine, "plan/repave-join").await.unwrap().id);
    }
    let reboot = harness.start(2, "plan/net-reconfig").await.unwrap().id;
    harness.until(runs[1], |run| run.phase() == run::Phase::Running).await;
    assert_eq!(phases(&harness, &runs).await, "RRP", "two of three machines");
    assert_eq!(harness.engine.run(reboot).await.unwrap().phase(), run::Phase::Running);
    let why = harness.engine.held_back(&harness.engine.run(runs[2]).await.unwrap());
    let text = "the limit of 2 data-destroying runs with rack=odd is reached; 0 ahead of it";
    assert_eq!(why, Some(HeldBack::Capacity(text.to_owned())));
    harness.crash().await;
    harness.engine.recovered().await;
    harness.pass(100).await;
    let counted = slots(&harness).await;
    assert!(counted.contains(&("data-destroying/label/rack=odd".to_owned(), 2)), "{counted:?}");
    for run in runs {
        assert_eq!(harness.finished(run).await.phase(), run::Phase::Succeeded);
    }
    harness.ledger();
}

/// Several runs that were released after a hold, and a new one between them, are in their order after a restart.
#[tokio::test(start_paused = true)]
async fn released_runs_keep_their_order_over_a_restart() {
    let script = "machine=machine-1 do=slow:10m";
    let mut harness =
        Harness::with(script, Timing::Default, Limits { runs_max: 1, ..Limits::default() }).await;
    harness.register(4).await;
    let mut runs = Vec::new();
    for machine in 1..=3 {
        runs.push(harness.start(machine, "plan/reboot").await.unwrap().id);
    }
    for held in [runs[1], runs[2]] {
        harness.operate(held, Verb::Pause).await.unwrap();
        harness.until(held, |run| run.state == run::State::Held).await;
    }
    harness.operate(runs[1], Verb::Resume).await.unwrap();
    let new = harness.start(4, "plan/reboot").await.unwrap().id;
    harness.operate(runs[2], Verb::Resume).await.unwrap();
    harness.crash().await;
    let mut ended = Vec::new();
    for run in [runs[0], runs[1], new, runs[2]] {
        ended.push(harness.finished(run).await.finished_at.unwrap());
    }
    assert!(ended.is_sorted(), "{ended:?}");
}
