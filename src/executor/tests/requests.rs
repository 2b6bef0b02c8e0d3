//! Repeated and concurrent requests.

use std::sync::Arc;

use super::harness::{Harness, machine_id, new_run, origin, refusal};
use crate::executor::request::{MachineChanges, Origin, Verb};
use crate::executor::{EngineError, Refusal, admission};
use crate::lifecycle::run;
use crate::model::scope::Scope;
use crate::plan::Registry;
use crate::provider::Capabilities;

fn request(id: &str, body: &str) -> Origin {
    Origin { request_id: id.to_owned(), body_digest: body.to_owned(), ..origin() }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_gets_the_first_answer_again() {
    let mut harness = Harness::new("").await;
    harness.register(2).await;
    let first =
        harness.engine.start_run(&request("a", "x"), new_run(1, "plan/reboot")).await.unwrap();
    let again = || request("a", "x");
    let repeated = harness.engine.start_run(&again(), new_run(1, "plan/reboot")).await.unwrap();
    assert_eq!(repeated, first);
    harness.finished(first.id).await;
    for crashed in [false, true] {
        if crashed {
            harness.crash().await;
        }
        // The first answer, though the run has moved on since.
        let repeated = harness.engine.start_run(&again(), new_run(1, "plan/reboot")).await.unwrap();
        assert_eq!(repeated, first);
        assert!(repeated.state.is_active());
        let other = harness.engine.start_run(&request("a", "y"), new_run(1, "plan/rma")).await;
        assert!(
            matches!(other, Err(EngineError::RequestIdReused { request_id }) if request_id == "a")
        );
    }
    // The key is scoped to the machine.
    let elsewhere = harness.engine.start_run(&again(), new_run(2, "plan/reboot")).await.unwrap();
    assert_ne!(elsewhere.id, first.id);
    // Without a request id a repetition is another request.
    harness.finished(elsewhere.id).await;
    let runs = [harness.start(2, "plan/reboot").await, harness.start(2, "plan/reboot").await];
    assert!(runs[0].is_ok());
    assert_eq!(refusal(runs[1].clone()).0, Refusal::RunActive);
}

/// Whatever was looked at before: the worker judges by the record that it is about to change.
#[tokio::test(start_paused = true)]
async fn a_machine_outside_of_the_scope_is_not_there_for_its_worker_either() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    let run = harness.start(1, "plan/reboot").await.unwrap();
    let (engine, id) = (&harness.engine, machine_id(1));
    let scoped =
        |scope: &str| Origin { scope: Some(Arc::new(Scope::parse(scope).unwrap())), ..origin() };
    let (out, within) = (scoped("tenant=a"), scoped("tenant!=a"));
    let changes = || MachineChanges { serial: Some("S1".to_owned()), ..Default::default() };
    let plan = || new_run(1, "plan/reboot");
    for answer in [
        engine.update_machine(&out, &id, changes()).await.map(|_| ()),
        engine.would_update(&out, &id, &changes()).await.map(|_| ()),
        engine.clear_intervention(&out, &id).await.map(|_| ()),
        engine.inspect_machine(&out, &id).await.map(|_| ()),
        engine.delete_machine(&out, &id).await,
        engine.dry_run(&out, &plan()).await.map(|_| ()),
        engine.start_run(&out, plan()).await.map(|_| ()),
        engine.operate(&out, run.id, Verb::Cancel).await.map(|_| ()),
    ] {
        let Err(EngineError::NotFound { kind: "machine", id: named }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(named, id.to_string());
    }
    assert!(harness.finished(run.id).await.cancel_requested_at.is_none());
    engine.update_machine(&within, &id, changes()).await.unwrap();
    engine.start_run(&within, plan()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_repeated_verb_gets_the_first_answer_again() {
    let (mut harness, id) = Harness::at_step("", "plan/repave-join", 1).await;
    let first = harness.engine.operate(&request("c", "x"), id, Verb::Cancel).await.unwrap();
    assert_eq!(first.state, run::State::Canceling);
    harness.finished(id).await;
    harness.crash().await;
    let repeated = harness.engine.operate(&request("c", "x"), id, Verb::Cancel).await.unwrap();
    assert_eq!(repeated, first);
    let other = harness.engine.operate(&request("c", "y"), id, Verb::Cancel).await;
    assert!(matches!(other, Err(EngineError::RequestIdReused { .. })));
    // Another verb is another scope.
    let abort = harness.engine.operate(&request("c", "x"), id, Verb::Abort).await;
    assert_eq!(refusal(abort).0, Refusal::RunState);
}

#[tokio::test(start_paused = true)]
async fn of_two_starts_at_once_exactly_one_wins() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    let starts = (0..8).map(|_| {
        let engine = harness.engine.clone();
        tokio::spawn(async move { engine.start_run(&origin(), new_run(1, "plan/reboot")).await })
    });
    let mut accepted = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(run) => accepted.push(run),
            error => assert_eq!(refusal(error).0, Refusal::RunActive),
        }
    }
    assert_eq!(accepted.len(), 1);
    // The same request at once is one request.
    harness.finished(accepted[0].id).await;
    let engine = &harness.engine;
    let (one, two) = (request("once", "x"), request("once", "x"));
    let (a, b) = tokio::join!(
        engine.start_run(&one, new_run(1, "plan/reboot")),
        engine.start_run(&two, new_run(1, "plan/reboot")),
    );
    assert_eq!(a.unwrap().id, b.unwrap().id);
}

/// A dropped client leaves nothing half done: its request is completed.
#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_carried_through_or_not_begun() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    {
        let origin = origin();
        let start = harness.engine.start_run(&origin, new_run(1, "plan/reboot"));
        tokio::pin!(start);
        // Polled once, then dropped.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(start.as_mut().poll(context).is_ready())
        });
        assert!(!polled.await);
    }
    harness.pass(10).await;
    let run = harness.machine(1).await.active_run.expect("it was started");
    assert_eq!(harness.finished(run).await.phase(), run::Phase::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_cannot_do_is_named_with_its_step() {
    let harness = Harness::new("").await;
    harness.register(1).await;
    let machine = harness.machine(1).await;
    let registry = Registry::built_in();
    let plan = &registry.get("plan/net-reconfig").unwrap().plan;
    let blockers =
        |capabilities| admission::blockers(plan, &machine, capabilities, Default::default());
    let none = blockers(Some(Capabilities::default()));
    // Two steps, and the compensation of the first.
    assert_eq!(none.len(), 3);
    for (blocker, step) in none.into_iter().zip(["apply-net-config", "apply-net-config", "verify"])
    {
        let (reason, message) = refusal(Err::<(), _>(blocker));
        assert_eq!(reason, Refusal::CapabilityMissing);
        assert!(message.contains(&format!("step {step}")), "{message}");
    }
    let missing = blockers(None).into_iter().map(Err::<(), _>).map(refusal).next();
    assert_eq!(missing.map(|(reason, _)| reason), Some(Refusal::ProviderMissing));
}
