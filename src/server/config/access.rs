//! The settings of access: TLS, and who may call.

use std::path::PathBuf;

use super::args::Args;
use super::choice::RoleName;
use super::file;

/// The files that TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct TlsFiles {
    /// Certificate of the server, with the intermediate ones after it, in PEM.
    pub(in crate::server) cert: PathBuf,
    /// Its private key.
    pub(in crate::server) key: PathBuf,
    /// Authorities that sign the certificates of clients; `None` if clients have none.
    pub(in crate::server) client_ca: Option<PathBuf>,
    /// Certificates of clients that their authorities have revoked.
    pub(in crate::server) crl: Option<PathBuf>,
}

/// A principal as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct PrincipalSettings {
    /// What it may do.
    pub(in crate::server) role: RoleName,
    /// The only machines that it may see and touch, as a label selector.
    pub(in crate::server) scope: Option<String>,
    /// Identities in certificates, besides `bmdemo://NAME`: URIs, or `CN=…`.
    pub(in crate::server) certificates: Vec<String>,
    /// Subjects in the tokens of the issuer.
    pub(in crate::server) subjects: Vec<String>,
}

/// What else than a certificate proves who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct AuthSettings {
    /// Hashes of static tokens.
    pub(in crate::server) tokens_file: Option<PathBuf>,
    /// An issuer of tokens.
    pub(in crate::server) jwt: Option<JwtSettings>,
}

impl AuthSettings {
    /// Whether callers may prove who they are by a token.
    pub(in crate::server) const fn takes_tokens(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some()
    }
}

/// An issuer of tokens, and for whom they have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct JwtSettings {
    /// Its keys.
    pub(in crate::server) jwks_file: PathBuf,
    /// Its name in tokens.
    pub(in crate::server) issuer: String,
    /// Our name in tokens.
    pub(in crate::server) audience: String,
}

/// What else than a certificate proves who calls.
pub(super) fn auth(file: file::Auth) -> AuthSettings {
    let jwt = file.jwt.map(|file::Jwt { jwks_file, issuer, audience }| JwtSettings {
        jwks_file,
        issuer,
        audience,
    });
    AuthSettings { tokens_file: file.tokens_file, jwt }
}

/// The files of TLS. A certificate and its key come together, and the rest makes no sense without them.
pub(super) fn tls(args: &Args, file: &file::Tls) -> Result<Option<TlsFiles>, String> {
    let given = |flag: &Option<PathBuf>, key: &Option<PathBuf>| flag.clone().or(key.clone());
    let cert = given(&args.tls_cert_file, &file.cert_file);
    let key = given(&args.tls_key_file, &file.key_file);
    let client_ca = given(&args.tls_client_ca_file, &file.client_ca_file);
    let crl = given(&args.tls_crl_file, &file.crl_file);
    if crl.is_some() && client_ca.is_none() {
        let why =
            "tls.crl_file is set without tls.client_ca_file: give the authorities of clients too";
        return Err(why.into());
    }
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key, client_ca, crl })),
        (None, None) if client_ca.is_none() => Ok(None),
        (cert, _) => {
            let missing = if cert.is_none() { "tls.cert_file" } else { "tls.key_file" };
            Err(format!("{missing} is not set: TLS needs tls.cert_file and tls.key_file"))
        }
    }
}
