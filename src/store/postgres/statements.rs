//! The statements that write a group: one for each kind of row, whatever the number of rows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::error::{int, ms};
use super::group::{Group, MachineRow, RunRow};
use super::load::stored_outcomes;
use super::rows::storable;
use crate::ids::MachineId;
use crate::model::Run;
use crate::store::SlotKey;
use crate::store::codec::state_name;

/// A statement with its parameters.
pub(super) struct Stmt<'a> {
    pub(super) sql: &'static str,
    pub(super) params: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

impl<'a> Stmt<'a> {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql, params: Vec::new() }
    }

    pub(super) fn with(mut self, param: impl ToSql + Sync + Send + 'a) -> Self {
        self.params.push(Box::new(param));
        self
    }

    /// A column of an array, one value for each row.
    fn column<T, V: ToSql + Sync + Send + 'a>(self, rows: &[T], value: impl Fn(&T) -> V) -> Self {
        self.with(rows.iter().map(value).collect::<Vec<V>>())
    }
}

/// Everything that a group writes, except for `meta`. The order keeps unique indexes from seeing two rows at once.
pub(super) fn statements(group: &Group) -> Vec<Stmt<'_>> {
    let mut all = Vec::new();
    machines(group, &mut all);
    runs(group, &mut all);
    history(group, &mut all);
    beside(group, &mut all);
    all.retain(|statement| !statement.params.is_empty());
    all
}

/// The counters.
pub(super) fn meta(group: &Group) -> Stmt<'_> {
    let counters = &group.counters;
    let outcomes = stored_outcomes(group.before.revision, &group.named);
    // Without a name no batch is missing after the stored ones.
    let outcomes = (!group.named.is_empty()).then_some(outcomes);
    Stmt::new(
        "UPDATE meta SET revision = $1, compacted = $2, machine_ordinal = $3, run_ordinal = $4, at = $5,
            outcomes = coalesce($6::bytea, outcomes) WHERE id = 1",
    )
    .with(int(counters.revision.0))
    .with(int(counters.compacted.0))
    .with(int(counters.machine_ordinal))
    .with(int(counters.run_ordinal))
    .with(ms(counters.at))
    .with(outcomes)
}

fn machines<'a>(group: &'a Group, all: &mut Vec<Stmt<'a>>) {
    let rows: Vec<&MachineRow> = group.machines.values().collect();
    let of = |is_new: bool, is_deleted: bool| -> Vec<&'a MachineRow> {
        let wanted = |row: &&MachineRow| row.is_new == is_new && row.is_deleted == is_deleted;
        rows.iter().copied().filter(wanted).collect()
    };
    let deleted = of(false, true);
    if !deleted.is_empty() {
        all.push(
            Stmt::new("DELETE FROM machines WHERE ordinal = ANY($1)")
                .column(&deleted, |row| int(row.machine.ordinal)),
        );
    }
    let columns = |statement: Stmt<'a>, rows: &[&'a MachineRow]| {
        statement
            .column(rows, |row| int(row.machine.ordinal))
            .column(rows, |row| storable(&row.machine.spec.provider))
            .column(rows, |row| row.machine.phase.as_str())
            .column(rows, |row| row.machine.active_run.map(|run| run.to_string()))
            .column(rows, |row| int(row.machine.epoch.0))
            .column(rows, |row| int(row.machine.revision.0))
            .column(rows, |row| ms(row.machine.created_at))
            .column(rows, |row| ms(row.machine.updated_at))
            .column(rows, |row| row.body.as_bytes())
    };
    let changed = of(false, false);
    if !changed.is_empty() {
        all.push(columns(
            Stmt::new(
                "UPDATE machines AS m SET provider = n.provider, phase = n.phase, active_run = n.active_run,
                    epoch = n.epoch, revision = n.revision, created_at = n.created_at, updated_at = n.updated_at,
                    body = n.body
                FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[],
                    $8::int8[], $9::bytea[]) AS n(ordinal, provider, phase, active_run, epoch, revision, created_at,
                    updated_at, body)
                WHERE m.ordinal = n.ordinal",
            ),
            &changed,
        ));
    }
    let new = of(true, false);
    if !new.is_empty() {
        let statement = columns(
            Stmt::new(
                "INSERT INTO machines (ordinal, provider, phase, active_run, epoch, revision, created_at, updated_at,
                    body, id, sort_key)
                SELECT * FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[],
                    $7::int8[], $8::int8[], $9::bytea[], $10::text[], $11::text[])",
            ),
            &new,
        );
        all.push(
            statement
                .column(&new, |row| row.machine.id.as_str())
                .column(&new, |row| row.machine.id.natural_key()),
        );
    }
    labels_of_machines(&rows, all);
    let macs = |has: bool| -> Vec<(Cow<'a, str>, i64)> {
        let wanted = group.macs.iter().filter(|(_, (_, gets))| *gets == has);
        wanted.map(|(mac, (ordinal, _))| (storable(mac), int(*ordinal))).collect()
    };
    pairs(
        "DELETE FROM machine_macs a USING unnest($1::text[], $2::int8[]) AS n(mac, machine)
            WHERE a.mac = n.mac AND a.machine = n.machine",
        &macs(false),
        all,
    );
    pairs(
        "INSERT INTO machine_macs (mac, machine) SELECT * FROM unnest($1::text[], $2::int8[])
            ON CONFLICT (mac) DO UPDATE SET machine = excluded.machine",
        &macs(true),
        all,
    );
    let gone: Vec<_> =
        group.gone.iter().map(|(id, epoch)| (storable(id.as_str()), int(epoch.0))).collect();
    pairs(
        "INSERT INTO gone (id, epoch) SELECT * FROM unnest($1::text[], $2::int8[])
            ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch",
        &gone,
        all,
    );
}

/// A statement over texts and numbers.
fn pairs<'a>(sql: &'static str, rows: &[(Cow<'a, str>, i64)], all: &mut Vec<Stmt<'a>>) {
    if !rows.is_empty() {
        all.push(Stmt::new(sql).column(rows, |row| row.0.clone()).column(rows, |row| row.1));
    }
}

fn labels_of_machines<'a>(rows: &[&'a MachineRow], all: &mut Vec<Stmt<'a>>) {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    let none = BTreeMap::new();
    for row in rows.iter().filter(|row| !(row.is_new && row.is_deleted)) {
        let ordinal = int(row.machine.ordinal);
        let had = row.before.as_ref().map_or(&none, |before| &before.labels);
        let has = if row.is_deleted { &none } else { &row.machine.labels };
        let only = |these: &'a BTreeMap<String, String>, others: &BTreeMap<String, String>| {
            let missing = these.iter().filter(|(key, value)| others.get(*key) != Some(*value));
            missing
                .map(|(key, value)| (storable(key), storable(value), ordinal))
                .collect::<Vec<_>>()
        };
        if let Some(before) = &row.before {
            removed.extend(only(&before.labels, has));
        }
        if !row.is_deleted {
            added.extend(only(&row.machine.labels, had));
        }
    }
    let triples = |sql, rows: &[(Cow<'a, str>, Cow<'a, str>, i64)]| {
        Stmt::new(sql)
            .column(rows, |row| row.0.clone())
            .column(rows, |row| row.1.clone())
            .column(rows, |row| row.2)
    };
    if !removed.is_empty() {
        all.push(triples(
            "DELETE FROM machine_labels l USING unnest($1::text[], $2::text[], $3::int8[]) AS n(key, value, machine)
                WHERE l.key = n.key AND l.value = n.value AND l.machine = n.machine",
            &removed,
        ));
    }
    if !added.is_empty() {
        all.push(triples(
            "INSERT INTO machine_labels (key, value, machine)
                SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])",
            &added,
        ));
    }
}

/// Name of the step in progress, or of the one that failed; empty if there is none.
fn step_name(run: &Run) -> &str {
    run.current_step.and_then(|place| run.steps.get(place)).map_or("", |step| step.name.as_str())
}

fn runs<'a>(group: &'a Group, all: &mut Vec<Stmt<'a>>) {
    let of = |is_new: bool, is_ended: bool| -> Vec<&'a RunRow> {
        let wanted = |row: &&RunRow| row.is_new == is_new && row.ended_at.is_some() == is_ended;
        group.runs.values().filter(wanted).collect()
    };
    let columns = |statement: Stmt<'a>, rows: &[&'a RunRow]| {
        statement
            .column(rows, |row| int(row.run.ordinal))
            .column(rows, |row| row.ended_at.is_none())
            .column(rows, |row| row.run.phase().as_str())
            .column(rows, |row| state_name(row.run.state))
            .column(rows, |row| storable(step_name(&row.run)))
            .column(rows, |row| row.run.started_at.map(ms))
            .column(rows, |row| row.ended_at)
            .column(rows, |row| int(row.run.revision.0))
            .column(rows, |row| row.body.as_bytes())
    };
    // Those that end first: another run of their machine may become active.
    for changed in [of(false, true), of(false, false)] {
        if !changed.is_empty() {
            all.push(columns(
                Stmt::new(
                    "UPDATE runs AS r SET active = n.active, phase = n.phase, state = n.state, step = n.step,
                        started_at = n.started_at, ended_at = n.ended_at, revision = n.revision, body = n.body
                    FROM unnest($1::int8[], $2::bool[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[],
                        $8::int8[], $9::bytea[]) AS n(ordinal, active, phase, state, step, started_at, ended_at,
                        revision, body)
                    WHERE r.ordinal = n.ordinal",
                ),
                &changed,
            ));
        }
    }
    let new: Vec<&RunRow> = group.runs.values().filter(|row| row.is_new).collect();
    if new.is_empty() {
        return;
    }
    let statement = columns(
        Stmt::new(
            "INSERT INTO runs (ordinal, active, phase, state, step, started_at, ended_at, revision, body, id,
                machine_id, plan, type, digest, created_at)
            SELECT * FROM unnest($1::int8[], $2::bool[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[],
                $8::int8[], $9::bytea[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                $15::int8[])",
        ),
        &new,
    );
    all.push(
        statement
            .column(&new, |row| row.run.id.to_string())
            .column(&new, |row| row.run.machine_id.as_str())
            .column(&new, |row| storable(&row.run.spec.plan_id))
            .column(&new, |row| row.run.spec.run_type.as_str())
            .column(&new, |row| storable(&row.run.spec.plan_digest))
            .column(&new, |row| ms(row.run.created_at)),
    );
    let labels: Vec<(Cow<'a, str>, Cow<'a, str>, i64)> = new
        .iter()
        .flat_map(|row| {
            let labels = row.run.spec.labels.iter().flatten();
            labels.map(|(key, value)| (storable(key), storable(value), int(row.run.ordinal)))
        })
        .collect();
    if !labels.is_empty() {
        let sql = "INSERT INTO run_labels (key, value, run) SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])";
        all.push(
            Stmt::new(sql)
                .column(&labels, |row| row.0.clone())
                .column(&labels, |row| row.1.clone())
                .column(&labels, |row| row.2),
        );
    }
}

/// Rows that are written once.
fn history<'a>(group: &'a Group, all: &mut Vec<Stmt<'a>>) {
    let changes = &group.changes[..];
    if !changes.is_empty() {
        let sql = "INSERT INTO changes (at, place, machine_id, machine, run, before, kind, first_entry, entries, body,
                prior)
            SELECT $1::int8, n.* FROM unnest($2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::text[],
                $8::int8[], $9::bytea[], $10::bytea[], $11::bytea[]) AS n";
        all.push(
            Stmt::new(sql)
                .with(ms(group.counters.at))
                .with(changes.iter().map(|row| row.place).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.machine_id.as_str()).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.machine.map(int)).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.run.map(int)).collect::<Vec<_>>())
                .with(changes.iter().map(|row| int(row.before.0)).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.kind).collect::<Vec<_>>())
                .with(changes.iter().map(|row| i64::from(row.first_entry)).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.entries.as_bytes()).collect::<Vec<_>>())
                .with(changes.iter().map(|row| row.body.as_bytes()).collect::<Vec<_>>())
                .with(
                    changes
                        .iter()
                        .map(|row| row.prior.as_ref().map(|prior| prior.as_bytes()))
                        .collect::<Vec<_>>(),
                ),
        );
    }
    let logs = &group.logs[..];
    if !logs.is_empty() {
        let sql = "INSERT INTO logs (run, chunk, at, step, attempt, stream, truncated, text)
            SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::bytea[], $5::int8[], $6::text[], $7::bool[],
                $8::bytea[])";
        all.push(
            Stmt::new(sql)
                .with(logs.iter().map(|(run, _)| int(*run)).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| int(chunk.offset)).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| ms(chunk.at)).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| chunk.step.as_bytes()).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| i64::from(chunk.attempt)).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| chunk.stream.as_str()).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| chunk.truncated).collect::<Vec<_>>())
                .with(logs.iter().map(|(_, chunk)| chunk.text.as_bytes()).collect::<Vec<_>>()),
        );
    }
    let requests = &group.requests[..];
    if !requests.is_empty() {
        let sql = "INSERT INTO requests (scope, request_id, body_digest, object_id, at, revision)
            SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::int8[], $6::int8[])";
        all.push(
            Stmt::new(sql)
                .with(requests.iter().map(|row| row.scope.as_bytes()).collect::<Vec<_>>())
                .with(requests.iter().map(|row| row.request_id.as_bytes()).collect::<Vec<_>>())
                .with(requests.iter().map(|row| row.body_digest.as_str()).collect::<Vec<_>>())
                .with(requests.iter().map(|row| row.object_id.as_str()).collect::<Vec<_>>())
                .with(requests.iter().map(|row| ms(row.at)).collect::<Vec<_>>())
                .with(requests.iter().map(|row| int(row.revision.0)).collect::<Vec<_>>()),
        );
    }
    let audit = &group.audit[..];
    if !audit.is_empty() {
        let sql = "INSERT INTO audit (at, seq, revision, body, hash)
            SELECT $1::int8, n.* FROM unnest($2::int8[], $3::int8[], $4::bytea[], $5::bytea[]) AS n";
        all.push(
            Stmt::new(sql)
                .with(ms(group.counters.at))
                .with(audit.iter().map(|row| int(row.head.seq)).collect::<Vec<_>>())
                .with(audit.iter().map(|row| int(row.revision.0)).collect::<Vec<_>>())
                .with(audit.iter().map(|row| row.body.as_bytes()).collect::<Vec<_>>())
                .with(audit.iter().map(|row| &row.head.hash.0[..]).collect::<Vec<_>>()),
        );
    }
}

/// What lies beside the records.
fn beside<'a>(group: &'a Group, all: &mut Vec<Stmt<'a>>) {
    let plans: Vec<_> = group.plans.iter().map(|(key, text)| (storable(key), &**text)).collect();
    texts(
        "INSERT INTO plans (digest, text) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING",
        &plans,
        all,
    );
    let ids = |rows: &'a BTreeMap<MachineId, Option<String>>| {
        rows.iter().map(|(id, body)| (id.as_str(), body.as_deref())).collect::<Vec<_>>()
    };
    let brakes = group.brakes.iter().map(|(key, body)| (key.as_str(), body.as_deref()));
    for (delete, put, rows) in [
        (
            "DELETE FROM observed WHERE machine_id = ANY($1)",
            "INSERT INTO observed (machine_id, body) SELECT * FROM unnest($1::text[], $2::bytea[])
                ON CONFLICT (machine_id) DO UPDATE SET body = excluded.body",
            ids(&group.observed),
        ),
        (
            "DELETE FROM installations WHERE machine_id = ANY($1)",
            "INSERT INTO installations (machine_id, body) SELECT * FROM unnest($1::text[], $2::bytea[])
                ON CONFLICT (machine_id) DO UPDATE SET body = excluded.body",
            ids(&group.installations),
        ),
        (
            "DELETE FROM brakes WHERE key = ANY($1)",
            "INSERT INTO brakes (key, body) SELECT * FROM unnest($1::text[], $2::bytea[])
                ON CONFLICT (key) DO UPDATE SET body = excluded.body",
            brakes.collect(),
        ),
    ] {
        let gone: Vec<Cow<'a, str>> =
            rows.iter().filter(|(_, body)| body.is_none()).map(|(key, _)| storable(key)).collect();
        if !gone.is_empty() {
            all.push(Stmt::new(delete).with(gone));
        }
        let kept: Vec<_> =
            rows.iter().filter_map(|(key, body)| body.map(|body| (storable(key), body))).collect();
        texts(put, &kept, all);
    }
    let cursors: Vec<_> = group.cursors.iter().collect();
    if !cursors.is_empty() {
        let sql = "INSERT INTO cursors (receiver, owner, next, done)
            SELECT * FROM unnest($1::text[], $2::int8[], $3::int8[], $4::int8[])
            ON CONFLICT (receiver) DO UPDATE SET owner = excluded.owner, next = excluded.next, done = excluded.done";
        all.push(
            Stmt::new(sql)
                .with(cursors.iter().map(|(receiver, _)| storable(receiver)).collect::<Vec<_>>())
                .with(cursors.iter().map(|(_, cursor)| int(cursor.owner.0)).collect::<Vec<_>>())
                .with(cursors.iter().map(|(_, cursor)| int(cursor.next.0)).collect::<Vec<_>>())
                .with(cursors.iter().map(|(_, cursor)| i64::from(cursor.done)).collect::<Vec<_>>()),
        );
    }
    let (given, taken): (Vec<_>, Vec<_>) =
        group.slots.iter().partition(|(_, keys)| keys.is_empty());
    if !given.is_empty() {
        all.push(
            Stmt::new("DELETE FROM slots WHERE run = ANY($1)")
                .with(given.iter().map(|(run, _)| run.to_string()).collect::<Vec<_>>()),
        );
    }
    if !taken.is_empty() {
        let sql = "INSERT INTO slots (run, keys) SELECT * FROM unnest($1::text[], $2::bytea[])
            ON CONFLICT (run) DO UPDATE SET keys = excluded.keys";
        all.push(
            Stmt::new(sql)
                .with(taken.iter().map(|(run, _)| run.to_string()).collect::<Vec<_>>())
                .with(taken.iter().map(|(_, keys)| one_a_line(keys)).collect::<Vec<_>>()),
        );
    }
}

fn one_a_line(keys: &[SlotKey]) -> Vec<u8> {
    keys.iter().map(SlotKey::as_str).collect::<Vec<_>>().join("\n").into_bytes()
}

/// A statement over keys and stored texts.
fn texts<'a>(sql: &'static str, rows: &[(Cow<'a, str>, &'a str)], all: &mut Vec<Stmt<'a>>) {
    if !rows.is_empty() {
        all.push(
            Stmt::new(sql).column(rows, |row| row.0.clone()).column(rows, |row| row.1.as_bytes()),
        );
    }
}
