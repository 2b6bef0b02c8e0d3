//! Stored form of installations.

use serde::{Deserialize, Serialize};

use super::format::{
    DecodeError, FORMAT, Text, check_format, from_json, is_default, known, to_json,
};
use crate::clock::Timestamp;
use crate::ids::OperationId;
use crate::model::{InstallStage, Installation};

#[derive(Serialize, Deserialize)]
struct InstallationBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    op: Text<'a>,
    stage: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    sha256: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    boot: Text<'a>,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    at: u64,
}

/// The stored text of an installation.
pub(crate) fn encode_installation(installation: &Installation) -> String {
    to_json(&InstallationBody {
        format: FORMAT,
        op: installation.operation.as_str().into(),
        stage: installation.stage.as_str().into(),
        sha256: installation.image_sha256.as_str().into(),
        boot: installation.boot_id.as_str().into(),
        message: installation.message.as_str().into(),
        at: installation.at.0,
    })
}

/// The installation of a stored text.
///
/// # Errors
/// [`DecodeError`] if it is not one that this version can read.
pub(crate) fn decode_installation(text: &str) -> Result<Installation, DecodeError> {
    let body: InstallationBody<'_> = from_json(text)?;
    check_format(body.format)?;
    Ok(Installation {
        operation: OperationId::from_stored(&body.op),
        stage: known("stage of an installation", &body.stage, InstallStage::parse(&body.stage))?,
        image_sha256: body.sha256.into_owned(),
        boot_id: body.boot.into_owned(),
        message: body.message.into_owned(),
        at: Timestamp(body.at),
    })
}
