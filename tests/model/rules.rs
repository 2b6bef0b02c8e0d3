//! The plans that are run, and the rules for phases.

use bmdemo::pb::Phase;

/// Phases that a machine can be in.
pub(crate) const PHASES: [Phase; 6] = [
    Phase::FactoryReady,
    Phase::Ready,
    Phase::InService,
    Phase::Maintenance,
    Phase::Rma,
    Phase::Retired,
];

/// Legal transitions. Setting the present phase changes nothing, but RETIRED accepts nothing at all.
pub(crate) fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::{FactoryReady, InService, Maintenance, Ready, Retired, Rma};
    if from == to {
        return from != Retired;
    }
    match to {
        Ready => matches!(from, FactoryReady | InService | Maintenance),
        InService => from == Ready,
        Maintenance => matches!(from, FactoryReady | Ready | InService),
        Rma => from != Retired,
        Retired => matches!(from, FactoryReady | Maintenance | Rma),
        FactoryReady => from == Rma,
        Phase::Unspecified => false,
    }
}

/// A plan of this test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plan {
    /// One destructive step.
    Short,
    /// A harmless step that is undone, a destructive one, and one that joins the cluster; sets READY.
    Long,
    /// One destructive step; sets RMA.
    Leave,
}

/// The plans as files. Only set-netboot observes a state that may be there already.
pub(crate) const PLANS: &str = r#"
id = "plan/short"
display_name = "Short"
destructive = true
allowed_phases = ["FACTORY_READY", "READY", "IN_SERVICE", "MAINTENANCE"]
[[steps]]
name = "restart"
action = "reboot"
on_unknown = "verify"
retry = { max_attempts = 2, on = ["transient"] }
--
id = "plan/long"
display_name = "Long"
destructive = true
allowed_phases = ["FACTORY_READY", "READY", "MAINTENANCE"]
refused_effective = ["IN_SERVICE"]
[[steps]]
name = "boot"
action = "set-netboot"
compensation = { action = "clear-netboot" }
retry = { max_attempts = 2, on = ["transient"] }
[[steps]]
name = "write"
action = "repave"
args = { image = "one" }
on_unknown = "verify"
needs = ["boot"]
[[steps]]
name = "tell"
action = "notify"
args = { channel = "all", message = "it is there" }
on_unknown = "verify"
sets = { InCustomerCluster = true }
[result]
phase = "READY"
--
id = "plan/leave"
display_name = "Leave"
destructive = true
allowed_phases = ["READY", "MAINTENANCE"]
[[steps]]
name = "erase"
action = "wipe"
on_unknown = "verify"
[result]
phase = "RMA"
conditions = { InCustomerCluster = false }
"#;

impl Plan {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Long, Self::Leave];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Short => "plan/short",
            Self::Long => "plan/long",
            Self::Leave => "plan/leave",
        }
    }

    pub(crate) fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Short => &["restart"],
            Self::Long => &["boot", "write", "tell"],
            Self::Leave => &["erase"],
        }
    }

    pub(crate) fn is_destructive(self, step: usize) -> bool {
        self != Self::Long || step == 1
    }

    pub(crate) fn allows(self, phase: Phase) -> bool {
        match self {
            Self::Short => !matches!(phase, Phase::Rma | Phase::Retired),
            Self::Long => matches!(phase, Phase::FactoryReady | Phase::Ready | Phase::Maintenance),
            Self::Leave => matches!(phase, Phase::Ready | Phase::Maintenance),
        }
    }

    /// Where a retry starts if `step` is the first that was not done: at what it needs.
    pub(crate) fn retried_from(self, step: usize) -> usize {
        if self == Self::Long && step == 1 { 0 } else { step }
    }
}

/// Faults of the machines whose names say so.
pub(crate) const SCRIPT: &str = "machine=bad-* step=boot do=fail-late\n\
                                 machine=bad-* step=restart do=fail-late\n\
                                 machine=lost-* step=restart do=fail-after\n\
                                 machine=lost-* step=restart call=observe do=unknowable";

/// The possible machines.
pub(crate) const MACHINES: [&str; 4] = ["good-1", "good-2", "bad-1", "lost-1"];

/// Whether a step fails permanently on a machine.
pub(crate) fn fails(machine: usize, plan: Plan, step: usize) -> bool {
    machine == 2 && step == 0 && plan != Plan::Leave
}

/// Whether the outcome of a step on a machine is unknowable.
pub(crate) fn is_lost(machine: usize, plan: Plan) -> bool {
    machine == 3 && plan == Plan::Short
}
