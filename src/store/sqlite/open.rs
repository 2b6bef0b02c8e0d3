//! Opening a data directory: lock, checks, migration.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::uint;
use super::load::Loaded;
use super::options::SqliteOptions;
use super::schema::{APPLICATION_ID, MIGRATIONS, VERSION};
use crate::files;

/// Name of the database in the data directory.
pub const DATABASE_FILE: &str = "bmdemo.db";

/// Name of the file that keeps a second server out of the data directory.
pub const LOCK_FILE: &str = "bmdemo.lock";

/// Content of the lock file once the database has been set up: after that an empty or missing database is a loss.
const SET_UP: &[u8] = b"bmdemo data directory; bmdemo.db has been set up\n";

/// A database below this size is checked as a whole when it is opened.
const QUICK_CHECK_BYTES_MAX: u64 = 64 << 20;

/// The first bytes of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process is using it.
    #[error("data directory {} is in use by another live server", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory of a restore has a database, or had one.
    #[error("data directory {} has been used; restore into an unused directory", .dir.display())]
    Used {
        /// The directory.
        dir: PathBuf,
    },
    /// A later version has written it.
    #[error(
        "{} has schema version {found}, newer than {known}, the newest that this version supports; use a newer bmdemo",
        .path.display()
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Version of its schema.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// It is not our database.
    #[error("{} is not a database of bmdemo", .path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged: restore a backup. Nothing is repaired by dropping rows.
    #[error("{} is damaged: {message}; restore it from a backup", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The operating system failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// Its file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("cannot open {}", .path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

/// An opened data directory.
pub(super) struct Opened {
    /// Held as long as the store is open.
    pub(super) lock: File,
    pub(super) conn: Connection,
    pub(super) loaded: Loaded,
    pub(super) path: PathBuf,
}

pub(super) fn open(dir: &Path, options: &SqliteOptions) -> Result<Opened, OpenError> {
    make_dir(dir)?;
    let (mut lock, set_up) = take_lock(dir)?;
    let path = dir.join(DATABASE_FILE);
    let file = check_file(dir, &path, set_up)?;
    let conn = connect(&path).map_err(|error| sqlite(&path, error))?;
    check_version(&conn, &path, file)?;
    configure(&conn, options).map_err(|error| sqlite(&path, error))?;
    check_content(&conn, &path)?;
    migrate(&conn).map_err(|error| sqlite(&path, error))?;
    let loaded = Loaded::load(&conn).map_err(|error| sqlite(&path, error))?;
    if !set_up {
        let action = "write to";
        let written = lock.write_all(SET_UP).and_then(|()| lock.sync_all());
        written.map_err(|error| io(action, &dir.join(LOCK_FILE))(error))?;
    }
    Ok(Opened { lock, conn, loaded, path })
}

pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path: path.clone(), source }
}

pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> OpenError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Corrupt { path: path.to_owned(), message: source.to_string() }
        }
        _ if matches!(source, rusqlite::Error::FromSqlConversionFailure(..)) => {
            let message = format!("its counters cannot be read: {source}");
            OpenError::Corrupt { path: path.to_owned(), message }
        }
        _ => OpenError::Sqlite { path: path.to_owned(), source },
    }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return files::refuse_shared_dir(dir).map_err(io("use", dir));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create", dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => Ok(()),
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(io("flush", dir))
}

/// Locks a data directory for a server whose database is elsewhere, until the file is closed. Returns whether it has a
/// database nevertheless.
///
/// # Errors
/// [`OpenError`] if it cannot be used, or another server uses it.
pub fn claim_dir(dir: &Path) -> Result<(File, bool), OpenError> {
    make_dir(dir)?;
    let (lock, set_up) = take_lock(dir)?;
    Ok((lock, set_up || dir.join(DATABASE_FILE).exists()))
}

/// Locks the directory, and returns whether its database has been set up.
pub(super) fn take_lock(dir: &Path) -> Result<(File, bool), OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = files::open_own(&mut options, &path).map_err(io("open", &path))?;
    files::take_own(&file).map_err(io("use", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(io("read", &path))?;
    Ok((file, !content.is_empty()))
}

/// Whether the database file is new or a SQLite file. A new one is created.
fn check_file(dir: &Path, path: &Path, set_up: bool) -> Result<FileState, OpenError> {
    let corrupt = |message: &str| {
        Err(OpenError::Corrupt { path: path.to_owned(), message: message.to_owned() })
    };
    // SQLite opens these by their names.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let name = PathBuf::from(name);
        files::refuse_others(&name).map_err(io("open", &name))?;
        if !suffix.is_empty() && name.exists() {
            let beside = files::open_own(OpenOptions::new().read(true), &name);
            beside.and_then(|file| files::take_own(&file)).map_err(io("use", &name))?;
        }
    }
    let mut head = Vec::new();
    match files::open_own(OpenOptions::new().read(true), path) {
        Ok(file) => {
            files::take_own(&file).map_err(io("use", path))?;
            file.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(io("read", path))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound && set_up => {
            return corrupt("it is missing, though the directory has been used");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            options.open(path).map_err(io("create", path))?;
            sync_dir(dir)?;
        }
        Err(error) => return Err(io("open", path)(error)),
    }
    match head.as_slice() {
        [] if set_up => corrupt("it is empty, though the directory has been used"),
        [] => Ok(FileState::New),
        MAGIC => Ok(FileState::Existing),
        _ => corrupt("it does not start like a database"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    New,
    Existing,
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    // Until the file is known to be ours, closing it must not change it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Another tool may be reading the file.
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// A connection that checkpoints the log while the writer writes.
pub(super) fn connect_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(conn)
}

/// A connection that cannot write.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Refuses a database that is not ours or that is newer than this version.
pub(super) fn refuse_foreign(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(|error| sqlite(path, error))?;
    if application != APPLICATION_ID {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    let found = pragma("user_version").map_err(|error| sqlite(path, error))?;
    if found > VERSION {
        return Err(OpenError::TooNew { path: path.to_owned(), found, known: VERSION });
    }
    Ok(())
}

fn check_version(conn: &Connection, path: &Path, file: FileState) -> Result<(), OpenError> {
    match file {
        FileState::Existing => refuse_foreign(conn, path)?,
        FileState::New => {
            let set = conn.pragma_update(None, "application_id", APPLICATION_ID);
            set.map_err(|error| sqlite(path, error))?;
        }
    }
    let allowed = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    allowed.map(|_| ()).map_err(|error| sqlite(path, error))
}

fn configure(conn: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if options.unsafe_no_flush_for_tests { "NORMAL" } else { "FULL" };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // The log is checkpointed beside the writer, see `checkpointer`.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    // SQLite walks the whole cache at the end of a transaction that has split a page, and the system caches the file
    // anyway.
    conn.pragma_update(None, "cache_size", -8 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    if let Some(pages) = options.pages_max {
        conn.pragma_update(None, "max_page_count", pages)?;
    }
    // Pages left by a failed flush are written again, and so are durable before anything relies on them.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn check_content(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let corrupt = |message| Err(OpenError::Corrupt { path: path.to_owned(), message });
    let pragma = |name| {
        let value = conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.map(uint).map_err(|error| sqlite(path, error))
    };
    let expected = pragma("page_count")? * pragma("page_size")?;
    let bytes = std::fs::metadata(path).map_err(io("read", path))?.len();
    if bytes < expected {
        return corrupt(format!("it has {bytes} bytes instead of {expected}"));
    }
    if bytes > QUICK_CHECK_BYTES_MAX {
        return Ok(());
    }
    let verdict = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict.map_err(|error| sqlite(path, error))?.as_str() {
        "ok" => Ok(()),
        problem => corrupt(problem.to_owned()),
    }
}

/// Whether the schema is that of this version.
pub(super) fn migrated(conn: &Connection) -> rusqlite::Result<bool> {
    conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map(|v| v == VERSION)
}

fn migrate(conn: &Connection) -> rusqlite::Result<()> {
    let version = conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    for (from, migration) in (0_i64..).zip(MIGRATIONS) {
        if from >= version {
            let to = from + 1;
            let transaction = conn.unchecked_transaction()?;
            transaction.execute_batch(migration.sql)?;
            if let Some(fill) = migration.fill {
                fill(&transaction)?;
            }
            transaction.pragma_update(None, "user_version", to)?;
            transaction.commit()?;
        }
    }
    Ok(())
}
