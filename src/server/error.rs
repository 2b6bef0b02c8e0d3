//! Why the server did not start, for the person who started it, and the exit codes that say so to programs.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::ConfigError;
use crate::executor::EngineError;
use crate::store::StoreError;

/// Why the server did not start, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory cannot be made.
    #[error("cannot create {}", .path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Runs could not be taken up.
    #[error("cannot recover the runs")]
    Recovery(#[source] EngineError),
    /// The store cannot be used.
    #[error("cannot use the store")]
    Store(#[source] StoreError),
    /// A bug of ours, or an operating system without signals.
    #[error("{what}")]
    Internal {
        /// What does not work.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// The exit code, out of those of sysexits.h: 69 cannot listen, 70 a bug of ours, 73 cannot create a file, 74 the
    /// store is damaged or cannot be read, 78 the configuration is refused.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Listen { .. } => 69,
            Self::Create { .. } => 73,
            Self::Recovery(EngineError::Store(_)) | Self::Store(_) => 74,
            Self::Recovery(_) | Self::Internal { .. } => 70,
        }
    }

    /// What to do about it, if there is something to say.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { address, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some(format!(
                    "another process listens on port {}; stop it, or give --port N (0 takes a free one)",
                    address.port()
                ))
            }
            Self::Create { .. } => Some(
                "give another place with --data-dir DIR, or keep nothing with --ephemeral".into(),
            ),
            Self::Recovery(_) | Self::Store(_) => {
                Some("bmdemo-server check says what is wrong with the database".into())
            }
            Self::Config(_) | Self::Listen { .. } | Self::Internal { .. } => None,
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
