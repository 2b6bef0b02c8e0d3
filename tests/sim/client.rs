//! Clients of the engine, and their record of the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bmdemo::executor::request::{MachineChanges, NewMachine, NewRun, Origin, Verb};
use bmdemo::executor::{Engine, EngineError};
use bmdemo::ids::{MachineId, Revision, RunId};
use bmdemo::lifecycle::machine::Phase;
use bmdemo::lifecycle::run::{Ending, State};
use bmdemo::model::{Actor, Lock, Machine, MachineSpec, Run};
use bmdemo::store::Store as _;
use bmdemo::store::memory::MemoryStore;

use crate::book::parts;
use crate::gate::Incarnation;
use crate::invariants::{
    promise_01_acknowledged_is_durable, promise_07_request_ids_are_idempotent,
    promise_13_a_full_disk_acknowledges_nothing,
};
use crate::sim::{Outage, Sim};

/// Requests of a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    Register { machine: MachineId },
    Start { machine: MachineId, plan: &'static str, force: bool },
    Retry { run: RunId },
    Operate { run: RunId, verb: Verb },
    SetPhase { machine: MachineId, phase: Phase },
    SetLabel { machine: MachineId, value: u64 },
    Clear { machine: MachineId },
    Inspect { machine: MachineId },
    Stop,
    Resume,
    Unlock { id: String },
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    /// Idempotency key, empty for none.
    pub(crate) id: String,
    pub(crate) reason: String,
}

impl Request {
    /// The content of the request, without its id.
    pub(crate) fn body(&self) -> String {
        format!("{:?} {}", self.ask, self.reason)
    }

    /// The scope of the id.
    fn scope(&self) -> String {
        match &self.ask {
            Ask::Register { machine } => format!("RegisterMachine/{machine}"),
            Ask::Start { machine, .. } => format!("StartRun/{machine}"),
            Ask::Retry { run } => format!("RetryRun/{run}"),
            Ask::Operate { run, verb } => format!("{}/{run}", verb.rpc()),
            Ask::SetPhase { machine, .. } | Ask::SetLabel { machine, .. } => {
                format!("UpdateMachine/{machine}")
            }
            Ask::Clear { machine } => format!("ClearIntervention/{machine}"),
            Ask::Inspect { machine } => format!("InspectMachine/{machine}"),
            Ask::Stop => "StopAll".to_owned(),
            Ask::Resume => "ResumeAll".to_owned(),
            Ask::Unlock { id } => format!("DeleteLock/{id}"),
        }
    }

    fn origin(&self) -> Origin {
        Origin {
            call: bmdemo::model::CallFacts::default(),
            request_id: self.id.clone(),
            body_digest: self.body(),
            actor: Actor::operator("client"),
            reason: self.reason.clone(),
            expected: None,
            deadline: None,
            scope: None,
        }
    }
}

/// An answer to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Run(Arc<Run>),
    Machine(Arc<Machine>),
    Lock(Arc<Lock>),
    Refused(String),
}

/// A request that was carried out, and its first answer.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

#[derive(Default)]
struct Record {
    /// By scope and id.
    first: BTreeMap<(String, String), Acknowledged>,
    waiting: BTreeMap<u64, (Incarnation, String)>,
    next: u64,
    acknowledged: u64,
}

/// All clients.
pub(crate) struct Clients {
    sim: Arc<Sim>,
    store: Arc<MemoryStore>,
    record: Mutex<Record>,
    /// Head of the store when the disk became full; changes with every outage.
    full: Mutex<(u64, Option<Revision>)>,
}

impl Clients {
    pub(crate) fn new(sim: Arc<Sim>, store: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self { sim, store, record: Mutex::default(), full: Mutex::new((0, None)) })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk became full, or has space again.
    pub(crate) fn outage_changed(&self) {
        let full = self.sim.outage() == Outage::Full;
        let head = full.then(|| self.sim.oracle().book.head);
        let mut state = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 + 1, head);
    }

    fn full(&self) -> (u64, Option<Revision>) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that an incarnation has not answered.
    pub(crate) fn unanswered(&self, who: Incarnation) -> Vec<String> {
        let record = self.record();
        let waiting = record.waiting.values();
        waiting.filter(|(by, _)| *by == who).map(|(_, text)| text.clone()).collect()
    }

    /// Requests that were carried out.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.record().acknowledged
    }

    /// Sends a request to an incarnation, without waiting for the answer.
    pub(crate) fn send(self: &Arc<Self>, engine: &Engine, who: Incarnation, request: Request) {
        let this = self.clone();
        let engine = engine.clone();
        tokio::spawn(async move {
            this.ask(&engine, who, request).await;
        });
    }

    /// Sends a request to an incarnation and waits for the answer, forever if it dies.
    pub(crate) async fn ask(&self, engine: &Engine, who: Incarnation, request: Request) -> Answer {
        let number = {
            let mut record = self.record();
            record.next += 1;
            let number = record.next;
            record.waiting.insert(number, (who, format!("{request:?}")));
            number
        };
        self.sim.note(format!("client {number} to {who}: {request:?}"));
        let full_before = self.full();
        let answer = perform(engine, &request).await;
        // A stopped process answers when it is continued, a dead one never.
        self.sim.gates.pass(who).await;
        self.record().waiting.remove(&number);
        self.sim.note(format!("client {number} receives {}", describe(&answer)));
        let full = (full_before == self.full()).then_some(full_before.1).flatten();
        self.judge(&request, &answer, full).await;
        answer
    }

    async fn judge(&self, request: &Request, answer: &Answer, full: Option<Revision>) {
        let durable = promise_01_acknowledged_is_durable(&self.store, request, answer).await;
        let no_room = promise_13_a_full_disk_acknowledges_nothing(full, request, answer);
        let used = match &request.id {
            id if id.is_empty() => None,
            id => self.store.request(&request.scope(), id).await.expect("it is in memory"),
        };
        let mut oracle = self.sim.oracle();
        oracle.judge("promise_01_acknowledged_is_durable", durable);
        oracle.judge("promise_13_a_full_disk_acknowledges_nothing", no_room);
        if let Answer::Refused(why) = answer {
            let internal = why.starts_with("internal error");
            let verdict = if internal { Err(format!("{request:?}: {why}")) } else { Ok(()) };
            oracle.judge("no_internal_errors", verdict);
        }
        let mut record = self.record();
        if used.is_some() {
            let key = (request.scope(), request.id.clone());
            if let Some(first) = record.first.get(&key) {
                let verdict = promise_07_request_ids_are_idempotent(first, request, answer);
                oracle.judge("promise_07_request_ids_are_idempotent", verdict);
            } else if !matches!(answer, Answer::Refused(_)) {
                let first = Acknowledged { request: request.clone(), answer: answer.clone() };
                record.first.insert(key, first);
            }
        }
        if matches!(answer, Answer::Refused(_)) {
            return;
        }
        record.acknowledged += 1;
        if request.ask == Ask::Stop {
            oracle.book.is_stopped = true;
        }
        let (Ask::Operate { verb: Verb::Cancel, .. }, Answer::Run(run)) = (&request.ask, answer)
        else {
            return;
        };
        // A run that is unwinding because it failed, or closing, will end as it would have.
        let fails = run.state == State::Stopping
            || run.state == State::Unwinding { ending: Ending::Failed }
            || matches!(run.state, State::Closing { ending: Ending::Failed | Ending::Succeeded });
        if run.state.is_active() && !fails {
            let book = &mut oracle.book;
            let sent: BTreeSet<_> = book
                .acts_sent
                .keys()
                .map(|operation| parts(operation))
                .filter(|(of, ..)| *of == run.id.to_string())
                .map(|(_, step, _)| step)
                .collect();
            book.canceled.entry(run.id).or_insert(sent);
        }
    }
}

async fn perform(engine: &Engine, request: &Request) -> Answer {
    let origin = request.origin();
    let run = |result: Result<Arc<Run>, EngineError>| match result {
        Ok(run) => Answer::Run(run),
        Err(error) => Answer::Refused(refusal(&error)),
    };
    let machine = |result: Result<Arc<Machine>, EngineError>| match result {
        Ok(machine) => Answer::Machine(machine),
        Err(error) => Answer::Refused(refusal(&error)),
    };
    let lock = |result: Result<Arc<Lock>, EngineError>| match result {
        Ok(lock) => Answer::Lock(lock),
        Err(error) => Answer::Refused(refusal(&error)),
    };
    match &request.ask {
        Ask::Stop => lock(engine.stop_all(&origin).await),
        Ask::Resume => lock(engine.resume_all(&origin).await),
        Ask::Unlock { id } => lock(engine.lift_lock(&origin, id).await),
        Ask::Register { machine: id } => {
            let serial = format!("SIM-{id}");
            let spec =
                MachineSpec { provider: "fake".to_owned(), serial, ..MachineSpec::default() };
            let new =
                NewMachine { id: id.clone(), labels: BTreeMap::new(), spec, in_service: false };
            machine(engine.register_machine(&origin, new).await)
        }
        Ask::Start { machine: id, plan, force } => {
            let new = NewRun {
                machine_id: id.clone(),
                run_type: None,
                plan_id: (*plan).to_owned(),
                parameters: BTreeMap::new(),
                force: *force,
                plan_digest: String::new(),
            };
            run(engine.start_run(&origin, new).await)
        }
        Ask::Retry { run: id } => run(engine.retry_run(&origin, *id).await),
        Ask::Operate { run: id, verb } => run(engine.operate(&origin, *id, verb.clone()).await),
        Ask::SetPhase { machine: id, phase } => {
            let changes = MachineChanges { phase: Some(*phase), ..MachineChanges::default() };
            machine(engine.update_machine(&origin, id, changes).await)
        }
        Ask::SetLabel { machine: id, value } => {
            let label_edits = [("rack".to_owned(), Some(value.to_string()))].into_iter().collect();
            let changes = MachineChanges { label_edits, ..MachineChanges::default() };
            machine(engine.update_machine(&origin, id, changes).await)
        }
        Ask::Clear { machine: id } => machine(engine.clear_intervention(&origin, id).await),
        Ask::Inspect { machine: id } => machine(engine.inspect_machine(&origin, id).await),
    }
}

fn refusal(error: &EngineError) -> String {
    if matches!(error, EngineError::RequestIdReused { .. }) {
        return "RequestIdReused".to_owned();
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Run(run) => format!("run {} {:?} r{}", run.id, run.state, run.revision),
        Answer::Machine(machine) => format!("{} r{}", machine.id, machine.revision),
        Answer::Lock(lock) => format!("lock {} lifted {:?}", lock.id, lock.lifted_at),
        Answer::Refused(why) => format!("no: {why}"),
    }
}
