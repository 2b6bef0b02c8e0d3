//! Every verb in every state of a run: performed, or refused with its reason.

use std::fmt::Write as _;

use super::harness::{Harness, machine_id, origin, refusal};
use crate::executor::request::Verb;
use crate::executor::{EngineError, Limits};
use crate::ids::RunId;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::Resolution;
use crate::provider::fake::Timing;

/// Situations that a run can be in; see [`situation`].
const SITUATIONS: [&str; 13] = [
    "pending",
    "running",
    "running, destructive step",
    "pausing",
    "held by a pause",
    "held, outcome unknown",
    "held by the loop breaker",
    "resuming",
    "canceling",
    "unwinding",
    "succeeded",
    "failed",
    "canceled",
];

/// Index of the compensation of the first step, after the five steps of the plan.
const UNDO: usize = 5;

/// A run of plan/repave-join on machine-1 in that situation.
async fn situation(name: &str) -> (Harness, RunId) {
    let script = match name {
        "held, outcome unknown" => {
            "step=repave do=fail-after times=1; step=repave do=unknowable times=2"
        }
        "failed" => "step=repave do=fail-permanent times=1",
        _ => "machine=machine-2 do=slow:10m",
    };
    let limits = Limits {
        runs_max: 1,
        destructive_max: if name == "held by the loop breaker" { 0 } else { 10 },
        destructive_on_simulated: true,
        ..Limits::default()
    };
    let harness = Harness::with(script, Timing::Default, limits).await;
    harness.register(2).await;
    if name == "pending" {
        harness.start(2, "plan/reboot").await.unwrap();
    }
    let id = harness.start(1, "plan/repave-join").await.unwrap().id;
    let held = |run: &crate::model::Run| run.state == run::State::Held;
    match name {
        "pending" => {}
        "running" => drop(harness.polling(id, 0).await),
        "running, destructive step" => drop(harness.polling(id, 1).await),
        "held, outcome unknown" | "held by the loop breaker" => drop(harness.until(id, held).await),
        "pausing" | "held by a pause" | "resuming" => {
            harness.polling(id, 0).await;
            harness.operate(id, Verb::Pause).await.unwrap();
            if name != "pausing" {
                harness.until(id, held).await;
            }
            if name == "resuming" {
                harness.start(2, "plan/reboot").await.unwrap();
                harness.operate(id, Verb::Resume).await.unwrap();
            }
        }
        "canceling" => {
            harness.polling(id, 1).await;
            harness.operate(id, Verb::Cancel).await.unwrap();
        }
        "unwinding" => {
            harness.polling(id, 0).await;
            harness.operate(id, Verb::Pause).await.unwrap();
            harness.until(id, held).await;
            harness.operate(id, Verb::Cancel).await.unwrap();
            harness.polling(id, UNDO).await;
        }
        "canceled" => {
            harness.polling(id, 0).await;
            harness.operate(id, Verb::Cancel).await.unwrap();
            harness.finished(id).await;
        }
        "succeeded" | "failed" => drop(harness.finished(id).await),
        _ => panic!("no situation {name}"),
    }
    (harness, id)
}

fn skip(step: &str) -> Verb {
    Verb::Skip { step: step.to_owned() }
}

fn verbs() -> Vec<(&'static str, Verb)> {
    let resolve = |resolution| Verb::Resolve { step: "repave".to_owned(), resolution };
    vec![
        ("cancel", Verb::Cancel),
        ("abort", Verb::Abort),
        ("pause", Verb::Pause),
        ("resume", Verb::Resume),
        ("skip the first step", skip("set-netboot")),
        ("skip the last step", skip("verify")),
        ("resolve as done", resolve(Some(Resolution::Done))),
        ("resolve as retry", resolve(Some(Resolution::Retry))),
        ("resolve as skip", resolve(Some(Resolution::Skip))),
        ("resolve as abort", resolve(None)),
    ]
}

/// The answer to a request, without what differs between runs.
fn answer<T>(answer: Result<T, EngineError>, ok: impl FnOnce(T) -> String, run: RunId) -> String {
    match answer {
        Ok(value) => ok(value),
        Err(EngineError::Refused { refusal, message, .. }) => {
            format!("{}: {}", refusal.as_str(), message.replace(&run.to_string(), "RUN"))
        }
        Err(other) => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_verb_in_every_situation() {
    let mut table = String::from("Refusals begin with their reason in capitals.\n");
    for name in SITUATIONS {
        let (harness, id) = situation(name).await;
        let run = harness.engine.run(id).await.unwrap();
        let _ = writeln!(table, "\n{name} ({:?})", run.state);
        let retried = harness.engine.retry_run(&origin(), id).await;
        let retried = answer(retried, |run| format!("-> a new run, {}", run.phase()), id);
        for (verb_name, verb) in verbs() {
            let (harness, id) = situation(name).await;
            let before = harness.engine.run(id).await.unwrap();
            let answered = harness.operate(id, verb).await;
            if answered.is_err() {
                let after = harness.engine.run(id).await.unwrap();
                assert_eq!(after, before, "a refusal of {verb_name} changes nothing");
            }
            let text = answer(answered, |run| format!("-> {:?} ({})", run.state, run.phase()), id);
            let _ = writeln!(table, "  {verb_name:<20} {text}");
        }
        let _ = writeln!(table, "  {:<20} {retried}", "retry");

        let (harness, id) = situation(name).await;
        let started = harness.start(1, "plan/reboot").await;
        let text = answer(started, |run| format!("-> a new run, {}", run.phase()), id);
        let _ = writeln!(table, "  {:<20} {text}", "start another");

        let (harness, id) = situation(name).await;
        let set = harness.set_phase(1, Phase::Maintenance).await;
        let text = answer(set, |machine| format!("-> {}", machine.phase), id);
        let _ = writeln!(table, "  {:<20} {text}", "set MAINTENANCE");

        let cleared = harness.engine.clear_intervention(&origin(), &machine_id(1)).await;
        let text = answer(cleared, |_| "-> cleared, or nothing to clear".to_owned(), id);
        let _ = writeln!(table, "  {:<20} {text}", "clear intervention");

        let deleted = harness.engine.delete_machine(&origin(), &machine_id(1)).await;
        refusal(deleted);
    }
    crate::assert_golden!("verbs_table", table);
}
