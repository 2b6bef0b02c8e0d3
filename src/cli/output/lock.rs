//! Stops, locks and pauses.

use crate::pb;

use super::columns::{Columned, Content};
use super::text::{Look, name_text};
use super::time::{elapsed_text, instant, moment};

/// What a lock is on, as commands take it: a caller, labels or a plan; empty for the stop.
pub(crate) fn lock_name(lock: &pb::Lock) -> String {
    match lock.kind() {
        pb::LockKind::Principal => lock.principal.clone(),
        pb::LockKind::Machines => {
            let all: Vec<_> =
                lock.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            all.join(",")
        }
        pb::LockKind::Plan => lock.plan_id.clone(),
        pb::LockKind::Stop | pb::LockKind::Unspecified => String::new(),
    }
}

/// What is in force, by whom, since and until when, and why.
pub(crate) fn lock_line(look: Look, lock: &pb::Lock, now_ms: u64) -> String {
    let name = lock_name(lock);
    let what = match lock.kind() {
        pb::LockKind::Stop => "everything is stopped".to_owned(),
        pb::LockKind::Principal => format!("{} is locked", name_text(&name)),
        pb::LockKind::Machines => format!("machines with {name} are locked"),
        pb::LockKind::Plan => format!("{name} is paused"),
        pb::LockKind::Unspecified => "a lock".to_owned(),
    };
    let by = match lock.actor.as_ref().filter(|actor| !actor.name.is_empty()) {
        Some(actor) if actor.verified => format!(" by {}", name_text(&actor.name)),
        Some(actor) => format!(" by {} unverified", name_text(&actor.name)),
        None => String::new(),
    };
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let since = moment(look, lock.created_at.as_ref(), u64::try_from(now_ms).unwrap_or(0));
    let left = instant(lock.expires_at.as_ref()).map(|at_ms| (at_ms - now_ms).max(0));
    let left = left.map(|ms| format!(", for another {}", elapsed_text(ms))).unwrap_or_default();
    format!("{what}{by} since {since}{left}: {}", lock.reason)
}

impl Columned for pb::Lock {
    const COLUMNS: &'static [&'static str] =
        &["lock_id", "kind", "name", "reason", "actor", "verified", "created", "expires"];
    const ALIASES: &'static [&'static str] = &[];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let text = |text: &str| Content::Text(text.to_owned());
        let actor = self.actor.as_ref();
        Some(match column {
            "lock_id" => text(&self.lock_id),
            "kind" => {
                let name = self.kind().as_str_name();
                text(name.strip_prefix("LOCK_KIND_").unwrap_or(name))
            }
            "name" => Content::Text(lock_name(self)),
            "reason" => text(&self.reason),
            "actor" => text(actor.map_or("", |actor| &actor.name)),
            "verified" => Content::Mark(actor.map(|actor| actor.verified)),
            "created" => Content::Time(self.created_at),
            "expires" => Content::Time(self.expires_at),
            _ => return None,
        })
    }
}
