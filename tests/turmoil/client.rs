//! A client that repeats a request until it is answered, with the same request id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bmdemo::clock::{Clock, SplitMix64};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::book::{Mistake, Shared};
use crate::network::{clock, connect, in_time};

const MACHINES: u64 = 2;
const RUNS: usize = 8;

/// Codes of answers that a repetition does not change.
const DEFINITE: [Code; 6] = [
    Code::FailedPrecondition,
    Code::InvalidArgument,
    Code::AlreadyExists,
    Code::NotFound,
    Code::Internal,
    Code::DataLoss,
];

/// Registers its own machines and starts one run after the other on them.
pub(crate) async fn work(
    number: usize,
    random: SplitMix64,
    mistake: Option<Mistake>,
    shared: Shared,
) -> turmoil::Result {
    let name = format!("client-{number}");
    let mut client = Client { name, random, mistake, shared, clock: clock(), channel: None };
    for machine in 0..MACHINES {
        Box::pin(client.register(machine)).await;
    }
    for run in 0..RUNS {
        let machine = client.random.below(MACHINES);
        let run_id = client.start(machine, run).await;
        // Repeated, the answer is the same, whichever server gives it.
        if client.random.chance(1, 3) {
            let again = client.start(machine, run).await;
            if again != run_id {
                client.shared.accuse(format!("asked again, {run_id:?} is {again:?}"));
            }
        }
        if let Some(run_id) = run_id {
            client.wait(&run_id).await;
        }
    }
    client.shared.book().clients_done += 1;
    Ok(())
}

struct Client {
    name: String,
    random: SplitMix64,
    mistake: Option<Mistake>,
    shared: Shared,
    clock: Arc<dyn Clock>,
    channel: Option<Channel>,
}

impl Client {
    fn machine(&self, machine: u64) -> String {
        format!("{}-machine-{machine}", self.name)
    }

    /// Calls until there is an answer: success, or a definite refusal.
    async fn call<Q, A, F>(
        &mut self,
        what: &str,
        request: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        loop {
            let channel = match self.channel.clone() {
                Some(channel) => Some(channel),
                None => connect(&self.clock).await,
            };
            let Some(channel) = channel else {
                self.clock.sleep(Duration::from_millis(20 + self.random.below(100))).await;
                continue;
            };
            self.channel = Some(channel.clone());
            let deadline = Duration::from_millis(20 + self.random.below(800));
            let mut request = Request::new(request.clone());
            request.set_timeout(deadline);
            // If the deadline is not enforced otherwise, the client does it.
            let patience = deadline + Duration::from_millis(500);
            let answer = in_time(&self.clock, patience, call(channel, request)).await;
            let status = match answer {
                Some(Ok(answer)) => return Ok(answer.into_inner()),
                Some(Err(status)) => status,
                None => Status::deadline_exceeded("the deadline was not enforced"),
            };
            self.shared.note(format!("{} {what}: {:?}", self.name, status.code()));
            if DEFINITE.contains(&status.code()) {
                return Err(status);
            }
            self.shared.book().report.unanswered += 1;
            if status.code() != Code::DeadlineExceeded || self.random.chance(1, 2) {
                self.channel = None;
            }
            self.clock.sleep(Duration::from_millis(self.random.below(100))).await;
        }
    }

    async fn register(&mut self, machine: u64) {
        let machine_id = self.machine(machine);
        let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
        let request = pb::RegisterMachineRequest {
            request_id: format!("register-{machine_id}"),
            machine: Some(pb::Machine { machine_id, spec: Some(spec), ..Default::default() }),
            ..Default::default()
        };
        let registered = self.call("register", request, |channel, request| async {
            MachineServiceClient::new(channel).register_machine(request).await
        });
        if let Err(status) = Box::pin(registered).await {
            self.shared.accuse(format!("registering was refused: {status:?}"));
        }
    }

    /// The run that the request created.
    async fn start(&mut self, machine: u64, number: usize) -> Option<String> {
        let request_id = format!("{}-{number}", self.name);
        let machine_id = self.machine(machine);
        let request = pb::StartRunRequest {
            request_id: request_id.clone(),
            machine_id: machine_id.clone(),
            plan_id: "plan/repave-join".to_owned(),
            force: true,
            ..Default::default()
        };
        let mistake = self.mistake;
        let asked = AtomicU64::new(0);
        let started = self.call("start", request, |channel, mut request: Request<_>| {
            if mistake == Some(Mistake::NewRequestId) && asked.fetch_add(1, Relaxed) > 0 {
                request.get_mut().request_id.push_str("-again");
            }
            async move { RunServiceClient::new(channel).start_run(request).await }
        });
        match started.await {
            Ok(run) => {
                self.shared.note(format!("{request_id} is {}", run.run_id));
                let run_id = run.run_id.clone();
                self.shared.book().acknowledged.insert(request_id, (machine_id, run.run_id));
                Some(run_id)
            }
            Err(status) => {
                self.shared.accuse(format!("request {request_id} was refused: {status:?}"));
                None
            }
        }
    }

    /// Waits until a run has ended.
    async fn wait(&mut self, run_id: &str) {
        let request = pb::GetRunRequest { run_id: run_id.to_owned(), ..Default::default() };
        loop {
            let run = self.call("get", request.clone(), |channel, request| async {
                RunServiceClient::new(channel).get_run(request).await
            });
            match run.await.map(|run| run.phase()) {
                Ok(pb::RunPhase::Pending | pb::RunPhase::Running) => {}
                Ok(_) => return,
                Err(status) => {
                    self.shared.accuse(format!("run {run_id} cannot be read: {status:?}"));
                    return;
                }
            }
            self.clock.sleep(Duration::from_millis(50)).await;
        }
    }
}
