//! Tables, and the migration of older files.
//!
//! Columns are what operators look for, and what indexes serve; the whole record is in `body` (see `store::codec`).

use rusqlite::{Connection, params};

use super::seal::SEALS;
use crate::ids::natural_key;

/// Version of the schema that this version writes; in the file as `PRAGMA user_version`.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// `PRAGMA application_id` of our files: "bmdm".
pub(super) const APPLICATION_ID: i64 = 0x626d_646d;

/// Migrations from version `n` to version `n + 1`; each runs in its own transaction. Never edited, only appended to.
pub(super) const MIGRATIONS: [Migration; 17] = [
    Migration { sql: V1, fill: None },
    Migration { sql: V2, fill: None },
    Migration { sql: V3, fill: None },
    Migration { sql: V4, fill: None },
    Migration { sql: V5, fill: Some(fill_sort_keys) },
    Migration { sql: V6, fill: None },
    Migration { sql: V7, fill: None },
    Migration { sql: V8, fill: None },
    Migration { sql: V9, fill: Some(fill_sums) },
    Migration { sql: V10, fill: None },
    Migration { sql: V11, fill: None },
    Migration { sql: V12, fill: None },
    Migration { sql: V13, fill: None },
    Migration { sql: V14, fill: None },
    Migration { sql: V15, fill: None },
    Migration { sql: V16, fill: None },
    Migration { sql: RUN_LABELS, fill: None },
];

/// One migration of the schema.
pub(super) struct Migration {
    pub(super) sql: &'static str,
    /// What SQL cannot compute; runs afterwards, in the same transaction.
    pub(super) fill: Option<fn(&Connection) -> rusqlite::Result<()>>,
}

/// Locks (see `model::Lock`) under `lock/ID`, and under `streak/DIGEST` how often a plan has failed in a row.
const V16: &str = "
CREATE TABLE brakes (
    key TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    sum INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Labels of runs, each with the ordinal of its run: those that the machine had when the run was accepted. Runs of
/// earlier versions have none.
const RUN_LABELS: &str = "
CREATE TABLE run_labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (key, value, run)
) WITHOUT ROWID;
";

/// The audit (see `model::audit`), and the entry that was deleted last. It has no checksums: its hashes are more.
const V15: &str = "
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL
);
CREATE TABLE audit_anchor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
);
CREATE VIEW audit_list AS
SELECT seq, revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at,
    body ->> 'decision' AS decision, body ->> 'who' AS principal, body ->> 'verified' AS verified,
    body ->> 'proof' AS proof, body ->> 'peer' AS peer, body ->> 'rpc' AS rpc, body ->> 'objects' AS objects,
    body ->> 'req' AS request_id, body ->> 'reason' AS reason, body ->> 'body' AS body_digest,
    body ->> 'plan' AS plan_digest, coalesce(body ->> 'calls', 1) AS calls, lower(hex(hash)) AS hash
FROM audit ORDER BY seq;
";

/// More of what is observed. The addresses are separated by spaces.
const V14: &str = "
ALTER TABLE observed ADD COLUMN power_word TEXT NOT NULL DEFAULT '';
ALTER TABLE observed ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE observed ADD COLUMN macs TEXT NOT NULL DEFAULT '';
";

/// How far receivers of notifications have got: see `model::Cursor`.
const V13: &str = "
CREATE TABLE cursors (
    receiver TEXT PRIMARY KEY,
    owner INTEGER NOT NULL,
    next INTEGER NOT NULL,
    done INTEGER NOT NULL,
    sum INTEGER NOT NULL
) WITHOUT ROWID;
";

/// What machines reported about their installations, beside the machines' records.
const V12: &str = "
CREATE TABLE installations (
    machine_id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    sum INTEGER NOT NULL
) WITHOUT ROWID;
";

/// From this version on, the row of an active run may be behind its changes (see `fold`); the view shows the run as it is.
const V11: &str = "
DROP VIEW run_list;
CREATE VIEW run_list AS
SELECT r.id, r.machine_id, r.plan, r.type, r.phase,
    coalesce(c.body ->> '$.p.st', c.body ->> '$.h.st', r.state) AS state,
    iif(c.place IS NULL, r.step, coalesce((SELECT s.value ->> '$[1].name'
        FROM changes o, json_each(o.body, '$.s') s
        WHERE o.run = r.ordinal AND s.value ->> '$[0]' = coalesce(c.body ->> '$.p.cur', c.body ->> '$.h.cur')
        LIMIT 1), '')) AS step,
    coalesce(c.place >> 20, r.revision) AS revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(c.body ->> '$.p.t0', c.body ->> '$.h.t0', r.started_at) / 1000.0,
        'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.ended_at / 1000.0, 'unixepoch') AS ended_at
FROM runs r LEFT JOIN changes c
    ON r.active = 1 AND c.place = (SELECT max(place) FROM changes WHERE run = r.ordinal)
ORDER BY r.ordinal;
";

/// Facts observed by probes, beside the machines' records. They have no checksum: they decide nothing, and the next
/// probe that observes something else replaces them.
const V10: &str = "
CREATE TABLE observed (
    machine_id TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    power TEXT NOT NULL,
    firmware TEXT NOT NULL,
    serial TEXT NOT NULL,
    health TEXT NOT NULL
) WITHOUT ROWID;
";

/// Slots that runs hold, one key per line. Outcomes of the last transaction's batches: the revision before it, then
/// the id and the revision of each, as numbers of 8 bytes. In the change of a machine, the machine before it, if the
/// previous change has been trimmed.
const V6: &str = "
CREATE TABLE slots (
    run INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    keys TEXT NOT NULL
);
ALTER TABLE meta ADD COLUMN outcomes BLOB NOT NULL DEFAULT x'';
ALTER TABLE changes ADD COLUMN prior TEXT;
";

/// The epochs at which machines were deleted, kept as long as the store exists: a machine registered again under the
/// id continues from there. For machines deleted before this version, the change that is kept for a while has it.
const V2: &str = "
CREATE TABLE gone (
    id TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR REPLACE INTO gone
SELECT machine_id, coalesce(body ->> 'epoch', 0) FROM changes WHERE kind = 'deleted' ORDER BY place;
";

/// A change is numbered by `place`: the revision of its commit times 2^20, plus its index in the commit. `machine` is
/// the ordinal of the machine that changed, `run` that of the run (the other is NULL); `before` the revision that the
/// object had, zero if it is new; `body` the machine after the change (before it, if it was deleted) or what changed
/// in the run.
const V1: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    format INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    machine_ordinal INTEGER NOT NULL,
    run_ordinal INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 1, 0, 0, 0, 0);

CREATE TABLE machines (
    ordinal INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    phase TEXT NOT NULL,
    active_run TEXT,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX machines_phase ON machines (phase);
CREATE INDEX machines_provider ON machines (provider);

CREATE TABLE runs (
    ordinal INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    machine_id TEXT NOT NULL,
    plan TEXT NOT NULL,
    type TEXT NOT NULL,
    digest TEXT NOT NULL,
    active INTEGER NOT NULL,
    phase TEXT NOT NULL,
    state TEXT NOT NULL,
    step TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX runs_owner ON runs (machine_id) WHERE active = 1;
CREATE INDEX runs_active ON runs (active) WHERE active = 1;
CREATE INDEX runs_ended ON runs (ended_at) WHERE active = 0;
CREATE INDEX runs_machine ON runs (machine_id);
CREATE INDEX runs_phase ON runs (phase);
CREATE INDEX runs_plan ON runs (plan);
CREATE INDEX runs_type ON runs (type);
CREATE INDEX runs_digest ON runs (digest);

CREATE TABLE changes (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    machine_id TEXT NOT NULL,
    machine INTEGER,
    run INTEGER,
    before INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('machine', 'deleted', 'run')),
    first_entry INTEGER NOT NULL,
    entries TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX changes_run ON changes (run);
CREATE INDEX changes_machine ON changes (machine_id) WHERE run IS NULL;

CREATE TABLE logs (
    run INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    at INTEGER NOT NULL,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    stream TEXT NOT NULL,
    truncated INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (run, chunk)
) WITHOUT ROWID;

CREATE TABLE requests (
    scope TEXT NOT NULL,
    request_id TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    object_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (scope, request_id)
) WITHOUT ROWID;
CREATE INDEX requests_at ON requests (at);

CREATE TABLE plans (
    digest TEXT PRIMARY KEY,
    text TEXT NOT NULL
) WITHOUT ROWID;

CREATE VIEW machine_list AS
SELECT id, provider, phase, active_run, epoch, revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1000.0, 'unixepoch') AS updated_at
FROM machines ORDER BY ordinal;

CREATE VIEW run_list AS
SELECT id, machine_id, plan, type, phase, state, step, revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1000.0, 'unixepoch') AS ended_at
FROM runs ORDER BY ordinal;

CREATE VIEW history AS
SELECT c.place >> 20 AS revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', c.at / 1000.0, 'unixepoch') AS at,
    c.machine_id, r.id AS run_id,
    e.value ->> 'kind' AS kind, e.value ->> 'step' AS step,
    e.value ->> 'from' AS from_state, e.value ->> 'to' AS to_state,
    e.value ->> 'reason' AS reason, e.value ->> 'msg' AS message,
    e.value ->> '$.by.kind' AS actor_kind, e.value ->> '$.by.name' AS actor
FROM changes c LEFT JOIN runs r ON r.ordinal = c.run, json_each(c.entries) e
ORDER BY c.place, e.key;
";

/// Log chunks in the order in which they came: those of a commit share a page, instead of one page per run.
const V3: &str = "
CREATE TABLE logs_in_order (
    place INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    at INTEGER NOT NULL,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    stream TEXT NOT NULL,
    truncated INTEGER NOT NULL,
    text TEXT NOT NULL
);
INSERT INTO logs_in_order (run, chunk, at, step, attempt, stream, truncated, text)
    SELECT run, chunk, at, step, attempt, stream, truncated, text FROM logs ORDER BY run, chunk;
DROP TABLE logs;
ALTER TABLE logs_in_order RENAME TO logs;
CREATE UNIQUE INDEX logs_run ON logs (run, chunk);
";

/// Requests in the order in which they came: those of a commit share a page, and only the small entry of the index
/// goes to a random place. From this version on, a change of a run leaves out fields that never change.
const V4: &str = "
CREATE TABLE requests_in_order (
    place INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    request_id TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    object_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
INSERT INTO requests_in_order (scope, request_id, body_digest, object_id, at, revision)
    SELECT scope, request_id, body_digest, object_id, at, revision FROM requests ORDER BY revision, scope, request_id;
DROP TABLE requests;
ALTER TABLE requests_in_order RENAME TO requests;
CREATE UNIQUE INDEX requests_id ON requests (request_id, scope);
CREATE INDEX requests_at ON requests (at);
";

/// Labels of machines, each with the ordinal of its machine, and the sort key of machines' ids (`ids::natural_key`).
/// An unreadable machine has no labels here; `check` names it.
const V5: &str = "
CREATE TABLE machine_labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    machine INTEGER NOT NULL,
    PRIMARY KEY (key, value, machine)
) WITHOUT ROWID;
INSERT INTO machine_labels (key, value, machine)
    SELECT label.key, label.value, machines.ordinal
    FROM machines, json_each(CASE WHEN json_valid(body) THEN body ELSE '{}' END, '$.labels') AS label
    ORDER BY label.key, label.value, machines.ordinal;
ALTER TABLE machines ADD COLUMN sort_key TEXT NOT NULL DEFAULT '';
CREATE INDEX machines_sort_key ON machines (sort_key);
";

fn fill_sort_keys(conn: &Connection) -> rusqlite::Result<()> {
    let mut read = conn.prepare(
        "SELECT ordinal, id FROM machines WHERE ordinal > ?1 ORDER BY ordinal LIMIT 1000",
    )?;
    let mut write = conn.prepare("UPDATE machines SET sort_key = ?2 WHERE ordinal = ?1")?;
    let mut after = i64::MIN;
    loop {
        let rows = read.query_map([after], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = *last;
        for (ordinal, id) in rows {
            write.execute(params![ordinal, natural_key(&id)])?;
        }
    }
}

/// The machine with each MAC address. Older versions accepted duplicates: the first machine keeps the address.
const V7: &str = "
CREATE TABLE machine_macs (
    mac TEXT PRIMARY KEY,
    machine INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO machine_macs (mac, machine)
    SELECT mac.value, machines.ordinal
    FROM machines, json_each(CASE WHEN json_valid(body) THEN body ELSE '{}' END, '$.macs') AS mac
    ORDER BY machines.ordinal;
";

/// The epoch below which no machine is registered: a restored store does not know those that were used since its
/// backup.
const V8: &str = "ALTER TABLE meta ADD COLUMN epoch_floor INTEGER NOT NULL DEFAULT 0;";

/// Checksums of rows, see `seal`. Those of existing rows are computed here: earlier damage is not noticed. Those of
/// tables that came later are computed when a row is written.
const V9: &str = "
ALTER TABLE machines ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN body_sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN prior_sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plans ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE slots ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE gone ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN outcomes_sum INTEGER NOT NULL DEFAULT 0;
";

/// The checksums that version 9 began.
pub(super) const SEALS_OF_9: usize = 12;

fn fill_sums(conn: &Connection) -> rusqlite::Result<()> {
    SEALS[..SEALS_OF_9].iter().try_for_each(|seal| seal.fill(conn))
}
