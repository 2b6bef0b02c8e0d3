//! Stored form of history entries.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::format::{DecodeError, Text, from_json, is_default, known, to_json};
use crate::model::{Actor, ActorKind, Entry, EntryKind};

#[derive(Serialize, Deserialize)]
struct EntryBody<'a> {
    kind: &'a str,
    #[serde(default, skip_serializing_if = "is_default")]
    step: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    from: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    to: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    reason: Text<'a>,
    #[serde(default, rename = "msg", skip_serializing_if = "is_default")]
    message: Text<'a>,
    #[serde(borrow)]
    by: ActorBody<'a>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ActorBody<'a> {
    kind: &'a str,
    #[serde(default, skip_serializing_if = "is_default")]
    name: Text<'a>,
    #[serde(default, skip_serializing_if = "is_default")]
    verified: bool,
}

impl<'a> From<&'a Actor> for ActorBody<'a> {
    fn from(actor: &'a Actor) -> Self {
        Self {
            kind: actor.kind.as_str(),
            name: Cow::Borrowed(&actor.name),
            verified: actor.verified,
        }
    }
}

impl ActorBody<'_> {
    pub(super) fn decode(self) -> Result<Actor, DecodeError> {
        let kind = known("kind of actor", self.kind, ActorKind::parse(self.kind))?;
        Ok(Actor { kind, name: self.name.into(), verified: self.verified })
    }
}

impl<'a> From<&'a Entry> for EntryBody<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            kind: entry.kind.as_str(),
            step: Cow::Borrowed(&entry.step),
            from: Cow::Borrowed(&entry.from),
            to: Cow::Borrowed(&entry.to),
            reason: Cow::Borrowed(&entry.reason),
            message: Cow::Borrowed(&entry.message),
            by: ActorBody::from(&entry.actor),
        }
    }
}

impl EntryBody<'_> {
    fn decode(self) -> Result<Entry, DecodeError> {
        Ok(Entry {
            kind: known("kind of entry", self.kind, EntryKind::parse(self.kind))?,
            step: self.step.into_owned(),
            from: self.from.into_owned(),
            to: self.to.into_owned(),
            reason: self.reason.into_owned(),
            message: self.message.into_owned(),
            actor: self.by.decode()?,
        })
    }
}

/// The stored form of the entries of one change.
pub(crate) fn encode_entries(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "[]".to_owned();
    }
    to_json(&entries.iter().map(EntryBody::from).collect::<Vec<_>>())
}

/// The entries of one change.
pub(crate) fn decode_entries(text: &str) -> Result<Vec<Entry>, DecodeError> {
    from_json::<Vec<EntryBody<'_>>>(text)?.into_iter().map(EntryBody::decode).collect()
}
