//! How a database is reached.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::clock::Clock;

/// Where the server of a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The directory of a Unix socket, and the port that its name has.
    Unix(PathBuf, u16),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(dir, port) => write!(f, "{}:{port}", dir.display()),
        }
    }
}

/// How to reach a database, and how to use it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The server.
    pub host: Host,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The password of the role, if the server asks for one.
    pub password: Option<Zeroizing<String>>,
    /// TLS; `None` for a plain connection.
    pub tls: Option<Arc<ClientConfig>>,
    /// Time of commits, and what the store waits on.
    pub clock: Arc<dyn Clock>,
    /// Accept a database that does not flush at every transaction. For tests only: a power cut loses commits.
    pub unsafe_no_flush_for_tests: bool,
}

impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.database)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("host", &self.host)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("password", &self.password.is_some())
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
