//! Histories of concurrent requests to one machine, through kills of the server, are linearizable: the answers are as
//! if each request took effect at one instant between its call and its answer.
//!
//! 3 histories; 30 with `BMDEMO_PROOF=full`; `BMDEMO_HISTORIES=n` for another number.

mod checker;
mod machine;

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use self::checker::{Event, refute};
use self::machine::{MachineModel, Operation, PHASES, Refused};
use crate::runs::register;
use crate::support::{Server, repeats, seed, within};

const MACHINES: usize = 2;
const CLIENTS: usize = 6;
const REQUESTS_OF_A_CLIENT: usize = 50;
const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_a_machine_are_linearizable_through_restarts() {
    for round in 0..repeats("BMDEMO_HISTORIES", 3, 30) {
        let seed = seed(round as u64);
        let histories = histories(seed).await;
        for (machine, history) in histories.iter().enumerate() {
            assert!(history.len() > REQUESTS_OF_A_CLIENT, "only {} requests", history.len());
            if let Some(why) = refute(&MachineModel, history) {
                let lines: Vec<_> = history.iter().map(|event| format!("{event:?}")).collect();
                let number = machine + 1;
                panic!("seed {seed}, machine-{number}: {why}\nhistory:\n{}", lines.join("\n"));
            }
        }
    }
}

/// What the clients of one history share.
struct Shared {
    /// Order of calls and answers.
    ticks: AtomicU64,
    histories: Mutex<Vec<Vec<Event<Operation>>>>,
    /// The run that was started last on each machine.
    latest: Mutex<Vec<Option<String>>>,
    channels: watch::Receiver<Channel>,
}

/// The history of each machine.
async fn histories(seed: u64) -> Vec<Vec<Event<Operation>>> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let quiet = ["--log-level", "error"];
    let args = ["--port", "0", "--fake-timing", "0.04", "--data-dir", data];
    let args = [&args[..], &quiet].concat();
    let mut random = SplitMix64::new(seed);
    let mut server = Server::start(&args).await;
    register(&server.channel().await, MACHINES).await;
    let (publish, channels) = watch::channel(server.channel().await);
    let shared = Arc::new(Shared {
        ticks: AtomicU64::new(0),
        histories: Mutex::new((0..MACHINES).map(|_| Vec::new()).collect()),
        latest: Mutex::new(vec![None; MACHINES]),
        channels,
    });
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask(client, SplitMix64::new(random.next_u64()), shared.clone()));
    }
    let clock = SystemClock::new();
    for _ in 0..KILLS {
        clock.sleep(Duration::from_millis(50 + random.below(200))).await;
        server.signal("KILL").await;
        server.ended().await;
        server = Server::start(&args).await;
        publish.send_replace(server.channel().await);
    }
    within("clients end", clients.join_all()).await;
    std::mem::take(&mut *shared.histories.lock().unwrap())
}

/// Sends random requests, each until it is answered.
async fn ask(client: usize, mut random: SplitMix64, shared: Arc<Shared>) {
    let clock = SystemClock::new();
    for number in 0..REQUESTS_OF_A_CLIENT {
        let machine = usize::try_from(random.below(MACHINES as u64)).unwrap();
        let request_id = format!("{client}-{number}");
        let latest = shared.latest.lock().unwrap()[machine].clone();
        let question = match (random.below(10), latest) {
            (0..=2, _) => Question::Start,
            (3..=4, Some(run)) => Question::Cancel(run),
            (5..=6, _) => Question::SetPhase(PHASES[usize::try_from(random.below(4)).unwrap()]),
            _ => Question::Get,
        };
        let asked = shared.ticks.fetch_add(1, SeqCst);
        let operation = loop {
            let channel = shared.channels.borrow().clone();
            match question.put(channel, machine, &request_id).await {
                Ok(operation) => break operation,
                // It is unknown whether it happened: the client continues until a request tells.
                Err(_) => clock.sleep(Duration::from_millis(5)).await,
            }
        };
        let answered = shared.ticks.fetch_add(1, SeqCst);
        if let Operation::Started(run) = &operation {
            shared.latest.lock().unwrap()[machine] = Some(run.clone());
        }
        let event = Event { asked, answered, operation };
        shared.histories.lock().unwrap()[machine].push(event);
        clock.sleep(Duration::from_millis(random.below(10))).await;
    }
}

/// Requests of a client.
enum Question {
    Start,
    Cancel(String),
    SetPhase(pb::Phase),
    Get,
}

impl Question {
    /// The operation with its answer, or an error that leaves open whether it happened.
    async fn put(
        &self,
        channel: Channel,
        machine: usize,
        request_id: &str,
    ) -> Result<Operation, Status> {
        let machine_id = format!("machine-{}", machine + 1);
        let request_id = request_id.to_owned();
        let mut machines = MachineServiceClient::new(channel.clone());
        let mut runs = RunServiceClient::new(channel);
        match self {
            Self::Start => {
                let plan_id = "plan/reboot".to_owned();
                let request =
                    pb::StartRunRequest { request_id, machine_id, plan_id, ..Default::default() };
                match runs.start_run(request).await {
                    Ok(run) => Ok(Operation::Started(run.into_inner().run_id)),
                    Err(status) => refusal(status).map(Operation::StartRefused),
                }
            }
            Self::Cancel(run_id) => {
                let run_id = run_id.clone();
                let request = pb::CancelRunRequest { request_id, run_id, ..Default::default() };
                let run = runs.cancel_run(request).await?.into_inner();
                let has_ended =
                    !matches!(run.phase(), pb::RunPhase::Pending | pb::RunPhase::Running);
                Ok(Operation::Canceled { run: run.run_id, has_ended })
            }
            Self::SetPhase(phase) => {
                let mut machine = pb::Machine { machine_id, ..Default::default() };
                machine.status.get_or_insert_default().set_phase(*phase);
                let paths = vec!["status.phase".to_owned()];
                let request = pb::UpdateMachineRequest {
                    machine: Some(machine),
                    update_mask: Some(prost_types::FieldMask { paths }),
                    request_id,
                    ..Default::default()
                };
                match machines.update_machine(request).await {
                    Ok(_) => Ok(Operation::PhaseSet(*phase)),
                    Err(status) => Ok(Operation::PhaseRefused(*phase, refusal(status)?)),
                }
            }
            Self::Get => {
                let request = pb::GetMachineRequest { machine_id, ..Default::default() };
                let status = machines.get_machine(request).await?.into_inner().status.unwrap();
                let active = Some(status.active_run_id.clone()).filter(|run| !run.is_empty());
                Ok(Operation::Seen { phase: status.phase(), active })
            }
        }
    }
}

/// A definite refusal, or the original error.
fn refusal(status: Status) -> Result<Refused, Status> {
    if status.code() != Code::FailedPrecondition {
        return Err(status);
    }
    let details = status.get_error_details();
    match details.error_info().map(|info| info.reason.as_str()) {
        Some("RUN_ACTIVE") => Ok(Refused::RunActive),
        Some("ILLEGAL_PHASE") => Ok(Refused::IllegalPhase),
        _ => panic!("{status:?}"),
    }
}
