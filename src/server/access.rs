//! Who is let in, and how: what a reload replaces as a whole, for new connections and for open ones.

use std::sync::Arc;

use tokio::sync::watch;

use super::checks::HostNames;
use super::config::{Config, ConfigError, JwtSettings};
use super::identities::Identities;
use super::jwt::{KeySet, Verifier};
use super::tls::Tls;
use super::tokens::Tokens;
use crate::clock::Clock;

/// The settings of access, with the files that they name.
#[derive(Debug)]
pub(super) struct Access {
    /// Whether callers have to say who they are, and prove it.
    pub(super) authenticates: bool,
    /// Who may call.
    pub(super) identities: Arc<Identities>,
    /// Static tokens.
    pub(super) tokens: Tokens,
    /// What verifies the tokens of an issuer, if one is trusted.
    pub(super) jwt: Option<Verifier>,
    /// TLS; `None` for plain connections.
    pub(super) tls: Option<Tls>,
    /// Names by which requests may call the server.
    pub(super) host_names: Arc<HostNames>,
}

/// Access as it is now, wherever it is needed.
pub(super) type Present = watch::Receiver<Arc<Access>>;

impl Access {
    /// Reads the files that a configuration names. Blocks the calling thread.
    ///
    /// # Errors
    /// [`ConfigError`] for whatever cannot be used.
    pub(super) fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let identities = Arc::new(Identities::new(&config.principals)?);
        let takes_tokens = config.auth.takes_tokens();
        let tokens = match &config.auth.tokens_file {
            Some(path) => Tokens::load(path, |name| identities.named(name))?,
            None => Tokens::default(),
        };
        let jwt = match &config.auth.jwt {
            Some(JwtSettings { jwks_file, issuer, audience }) => {
                Some(Verifier::new(KeySet::load(jwks_file)?, issuer, audience))
            }
            None => None,
        };
        let tls = match &config.tls {
            Some(files) => Some(Tls::load(files, &identities, takes_tokens, clock)?),
            None => None,
        };
        let own = tls.iter().flat_map(|tls| &tls.host_names);
        let names: Vec<String> = config.host_names.iter().chain(own).cloned().collect();
        let authenticates = config.authenticates();
        Ok(Self {
            authenticates,
            identities,
            tokens,
            jwt,
            tls,
            host_names: Arc::new(HostNames::new(&names)),
        })
    }
}
