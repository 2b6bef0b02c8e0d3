//! The model's machines and runs, and their progress: written from the rules, independent of the code that serves
//! them.

use bmdemo::pb::{EffectiveState, Phase, StepState};

use crate::rules::{MACHINES, Plan, fails, is_lost};

/// Why a machine needs an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    RunFailed,
    RunCanceled,
    OutcomeUnknown,
    Aborted,
}

impl Trouble {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RunFailed => "RUN_FAILED",
            Self::RunCanceled => "RUN_CANCELED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Aborted => "ABORTED",
        }
    }

    pub(crate) fn blocks(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::Aborted)
    }
}

/// A registered machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) phase: Phase,
    pub(crate) in_cluster: bool,
    pub(crate) trouble: Option<(Trouble, Plan)>,
    pub(crate) active: Option<usize>,
    pub(crate) label: Option<u8>,
    /// Order of registration.
    pub(crate) number: usize,
}

impl Machine {
    /// The seed's precedence.
    pub(crate) fn effective(&self) -> EffectiveState {
        match self.phase {
            _ if self.active.is_some() => EffectiveState::Provisioning,
            Phase::Rma => EffectiveState::Rma,
            Phase::Retired => EffectiveState::Retired,
            Phase::Maintenance => EffectiveState::Maintenance,
            _ if self.in_cluster => EffectiveState::InService,
            Phase::InService => EffectiveState::InService,
            Phase::Ready => EffectiveState::Ready,
            Phase::FactoryReady => EffectiveState::FactoryReady,
            Phase::Unspecified => EffectiveState::Unspecified,
        }
    }
}

/// The real state of a machine; outlives its registration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Iron {
    /// The next boot is from the network.
    pub(crate) netboot: bool,
    /// Busy with an abandoned operation.
    pub(crate) busy: bool,
    /// Had a run under an earlier registration.
    pub(crate) remembers: bool,
}

/// Position of a run. In `Running`, `Pausing` and `Canceling` the step `at` is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Running,
    Pausing,
    Paused,
    Unknown,
    Canceling,
    /// Undoes, and then ends as canceled.
    Unwinding,
    Succeeded,
    Failed,
    Canceled,
}

impl At {
    pub(crate) fn is_active(self) -> bool {
        !matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) machine: usize,
    pub(crate) plan: Plan,
    pub(crate) force: bool,
    pub(crate) at: At,
    pub(crate) steps: Vec<StepState>,
    /// Steps that this run has started.
    pub(crate) begun: Vec<bool>,
}

impl Run {
    /// The step in flight, or the next one.
    pub(crate) fn step(&self) -> usize {
        let open = |state: &StepState| matches!(state, StepState::Running | StepState::Waiting);
        self.steps.iter().position(open).unwrap_or(self.steps.len())
    }
}

/// The whole state.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) machines: [Option<Machine>; MACHINES.len()],
    pub(crate) iron: [Iron; MACHINES.len()],
    pub(crate) runs: Vec<Run>,
    pub(crate) registered: usize,
    /// The last run whose start got an hour.
    pub(crate) rushed: Option<usize>,
}

impl World {
    pub(crate) fn machine(&mut self, run: usize) -> &mut Machine {
        let machine = self.runs[run].machine;
        self.machines[machine].as_mut().expect("a machine with a run is not deleted")
    }

    pub(crate) fn owner(&self, machine: usize) -> Option<&Machine> {
        self.machines[machine].as_ref()
    }

    /// A new run takes its machine, and its first step starts.
    pub(crate) fn accept(&mut self, machine: usize, plan: Plan, force: bool, from: usize) {
        let count = plan.steps().len();
        let state = |step| if step < from { StepState::Skipped } else { StepState::Waiting };
        let steps = (0..count).map(state).collect();
        let at = At::Running;
        self.runs.push(Run { machine, plan, force, at, steps, begun: vec![false; count] });
        let run = self.runs.len() - 1;
        self.machine(run).active = Some(run);
        self.open(run);
    }

    /// The next step starts; if there is none, the run has succeeded.
    pub(crate) fn open(&mut self, id: usize) {
        let run = &mut self.runs[id];
        let step = run.step();
        run.at = At::Running;
        if step == run.steps.len() {
            return self.succeed(id);
        }
        run.steps[step] = StepState::Running;
        run.begun[step] = true;
        let (machine, plan) = (run.machine, run.plan);
        if is_lost(machine, plan) {
            run.at = At::Unknown;
            // It took effect, and the answer was lost.
            self.iron[machine].busy = true;
            self.iron[machine].netboot = false;
            self.machine(id).trouble = Some((Trouble::OutcomeUnknown, plan));
        } else if plan == Plan::Long && step == 0 && self.iron[machine].netboot {
            // It is done already.
            self.runs[id].steps[0] = StepState::Succeeded;
            self.open(id);
        }
    }

    fn succeed(&mut self, id: usize) {
        let plan = self.runs[id].plan;
        let machine = self.machine(id);
        match plan {
            Plan::Short => {}
            Plan::Long => machine.phase = Phase::Ready,
            Plan::Leave => (machine.phase, machine.in_cluster) = (Phase::Rma, false),
        }
        let recovered = [(Trouble::RunFailed, plan), (Trouble::RunCanceled, plan)];
        if machine.trouble.is_some_and(|trouble| recovered.contains(&trouble)) {
            machine.trouble = None;
        }
        self.release(id, At::Succeeded);
    }

    fn release(&mut self, id: usize, end: At) {
        self.machine(id).active = None;
        let run = &mut self.runs[id];
        run.at = end;
        for step in &mut run.steps {
            if matches!(step, StepState::Waiting | StepState::Running) {
                *step = StepState::Canceled;
            }
        }
    }

    fn blame(&mut self, id: usize, trouble: Trouble) {
        let plan = self.runs[id].plan;
        let machine = self.machine(id);
        if machine.trouble.is_none_or(|(before, _)| !before.blocks()) {
            machine.trouble = Some((trouble, plan));
        }
    }

    /// The run ends as canceled, once its effects are undone. Nothing is in flight.
    pub(crate) fn end_canceled(&mut self, id: usize) {
        let Run { machine, plan, ref begun, .. } = self.runs[id];
        if plan == Plan::Long && begun[0] {
            self.runs[id].at = At::Unwinding;
            if self.iron[machine].netboot {
                return;
            }
        }
        self.canceled(id);
    }

    fn canceled(&mut self, id: usize) {
        let run = &self.runs[id];
        let destroyed = (0..run.begun.len()).any(|at| run.begun[at] && run.plan.is_destructive(at));
        if destroyed {
            self.blame(id, Trouble::RunCanceled);
        }
        self.release(id, At::Canceled);
    }

    pub(crate) fn abort(&mut self, id: usize) {
        let Run { machine, plan, at, .. } = self.runs[id];
        if at != At::Paused {
            self.iron[machine].busy = true;
        }
        self.iron[machine].netboot = self.left_behind(id);
        self.machine(id).trouble = Some((Trouble::Aborted, plan));
        self.release(id, At::Failed);
    }

    /// Whether the machine boots from the network once the operation in flight has finished.
    fn left_behind(&self, id: usize) -> bool {
        let Run { machine, plan, at, .. } = self.runs[id];
        let step = self.runs[id].step();
        let now = self.iron[machine].netboot;
        match at {
            At::Unwinding => false,
            At::Running | At::Pausing | At::Canceling if fails(machine, plan, step) => now,
            At::Running | At::Pausing | At::Canceling => match (plan, step) {
                (Plan::Long, 0) => true,
                (Plan::Long, 2) => now,
                _ => false,
            },
            At::Paused | At::Unknown | At::Succeeded | At::Failed | At::Canceled => now,
        }
    }

    /// Much time passes: everything that needs no person finishes.
    pub(crate) fn finish(&mut self) {
        for id in 0..self.runs.len() {
            self.finish_run(id);
        }
        for iron in &mut self.iron {
            iron.busy = false;
        }
    }

    fn finish_run(&mut self, id: usize) {
        loop {
            let Run { machine, plan, at, .. } = self.runs[id];
            match at {
                At::Running | At::Pausing | At::Canceling => {}
                At::Unwinding => {
                    self.iron[machine].netboot = false;
                    return self.canceled(id);
                }
                At::Paused | At::Unknown | At::Succeeded | At::Failed | At::Canceled => return,
            }
            let step = self.runs[id].step();
            if fails(machine, plan, step) {
                if at == At::Canceling {
                    self.runs[id].steps[step] = StepState::Canceled;
                    return self.end_canceled(id);
                }
                self.runs[id].steps[step] = StepState::Failed;
                self.blame(id, Trouble::RunFailed);
                return self.release(id, At::Failed);
            }
            self.runs[id].steps[step] = StepState::Succeeded;
            match (plan, step) {
                (Plan::Long, 0) => self.iron[machine].netboot = true,
                // An installed machine boots from its disk again.
                (Plan::Long, 1) | (Plan::Short, _) | (Plan::Leave, _) => {
                    self.iron[machine].netboot = false;
                }
                (Plan::Long, _) => self.machine(id).in_cluster = true,
            }
            let over = step + 1 == plan.steps().len();
            match at {
                At::Pausing if !over => {
                    self.runs[id].at = At::Paused;
                    return;
                }
                At::Canceling if !over => {
                    self.end_canceled(id);
                    // Undoing comes last.
                    continue;
                }
                _ => self.open(id),
            }
        }
    }
}
