//! Why the server did not start, for the person who started it, with exit codes for programs.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::ConfigError;
use crate::executor::EngineError;
use crate::provider::boot::TokenKeyError;
use crate::provider::fake::WorldError;
use crate::store::StoreError;
use crate::store::postgres;
use crate::store::sqlite::{OpenError, RepairError};

/// A command asks for something impossible.
const EX_USAGE: u8 = 64;
/// The database was written by a newer version.
const EX_DATAERR: u8 = 65;
/// There is no database.
const EX_NOINPUT: u8 = 66;
/// Cannot listen.
const EX_UNAVAILABLE: u8 = 69;
/// A bug in the server.
const EX_SOFTWARE: u8 = 70;
/// A file or directory cannot be created.
const EX_CANTCREAT: u8 = 73;
/// The database is damaged or cannot be read.
const EX_IOERR: u8 = 74;
/// The data directory is in use; it may be free later.
const EX_TEMPFAIL: u8 = 75;
/// The configuration is refused.
const EX_CONFIG: u8 = 78;

/// Why the server did not start, or did not perform a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server cannot listen at the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that gives another one, with its value.
        option: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The key of installation tokens cannot be had.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
    /// The file of a backup cannot be written.
    #[error("cannot write {}", .path.display())]
    BackupFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of certificates, keys or tokens cannot be written.
    #[error("cannot write {}", .path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is to be restored is no backup.
    #[error("{} is not a backup of bmdemo: {message}", .path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The data directory or its database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database in PostgreSQL cannot be used.
    #[error("PostgreSQL at {place}: {source}")]
    Postgres {
        /// Host and database.
        place: String,
        /// Why. Its text is part of this one.
        source: postgres::OpenError,
    },
    /// The server has lost its database while it ran.
    #[error("{why}")]
    Lost {
        /// What happened.
        why: String,
    },
    /// The journal of the fake provider's world cannot be used.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A command needs a database, and there is none.
    #[error("there is no database {}", .path.display())]
    NoDatabase {
        /// The path that was tried.
        path: PathBuf,
    },
    /// There is no backup to restore.
    #[error("there is no backup {}", .path.display())]
    NoBackup {
        /// The path that was tried.
        path: PathBuf,
    },
    /// A backup does not verify.
    #[error("the backup {} is damaged: {problems} problem{}", .path.display(), if *.problems == 1 { "" } else { "s" })]
    DamagedBackup {
        /// The backup.
        path: PathBuf,
        /// How many were found.
        problems: usize,
    },
    /// The check of a database found problems.
    #[error("{} has {problems} problem{}", .path.display(), if *.problems == 1 { "" } else { "s" })]
    Damaged {
        /// The database.
        path: PathBuf,
        /// How many were found.
        problems: usize,
    },
    /// The audit is not as it was written.
    #[error("the audit of {} does not hold: {problem}", .path.display())]
    Audit {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The database was not repaired.
    #[error("{} is not repaired", .path.display())]
    NotRepaired {
        /// The database.
        path: PathBuf,
        /// Why not.
        source: RepairError,
    },
    /// The runs could not be recovered.
    #[error("cannot recover the runs")]
    Recovery(#[source] EngineError),
    /// The store cannot be used.
    #[error("cannot use the store")]
    Store(#[source] StoreError),
    /// A bug in the server, or an operating system without signals.
    #[error("{what}")]
    Internal {
        /// What failed.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// The exit code, from sysexits.h.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EX_CONFIG,
            Self::Listen { .. } => EX_UNAVAILABLE,
            Self::TokenKey(TokenKeyError::File { .. }) => EX_CANTCREAT,
            Self::TokenKey(TokenKeyError::Length { .. }) => EX_IOERR,
            Self::TokenKey(TokenKeyError::Random) => EX_SOFTWARE,
            Self::NoDatabase { .. } | Self::NoBackup { .. } => EX_NOINPUT,
            Self::NotRepaired { source: RepairError::Refused { .. }, .. } => EX_USAGE,
            Self::NotRepaired { .. } => EX_IOERR,
            Self::Database(OpenError::InUse { .. })
            | Self::Postgres {
                source: postgres::OpenError::InUse { .. } | postgres::OpenError::Postgres(_),
                ..
            }
            | Self::Lost { .. } => EX_TEMPFAIL,
            Self::Postgres { source: postgres::OpenError::Setting(_), .. } => EX_CONFIG,
            Self::Postgres { source: postgres::OpenError::Thread(_), .. } => EX_SOFTWARE,
            Self::Postgres {
                source: postgres::OpenError::NotOurs | postgres::OpenError::Damaged(_),
                ..
            } => EX_IOERR,
            Self::Postgres { source: postgres::OpenError::TooNew { .. }, .. }
            | Self::Database(OpenError::TooNew { .. })
            | Self::World(WorldError::Newer { .. }) => EX_DATAERR,
            Self::BackupFile { .. }
            | Self::CertificateFile { .. }
            | Self::Database(OpenError::Io { .. } | OpenError::Used { .. })
            | Self::World(WorldError::Io { .. }) => EX_CANTCREAT,
            Self::Database(
                OpenError::NotOurs { .. } | OpenError::Corrupt { .. } | OpenError::Sqlite { .. },
            )
            | Self::World(WorldError::Damaged { .. })
            | Self::Damaged { .. }
            | Self::DamagedBackup { .. }
            | Self::Audit { .. }
            | Self::NotABackup { .. }
            | Self::Recovery(EngineError::Store(_))
            | Self::Store(_) => EX_IOERR,
            Self::Recovery(_) | Self::Internal { .. } => EX_SOFTWARE,
        }
    }

    /// What to do about it, if the error does not say so already.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { address, option, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some(format!(
                    "another process listens on port {}; stop it, or give {option}",
                    address.port()
                ))
            }
            Self::Database(OpenError::InUse { .. }) => {
                Some("stop the other server, or give another directory with --data-dir DIR".into())
            }
            Self::BackupFile { source, .. }
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Some("give the name of a new file; existing files are not overwritten".into())
            }
            Self::CertificateFile { source, .. }
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Some("nothing was written: give a new directory, or remove the old files".into())
            }
            Self::BackupFile { .. } => {
                Some("give a new file in a directory that exists and has room".into())
            }
            Self::DamagedBackup { .. } => {
                Some("nothing was restored: give another backup".into())
            }
            Self::NotABackup { .. } | Self::NoBackup { .. } => {
                Some("give a file that `bmdemo-server backup` made, undamaged".into())
            }
            Self::Database(OpenError::Io { .. }) | Self::World(WorldError::Io { .. }) => {
                Some("give another directory with --data-dir DIR, or store nothing with --ephemeral".into())
            }
            Self::Database(OpenError::Used { .. }) => {
                Some("give a new directory with --data-dir DIR; existing databases are not overwritten".into())
            }
            Self::NoDatabase { .. } => {
                Some("a server creates it at its first start; give its directory with --data-dir DIR".into())
            }
            Self::Recovery(_) | Self::Store(_) => {
                Some("to see what is wrong with the database, run: bmdemo-server check".into())
            }
            Self::Damaged { .. } => {
                Some("stop the server; then `bmdemo-server repair` restores records from their history, and drops only those you name; or restore a backup".into())
            }
            Self::Audit { .. } => {
                Some("compare with copies elsewhere: backups, heads that were kept, the log of the server".into())
            }
            Self::Postgres { source: postgres::OpenError::Postgres(_), .. } => {
                Some("check that PostgreSQL runs and that its address, role and password are right: docs/postgresql.md".into())
            }
            Self::Lost { .. } => {
                Some("nothing that was acknowledged is lost; see which server has the database now".into())
            }
            Self::Config(_)
            | Self::Postgres { .. }
            | Self::CertificateFile { .. }
            | Self::Listen { .. }
            | Self::TokenKey(_)
            | Self::Database(_)
            | Self::World(_)
            | Self::NotRepaired { .. }
            | Self::Internal { .. } => None,
        }
    }

    /// Writes the error, its causes and the hint.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn report(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        writeln!(out, "Error: {self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            writeln!(out, "  because: {error}")?;
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            writeln!(out, "Hint: {hint}")?;
        }
        Ok(())
    }
}
