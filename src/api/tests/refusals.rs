//! Requests that are refused before they reach the engine: one table, one snapshot.

use super::*;

/// Field violations of an answer, one a line.
fn violations_of<T: std::fmt::Debug>(what: &str, result: Result<T, Status>) -> String {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("field violations").field_violations;
    let lines =
        violations.iter().map(|wrong| format!("  {}: {}\n", wrong.field, wrong.description));
    format!("{what}\n{}", lines.collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn wrong_fields_are_named_all_at_once() {
    let mut api = Api::new().await;
    let mut text = String::new();

    let empty = pb::RegisterMachineRequest::default();
    text += &violations_of("register: nothing", api.machines.register_machine(empty).await);
    let machine = pb::Machine { machine_id: "Machine 1".to_owned(), ..Default::default() };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    text += &violations_of("register: no spec", api.machines.register_machine(request).await);
    let mut request = registration("m-1");
    request.request_id = "\u{7}".to_owned();
    let machine = request.machine.as_mut().unwrap();
    machine.status = Some(pb::MachineStatus::default());
    machine.etag = "\"1\"".to_owned();
    machine.labels.insert("a b".to_owned(), String::new());
    let spec = machine.spec.as_mut().unwrap();
    spec.provider.clear();
    spec.serial = "s".repeat(257);
    spec.mac_addresses.push("nonsense".to_owned());
    text +=
        &violations_of("register: everything wrong", api.machines.register_machine(request).await);

    let update = pb::UpdateMachineRequest::default();
    text += &violations_of("update: nothing", api.machines.update_machine(update).await);
    for paths in [
        vec!["*"],
        vec!["spec.provider", "machine_id", "status.conditions", "etag", "spec.colour", ""],
        vec!["status.phase"],
        vec!["labels.-x"],
    ] {
        let machine = pb::Machine { machine_id: "m-1".to_owned(), ..Default::default() };
        let what = format!("update: {paths:?}");
        let paths = paths.into_iter().map(ToOwned::to_owned).collect();
        let request = pb::UpdateMachineRequest {
            machine: Some(machine),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        text += &violations_of(&what, api.machines.update_machine(request).await);
    }
    let clear = pb::ClearInterventionRequest::default();
    text += &violations_of("clear: nothing", api.machines.clear_intervention(clear).await);
    let get = pb::GetMachineRequest { machine_id: "../etc".to_owned(), ..Default::default() };
    text += &violations_of("get: bad id", api.machines.get_machine(get).await);
    let list = pb::ListMachinesRequest { page_size: -1, ..Default::default() };
    text += &violations_of("list: negative page", api.machines.list_machines(list).await);
    let list = pb::ListPlansRequest { filter: "a=b".to_owned(), ..Default::default() };
    text += &violations_of("list plans: filter", api.plans.list_plans(list).await);

    let start = pb::StartRunRequest::default();
    text += &violations_of("start: nothing", api.runs.start_run(start).await);
    let start = pb::StartRunRequest {
        machine_id: "m-1".to_owned(),
        r#type: 77,
        parameters: [("image".to_owned(), "x".repeat(5000))].into(),
        reason: "\u{1b}[31m".to_owned(),
        ..Default::default()
    };
    text += &violations_of("start: unknown type", api.runs.start_run(start).await);
    let abort = pb::AbortRunRequest { run_id: "7".to_owned(), ..Default::default() };
    text += &violations_of("abort: no reason", api.runs.abort_run(abort).await);
    let skip = pb::SkipStepRequest::default();
    text += &violations_of("skip: nothing", api.runs.skip_step(skip).await);
    let resolve = pb::ResolveStepRequest { resolution: 9, ..Default::default() };
    text += &violations_of("resolve: unknown resolution", api.runs.resolve_step(resolve).await);
    crate::assert_golden!("api_refusals", text);
}

#[tokio::test(start_paused = true)]
async fn unknown_objects_are_not_found() {
    let mut api = Api::new().await;
    let not_found = (Code::NotFound, "NOT_FOUND".to_owned());
    let machine_id = "m-9".to_owned();
    let get = pb::GetMachineRequest { machine_id: machine_id.clone(), ..Default::default() };
    assert_eq!(refusal(api.machines.get_machine(get).await), not_found);
    let history = pb::ListMachineHistoryRequest { machine_id, ..Default::default() };
    assert_eq!(refusal(api.machines.list_machine_history(history).await), not_found);
    let run_id = "0190f5fe-7c00-7a00-8000-000000000000".to_owned();
    let get = pb::GetRunRequest { run_id: run_id.clone(), ..Default::default() };
    assert_eq!(refusal(api.runs.get_run(get).await), not_found);
    let cancel = pb::CancelRunRequest { run_id: run_id.clone(), ..Default::default() };
    assert_eq!(refusal(api.runs.cancel_run(cancel).await), not_found);
    let logs = pb::StreamRunLogsRequest { run_id, ..Default::default() };
    assert_eq!(refusal(api.runs.stream_run_logs(logs).await.map(|_| ())), not_found);
    assert_eq!(refusal(api.start("m-9", "reboot").await), not_found);
    api.register("m-1").await;
    let status = api.start("m-1", "plan/ram").await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["hint"], "did you mean plan/rma?");
}
