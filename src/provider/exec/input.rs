//! What a program gets: JSON on standard input, and the same in short as its environment.

use zeroize::Zeroizing;

use super::material::Material;
use crate::ids::Epoch;
use crate::provider::message::{self, Purpose};
use crate::provider::{Call, Target};

/// Input and environment of a program.
pub(super) struct Input {
    /// For its standard input.
    pub(super) json: Zeroizing<String>,
    /// For its environment.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// What a call gives to its program, without a secret.
pub(super) fn of_call(purpose: Purpose, class: &str, target: &Target, call: &Call) -> Input {
    with_material(purpose, class, target, call, None)
}

/// What a call gives to its program, with the secret that an earlier step has minted.
pub(super) fn with_material(
    purpose: Purpose,
    class: &str,
    target: &Target,
    call: &Call,
    material: Option<&Material>,
) -> Input {
    let mut variables = variables(purpose, target);
    variables.extend([
        ("BMDEMO_ACTION", call.action.clone()),
        ("BMDEMO_OPERATION_ID", call.operation.as_str().to_owned()),
        ("BMDEMO_EPOCH", call.epoch.0.to_string()),
    ]);
    let material = material.map(Material::reveal);
    Input { json: message::with_material(purpose, class, target, call, material), variables }
}

/// What the program gets that raises a machine's epoch.
pub(super) fn of_fence(class: &str, target: &Target, epoch: Epoch) -> Input {
    let mut variables = variables(Purpose::Fence, target);
    variables.push(("BMDEMO_EPOCH", epoch.0.to_string()));
    let json = Zeroizing::new(message::of_fence(class, target, epoch));
    Input { json, variables }
}

/// What the program gets that says how a machine is.
pub(super) fn of_probe(class: &str, target: &Target) -> Input {
    let json = Zeroizing::new(message::of_probe(class, target));
    Input { json, variables: variables(Purpose::Probe, target) }
}

fn variables(purpose: Purpose, target: &Target) -> Vec<(&'static str, String)> {
    vec![
        ("BMDEMO_CALL", purpose.as_str().to_owned()),
        ("BMDEMO_MACHINE", target.machine_id.as_str().to_owned()),
    ]
}
