//! One event as CloudEvents 1.0 has it, in structured mode.

use serde_json::{Map, Value as Json, json};

use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{Change, Entry, Machine, Object, Run};

/// `Content-Type` of an event.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";
/// What the name of each kind begins with.
const TYPE: &str = "bmdemo.";

/// An event that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The same at each repetition.
    pub(super) id: String,
    /// Kind, for the log.
    pub(super) kind: &'static str,
    /// When it happened.
    pub(super) at: Timestamp,
    pub(super) body: Vec<u8>,
}

/// The event of an entry: `index` counts the entries of its commit.
pub(super) fn of_entry(source: &str, change: &Change, index: u32, entry: &Entry) -> Event {
    let (subject, mut data) = match &change.object {
        Object::Machine(images) => images.last().map(|machine| about_machine(machine)),
        Object::Run(images) => images.last().map(|run| about_run(run)),
    }
    .unwrap_or_default();
    let kind = entry.kind.as_str();
    data.insert("kind".to_owned(), json!(kind));
    data.insert("revision".to_owned(), json!(change.revision.0));
    for (name, text) in [
        ("step", entry.step.as_str()),
        ("from", entry.from.as_str()),
        ("to", entry.to.as_str()),
        ("reason", entry.reason.as_str()),
        ("message", entry.message.as_str()),
    ] {
        put(&mut data, name, text);
    }
    let actor = &entry.actor;
    data.insert("actor".to_owned(), json!({"kind": actor.kind.as_str(), "name": &*actor.name}));
    // The time, since a restored store counts its revisions again.
    let id = format!("{}.{index}.{:x}", change.revision.0, change.at.0);
    made(source, (&id, kind, &subject), change.at, Some(change.at), data)
}

/// The event that changes are missing: they were deleted before the receiver took them. It has no time of its own: it is the
/// same whenever it is noticed.
pub(super) fn of_gap(source: &str, from: Revision, to: Revision, now: Timestamp) -> Event {
    let message = format!(
        "what happened between revisions {from} and {to} was deleted from the history before it was sent: list machines and runs again"
    );
    let data = Map::from_iter([
        ("kind".to_owned(), json!("gap")),
        ("from_revision".to_owned(), json!(from.0)),
        ("to_revision".to_owned(), json!(to.0)),
        ("message".to_owned(), json!(message)),
    ]);
    made(source, (&format!("gap.{}.{}", from.0, to.0), "gap", ""), now, None, data)
}

fn made(
    source: &str,
    (id, kind, subject): (&str, &'static str, &str),
    at: Timestamp,
    time: Option<Timestamp>,
    data: Map<String, Json>,
) -> Event {
    let mut event = Map::from_iter([
        ("specversion".to_owned(), json!("1.0")),
        ("id".to_owned(), json!(id)),
        ("source".to_owned(), json!(source)),
        ("type".to_owned(), json!(format!("{TYPE}{kind}"))),
        ("datacontenttype".to_owned(), json!("application/json")),
        ("data".to_owned(), Json::Object(data)),
    ]);
    put(&mut event, "subject", subject);
    put(&mut event, "time", &time.map(rfc3339).unwrap_or_default());
    let body = Json::Object(event).to_string().into_bytes();
    Event { id: id.to_owned(), kind, at, body }
}

fn about_machine(machine: &Machine) -> (String, Map<String, Json>) {
    let is_true = machine.conditions.iter().filter(|(_, condition)| condition.status);
    let conditions: Vec<Json> = is_true
        .map(|(kind, condition)| {
            json!({"kind": kind.as_str(), "reason": condition.reason, "message": condition.message})
        })
        .collect();
    let data = Map::from_iter([
        ("machine_id".to_owned(), json!(machine.id.as_str())),
        ("machine_phase".to_owned(), json!(machine.phase.as_str())),
        ("labels".to_owned(), json!(machine.labels)),
        ("conditions".to_owned(), Json::Array(conditions)),
    ]);
    (format!("machines/{}", machine.id), data)
}

fn about_run(run: &Run) -> (String, Map<String, Json>) {
    let mut data = Map::from_iter([
        ("machine_id".to_owned(), json!(run.machine_id.as_str())),
        ("run_id".to_owned(), json!(run.id.to_string())),
        ("plan_id".to_owned(), json!(run.spec.plan_id)),
        ("run_type".to_owned(), json!(run.spec.run_type.as_str())),
        ("run_phase".to_owned(), json!(run.phase().as_str())),
    ]);
    if let Some(error) = &run.error {
        let error = json!({"code": error.code.as_str(), "message": error.message});
        data.insert("error".to_owned(), error);
    }
    if let Some(hold) = &run.hold {
        let hold = json!({"reason": hold.reason.as_str(), "message": hold.message});
        data.insert("hold".to_owned(), hold);
    }
    (format!("runs/{}", run.id), data)
}

/// Adds a text, unless it is empty.
fn put(to: &mut Map<String, Json>, name: &str, text: &str) {
    if !text.is_empty() {
        to.insert(name.to_owned(), json!(text));
    }
}

/// An instant as CloudEvents writes it.
fn rfc3339(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_says_what_is_missing() {
        let event = of_gap("/bmdemo", Revision(3), Revision(9), Timestamp(1_700_000_000_007));
        let body: Json = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(event.id, "gap.3.9");
        assert_eq!(body["type"], "bmdemo.gap");
        assert_eq!(rfc3339(event.at), "2023-11-14T22:13:20.007Z");
        assert_eq!(body["data"]["to_revision"], 9);
        assert!(body.get("subject").is_none() && body.get("time").is_none());
    }
}
