//! Starting runs: what one request asks for, alone or in a batch, for real or as a dry run.

use std::collections::BTreeMap;

use super::convert;
use super::convert::run::run_type_given;
use super::status::ApiError;
use super::validate::{Checks, NAME_CHARS_MAX};
use super::{plans, show};
use crate::executor::Engine;
use crate::executor::decide::Surroundings;
use crate::executor::error::EngineError;
use crate::executor::request::{NewRun, Origin};
use crate::ids::MachineId;
use crate::model::{Machine, RunType, Steps};
use crate::pb;
use crate::plan::Plan;

/// What to run, independent of the machine.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    run_type: Option<RunType>,
    plan_id: String,
    parameters: BTreeMap<String, String>,
    force: bool,
    plan_digest: String,
}

impl Recipe {
    /// The run on one machine.
    pub(super) fn on(&self, machine_id: MachineId) -> NewRun {
        NewRun {
            machine_id,
            run_type: self.run_type,
            plan_id: self.plan_id.clone(),
            parameters: self.parameters.clone(),
            force: self.force,
            plan_digest: self.plan_digest.clone(),
        }
    }
}

/// What plan a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Its id, empty for the default of the type.
    pub(super) plan_id: &'a str,
    /// Its type.
    pub(super) run_type: i32,
    /// Its digest, empty for any.
    pub(super) plan_digest: &'a str,
}

/// Checks what a request asks to run.
pub(super) fn recipe(
    checks: &mut Checks,
    Asked { plan_id, run_type, plan_digest }: Asked<'_>,
    parameters: &BTreeMap<String, String>,
    force: bool,
    reason: &str,
) -> Option<Recipe> {
    let run_type = checks.optional("type", run_type);
    if plan_id.is_empty() {
        if run_type == Some(None) {
            checks.refuse("plan_id", "must be given, or else a type that has a default plan");
        }
    } else {
        checks.line("plan_id", plan_id, NAME_CHARS_MAX);
    }
    checks.line("plan_digest", plan_digest, NAME_CHARS_MAX);
    checks.parameters(parameters);
    checks.reason(reason);
    Some(Recipe {
        run_type: run_type?.and_then(run_type_given),
        plan_id: plan_id.to_owned(),
        parameters: parameters.clone(),
        force,
        plan_digest: plan_digest.to_owned(),
    })
}

/// Starts a run.
pub(super) async fn start(
    engine: &Engine,
    origin: &Origin,
    new: NewRun,
) -> Result<pb::Run, ApiError> {
    let started = engine.start_run(origin, new).await;
    let started = started.map_err(|error| with_suggestion(engine, error))?;
    Ok(show::run(engine, &started).await)
}

/// The run as it would be accepted, without an id since it does not exist.
pub(super) async fn dry_run(
    engine: &Engine,
    origin: &Origin,
    new: &NewRun,
) -> Result<pb::Run, ApiError> {
    let dry = engine.dry_run(origin, new).await;
    let (run, machine, blockers) = dry.map_err(|error| with_suggestion(engine, error))?;
    if let Some(given) = origin.expected.filter(|given| *given != machine.revision) {
        return Err(ApiError::Engine(EngineError::EtagMismatch {
            kind: "machine",
            id: machine.id.to_string(),
            given: convert::etag(given),
            current: convert::etag(machine.revision),
        }));
    }
    if !blockers.is_empty() {
        return Err(ApiError::Blocked(blockers));
    }
    let plans = engine.plans();
    let plan = plans.get(&run.spec.plan_id).map(|registered| registered.plan.as_ref());
    let mut shown = convert::run::run(&run, plan, None, engine.clock().now());
    if let Some(plan) = plan {
        skip(&mut shown, plan, &machine);
    }
    // Nothing of the request is wrong: it would be refused only now.
    let waiting = engine.stop().map(|stop| convert::run::stopped(&stop));
    Ok(pb::Run { run_id: String::new(), etag: String::new(), waiting, ..shown })
}

/// Marks the steps that would be skipped with these parameters and the machine's present state.
fn skip(shown: &mut pb::Run, plan: &Plan, machine: &Machine) {
    let given = shown.parameters.clone().into_iter().collect();
    let Ok(params) = plan.bind(&given) else { return };
    let around = Surroundings { machine, params: &params, steps: &Steps::default() };
    for step in plan.steps.iter() {
        let Some(guard) = &step.when else { continue };
        let wrong =
            guard.params.iter().find(|(name, value)| params.get(name.as_ref()) != Some(value));
        // Outputs of steps are not known yet.
        if guard.holds(&around) || (!guard.outputs.is_empty() && wrong.is_none()) {
            continue;
        }
        let why = match wrong {
            Some((name, value)) => format!("it runs only with {name} = {value}"),
            None => "as the machine is now, its guard does not hold".to_owned(),
        };
        if let Some(status) = shown.steps.iter_mut().find(|status| status.name == step.name) {
            status.state = pb::StepState::Skipped.into();
            status.message = why;
        }
    }
}

fn with_suggestion(engine: &Engine, error: EngineError) -> ApiError {
    if let EngineError::NotFound { kind: "plan", id } = &error {
        return plans::not_found(&engine.plans(), id);
    }
    error.into()
}
