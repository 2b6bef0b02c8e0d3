//! Stored form of what probes observe. The store in SQLite has columns for it instead.

use serde::{Deserialize, Serialize};

use super::format::{
    DecodeError, FORMAT, Text, check_format, from_json, is_default, known, to_json,
};
use crate::clock::Timestamp;
use crate::model::{MachineFacts, Observed, Power};

#[derive(Serialize, Deserialize)]
struct ObservedBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    since: u64,
    power: Text<'a>,
    #[serde(default, rename = "word", skip_serializing_if = "is_default")]
    power_word: Text<'a>,
    #[serde(default, rename = "fw", skip_serializing_if = "is_default")]
    firmware: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    serial: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    health: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    model: Text<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    macs: Vec<Text<'a>>,
}

/// The stored text of an observation.
pub(crate) fn encode_observed(observed: &Observed) -> String {
    let Observed { facts, since } = observed;
    to_json(&ObservedBody {
        format: FORMAT,
        since: since.0,
        power: facts.power.as_str().into(),
        power_word: facts.power_word.as_str().into(),
        firmware: facts.firmware.as_str().into(),
        serial: facts.serial.as_str().into(),
        health: facts.health.as_str().into(),
        model: facts.model.as_str().into(),
        macs: facts.mac_addresses.iter().map(|mac| mac.as_str().into()).collect(),
    })
}

/// The observation of a stored text.
///
/// # Errors
/// [`DecodeError`] if it is not one that this version can read.
pub(crate) fn decode_observed(text: &str) -> Result<Observed, DecodeError> {
    let body: ObservedBody<'_> = from_json(text)?;
    check_format(body.format)?;
    let facts = MachineFacts {
        power: known("state of power", &body.power, Power::parse(&body.power))?,
        power_word: body.power_word.into_owned(),
        firmware: body.firmware.into_owned(),
        serial: body.serial.into_owned(),
        health: body.health.into_owned(),
        model: body.model.into_owned(),
        mac_addresses: body.macs.into_iter().map(Text::into_owned).collect(),
    };
    Ok(Observed { facts, since: Timestamp(body.since) })
}
