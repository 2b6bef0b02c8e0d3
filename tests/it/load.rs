//! Clients that start runs until stopped, and their record of what was acknowledged, outside of any server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};
use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::provider::fake;
use bmdemo::store::sqlite;
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

use crate::runs::register;
use crate::support::{Server, within};

const CLIENTS: usize = 8;
const MACHINES_OF_A_CLIENT: usize = 3;

/// The clients' record: request id -> machine and, once it was acknowledged, run.
type Record = Arc<Mutex<BTreeMap<String, (String, Option<String>)>>>;

/// Clients at work. They continue with the next server when one has gone.
pub(crate) struct Load {
    record: Record,
    publish: watch::Sender<Option<Channel>>,
    clients: tokio::task::JoinSet<()>,
}

impl Load {
    /// Registers machines and starts.
    pub(crate) async fn start(server: &Server, random: &mut SplitMix64) -> Self {
        register(&server.channel().await, CLIENTS * MACHINES_OF_A_CLIENT).await;
        let record = Record::default();
        let (publish, channels) = watch::channel(Some(server.channel().await));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let random = SplitMix64::new(random.next_u64());
            clients.spawn(load(client, random, channels.clone(), record.clone()));
        }
        Self { record, publish, clients }
    }

    /// There is a new server.
    pub(crate) async fn continue_with(&self, server: &Server) {
        self.publish.send_replace(Some(server.channel().await));
    }

    /// There is a new server, and it has recovered the runs that it found; one time in four it has hardly started to.
    ///
    /// A step that is interrupted more than five times before it is observed is held for an operator, so servers must
    /// not be killed repeatedly before they have come that far.
    pub(crate) async fn continue_with_recovered(&self, server: &Server, random: &mut SplitMix64) {
        self.continue_with(server).await;
        if random.below(4) == 0 {
            return;
        }
        let mut client = RunServiceClient::new(server.channel().await);
        let filter = "phase = PENDING OR phase = RUNNING".to_owned();
        let request = pb::ListRunsRequest { page_size: 1000, filter, ..Default::default() };
        let clock = SystemClock::new();
        let recovered = async {
            loop {
                let runs = client.list_runs(request.clone()).await.unwrap().into_inner().runs;
                let waits = |run: &pb::Run| run.waiting.as_ref().map(pb::Waiting::reason);
                if !runs.iter().any(|run| waits(run) == Some(pb::WaitReason::Recovery)) {
                    return;
                }
                clock.sleep(Duration::from_millis(5)).await;
            }
        };
        within("the server recovers", recovered).await;
    }

    /// How many requests were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.record.lock().unwrap().values().filter(|(_, run)| run.is_some()).count()
    }

    /// Stops the clients, and compares their record with the server, its store and the world of the fake provider.
    /// Ends the server.
    pub(crate) async fn judge(mut self, server: Server, data: &Path) -> usize {
        self.publish.send_replace(None);
        within("clients end", async { while self.clients.join_next().await.is_some() {} }).await;

        let channel = server.channel().await;
        let acknowledged = self.acknowledged();
        let record = self.record.lock().unwrap().clone();
        for (request_id, (machine, run)) in &record {
            let Some(run_id) = run else { continue };
            let request = pb::GetRunRequest { run_id: run_id.clone(), ..Default::default() };
            let run =
                RunServiceClient::new(channel.clone()).get_run(request).await.unwrap().into_inner();
            assert_eq!((&run.request_id, &run.machine_id), (request_id, machine));
        }
        let runs = finished(&channel).await;
        let mut by_request = BTreeMap::new();
        let mut interrupted = 0;
        for run in &runs {
            if run.phase() != pb::RunPhase::Succeeded {
                assert_interrupted(&channel, run).await;
                interrupted += 1;
            }
            let twice = by_request.insert((&run.machine_id, &run.request_id), &run.run_id);
            assert_eq!(twice, None, "request {} made two runs", run.request_id);
        }
        eprintln!("{} runs, of which {interrupted} were interrupted too often", runs.len());
        assert!(interrupted * 20 <= runs.len(), "{interrupted} of {} runs failed", runs.len());
        server.signal("TERM").await;
        assert!(server.ended().await.0.success());

        let ledger = fake::read_ledger(data).unwrap();
        assert_eq!(fake::violations(&ledger), Vec::<String>::new());
        assert_eq!(fake::repeated_steps(&ledger), Vec::<String>::new());
        // As the command `check` does, without a time limit.
        assert_eq!(sqlite::check(data).unwrap().problems, Vec::<String>::new());
        // What was acknowledged is in the audit once, and the audit is a chain from its beginning.
        let audit = sqlite::audit_file(data).unwrap();
        let (entries, _) = audit.verify(None).unwrap().unwrap();
        let rows = audit.page(0, usize::MAX).unwrap();
        assert_eq!(rows.len() as u64, entries);
        let mut started = BTreeMap::new();
        for row in rows.iter().filter(|row| row.body.contains("\"rpc\":\"StartRun\"")) {
            let run = row.body.split("\"runs/").nth(1).unwrap().split('"').next().unwrap();
            let twice = started.insert(run.to_owned(), row.seq);
            assert_eq!(twice, None, "{}", row.body);
        }
        let made: std::collections::BTreeSet<_> = runs.iter().map(|run| &run.run_id).collect();
        assert!(started.keys().eq(made), "the runs and the audit differ");
        acknowledged
    }
}

/// The one reason for which a run may fail: one of its steps was interrupted in every attempt that its plan allows,
/// and each time an observation of the machine said that it had not happened.
async fn assert_interrupted(channel: &Channel, run: &pb::Run) {
    assert_eq!(run.phase(), pb::RunPhase::Failed, "{run:#?}");
    let failed = |step: &&pb::StepStatus| step.state() == pb::StepState::Failed;
    let step = run.steps.iter().find(failed).unwrap();
    let run_id = run.run_id.clone();
    let request = pb::ListRunHistoryRequest { run_id, page_size: 1000, ..Default::default() };
    let mut client = RunServiceClient::new(channel.clone());
    let history = client.list_run_history(request).await.unwrap().into_inner().entries;
    let of_step = history.iter().filter(|entry| entry.step == step.name);
    let count = of_step.filter(|entry| entry.kind == "step.outcome-unknown").count();
    let attempts = usize::try_from(step.attempt).unwrap();
    let is_cut_off = step.attempt == step.max_attempts && count >= attempts;
    assert!(is_cut_off, "{run:#?}\n{history:#?}");
}

/// Starts runs on its own machines until there is no server any more. A request without an answer is repeated with
/// the same id.
async fn load(
    client: usize,
    mut random: SplitMix64,
    mut channels: watch::Receiver<Option<Channel>>,
    record: Record,
) {
    let plans = ["plan/repave-join", "plan/upgrade", "plan/reboot", "plan/net-reconfig"];
    let mut number = 0;
    let clock = SystemClock::new();
    loop {
        number += 1;
        let machine = client * MACHINES_OF_A_CLIENT
            + 1
            + usize::try_from(random.below(MACHINES_OF_A_CLIENT as u64)).unwrap();
        let machine_id = format!("machine-{machine}");
        let request_id = format!("client-{client}-{number}");
        let plan = if number <= 3 { 0 } else { random.below(4) };
        let request = pb::StartRunRequest {
            request_id: request_id.clone(),
            machine_id: machine_id.clone(),
            plan_id: plans[usize::try_from(plan).unwrap()].to_owned(),
            force: true,
            ..Default::default()
        };
        record.lock().unwrap().insert(request_id.clone(), (machine_id, None));
        loop {
            let Some(channel) = channels.borrow_and_update().clone() else { return };
            match RunServiceClient::new(channel).start_run(request.clone()).await {
                Ok(run) => {
                    let run_id = run.into_inner().run_id;
                    if let Some(entry) = record.lock().unwrap().get_mut(&request_id) {
                        entry.1 = Some(run_id);
                    }
                    break;
                }
                // Its machine is busy, or not provisioned yet: that is a definite refusal.
                Err(status) if status.code() == Code::FailedPrecondition => {
                    clock.sleep(Duration::from_millis(5)).await;
                    break;
                }
                // No answer: ask the next server.
                Err(_) => {
                    if channels.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Every run, once all have ended.
async fn finished(channel: &Channel) -> Vec<pb::Run> {
    let mut client = RunServiceClient::new(channel.clone());
    let mut runs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListRunsRequest { page_size: 1000, page_token, ..Default::default() };
        let page = client.list_runs(request).await.unwrap().into_inner();
        for run in page.runs {
            let ended = crate::runs::watched(channel.clone(), &run.run_id);
            runs.push(within("a run ends", ended).await.unwrap());
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return runs;
        }
    }
}
