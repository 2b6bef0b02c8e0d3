//! What refusals tell an operator to do instead: each hint is a way that the server lets through.

use super::*;

/// Message and hint of a refusal.
fn said<T: std::fmt::Debug>(result: Result<T, Status>) -> (String, String) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let hint = details.error_info().and_then(|info| info.metadata.get("hint").cloned());
    (status.message().to_owned(), hint.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn the_hint_of_an_ended_run_fits_its_end() {
    let mut api = Api::with("machine=m-1 step=repave do=fail-permanent times=1").await;
    api.register("m-1").await;
    let pause = |run_id: &str| pb::PauseRunRequest { run_id: run_id.into(), ..Default::default() };
    let failed = api.start("m-1", "repave-join").await.unwrap().run_id;
    api.finished(&failed).await;
    let (message, hint) = said(api.runs.pause_run(pause(&failed)).await);
    assert!(message.ends_with("has ended: it is FAILED"), "{message}");
    assert_eq!(hint, "a run that has ended is immutable: retry it, or start a new one");

    let good = api.start("m-1", "repave-join").await.unwrap().run_id;
    assert_eq!(api.finished(&good).await.phase(), pb::RunPhase::Succeeded);
    let (_, hint) = said(api.runs.pause_run(pause(&good)).await);
    assert_eq!(hint, "a run that has ended is immutable: start a new one");

    let aborted = api.start("m-1", "reboot").await.unwrap().run_id;
    let request = pb::AbortRunRequest {
        run_id: aborted.clone(),
        reason: "smoke".into(),
        ..Default::default()
    };
    api.runs.abort_run(request).await.unwrap();
    let (message, hint) = said(api.runs.pause_run(pause(&aborted)).await);
    assert!(message.ends_with("has ended: it is ABORTED"), "{message}");
    assert!(hint.contains("once you have looked at m-1 and cleared it, retry the run"), "{hint}");
    // The machine is blocked, and the hint is the command that releases it.
    let retry = pb::RetryRunRequest { run_id: aborted, ..Default::default() };
    let (message, hint) = said(api.runs.retry_run(retry.clone()).await);
    assert!(message.contains("is blocked, ABORTED"), "{message}");
    let clear = "machine clear-intervention m-1 --reason \"what you found\"";
    assert!(hint.contains("machine describe m-1") && hint.contains(clear), "{hint}");
    let request = pb::ClearInterventionRequest {
        machine_id: "m-1".into(),
        reason: "no smoke".into(),
        ..Default::default()
    };
    api.machines.clear_intervention(request).await.unwrap();
    api.runs.retry_run(retry).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn force_is_for_a_reason_even_where_it_overrides_nothing() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let request = |reason: &str| pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: "m-1".into(),
            status: Some(pb::MachineStatus {
                phase: pb::Phase::Ready.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".into()] }),
        reason: reason.to_owned(),
        force: true,
        ..Default::default()
    };
    for wrong in ["", "  "] {
        let status = api.machines.update_machine(request(wrong)).await.unwrap_err();
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "reason");
        assert!(violations[0].description.contains("force needs a reason"), "{violations:?}");
    }
    api.machines.update_machine(request("known to be good")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_argument_is_refused_before_a_run_starts() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let request = pb::StartRunRequest {
        machine_id: "m-1".into(),
        plan_id: "repave-join".into(),
        parameters: [("image".to_owned(), String::new())].into(),
        ..Default::default()
    };
    let dry = pb::StartRunRequest { validate_only: true, ..request.clone() };
    for request in [dry, request] {
        let (message, _) = said(api.runs.start_run(request).await);
        assert!(message.contains("parameters.image: must not be empty"), "{message}");
    }
}
