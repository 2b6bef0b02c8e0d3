//! History of machines and runs.

use std::io::{self, Write};

use crate::pb;

use super::text::{Look, Meaning, padded, sanitized};
use super::time::rfc3339;

/// Writes one line an entry: when, what, from which state to which, who, why.
pub(crate) fn write_history(
    out: &mut dyn Write,
    look: Look,
    entries: &[pb::HistoryEntry],
) -> io::Result<()> {
    let kinds = entries.iter().map(|entry| entry.kind.len()).max().unwrap_or(0).max("KIND".len());
    writeln!(
        out,
        "{}",
        look.paint(
            Meaning::Strong,
            &format!("{} {} WHAT", padded("AT", 24), padded("KIND", kinds))
        )
    )?;
    for entry in entries {
        let at = look.paint(Meaning::Dim, &padded(&rfc3339(entry.at.as_ref()), 24));
        let kind = padded(&sanitized(&entry.kind), kinds);
        writeln!(out, "{at} {kind} {}", what(look, entry))?;
    }
    Ok(())
}

fn what(look: Look, entry: &pb::HistoryEntry) -> String {
    let mut parts = Vec::new();
    // Most messages name the step themselves.
    if !entry.step.is_empty() && !entry.message.contains(&entry.step) {
        parts.push(sanitized(&entry.step).into_owned());
    }
    if !entry.from.is_empty() && !entry.to.is_empty() {
        parts.push(format!("{} {} {}", sanitized(&entry.from), look.arrow(), sanitized(&entry.to)));
    } else if !entry.to.is_empty() {
        parts.push(sanitized(&entry.to).into_owned());
    }
    if !entry.message.is_empty() {
        parts.push(sanitized(&entry.message).into_owned());
    }
    if !entry.reason.is_empty() {
        parts.push(format!("({})", sanitized(&entry.reason)));
    }
    if let Some(actor) = &entry.actor
        && actor.kind == "operator"
    {
        let unverified = if actor.verified { "" } else { " unverified" };
        parts.push(format!("[by {}{unverified}]", sanitized(&actor.name)));
    }
    parts.join(" ")
}
