//! Writing one batch into the open transaction.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::append::{Applied, ChangeRow, Writing};
use super::counters::Counters;
use super::encoded::{Encoded, EncodedWrite};
use super::error::{int, ms, uint};
use super::fold::BEHIND_MAX;
use super::heads::{PLANS_MAX, Rows, RunRow, Stored};
use super::load::save_slots;
use super::{audit, brakes, cursors, installations, observed, seal};
use crate::clock::Timestamp;
use crate::ids::{Revision, RunId};
use crate::model::{Change, Images, Machine, Object, Record, Run};
use crate::store::check::{Checked, MachineHead, RunHead, check};
use crate::store::codec::{encode_machine, encode_run, state_name};
use crate::store::{Batch, Committed, SlotKey, StoreError};

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A precondition does not hold; the transaction continues without the batch.
    Refused(StoreError),
    /// The transaction cannot continue.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Checks and writes one batch, at the time `at`. If it is refused, nothing was written and no counter has changed.
pub(super) fn apply(
    conn: &Connection,
    counters: &mut Counters,
    rows: &mut Rows,
    at: Timestamp,
    batch: Batch,
    encoded: &Encoded,
) -> Result<Applied, Stopped> {
    let revision = Revision(counters.revision.0 + 1);
    let checked =
        check(&Stored { conn, rows, epoch_floor: counters.epoch_floor }, &batch, revision)
            .map_err(Stopped::Refused)?;
    counters.revision = revision;
    let changes = Vec::with_capacity(batch.writes.len());
    let committed = Committed { revision, at, changes, logs: Vec::new(), locks: Vec::new() };
    let applied = Applied { committed, rows: 1 };
    let compacted = counters.compacted;
    let mut writing = Writing { conn, rows, revision, at, compacted, entries: 0, applied };
    let Checked { ordinals, slots } = checked;
    writing.objects(counters, batch, ordinals, encoded)?;
    writing.slots(slots)?;
    for entry in &encoded.audit {
        counters.audit = audit::append(conn, counters.audit, revision, at, entry)?;
        writing.applied.rows += 1;
    }
    Ok(writing.applied)
}

impl Writing<'_> {
    fn objects(
        &mut self,
        counters: &mut Counters,
        batch: Batch,
        ordinals: Vec<Option<u64>>,
        encoded: &Encoded,
    ) -> rusqlite::Result<()> {
        for ((write, ordinal), encoded) in
            batch.writes.into_iter().zip(ordinals).zip(&encoded.writes)
        {
            let object = match write.object {
                Object::Machine(images) => {
                    let ordinal = ordinal.unwrap_or_else(|| next(&mut counters.machine_ordinal));
                    let images = stamped(images, ordinal, self.revision);
                    match (&images.before, &images.after) {
                        (before, Some(machine)) => {
                            self.machine(before.as_deref(), machine, encoded)?;
                        }
                        (Some(machine), None) => self.delete(machine, encoded)?,
                        (None, None) => {}
                    }
                    self.macs(&images, ordinal)?;
                    Machine::object(images)
                }
                Object::Run(images) => {
                    let ordinal = ordinal.unwrap_or_else(|| next(&mut counters.run_ordinal));
                    let images = stamped(images, ordinal, self.revision);
                    if let Some(run) = &images.after {
                        self.run(run, revision_before(images.before.as_ref()), encoded)?;
                    }
                    Run::object(images)
                }
            };
            self.entries += u32::try_from(write.entries.len()).unwrap_or(u32::MAX);
            let (revision, at, entries) = (self.revision, self.at, write.entries.into());
            let change = Change { revision, at, object, before_is_gone: false, entries };
            self.applied.committed.changes.push(change);
            self.applied.rows += 1;
        }
        if let Some(plan) = &batch.plan
            && !self.rows.plans.contains(&plan.digest)
        {
            let sql = "INSERT OR IGNORE INTO plans (digest, text, sum) VALUES (?1, ?2, ?3)";
            let sum = seal::of(&[seal::text(&plan.digest), seal::text(&plan.text)]);
            self.conn.prepare_cached(sql)?.execute(params![plan.digest, plan.text, sum])?;
            if self.rows.plans.len() >= PLANS_MAX {
                self.rows.plans.clear();
            }
            self.rows.plans.insert(plan.digest.clone());
        }
        if let Some(request) = &batch.request {
            self.request(request)?;
        }
        for (machine, seen) in &batch.observed {
            observed::save(self.conn, machine, seen)?;
        }
        for (machine, installation) in &batch.installations {
            installations::save(self.conn, machine, installation)?;
        }
        for step in &batch.cursors {
            cursors::save(self.conn, step)?;
        }
        for step in &batch.locks {
            self.applied.committed.locks.extend(brakes::apply(self.conn, step)?);
        }
        for chunk in batch.logs {
            self.log(Arc::new(chunk))?;
        }
        Ok(())
    }

    fn machine(
        &mut self,
        before: Option<&Machine>,
        machine: &Machine,
        encoded: &EncodedWrite,
    ) -> rusqlite::Result<()> {
        let prior = before.filter(|before| before.revision <= self.compacted).map(encode_machine);
        let body = &encoded.body;
        let active_run = machine.active_run.map(|run| run.to_string());
        let sum = seal_record(machine.ordinal, self.revision, body);
        let values = params![
            int(machine.ordinal),
            active_run,
            int(machine.epoch.0),
            int(self.revision.0),
            ms(machine.created_at),
            ms(machine.updated_at),
            body,
            sum,
            machine.phase.as_str(),
            machine.spec.provider,
            machine.id.as_str(),
            machine.id.natural_key(),
        ];
        if let Some(before) = before {
            // An index is updated only if its column is named.
            let (columns, named) = if before.spec.provider != machine.spec.provider {
                (", phase = ?9, provider = ?10", 10)
            } else if before.phase != machine.phase {
                (", phase = ?9", 9)
            } else {
                ("", 8)
            };
            let sql = format!(
                "UPDATE machines SET active_run = ?2, epoch = ?3, revision = ?4, created_at = ?5,
                updated_at = ?6, body = ?7, sum = ?8{columns} WHERE ordinal = ?1"
            );
            self.conn.prepare_cached(&sql)?.execute(&values[..named])?;
            if before.labels != machine.labels {
                self.remove_labels(before)?;
                self.add_labels(machine)?;
            }
        } else {
            let sql = "INSERT INTO machines (ordinal, active_run, epoch, revision, created_at, updated_at, body,
                sum, phase, provider, id, sort_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            self.conn.prepare_cached(sql)?.execute(values)?;
            self.add_labels(machine)?;
        }
        self.keep_machine(machine);
        self.change(&ChangeRow {
            machine_id: &machine.id,
            machine: Some(machine.ordinal),
            run: None,
            before: before.map_or(Revision(0), |before| before.revision),
            kind: "machine",
            entries: &encoded.entries,
            body,
            prior,
        })
    }

    fn add_labels(&self, machine: &Machine) -> rusqlite::Result<()> {
        let sql = "INSERT INTO machine_labels (key, value, machine) VALUES (?1, ?2, ?3)";
        self.each_label(machine, sql)
    }

    fn remove_labels(&self, machine: &Machine) -> rusqlite::Result<()> {
        let sql = "DELETE FROM machine_labels WHERE key = ?1 AND value = ?2 AND machine = ?3";
        self.each_label(machine, sql)
    }

    fn each_label(&self, machine: &Machine, sql: &str) -> rusqlite::Result<()> {
        for (key, value) in &machine.labels {
            self.conn.prepare_cached(sql)?.execute(params![key, value, int(machine.ordinal)])?;
        }
        Ok(())
    }

    /// Updates the index of MAC addresses.
    fn macs(&mut self, images: &Images<Machine>, ordinal: u64) -> rusqlite::Result<()> {
        let of = |machine: Option<&Arc<Machine>>| {
            machine.map_or(Vec::new(), |machine| machine.spec.mac_addresses.clone())
        };
        let has = |machine: Option<&Arc<Machine>>, mac: &String| {
            machine.is_some_and(|machine| machine.spec.mac_addresses.contains(mac))
        };
        let (before, after) = (images.before.as_ref(), images.after.as_ref());
        // Nearly every commit leaves them unchanged.
        if before.map(|machine| &machine.spec.mac_addresses)
            == after.map(|machine| &machine.spec.mac_addresses)
        {
            return Ok(());
        }
        for mac in of(before).iter().filter(|mac| !has(after, mac)) {
            let sql = "DELETE FROM machine_macs WHERE mac = ?1 AND machine = ?2";
            self.conn.prepare_cached(sql)?.execute(params![mac, int(ordinal)])?;
        }
        for mac in of(after).iter().filter(|mac| !has(before, mac)) {
            let sql = "INSERT OR REPLACE INTO machine_macs (mac, machine) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute(params![mac, int(ordinal)])?;
        }
        Ok(())
    }

    fn delete(&mut self, machine: &Machine, encoded: &EncodedWrite) -> rusqlite::Result<()> {
        self.remove_labels(machine)?;
        let sql = "DELETE FROM machines WHERE ordinal = ?1";
        self.conn.prepare_cached(sql)?.execute([int(machine.ordinal)])?;
        self.rows.machines.remove(&machine.id);
        let sql = "DELETE FROM observed WHERE machine_id = ?1";
        self.conn.prepare_cached(sql)?.execute([machine.id.as_str()])?;
        let sql = "DELETE FROM installations WHERE machine_id = ?1";
        self.conn.prepare_cached(sql)?.execute([machine.id.as_str()])?;
        let sql = "INSERT OR REPLACE INTO gone (id, epoch, sum) VALUES (?1, ?2, ?3)";
        let (id, epoch) = (machine.id.as_str(), int(machine.epoch.0));
        let values = params![id, epoch, seal::of(&[seal::text(id), seal::number(Some(epoch))])];
        self.conn.prepare_cached(sql)?.execute(values)?;
        self.applied.rows += 1;
        self.change(&ChangeRow {
            machine_id: &machine.id,
            machine: Some(machine.ordinal),
            run: None,
            before: machine.revision,
            kind: "deleted",
            entries: &encoded.entries,
            body: &encoded.body,
            prior: None,
        })
    }

    fn run(&mut self, run: &Run, before: Revision, encoded: &EncodedWrite) -> rusqlite::Result<()> {
        let behind = self.behind(run);
        if behind == 0 {
            self.run_row(run, before, &encoded.body)?;
        }
        self.keep_run(run, before == Revision(0), behind);
        self.change(&ChangeRow {
            machine_id: &run.machine_id,
            machine: None,
            run: Some(run.ordinal),
            before,
            kind: "run",
            entries: &encoded.entries,
            body: &encoded.delta,
            prior: None,
        })
    }

    /// By how many changes the row of a run may be behind after this one; zero if it has to be written.
    fn behind(&self, run: &Run) -> u32 {
        match self.rows.runs.get(&run.id) {
            Some(row) if run.state.is_active() && row.phase == run.phase().as_str() => {
                (row.behind + 1) % (BEHIND_MAX + 1)
            }
            Some(_) | None => 0,
        }
    }

    /// Writes the row of a run. `body` is empty if the writer of the batch did not expect that.
    fn run_row(&self, run: &Run, before: Revision, body: &str) -> rusqlite::Result<()> {
        let body = if body.is_empty() { Cow::Owned(encode_run(run)) } else { Cow::Borrowed(body) };
        let active = run.state.is_active();
        let ended_at = (!active).then(|| ms(run.finished_at.unwrap_or(self.at)));
        let step = step_name(run);
        let (ordinal, phase) = (int(run.ordinal), run.phase().as_str());
        let (state, started_at) = (state_name(run.state), run.started_at.map(ms));
        let sum = seal_record(run.ordinal, self.revision, &body);
        if before == Revision(0) {
            for (key, value) in run.spec.labels.iter().flatten() {
                let sql = "INSERT INTO run_labels (key, value, run) VALUES (?1, ?2, ?3)";
                self.conn.prepare_cached(sql)?.execute(params![key, value, ordinal])?;
            }
            let sql = "INSERT INTO runs (ordinal, state, step, started_at, revision, body, phase, active, ended_at,
                id, machine_id, plan, type, digest, created_at, sum)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
            self.conn.prepare_cached(sql)?.execute(params![
                ordinal,
                state,
                step,
                started_at,
                int(self.revision.0),
                body,
                phase,
                active,
                ended_at,
                run.id.to_string(),
                run.machine_id.as_str(),
                run.spec.plan_id,
                run.spec.run_type.as_str(),
                run.spec.plan_digest,
                ms(run.created_at),
                sum,
            ])?;
        } else {
            let sql =
                "UPDATE runs SET state = ?2, step = ?3, started_at = ?4, revision = ?5, body = ?6, sum = ?7
                WHERE ordinal = ?1";
            let revision = int(self.revision.0);
            let values = params![ordinal, state, step, started_at, revision, body, sum];
            self.conn.prepare_cached(sql)?.execute(values)?;
            let unmoved =
                active && self.rows.runs.get(&run.id).is_some_and(|row| row.phase == phase);
            if !unmoved {
                // Separate, so that the indexes are updated only if their columns have changed.
                let sql = "UPDATE runs SET phase = ?2, active = ?3, ended_at = ?4
                    WHERE ordinal = ?1 AND (phase <> ?2 OR ended_at IS NOT ?4)";
                let values = params![ordinal, phase, active, ended_at];
                self.conn.prepare_cached(sql)?.execute(values)?;
            }
        }
        Ok(())
    }

    /// Caches what was written of a machine as long as its run is active.
    fn keep_machine(&mut self, machine: &Machine) {
        if machine.active_run.is_none() {
            self.rows.machines.remove(&machine.id);
            return;
        }
        let Machine { ordinal, revision, epoch, .. } = *machine;
        self.rows.machines.insert(machine.id.clone(), MachineHead { ordinal, revision, epoch });
    }

    /// Caches what was written of a run while it is active. Its chunks are counted when they are written.
    fn keep_run(&mut self, run: &Run, is_new: bool, behind: u32) {
        let before = self.rows.runs.remove(&run.id);
        if run.state.is_active() {
            let chunks = if is_new { Some(0) } else { before.and_then(|row| row.chunks) };
            let head = RunHead { ordinal: run.ordinal, revision: run.revision, active: true };
            let row = RunRow { head, phase: run.phase().as_str(), behind, chunks };
            self.rows.runs.insert(run.id, row);
        }
    }
}

impl Writing<'_> {
    /// Writes what runs hold after this batch.
    fn slots(&mut self, slots: Vec<(RunId, Vec<SlotKey>)>) -> rusqlite::Result<()> {
        for (run, keys) in slots {
            save_slots(self.conn, self.ordinal_of(run)?, run, &keys)?;
            self.rows.slots.put(run, keys);
        }
        Ok(())
    }

    /// The ordinal of a run that this batch may have written.
    pub(super) fn ordinal_of(&self, id: RunId) -> rusqlite::Result<u64> {
        if let Some(row) = self.rows.runs.get(&id) {
            return Ok(row.head.ordinal);
        }
        let mut written = self.applied.committed.written::<Run>();
        if let Some(run) = written.find(|run| run.id == id) {
            return Ok(run.ordinal);
        }
        let mut query = self.conn.prepare_cached("SELECT ordinal FROM runs WHERE id = ?1")?;
        query.query_row([id.to_string()], |row| row.get(0)).map(uint)
    }
}

/// Name of the step in progress, or of the one that failed; empty if there is none.
pub(super) fn step_name(run: &Run) -> &str {
    run.current_step.and_then(|place| run.steps.get(place)).map_or("", |step| step.name.as_str())
}

/// The checksum of the row of a machine or a run.
pub(super) fn seal_record(ordinal: u64, revision: Revision, body: &str) -> i64 {
    let number = |number| seal::number(Some(int(number)));
    seal::of(&[number(ordinal), number(revision.0), seal::text(body)])
}

/// The images as stored.
fn stamped<T: Record>(mut images: Images<T>, ordinal: u64, revision: Revision) -> Images<T> {
    if let Some(after) = &mut images.after {
        Arc::make_mut(after).stamp(ordinal, revision);
    }
    images
}

/// Revision of the record before a change, zero if it is new.
fn revision_before<T: Record>(before: Option<&Arc<T>>) -> Revision {
    before.map_or(Revision(0), |before| before.revision())
}

/// The next ordinal; none is assigned twice, even after a deletion.
fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}
