//! Batches, dry runs, deletion, waiting, masks, orders, counts, the audit trail.

use super::*;

fn outcome_of_run(result: &pb::RunResult) -> Result<&pb::Run, &str> {
    match result.outcome.as_ref().unwrap() {
        pb::run_result::Outcome::Run(run) => Ok(run),
        pb::run_result::Outcome::Error(error) => Err(&error.reason),
    }
}

/// For each machine of a batch its id, or why it was refused.
fn registered(response: &pb::BatchRegisterMachinesResponse) -> Vec<&str> {
    response
        .results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            pb::machine_result::Outcome::Machine(machine) => machine.machine_id.as_str(),
            pb::machine_result::Outcome::Error(error) => error.reason.as_str(),
        })
        .collect()
}

async fn with_machines(count: usize) -> Api {
    let mut api = Api::new().await;
    let machines = (1..=count).map(|n| registration(&format!("m-{n}")).machine.unwrap()).collect();
    let request = pb::BatchRegisterMachinesRequest { machines, ..Default::default() };
    api.machines.batch_register_machines(request).await.unwrap();
    api
}

#[tokio::test(start_paused = true)]
async fn a_batch_registers_in_order_and_names_what_is_wrong() {
    let mut api = with_machines(3).await;
    let good = |id: &str| registration(id).machine.unwrap();
    let mut other = good("m-2");
    other.spec.as_mut().unwrap().mac_addresses.push("02:00:00:00:00:ff".to_owned());
    let bad = pb::Machine { machine_id: "M".to_owned(), ..Default::default() };
    let machines = vec![good("m-5"), bad, other, good("m-4"), good("m-1")];
    let request = pb::BatchRegisterMachinesRequest { machines, ..Default::default() };
    let response = api.machines.batch_register_machines(request).await.unwrap().into_inner();
    assert_eq!(registered(&response), ["m-5", "FIELD_INVALID", "ALREADY_EXISTS", "m-4", "m-1"]);
    let list = pb::ListMachinesRequest::default();
    let page = api.machines.list_machines(list).await.unwrap().into_inner();
    let ids: Vec<_> = page.machines.iter().map(|machine| machine.machine_id.as_str()).collect();
    assert_eq!(ids, ["m-1", "m-2", "m-3", "m-5", "m-4"]);
    let nothing = api.machines.batch_register_machines(pb::BatchRegisterMachinesRequest::default());
    assert_eq!(refusal(nothing.await).1, "FIELD_INVALID");
}

#[tokio::test(start_paused = true)]
async fn a_batch_starts_a_run_on_each_and_answers_again() {
    let mut api = with_machines(3).await;
    let taken = api.start("m-2", "reboot").await.unwrap().run_id;
    let request = pb::BatchStartRunsRequest {
        request_id: "batch".to_owned(),
        machine_ids: ["m-3", "m-2", "m-9", "m-1"].map(ToOwned::to_owned).to_vec(),
        r#type: pb::RunType::Rma.into(),
        ..Default::default()
    };
    let first = api.runs.batch_start_runs(request.clone()).await.unwrap().into_inner().results;
    let ids: Vec<_> = first.iter().map(|result| result.machine_id.as_str()).collect();
    assert_eq!(ids, ["m-3", "m-2", "m-9", "m-1"]);
    let outcomes: Vec<_> = first.iter().map(|result| outcome_of_run(result).err()).collect();
    assert_eq!(outcomes, [None, Some("RUN_ACTIVE"), Some("NOT_FOUND"), None]);
    api.finished(&taken).await;
    // A repetition starts the ones that were not started, and nothing twice.
    let again = api.runs.batch_start_runs(request).await.unwrap().into_inner().results;
    assert_eq!(
        outcome_of_run(&again[0]).unwrap().run_id,
        outcome_of_run(&first[0]).unwrap().run_id
    );
    assert!(outcome_of_run(&again[1]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_batch_chooses_by_filter_within_its_bound() {
    let mut api = with_machines(4).await;
    let request = pb::BatchStartRunsRequest {
        filter: "phase=FACTORY_READY".to_owned(),
        plan_id: "repave-join".to_owned(),
        max_machines: 3,
        ..Default::default()
    };
    let many = api.runs.batch_start_runs(request.clone()).await;
    assert_eq!(refusal(many), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
    let dry = pb::BatchStartRunsRequest { max_machines: 4, validate_only: true, ..request };
    let results = api.runs.batch_start_runs(dry.clone()).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| outcome_of_run(result).unwrap().run_id.is_empty()));
    let real = pb::BatchStartRunsRequest { validate_only: false, ..dry };
    let results = api.runs.batch_start_runs(real).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 4);
    for result in &results {
        let run = outcome_of_run(result).unwrap();
        assert_eq!(api.finished(&run.run_id).await.phase(), pb::RunPhase::Succeeded);
    }
    for (machine_ids, filter) in
        [(vec![], ""), (vec!["m-1"], "phase=READY"), (vec!["m-1", "m-1"], "")]
    {
        let machine_ids = machine_ids.into_iter().map(ToOwned::to_owned).collect();
        let request = pb::BatchStartRunsRequest {
            machine_ids,
            filter: filter.to_owned(),
            plan_id: "reboot".to_owned(),
            ..Default::default()
        };
        assert_eq!(refusal(api.runs.batch_start_runs(request).await).1, "FIELD_INVALID");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_shows_the_run_or_everything_in_the_way() {
    let mut api = with_machines(1).await;
    let request = pb::StartRunRequest {
        machine_id: "m-1".to_owned(),
        plan_id: "repave-join".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    let dry = api.runs.start_run(request.clone()).await.unwrap().into_inner();
    assert!(dry.run_id.is_empty() && dry.etag.is_empty());
    assert!(!dry.parameters["image"].is_empty(), "defaults are filled in");
    let steps: Vec<_> = dry.steps.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(steps, ["set-netboot", "repave", "mint-join", "join", "verify"]);
    assert!(
        api.runs
            .list_runs(pb::ListRunsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .runs
            .is_empty()
    );

    let etag =
        |etag: &str| pb::StartRunRequest { machine_etag: etag.to_owned(), ..request.clone() };
    assert_eq!(refusal(api.runs.start_run(etag("\"99\"")).await).1, "ETAG_MISMATCH");
    let real = pb::StartRunRequest { validate_only: false, ..etag("\"99\"") };
    let status = api.runs.start_run(real).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["current"], "\"1\"");
    // The plan that was shown, or none.
    let plan = pb::GetPlanRequest { plan_id: request.plan_id.clone() };
    let plan_digest = api.plans.get_plan(plan).await.unwrap().into_inner().digest;
    for validate_only in [true, false] {
        let other = pb::StartRunRequest {
            plan_digest: plan_digest.replace(|digit| digit != '0', "0"),
            validate_only,
            ..request.clone()
        };
        let status = api.runs.start_run(other).await.unwrap_err();
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), &info.metadata["current"]),
            ("ETAG_MISMATCH", &plan_digest)
        );
        assert_eq!(details.resource_info().unwrap().resource_type, "plan");
    }
    let real = pb::StartRunRequest { plan_digest, validate_only: false, ..etag("\"1\"") };
    let run = api.runs.start_run(real).await.unwrap().into_inner();
    let blocked = pb::StartRunRequest { plan_id: "rma".to_owned(), ..request };
    let status = api.runs.start_run(blocked).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["active_run_id"], run.run_id);
    assert!(!details.precondition_failure().unwrap().violations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_a_retired_machine_is_deleted() {
    let mut api = with_machines(1).await;
    // A run, so that its epoch is not zero.
    let run_id = api.start("m-1", "reboot").await.unwrap().run_id;
    api.finished(&run_id).await;
    let request = pb::DeleteMachineRequest { machine_id: "m-1".to_owned(), ..Default::default() };
    let early = api.machines.delete_machine(request.clone()).await;
    assert_eq!(refusal(early), (Code::FailedPrecondition, "NOT_RETIRED".to_owned()));
    let status = pb::MachineStatus { phase: pb::Phase::Retired.into(), ..Default::default() };
    let machine =
        pb::Machine { machine_id: "m-1".to_owned(), status: Some(status), ..Default::default() };
    let paths = vec!["status.phase".to_owned()];
    let retire = pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    };
    api.machines.update_machine(retire).await.unwrap();
    let stale = pb::DeleteMachineRequest { etag: "\"1\"".to_owned(), ..request.clone() };
    assert_eq!(refusal(api.machines.delete_machine(stale).await).1, "ETAG_MISMATCH");
    let epoch = async |api: &Api| {
        let id = crate::ids::MachineId::parse("m-1").unwrap();
        api.engine.machine(&id).await.unwrap().epoch
    };
    let before = epoch(&api).await;
    let named = |request_id: &str| {
        let reason = "sold".to_owned();
        let message = pb::DeleteMachineRequest {
            request_id: request_id.to_owned(),
            reason,
            ..request.clone()
        };
        let mut message = tonic::Request::new(message);
        message.metadata_mut().insert(super::super::ACTOR_METADATA, "olga".parse().unwrap());
        message
    };
    api.machines.delete_machine(named("gone")).await.unwrap();
    assert_eq!(refusal(api.machines.delete_machine(request.clone()).await).1, "NOT_FOUND");
    // Its history is kept for a while, with the actor.
    let history =
        pb::ListMachineHistoryRequest { machine_id: "m-1".to_owned(), ..Default::default() };
    let history = api.machines.list_machine_history(history).await.unwrap().into_inner();
    let last = history.entries.last().unwrap();
    assert_eq!((last.kind.as_str(), last.reason.as_str()), ("machine.deleted", "sold"));
    assert_eq!(last.actor.as_ref().unwrap().name, "olga");
    // Registered again it continues from its last epoch, and deleting it again is another request.
    api.register("m-1").await;
    assert_eq!(epoch(&api).await, before);
    api.machines.delete_machine(named("gone")).await.unwrap();
    assert_eq!(refusal(api.machines.delete_machine(named("other")).await).1, "NOT_RETIRED");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_run_or_the_timeout() {
    let mut api = with_machines(1).await;
    let run_id = api.start("m-1", "repave-join").await.unwrap().run_id;
    let short = pb::WaitRunRequest {
        run_id: run_id.clone(),
        timeout: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
        ..Default::default()
    };
    let waited = api.runs.wait_run(short.clone()).await.unwrap().into_inner();
    assert_eq!(waited.phase(), pb::RunPhase::Running);
    let long = pb::WaitRunRequest { timeout: None, ..short.clone() };
    let waited = api.runs.wait_run(long).await.unwrap().into_inner();
    assert_eq!(waited.phase(), pb::RunPhase::Succeeded);
    let waited = api.runs.wait_run(short.clone()).await.unwrap().into_inner();
    assert_eq!(waited.phase(), pb::RunPhase::Succeeded, "at once");
    let seconds = 3601;
    let endless = prost_types::Duration { seconds, nanos: 0 };
    let endless = pb::WaitRunRequest { timeout: Some(endless), ..short };
    assert_eq!(refusal(api.runs.wait_run(endless).await).1, "FIELD_INVALID");

    let run_id = api.start("m-1", "rma").await.unwrap().run_id;
    let pause = pb::PauseRunRequest { run_id: run_id.clone(), ..Default::default() };
    api.runs.pause_run(pause).await.unwrap();
    let held = pb::WaitRunRequest { run_id, return_when_held: true, ..Default::default() };
    let held = api.runs.wait_run(held).await.unwrap().into_inner();
    assert_eq!(held.waiting.unwrap().reason(), pb::WaitReason::Paused);
}

#[tokio::test(start_paused = true)]
async fn lists_are_masked_ordered_and_counted() {
    let mut api = with_machines(5).await;
    let request = pb::ListMachinesRequest {
        page_size: 2,
        order_by: "created_at desc".to_owned(),
        with_total_size: true,
        read_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".to_owned()] }),
        ..Default::default()
    };
    let first = api.machines.list_machines(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.total_size, Some(5));
    let phase: i32 = pb::Phase::FactoryReady.into();
    let shown = |id: &str| pb::Machine {
        machine_id: id.to_owned(),
        status: Some(pb::MachineStatus { phase, ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(first.machines, [shown("m-5"), shown("m-4")]);
    let page_token = first.next_page_token;
    let next = pb::ListMachinesRequest { page_token: page_token.clone(), ..request.clone() };
    let next = api.machines.list_machines(next).await.unwrap().into_inner();
    assert_eq!(next.machines, [shown("m-3"), shown("m-2")]);
    let other = pb::ListMachinesRequest { page_token, order_by: String::new(), ..request.clone() };
    assert_eq!(refusal(api.machines.list_machines(other).await).1, "PAGE_TOKEN_MISMATCH");
    for wrong in [
        pb::ListMachinesRequest { order_by: "serial".to_owned(), ..request.clone() },
        pb::ListMachinesRequest {
            read_mask: Some(prost_types::FieldMask { paths: vec!["colour".to_owned()] }),
            ..request
        },
    ] {
        assert_eq!(refusal(api.machines.list_machines(wrong).await).1, "FIELD_INVALID");
    }
    let plain = pb::ListMachinesRequest::default();
    assert_eq!(api.machines.list_machines(plain).await.unwrap().into_inner().total_size, None);
}

#[tokio::test(start_paused = true)]
async fn machines_are_watched_like_runs() {
    let mut api = with_machines(2).await;
    let request =
        pb::WatchMachinesRequest { filter: "machine_id=m-2".to_owned(), ..Default::default() };
    let mut events = api.machines.watch_machines(request).await.unwrap().into_inner();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.r#type(), pb::MachineEventType::Snapshot);
    assert_eq!(event.snapshot.unwrap().machine_id, "m-2");
    assert_eq!(events.message().await.unwrap().unwrap().r#type(), pb::MachineEventType::Synced);
    api.start("m-1", "reboot").await.unwrap();
    let run = api.start("m-2", "reboot").await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.r#type(), pb::MachineEventType::Change);
    let status = event.snapshot.unwrap().status.unwrap();
    assert_eq!(status.active_run_id, run.run_id);
    assert_eq!(status.effective_state(), pb::EffectiveState::Provisioning);
}

#[tokio::test(start_paused = true)]
async fn the_audit_trail_holds_everything_in_order() {
    let mut api = with_machines(2).await;
    for machine in ["m-1", "m-2"] {
        let run = api.start(machine, "reboot").await.unwrap();
        api.finished(&run.run_id).await;
    }
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListHistoryRequest { page_size: 3, page_token, ..Default::default() };
        let page = api.machines.list_history(request).await.unwrap().into_inner();
        all.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(all.is_sorted_by_key(|entry| entry.revision));
    let mut wanted = Vec::new();
    for machine_id in ["m-1", "m-2"] {
        let request = pb::ListMachineHistoryRequest {
            machine_id: machine_id.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let page = api.machines.list_machine_history(request).await.unwrap().into_inner();
        wanted.extend(page.entries);
    }
    let key = |entry: &pb::HistoryEntry| format!("{entry:?}");
    all.sort_by_key(key);
    wanted.sort_by_key(key);
    assert_eq!(all, wanted);
    for (kind, actor, count) in [("run.created", "", 2), ("machine", "", 2), ("run", "nobody", 0)] {
        let request = pb::ListHistoryRequest {
            kind: kind.to_owned(),
            actor: actor.to_owned(),
            ..Default::default()
        };
        let page = api.machines.list_history(request).await.unwrap().into_inner();
        assert_eq!(page.entries.len(), count, "{kind} {actor}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verb_with_a_stale_etag_is_refused() {
    let mut api = with_machines(1).await;
    let run = api.start("m-1", "repave-join").await.unwrap();
    let stale = pb::CancelRunRequest {
        run_id: run.run_id.clone(),
        etag: "\"1\"".to_owned(),
        ..Default::default()
    };
    assert_eq!(refusal(api.runs.cancel_run(stale).await).1, "ETAG_MISMATCH");
    let get = pb::GetRunRequest { run_id: run.run_id.clone(), ..Default::default() };
    let etag = api.runs.get_run(get).await.unwrap().into_inner().etag;
    let fresh = pb::CancelRunRequest { run_id: run.run_id, etag, ..Default::default() };
    assert!(api.runs.cancel_run(fresh).await.unwrap().into_inner().cancel_requested);
}

/// A dry run answers as the real one would, and changes nothing.
#[tokio::test(start_paused = true)]
async fn what_is_only_validated_is_not_done() {
    let mut api = with_machines(1).await;
    let good = |id: &str| registration(id).machine.unwrap();
    let mut wrong = good("m-3");
    wrong.spec.as_mut().unwrap().mac_addresses = vec!["zz".to_owned()];
    let mut other = good("m-1");
    other.spec.as_mut().unwrap().mac_addresses.push("02:00:00:00:00:ff".to_owned());
    let mut twice = good("m-2");
    twice.spec.as_mut().unwrap().mac_addresses.push("02:00:00:00:00:fe".to_owned());
    let with_mac = |id: &str| {
        let mut machine = good(id);
        machine.spec.as_mut().unwrap().mac_addresses = vec!["02:00:00:00:00:aa".to_owned()];
        machine
    };
    let machines = vec![good("m-2"), wrong, other, twice, with_mac("m-4"), with_mac("m-5")];
    let request =
        pb::BatchRegisterMachinesRequest { machines, validate_only: true, ..Default::default() };
    let response = api.machines.batch_register_machines(request).await.unwrap().into_inner();
    assert_eq!(
        registered(&response),
        ["m-2", "FIELD_INVALID", "ALREADY_EXISTS", "ALREADY_EXISTS", "m-4", "ALREADY_EXISTS"]
    );
    // So is an address that a registered machine has.
    let real = pb::RegisterMachineRequest { machine: Some(with_mac("m-6")), ..Default::default() };
    api.machines.register_machine(real).await.unwrap();
    let request = pb::BatchRegisterMachinesRequest {
        machines: vec![with_mac("m-4")],
        validate_only: true,
        ..Default::default()
    };
    let response = api.machines.batch_register_machines(request).await.unwrap().into_inner();
    assert_eq!(registered(&response), ["ALREADY_EXISTS"]);
    let taken = pb::UpdateMachineRequest {
        machine: Some(pb::Machine { machine_id: "m-1".to_owned(), ..with_mac("m-1") }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["spec.mac_addresses".to_owned()] }),
        reason: "another adapter".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(refusal(api.machines.update_machine(taken).await).1, "ALREADY_EXISTS");
    let update = |value: &str| pb::UpdateMachineRequest {
        machine: Some(pb::Machine {
            machine_id: "m-1".to_owned(),
            labels: [("rack".to_owned(), value.to_owned())].into(),
            ..Default::default()
        }),
        validate_only: true,
        ..Default::default()
    };
    let would = api.machines.update_machine(update("r1")).await.unwrap().into_inner();
    assert_eq!(would.labels["rack"], "r1");
    assert_eq!(refusal(api.machines.update_machine(update("\u{1b}")).await).1, "FIELD_INVALID");
    let list = pb::ListMachinesRequest::default();
    let page = api.machines.list_machines(list).await.unwrap().into_inner();
    let known: Vec<_> = page
        .machines
        .iter()
        .map(|m| (m.machine_id.as_str(), m.labels.contains_key("rack")))
        .collect();
    assert_eq!(known, [("m-1", false), ("m-6", false)]);
}
