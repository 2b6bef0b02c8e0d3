//! Opens the store and the world of the fake provider: in memory, or in the data directory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Config, ConfigError, Database, FakeWorld, Storage};
use super::durable::{self, Durable};
use super::error::StartError;
use super::host;
use crate::clock::{Clock, Random, SystemClock};
use crate::ids::{MachineId, RunId};
use crate::provider::fake::World;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::{
    self, DATABASE_FILE, Dropped, RepairError, Repaired, SqliteOptions, SqliteStore,
};

/// Operations that a world in memory remembers per machine; the engine asks for the last one or two.
const OPERATIONS_MAX: usize = 16;

/// The opened storage.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// The same store, for its metrics, if it is on a disk.
    pub(super) durable: Option<Durable>,
    /// The world of the fake provider.
    pub(super) world: World,
}

/// Opens the storage.
///
/// # Errors
/// [`StartError`] if it cannot be created, is in use, damaged or too new.
pub(super) async fn open(
    (storage, database): (&Storage, Option<&Database>),
    fake_world: FakeWorld,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<Opened, StartError> {
    let dir = match storage {
        Storage::Ephemeral => {
            tracing::info!("everything is stored in memory: nothing survives a restart");
            let store = Arc::new(MemoryStore::new(clock.clone()));
            return Ok(Opened {
                store,
                durable: None,
                world: World::in_memory_bounded(OPERATIONS_MAX),
            });
        }
        Storage::Dir(dir) => dir.clone(),
    };
    let fresh_key = random.next_u64();
    if let Some(database) = database {
        return open_database(database, dir, (fake_world, fresh_key), clock).await;
    }
    let options = SqliteOptions { clock: Some(clock.clone()), ..SqliteOptions::default() };
    tracing::info!(data_dir = %dir.display(), "data directory");
    // Opening reads and checks files, which may take long: signals must be handled meanwhile.
    blocking("opening the data directory failed", move || {
        // The store first: its lock keeps other servers out of the whole directory.
        let sqlite = Arc::new(SqliteStore::open(&dir, options)?);
        let world = world(&dir, fake_world, fresh_key)?;
        Ok(Opened { store: sqlite.clone(), durable: Some(Durable::Sqlite(sqlite)), world })
    })
    .await
}

/// Opens the store in PostgreSQL, and the world in the data directory.
async fn open_database(
    database: &Database,
    dir: PathBuf,
    (fake_world, fresh_key): (FakeWorld, u64),
    clock: &Arc<dyn Clock>,
) -> Result<Opened, StartError> {
    tracing::info!(host = %database.host, database = database.name, "PostgreSQL");
    let options = durable::options(database, clock)?;
    let (lock, world) = blocking("opening the data directory failed", move || {
        let (lock, has_database) = sqlite::claim_dir(&dir)?;
        if has_database {
            return Err(ConfigError::Setting(format!(
                "{} has a database, which would not be used with --store: give another directory with --data-dir DIR",
                dir.display()
            ))
            .into());
        }
        Ok((lock, world(&dir, fake_world, fresh_key)?))
    })
    .await?;
    let store = PostgresStore::open(options).await;
    let store = Arc::new(store.map_err(|source| StartError::Postgres {
        place: format!("{}/{}", database.host, database.name),
        source,
    })?);
    let durable = Durable::Postgres(store.clone(), Arc::new(lock));
    Ok(Opened { store, durable: Some(durable), world })
}

fn world(dir: &Path, fake_world: FakeWorld, fresh_key: u64) -> Result<World, StartError> {
    Ok(match fake_world {
        FakeWorld::Disk => World::open(dir)?.keyed(dir, fresh_key)?,
        FakeWorld::Memory => World::in_memory_bounded(OPERATIONS_MAX),
    })
}

/// Runs work that may block on a disk on its own thread; `failed` describes it if it panics.
pub(super) async fn blocking<T: Send + 'static>(
    failed: &'static str,
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StartError::Internal { what: failed, source: error.into() })?
}

/// The data directory of a command that needs one.
pub(super) fn data_dir(config: &Config) -> Result<&Path, StartError> {
    if config.database.is_some() {
        return Err(ConfigError::Setting(
            "the database is in PostgreSQL (--store or store.url), so this is done with PostgreSQL's own tools: pg_dump or \
             pg_basebackup, pg_restore, pg_amcheck; docs/postgresql.md says how"
                .to_owned(),
        )
        .into());
    }
    match &config.storage {
        Storage::Dir(dir) => Ok(dir),
        Storage::Ephemeral => Err(ConfigError::Setting(
            "with --ephemeral there is no database: give --data-dir DIR instead".to_owned(),
        )
        .into()),
    }
}

/// Copies the database to a new file, even while a server is using it.
///
/// # Errors
/// [`StartError`] if there is no database, or the file exists or cannot be written.
pub(super) fn back_up(config: &Config, to: &Path, out: &mut dyn Write) -> Result<(), StartError> {
    let from = data_dir(config)?.join(DATABASE_FILE);
    if !from.exists() {
        return Err(StartError::NoDatabase { path: from });
    }
    sqlite::backup(&from, to).map_err(|error| match error {
        sqlite::OpenError::Io { path, source, .. } if path == to => {
            StartError::BackupFile { path, source }
        }
        error @ (sqlite::OpenError::InUse { .. }
        | sqlite::OpenError::Used { .. }
        | sqlite::OpenError::TooNew { .. }
        | sqlite::OpenError::NotOurs { .. }
        | sqlite::OpenError::Corrupt { .. }
        | sqlite::OpenError::Io { .. }
        | sqlite::OpenError::Sqlite { .. }) => error.into(),
    })?;
    if let Err(error) = host::backed_up(data_dir(config)?, SystemClock::new().now()) {
        tracing::debug!(%error, "the time of the backup could not be recorded");
    }
    said(writeln!(out, "copied {} to {}", from.display(), to.display()));
    let restore = format!("bmdemo-server restore {} --data-dir DIR", to.display());
    said(writeln!(
        out,
        "Next: keep it on another machine; to restore it into a new directory: {restore}"
    ));
    Ok(())
}

/// Checks the database and writes the findings. Intended edits are accepted first.
///
/// # Errors
/// [`StartError`] if there is no database, it cannot be opened, or something in it is wrong.
pub(super) fn check(
    config: &Config,
    accept: &[String],
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let dir = data_dir(config)?;
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(StartError::NoDatabase { path });
    }
    if !accept.is_empty() {
        let accepted = sqlite::accept(dir, accept)?;
        for name in accept {
            let what = if accepted.contains(name) { "accepted" } else { "nothing to accept" };
            said(writeln!(out, "{name}: {what}"));
        }
    }
    let report = sqlite::check(&path)?;
    report_problems(&report, &path, out)?;
    let sqlite::Report { revision, machines, runs, changes, .. } = report;
    said(writeln!(
        out,
        "{}: ok (revision {revision}, {machines} machines, {runs} runs, {changes} changes)",
        path.display()
    ));
    Ok(())
}

/// Repairs unreadable records, drops those that are named, and writes what it did.
///
/// # Errors
/// [`StartError`] if there is no database, a server is using it, something is not dropped, or something still cannot
/// be read.
pub(super) fn repair(
    config: &Config,
    runs: &[RunId],
    machines: &[MachineId],
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let dir = data_dir(config)?;
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(StartError::NoDatabase { path });
    }
    let runs = runs.iter().copied().map(Dropped::Run);
    let dropped: Vec<_> = runs.chain(machines.iter().cloned().map(Dropped::Machine)).collect();
    let Repaired { mended, dropped, unreadable } =
        sqlite::repair(dir, &dropped, SystemClock::new().now()).map_err(|error| match error {
            RepairError::Open(error) => error.into(),
            source @ (RepairError::Refused { .. } | RepairError::Store(_)) => {
                StartError::NotRepaired { path: path.clone(), source }
            }
        })?;
    let done = [("repaired", &mended), ("dropped", &dropped), ("left", &unreadable)];
    for (what, records) in done {
        for record in records {
            said(writeln!(out, "{what}: {record}"));
        }
    }
    if !unreadable.is_empty() {
        return Err(StartError::Damaged { path, problems: unreadable.len() });
    }
    let (repaired, dropped) = (mended.len(), dropped.len());
    said(writeln!(out, "{}: {repaired} repaired, {dropped} dropped", path.display()));
    Ok(())
}

/// Writes what is wrong with the database at `path`.
///
/// # Errors
/// [`StartError::Damaged`] if something is.
pub(super) fn report_problems(
    report: &sqlite::Report,
    path: &Path,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    for problem in &report.problems {
        said(writeln!(out, "{problem}"));
    }
    if report.is_ok() {
        return Ok(());
    }
    Err(StartError::Damaged { path: path.to_owned(), problems: report.problems.len() })
}

/// If the output is closed, the exit code still says what matters.
pub(super) fn said(written: std::io::Result<()>) {
    drop(written);
}
