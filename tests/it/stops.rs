//! Everything is stopped under 500 active runs, by a server that is then killed.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::lock_service_client::LockServiceClient;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::provider::fake;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::runs::{info, watched};
use crate::support::{Server, within};

const RUNS: usize = 500;

fn machines(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("machine-{number}")).collect()
}

async fn register(channel: &Channel) {
    let machines = machines(RUNS + 1).into_iter().map(|machine_id| pb::Machine {
        machine_id,
        spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
        ..Default::default()
    });
    let request =
        pb::BatchRegisterMachinesRequest { machines: machines.collect(), ..Default::default() };
    let answer = MachineServiceClient::new(channel.clone()).batch_register_machines(request).await;
    assert_eq!(answer.unwrap().into_inner().results.len(), RUNS + 1);
}

async fn active(channel: &Channel) -> Vec<pb::Run> {
    let filter = "phase = PENDING OR phase = RUNNING".to_owned();
    let request = pb::ListRunsRequest { page_size: 1000, filter, ..Default::default() };
    let mut runs = RunServiceClient::new(channel.clone());
    runs.list_runs(request).await.unwrap().into_inner().runs
}

/// Waits until the active runs are as `wanted` says.
async fn until(channel: &Channel, what: &str, wanted: impl Fn(&[pb::Run]) -> bool) {
    let clock = SystemClock::new();
    within(what, async {
        while !wanted(&active(channel).await) {
            clock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

fn is_stopped(run: &pb::Run) -> bool {
    run.waiting.as_ref().is_some_and(|waiting| waiting.reason() == pb::WaitReason::Stopped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_begins_after_a_stop_of_500_runs_not_even_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = ["--port", "0", "--fake-timing", "0.3", "--data-dir", data.to_str().unwrap()];
    let server = Server::start(&args).await;
    let channel = server.channel().await;
    register(&channel).await;
    let request = pb::BatchStartRunsRequest {
        machine_ids: machines(RUNS),
        plan_id: "plan/repave-join".to_owned(),
        ..Default::default()
    };
    RunServiceClient::new(channel.clone()).batch_start_runs(request).await.unwrap();
    // In the middle of the work.
    until(&channel, "many runs are at work", |runs| {
        runs.iter().filter(|run| !run.current_step.is_empty()).count() >= RUNS / 4 * 3
    })
    .await;
    let clock = SystemClock::new();
    let asked = clock.monotonic();
    let request = pb::StopAllRequest { reason: "smoke".to_owned(), ..Default::default() };
    let stop = LockServiceClient::new(channel.clone()).stop_all(request).await.unwrap();
    let (took, stopped_at) = (clock.monotonic() - asked, clock.now());
    eprintln!("the stop was acknowledged after {took:?}");
    // Below a second where little else runs; other tests run beside this one.
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Half of the calls that were sent are still in flight when it is killed, or so.
    let before = active(&channel).await.len();
    assert!(before > RUNS / 2, "only {before} runs were active");
    server.signal("KILL").await;
    server.ended().await;

    let server = Server::start(&args).await;
    let channel = server.channel().await;
    until(&channel, "every run waits", |runs| runs.iter().all(is_stopped)).await;
    let waiting = active(&channel).await;
    assert!(waiting.len() > RUNS / 2, "only {} runs wait", waiting.len());
    for run in &waiting {
        assert!(run.steps.iter().all(|step| !step.overdue), "{run:#?}");
        let why = &run.waiting.as_ref().unwrap().message;
        assert_eq!(why, "everything is stopped by anonymous: smoke");
    }
    let said = info(&channel).await;
    assert_eq!(said.locks, [stop.into_inner()]);
    assert_eq!(said.runs_held_back, waiting.len() as u64);
    let start = pb::StartRunRequest {
        machine_id: format!("machine-{}", RUNS + 1),
        plan_id: "plan/reboot".to_owned(),
        ..Default::default()
    };
    let mut runs = RunServiceClient::new(channel.clone());
    let refused = runs.start_run(start.clone()).await.unwrap_err();
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "STOPPED", "{refused:?}");
    let dry = pb::StartRunRequest { validate_only: true, ..start.clone() };
    assert!(is_stopped(&runs.start_run(dry).await.unwrap().into_inner()));

    let late = |ledger: Vec<fake::LedgerEntry>| {
        let late = ledger.into_iter().filter(|entry| entry.started_at > stopped_at);
        late.map(|entry| entry.operation.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(late(fake::read_ledger(&data).unwrap()), Vec::<String>::new());
    let request = pb::ResumeAllRequest { reason: "it was toast".to_owned(), ..Default::default() };
    LockServiceClient::new(channel.clone()).resume_all(request).await.unwrap();
    for run in &waiting {
        let ended = within("a run ends", watched(channel.clone(), &run.run_id)).await.unwrap();
        assert_eq!(ended.phase(), pb::RunPhase::Succeeded, "{ended:#?}");
    }
    runs.start_run(start).await.unwrap();
    server.signal("TERM").await;
    assert!(server.ended().await.0.success());
    let ledger = fake::read_ledger(&data).unwrap();
    assert!(!late(ledger.clone()).is_empty(), "what was resumed has begun");
    assert_eq!(fake::violations(&ledger), Vec::<String>::new());
    assert_eq!(fake::repeated_steps(&ledger), Vec::<String>::new());
}
