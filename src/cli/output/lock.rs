//! Stops, locks and pauses.

use crate::pb;

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
