//! Repairs unreadable records, or drops them, while no server uses the store.
//!
//! The history of a record gives its state: the changes are stored with it, and lead to it. A record that cannot be
//! rebuilt from its history is left unchanged, unless it is named to be dropped.

use std::path::Path;

use rusqlite::{Connection, params};

use super::check::describe;
use super::commit::{Stopped, apply, seal_record};
use super::counters::Counters;
use super::encoded::Encoded;
use super::error::{failed, int, named, place_after};
use super::fold::{current_run, fold};
use super::heads::Rows;
use super::load::Loaded;
use super::open::{OpenError, Opened, open, sqlite};
use super::options::SqliteOptions;
use super::read::{self, machine_row};
use super::row::{for_each, number, text};
use super::seal;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::model::machine::{Condition, REASON_RECORD_UNREADABLE};
use crate::model::{Actor, ConditionKind, Entry, EntryKind, Machine, Run};
use crate::store::codec::{encode_machine, encode_run};
use crate::store::{Batch, StoreError, Write};

/// A record to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// A run. Its machine then has no active run, and stays blocked until an operator has looked at it.
    Run(RunId),
    /// A machine without an active run. It can be registered again.
    Machine(MachineId),
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(id) => write!(f, "run {id}"),
            Self::Machine(id) => write!(f, "machine {id}"),
        }
    }
}

/// Result of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Records that were rebuilt from their history.
    pub mended: Vec<String>,
    /// Records that were dropped.
    pub dropped: Vec<String>,
    /// Records that still cannot be read, and what is wrong with them.
    pub unreadable: Vec<String>,
}

/// Why a store was not repaired. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The store cannot be opened, or a server is using it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record to drop does not exist, can be read, or must not be dropped.
    #[error("{what} is not dropped: {why}")]
    Refused {
        /// The record.
        what: Dropped,
        /// Why not, and what to do instead.
        why: String,
    },
    /// The store cannot be read or written.
    #[error("the store cannot be repaired")]
    Store(#[source] StoreError),
}

impl From<StoreError> for RepairError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Rebuilds every unreadable record of the store in `dir` from its history, and drops those that are named, if they
/// cannot be rebuilt. All of it happens, or nothing. Reads everything: blocks the calling thread.
///
/// # Errors
/// [`RepairError`], with nothing changed.
pub fn repair(dir: &Path, dropped: &[Dropped], now: Timestamp) -> Result<Repaired, RepairError> {
    let Opened { lock, conn, loaded, path } = open(dir, &SqliteOptions::default())?;
    let begun = conn.execute_batch("BEGIN IMMEDIATE");
    begun.map_err(|error| sqlite(&path, error))?;
    // A transaction that is not committed is rolled back when the connection closes.
    let mut repairing = Repairing { conn: &conn, loaded, now, repaired: Repaired::default() };
    repairing.mend()?;
    for one in dropped {
        match one {
            Dropped::Run(id) => repairing.drop_run(*id)?,
            Dropped::Machine(id) => repairing.drop_machine(id)?,
        }
    }
    repairing.loaded.counters.save(&conn).map_err(failed)?;
    let repaired = repairing.repaired;
    conn.execute_batch("COMMIT").map_err(|error| sqlite(&path, error))?;
    // Held until the last write.
    drop(lock);
    Ok(repaired)
}

struct Repairing<'a> {
    conn: &'a Connection,
    loaded: Loaded,
    now: Timestamp,
    repaired: Repaired,
}

impl Repairing<'_> {
    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.conn.execute(sql, params).map(|_| ()).map_err(failed)
    }

    /// Rebuilds the records for which that is possible.
    fn mend(&mut self) -> Result<(), StoreError> {
        let mut broken = Vec::new();
        let sql = "SELECT ordinal, revision, body, sum, id FROM machines ORDER BY ordinal";
        for_each(self.conn, sql, [], |row| {
            if let Err(error) = machine_row(row).map_err(named(text(row, 4)?)) {
                broken.push((number(row, 0)?, text(row, 4)?.to_owned(), error));
            }
            Ok(true)
        })?;
        for (ordinal, id, error) in broken {
            let (body, revision) = match self.machine_by_history(&id, ordinal) {
                Some(machine) => (encode_machine(&machine), machine.revision),
                None => {
                    self.repaired.unreadable.push(describe(&error));
                    continue;
                }
            };
            let sql = "UPDATE machines SET body = ?2, sum = ?3 WHERE ordinal = ?1";
            let sum = seal_record(ordinal, revision, &body);
            self.execute(sql, params![int(ordinal), body, sum])?;
            self.repaired.mended.push(format!("machine {id}"));
        }
        let mut broken = Vec::new();
        let sql = "SELECT ordinal, revision, body, sum, id, machine_id FROM runs ORDER BY ordinal";
        for_each(self.conn, sql, [], |row| {
            if let Err(error) = current_run(self.conn, row).map_err(named(text(row, 4)?)) {
                let (id, machine) = (text(row, 4)?.to_owned(), text(row, 5)?.to_owned());
                // A revision that is not a number is part of the damage.
                broken.push((number(row, 0)?, number(row, 1).ok(), id, machine, error));
            }
            Ok(true)
        })?;
        for (ordinal, revision, id, machine, error) in broken {
            let Some(run) = self.run_by_history(ordinal, revision) else {
                self.repaired
                    .unreadable
                    .push(format!("{} (of machine {machine})", describe(&error)));
                continue;
            };
            let sql = "UPDATE runs SET body = ?2, sum = ?3 WHERE ordinal = ?1";
            let body = encode_run(&run);
            let sum = seal_record(ordinal, run.revision, &body);
            self.execute(sql, params![int(ordinal), body, sum])?;
            self.repaired.mended.push(format!("run {id} of machine {machine}"));
        }
        Ok(())
    }

    /// The run as its row should have it, if all of its changes can be read and lead to the revision of the row.
    fn run_by_history(&self, ordinal: u64, revision: Option<u64>) -> Option<Run> {
        fold(self.conn, ordinal, i64::MAX).ok()?;
        let revision = Revision(revision?);
        let run = fold(self.conn, ordinal, place_after(revision)).ok()??;
        (run.revision == revision).then_some(run)
    }

    /// The machine after its last change, if that is kept and agrees with its columns.
    fn machine_by_history(&self, id: &str, ordinal: u64) -> Option<Machine> {
        let machine = MachineId::parse(id).ok()?;
        let newest = self.loaded.counters.revision;
        // An image that cannot be read is the same as no image.
        let machine = read::machine_at(self.conn, &machine, newest).ok().flatten()?;
        let sql = "SELECT 1 FROM machines WHERE ordinal = ?1 AND revision = ?2 AND epoch = ?3";
        let agrees = params![int(ordinal), int(machine.revision.0), int(machine.epoch.0)];
        let agrees = self.conn.query_row(sql, agrees, |_| Ok(())).is_ok();
        (agrees && machine.ordinal == ordinal).then(|| Machine::clone(&machine))
    }

    fn drop_run(&mut self, id: RunId) -> Result<(), RepairError> {
        let what = Dropped::Run(id);
        let refused = |why: String| RepairError::Refused { what: what.clone(), why };
        let newest = self.loaded.counters.revision.0;
        let mut found = None;
        let sql = "SELECT ordinal, revision, body, sum, machine_id, digest FROM runs WHERE id = ?1";
        for_each(self.conn, sql, [id.to_string()], |row| {
            let (machine, digest) = (text(row, 4)?.to_owned(), text(row, 5)?.to_owned());
            let is_readable =
                current_run(self.conn, row).is_ok() && self.plan_is_readable(&digest)?;
            let revision = number(row, 1).unwrap_or(newest);
            found = Some((number(row, 0)?, revision, machine, digest, is_readable));
            Ok(false)
        })?;
        let Some((ordinal, revision, machine, digest, is_readable)) = found else {
            return Err(refused("there is no such run".to_owned()));
        };
        if is_readable {
            let why =
                "it and its plan can be read; start the server, and abort the run if it is active";
            return Err(refused(why.to_owned()));
        }
        let machine = MachineId::parse(&machine)
            .map_err(|error| refused(format!("the name of its machine cannot be read: {error}")))?;
        match read::machine(self.conn, &machine) {
            Ok(Some(stored)) if stored.active_run == Some(id) => self.free(&stored, id)?,
            Ok(_) => {}
            Err(error) => {
                let why = format!("{}; drop machine {machine} afterwards", describe(&error));
                self.repaired.unreadable.retain(|line| *line != describe(&error));
                self.repaired.unreadable.push(why);
            }
        }
        let ordinal = int(ordinal);
        for sql in [
            "DELETE FROM changes WHERE run = ?1",
            "DELETE FROM logs WHERE run = ?1",
            "DELETE FROM slots WHERE run = ?1",
            "DELETE FROM run_labels WHERE run = ?1",
            "DELETE FROM runs WHERE ordinal = ?1",
        ] {
            self.execute(sql, [ordinal])?;
        }
        let unused = "DELETE FROM plans WHERE digest = ?1
            AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.digest = ?1)";
        self.execute(unused, [digest])?;
        self.forgotten(revision);
        let of_run = id.to_string();
        self.repaired.unreadable.retain(|line| !line.contains(&of_run));
        self.repaired.dropped.push(format!("run {id} of machine {machine}"));
        Ok(())
    }

    fn plan_is_readable(&self, digest: &str) -> Result<bool, StoreError> {
        let text = read::plan(self.conn, digest)?;
        Ok(text.is_some_and(|text| crate::plan::Plan::from_canonical(&text).is_ok()))
    }

    /// Removes the run from its machine, which stays blocked: an operator must find out its outcome.
    fn free(&mut self, machine: &Machine, run: RunId) -> Result<(), RepairError> {
        let mut after = machine.clone();
        after.active_run = None;
        after.updated_at = self.now;
        let message = format!(
            "run {run} could not be read and was dropped; look at the machine, then clear NeedsIntervention"
        );
        after.conditions.set(
            ConditionKind::NeedsIntervention,
            Condition {
                status: true,
                reason: REASON_RECORD_UNREADABLE.to_owned(),
                message: message.clone(),
                last_transition_at: self.now,
                observed_by: "repair".to_owned(),
                plan_id: String::new(),
            },
        );
        let entry = Entry::new(EntryKind::ConditionChanged, Actor::engine())
            .reason(REASON_RECORD_UNREADABLE)
            .message(message);
        let batch = Batch::of(Write::new(Some(machine.clone().into()), after, vec![entry]));
        let encoded = Encoded::new(&batch);
        let slots = std::mem::take(&mut self.loaded.slots);
        let mut rows = Rows { slots, ..Rows::default() };
        let at = self.now.max(self.loaded.at);
        let applied = apply(self.conn, &mut self.loaded.counters, &mut rows, at, batch, &encoded);
        match applied {
            Ok(_) => Ok(()),
            Err(Stopped::Refused(error)) => Err(error.into()),
            Err(Stopped::Failed(error)) => Err(failed(error).into()),
        }
    }

    fn drop_machine(&mut self, id: &MachineId) -> Result<(), RepairError> {
        let refused =
            |why: String| RepairError::Refused { what: Dropped::Machine(id.clone()), why };
        let newest = self.loaded.counters.revision.0;
        let mut found = None;
        let sql = "SELECT ordinal, revision, body, sum, epoch FROM machines WHERE id = ?1";
        for_each(self.conn, sql, [id.as_str()], |row| {
            let is_readable = machine_row(row).is_ok();
            let revision = number(row, 1).unwrap_or(newest);
            found = Some((number(row, 0)?, revision, number(row, 4)?, is_readable));
            Ok(false)
        })?;
        let Some((ordinal, revision, epoch, is_readable)) = found else {
            return Err(refused("there is no such machine".to_owned()));
        };
        if is_readable {
            let why = "it can be read; start the server, retire the machine and delete it";
            return Err(refused(why.to_owned()));
        }
        if let Some(run) = read::active_run(self.conn, id)? {
            return Err(refused(format!("run {run} is active on it; drop the run first")));
        }
        let sql = "INSERT OR REPLACE INTO gone (id, epoch, sum) VALUES (?1, ?2, ?3)";
        let sum = seal::of(&[seal::text(id.as_str()), seal::number(Some(int(epoch)))]);
        self.execute(sql, params![id.as_str(), int(epoch), sum])?;
        self.execute("DELETE FROM machine_macs WHERE machine = ?1", [int(ordinal)])?;
        self.execute("DELETE FROM observed WHERE machine_id = ?1", [id.as_str()])?;
        self.execute("DELETE FROM installations WHERE machine_id = ?1", [id.as_str()])?;
        self.execute("DELETE FROM machine_labels WHERE machine = ?1", [int(ordinal)])?;
        self.execute("DELETE FROM changes WHERE machine = ?1", [int(ordinal)])?;
        self.execute("DELETE FROM machines WHERE ordinal = ?1", [int(ordinal)])?;
        self.forgotten(revision);
        let of_machine = format!("machine {id} ");
        self.repaired.unreadable.retain(|line| !line.contains(&of_machine));
        self.repaired.dropped.push(format!("machine {id}"));
        Ok(())
    }

    /// Readers before this revision must list again.
    fn forgotten(&mut self, revision: u64) {
        let counters: &mut Counters = &mut self.loaded.counters;
        counters.compacted.0 = counters.compacted.0.max(revision);
    }
}
