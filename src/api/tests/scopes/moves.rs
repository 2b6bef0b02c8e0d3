//! Machines that move into a scope and out of it, and what stays: runs, history, request ids, and the audit.

use super::*;
use crate::pb::audit_service_client::AuditServiceClient;

#[tokio::test(start_paused = true)]
async fn nobody_edits_a_label_that_scopes_him() {
    let mut fleet = Fleet::new().await;
    let ann = principal(Role::Admin, "tenant in (a, b),!secret");
    let denied = (Code::PermissionDenied, "OUT_OF_SCOPE".to_owned());
    for validate_only in [true, false] {
        for pairs in [&[("tenant", "b")][..], &[("tenant", "c")], &[("secret", "1")]] {
            let request = pb::UpdateMachineRequest { validate_only, ..relabelled("m-inn", pairs) };
            let refused = fleet.api.machines.update_machine(by(&ann, request)).await;
            assert_eq!(refusal(refused), denied, "{pairs:?}");
        }
        // All labels at once, without the one that she is scoped by.
        let mut request = relabelled("m-inn", &[("rack", "r2")]);
        request.update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
        request.validate_only = validate_only;
        let refused = fleet.api.machines.update_machine(by(&ann, request)).await;
        assert_eq!(refusal(refused), denied);
        // Removing it, too.
        let mut request = relabelled("m-inn", &[]);
        request.update_mask =
            Some(prost_types::FieldMask { paths: vec!["labels.tenant".to_owned()] });
        request.validate_only = validate_only;
        let refused = fleet.api.machines.update_machine(by(&ann, request)).await;
        assert_eq!(refusal(refused), denied);
    }
    let changed = relabelled("m-inn", &[("rack", "r2"), ("tenant", "a")]);
    let changed = fleet.api.machines.update_machine(by(&ann, changed)).await.unwrap().into_inner();
    assert_eq!(changed.labels, labels(&[("tenant", "a"), ("rack", "r2")]));
    // A MAC address of a machine outside is not said to be there.
    fleet.api.machines.update_machine(relabelled("m-out", &[("tenant", "c")])).await.unwrap();
    let mut request = relabelled("m-inn", &[]);
    request.machine.as_mut().unwrap().spec =
        Some(pb::MachineSpec { mac_addresses: vec![mac_of("m-out")], ..Default::default() });
    request.update_mask =
        Some(prost_types::FieldMask { paths: vec!["spec.mac_addresses".to_owned()] });
    let refused = fleet.api.machines.update_machine(by(&ann, request.clone())).await.unwrap_err();
    let text = format!("{refused:?}{}", String::from_utf8_lossy(refused.details()));
    assert!(!text.contains("m-out") && text.contains("OUT_OF_SCOPE"), "{text}");
    let everyone = principal(Role::Admin, "");
    let refused = fleet.api.machines.update_machine(by(&everyone, request)).await.unwrap_err();
    assert!(refused.message().contains("m-out"), "{refused:?}");
}

/// Runs belong to whom their machine belonged to when they were accepted.
#[tokio::test(start_paused = true)]
async fn runs_stay_in_the_scope_in_which_they_began() {
    let mut fleet = Fleet::new().await;
    let (ann, bob) = (principal(Role::Admin, "tenant=a"), principal(Role::Admin, "tenant=b"));
    fleet.api.machines.update_machine(relabelled("m-inn", &[("tenant", "b")])).await.unwrap();
    assert_eq!(fleet.machines_of(&ann).await, Vec::<String>::new());
    assert_eq!(fleet.machines_of(&bob).await, ["m-inn", "m-out"]);
    let before = fleet.run_in.clone();
    assert_eq!(fleet.runs_of(&ann, "").await, std::slice::from_ref(&before));
    assert_eq!(fleet.runs_of(&bob, "").await, [fleet.run_out.clone()]);
    // Her run acts on what is no longer hers.
    let missing = (Code::NotFound, "NOT_FOUND".to_owned());
    let retry = pb::RetryRunRequest { run_id: before.clone(), ..Default::default() };
    let cancel = pb::CancelRunRequest { run_id: before.clone(), ..Default::default() };
    assert_eq!(refusal(fleet.api.runs.retry_run(by(&bob, retry)).await), missing);
    assert_eq!(refusal(fleet.api.runs.cancel_run(by(&ann, cancel)).await), missing);
    // The history of the machine does not show bob what was before, nor ann what is now.
    let history = pb::ListMachineHistoryRequest {
        machine_id: "m-inn".to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let page = fleet.api.machines.list_machine_history(by(&bob, history.clone())).await.unwrap();
    let page = page.into_inner();
    let kinds: Vec<_> = page.entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!((kinds, page.next_page_token.as_str()), (vec!["machine.updated"], ""));
    let everything = pb::ListHistoryRequest { page_size: 1000, ..Default::default() };
    for (caller, run) in [(&ann, &before), (&bob, &fleet.run_out)] {
        let request = by(caller, everything.clone());
        let page = fleet.api.machines.list_history(request).await.unwrap().into_inner();
        let runs: BTreeSet<_> = page
            .entries
            .iter()
            .map(|entry| entry.run_id.clone())
            .filter(|id| !id.is_empty())
            .collect();
        assert_eq!(runs, BTreeSet::from([run.clone()]));
        assert!(page.next_page_token.is_empty());
    }
    // Nor does another machine under the same id.
    fleet.retire_and_delete("m-inn").await;
    fleet.api.machines.register_machine(registering("m-inn", "b")).await.unwrap();
    assert_eq!(fleet.runs_of(&bob, "machine_id = m-inn").await, Vec::<String>::new());
    let page = fleet.api.machines.list_machine_history(by(&bob, history)).await.unwrap();
    let mut entries = page.into_inner().entries;
    assert_eq!(entries.pop().unwrap().kind, "machine.updated");
}

#[tokio::test(start_paused = true)]
async fn watches_show_what_is_in_the_scope_and_what_leaves_it() {
    let mut fleet = Fleet::new().await;
    let ann = principal(Role::Viewer, "tenant=a");
    let request = by(&ann, pb::WatchMachinesRequest::default());
    let mut machines = fleet.api.machines.watch_machines(request).await.unwrap().into_inner();
    let mut next = async || machines.message().await.unwrap().unwrap();
    let first = next().await;
    assert_eq!(first.snapshot.unwrap().machine_id, "m-inn");
    assert_eq!(next().await.r#type(), pb::MachineEventType::Synced);
    let secret = [("tenant", "b"), ("secret", "of b")];
    fleet.api.machines.update_machine(relabelled("m-out", &[("secret", "x")])).await.unwrap();
    fleet.api.machines.update_machine(relabelled("m-inn", &secret)).await.unwrap();
    let gone = next().await;
    assert_eq!(gone.r#type(), pb::MachineEventType::Removed);
    let only_id = pb::Machine { machine_id: "m-inn".to_owned(), ..Default::default() };
    assert_eq!((gone.snapshot, gone.message.as_str()), (Some(only_id), ""));
    assert!(gone.entries.is_empty() && gone.ts.is_some() && gone.revision > 0);
    fleet.api.machines.update_machine(relabelled("m-out", &[("tenant", "a")])).await.unwrap();
    let come = next().await;
    assert_eq!(come.r#type(), pb::MachineEventType::Change);
    assert_eq!(come.snapshot.unwrap().labels["tenant"], "a");

    let request = by(&ann, pb::WatchRunsRequest::default());
    let mut runs = fleet.api.runs.watch_runs(request).await.unwrap().into_inner();
    let mut next = async || runs.message().await.unwrap().unwrap();
    assert_eq!(next().await.snapshot.unwrap().run_id, fleet.run_in);
    assert_eq!(next().await.r#type(), pb::RunEventType::Synced);
    // One of b, then one of a.
    for id in ["m-inn", "m-out"] {
        let run = fleet.api.start(id, "plan/reboot").await.unwrap();
        fleet.api.finished(&run.run_id).await;
    }
    let event = next().await;
    assert_eq!(event.snapshot.unwrap().machine_id, "m-out");
    let pinned = pb::WatchRunsRequest {
        filter: format!("run_id = {}", fleet.run_out),
        ..Default::default()
    };
    let refused = fleet.api.runs.watch_runs(by(&ann, pinned)).await.map(|_| ());
    assert_eq!(refusal(refused).0, Code::NotFound);
}

/// A request id belongs to a scope: another one neither gets its answer nor learns that it was used.
#[tokio::test(start_paused = true)]
async fn request_ids_do_not_cross_scopes_and_outlive_their_object() {
    let mut fleet = Fleet::new().await;
    let (ann, bob) = (principal(Role::Admin, "tenant=a"), principal(Role::Admin, "rack=r1"));
    let start = |plan: &str| pb::StartRunRequest {
        request_id: "once".to_owned(),
        machine_id: "m-inn".to_owned(),
        plan_id: plan.to_owned(),
        ..Default::default()
    };
    let first = fleet.api.runs.start_run(by(&ann, start("plan/reboot"))).await.unwrap();
    let first = fleet.api.finished(&first.into_inner().run_id).await;
    let again = fleet.api.runs.start_run(by(&ann, start("plan/reboot"))).await.unwrap();
    assert_eq!(again.into_inner().run_id, first.run_id);
    let other = fleet.api.runs.start_run(by(&bob, start("plan/reboot"))).await.unwrap();
    let other = fleet.api.finished(&other.into_inner().run_id).await;
    assert_ne!(other.run_id, first.run_id);
    // Who made a request gets its answer again, though the machine has left the scope.
    fleet.api.machines.update_machine(relabelled("m-inn", &[("tenant", "b")])).await.unwrap();
    let again = fleet.api.runs.start_run(by(&ann, start("plan/reboot"))).await.unwrap();
    assert_eq!(again.into_inner().run_id, first.run_id);
    let another = fleet.api.runs.start_run(by(&ann, start("plan/upgrade"))).await;
    assert_eq!(refusal(another), (Code::NotFound, "NOT_FOUND".to_owned()));
}

/// Whom a scope keeps from something is in the audit, and the entries do not say what is there and what is not.
#[tokio::test(start_paused = true)]
async fn what_a_scope_refuses_is_in_the_audit() {
    let mut fleet = Fleet::new().await;
    let (ann, everyone) = (principal(Role::Admin, "tenant=a"), principal(Role::Admin, ""));
    for id in ["m-out", NO_MACHINE] {
        let get = pb::GetMachineRequest { machine_id: id.to_owned(), ..Default::default() };
        fleet.api.machines.get_machine(by(&ann, get)).await.unwrap_err();
        let register = registering(id, "b");
        fleet.api.machines.register_machine(by(&ann, register)).await.unwrap_err();
    }
    let moved = relabelled("m-inn", &[("tenant", "b")]);
    fleet.api.machines.update_machine(by(&ann, moved)).await.unwrap_err();
    // Denials are written up to a second later.
    fleet.api.engine.clock().sleep(std::time::Duration::from_secs(3)).await;
    let mut audit = AuditServiceClient::new(routes(fleet.api.engine.clone()));
    let request = by(&everyone, pb::ListAuditRequest { page_size: 1000, ..Default::default() });
    let entries = audit.list_audit(request).await.unwrap().into_inner().entries;
    let denied = entries.iter().filter(|entry| entry.decision == "denied");
    let denied: Vec<_> = denied
        .map(|entry| {
            let id = entry.objects[0].strip_prefix("machines/").unwrap();
            format!("{} {} {}", entry.rpc, id, entry.reason.replace(id, "_"))
        })
        .collect();
    let register = "may not register machine _: its labels must be in the scope tenant=a, and its id and MAC addresses free";
    assert_eq!(
        denied,
        [
            "GetMachine m-out machine \"_\" not found".to_owned(),
            format!("RegisterMachine m-out ann {register}"),
            format!("GetMachine {NO_MACHINE} machine \"_\" not found"),
            format!("RegisterMachine {NO_MACHINE} ann {register}"),
            "UpdateMachine m-inn ann may not change the label tenant of machine _: the scope tenant=a depends on it"
                .to_owned(),
        ]
    );
}
