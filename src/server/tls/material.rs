//! What the files of TLS hold, read and checked.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig, version};

use super::judge::Judge;
use super::naming;
use crate::clock::{Clock, Timestamp};
use crate::files;
use crate::server::config::{ConfigError, TlsFiles};
use crate::server::identities::Identities;

/// Longest file of certificates, keys or revocations, in bytes: a list of revocations may be long.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most authorities of clients.
const AUTHORITIES_MAX: usize = 64;
/// What is spoken inside, the best first.
pub(super) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// A certificate that expires sooner is warned of.
const EXPIRES_SOON_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// TLS as it is now.
#[derive(Debug)]
pub(in crate::server) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// What judges the certificates of clients.
    pub(super) judge: Option<Arc<Judge>>,
    /// When the certificate of the server expires.
    pub(in crate::server) expires_at: Timestamp,
    /// When the first of the lists of revocations expires, if there are any.
    pub(in crate::server) revocations_expire_at: Option<Timestamp>,
    /// Names of hosts in the certificate of the server.
    pub(in crate::server) host_names: Vec<String>,
}

impl Tls {
    /// Reads the files. Blocks the calling thread. With `optional`, clients may do without a certificate.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be used, or that does not go with the others.
    pub(in crate::server) fn load(
        files: &TlsFiles,
        identities: &Arc<Identities>,
        optional: bool,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let chain = certificates("tls.cert_file", &files.cert)?;
        let key = key("tls.key_file", &files.key)?;
        let facts =
            naming::server(&chain[0]).map_err(|why| wrong("tls.cert_file", &files.cert, &why))?;
        let now = clock.now();
        if facts.expires_at <= now {
            return Err(wrong("tls.cert_file", &files.cert, "has expired"));
        }
        if facts.expires_at.0 - now.0 < EXPIRES_SOON_MS {
            tracing::warn!(
                file = %files.cert.display(),
                hours = (facts.expires_at.0 - now.0) / 3_600_000,
                "the certificate of the server expires soon"
            );
        }
        let revoked = match &files.crl {
            Some(path) => Some(Revoked::read(path, now)?),
            None => None,
        };
        let revocations_expire_at = revoked.as_ref().map(|revoked| revoked.expire_at);
        let provider = provider();
        let builder = ServerConfig::builder_with_details(provider.clone(), wall(clock))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| ConfigError::Setting(format!("TLS cannot be set up: {error}")))?;
        let judge = match &files.client_ca {
            Some(path) => Some(Arc::new(judge(path, revoked, identities, optional, &provider)?)),
            None => None,
        };
        let builder = match &judge {
            Some(judge) => builder.with_client_cert_verifier(judge.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let why = match matches!(error, rustls::Error::InconsistentKeys(_)) {
                true => format!("is not the key of {}", files.cert.display()),
                false => format!("cannot be used: {error}"),
            };
            wrong("tls.key_file", &files.key, &why)
        })?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            judge,
            expires_at: facts.expires_at,
            revocations_expire_at,
            host_names: facts.host_names,
        })
    }
}

/// Verifies the certificates of clients against their authorities and revocations, then asks whose they are.
fn judge(
    authorities: &Path,
    revoked: Option<Revoked<'_>>,
    identities: &Arc<Identities>,
    optional: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Judge, ConfigError> {
    let setting = "tls.client_ca_file";
    let mut roots = RootCertStore::empty();
    let certificates = certificates(setting, authorities)?;
    if certificates.len() > AUTHORITIES_MAX {
        let why = format!("has more than {AUTHORITIES_MAX} certificates");
        return Err(wrong(setting, authorities, &why));
    }
    for certificate in certificates {
        naming::authority(&certificate).map_err(|why| wrong(setting, authorities, &why))?;
        roots.add(certificate).map_err(|error| {
            wrong(setting, authorities, &format!("has a certificate that cannot be used: {error}"))
        })?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let lists = revoked.as_ref().map(|revoked| revoked.path);
    if let Some(revoked) = revoked {
        builder = builder
            .with_crls(revoked.lists)
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    if optional {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder.build().map_err(|error| {
        let (setting, path) = match lists {
            Some(path) => ("tls.crl_file", path),
            None => (setting, authorities),
        };
        wrong(setting, path, &format!("cannot be used: {error}"))
    })?;
    Ok(Judge::new(inner, identities.clone()))
}

/// The cryptography, named here so that no feature of another crate chooses it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The clock of the server, for the library.
#[derive(Debug)]
struct Wall(Arc<dyn Clock>);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        let since = std::time::Duration::from_millis(self.0.now().0);
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn wall(clock: &Arc<dyn Clock>) -> Arc<dyn TimeProvider> {
    Arc::new(Wall(clock.clone()))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(|source| unreadable(path, source))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|error| wrong(setting, path, &format!("is no PEM file: {error}")))?;
    match read.is_empty() {
        true => Err(wrong(setting, path, "has no certificate in PEM form")),
        false => Ok(read),
    }
}

fn key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let bytes =
        files::read_secret(path, FILE_BYTES_MAX).map_err(|source| unreadable(path, source))?;
    // What is in it goes into no message.
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| wrong(setting, path, "has no private key in PEM form that is not encrypted"))
}

/// What authorities have revoked.
struct Revoked<'a> {
    path: &'a Path,
    lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them expires.
    expire_at: Timestamp,
}

impl<'a> Revoked<'a> {
    /// Reads the lists; one that has expired is refused, since what was revoked after it would be accepted.
    fn read(path: &'a Path, now: Timestamp) -> Result<Self, ConfigError> {
        let setting = "tls.crl_file";
        let bytes = files::read(path, FILE_BYTES_MAX).map_err(|source| unreadable(path, source))?;
        let read: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let lists =
            read.map_err(|error| wrong(setting, path, &format!("is no PEM file: {error}")))?;
        let mut expire_at = Timestamp(u64::MAX);
        for list in &lists {
            let at = naming::next_list(list).map_err(|why| wrong(setting, path, &why))?;
            expire_at = expire_at.min(at);
        }
        if lists.is_empty() {
            return Err(wrong(setting, path, "has no list of revocations in PEM form (X509 CRL)"));
        }
        if expire_at <= now {
            let why = "has a list of revocations that has expired: get the present one";
            return Err(wrong(setting, path, why));
        }
        Ok(Self { path, lists, expire_at })
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_owned(), source }
}

fn wrong(setting: &str, path: &Path, why: &str) -> ConfigError {
    ConfigError::Setting(format!("{setting}: {} {why}", path.display()))
}
