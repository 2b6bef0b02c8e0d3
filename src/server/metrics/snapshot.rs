//! Gauges, read at a scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::Mutex;

use crate::clock::Timestamp;
use crate::executor::request::WaitReason;
use crate::executor::waiting::{is_overdue, waiting};
use crate::executor::{Engine, EngineError};
use crate::lifecycle::machine;
use crate::lifecycle::run::State;
use crate::model::Run;
use crate::model::filter::{Filter, Subject};
use crate::notify::Status;
use crate::server::access::Present;
use crate::server::durable::Durable;
use crate::server::gate::Gate;
use crate::server::host::Host;
use crate::server::room::Room;
use crate::store::{Query, StoreError, Unreadable};

use super::interventions::Interventions;
use super::receivers::Receivers;
use super::store::Disk;

/// Figures that need a read of the store are read again after this time.
const FRESH: Duration = Duration::from_secs(10);
/// Most active runs that one scrape reads; the gauges say so if there are more.
const ACTIVE_RUNS_MAX: usize = 10_000;
const PAGE: usize = 500;

/// Sources of the gauges.
#[derive(Debug)]
pub(in crate::server) struct Sources {
    pub(in crate::server) engine: Engine,
    pub(in crate::server) gate: Gate,
    pub(in crate::server) room: Room,
    /// The store on disk, if there is one.
    pub(in crate::server) durable: Option<Durable>,
    pub(in crate::server) access: Present,
    pub(in crate::server) host: Arc<Host>,
    /// Who is notified of what happens.
    pub(in crate::server) receivers: Arc<[Arc<Status>]>,
    /// Whether everyone who reaches the server may call.
    pub(in crate::server) is_exposed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    plan: String,
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecordLabels {
    kind: &'static str,
    id: String,
    machine: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakerLabels {
    provider: String,
    driver: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    with_slot: Gauge,
    waiting_for_slot: Gauge,
    actors: Gauge,
    watchers: Gauge,
    watchers_lagging: Gauge,
    connections: Gauge,
    unsent: Gauge,
    revision: Gauge,
    audit: Gauge,
    reload_failed: Gauge,
    exposed: Gauge,
    stopped: Gauge,
    locks: Gauge,
    held_back: Gauge,
    /// No sample without TLS.
    tls_expires: Family<[(&'static str, &'static str); 0], Gauge>,
    /// No sample without lists of revocations.
    tls_revocations_expire: Family<[(&'static str, &'static str); 0], Gauge>,
    machines: Family<PhaseLabels, Gauge>,
    active: Family<StateLabels, Gauge>,
    oldest: Family<StateLabels, Gauge>,
    waiting: Family<ReasonLabels, Gauge>,
    overdue: Family<StepLabels, Gauge>,
    needing_intervention: Family<ReasonLabels, Gauge>,
    interventions: Arc<Interventions>,
    unseen: Gauge,
    unreadable: Family<RecordLabels, Gauge>,
    disk: Disk,
    receivers: Receivers,
    breakers: Family<BreakerLabels, Gauge>,
    /// When the store was last read for these figures, in monotonic time.
    read_at: Mutex<Option<Duration>>,
}

/// Figures of the active runs.
#[derive(Debug, Default)]
struct Active {
    by_state: BTreeMap<&'static str, (i64, Duration)>,
    waiting: BTreeMap<&'static str, i64>,
    overdue: BTreeMap<(String, String), i64>,
    unseen: bool,
    unreadable: Vec<RecordLabels>,
}

impl Gauges {
    pub(super) fn new(registry: &mut Registry, interventions: Arc<Interventions>) -> Self {
        let gauges = Self { interventions, ..Self::default() };
        for (name, help, gauge) in [
            ("runs_with_slot", "Runs in progress within the limits", &gauges.with_slot),
            (
                "runs_waiting_for_slot",
                "Runs that wait because of a limit",
                &gauges.waiting_for_slot,
            ),
            ("machines_with_work", "Machines that the engine is working on", &gauges.actors),
            ("watchers", "Watches and log followers that are open", &gauges.watchers),
            (
                "watchers_lagging",
                "Watchers served from the change log until they catch up",
                &gauges.watchers_lagging,
            ),
            ("connections", "Open connections", &gauges.connections),
            (
                "unsent_bytes",
                "Bytes of answers that are made, or may be, and not sent yet",
                &gauges.unsent,
            ),
            (
                "reload_failed",
                "1 if the last reload of configuration, plans and certificates was refused",
                &gauges.reload_failed,
            ),
            (
                "insecure_no_auth",
                "1 if everyone who reaches the server may call (--insecure-no-auth)",
                &gauges.exposed,
            ),
            ("stopped", "1 while everything is stopped (bmdemo-cli stop-all)", &gauges.stopped),
            ("locks", "What is in force: the stop, locks, and pauses of plans", &gauges.locks),
            (
                "runs_held_back",
                "Runs that would continue, did no stop, lock or pause hold them back",
                &gauges.held_back,
            ),
            ("store_revision", "Revision of the newest commit", &gauges.revision),
            ("audit_newest", "Number of the newest entry of the audit", &gauges.audit),
            (
                "active_runs_unseen",
                "1 if there are more active runs than the gauges below cover",
                &gauges.unseen,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let help = "Time until the certificate of the server expires; negative after that";
        let family = gauges.tls_expires.clone();
        registry.register_with_unit("tls_expires", help, Unit::Seconds, family);
        let help = "Time until the first list of revocations expires and its clients are refused";
        let family = gauges.tls_revocations_expire.clone();
        registry.register_with_unit("tls_revocations_expire", help, Unit::Seconds, family);
        registry.register("machines", "Machines, by phase", gauges.machines.clone());
        registry.register("active_runs", "Active runs, by state", gauges.active.clone());
        let help = "Time since the oldest active run of a state was accepted";
        registry.register_with_unit("active_run_age", help, Unit::Seconds, gauges.oldest.clone());
        let help = "Active runs that are not moving, by what they wait for";
        registry.register("active_runs_waiting", help, gauges.waiting.clone());
        let help = "Attempts in progress that take longer than their plan expects";
        registry.register("steps_overdue", help, gauges.overdue.clone());
        let help = "Machines that need an operator, by reason";
        let family = gauges.needing_intervention.clone();
        registry.register("machines_needing_intervention", help, family);
        let help =
            "1 for each active run whose record, or whose plan, is stored and cannot be read";
        registry.register("unreadable_records", help, gauges.unreadable.clone());
        gauges.disk.register(registry);
        gauges.receivers.register(registry);
        let help = "Controllers that are left alone after failures in a row, by class and driver";
        registry.register("breakers_open", help, gauges.breakers.clone());
        gauges
    }

    /// Updates every gauge.
    pub(super) async fn read(&self, sources: &Sources) {
        let Sources { engine, gate, room, durable, access, host, receivers, is_exposed } = sources;
        self.reload_failed.set(i64::from(host.is_reload_refused()));
        self.exposed.set(i64::from(*is_exposed));
        self.stopped.set(i64::from(engine.stop().is_some()));
        self.locks.set(signed(engine.locks().len()));
        self.held_back.set(signed(engine.held_runs()));
        if let Some(tls) = &access.borrow().tls {
            let now = engine.clock().now();
            self.tls_expires.get_or_create(&[]).set(seconds_until(tls.expires_at, now));
            match tls.revocations_expire_at {
                Some(at) => {
                    self.tls_revocations_expire.get_or_create(&[]).set(seconds_until(at, now));
                }
                None => self.tls_revocations_expire.clear(),
            }
        }
        let (with_slot, waiting, actors) = engine.load();
        self.with_slot.set(signed(with_slot));
        self.waiting_for_slot.set(signed(waiting));
        self.actors.set(signed(actors));
        self.watchers.set(signed(engine.watch().watchers()));
        self.watchers_lagging.set(signed(engine.watch().lagging()));
        self.connections.set(signed(gate.open()));
        self.unsent.set(i64::try_from(room.bytes()).unwrap_or(i64::MAX));

        self.needing_intervention.clear();
        for (reason, count) in self.interventions.count() {
            self.needing_intervention.get_or_create(&ReasonLabels { reason }).set(count);
        }
        self.receivers.read(receivers, engine.clock().now());
        for (provider, driver) in engine.providers() {
            for (driver, open) in driver.breakers_open() {
                let labels = BreakerLabels { provider: provider.clone(), driver };
                self.breakers.get_or_create(&labels).set(i64::try_from(open).unwrap_or(i64::MAX));
            }
        }
        if let Some(durable) = durable {
            self.disk.read(durable);
        }
        let mut read_at = self.read_at.lock().await;
        let now = engine.clock().monotonic();
        if read_at.is_some_and(|at| now.saturating_sub(at) < FRESH) {
            return;
        }
        match self.read_store(engine).await {
            Ok(()) => *read_at = Some(now),
            Err(error) => tracing::warn!(%error, "metrics: the store could not be read"),
        }
    }

    async fn read_store(&self, engine: &Engine) -> Result<(), EngineError> {
        let (newest, _) = engine.store().revisions().await?;
        self.revision.set(i64::try_from(newest.0).unwrap_or(i64::MAX));
        let (_, head) = engine.store().audit_ends().await?;
        self.audit.set(i64::try_from(head.seq).unwrap_or(i64::MAX));
        for phase in machine::Phase::ALL {
            let filter = Filter::parse(&format!("phase = {phase}"), Subject::Machine)
                .map_err(|error| EngineError::Internal(error.to_string()))?;
            let count = engine.store().count_machines(filter).await?;
            let labels = PhaseLabels { phase: phase.as_str() };
            self.machines.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let active = active(engine).await?;
        self.unseen.set(i64::from(active.unseen));
        self.unreadable.clear();
        for labels in active.unreadable {
            self.unreadable.get_or_create(&labels).set(1);
        }
        self.active.clear();
        self.oldest.clear();
        for (state, (count, age)) in active.by_state {
            self.active.get_or_create(&StateLabels { state }).set(count);
            let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            self.oldest.get_or_create(&StateLabels { state }).set(seconds);
        }
        self.waiting.clear();
        for (reason, count) in active.waiting {
            self.waiting.get_or_create(&ReasonLabels { reason: reason.to_owned() }).set(count);
        }
        self.overdue.clear();
        for ((plan, step), count) in active.overdue {
            self.overdue.get_or_create(&StepLabels { plan, step }).set(count);
        }
        Ok(())
    }
}

async fn active(engine: &Engine) -> Result<Active, EngineError> {
    let now = engine.clock().now();
    let mut active = Active::default();
    let mut after = None;
    let mut seen = 0;
    loop {
        let query = Query { after, limit: PAGE, active_only: true, ..Query::default() };
        let page = engine.store().runs(query).await?;
        for run in &page.items {
            active.add(engine, run, now).await?;
        }
        for Unreadable { kind, id, machine_id, .. } in page.unreadable {
            let machine = machine_id.map_or_else(String::new, |id| id.to_string());
            active.unreadable.push(RecordLabels { kind, id, machine });
            seen += 1;
        }
        seen += page.items.len();
        after = page.next;
        if after.is_none() || seen >= ACTIVE_RUNS_MAX {
            active.unseen = after.is_some();
            return Ok(active);
        }
    }
}

impl Active {
    async fn add(&mut self, engine: &Engine, run: &Run, now: Timestamp) -> Result<(), EngineError> {
        let entry = self.by_state.entry(state_name(run.state)).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(now.since(run.created_at));
        if let Some(waiting) = waiting(run, engine.held_back(run).as_ref()) {
            *self.waiting.entry(reason_name(waiting.reason)).or_default() += 1;
        }
        // The shortest possible expectation: no plan is read for a step that no plan makes overdue.
        let Some(place) = run.current_step.filter(|place| is_overdue(run, *place, 0, now)) else {
            return Ok(());
        };
        let Some(record) = run.steps.get(place) else { return Ok(()) };
        let plan = match engine.pinned_plan(run).await {
            Ok(plan) => plan,
            // It blocks its machine, and no figure.
            Err(EngineError::Store(StoreError::Corrupt { kind, id, .. })) => {
                let machine = run.machine_id.to_string();
                self.unreadable.push(RecordLabels { kind, id, machine });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let overdue = plan
            .step(&record.name)
            .is_some_and(|step| is_overdue(run, place, step.expected_ms, now));
        if overdue {
            *self.overdue.entry((run.spec.plan_id.clone(), record.name.clone())).or_default() += 1;
        }
        Ok(())
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Pausing => "pausing",
        State::Held => "held",
        State::Deferred => "deferred",
        State::Resuming => "resuming",
        State::Canceling => "canceling",
        State::Stopping => "stopping",
        State::Unwinding { .. } => "unwinding",
        State::Closing { .. } => "closing",
        State::Succeeded | State::Failed | State::Canceled => "ended",
    }
}

fn reason_name(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Capacity => "capacity",
        WaitReason::Backoff => "backoff",
        WaitReason::Provider => "provider",
        WaitReason::Paused => "paused",
        WaitReason::OutcomeUnknown => "outcome_unknown",
        WaitReason::LoopBreaker => "loop_breaker",
        WaitReason::Restored => "restored",
        WaitReason::EngineFault => "engine_fault",
        WaitReason::Recovery => "recovery",
        WaitReason::Approval => "approval",
        WaitReason::WrongHardware => "wrong_hardware",
        WaitReason::Step => "step",
        WaitReason::Stopped => "stopped",
        WaitReason::Locked => "locked",
        WaitReason::PlanPaused => "plan_paused",
    }
}

fn seconds_until(at: Timestamp, now: Timestamp) -> i64 {
    let ms = |time: Timestamp| i64::try_from(time.0).unwrap_or(i64::MAX);
    ms(at).saturating_sub(ms(now)) / 1000
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
