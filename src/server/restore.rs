//! `bmdemo-server restore`: a backup becomes the database of an unused data directory.

use std::io::Write;
use std::path::Path;

use super::config::Config;
use super::error::StartError;
use super::storage::{data_dir, report_problems, said};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::executor::restored;
use crate::ids::Epoch;
use crate::model::{Actor, Entry, EntryKind, Machine, Run};
use crate::store::sqlite::{self, OpenError, Restoring, SqliteOptions, SqliteStore};
use crate::store::{Batch, Query, SlotMove, Store as _, StoreError, Write as Record};

/// Machines written by one commit.
const BATCH_MAX: usize = 250;

/// Most runs that are named; all of them can be listed once the server runs.
const NAMED_MAX: usize = 20;

/// Restores a backup: verifies it, holds the runs that were active in it, and makes machines continue from epochs
/// above all that a provider may have seen since. The data directory has no database until all of this is done.
///
/// # Errors
/// [`StartError`] if there is no backup, it is damaged or newer than this version, or the directory has been used.
pub(super) async fn restore(
    config: &Config,
    backup: &Path,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let dir = data_dir(config)?;
    if !backup.is_file() {
        return Err(StartError::NoBackup { path: backup.to_owned() });
    }
    let restoring = Restoring::begin(backup, dir).map_err(|error| of_backup(error, backup))?;
    // Opening migrates an older schema, which the check expects.
    drop(open(&restoring, backup)?);
    let report = sqlite::check(restoring.store_dir()).map_err(|error| of_backup(error, backup))?;
    if report_problems(&report, backup, out).is_err() {
        let (path, problems) = (backup.to_owned(), report.problems.len());
        return Err(StartError::DamagedBackup { path, problems });
    }
    let store = open(&restoring, backup)?;
    let done = hold_all(&store, SystemClock::new().now()).await;
    drop(store);
    let Restored { machines, held, floor, what } = done.map_err(StartError::Store)?;
    restoring.finish()?;
    said(writeln!(
        out,
        "{} is {what}: {}, epochs from {floor}, {} held",
        dir.display(),
        counted(machines, "machine"),
        counted(held.len(), "active run")
    ));
    for run in held.iter().take(NAMED_MAX) {
        let (id, plan, machine) = (run.id, &run.spec.plan_id, &run.machine_id);
        said(writeln!(out, "held: run {id} of {plan} on {machine}"));
    }
    if held.len() > NAMED_MAX {
        said(writeln!(out, "held: {} more", held.len() - NAMED_MAX));
    }
    said(writeln!(
        out,
        "What was done after the backup is not in it: compare machines that have changed since with bmdemo-cli list, and probe or \
         repave them."
    ));
    if held.is_empty() {
        said(writeln!(out, "Next: start the server: bmdemo-server --data-dir {}", dir.display()));
    } else {
        said(writeln!(
            out,
            "Next: start the server; bmdemo-cli issues lists these runs. Look at each machine, then resume or abort its run."
        ));
    }
    Ok(())
}

/// A number with its noun.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn open(restoring: &Restoring, backup: &Path) -> Result<SqliteStore, StartError> {
    let opened = SqliteStore::open(restoring.store_dir(), SqliteOptions::default());
    opened.map_err(|error| of_backup(error, backup))
}

/// An error of the copy is an error of the backup.
fn of_backup(error: OpenError, backup: &Path) -> StartError {
    match error {
        OpenError::Corrupt { message, .. } => {
            StartError::NotABackup { path: backup.to_owned(), message }
        }
        OpenError::NotOurs { .. } => StartError::NotABackup {
            path: backup.to_owned(),
            message: "it is another program's database".to_owned(),
        },
        error @ (OpenError::InUse { .. }
        | OpenError::Used { .. }
        | OpenError::TooNew { .. }
        | OpenError::Io { .. }
        | OpenError::Sqlite { .. }) => error.into(),
    }
}

/// What was done to a restored store.
struct Restored {
    machines: usize,
    held: Vec<Run>,
    floor: Epoch,
    /// What it was restored from, for people.
    what: String,
}

async fn hold_all(store: &SqliteStore, now: Timestamp) -> Result<Restored, StoreError> {
    let what = describe(store).await?;
    // In microseconds since 1970: a later restore of the same backup also starts above every epoch of this one.
    let floor = store.raise_epochs(Epoch(now.0.saturating_mul(1000))).await?;
    let mut done = Restored { machines: 0, held: Vec::new(), floor, what };
    let mut after = None;
    loop {
        let query = Query { after, limit: BATCH_MAX, ..Query::default() };
        let page = store.machines(query).await?;
        let mut batch = Batch::default();
        for machine in &page.items {
            done.machines += 1;
            let message = format!("{}; its epochs continue from {floor}", done.what);
            let entry = Entry::new(EntryKind::MachineUpdated, Actor::engine()).message(message);
            let raised = Machine { epoch: floor, ..Machine::clone(machine) };
            batch.writes.push(Record::new(Some(machine.clone()), raised, vec![entry]));
            let Some(id) = machine.active_run else { continue };
            let stored = store.run(id).await?.ok_or_else(|| StoreError::Corrupt {
                kind: "run",
                id: id.to_string(),
                message: format!("machine {} refers to it, but it does not exist", machine.id),
            })?;
            let mut run = Run::clone(&stored);
            let entries = restored::hold(&mut run, &done.what, now).map_err(|error| {
                StoreError::Corrupt { kind: "run", id: id.to_string(), message: error.to_string() }
            })?;
            done.held.push(run.clone());
            batch.slots.push(SlotMove::Give { run: id });
            batch.writes.push(Record::new(Some(stored), run, entries));
        }
        if !batch.writes.is_empty() {
            store.commit(batch).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(done);
        }
    }
}

/// Describes the backup by its newest change.
async fn describe(store: &SqliteStore) -> Result<String, StoreError> {
    let (newest, oldest) = store.revisions().await?;
    let mut what = format!("restored from a backup of revision {newest}");
    if newest > oldest
        && let Some(change) =
            store.changes(crate::ids::Revision(newest.0.saturating_sub(1)), 1).await?.last()
    {
        what.push_str(&format!(" ({})", change.at));
    }
    Ok(what)
}
