//! Backup, and the check of a whole store.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::audit;
use super::commit::step_name;
use super::counters::Counters;
use super::error::{failed, ms, named, place_after, revision_of};
use super::fold::{brought_up, fold, run_row};
use super::open::{
    DATABASE_FILE, OpenError, connect, connect_reader, migrated, refuse_foreign, sqlite, sync_dir,
    take_lock,
};
use super::read::{self, machine_row};
use super::row::{for_each, number, text};
use super::seal::SEALS;
use crate::ids::Revision;
use crate::model::Run;
use crate::store::StoreError;
use crate::store::codec::state_name;

/// Most problems that a report lists.
const PROBLEMS_MAX: usize = 100;

/// Result of the check of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Revision at which it was checked.
    pub revision: Revision,
    /// Machines read.
    pub machines: u64,
    /// Runs read.
    pub runs: u64,
    /// Changes read.
    pub changes: u64,
    /// The problems, at most 100 lines; empty if there are none.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, problem: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.into());
        }
    }

    /// Records an error of a read as a problem.
    fn note(&mut self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.problem(describe(&error));
        }
    }
}

pub(super) fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

/// Checks the store in a data directory, or a backup file, without changing it; a server may be using it meanwhile.
///
/// Checks the file itself, that every record can be read and agrees with its columns, that machines and active runs
/// refer to each other, and that the history of every run leads to its record. Reads everything: blocks the calling
/// thread.
///
/// # Errors
/// [`OpenError`] if there is no store that can be opened; problems inside it are in the report.
pub fn check(path: &Path) -> Result<Report, OpenError> {
    let path = if path.is_dir() { path.join(DATABASE_FILE) } else { path.to_owned() };
    let conn = connect_reader(&path).map_err(|error| sqlite(&path, error))?;
    refuse_foreign(&conn, &path)?;
    let mut report = Report::default();
    if !migrated(&conn).map_err(|error| sqlite(&path, error))? {
        report.problem(
            "its schema is older than this version: start a server on it once, or restore it",
        );
        return Ok(report);
    }
    let transaction = conn.unchecked_transaction().map_err(|error| sqlite(&path, error))?;
    let result = check_file(&transaction, &mut report);
    report.note(result);
    for seal in &SEALS {
        let broken = seal.broken(&transaction, |row| {
            report
                .problem(format!("{}: its checksum does not match: it has been altered", row.name));
        });
        report.note(broken.map_err(failed));
    }
    match audit::verify(&transaction, None) {
        Ok(Ok(_)) => {}
        Ok(Err(problem)) => report.problem(problem),
        Err(error) => report.note(Err(error)),
    }
    match Counters::load(&transaction) {
        Ok(counters) => check_records(&transaction, counters, &mut report),
        Err(error) => report.note(Err(failed(error))),
    }
    Ok(report)
}

/// Accepts rows of the database in the data directory `dir` that were edited on purpose: those whose checksum does
/// not match, by the names that [`check`] gives them. Returns the names of the accepted rows. No server may be using
/// the directory.
///
/// # Errors
/// [`OpenError`]; nothing was changed then.
pub fn accept(dir: &Path, names: &[String]) -> Result<Vec<String>, OpenError> {
    let path = dir.join(DATABASE_FILE);
    let _lock = take_lock(dir)?;
    let failed = |error| sqlite(&path, error);
    let conn = connect(&path).map_err(failed)?;
    refuse_foreign(&conn, &path)?;
    let mut accepted: Vec<String> = Vec::new();
    // A store of an older version gets its checksums, whatever its rows contain, when a server first opens it.
    if !migrated(&conn).map_err(failed)? {
        return Ok(accepted);
    }
    let transaction = conn.unchecked_transaction().map_err(failed)?;
    for seal in &SEALS {
        let mut rows = Vec::new();
        seal.broken(&transaction, |row| rows.push(row)).map_err(failed)?;
        for row in rows.into_iter().filter(|row| names.contains(&row.name)) {
            seal.mend(&transaction, &row).map_err(failed)?;
            if !accepted.contains(&row.name) {
                accepted.push(row.name);
            }
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(accepted)
}

fn check_file(conn: &Connection, report: &mut Report) -> Result<(), StoreError> {
    for_each(conn, "PRAGMA integrity_check(100)", [], |row| {
        let line = text(row, 0)?;
        if line != "ok" {
            report.problem(format!("file: {line}"));
        }
        Ok(true)
    })
}

fn check_records(conn: &Connection, counters: Counters, report: &mut Report) {
    report.revision = counters.revision;
    let result = check_machines(conn, counters, report);
    report.note(result);
    let result = check_runs(conn, counters, report);
    report.note(result);
    let result = check_changes(conn, counters, report);
    report.note(result);
}

fn check_machines(
    conn: &Connection,
    counters: Counters,
    report: &mut Report,
) -> Result<(), StoreError> {
    let sql = "SELECT ordinal, revision, body, sum, id, phase, active_run, epoch, provider, sort_key, created_at,
            updated_at FROM machines
        ORDER BY ordinal";
    let mut labels = 0;
    for_each(conn, sql, [], |row| {
        report.machines += 1;
        let machine = match machine_row(row).map_err(named(text(row, 4)?)) {
            Ok(machine) => machine,
            Err(error) => {
                report.problem(describe(&error));
                return Ok(true);
            }
        };
        let id = &machine.id;
        let active_run = row.get::<_, Option<String>>(6).map_err(failed)?;
        let same = text(row, 4)? == id.as_str()
            && text(row, 5)? == machine.phase.as_str()
            && active_run == machine.active_run.map(|run| run.to_string())
            && number(row, 7)? == machine.epoch.0
            && text(row, 8)? == machine.spec.provider
            && text(row, 9)? == id.natural_key()
            && number(row, 10)? == machine.created_at.0
            && number(row, 11)? == machine.updated_at.0;
        if !same {
            report.problem(format!("machine {id}: its columns differ from its record"));
        }
        if machine.revision > counters.revision || machine.ordinal > counters.machine_ordinal {
            report.problem(format!("machine {id}: newer than the store"));
        }
        labels += machine.labels.len() as u64;
        for (key, value) in &machine.labels {
            if !read::has_label(conn, key, value, machine.ordinal)? {
                report.problem(format!("machine {id}: its label {key} is not in the index"));
            }
        }
        for mac in &machine.spec.mac_addresses {
            if !read::has_mac(conn, mac)? {
                report.problem(format!("machine {id}: its MAC address {mac} is not in the index"));
            }
        }
        let owner = read::active_run(conn, id)?;
        if owner != machine.active_run {
            let show = |run: Option<crate::ids::RunId>| {
                run.map_or_else(|| "none".to_owned(), |run| run.to_string())
            };
            let (named, found) = (show(machine.active_run), show(owner));
            report.problem(format!("machine {id}: names run {named}, active is {found}"));
        }
        Ok(true)
    })?;
    for_each(conn, "SELECT count(*) FROM machine_labels", [], |row| {
        let indexed = number(row, 0)?;
        if indexed > labels {
            report
                .problem(format!("{} labels in the index belong to no machine", indexed - labels));
        }
        Ok(true)
    })?;
    let sql = "SELECT mac FROM machine_macs LEFT JOIN machines ON ordinal = machine
        WHERE body IS NULL
            OR mac NOT IN (SELECT value FROM json_each(iif(json_valid(body), body, '{}'), '$.macs'))";
    for_each(conn, sql, [], |row| {
        report.problem(format!(
            "MAC address {}: the index gives it to a machine without it",
            text(row, 0)?
        ));
        Ok(true)
    })
}

fn check_runs(
    conn: &Connection,
    counters: Counters,
    report: &mut Report,
) -> Result<(), StoreError> {
    let sql = "SELECT ordinal, revision, body, sum, id, machine_id, active, phase, plan, type, digest, state, step,
            created_at, started_at, ended_at FROM runs
        ORDER BY ordinal";
    let (mut labels, mut unread) = (0, false);
    for_each(conn, sql, [], |row| {
        report.runs += 1;
        let run = match run_row(row).map_err(named(text(row, 4)?)) {
            Ok(run) => run,
            Err(error) => {
                let machine = text(row, 5)?;
                report.problem(format!("{} (of machine {machine})", describe(&error)));
                unread = true;
                return Ok(true);
            }
        };
        let id = run.id;
        let active: bool = row.get(6).map_err(failed)?;
        let instant = |column| row.get::<_, Option<i64>>(column).map_err(failed);
        let same = text(row, 4)? == id.to_string()
            && text(row, 5)? == run.machine_id.as_str()
            && active == run.state.is_active()
            && text(row, 7)? == run.phase().as_str()
            && text(row, 8)? == run.spec.plan_id
            && text(row, 9)? == run.spec.run_type.as_str()
            && text(row, 10)? == run.spec.plan_digest
            && text(row, 11)? == state_name(run.state)
            && text(row, 12)? == step_name(&run)
            && number(row, 13)? == run.created_at.0
            && instant(14)? == run.started_at.map(ms)
            // A run without its own end time has that of its last commit.
            && (instant(15)? == run.finished_at.map(ms) || !active && run.finished_at.is_none());
        if !same {
            report.problem(format!("run {id}: its columns differ from its record"));
        }
        if run.revision > counters.revision || run.ordinal > counters.run_ordinal {
            report.problem(format!("run {id}: newer than the store"));
        }
        for (key, value) in run.spec.labels.iter().flatten() {
            labels += 1;
            if !read::has_run_label(conn, key, value, run.ordinal)? {
                report.problem(format!("run {id}: its label {key} is not in the index"));
            }
        }
        if active {
            match read::machine(conn, &run.machine_id) {
                // An unreadable run has been reported, and the other runs must still be checked.
                Ok(Some(_)) | Err(StoreError::Corrupt { .. }) => {}
                Ok(None) => {
                    let machine = &run.machine_id;
                    report.problem(format!("run {id}: active on {machine}, which does not exist"));
                }
                Err(error) => return Err(error),
            }
        }
        match fold(conn, run.ordinal, place_after(run.revision)) {
            Ok(Some(folded)) if folded == run => check_newest(conn, run, report),
            Ok(_) => report.problem(format!("run {id}: its history does not lead to it")),
            Err(error) => report.problem(describe(&error)),
        }
        Ok(true)
    })?;
    for_each(conn, "SELECT count(*) FROM run_labels", [], |row| {
        let indexed = number(row, 0)?;
        // A run that cannot be read does not say which are its.
        if indexed > labels && !unread {
            report.problem(format!("{} labels in the index belong to no run", indexed - labels));
        }
        Ok(true)
    })
}

/// What is indexed of a run is as it is, however far its row is behind. The row of a run that has ended is not.
fn check_newest(conn: &Connection, row: Run, report: &mut Report) {
    let (id, phase, revision) = (row.id, row.phase(), row.revision);
    let newest = if row.state.is_active() {
        brought_up(conn, row)
    } else {
        fold(conn, row.ordinal, i64::MAX).map(|newest| newest.unwrap_or(row))
    };
    match newest.map_err(named(id)) {
        Ok(newest) if newest.revision == revision => {}
        Ok(newest) if newest.state.is_active() && newest.phase() == phase => {}
        Ok(_) => report.problem(format!("run {id}: its columns and its newest change differ")),
        Err(error) => report.problem(describe(&error)),
    }
}

fn check_changes(
    conn: &Connection,
    counters: Counters,
    report: &mut Report,
) -> Result<(), StoreError> {
    let sql = "SELECT count(*), coalesce(max(place), 0) FROM changes";
    for_each(conn, sql, [], |row| {
        report.changes = number(row, 0)?;
        if revision_of(row.get(1).map_err(failed)?) > counters.revision {
            report.problem("changes are newer than the store");
        }
        Ok(true)
    })?;
    let sql = "SELECT count(*) FROM changes WHERE run IS NOT NULL AND run NOT IN (SELECT ordinal FROM runs)
        UNION ALL SELECT count(*) FROM logs WHERE run NOT IN (SELECT ordinal FROM runs)";
    for_each(conn, sql, [], |row| {
        let orphans = number(row, 0)?;
        if orphans > 0 {
            report.problem(format!("{orphans} changes or log chunks belong to no run"));
        }
        Ok(true)
    })?;
    // Reading the feed to its end decodes every change.
    let (newest, mut after) = (counters.revision, counters.compacted);
    while after < newest {
        match read::changes(conn, after, 1000)?.last() {
            Some(change) => after = change.revision,
            None => break,
        }
    }
    Ok(())
}

/// Copies the database at `from`, as of one revision, to the new file `to`, and makes it durable. A server may be
/// using the database meanwhile. Blocks the calling thread.
///
/// # Errors
/// [`OpenError::Io`] if `to` exists or cannot be written, [`OpenError::Sqlite`] if the copy fails; an incomplete file
/// is removed.
pub fn backup(from: &Path, to: &Path) -> Result<(), OpenError> {
    let io = |action| move |source| OpenError::Io { action, path: to.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(to).map_err(io("create"))?;
    let copied = copy(from, to).and_then(|()| {
        File::open(to).and_then(|file| file.sync_all()).map_err(io("flush"))?;
        match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            Some(_) | None => sync_dir(Path::new(".")),
        }
    });
    if copied.is_err() {
        // The original error matters more than a leftover file.
        let _ = std::fs::remove_file(to);
    }
    copied
}

fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let source = connect_reader(from).map_err(|error| sqlite(from, error))?;
    let mut target = Connection::open(to).map_err(|error| sqlite(to, error))?;
    let backup = Backup::new(&source, &mut target).map_err(|error| sqlite(to, error))?;
    // All pages in one step: the reader's snapshot is one revision, and does not block the writer.
    if backup.step(-1).map_err(|error| sqlite(to, error))? == StepResult::Done {
        return Ok(());
    }
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    Err(sqlite(to, rusqlite::Error::SqliteFailure(busy, None)))
}
