//! `--watch` on lists: every change, until Ctrl-C.

use std::collections::HashMap;
use std::pin::pin;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::Format;
use super::super::output::{DataForm, sanitized, write_machine_row, write_one, write_run_row};
use super::super::session::Session;
use super::super::watch::{MachineWatch, RunWatch, Seen};
use super::show;

/// One record a line in every form; a document has no place in a stream.
fn line_form(format: Format) -> Option<DataForm> {
    match format.data() {
        Some(DataForm::Json | DataForm::Jsonl) => Some(DataForm::Jsonl),
        other => other,
    }
}

/// Prints the runs that match, then a row for every change.
pub(crate) async fn runs(
    session: &mut Session,
    filter: String,
    format: Format,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let mut watch = RunWatch::new(client, session.ui.clock(), filter);
    let mut interrupted = pin!(session.ui.interrupted());
    let look = session.ui.look;
    if line_form(format).is_none() {
        show::runs(session, &[], format)?;
    }
    let mut printed: HashMap<String, u64> = HashMap::new();
    loop {
        session.ui.flush()?;
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            () = &mut interrupted => return Ok(Exit::Interrupted),
        };
        match seen {
            Seen::Event(event) => {
                let Some(run) = event.snapshot else { continue };
                // A reconnect may begin again with snapshots that are known.
                if printed.get(&run.run_id).is_some_and(|revision| *revision >= run.revision) {
                    continue;
                }
                printed.insert(run.run_id.clone(), run.revision);
                let now_ms = session.ui.now_ms();
                match line_form(format) {
                    Some(form) => write_one(session.ui.out(), form, &run)?,
                    None => {
                        write_run_row(session.ui.out(), look, &run, now_ms, format == Format::Wide)?
                    }
                }
            }
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Ended => watch.lose(),
        }
    }
}

/// Prints the machines that match, then a row for every change.
pub(crate) async fn machines(
    session: &mut Session,
    filter: String,
    format: Format,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let mut watch = MachineWatch::new(client, session.ui.clock(), filter);
    let mut interrupted = pin!(session.ui.interrupted());
    let look = session.ui.look;
    if line_form(format).is_none() {
        show::machines(session, &[], format)?;
    }
    let mut printed: HashMap<String, u64> = HashMap::new();
    loop {
        session.ui.flush()?;
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            () = &mut interrupted => return Ok(Exit::Interrupted),
        };
        match seen {
            Seen::Event(event) => {
                let is_removed = event.r#type() == pb::MachineEventType::Removed;
                let Some(machine) = event.snapshot else { continue };
                if is_removed {
                    printed.remove(&machine.machine_id);
                    session.ui.note(&format!("{} matches no more", sanitized(&machine.machine_id)));
                    continue;
                }
                // A reconnect may begin again with snapshots that are known.
                if printed
                    .get(&machine.machine_id)
                    .is_some_and(|revision| *revision >= machine.revision)
                {
                    continue;
                }
                printed.insert(machine.machine_id.clone(), machine.revision);
                match line_form(format) {
                    Some(form) => write_one(session.ui.out(), form, &machine)?,
                    None => {
                        write_machine_row(session.ui.out(), look, &machine, format == Format::Wide)?
                    }
                }
            }
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Ended => watch.lose(),
        }
    }
}
