//! The model as a state machine: the requests, and the expected answer to each.

use std::collections::BTreeMap;

use bmdemo::pb::{EffectiveState, Phase, StepResolution, StepState};
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::asking::{Answer, Ask, Etag, Step, Verb};
use crate::rules::{MACHINES, PHASES, Plan, is_legal};
use crate::world::{At, Iron, Machine, World};

/// Most runs of a case.
const RUNS_MAX: usize = 12;

/// The model, and the expected answer to the last request.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) answer: Answer,
    /// Requests that changed something, by scope and request id.
    requests: BTreeMap<((&'static str, usize), u8), Ask>,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::new()).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Step> {
        let machine = || 0..MACHINES.len();
        let etag =
            || prop_oneof![6 => Just(Etag::None), 1 => Just(Etag::Current), 1 => Just(Etag::Stale)];
        let phase = prop::sample::select(&PHASES[..]);
        let plan = prop::sample::select(&Plan::ALL[..]);
        let start = (machine(), plan, prop::bool::weighted(0.3), prop::bool::weighted(0.2), etag());
        let ask = prop_oneof![
            3 => (machine(), prop::bool::weighted(0.2)).prop_map(|(machine, serves)| Ask::Register { machine, serves }),
            1 => (machine(), 0..3_u8, etag()).prop_map(|(machine, value, etag)| Ask::Label { machine, value, etag }),
            4 => (machine(), phase, etag()).prop_map(|(machine, phase, etag)| Ask::SetPhase { machine, phase, etag }),
            2 => (machine(), etag()).prop_map(|(machine, etag)| Ask::Clear { machine, etag }),
            1 => (machine(), etag()).prop_map(|(machine, etag)| Ask::Delete { machine, etag }),
            6 => start.prop_map(|(machine, plan, force, dry, etag)| Ask::Start { machine, plan, force, dry, etag }),
        ];
        let ask = if model.world.runs.is_empty() {
            ask.boxed()
        } else {
            let verb = prop_oneof![
                3 => Just(Verb::Cancel),
                1 => Just(Verb::Abort),
                3 => Just(Verb::Pause),
                3 => Just(Verb::Resume),
                2 => prop::sample::select(&RESOLUTIONS[..]).prop_map(Verb::Resolve),
            ];
            // Mostly the newest runs: the others have ended.
            let last = model.world.runs.len() - 1;
            let run = prop_oneof![3 => last.saturating_sub(2)..=last, 1 => 0..=last];
            let verb = (run.clone(), verb, etag()).prop_map(|(run, verb, etag)| Ask::Verb {
                run,
                verb,
                etag,
            });
            let retry = run.prop_map(|run| Ask::Retry { run });
            prop_oneof![3 => ask, 3 => verb, 1 => retry].boxed()
        };
        let id = prop_oneof![2 => Just(None), 1 => (0..2_u8).prop_map(Some)];
        prop_oneof![
            12 => (ask, id).prop_map(|(ask, id)| Step::Ask(ask, id)),
            3 => Just(Step::Pass),
            1 => any::<bool>().prop_map(|orderly| Step::Restart { orderly }),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        let world = &model.world;
        let Step::Ask(ask, id) = step else { return true };
        // The meaning of an etag changes with time: a request that is repeated has none.
        if id.is_some() && ask.etag() != Etag::None {
            return false;
        }
        let is_full = world.runs.len() >= RUNS_MAX;
        // A machine that is busy with an abandoned operation makes a step wait: how long is up to the world.
        match *ask {
            Ask::Start { machine, .. } => !is_full && !world.iron[machine].busy,
            Ask::Retry { run } => {
                !is_full && world.runs.get(run).is_some_and(|run| !world.iron[run.machine].busy)
            }
            Ask::Verb { run, verb, .. } => world.runs.get(run).is_some_and(|run| {
                verb != Verb::Resolve(StepResolution::Retry) || !world.iron[run.machine].busy
            }),
            Ask::Register { .. }
            | Ask::Label { .. }
            | Ask::SetPhase { .. }
            | Ask::Clear { .. }
            | Ask::Delete { .. } => true,
        }
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.answer = match *step {
            Step::Ask(ask, id) => model.ask(ask, id),
            Step::Pass => {
                model.world.finish();
                Answer::Silence
            }
            Step::Restart { .. } => Answer::Silence,
        };
        model
    }
}

const RESOLUTIONS: [StepResolution; 4] =
    [StepResolution::Done, StepResolution::Retry, StepResolution::Skip, StepResolution::Abort];

const YES: Result<Done, &str> = Ok(Done { new_run: None, is_kept: true });

/// The effect of a request.
struct Done {
    new_run: Option<usize>,
    /// Its request id is remembered.
    is_kept: bool,
}

impl Model {
    /// A server without any state.
    pub(crate) fn new() -> Self {
        let world = World::default();
        Self { world, answer: Answer::Silence, requests: BTreeMap::new() }
    }

    fn ask(&mut self, ask: Ask, id: Option<u8>) -> Answer {
        let key = id.map(|id| (ask.scope(), id));
        let remembers = !matches!(ask, Ask::Delete { .. } | Ask::Start { dry: true, .. });
        if let Some(first) = key.and_then(|key| self.requests.get(&key)).filter(|_| remembers) {
            return if *first == ask { Answer::Again } else { Answer::No("REQUEST_ID_REUSED") };
        }
        match self.change(ask) {
            Err(reason) => Answer::No(reason),
            Ok(done) => {
                if let Some(key) = key.filter(|_| done.is_kept && remembers) {
                    self.requests.insert(key, ask);
                }
                Answer::Yes { new_run: done.new_run }
            }
        }
    }

    fn change(&mut self, ask: Ask) -> Result<Done, &'static str> {
        match ask {
            Ask::Register { machine, serves } => self.register(machine, serves),
            Ask::Label { machine, value, etag } => {
                self.found(machine, etag)?.label = (value > 0).then_some(value);
                YES
            }
            Ask::SetPhase { machine, phase, etag } => {
                let machine = self.found(machine, etag)?;
                if machine.active.is_some() {
                    return Err("RUN_ACTIVE");
                }
                if !is_legal(machine.phase, phase) {
                    return Err("ILLEGAL_PHASE");
                }
                machine.phase = phase;
                YES
            }
            Ask::Clear { machine, etag } => {
                let machine = self.found(machine, etag)?;
                match machine.trouble {
                    Some((trouble, _))
                        if machine.active.is_some()
                            && trouble != crate::world::Trouble::Aborted =>
                    {
                        return Err("RUN_ACTIVE");
                    }
                    Some(_) | None => machine.trouble = None,
                }
                YES
            }
            Ask::Delete { machine, etag } => {
                if self.found(machine, etag)?.phase != Phase::Retired {
                    return Err("NOT_RETIRED");
                }
                self.world.machines[machine] = None;
                self.world.iron[machine].remembers =
                    self.world.runs.iter().any(|run| run.machine == machine);
                YES
            }
            Ask::Start { machine, plan, force, dry, etag } => {
                self.start(machine, plan, force, dry, etag)
            }
            Ask::Verb { run, verb, etag } => self.verb(run, verb, etag),
            Ask::Retry { run } => self.retry(run),
        }
    }

    fn found(&mut self, machine: usize, etag: Etag) -> Result<&mut Machine, &'static str> {
        let found = self.world.machines[machine].as_mut().ok_or("NOT_FOUND")?;
        if etag == Etag::Stale { Err("ETAG_MISMATCH") } else { Ok(found) }
    }

    fn register(&mut self, machine: usize, serves: bool) -> Result<Done, &'static str> {
        let place = &mut self.world.machines[machine];
        // What does not serve is not taken for what does.
        if place
            .as_ref()
            .is_some_and(|known| serves && !known.in_cluster && known.phase != Phase::InService)
        {
            return Err("ALREADY_EXISTS");
        }
        // An existing one is left unchanged, and the request is not remembered.
        let is_kept = place.is_none();
        if is_kept {
            self.world.registered += 1;
            *place = Some(Machine {
                phase: if serves { Phase::InService } else { Phase::FactoryReady },
                in_cluster: serves,
                trouble: None,
                active: None,
                label: None,
                number: self.world.registered,
            });
        }
        Ok(Done { new_run: None, is_kept })
    }

    fn start(
        &mut self,
        machine: usize,
        plan: Plan,
        force: bool,
        dry: bool,
        etag: Etag,
    ) -> Result<Done, &'static str> {
        // The order of reasons: an active run, an etag, and then the plan's rules.
        let found = self.world.owner(machine).ok_or("NOT_FOUND")?;
        if found.active.is_some() && !dry {
            return Err("RUN_ACTIVE");
        }
        self.found(machine, etag)?;
        self.admit(machine, plan, force)?;
        if dry {
            return Ok(Done { new_run: None, is_kept: false });
        }
        Ok(self.accept(machine, plan, force, 0))
    }

    fn admit(&self, machine: usize, plan: Plan, force: bool) -> Result<(), &'static str> {
        let machine = self.world.owner(machine).ok_or("NOT_FOUND")?;
        if machine.active.is_some() {
            return Err("RUN_ACTIVE");
        }
        if machine.trouble.is_some_and(|(trouble, _)| trouble.blocks()) {
            return Err("INTERVENTION_NEEDED");
        }
        if !plan.allows(machine.phase) {
            return Err("PHASE_NOT_ALLOWED");
        }
        if plan == Plan::Long && !force && machine.effective() == EffectiveState::InService {
            return Err("EFFECTIVE_STATE_REFUSED");
        }
        Ok(())
    }

    fn accept(&mut self, machine: usize, plan: Plan, force: bool, from: usize) -> Done {
        self.world.accept(machine, plan, force, from);
        let Iron { remembers, .. } = &mut self.world.iron[machine];
        // Remains of an earlier registration must be dealt with first; an hour is enough for everything.
        if std::mem::take(remembers) {
            self.world.rushed = Some(self.world.runs.len() - 1);
            self.world.finish();
        }
        Done { new_run: Some(self.world.runs.len() - 1), is_kept: true }
    }

    fn verb(&mut self, id: usize, verb: Verb, etag: Etag) -> Result<Done, &'static str> {
        let at = self.world.runs[id].at;
        if etag == Etag::Stale {
            return Err("ETAG_MISMATCH");
        }
        if !at.is_active() {
            let is_kept = false;
            return if verb == Verb::Cancel {
                Ok(Done { new_run: None, is_kept })
            } else {
                Err("RUN_STATE")
            };
        }
        match verb {
            Verb::Cancel => self.cancel(id),
            Verb::Abort => self.world.abort(id),
            Verb::Pause => match at {
                At::Running => self.world.runs[id].at = At::Pausing,
                At::Pausing | At::Paused => {}
                _ => return Err("RUN_STATE"),
            },
            Verb::Resume => match at {
                At::Pausing => self.world.runs[id].at = At::Running,
                At::Paused => self.world.open(id),
                _ => return Err("RUN_STATE"),
            },
            Verb::Resolve(_) if at != At::Unknown => return Err("STEP_STATE"),
            Verb::Resolve(StepResolution::Abort) => self.world.abort(id),
            Verb::Resolve(resolution) => {
                let step = self.world.runs[id].step();
                self.world.machine(id).trouble = None;
                self.world.runs[id].steps[step] = match resolution {
                    StepResolution::Done => StepState::Succeeded,
                    StepResolution::Skip => StepState::Skipped,
                    _ => StepState::Waiting,
                };
                self.world.open(id);
            }
        }
        YES
    }

    fn cancel(&mut self, id: usize) {
        let run = &mut self.world.runs[id];
        let step = run.step();
        match run.at {
            At::Running | At::Pausing if run.plan.is_destructive(step) => run.at = At::Canceling,
            At::Running | At::Pausing | At::Unknown => {
                run.steps[step] = StepState::Canceled;
                self.world.end_canceled(id);
            }
            At::Paused => self.world.end_canceled(id),
            At::Canceling | At::Unwinding | At::Succeeded | At::Failed | At::Canceled => {}
        }
    }

    fn retry(&mut self, id: usize) -> Result<Done, &'static str> {
        let run = self.world.runs[id].clone();
        if !matches!(run.at, At::Failed | At::Canceled) {
            return Err("RUN_STATE");
        }
        self.admit(run.machine, run.plan, run.force)?;
        let done = |state: &StepState| matches!(state, StepState::Succeeded | StepState::Skipped);
        let first = run.steps.iter().position(|state| !done(state)).unwrap_or(0);
        Ok(self.accept(run.machine, run.plan, run.force, run.plan.retried_from(first)))
    }
}
