//! `audit …`: the audit of a data directory, without a server.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::audit;
use super::config::{AuditCommand, Config, ConfigError};
use super::error::StartError;
use super::storage::{data_dir, said};
use crate::api::signed::HeadSigner;
use crate::clock::{Clock as _, SystemClock};
use crate::files;
use crate::model::AuditRow;
use crate::store::sqlite::{AuditFile, DATABASE_FILE, audit_file};
use crate::text::json_escaped;

/// Entries read at a time.
const PAGE: usize = 1_000;
/// Longest file of a head, in bytes.
const HEAD_BYTES_MAX: u64 = 4 * 1024;

/// One entry: what is stored of it, and its place.
#[derive(Serialize)]
struct Line {
    seq: u64,
    revision: u64,
    at_ms: u64,
    hash: String,
    entry: serde_json::Value,
}

/// Carries out a command on the audit.
///
/// # Errors
/// [`StartError`] if there is no database, it cannot be read, or the chain does not hold.
pub(super) fn run(
    config: &Config,
    command: &AuditCommand,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let path = data_dir(config)?.join(DATABASE_FILE);
    if !path.exists() {
        return Err(StartError::NoDatabase { path });
    }
    let file = audit_file(&path)?;
    let signer = audit::existing(config)?.unwrap_or(HeadSigner::none());
    match command {
        AuditCommand::List { after } => list(&file, *after, out),
        AuditCommand::Head => {
            let (_, head) = file.ends().map_err(StartError::Store)?;
            said(writeln!(out, "{}", signer.line(&head, SystemClock::new().now())));
            Ok(())
        }
        AuditCommand::Verify { head, public_key } => {
            let saved = match head {
                Some(path) => Some(saved(path, &signer, public_key)?),
                None => None,
            };
            let (entries, head) = file
                .verify(saved)
                .map_err(StartError::Store)?
                .map_err(|problem| StartError::Audit { path: path.clone(), problem })?;
            let through = saved.map_or_else(String::new, |saved| {
                format!(", through the head that was kept, entry {}", saved.seq)
            });
            let (seq, hash) = (head.seq, head.hash);
            said(writeln!(
                out,
                "{}: ok ({entries} entries, the newest is {seq}, {hash}){through}",
                path.display()
            ));
            Ok(())
        }
    }
}

fn saved(
    path: &Path,
    signer: &HeadSigner,
    public_key: &str,
) -> Result<crate::model::AuditHead, StartError> {
    let refused = |why: String| {
        StartError::Config(ConfigError::Setting(format!("--head {}: {why}", path.display())))
    };
    let line =
        files::read_text(path, HEAD_BYTES_MAX).map_err(|error| refused(error.to_string()))?;
    signer.head_of(&line, public_key).map_err(refused)
}

fn list(file: &AuditFile, mut after: u64, out: &mut dyn Write) -> Result<(), StartError> {
    loop {
        let rows = file.page(after, PAGE).map_err(StartError::Store)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        for row in &rows {
            // A closed pipe ends the list.
            if writeln!(out, "{}", line(row)).is_err() {
                return Ok(());
            }
        }
    }
}

/// An entry as one line of JSON; characters that a terminal could obey are escaped.
fn line(row: &AuditRow) -> String {
    // What is no JSON any more is shown as a text.
    let as_text = || serde_json::Value::String(row.body.to_string());
    let entry = serde_json::from_str(&row.body).unwrap_or_else(|_| as_text());
    let (seq, revision, at_ms) = (row.seq, row.revision.0, row.at.0);
    let line = Line { seq, revision, at_ms, hash: row.hash.to_string(), entry };
    json_escaped(&serde_json::to_string(&line).unwrap_or_else(|error| error.to_string()))
}
