//! `token new`: a token for a principal, printed once; its hash is added to the file of tokens.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::config::{Config, ConfigError};
use super::error::StartError;
use super::identities::Identities;
use super::tokens::{self, Tokens};
use crate::clock::{Clock, Timestamp};
use crate::files;

/// Makes a token for the principal `name` and prints it.
///
/// # Errors
/// [`StartError`] without a file of tokens or a principal of this name, and for a file that cannot be used.
pub(super) fn new(
    config: &Config,
    name: &str,
    expires_in: Option<Duration>,
    clock: &dyn Clock,
    out: &mut dyn std::io::Write,
) -> Result<(), StartError> {
    let setting = |why: String| StartError::Config(ConfigError::Setting(why));
    let path = config.auth.tokens_file.as_deref().ok_or_else(|| {
        setting(
            "auth.tokens_file is not set: add it to the configuration, and give that with --config FILE"
                .to_owned(),
        )
    })?;
    let identities = Identities::new(&config.principals)?;
    if identities.named(name).is_none() {
        return Err(setting(format!(
            "{name:?} is not a principal: add [principals.NAME] to the configuration"
        )));
    }
    // A file that the server would refuse is not added to.
    if path.symlink_metadata().is_ok()
        && Tokens::load(path, |name| identities.named(name))?.is_full()
    {
        let path = path.display();
        return Err(setting(format!("{path} is full: remove the tokens that have expired")));
    }
    let token = tokens::generate().map_err(|error| StartError::Internal {
        what: "the operating system has no randomness",
        source: error.to_string().into(),
    })?;
    let hash = tokens::hash(&token).ok_or_else(|| StartError::Internal {
        what: "a new token is damaged",
        source: "this is a bug".into(),
    })?;
    let now = clock.now();
    let expires_at = expires_in.map(|time| {
        Timestamp(now.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    });
    add(path, &tokens::entry(&hash, name, now, expires_at))
        .map_err(|source| StartError::CertificateFile { path: path.to_owned(), source })?;
    writeln!(out, "{token}").and_then(|()| out.flush()).map_err(|error| StartError::Internal {
        what: "cannot print the token, which is lost: remove its entry from auth.tokens_file",
        source: error.into(),
    })
}

/// Adds an entry at the end of the file, which is created for its owner alone.
fn add(path: &Path, entry: &str) -> std::io::Result<()> {
    if path.symlink_metadata().is_err() {
        files::create_secret(path)?;
    }
    let mut file = files::open_own(OpenOptions::new().append(true), path)?;
    file.write_all(entry.as_bytes())?;
    file.sync_all()
}
