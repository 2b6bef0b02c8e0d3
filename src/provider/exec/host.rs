//! The server that a driver belongs to.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::supervisor::Supervisors;
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::provider::boot::Desk;

/// What a driver needs of the server that it belongs to.
#[derive(Debug, Clone)]
pub struct Host {
    /// Folder for the inputs of programs; each class has its own in it.
    pub folder: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Knows every program that runs.
    pub supervisors: Supervisors,
    /// Where machines report that it installs, if there is such a place.
    pub desk: Option<Arc<Desk>>,
    /// Secrets.
    pub credentials: Credentials,
    /// Environment of every program: PATH and LANG.
    pub variables: Vec<(&'static str, OsString)>,
}
