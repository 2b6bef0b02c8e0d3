//! What a program gets: JSON on standard input, and the same in short as its environment.

use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use super::material::Material;
use crate::ids::Epoch;
use crate::plan::{Value, Values};
use crate::provider::{Call, Target};

/// Version of the input; it grows when a key changes its meaning, not when one is added.
const SCHEMA: u32 = 1;

/// What a program is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Act,
    Observe,
    Verify,
    Stop,
    Fence,
    Probe,
}

impl Purpose {
    /// Name in the configuration, the input and messages.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Observe => "observe",
            Self::Verify => "verify",
            Self::Stop => "stop",
            Self::Fence => "fence",
            Self::Probe => "probe",
        }
    }
}

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
    let mut json = about(purpose, class, target);
    let inputs: Map<String, Json> =
        call.inputs.iter().map(|(step, outputs)| (step.clone(), values(outputs))).collect();
    json.extend(Map::from_iter([
        ("action".to_owned(), json!(call.action)),
        ("capability".to_owned(), json!(call.capability.as_str())),
        ("args".to_owned(), values(&call.args)),
        ("inputs".to_owned(), Json::Object(inputs)),
        ("operation_id".to_owned(), json!(call.operation.as_str())),
        ("epoch".to_owned(), json!(call.epoch.0)),
        ("handle".to_owned(), json!(call.handle)),
    ]));
    if let Some(material) = material {
        json.insert("material".to_owned(), json!(material.reveal()));
    }
    let mut variables = variables(purpose, target);
    variables.extend([
        ("BMDEMO_ACTION", call.action.clone()),
        ("BMDEMO_OPERATION_ID", call.operation.as_str().to_owned()),
        ("BMDEMO_EPOCH", call.epoch.0.to_string()),
    ]);
    Input { json: text(json), variables }
}

fn text(json: Map<String, Json>) -> Zeroizing<String> {
    Zeroizing::new(Json::Object(json).to_string())
}

/// What the program gets that raises a machine's epoch.
pub(super) fn of_fence(class: &str, target: &Target, epoch: Epoch) -> Input {
    let mut json = about(Purpose::Fence, class, target);
    json.insert("epoch".to_owned(), json!(epoch.0));
    let mut variables = variables(Purpose::Fence, target);
    variables.push(("BMDEMO_EPOCH", epoch.0.to_string()));
    Input { json: text(json), variables }
}

/// What the program gets that says how a machine is.
pub(super) fn of_probe(class: &str, target: &Target) -> Input {
    let json = text(about(Purpose::Probe, class, target));
    Input { json, variables: variables(Purpose::Probe, target) }
}

fn about(purpose: Purpose, class: &str, target: &Target) -> Map<String, Json> {
    let spec = &target.spec;
    Map::from_iter([
        ("schema".to_owned(), json!(SCHEMA)),
        ("call".to_owned(), json!(purpose.as_str())),
        ("class".to_owned(), json!(class)),
        (
            "machine".to_owned(),
            json!({
                "id": target.machine_id.as_str(),
                "ssh_endpoint": spec.ssh_endpoint,
                "bmc_endpoint": spec.bmc_endpoint,
                "target_cluster": spec.target_cluster,
                "mac_addresses": spec.mac_addresses,
                "serial": spec.serial,
            }),
        ),
    ])
}

fn variables(purpose: Purpose, target: &Target) -> Vec<(&'static str, String)> {
    vec![
        ("BMDEMO_CALL", purpose.as_str().to_owned()),
        ("BMDEMO_MACHINE", target.machine_id.as_str().to_owned()),
    ]
}

/// Values as JSON; a duration is its milliseconds.
fn values(values: &Values) -> Json {
    let value = |value: &Value| match value {
        Value::Str(text) => json!(text),
        Value::Int(number) => json!(number),
        Value::Bool(truth) => json!(truth),
        Value::DurationMs(ms) => json!(ms),
    };
    Json::Object(values.iter().map(|(name, one)| (name.clone(), value(one))).collect())
}
