//! Paging, filters, plans and history.

use proptest::prelude::*;

use super::*;
use crate::clock::SplitMix64;

#[tokio::test(start_paused = true)]
async fn plans_are_listed_and_found_with_or_without_their_prefix() {
    let mut api = Api::new().await;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListPlansRequest { page_size: 2, page_token, ..Default::default() };
        let page = api.plans.list_plans(request).await.unwrap().into_inner();
        ids.extend(page.plans.into_iter().map(|plan| plan.plan_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all = ["plan/net-reconfig", "plan/reboot", "plan/repave-join", "plan/rma", "plan/upgrade"];
    assert_eq!(ids, all);
    for plan_id in ["plan/rma", "rma"] {
        let request = pb::GetPlanRequest { plan_id: plan_id.to_owned() };
        let plan = api.plans.get_plan(request).await.unwrap().into_inner();
        let steps: Vec<_> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["drain", "wipe", "notify"]);
        assert!(plan.destructive && plan.is_default && plan.digest.starts_with("sha256:"));
        assert_eq!(plan.result_phase(), pb::Phase::Rma);
    }
    let request = pb::GetPlanRequest { plan_id: "plan/repave-jion".to_owned() };
    let status = api.plans.get_plan(request).await.unwrap_err();
    let details = status.get_error_details();
    let hint = &details.error_info().unwrap().metadata["hint"];
    assert_eq!((status.code(), hint.as_str()), (Code::NotFound, "did you mean plan/repave-join?"));
}

#[tokio::test(start_paused = true)]
async fn filters_choose_and_bind_the_page_token() {
    let mut api = Api::new().await;
    for id in ["m-1", "m-2", "m-10"] {
        api.register(id).await;
    }
    let list = |filter: &str, page_size, page_token: &str| pb::ListMachinesRequest {
        filter: filter.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let ids = |page: &pb::ListMachinesResponse| {
        page.machines.iter().map(|machine| machine.machine_id.clone()).collect::<Vec<_>>()
    };
    let page =
        api.machines.list_machines(list("machine_id=m-2", 0, "")).await.unwrap().into_inner();
    assert_eq!(ids(&page), ["m-2"]);
    let page = api.machines.list_machines(list("phase=READY", 0, "")).await.unwrap().into_inner();
    assert!(page.machines.is_empty() && page.next_page_token.is_empty());
    let first = api.machines.list_machines(list("", 2, "")).await.unwrap().into_inner();
    assert_eq!(ids(&first), ["m-1", "m-2"]);
    let token = first.next_page_token;
    let other = api.machines.list_machines(list("phase=READY", 2, &token)).await;
    assert_eq!(refusal(other), (Code::InvalidArgument, "PAGE_TOKEN_MISMATCH".to_owned()));
    let bad = api.machines.list_machines(list("", 2, "nonsense")).await;
    assert_eq!(refusal(bad), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
    let bad = api.machines.list_machines(list("phase~READY", 2, "")).await;
    assert_eq!(refusal(bad), (Code::InvalidArgument, "FILTER_INVALID".to_owned()));
    let last = api.machines.list_machines(list("", 2, &token)).await.unwrap().into_inner();
    assert_eq!((ids(&last), last.next_page_token.as_str()), (vec!["m-10".to_owned()], ""));
}

/// A typing mistake is not taken for an empty history.
#[tokio::test(start_paused = true)]
async fn a_kind_that_no_entry_has_is_refused() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let ask = |kind: &str| pb::ListHistoryRequest { kind: kind.to_owned(), ..Default::default() };
    for (kind, count) in [("", 1), ("machine", 1), ("machine.registered", 1), ("run.failed", 0)] {
        let page = api.machines.list_history(ask(kind)).await.unwrap().into_inner();
        assert_eq!(page.entries.len(), count, "{kind}");
    }
    for (kind, why) in [
        ("run.fialed", "did you mean run.failed? the kinds of run are run.created, run.started,"),
        ("pahse", "did you mean phase? kinds begin with machine, phase, condition,"),
        ("nonsense", "is no kind of entry: kinds begin with machine, phase,"),
        ("run.", "the kinds of run are run.created"),
        ("machine.reg", "the kinds of machine are machine.registered,"),
    ] {
        let status = api.machines.list_history(ask(kind)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{kind}");
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "kind");
        assert!(violation.description.contains(why), "{kind}: {}", violation.description);
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_paged_from_the_oldest() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let run = api.start("m-1", "reboot").await.unwrap();
    api.finished(&run.run_id).await;
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let machine_id = "m-1".to_owned();
        let request = pb::ListMachineHistoryRequest { machine_id, page_size: 2, page_token };
        let page = api.machines.list_machine_history(request).await.unwrap().into_inner();
        assert!(page.entries.len() <= 2);
        listed.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let request = pb::ListMachineHistoryRequest {
        machine_id: "m-1".to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let whole = api.machines.list_machine_history(request).await.unwrap().into_inner();
    assert_eq!(listed, whole.entries);
    assert_eq!(listed[0].kind, "machine.registered");
    let request = pb::ListRunHistoryRequest { run_id: run.run_id.clone(), ..Default::default() };
    let of_run = api.runs.list_run_history(request).await.unwrap().into_inner().entries;
    assert_eq!(of_run[0].kind, "run.created");
    assert_eq!(of_run.last().unwrap().kind, "run.succeeded");
    assert!(of_run.iter().all(|entry| entry.run_id == run.run_id));
}

/// Pages of random sizes while machines come and go: a machine that exists all the time is seen exactly once, in
/// order.
async fn paging(seed: u64) -> Result<(), TestCaseError> {
    let mut random = SplitMix64::new(seed);
    let mut api = Api::new().await;
    for number in 0..20 {
        api.register(&format!("m-{number}")).await;
    }
    let mut removed = Vec::new();
    let mut seen = Vec::new();
    let mut page_token = String::new();
    let mut added = 20;
    loop {
        let page_size = 1 + i32::try_from(random.below(6)).unwrap();
        let request = pb::ListMachinesRequest { page_size, page_token, ..Default::default() };
        let page = api.machines.list_machines(request).await.unwrap().into_inner();
        seen.extend(page.machines.into_iter().map(|machine| machine.machine_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        if random.chance(1, 2) && added < 30 {
            api.register(&format!("m-{added}")).await;
            added += 1;
        }
        let victim = format!("m-{}", random.below(20));
        if random.chance(1, 2) && !removed.contains(&victim) {
            let id = crate::ids::MachineId::parse(&victim).unwrap();
            let stored = api.engine.machine(&id).await.unwrap();
            let deletion = crate::store::Write::deletion(stored, Vec::new());
            api.engine.store().commit(crate::store::Batch::of(deletion)).await.unwrap();
            removed.push(victim);
        }
    }
    let number = |id: &str| id.trim_start_matches("m-").parse::<u64>().unwrap();
    prop_assert!(seen.is_sorted_by(|a, b| number(a) < number(b)), "{seen:?}");
    for stayed in (0..20).map(|n| format!("m-{n}")).filter(|id| !removed.contains(id)) {
        prop_assert!(seen.contains(&stayed), "{stayed} is missing from {seen:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pages_equal_a_full_scan_under_writes(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(paging(seed))?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_never_larger_than_an_answer_may_be() {
    let mut api = Api::new().await;
    let value = "v".repeat(256);
    let labels = |n: usize| {
        let prefix = vec!["p".repeat(62); 4].join(".");
        (0..64).map(|label| (format!("{prefix}/{n}-{label}"), value.clone())).collect()
    };
    const MACHINES: usize = 200;
    for n in 0..MACHINES {
        let mut request = registration(&format!("m-{n}"));
        request.machine.as_mut().unwrap().labels = labels(n);
        api.machines.register_machine(request).await.unwrap();
    }
    let mut request = pb::ListMachinesRequest { page_size: 1000, ..Default::default() };
    let (mut pages, mut seen) = (0, Vec::new());
    loop {
        let page = api.machines.list_machines(request.clone()).await.unwrap().into_inner();
        pages += 1;
        seen.extend(page.machines.into_iter().map(|machine| machine.machine_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let wanted: Vec<_> = (0..MACHINES).map(|n| format!("m-{n}")).collect();
    assert_eq!((pages > 1, seen), (true, wanted));
}
