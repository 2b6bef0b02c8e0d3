//! Tables, and the migration of older databases.
//!
//! Columns are what operators look for, and what indexes serve; the whole record is in `body` (see `store::codec`), as
//! bytes: texts of others may have characters that PostgreSQL's texts cannot hold. Everything is in a schema of its
//! own, and sorted by bytes (`COLLATE "C"`), so that lists do not depend on the locale of the database.

use super::connection::{Conn, numbered};
use super::error::OpenError;

/// Version of the schema that this version writes.
pub(super) const FORMAT: i32 = MIGRATIONS.len() as i32;

/// Migrations from version `n` to version `n + 1`; each runs in its own transaction. Never edited, only appended to.
const MIGRATIONS: [Migration; 1] = [Migration { sql: V1, min_writer: 1 }];

struct Migration {
    sql: &'static str,
    /// Programs whose [`FORMAT`] is lower can no longer use the database.
    min_writer: i32,
}

/// Creates the tables, or brings them up to date. Called only by the server that has its place.
pub(super) async fn migrate(conn: &Conn) -> Result<(), OpenError> {
    let exists = "SELECT to_regclass('bmdemo.meta') IS NOT NULL";
    let exists = conn.query(exists, &[]).await?.first().is_some_and(|row| row.get(0));
    let mut format = 0;
    if exists {
        let rows = conn.query("SELECT format, min_writer FROM meta WHERE id = 1", &[]).await?;
        let Some(row) = rows.first() else { return Err(OpenError::NotOurs) };
        let min_writer: i32 = row.get(1);
        format = row.get(0);
        if min_writer > FORMAT {
            return Err(OpenError::TooNew { format: min_writer, newest: FORMAT });
        }
    }
    for (to, migration) in numbered(&MIGRATIONS).filter(|(to, _)| *to > format) {
        if to > 1 {
            tracing::info!(from = to - 1, to, "migrating the database");
        }
        let sql = format!(
            "BEGIN; {} UPDATE meta SET format = {to}, min_writer = {}; COMMIT",
            migration.sql, migration.min_writer
        );
        if let Err(error) = conn.batch(&sql).await {
            // The transaction has failed already; the connection is closed next.
            drop(conn.batch("ROLLBACK").await);
            return Err(error.into());
        }
    }
    Ok(())
}

/// A change is numbered by `place`: the revision of its commit times 2^20, plus its index in the commit. `machine` is
/// the ordinal of the machine that changed, `run` that of the run (the other is NULL); `before` the revision that the
/// object had, zero if it is new; `body` the machine after the change (before it, if it was deleted) or what changed
/// in the run; `prior` the machine before it, if the change before has been deleted.
///
/// `holder` is drawn again whenever a server takes its place, `last_group` in every transaction: see `place`.
const V1: &str = r#"
CREATE SCHEMA IF NOT EXISTS bmdemo;

CREATE TABLE meta (
    id smallint PRIMARY KEY CHECK (id = 1),
    store_id text NOT NULL,
    format integer NOT NULL,
    min_writer integer NOT NULL,
    holder bigint NOT NULL,
    last_group bigint NOT NULL,
    revision bigint NOT NULL,
    compacted bigint NOT NULL,
    machine_ordinal bigint NOT NULL,
    run_ordinal bigint NOT NULL,
    epoch_floor bigint NOT NULL,
    at bigint NOT NULL,
    outcomes bytea NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta VALUES (1, gen_random_uuid()::text, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '');

CREATE FUNCTION expect(holds boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION 'another server has taken the place of this one' USING ERRCODE = 'BM001';
    END IF;
    RETURN true;
END $$;

CREATE TABLE machines (
    ordinal bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    sort_key text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    phase text COLLATE "C" NOT NULL,
    active_run text COLLATE "C",
    epoch bigint NOT NULL,
    revision bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX machines_sort_key ON machines (sort_key);
CREATE INDEX machines_phase ON machines (phase, ordinal);
CREATE INDEX machines_provider ON machines (provider, ordinal);

CREATE TABLE machine_labels (
    key text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    machine bigint NOT NULL,
    PRIMARY KEY (key, value, machine)
);
CREATE TABLE machine_macs (mac text COLLATE "C" PRIMARY KEY, machine bigint NOT NULL);
CREATE TABLE gone (id text COLLATE "C" PRIMARY KEY, epoch bigint NOT NULL);
CREATE TABLE observed (machine_id text COLLATE "C" PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE installations (machine_id text COLLATE "C" PRIMARY KEY, body bytea NOT NULL);

CREATE TABLE runs (
    ordinal bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    machine_id text COLLATE "C" NOT NULL,
    plan text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    phase text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    started_at bigint,
    ended_at bigint,
    revision bigint NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX runs_owner ON runs (machine_id) WHERE active;
CREATE INDEX runs_active ON runs (ordinal) WHERE active;
CREATE INDEX runs_ended ON runs (ended_at, ordinal) WHERE NOT active;
CREATE INDEX runs_machine ON runs (machine_id, ordinal);
CREATE INDEX runs_phase ON runs (phase, ordinal);
CREATE INDEX runs_plan ON runs (plan, ordinal);
CREATE INDEX runs_type ON runs (type, ordinal);
CREATE INDEX runs_digest ON runs (digest);

CREATE TABLE run_labels (
    key text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    PRIMARY KEY (key, value, run)
);
CREATE INDEX run_labels_run ON run_labels (run);
CREATE TABLE slots (run text COLLATE "C" PRIMARY KEY, keys bytea NOT NULL);

CREATE TABLE changes (
    place bigint PRIMARY KEY,
    at bigint NOT NULL,
    machine_id text COLLATE "C" NOT NULL,
    machine bigint,
    run bigint,
    before bigint NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('machine', 'deleted', 'run')),
    first_entry bigint NOT NULL,
    entries bytea NOT NULL,
    body bytea NOT NULL,
    prior bytea
);
CREATE INDEX changes_run ON changes (run, place) WHERE run IS NOT NULL;
CREATE INDEX changes_machine ON changes (machine_id, place) WHERE run IS NULL;
CREATE INDEX changes_of_machines ON changes (place) WHERE run IS NULL;

CREATE TABLE logs (
    run bigint NOT NULL,
    chunk bigint NOT NULL,
    at bigint NOT NULL,
    step bytea NOT NULL,
    attempt bigint NOT NULL,
    stream text COLLATE "C" NOT NULL,
    truncated boolean NOT NULL,
    text bytea NOT NULL,
    PRIMARY KEY (run, chunk)
);

CREATE TABLE requests (
    request_id bytea NOT NULL,
    scope bytea NOT NULL,
    body_digest text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (request_id, scope)
);
CREATE INDEX requests_at ON requests (at);

CREATE TABLE plans (digest text COLLATE "C" PRIMARY KEY, text bytea NOT NULL);
CREATE TABLE cursors (
    receiver text COLLATE "C" PRIMARY KEY,
    owner bigint NOT NULL,
    next bigint NOT NULL,
    done bigint NOT NULL
);
CREATE TABLE brakes (key text COLLATE "C" PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE audit (
    seq bigint PRIMARY KEY,
    revision bigint NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    hash bytea NOT NULL
);
CREATE TABLE audit_anchor (
    id smallint PRIMARY KEY CHECK (id = 1),
    seq bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_anchor VALUES (1, 0, '');

CREATE VIEW machine_list AS
SELECT id, provider, phase, active_run, epoch, revision,
    to_timestamp(created_at / 1000.0) AS created_at, to_timestamp(updated_at / 1000.0) AS updated_at
FROM machines ORDER BY ordinal;
CREATE VIEW run_list AS
SELECT id, machine_id, plan, type, phase, state, step, revision, to_timestamp(created_at / 1000.0) AS created_at,
    to_timestamp(started_at / 1000.0) AS started_at, to_timestamp(ended_at / 1000.0) AS ended_at
FROM runs ORDER BY ordinal;
CREATE VIEW history AS
SELECT c.place >> 20 AS revision, to_timestamp(c.at / 1000.0) AS at, c.machine_id, r.id AS run_id,
    convert_from(c.entries, 'UTF8') AS entries
FROM changes c LEFT JOIN runs r ON r.ordinal = c.run ORDER BY c.place;
"#;
