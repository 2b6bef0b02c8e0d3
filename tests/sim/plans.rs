//! The plans that are run.

use std::sync::OnceLock;

use bmdemo::model::Run;
use bmdemo::plan::registry::BUILT_IN;
use bmdemo::plan::{Registry, Risk, Role, SourceFile, compile};

/// The built-in ones.
pub(crate) const PLANS: [&str; 5] =
    ["plan/repave-join", "plan/rma", "plan/reboot", "plan/upgrade", "plan/net-reconfig"];

/// Those that destroy data.
pub(crate) const DESTROYING_PLANS: [&str; 2] = ["plan/repave-join", "plan/rma"];

/// One that uses everything the language has beyond steps, and one that runs in between.
pub(crate) const LANGUAGE_PLANS: [&str; 3] = [LANGUAGE_ID, LANGUAGE_ID, "plan/reboot"];

pub(crate) const LANGUAGE_ID: &str = "plan/language";

/// Longest time of a run of it, in milliseconds.
pub(crate) const TIME_LIMIT_MS: u64 = 10 * 60 * 1_000;

const LANGUAGE: &str = r#"
id = "plan/language"
allowed_phases = ["FACTORY_READY", "READY", "IN_SERVICE", "MAINTENANCE"]
time_limit = "10m"

[[steps]]
name = "drain"
action = "drain"
timeout = "5m"
on_unknown = "verify"
sets = { InCustomerCluster = false }
compensation = { action = "undrain", timeout = "1m", retry = { max_attempts = 2 } }

[[steps]]
name = "soak"
action = "wait"
args = { for = "2s" }

[[steps]]
name = "ask"
action = "approve"
args = { message = "Restart it?" }
timeout = "1m"

[[steps]]
name = "reboot"
action = "reboot"
timeout = "5m"
on_unknown = "verify"

[[steps]]
name = "labeled"
action = "wait"
until = { label = { rack = "1" } }
timeout = "2m"
when = { label = { rack = "2" } }

[[steps]]
name = "undrain"
action = "undrain"

[[on_failure]]
name = "tell"
action = "notify"

[[finally]]
name = "record"
action = "notify"

[[finally]]
name = "settle"
action = "wait"
args = { for = "1s" }
"#;

/// All of them.
pub(crate) fn registry() -> Registry {
    let file = SourceFile { name: "language.toml", bytes: LANGUAGE.as_bytes() };
    let own = compile(&[file]).expect("a plan");
    Registry::from_plans(BUILT_IN.iter().cloned().chain(own).collect()).expect("a registry")
}

/// All of them, compiled once: invariants use them repeatedly.
pub(crate) fn known() -> &'static Registry {
    static KNOWN: OnceLock<Registry> = OnceLock::new();
    KNOWN.get_or_init(registry)
}

/// Whether a step of a plan destroys data.
pub(crate) fn destroys(plan: &str, step: &str) -> bool {
    let found = known().get(plan).and_then(|found| found.plan.step(step));
    found.is_some_and(|step| step.action.traits.risk == Risk::DataDestroying)
}

/// Role of a step of a plan.
pub(crate) fn role(plan: &str, step: &str) -> Role {
    let found = known().get(plan).and_then(|found| found.plan.step(step).map(|step| step.role));
    found.unwrap_or(Role::Main)
}

/// Whether a step of a run has begun to destroy data, or may have.
pub(crate) fn has_destroyed(run: &Run) -> bool {
    let sent = run.steps.iter().filter(|step| step.attempt > 0 && !step.unsent);
    sent.into_iter().any(|step| destroys(&run.spec.plan_id, &step.name))
}

/// What a plan puts at risk.
pub(crate) fn risk(plan: &str) -> Risk {
    known().get(plan).map_or(Risk::None, |found| found.plan.risk())
}
