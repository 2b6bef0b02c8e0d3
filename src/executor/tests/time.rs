//! The wall clock jumps; timers do not.

use super::harness::{Harness, every_step};
use crate::lifecycle::run;
use crate::lifecycle::step::State;

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// Longest virtual time that a plan may take whatever the wall clock does, in seconds.
const PATIENCE_S: u64 = 300;

async fn finishes_soon(harness: &Harness, id: crate::ids::RunId, what: &str) {
    let before = crate::clock::Clock::monotonic(&*harness.clock);
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Succeeded, "{what}: {run:#?}");
    let took = crate::clock::Clock::monotonic(&*harness.clock) - before;
    assert!(took.as_secs() < PATIENCE_S, "{what} took {took:?}");
    harness.nothing_was_repeated();
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_moves_no_timer() {
    for jump in [YEAR_MS, -YEAR_MS] {
        for (plan, place, step) in every_step() {
            let (harness, id) = Harness::at_step("", plan, place).await;
            harness.clock.jump(jump);
            finishes_soon(&harness, id, &format!("{jump} in {} of {plan}", step.name)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_while_the_server_is_down_stops_nothing() {
    for jump in [YEAR_MS, -YEAR_MS] {
        for (plan, place, step) in every_step() {
            let (mut harness, id) = Harness::at_step("", plan, place).await;
            harness.engine.kill();
            harness.clock.jump(jump);
            harness.restart().await;
            finishes_soon(&harness, id, &format!("{jump} in {} of {plan}", step.name)).await;
        }
        let (mut harness, id) =
            Harness::running("step=repave do=fail times=1", "plan/repave-join").await;
        harness.until(id, |run| matches!(run.steps[1].state, State::BackingOff { .. })).await;
        harness.engine.kill();
        harness.clock.jump(jump);
        harness.restart().await;
        finishes_soon(&harness, id, "a jump between attempts").await;
    }
}

/// A step that waits for longer than the deadline of the one before it, which is over, is not ended by that.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_that_of_its_step() {
    let script = "step=drain do=slow:1m; step=wipe do=slow:3h";
    let (harness, id) = Harness::running(script, "plan/rma").await;
    let run = harness.finished(id).await;
    assert_eq!(run.phase(), run::Phase::Succeeded);
    let wipe = &run.steps[1];
    assert_eq!((wipe.attempt, wipe.unknowns), (1, 0));
    let took_ms = wipe.finished_at.unwrap().since(wipe.attempt_at.unwrap()).as_millis();
    assert!(took_ms >= 3 * 60 * 60 * 1_000, "{took_ms}");
}
