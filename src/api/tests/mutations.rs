//! Mutations: masks, etags, request ids, actors, verbs.

use super::*;

fn update(machine: pb::Machine, paths: &[&str]) -> pb::UpdateMachineRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_mask_changes_what_it_names_and_nothing_else() {
    let mut api = Api::new().await;
    let mut machine = api.register("m-1").await;
    assert_eq!(
        machine.spec.as_ref().unwrap().mac_addresses,
        [mac_of(&machine.machine_id).to_lowercase()]
    );
    machine.labels = [("rack", "r1"), ("example.com/row", "7"), ("tmp", "x")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    machine.spec.as_mut().unwrap().serial = "s-1".to_owned();
    let paths = ["labels.rack", "labels.example.com/row"];
    let changed = api.machines.update_machine(update(machine.clone(), &paths)).await;
    let changed = changed.unwrap().into_inner();
    let keys: Vec<_> = changed.labels.keys().map(String::as_str).collect();
    assert_eq!(keys, ["example.com/row", "rack"]);
    assert_eq!(changed.spec.as_ref().unwrap().serial, "");

    // The etag read before the change is stale now.
    let stale = api.machines.update_machine(update(machine, &["spec.serial"])).await;
    assert_eq!(refusal(stale), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    let mut fresh = changed.clone();
    fresh.labels.remove("rack");
    fresh.spec.as_mut().unwrap().serial = "s-1".to_owned();
    let changed = api.machines.update_machine(update(fresh, &["spec.serial", "labels.rack"])).await;
    let mut changed = changed.unwrap().into_inner();
    assert_eq!(changed.spec.as_ref().unwrap().serial, "s-1");
    assert!(!changed.labels.contains_key("rack"));

    changed.status.as_mut().unwrap().phase = pb::Phase::InService.into();
    let illegal = api.machines.update_machine(update(changed.clone(), &["status.phase"])).await;
    assert_eq!(refusal(illegal), (Code::FailedPrecondition, "ILLEGAL_PHASE".to_owned()));
    changed.status.as_mut().unwrap().phase = pb::Phase::Ready.into();
    let moved = api.machines.update_machine(update(changed, &["status.phase"])).await;
    let status = moved.unwrap().into_inner().status.unwrap();
    assert_eq!(status.phase(), pb::Phase::Ready);
    assert_eq!(status.effective_rule(), pb::EffectiveRule::Phase);
}

#[tokio::test(start_paused = true)]
async fn a_request_id_answers_again_and_is_not_for_something_else() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let request = pb::StartRunRequest {
        request_id: "one".to_owned(),
        machine_id: "m-1".to_owned(),
        r#type: pb::RunType::Reboot.into(),
        ..Default::default()
    };
    let first = api.runs.start_run(request.clone()).await.unwrap().into_inner();
    let again = api.runs.start_run(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.run_id, again.run_id);
    let other = pb::StartRunRequest { reason: "other".to_owned(), ..request };
    let reused = api.runs.start_run(other).await;
    assert_eq!(refusal(reused), (Code::InvalidArgument, "REQUEST_ID_REUSED".to_owned()));
    let status = api.start("m-1", "rma").await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "RUN_ACTIVE");
    assert_eq!(info.metadata["active_run_id"], first.run_id);
}

#[tokio::test(start_paused = true)]
async fn the_actor_is_what_the_client_declares() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let mut request = tonic::Request::new(pb::StartRunRequest {
        machine_id: "m-1".to_owned(),
        plan_id: "reboot".to_owned(),
        reason: " because ".to_owned(),
        ..Default::default()
    });
    request.metadata_mut().insert(super::super::ACTOR_METADATA, "ann".parse().unwrap());
    let run = api.runs.start_run(request).await.unwrap().into_inner();
    let actor = run.requested_by.unwrap();
    assert_eq!(
        (actor.kind.as_str(), actor.name.as_str(), actor.verified),
        ("operator", "ann", false)
    );
    assert_eq!(run.reason, "because");
    let run_id = run.run_id;
    let reason = "stop".to_owned();
    let request = pb::CancelRunRequest { run_id: run_id.clone(), reason, ..Default::default() };
    let canceled = api.runs.cancel_run(request).await.unwrap().into_inner();
    assert!(canceled.cancel_requested);
    let request = pb::ListRunHistoryRequest { run_id, ..Default::default() };
    let history = api.runs.list_run_history(request).await.unwrap().into_inner().entries;
    let cancel = history.iter().find(|entry| entry.kind == "run.cancel-requested").unwrap();
    assert_eq!(cancel.actor.as_ref().unwrap().name, "anonymous");
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_is_shown_with_what_was_expected_and_retried() {
    let script = "machine=m-1 step=repave do=fail-permanent times=1";
    let mut api = Api::with(script).await;
    api.register("m-1").await;
    let run = api.start("m-1", "plan/repave-join").await.unwrap();
    assert_eq!(run.r#type(), pb::RunType::Repave);
    let failed = api.finished(&run.run_id).await;
    assert_eq!(failed.phase(), pb::RunPhase::Failed);
    assert_eq!(failed.error.as_ref().unwrap().code, "STEP_FAILED");
    let repave = failed.steps.iter().find(|step| step.name == "repave").unwrap();
    assert_eq!(repave.state(), pb::StepState::Failed);
    assert_eq!((repave.action.as_str(), repave.destructive, repave.attempt), ("repave", true, 1));
    assert_eq!(repave.operation_id, format!("{}/repave/1", run.run_id));
    assert!(repave.deadline_at.is_none() && !repave.overdue);
    let undo = failed.steps.last().unwrap();
    assert_eq!((undo.compensates.as_str(), undo.action.as_str()), ("set-netboot", "clear-netboot"));
    let request = pb::RetryRunRequest { run_id: run.run_id.clone(), ..Default::default() };
    let again = api.runs.retry_run(request).await.unwrap().into_inner();
    assert_eq!(again.retry_of, run.run_id);
    assert_eq!(api.finished(&again.run_id).await.phase(), pb::RunPhase::Succeeded);
    let again =
        api.runs.retry_run(pb::RetryRunRequest { run_id: again.run_id, ..Default::default() });
    assert_eq!(refusal(again.await), (Code::FailedPrecondition, "RUN_STATE".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_held_run_says_what_it_waits_for() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let run = api.start("m-1", "plan/repave-join").await.unwrap();
    let request = pb::PauseRunRequest { run_id: run.run_id.clone(), ..Default::default() };
    api.runs.pause_run(request).await.unwrap();
    let request =
        pb::WatchRunsRequest { filter: format!("run_id={}", run.run_id), ..Default::default() };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    loop {
        let event = events.message().await.unwrap().unwrap();
        let waiting = event.snapshot.and_then(|run| run.waiting);
        if waiting.is_some_and(|waiting| waiting.reason() == pb::WaitReason::Paused) {
            break;
        }
    }
    let request = pb::ResumeRunRequest { run_id: run.run_id.clone(), ..Default::default() };
    api.runs.resume_run(request).await.unwrap();
    assert_eq!(api.finished(&run.run_id).await.phase(), pb::RunPhase::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn without_a_mask_every_populated_field_is_changed() {
    let mut api = Api::new().await;
    let mut machine = api.register("m-1").await;
    machine.labels = [("rack".to_owned(), "r1".to_owned())].into();
    let spec = machine.spec.as_mut().unwrap();
    spec.serial = "s-1".to_owned();
    let whole = |machine: &pb::Machine| pb::UpdateMachineRequest {
        machine: Some(machine.clone()),
        ..Default::default()
    };
    let mut read = api.machines.update_machine(whole(&machine)).await.unwrap().into_inner();
    assert_eq!((read.labels.len(), &*read.spec.as_ref().unwrap().serial), (1, "s-1"));
    assert_eq!(
        read.spec.as_ref().unwrap().mac_addresses,
        [mac_of(&read.machine_id).to_lowercase()]
    );

    // Sent back unchanged it has no effect, even while a run is active. An empty mask is the same as none.
    let run = api.start("m-1", "plan/reboot").await.unwrap();
    let get = pb::GetMachineRequest { machine_id: "m-1".to_owned(), ..Default::default() };
    read = api.machines.get_machine(get).await.unwrap().into_inner();
    let same = api.machines.update_machine(update(read.clone(), &[])).await.unwrap().into_inner();
    assert_eq!((same.revision, &same.labels), (read.revision, &read.labels));
    let status = read.status.as_mut().unwrap();
    let before = status.phase;
    status.phase = pb::Phase::Maintenance.into();
    let moved = api.machines.update_machine(whole(&read)).await;
    assert_eq!(refusal(moved), (Code::FailedPrecondition, "RUN_ACTIVE".to_owned()));
    read.status.as_mut().unwrap().phase = before;
    api.finished(&run.run_id).await;

    // Fields that are not populated stay, a populated map replaces the present one.
    let labels = [("row".to_owned(), "7".to_owned())].into();
    let part = pb::Machine { machine_id: "m-1".to_owned(), labels, ..Default::default() };
    let changed = api.machines.update_machine(whole(&part)).await.unwrap().into_inner();
    assert_eq!(changed.labels, part.labels);
    assert_eq!(changed.spec.as_ref().unwrap().serial, "s-1");

    let spec = pb::MachineSpec { provider: "other".to_owned(), ..Default::default() };
    let other = pb::Machine { spec: Some(spec), ..part.clone() };
    let refused = api.machines.update_machine(whole(&other)).await;
    assert_eq!(refusal(refused), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    let none = pb::Machine { machine_id: "m-1".to_owned(), ..Default::default() };
    let untouched = api.machines.update_machine(whole(&none)).await.unwrap().into_inner();
    assert_eq!(untouched, changed);
}

#[tokio::test(start_paused = true)]
async fn a_mac_address_belongs_to_one_machine() {
    let mut api = Api::new().await;
    let first = api.register("m-1").await;
    let mut second = registration("m-2");
    let taken = first.spec.unwrap().mac_addresses;
    let spec = second.machine.as_mut().unwrap().spec.as_mut().unwrap();
    let own = std::mem::replace(&mut spec.mac_addresses, taken.clone());
    let status = api.machines.register_machine(second.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(
        status.message().contains("\"m-1\" exists already: it has the MAC address 02:"),
        "{status}"
    );
    let resource = status.get_error_details().resource_info().cloned().unwrap();
    assert_eq!(
        (resource.resource_type.as_str(), resource.resource_name.as_str()),
        ("machine", "m-1")
    );

    let spec = second.machine.as_mut().unwrap().spec.as_mut().unwrap();
    spec.mac_addresses = own;
    let mut machine = api.machines.register_machine(second).await.unwrap().into_inner();
    machine.spec.as_mut().unwrap().mac_addresses = taken.clone();
    let request = pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths: vec!["spec.mac_addresses".to_owned()] }),
        ..Default::default()
    };
    let refused = refusal(api.machines.update_machine(request).await);
    assert_eq!(refused, (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));

    // In a batch each machine has its own result.
    let mut third = registration("m-3").machine.unwrap();
    third.spec.as_mut().unwrap().mac_addresses = taken;
    let machines = vec![registration("m-4").machine.unwrap(), third];
    let request = pb::BatchRegisterMachinesRequest { machines, ..Default::default() };
    let results = api.machines.batch_register_machines(request).await.unwrap().into_inner().results;
    let reasons: Vec<_> = results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            pb::machine_result::Outcome::Machine(machine) => machine.machine_id.clone(),
            pb::machine_result::Outcome::Error(error) => error.reason.clone(),
        })
        .collect();
    assert_eq!(reasons, ["m-4", "ALREADY_EXISTS"]);
}

/// A machine that already serves is protected from its first second.
#[tokio::test(start_paused = true)]
async fn a_machine_that_serves_is_adopted() {
    let mut api = Api::new().await;
    let adoption = |id: &str, reason: &str| pb::RegisterMachineRequest {
        in_service: true,
        reason: reason.to_owned(),
        ..registration(id)
    };
    let (code, reason) = refusal(api.machines.register_machine(adoption("m-1", " ")).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    let why = "serves since May";
    let adopted = api.machines.register_machine(adoption("m-1", why)).await.unwrap().into_inner();
    let status = adopted.status.as_ref().unwrap();
    assert_eq!(status.phase(), pb::Phase::InService);
    assert_eq!(status.effective_state(), pb::EffectiveState::InService);
    let condition = &status.conditions[0];
    assert_eq!(condition.r#type(), pb::ConditionType::InCustomerCluster);
    assert_eq!((condition.status, condition.reason.as_str()), (true, "ADOPTED"));
    assert!(condition.message.ends_with(why) && condition.observed_by.starts_with("operator/"));
    // Again is the same; a machine that is there and does not serve is not silently left as it is.
    let again = api.machines.register_machine(adoption("m-1", why)).await.unwrap().into_inner();
    assert_eq!(again, adopted);
    api.register("m-2").await;
    let status = api.machines.register_machine(adoption("m-2", why)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("set its phase to IN_SERVICE"), "{status:?}");
    // What would take its data is refused, whatever phase its condition outlives.
    let start = |force: bool| pb::StartRunRequest {
        machine_id: "m-1".to_owned(),
        plan_id: "repave-join".to_owned(),
        force,
        ..Default::default()
    };
    let (code, _) = refusal(api.runs.start_run(start(false)).await);
    assert_eq!(code, Code::FailedPrecondition);
    let update = pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: "m-1".to_owned(),
            status: Some(pb::MachineStatus {
                phase: pb::Phase::Ready.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".to_owned()] }),
        ..Default::default()
    };
    api.machines.update_machine(update).await.unwrap();
    let (code, reason) = refusal(api.runs.start_run(start(false)).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "EFFECTIVE_STATE_REFUSED"));
    let mut forced = start(true);
    forced.validate_only = true;
    api.runs.start_run(forced).await.unwrap();
    let history =
        pb::ListMachineHistoryRequest { machine_id: "m-1".to_owned(), ..Default::default() };
    let entries = api.machines.list_machine_history(history).await.unwrap().into_inner().entries;
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["machine.registered", "condition.changed", "phase.changed"]);
    assert_eq!(entries[0].reason, why);
    // Many at once, and what it would be first.
    let batch = |validate_only: bool| pb::BatchRegisterMachinesRequest {
        machines: vec![registration("m-3").machine.unwrap()],
        validate_only,
        in_service: true,
        reason: why.to_owned(),
    };
    for validate_only in [true, false] {
        let results =
            api.machines.batch_register_machines(batch(validate_only)).await.unwrap().into_inner();
        let Some(pb::machine_result::Outcome::Machine(machine)) = &results.results[0].outcome
        else {
            panic!("{results:?}")
        };
        assert_eq!(machine.status.as_ref().unwrap().phase(), pb::Phase::InService);
    }
    let without = pb::BatchRegisterMachinesRequest { reason: String::new(), ..batch(true) };
    let (code, _) = refusal(api.machines.batch_register_machines(without).await);
    assert_eq!(code, Code::InvalidArgument);
}

/// Another class and another board are one change with a reason, while no run is active.
#[tokio::test(start_paused = true)]
async fn a_machine_gets_another_provider_and_another_board() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let swap = |provider: &str, reason: &str| pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: "m-1".to_owned(),
            spec: Some(pb::MachineSpec {
                provider: provider.to_owned(),
                mac_addresses: vec!["02:00:00:00:99:01".to_owned()],
                bmc_endpoint: "https://bmc-2".to_owned(),
                serial: "SN-2".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: ["provider", "mac_addresses", "bmc_endpoint", "serial"]
                .map(|field| format!("spec.{field}"))
                .to_vec(),
        }),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let violation = |status: Status| {
        let details = status.get_error_details();
        let bad = details.bad_request().unwrap_or_else(|| panic!("{status:?}"));
        bad.field_violations[0].field.clone()
    };
    let unknown = api.machines.update_machine(swap("fale", "why")).await.unwrap_err();
    assert_eq!(violation(unknown), "machine.spec.provider");
    let empty = api.machines.update_machine(swap("", "why")).await.unwrap_err();
    assert_eq!(violation(empty), "machine.spec.provider");
    let silent = api.machines.update_machine(swap("other", "")).await.unwrap_err();
    assert_eq!(violation(silent), "reason");
    let run = api.start("m-1", "reboot").await.unwrap();
    let (code, reason) = refusal(api.machines.update_machine(swap("other", "why")).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "RUN_ACTIVE"));
    api.finished(&run.run_id).await;
    let before = api.machines.update_machine(swap("other", "board swapped")).await.unwrap();
    let spec = before.into_inner().spec.unwrap();
    assert_eq!((spec.provider.as_str(), spec.serial.as_str()), ("other", "SN-2"));
    let history =
        pb::ListHistoryRequest { kind: "machine.updated".to_owned(), ..Default::default() };
    let entries = api.machines.list_history(history).await.unwrap().into_inner().entries;
    assert_eq!(entries.len(), 1, "one change");
    assert_eq!(entries[0].reason, "board swapped");
    for said in ["provider fake -> other", "serial ", "bmc_endpoint none -> https://bmc-2"] {
        assert!(entries[0].message.contains(said), "{}", entries[0].message);
    }
    // The next run is driven by the new one.
    let run = api.start("m-1", "reboot").await.unwrap();
    assert_eq!(api.finished(&run.run_id).await.phase(), pb::RunPhase::Succeeded);
}
