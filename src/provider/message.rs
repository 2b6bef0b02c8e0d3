//! What drivers outside this process get, programs and receivers alike, and how their answers are read.

use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use super::{Call, Target};
use crate::ids::Epoch;
use crate::plan::{Value, Values};

/// Version of the message; it grows when a key changes its meaning, not when one is added.
const SCHEMA: u32 = 1;
/// Longest text of an answer that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
const OUTPUTS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 63;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum Purpose {
    Act,
    Observe,
    Verify,
    Stop,
    Fence,
    Probe,
}

impl Purpose {
    /// Name in the configuration, the message and in errors.
    pub(in crate::provider) const fn as_str(self) -> &'static str {
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

/// About a call.
pub(in crate::provider) fn of_call(
    purpose: Purpose,
    class: &str,
    target: &Target,
    call: &Call,
) -> String {
    Json::Object(about_call(purpose, class, target, call)).to_string()
}

/// About a call, with a secret that it needs.
pub(in crate::provider) fn with_material(
    purpose: Purpose,
    class: &str,
    target: &Target,
    call: &Call,
    material: Option<&str>,
) -> Zeroizing<String> {
    let mut json = about_call(purpose, class, target, call);
    if let Some(material) = material {
        json.insert("material".to_owned(), json!(material));
    }
    Zeroizing::new(Json::Object(json).to_string())
}

fn about_call(purpose: Purpose, class: &str, target: &Target, call: &Call) -> Map<String, Json> {
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
    json
}

/// For what raises a machine's epoch.
pub(in crate::provider) fn of_fence(class: &str, target: &Target, epoch: Epoch) -> String {
    let mut json = about(Purpose::Fence, class, target);
    json.insert("epoch".to_owned(), json!(epoch.0));
    Json::Object(json).to_string()
}

/// For what says how a machine is.
pub(in crate::provider) fn of_probe(class: &str, target: &Target) -> String {
    Json::Object(about(Purpose::Probe, class, target)).to_string()
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

/// The outputs of an answer.
///
/// # Errors
/// What makes them none.
pub(in crate::provider) fn outputs(outputs: &Map<String, Json>) -> Result<Values, String> {
    if outputs.len() > OUTPUTS_MAX {
        return Err(format!("{} outputs, at most {OUTPUTS_MAX} are kept", outputs.len()));
    }
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    outputs
        .iter()
        .map(|(name, value)| {
            let wrong = |why: &str| format!("output {name:?} {why}");
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(inside) {
                return Err(wrong("has a name that is not made of a-z, 0-9, '-' and '_'"));
            }
            let value = match value {
                Json::String(text) if text.len() <= TEXT_BYTES_MAX => {
                    Value::Str(text.clone().into())
                }
                Json::String(_) => return Err(wrong("is longer than 1024 bytes")),
                Json::Bool(truth) => Value::Bool(*truth),
                Json::Number(number) => number
                    .as_i64()
                    .map(Value::Int)
                    .ok_or_else(|| wrong("is no whole number of 64 bits"))?,
                Json::Null | Json::Array(_) | Json::Object(_) => {
                    return Err(wrong("is no text, whole number, true or false"));
                }
            };
            Ok((name.clone(), value))
        })
        .collect()
}

/// A text of an answer, on one line and bounded.
pub(in crate::provider) fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().replace(char::is_control, " ")
}
