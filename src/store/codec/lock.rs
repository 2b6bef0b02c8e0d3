//! Stored form of locks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::ActorBody;
use super::format::{
    DecodeError, FORMAT, Text, at, check_format, from_json, is_default, ms, to_json,
};
use crate::clock::Timestamp;
use crate::model::{Lock, LockTarget};

#[derive(Serialize, Deserialize)]
struct LockBody<'a> {
    #[serde(rename = "f")]
    format: u32,
    kind: Text<'a>,
    /// The principal, or the id of the plan.
    #[serde(default, skip_serializing_if = "is_default")]
    name: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    digest: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "is_default")]
    reason: Text<'a>,
    #[serde(borrow)]
    by: ActorBody<'a>,
    at: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    until: Option<u64>,
    #[serde(default, rename = "lifted", skip_serializing_if = "is_default")]
    lifted_at: Option<u64>,
}

/// The stored text of a lock, without its id.
pub(crate) fn encode_lock(lock: &Lock) -> String {
    let (mut name, mut digest) = ("", "");
    let mut labels = Cow::Owned(BTreeMap::new());
    match &lock.target {
        LockTarget::All => {}
        LockTarget::Principal(of) => name = of,
        LockTarget::Machines(of) => labels = Cow::Borrowed(of),
        LockTarget::Plan { digest: of, plan_id } => (name, digest) = (plan_id, of),
    }
    to_json(&LockBody {
        format: FORMAT,
        kind: lock.target.kind().into(),
        name: name.into(),
        digest: digest.into(),
        labels,
        reason: lock.reason.as_str().into(),
        by: ActorBody::from(&lock.by),
        at: lock.at.0,
        until: ms(lock.until),
        lifted_at: ms(lock.lifted_at),
    })
}

/// The lock of a stored text.
///
/// # Errors
/// [`DecodeError`] if it is not one that this version can read.
pub(crate) fn decode_lock(id: &str, text: &str) -> Result<Lock, DecodeError> {
    let body: LockBody<'_> = from_json(text)?;
    check_format(body.format)?;
    let target = match &*body.kind {
        "stop" => LockTarget::All,
        "principal" => LockTarget::Principal(body.name.into_owned()),
        "machines" => LockTarget::Machines(body.labels.into_owned()),
        "plan" => {
            LockTarget::Plan { digest: body.digest.into_owned(), plan_id: body.name.into_owned() }
        }
        other => {
            return Err(DecodeError::Unknown { what: "kind of a lock", name: other.to_owned() });
        }
    };
    Ok(Lock {
        id: id.to_owned(),
        target,
        reason: body.reason.into_owned(),
        by: body.by.decode()?,
        at: Timestamp(body.at),
        until: at(body.until),
        lifted_at: at(body.lifted_at),
    })
}
