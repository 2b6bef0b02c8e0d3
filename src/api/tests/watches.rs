//! `WatchRuns` and `StreamRunLogs` over the wire format.

use super::*;

fn watch(filter: &str) -> pb::WatchRunsRequest {
    pb::WatchRunsRequest { filter: filter.to_owned(), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_one_run_reports_everything_and_ends() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let run = api.start("m-1", "reboot").await.unwrap();
    let filter = format!("run_id={}", run.run_id);
    let mut events = api.runs.watch_runs(watch(&filter)).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        all.push(event);
    }
    assert_eq!(all[0].r#type(), pb::RunEventType::Snapshot);
    assert_eq!((all[0].revision, all[0].message.as_str()), (0, ""));
    assert_eq!(all[1].r#type(), pb::RunEventType::Synced);
    assert!(all[1].snapshot.is_none() && all[1].revision > 0);
    assert!(all[2..].iter().all(|event| event.r#type() == pb::RunEventType::Change));
    assert!(all[1..].is_sorted_by(|a, b| a.revision < b.revision));
    let last = all.last().unwrap();
    assert_eq!(last.snapshot.as_ref().unwrap().phase(), pb::RunPhase::Succeeded);
    assert!(last.entries.iter().any(|entry| entry.kind == "run.succeeded"), "{last:?}");
    assert!(!last.message.is_empty());

    // From the middle, the same events come again.
    let resume_from = all[2].revision;
    let request = pb::WatchRunsRequest { resume_from, ..watch(&filter) };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    let mut rest = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        rest.push(event.revision);
    }
    assert_eq!(rest, all[3..].iter().map(|event| event.revision).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_leaves_the_filter_is_removed() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let request = pb::WatchRunsRequest { changes_only: true, ..watch("phase=RUNNING") };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().r#type(), pb::RunEventType::Synced);
    let run = api.start("m-1", "reboot").await.unwrap();
    loop {
        let event = events.message().await.unwrap().unwrap();
        let snapshot = event.snapshot.clone().unwrap();
        assert_eq!(snapshot.run_id, run.run_id);
        if event.r#type() == pb::RunEventType::Removed {
            assert_eq!(snapshot.phase(), pb::RunPhase::Succeeded);
            break;
        }
        assert_eq!(snapshot.phase(), pb::RunPhase::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_where_they_are_allowed() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let request = pb::WatchRunsRequest { allow_bookmarks: true, ..watch("") };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().r#type(), pb::RunEventType::Synced);
    let event = events.message().await.unwrap().unwrap();
    assert_eq!((event.r#type(), event.revision), (pb::RunEventType::Bookmark, 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_says_at_once_what_it_cannot_do() {
    let mut api = Api::new().await;
    let unknown = "run_id=0190f5fe-7c00-7a00-8000-000000000000";
    let result = api.runs.watch_runs(watch(unknown)).await;
    assert_eq!(refusal(result.map(|_| ())), (Code::NotFound, "NOT_FOUND".to_owned()));
    let result = api.runs.watch_runs(watch("run_id=7")).await;
    assert_eq!(refusal(result.map(|_| ())).0, Code::InvalidArgument);
    let request = pb::WatchRunsRequest { resume_from: 99, ..watch("") };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    let (code, reason) = refusal(events.message().await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
}

/// A store that was replaced or restored has another history: what a client saw there must go.
#[tokio::test(start_paused = true)]
async fn a_revision_that_is_not_reached_yet_is_a_reset_where_one_is_allowed() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let resume_from = api.engine.store().revisions().await.unwrap().0.0 + 1;
    for changes_only in [false, true] {
        let request = pb::WatchMachinesRequest {
            resume_from,
            allow_reset: true,
            changes_only,
            ..Default::default()
        };
        let mut events = api.machines.watch_machines(request).await.unwrap().into_inner();
        for kind in [
            pb::MachineEventType::Reset,
            pb::MachineEventType::Snapshot,
            pb::MachineEventType::Synced,
        ] {
            let event = events.message().await.unwrap().unwrap();
            assert_eq!(event.r#type(), kind);
            assert_eq!(event.snapshot.is_some(), kind == pb::MachineEventType::Snapshot);
        }
    }
    let newest = resume_from - 1;
    let request =
        pb::WatchMachinesRequest { resume_from: newest, allow_reset: true, ..Default::default() };
    let mut events = api.machines.watch_machines(request).await.unwrap().into_inner();
    api.register("m-2").await;
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(
        event.r#type(),
        pb::MachineEventType::Change,
        "nothing is lost, so nothing is reset"
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_history_is_an_error_or_a_reset() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    for _ in 0..2 {
        let run = api.start("m-1", "reboot").await.unwrap();
        api.finished(&run.run_id).await;
    }
    // History that a watch has read is cached for others that lag, but not longer than the store keeps it.
    let mut before = api
        .runs
        .watch_runs(pb::WatchRunsRequest { resume_from: 1, ..watch("") })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(before.message().await.unwrap().unwrap().r#type(), pb::RunEventType::Change);
    let everything = crate::store::Retention {
        ended_before: START.plus_ms(u64::MAX / 2),
        ended_runs_max: 0,
        machine_changes_max: u64::MAX,
        requests_before: START,
        audit_before: START,
        audit_max: u64::MAX,
    };
    while api.engine.store().trim(everything).await.unwrap() != Default::default() {}
    let (_, oldest) = api.engine.store().revisions().await.unwrap();
    assert!(oldest.0 > 1, "something was forgotten");
    let request = pb::WatchRunsRequest { resume_from: 1, ..watch("") };
    let status = api.runs.watch_runs(request.clone()).await.map(|_| ()).unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::OutOfRange, "REVISION_COMPACTED"));
    assert_eq!(info.metadata["oldest"], oldest.to_string());
    let request = pb::WatchRunsRequest { allow_reset: true, ..request };
    let mut events = api.runs.watch_runs(request).await.unwrap().into_inner();
    for kind in [pb::RunEventType::Reset, pb::RunEventType::Synced] {
        assert_eq!(events.message().await.unwrap().unwrap().r#type(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_ends_with_its_run() {
    let mut api = Api::new().await;
    api.register("m-1").await;
    let run_id = api.start("m-1", "rma").await.unwrap().run_id;
    let follow = |request: pb::StreamRunLogsRequest| pb::StreamRunLogsRequest {
        run_id: run_id.clone(),
        ..request
    };
    let request = follow(pb::StreamRunLogsRequest { follow: true, ..Default::default() });
    let mut chunks = api.runs.stream_run_logs(request).await.unwrap().into_inner();
    let mut followed = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        followed.push(chunk);
    }
    let offsets: Vec<_> = followed.iter().map(|chunk| chunk.offset).collect();
    assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>());
    assert!(!offsets.is_empty());
    let request = follow(pb::StreamRunLogsRequest { offset: 1, ..Default::default() });
    let mut chunks = api.runs.stream_run_logs(request).await.unwrap().into_inner();
    let mut stored = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        stored.push(chunk);
    }
    assert_eq!(stored, followed[1..]);
    let request = pb::StreamRunLogsRequest { run_id: START.0.to_string(), ..Default::default() };
    let bad = api.runs.stream_run_logs(request).await.map(|_| ());
    assert_eq!(refusal(bad), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
}
