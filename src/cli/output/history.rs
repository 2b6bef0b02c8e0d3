//! History of machines and runs.

use std::io::{self, Write};

use crate::pb;

use super::text::{Look, Meaning, name_text, padded, sanitized, width, wrapped};
use super::time::moment;

/// Which subjects get columns of their own in a history.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subjects {
    /// The machine.
    pub(crate) machine: bool,
    /// The run.
    pub(crate) run: bool,
}

/// Writes one line per entry: time, event, from which state to which, actor, reason.
pub(crate) fn write_history(
    out: &mut dyn Write,
    look: Look,
    entries: &[pb::HistoryEntry],
    now_ms: u64,
    subjects: Subjects,
) -> io::Result<()> {
    let mut headers = vec!["AT"];
    headers.extend(subjects.machine.then_some("MACHINE"));
    headers.extend(subjects.run.then_some("RUN"));
    headers.push("KIND");
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let subject = |id: &str| if id.is_empty() { "-" } else { id }.to_owned();
            let mut row = vec![moment(look, entry.at.as_ref(), now_ms)];
            row.extend(subjects.machine.then(|| subject(&entry.machine_id)));
            row.extend(subjects.run.then(|| subject(&entry.run_id)));
            row.push(entry.kind.clone());
            row.iter().map(|cell| sanitized(cell).into_owned()).collect()
        })
        .collect();
    let widest = |column: usize| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            let least = if column == 0 && !look.relative { 24 } else { width(header) };
            widest(column).max(least)
        })
        .collect();
    let heading: String =
        headers.iter().zip(&widths).map(|(text, columns)| padded(text, *columns) + " ").collect();
    writeln!(out, "{}", look.paint(Meaning::Strong, &format!("{heading}WHAT")))?;
    for (row, entry) in rows.iter().zip(entries) {
        let mut line = String::new();
        for (column, (text, columns)) in row.iter().zip(&widths).enumerate() {
            let meaning = if column == 0 { Meaning::Dim } else { Meaning::Plain };
            line.push_str(&look.paint(meaning, &padded(text, *columns)));
            line.push(' ');
        }
        line.push_str(&what(look, entry));
        let indent = widths.iter().map(|columns| columns + 1).sum();
        writeln!(out, "{}", wrapped(look, &line, indent))?;
    }
    Ok(())
}

/// `NeedsIntervention unknown → true: why` for a change whose message repeats the new status.
fn condition(look: Look, entry: &pb::HistoryEntry) -> Option<String> {
    let (name, why) = entry.message.split_once(&format!(" is {}:", entry.to))?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    (entry.kind == "condition.changed" && !entry.from.is_empty() && is_name).then(|| {
        let (from, to) = (sanitized(&entry.from), sanitized(&entry.to));
        let why = why.trim();
        let why = if why.is_empty() { String::new() } else { format!(": {}", sanitized(why)) };
        format!("{name} {from} {} {to}{why}", look.arrow())
    })
}

/// `READY → RMA: why` for a change of phase whose message repeats the phases; the actor is at the end of the line.
fn phase(look: Look, entry: &pb::HistoryEntry) -> Option<String> {
    let said = format!("phase {} -> {}", entry.from, entry.to);
    let rest = entry.message.strip_prefix(&said).filter(|_| entry.kind == "phase.changed")?;
    let rest = if rest.starts_with(" by ") { "" } else { rest };
    let (from, to) = (sanitized(&entry.from), sanitized(&entry.to));
    Some(format!("{from} {} {to}{}", look.arrow(), sanitized(rest)))
}

/// A text without a phrase, which must end with a word.
fn without(text: &str, phrase: &str) -> String {
    match text.find(phrase) {
        Some(at) if !text[at + phrase.len()..].starts_with(char::is_alphanumeric) => {
            format!("{}{}", &text[..at], &text[at + phrase.len()..])
        }
        Some(_) | None => text.to_owned(),
    }
}

fn what(look: Look, entry: &pb::HistoryEntry) -> String {
    let mut parts = Vec::new();
    let by = entry.actor.as_ref().filter(|actor| actor.kind == "operator");
    // Most messages name the step themselves.
    if !entry.step.is_empty() && !entry.message.contains(&entry.step) {
        parts.push(sanitized(&entry.step).into_owned());
    }
    let change = condition(look, entry).or_else(|| phase(look, entry));
    if let Some(change) = &change {
        parts.push(change.clone());
    } else if !entry.from.is_empty() && !entry.to.is_empty() {
        parts.push(format!("{} {} {}", sanitized(&entry.from), look.arrow(), sanitized(&entry.to)));
    } else if !entry.to.is_empty() {
        parts.push(sanitized(&entry.to).into_owned());
    }
    if !entry.message.is_empty() && change.is_none() {
        // The end of the line says by whom.
        let message = match by {
            Some(actor) => without(&entry.message, &format!(" by {}", actor.name)),
            None => entry.message.clone(),
        };
        parts.push(sanitized(&message).into_owned());
    }
    if !entry.reason.is_empty() {
        parts.push(format!("({})", sanitized(&entry.reason)));
    }
    if let Some(actor) = by {
        let unverified = if actor.verified { "" } else { " unverified" };
        parts.push(format!("[by {}{unverified}]", name_text(&actor.name)));
    }
    parts.join(" ")
}
