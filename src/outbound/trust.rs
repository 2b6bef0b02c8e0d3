//! Whose certificate is believed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

use crate::files;

/// Largest file of certificates, in bytes: those of systems have a few hundred KB.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where systems keep the certificates of public authorities.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads 64 hexadecimal digits, with or without colons between bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let has_colons = text.contains(':');
        if has_colons && !text.split(':').all(|byte| byte.len() == 2) {
            return None;
        }
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// That of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose certificate is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// One issued by the authorities in a file of PEM certificates.
    Authorities(PathBuf),
    /// One issued by the public authorities that the system knows.
    System,
    /// Exactly this one, whatever name and dates it has.
    Pinned(Fingerprint),
    /// Any: the answering server is believed.
    Anyone,
}

/// Why TLS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A file of certificates.
    #[error("{} {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No file of the system.
    #[error("this system has no file of certificate authorities: give one")]
    NoSystemFile,
    /// A bug.
    #[error("TLS cannot be set up: {0}")]
    Internal(String),
}

/// Settings of TLS made from a [`Trust`]; a file of authorities that changes is read again.
#[derive(Debug, Default)]
pub(super) struct Settings(Mutex<Option<(Stamp, Arc<ClientConfig>)>>);

/// When a file was changed, and its size: both differ after almost every replacement.
type Stamp = Option<(std::time::SystemTime, u64)>;

impl Settings {
    pub(super) fn get(&self, trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
        let file = match trust {
            Trust::Authorities(path) => Some(path.clone()),
            Trust::System => Some(system_file()?),
            Trust::Pinned(_) | Trust::Anyone => None,
        };
        let stamp = file.as_deref().and_then(stamp);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, settings)) = &*kept
            && *of == stamp
        {
            return Ok(settings.clone());
        }
        let settings = Arc::new(made(trust, file.as_deref())?);
        *kept = Some((stamp, settings.clone()));
        Ok(settings)
    }
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn system_file() -> Result<PathBuf, TrustError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_FILES.iter().map(PathBuf::from);
    named.into_iter().chain(known).find(|path| path.is_file()).ok_or(TrustError::NoSystemFile)
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<RootCertStore, TrustError> {
    let wrong = |why: String| TrustError::File { path: path.to_owned(), why };
    let bytes = files::read(path, CA_BYTES_MAX)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate =
            certificate.map_err(|error| wrong(format!("is not a PEM file: {error:?}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("has a bad certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("has no certificate".to_owned()));
    }
    Ok(roots)
}

impl Trust {
    /// Reads what it names, so that a mistake is found before the first call.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn check(&self) -> Result<(), TrustError> {
        Settings::default().get(self).map(drop)
    }

    /// Settings of TLS for a protocol other than HTTP.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let mut settings = ClientConfig::clone(&*Settings::default().get(self)?);
        settings.alpn_protocols.clear();
        Ok(settings)
    }
}

fn made(trust: &Trust, file: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let internal = |error: &dyn fmt::Display| TrustError::Internal(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|error| internal(&error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match (trust, file) {
        (Trust::Pinned(pinned), _) => Arc::new(Known { pinned: Some(*pinned), provider }),
        (Trust::Anyone, _) => Arc::new(Known { pinned: None, provider }),
        (Trust::Authorities(_) | Trust::System, Some(path)) => {
            let roots = Arc::new(authorities(path)?);
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| internal(&error))?
        }
        (Trust::Authorities(_) | Trust::System, None) => return Err(TrustError::NoSystemFile),
    };
    let mut settings =
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(settings)
}

/// Believes one certificate, or any. That the other side has the key of it is checked in both cases.
#[derive(Debug)]
struct Known {
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        match self.pinned {
            Some(pinned) if pinned != found => Err(rustls::Error::General(format!(
                "its certificate has the SHA-256 {found}, not the pinned {pinned}"
            ))),
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let print = Fingerprint::of(b"certificate");
        let plain = print.to_string();
        assert_eq!(Fingerprint::parse(&plain), Some(print));
        assert_eq!(Fingerprint::parse(&plain.to_uppercase()), Some(print));
        let pairs: Vec<&str> = (0..32).map(|at| &plain[2 * at..2 * at + 2]).collect();
        assert_eq!(Fingerprint::parse(&pairs.join(":")), Some(print));
        for text in [
            "",
            "ab",
            &plain[1..],
            &format!("{plain}0"),
            &plain.replace('a', "g"),
            &pairs.join("::"),
        ] {
            assert!(Fingerprint::parse(text).is_none() || text == plain, "{text}");
        }
    }
}
