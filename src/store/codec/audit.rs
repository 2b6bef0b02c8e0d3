//! Stored form of audit entries. What is stored is what was hashed: a text is never made again from its entry.

use serde::{Deserialize, Serialize};

use super::format::{
    DecodeError, FORMAT, Text, check_format, from_json, is_default, known, to_json,
};
use crate::model::{AuditEntry, Decision};

#[derive(Serialize, Deserialize)]
struct AuditBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    decision: Text<'a>,
    who: Text<'a>,
    verified: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    proof: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    peer: Text<'a>,
    rpc: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    objects: Vec<String>,
    #[serde(default, rename = "req", skip_serializing_if = "is_default")]
    request_id: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    reason: Text<'a>,
    #[serde(default, rename = "body", skip_serializing_if = "is_default")]
    body_digest: Text<'a>,
    #[serde(default, rename = "plan", skip_serializing_if = "is_default")]
    plan_digest: Text<'a>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    calls: u64,
}

const fn one() -> u64 {
    1
}

const fn is_one(calls: &u64) -> bool {
    *calls == 1
}

/// The stored text of an entry.
pub(crate) fn encode_audit(entry: &AuditEntry) -> String {
    to_json(&AuditBody {
        format: FORMAT,
        decision: entry.decision.as_str().into(),
        who: (&*entry.principal).into(),
        verified: entry.verified,
        proof: entry.proof.as_str().into(),
        peer: entry.peer.as_str().into(),
        rpc: entry.rpc.as_str().into(),
        objects: entry.objects.clone(),
        request_id: entry.request_id.as_str().into(),
        reason: entry.reason.as_str().into(),
        body_digest: entry.body_digest.as_str().into(),
        plan_digest: entry.plan_digest.as_str().into(),
        calls: entry.calls,
    })
}

/// The entry of a stored text.
///
/// # Errors
/// [`DecodeError`] if it is not one that this version can read.
pub(crate) fn decode_audit(text: &str) -> Result<AuditEntry, DecodeError> {
    let body: AuditBody<'_> = from_json(text)?;
    check_format(body.format)?;
    Ok(AuditEntry {
        decision: known("decision", &body.decision, Decision::parse(&body.decision))?,
        principal: (&*body.who).into(),
        verified: body.verified,
        proof: body.proof.into_owned(),
        peer: body.peer.into_owned(),
        rpc: body.rpc.into_owned(),
        objects: body.objects,
        request_id: body.request_id.into_owned(),
        reason: body.reason.into_owned(),
        body_digest: body.body_digest.into_owned(),
        plan_digest: body.plan_digest.into_owned(),
        calls: body.calls,
    })
}
