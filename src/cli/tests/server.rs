//! A server that plays runs from a script, with ids and times that count up.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::matching::{matches_machine, matches_run, natural, verdict};
use crate::api::codec::Encoded;
use crate::clock::{Clock as _, SystemClock};
use crate::pb;
use crate::pb::NotificationReceiver as Receiver;
use crate::pb::{RunPhase, StepState};

/// When the server's time begins.
pub(super) const EPOCH_MS: u64 = 1_800_000_000_000;
/// Time that passes at every change.
const TICK_MS: u64 = 250;

/// What the next runs of a machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// The step fails permanently, once.
    Fail(&'static str),
    /// The first attempt of the step fails.
    Retry(&'static str),
    /// The outcome of the step is unknown.
    Hold(&'static str),
    /// The step never ends.
    Hang(&'static str),
}

#[derive(Default)]
pub(super) struct World {
    pub(super) machines: Vec<pb::Machine>,
    pub(super) runs: Vec<pb::Run>,
    pub(super) behaviours: HashMap<String, Behaviour>,
    /// Request ids of every StartRun that arrived.
    pub(super) start_requests: Vec<String>,
    /// Names of those who called.
    pub(super) actors: Vec<String>,
    /// How many StartRun to answer with UNAVAILABLE after having performed them.
    pub(super) unavailable: usize,
    /// Break every watch after this many events.
    pub(super) break_watch_after: Option<usize>,
    events: Vec<pb::RunEvent>,
    ticks: u64,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: String,
    world: Arc<Mutex<World>>,
    revision: watch::Sender<u64>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, world: Arc::default(), revision: watch::Sender::new(0) };
        let router = tonic::transport::Server::builder()
            .add_service(pb::machine_service_server::MachineServiceServer::new(server.clone()))
            .add_service(pb::plan_service_server::PlanServiceServer::new(server.clone()))
            .add_service(pb::server_service_server::ServerServiceServer::new(server.clone()))
            .add_service(pb::run_service_server::RunServiceServer::new(server.clone()));
        // Small responses must not wait for the acknowledgement of the previous one, which takes longer than a whole
        // run here.
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener)
            .map(|accepted| accepted.inspect(|stream| stream.set_nodelay(true).unwrap()));
        tokio::spawn(router.serve_with_incoming(incoming));
        server
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn behave(&self, machine: &str, behaviour: Behaviour) {
        self.world().behaviours.insert(machine.to_owned(), behaviour);
    }

    /// Resolves once a run is in a step that does not end.
    pub(super) async fn until_running(&self, step: &str) {
        let mut revision = self.revision.subscribe();
        let running = |run: &pb::Run| {
            run.steps.iter().any(|s| s.name == step && s.state() == StepState::Running)
        };
        while !self.world().runs.iter().any(running) {
            revision.changed().await.unwrap();
        }
    }

    /// Changes a run and publishes the event.
    fn change(&self, index: usize, change: impl FnOnce(&mut pb::Run, prost_types::Timestamp)) {
        let mut world = self.world();
        let now = world.tick();
        let revision = world.events.len() as u64 + 1;
        let run = &mut world.runs[index];
        change(run, now);
        run.revision = revision;
        let snapshot = run.clone();
        world.events.push(pb::RunEvent {
            ts: Some(now),
            snapshot: Some(snapshot.clone()),
            revision,
            r#type: pb::RunEventType::Change.into(),
            ..pb::RunEvent::default()
        });
        world.settle(&snapshot, now);
        drop(world);
        self.revision.send_replace(revision);
    }

    async fn play(self, index: usize) {
        let (machine, steps, done) = {
            let world = self.world();
            let run = &world.runs[index];
            let done: Vec<bool> =
                run.steps.iter().map(|s| s.state() == StepState::Skipped).collect();
            (run.machine_id.clone(), run.steps.clone(), done)
        };
        let behaviour = self.world().behaviours.get(&machine).copied();
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| !done[*at]) {
            self.change(index, |run, now| {
                run.phase = RunPhase::Running.into();
                run.started_at.get_or_insert(now);
                run.current_step.clone_from(&step.name);
                let step = &mut run.steps[at];
                step.state = StepState::Running.into();
                step.activity = pb::StepActivity::Acting.into();
                step.attempt = 1;
                step.started_at = Some(now);
            });
            SystemClock::new().sleep(Duration::from_millis(2)).await;
            let is = |name: &str| name == step.name;
            match behaviour {
                Some(Behaviour::Hang(name)) if is(name) => return,
                Some(Behaviour::Hold(name)) if is(name) => {
                    self.change(index, |run, now| {
                        run.steps[at].activity = pb::StepActivity::Unknown.into();
                        run.waiting = Some(pb::Waiting {
                            reason: pb::WaitReason::OutcomeUnknown.into(),
                            message: "wipe was started; the BMC does not say whether it ended"
                                .to_owned(),
                            since: Some(now),
                            ..pb::Waiting::default()
                        });
                    });
                    return;
                }
                Some(Behaviour::Fail(name)) if is(name) => {
                    self.world().behaviours.remove(&machine);
                    let message = "image checksum mismatch";
                    self.change(index, |run, now| {
                        run.steps[at].state = StepState::Failed.into();
                        run.steps[at].message = message.to_owned();
                        run.steps[at].expected = "image ubuntu-24.04".to_owned();
                        run.steps[at].observed = "no bootable image".to_owned();
                        run.steps[at].finished_at = Some(now);
                        run.phase = RunPhase::Failed.into();
                        run.finished_at = Some(now);
                        run.error = Some(pb::RunError {
                            code: "STEP_FAILED".to_owned(),
                            message: format!("repave: {message}"),
                            retryable: true,
                            step: step.name.clone(),
                        });
                    });
                    return;
                }
                Some(Behaviour::Retry(name)) if is(name) => {
                    self.change(index, |run, _| {
                        run.steps[at].attempt = 2;
                        run.steps[at].message = "BMC timed out".to_owned();
                    });
                }
                _ => {}
            }
            let last = at + 1 == steps.len();
            self.change(index, |run, now| {
                run.steps[at].state = StepState::Succeeded.into();
                run.steps[at].activity = 0;
                run.steps[at].finished_at = Some(now);
                if last {
                    run.phase = RunPhase::Succeeded.into();
                    run.current_step.clear();
                    run.finished_at = Some(now);
                }
            });
            SystemClock::new().sleep(Duration::from_millis(2)).await;
        }
    }

    fn accept(&self, mut run: pb::Run) -> Result<pb::Run, Status> {
        let index = {
            let mut world = self.world();
            let active =
                world.machine(&run.machine_id)?.status.clone().unwrap_or_default().active_run_id;
            if !active.is_empty() {
                return Err(refused(
                    Code::FailedPrecondition,
                    &format!("run {active} is active on {}", run.machine_id),
                    "RUN_ACTIVE",
                    &[("active_run_id", &active)],
                ));
            }
            let now = world.tick();
            run.run_id = format!("00000000-0000-7000-8000-{:012}", world.runs.len() + 1);
            run.created_at = Some(now);
            run.phase = RunPhase::Pending.into();
            let id = run.run_id.clone();
            let machine = world.machine_mut(&run.machine_id);
            let status = machine.status.get_or_insert_default();
            status.active_run_id = id;
            status.effective_state = pb::EffectiveState::Provisioning.into();
            status.effective_rule = pb::EffectiveRule::ActiveRun.into();
            world.runs.push(run.clone());
            world.runs.len() - 1
        };
        tokio::spawn(self.clone().play(index));
        Ok(run)
    }
}

impl World {
    fn register(&mut self, mut machine: pb::Machine) -> pb::Machine {
        if let Ok(known) = self.machine(&machine.machine_id) {
            return known.clone();
        }
        machine.created_at = Some(self.tick());
        machine.status = Some(pb::MachineStatus {
            phase: pb::Phase::FactoryReady.into(),
            effective_state: pb::EffectiveState::FactoryReady.into(),
            effective_rule: pb::EffectiveRule::Phase.into(),
            ..pb::MachineStatus::default()
        });
        self.machines.push(machine.clone());
        machine
    }

    fn tick(&mut self) -> prost_types::Timestamp {
        self.ticks += 1;
        let ms = EPOCH_MS + self.ticks * TICK_MS;
        prost_types::Timestamp {
            seconds: (ms / 1000) as i64,
            nanos: (ms % 1000) as i32 * 1_000_000,
        }
    }

    fn machine(&self, id: &str) -> Result<&pb::Machine, Status> {
        self.machines.iter().find(|machine| machine.machine_id == id).ok_or_else(|| {
            refused(
                Code::NotFound,
                &format!("machine \"{id}\" does not exist"),
                "MACHINE_NOT_FOUND",
                &[],
            )
        })
    }

    fn machine_mut(&mut self, id: &str) -> &mut pb::Machine {
        self.machines.iter_mut().find(|machine| machine.machine_id == id).unwrap()
    }

    /// Applies the end of a run to its machine.
    fn settle(&mut self, run: &pb::Run, now: prost_types::Timestamp) {
        if run.finished_at.is_none() {
            return;
        }
        let succeeded = run.phase() == RunPhase::Succeeded;
        let (kind, by) = (run.r#type(), format!("run/{}", run.run_id));
        let status = self.machine_mut(&run.machine_id).status.get_or_insert_default();
        status.active_run_id.clear();
        let set =
            |status: &mut pb::MachineStatus, kind: pb::ConditionType, value: bool, reason: &str| {
                status.conditions.retain(|condition| condition.r#type != kind as i32);
                status.conditions.push(pb::Condition {
                    r#type: kind.into(),
                    status: value,
                    reason: reason.to_owned(),
                    message: String::new(),
                    last_transition_at: Some(now),
                    observed_by: by.clone(),
                });
                status.conditions.sort_by_key(|condition| condition.r#type);
            };
        if !succeeded {
            set(status, pb::ConditionType::NeedsIntervention, true, "STEP_FAILED");
            status.effective_state = status.phase;
            status.effective_rule = pb::EffectiveRule::Phase.into();
            return;
        }
        status
            .conditions
            .retain(|condition| condition.r#type() != pb::ConditionType::NeedsIntervention);
        match kind {
            pb::RunType::Repave => {
                status.phase = pb::Phase::Ready.into();
                status.effective_state = pb::EffectiveState::InService.into();
                status.effective_rule = pb::EffectiveRule::InCustomerCluster.into();
                set(status, pb::ConditionType::Reachable, true, "VERIFIED");
                set(status, pb::ConditionType::InCustomerCluster, true, "JOINED");
            }
            pb::RunType::Rma => {
                status.phase = pb::Phase::Rma.into();
                status.effective_state = pb::EffectiveState::Rma.into();
                status.effective_rule = pb::EffectiveRule::ExplicitPhase.into();
                set(status, pb::ConditionType::InCustomerCluster, false, "DRAINED");
            }
            pb::RunType::Unspecified
            | pb::RunType::Reboot
            | pb::RunType::Upgrade
            | pb::RunType::NetReconfig
            | pb::RunType::Custom => status.effective_state = status.phase,
        }
    }
}

fn refused(code: Code, message: &str, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let details = ErrorDetails::with_error_info(reason, "baremetal.v1", metadata);
    Status::with_error_details(code, message, details)
}

fn plans() -> Vec<pb::Plan> {
    let plan = |id: &str, name: &str, kind: pb::RunType, steps: &[&str]| pb::Plan {
        plan_id: id.to_owned(),
        display_name: name.to_owned(),
        run_type: kind.into(),
        is_default: true,
        destructive: steps.iter().any(|step| super::risk_of(step) != pb::Risk::None),
        risk: steps.iter().map(|step| super::risk_of(step)).max().unwrap_or_default().into(),
        steps: steps
            .iter()
            .map(|step| pb::PlanStep {
                name: (*step).to_owned(),
                action: (*step).to_owned(),
                destructive: super::risk_of(step) != pb::Risk::None,
                risk: super::risk_of(step).into(),
                max_attempts: 3,
                timeout: Some(prost_types::Duration { seconds: 1800, nanos: 0 }),
                expected_duration: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
                on_unknown: pb::OnUnknown::Verify.into(),
                ..pb::PlanStep::default()
            })
            .collect(),
        ..pb::Plan::default()
    };
    vec![
        plan("plan/reboot", "Reboot", pb::RunType::Reboot, &["reboot"]),
        plan(
            "plan/repave-join",
            "Repave and join",
            pb::RunType::Repave,
            &["set-netboot", "repave", "mint-join", "join", "verify"],
        ),
        plan("plan/rma", "Return to manufacturer", pb::RunType::Rma, &["drain", "wipe", "notify"]),
    ]
}

#[tonic::async_trait]
impl pb::machine_service_server::MachineService for Server {
    async fn register_machine(
        &self,
        request: Request<pb::RegisterMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        let machine = request.into_inner().machine.unwrap();
        Ok(Response::new(self.world().register(machine)))
    }

    async fn batch_register_machines(
        &self,
        request: Request<pb::BatchRegisterMachinesRequest>,
    ) -> Result<Response<pb::BatchRegisterMachinesResponse>, Status> {
        let mut world = self.world();
        let results = request.into_inner().machines.into_iter().map(|machine| pb::MachineResult {
            machine_id: machine.machine_id.clone(),
            outcome: Some(pb::machine_result::Outcome::Machine(world.register(machine))),
        });
        Ok(Response::new(pb::BatchRegisterMachinesResponse { results: results.collect() }))
    }

    async fn get_machine(
        &self,
        request: Request<pb::GetMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        Ok(Response::new(self.world().machine(&request.into_inner().machine_id)?.clone()))
    }

    async fn list_machines(
        &self,
        request: Request<pb::ListMachinesRequest>,
    ) -> Result<Response<pb::ListMachinesResponse>, Status> {
        let request = request.into_inner();
        let world = self.world();
        let mut machines: Vec<&pb::Machine> = world.machines.iter().collect();
        match request.order_by.as_str() {
            "" => {}
            "id" => machines.sort_by_key(|machine| natural(&machine.machine_id)),
            "id desc" => {
                machines.sort_by_key(|machine| std::cmp::Reverse(natural(&machine.machine_id)))
            }
            other => panic!("the test server knows no order {other}"),
        }
        let matching =
            machines.into_iter().filter(|machine| matches_machine(&request.filter, machine));
        let from: usize = request.page_token.parse().unwrap_or(0);
        let size = usize::try_from(request.page_size).unwrap();
        let machines: Vec<_> = matching.clone().skip(from).take(size).cloned().collect();
        let more = matching.count() > from + machines.len();
        let next_page_token =
            if more { (from + machines.len()).to_string() } else { String::new() };
        Ok(Response::new(pb::ListMachinesResponse {
            machines,
            next_page_token,
            revision: 0,
            ..pb::ListMachinesResponse::default()
        }))
    }

    /// Sends nothing: everything to see was listed before.
    async fn watch_machines(
        &self,
        _request: Request<pb::WatchMachinesRequest>,
    ) -> Result<Response<MachineEvents>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn update_machine(
        &self,
        request: Request<pb::UpdateMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        let request = request.into_inner();
        let new = request.machine.unwrap();
        let mut world = self.world();
        world.machine(&new.machine_id)?;
        let machine = world.machine_mut(&new.machine_id);
        for path in request.update_mask.unwrap().paths {
            if path == "status.phase" {
                let phase = new.status.as_ref().unwrap().phase;
                let status = machine.status.get_or_insert_default();
                status.phase = phase;
                status.effective_state = phase;
                status.effective_rule = pb::EffectiveRule::ExplicitPhase.into();
            } else if let Some(key) = path.strip_prefix("labels.") {
                match new.labels.get(key) {
                    Some(value) => machine.labels.insert(key.to_owned(), value.clone()),
                    None => machine.labels.remove(key),
                };
            }
        }
        Ok(Response::new(machine.clone()))
    }

    async fn clear_intervention(
        &self,
        request: Request<pb::ClearInterventionRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        let id = request.into_inner().machine_id;
        let mut world = self.world();
        world.machine(&id)?;
        let machine = world.machine_mut(&id);
        let status = machine.status.get_or_insert_default();
        status
            .conditions
            .retain(|condition| condition.r#type() != pb::ConditionType::NeedsIntervention);
        Ok(Response::new(machine.clone()))
    }

    async fn inspect_machine(
        &self,
        request: Request<pb::InspectMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        Ok(Response::new(self.world().machine(&request.into_inner().machine_id)?.clone()))
    }

    async fn list_machine_history(
        &self,
        request: Request<pb::ListMachineHistoryRequest>,
    ) -> Result<Response<pb::ListMachineHistoryResponse>, Status> {
        let machine_id = request.into_inner().machine_id;
        let entry = pb::HistoryEntry {
            machine_id,
            kind: "machine.registered".to_owned(),
            ..Default::default()
        };
        Ok(Response::new(pb::ListMachineHistoryResponse {
            entries: vec![entry],
            next_page_token: String::new(),
        }))
    }
}

#[tonic::async_trait]
impl pb::plan_service_server::PlanService for Server {
    async fn get_plan(
        &self,
        request: Request<pb::GetPlanRequest>,
    ) -> Result<Response<pb::Plan>, Status> {
        let id = request.into_inner().plan_id;
        let full = if id.starts_with("plan/") { id } else { format!("plan/{id}") };
        let found = plans().into_iter().find(|plan| plan.plan_id == full);
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("plan \"{full}\" does not exist")))
    }

    async fn list_plans(
        &self,
        _request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        Ok(Response::new(pb::ListPlansResponse { plans: plans(), next_page_token: String::new() }))
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Encoded<pb::RunEvent>, Status>> + Send>>;
type MachineEvents = Pin<Box<dyn Stream<Item = Result<Encoded<pb::MachineEvent>, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<pb::LogChunk, Status>> + Send>>;

#[tonic::async_trait]
impl pb::run_service_server::RunService for Server {
    async fn start_run(
        &self,
        request: Request<pb::StartRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let actor =
            request.metadata().get("bmdemo-actor").map(|name| name.to_str().unwrap().to_owned());
        let request = request.into_inner();
        {
            let mut world = self.world();
            world.actors.extend(actor);
            world.start_requests.push(request.request_id.clone());
        }
        let repeated =
            self.world().runs.iter().find(|run| run.request_id == request.request_id).cloned();
        let run = match repeated {
            Some(run) => run,
            None => {
                let wanted = |plan: &pb::Plan| {
                    plan.run_type() == request.r#type() || plan.plan_id == request.plan_id
                };
                let plan = plans().into_iter().find(wanted);
                let plan = plan.ok_or_else(|| Status::not_found("no such plan"))?;
                self.accept(pb::Run {
                    machine_id: request.machine_id,
                    request_id: request.request_id,
                    r#type: plan.run_type,
                    plan_id: plan.plan_id,
                    steps: plan
                        .steps
                        .iter()
                        .map(|step| pb::StepStatus {
                            name: step.name.clone(),
                            state: StepState::Waiting.into(),
                            max_attempts: step.max_attempts,
                            action: step.action.clone(),
                            destructive: step.destructive,
                            risk: step.risk,
                            ..pb::StepStatus::default()
                        })
                        .collect(),
                    ..pb::Run::default()
                })?
            }
        };
        let mut world = self.world();
        if world.unavailable > 0 {
            world.unavailable -= 1;
            return Err(Status::unavailable("draining"));
        }
        Ok(Response::new(run))
    }

    /// Dry runs only.
    async fn batch_start_runs(
        &self,
        request: Request<pb::BatchStartRunsRequest>,
    ) -> Result<Response<pb::BatchStartRunsResponse>, Status> {
        let request = request.into_inner();
        assert!(request.validate_only);
        let world = self.world();
        let verdict = |id: &String| verdict(&request, world.machine(id).unwrap());
        let results = request.machine_ids.iter().map(verdict).collect();
        Ok(Response::new(pb::BatchStartRunsResponse { results }))
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let id = request.into_inner().run_id;
        if id.len() != 36 {
            return Err(Status::invalid_argument("run_id: must be a UUID"));
        }
        let found = self.world().runs.iter().find(|run| run.run_id == id).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("run \"{id}\" does not exist")))
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        let pb::ListRunsRequest { filter, order_by, .. } = request.into_inner();
        let world = self.world();
        let runs = world.runs.iter().filter(|run| matches_run(&filter, run));
        let mut runs: Vec<pb::Run> = runs.cloned().collect();
        if order_by == "created_at desc" {
            runs.reverse();
        }
        Ok(Response::new(pb::ListRunsResponse { runs, ..Default::default() }))
    }

    async fn cancel_run(
        &self,
        request: Request<pb::CancelRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let id = request.into_inner().run_id;
        let index = self.world().runs.iter().position(|run| run.run_id == id).unwrap();
        self.change(index, |run, now| {
            for step in run.steps.iter_mut().filter(|step| step.finished_at.is_none()) {
                step.state = StepState::Canceled.into();
                step.finished_at = Some(now);
            }
            run.phase = RunPhase::Canceled.into();
            run.finished_at = Some(now);
        });
        Ok(Response::new(self.world().runs[index].clone()))
    }

    async fn watch_runs(
        &self,
        request: Request<pb::WatchRunsRequest>,
    ) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let server = self.clone();
        tokio::spawn(async move {
            let mut revision = server.revision.subscribe();
            let wanted = |run: &pb::Run| matches_run(&request.filter, run);
            let mut sent = 0;
            let mut from = request.resume_from;
            let (mut pending, limit) = {
                let world = server.world();
                let mut first = Vec::new();
                if from == 0 {
                    from = world.events.len() as u64;
                    first.extend(world.runs.iter().filter(|run| wanted(run)).map(|run| {
                        pb::RunEvent {
                            snapshot: Some(run.clone()),
                            revision: run.revision,
                            r#type: pb::RunEventType::Snapshot.into(),
                            ..pb::RunEvent::default()
                        }
                    }));
                    first.push(pb::RunEvent {
                        revision: from,
                        r#type: pb::RunEventType::Synced.into(),
                        ..pb::RunEvent::default()
                    });
                }
                (first, world.break_watch_after)
            };
            loop {
                for event in pending {
                    if limit.is_some_and(|limit| sent >= limit) {
                        let _ = sender.send(Err(Status::unavailable("broken by the test"))).await;
                        return;
                    }
                    sent += 1;
                    if sender.send(Ok(event.into())).await.is_err() {
                        return;
                    }
                }
                {
                    let world = server.world();
                    let new = &world.events[usize::try_from(from).unwrap()..];
                    pending = new
                        .iter()
                        .filter(|event| wanted(event.snapshot.as_ref().unwrap()))
                        .cloned()
                        .collect();
                    from = world.events.len() as u64;
                }
                if pending.is_empty() && revision.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn stream_run_logs(
        &self,
        request: Request<pb::StreamRunLogsRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        let lines = ["writing image\n", "done \u{1b}[31mred\u{1b}[0m\n"];
        let chunks = lines.into_iter().enumerate().map(move |(at, line)| {
            Ok(pb::LogChunk {
                run_id: request.run_id.clone(),
                stream: "stdout".to_owned(),
                data: line.as_bytes().to_vec(),
                offset: at as u64,
                step: "repave".to_owned(),
                ..pb::LogChunk::default()
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks).filter(|_| true))))
    }

    async fn abort_run(
        &self,
        _: Request<pb::AbortRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        Err(Status::failed_precondition("not in this server"))
    }

    async fn pause_run(
        &self,
        _: Request<pb::PauseRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        Err(Status::failed_precondition("not in this server"))
    }

    async fn resume_run(
        &self,
        _: Request<pb::ResumeRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        Err(Status::failed_precondition("not in this server"))
    }

    async fn retry_run(
        &self,
        request: Request<pb::RetryRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let request = request.into_inner();
        let mut run = self
            .get_run(Request::new(pb::GetRunRequest {
                run_id: request.run_id,
                ..pb::GetRunRequest::default()
            }))
            .await?
            .into_inner();
        for step in &mut run.steps {
            let done = step.state() == StepState::Succeeded;
            *step = pb::StepStatus {
                name: step.name.clone(),
                state: if done { StepState::Skipped } else { StepState::Waiting }.into(),
                message: if done { "done by the run before".to_owned() } else { String::new() },
                max_attempts: step.max_attempts,
                ..pb::StepStatus::default()
            };
        }
        let retry_of = std::mem::take(&mut run.run_id);
        let run = pb::Run {
            retry_of,
            request_id: request.request_id,
            error: None,
            started_at: None,
            finished_at: None,
            ..run
        };
        Ok(Response::new(self.accept(run)?))
    }

    async fn skip_step(
        &self,
        _: Request<pb::SkipStepRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        Err(Status::failed_precondition("not in this server"))
    }

    async fn resolve_step(
        &self,
        _: Request<pb::ResolveStepRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        Err(Status::failed_precondition("not in this server"))
    }

    async fn list_run_history(
        &self,
        _: Request<pb::ListRunHistoryRequest>,
    ) -> Result<Response<pb::ListRunHistoryResponse>, Status> {
        Ok(Response::new(pb::ListRunHistoryResponse::default()))
    }
}

#[tonic::async_trait]
impl pb::server_service_server::ServerService for Server {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        Ok(Response::new(pb::ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: "memory".to_owned(),
            features: ["machines.validate_only", "machines.in_service"].map(str::to_owned).to_vec(),
            revision: 7,
            oldest_revision: 2,
            runs_max: 500,
            runs_max_by_label: [("rack".to_owned(), 20)].into(),
            disruptive_max: "5%".to_owned(),
            data_destroying_max_by_label: [("rack".to_owned(), "2".to_owned())].into(),
            data_dir: "/var/lib/bmdemo".to_owned(),
            data_bytes: 3 << 20,
            data_bytes_free: 5 << 30,
            last_reload: Some(pb::Reload {
                error: "plans/maint.toml:3:1: unknown key\nhelp: look".to_owned(),
                ..pb::Reload::default()
            }),
            receivers: vec![
                Receiver { name: "chat".to_owned(), delivered: 12, ..Receiver::default() },
                Receiver {
                    name: "ops".to_owned(),
                    events_waiting: 3,
                    oldest_event_at: Some(prost_types::Timestamp::default()),
                    error: "it answers 503".to_owned(),
                    refused: 1,
                    ..Receiver::default()
                },
            ],
            ..pb::ServerInfo::default()
        }))
    }
}
