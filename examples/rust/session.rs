//! A session with bmdemo: register, start, watch over a restart of the server, and read typed errors.
//!
//! `cargo run --example session -- ADDRESS:PORT`. Ends with 0 only if everything that it shows held.

#![expect(clippy::print_stdout, reason = "a session shows what it does")]
#![expect(clippy::disallowed_methods, reason = "a client chooses its own request ids")]

use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How long to try to reach a lost server.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("ok  {what}");
    Ok(())
}

/// A request with a deadline, without which a call waits forever.
fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn retry_delay(status: &Status) -> Duration {
    let delay = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    delay.unwrap_or(Duration::from_millis(200))
}

/// Whether the connection broke, as opposed to a refusal by the server.
///
/// A status that tonic made from a broken transport has a source; one that the server sent has none.
fn is_away(status: &Status) -> bool {
    let broken = std::error::Error::source(status).is_some()
        && matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    status.code() == Code::Unavailable || broken
}

/// Waits for an unreachable server, for as long as that makes sense.
#[derive(Debug)]
struct Patience {
    clock: SystemClock,
    lost_at: Option<Duration>,
}

impl Patience {
    fn new() -> Self {
        Self { clock: SystemClock::new(), lost_at: None }
    }

    fn found(&mut self) {
        self.lost_at = None;
    }

    async fn wait_after(&mut self, status: Status) -> Result<(), Status> {
        let now = self.clock.monotonic();
        let lost_at = *self.lost_at.get_or_insert(now);
        if !is_away(&status) || now - lost_at > RECONNECT_LIMIT {
            return Err(status);
        }
        self.clock.sleep(retry_delay(&status)).await;
        Ok(())
    }
}

/// Repeats a call while the server is unreachable. Safe for mutations too: they carry a `request_id`.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut patience = Patience::new();
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => patience.wait_after(status).await?,
        }
    }
}

/// The details of the error that a call must have ended with.
fn refused<T>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> Result<ErrorDetails, Failure> {
    let Err(status) = result else {
        return Err(format!("does not hold: {reason} was to be refused").into());
    };
    let details = status.get_error_details();
    let info = details.error_info();
    let is_ours = info.is_some_and(|info| info.domain == "baremetal.v1" && info.reason == reason);
    expect(status.code() == code && is_ours, &format!("{code:?} with the reason {reason}"))?;
    Ok(details)
}

/// Follows a run to its end, whatever happens to the connection. Returns it, and how often the watch was resumed.
async fn follow(
    runs: &RunServiceClient<Channel>,
    run_id: &str,
) -> Result<(Option<pb::Run>, u32), Failure> {
    let (mut revision, mut resumed, mut last) = (0, 0, None::<pb::Run>);
    let mut patience = Patience::new();
    loop {
        let status = match watch(runs, run_id, &mut revision, &mut last, &mut patience).await {
            Ok(()) => return Ok((last, resumed)),
            Err(status) => status,
        };
        patience.wait_after(status).await?;
        resumed += 1;
    }
}

async fn watch(
    runs: &RunServiceClient<Channel>,
    run_id: &str,
    revision: &mut u64,
    last: &mut Option<pb::Run>,
    patience: &mut Patience,
) -> Result<(), Status> {
    let request = pb::WatchRunsRequest {
        filter: format!("run_id={run_id}"),
        resume_from: *revision,
        ..Default::default()
    };
    let mut events = runs.clone().watch_runs(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        patience.found();
        if event.revision != 0 {
            *revision = event.revision;
        }
        // A watch that broke before SYNCED starts over, with a state that may have been shown.
        let shown = last.as_ref().map_or(0, |run| run.revision);
        if let Some(run) = event.snapshot.filter(|run| run.revision > shown) {
            let what = if event.message.is_empty() { "as it is" } else { &event.message };
            println!("    {} {what}", run.revision);
            *last = Some(run);
        }
    }
    Ok(())
}

fn start(machine_id: &str, run_type: pb::RunType) -> pb::StartRunRequest {
    pb::StartRunRequest {
        machine_id: machine_id.to_owned(),
        r#type: run_type.into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    }
}

async fn session(address: &str) -> Result<(), Failure> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    let machines = MachineServiceClient::new(channel.clone());
    let runs = RunServiceClient::new(channel);
    let random = uuid::Uuid::new_v4().simple().to_string();
    let machine_id = format!("rust-{}", &random[..8]);

    let registration = pb::RegisterMachineRequest {
        machine: Some(pb::Machine {
            machine_id: machine_id.clone(),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            ..Default::default()
        }),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let machine = patiently(|| {
        let (mut machines, request) = (machines.clone(), timely(registration.clone()));
        async move { machines.register_machine(request).await }
    })
    .await?;
    let phase = machine.status.unwrap_or_default().phase();
    expect(phase == pb::Phase::FactoryReady, &format!("{machine_id} is registered"))?;

    let start_run = |message: pb::StartRunRequest| {
        let runs = runs.clone();
        async move {
            patiently(|| {
                let (mut runs, request) = (runs.clone(), timely(message.clone()));
                async move { runs.start_run(request).await }
            })
            .await
        }
    };
    let repave = start(&machine_id, pb::RunType::Repave);
    let run = start_run(repave.clone()).await?;
    let again = start_run(repave).await?;
    expect(run.run_id == again.run_id, "the same request_id is the same run")?;

    let second = start_run(start(&machine_id, pb::RunType::Reboot)).await;
    let details = refused(second, Code::FailedPrecondition, "RUN_ACTIVE")?;
    let active = details.error_info().and_then(|info| info.metadata.get("active_run_id"));
    expect(active == Some(&run.run_id), "the error names the active run")?;

    println!("watching {}", run.run_id);
    let (last, resumed) = follow(&runs, &run.run_id).await?;
    println!("resumed {resumed} times");
    let last = last.ok_or("the watch ended without an event")?;
    let succeeded = last.phase() == pb::RunPhase::Succeeded;
    expect(succeeded, "the watch ends by itself when the run has succeeded")?;
    let done = |step: &pb::StepStatus| step.state() == pb::StepState::Succeeded;
    let names: Vec<&str> = last.steps.iter().map(|step| step.name.as_str()).collect();
    let all = names == ["set-netboot", "repave", "mint-join", "join", "verify"];
    expect(all && last.steps.iter().all(done), "all five steps succeeded")?;

    let get = |machine_id: &str| {
        let message = pb::GetMachineRequest { machine_id: machine_id.to_owned(), read_mask: None };
        let machines = machines.clone();
        patiently(move || {
            let (mut machines, request) = (machines.clone(), timely(message.clone()));
            async move { machines.get_machine(request).await }
        })
    };
    let state = get(&machine_id).await?.status.unwrap_or_default().effective_state();
    expect(state == pb::EffectiveState::InService, "the machine is in service")?;

    let mut bad = registration;
    if let Some(machine) = &mut bad.machine {
        machine.machine_id = "No Id!".to_owned();
        let spec = machine.spec.get_or_insert_default();
        spec.mac_addresses = vec!["02:zz".to_owned()];
    }
    let result = machines.clone().register_machine(timely(bad)).await;
    let details = refused(result, Code::InvalidArgument, "FIELD_INVALID")?;
    let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let wanted = ["machine.machine_id", "machine.spec.mac_addresses[0]"];
    expect(fields == wanted, "every wrong field is named")?;

    let details = refused(get("nowhere").await, Code::NotFound, "NOT_FOUND")?;
    let named = details.resource_info().is_some_and(|info| info.resource_name.ends_with("nowhere"));
    expect(named, "the error names what is missing")?;
    println!("session complete");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let Some(address) = std::env::args().nth(1) else {
        return Err("usage: session ADDRESS:PORT".into());
    };
    session(&address).await
}
