//! What the machine's own driver says against a run.

use std::collections::BTreeMap;

use crate::executor::error::{EngineError, Refusal};
use crate::model::Machine;
use crate::plan::{Action, Plan, Step, Value};
use crate::provider::{Asked, Provider, Target};

/// What the machine's driver says against the arguments of the steps, compensations included.
pub(super) fn objections(
    plan: &Plan,
    params: &BTreeMap<String, Value>,
    machine: &Machine,
    provider: &dyn Provider,
) -> Vec<EngineError> {
    let target = Target::from(machine);
    let can = provider.capabilities(&target);
    let asked = |(step, action): (&Step, &Action)| {
        let (name, capability) = (&*action.name, action.traits.capability);
        if !can.contains(capability) {
            return None;
        }
        let args = &action.resolve(params);
        let why = provider.objection(&target, &Asked { name, capability, args })?;
        Some(EngineError::Refused {
            refusal: Refusal::ArgumentRefused,
            subject: format!("machines/{}", machine.id),
            message: format!("step {} of {}: {why}", step.name, plan.id),
            hint: "correct the parameters of the run, what is registered of the machine, or the server's configuration"
                .to_owned(),
        })
    };
    plan.actions().filter_map(asked).collect()
}

/// The declared actions of `plan` that the machine's driver does not perform, although it has their capability.
pub(super) fn unperformed(
    plan: &Plan,
    machine: &Machine,
    provider: &dyn Provider,
) -> Vec<EngineError> {
    let class = &machine.spec.provider;
    let can = provider.capabilities(&Target::from(machine));
    plan.declared()
        .filter(|(_, action)| {
            let needed = action.traits.capability;
            can.contains(needed) && !provider.performs(needed, &action.name)
        })
        .map(|(step, action)| EngineError::Refused {
            refusal: Refusal::CapabilityMissing,
            subject: format!("machines/{}", machine.id),
            message: format!(
                "step {} of {} needs the action {}, which provider {class:?} of machine {} does not perform",
                step.name, plan.id, action.name, machine.id
            ),
            hint: format!(
                "name a program for it in [machine_classes.{class}.exec.actions.{}] of the server's configuration, or take another plan",
                action.name
            ),
        })
        .collect()
}
