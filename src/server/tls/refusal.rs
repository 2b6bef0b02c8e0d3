//! Why a handshake, or the certificate of a client, is refused.

use std::io;

use rustls::{CertificateError, PeerIncompatible};

use crate::text::escaped;

/// Why the certificate of a client is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateRefusal {
    /// No authority of ours has signed it.
    #[error("no authority in tls.client_ca_file has signed it")]
    UnknownIssuer,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It is not made for clients.
    #[error("it is not made for clients (extended key usage)")]
    WrongPurpose,
    /// Its authority has revoked it.
    #[error("its authority has revoked it (tls.crl_file)")]
    Revoked,
    /// No list says whether it is revoked.
    #[error("tls.crl_file has no list of its authority, so that it may be revoked")]
    RevocationUnknown,
    /// The list that would say whether it is revoked has expired.
    #[error("the list of its authority in tls.crl_file has expired, so that it may be revoked")]
    RevocationsExpired,
    /// It is that of an authority.
    #[error("it is the certificate of an authority, not of a client")]
    OfAuthority,
    /// It names no one.
    #[error("it has neither a URI nor a common name")]
    NoName,
    /// It has several names of the same kind.
    #[error("it has more than one identity")]
    SeveralNames,
    /// The configuration does not know its identity.
    #[error("its identity \"{}\" is not one of a principal", escaped(.0))]
    UnknownName(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl CertificateRefusal {
    /// Name of the kind.
    const fn kind(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "certificate_unknown_issuer",
            Self::Expired => "certificate_expired",
            Self::NotYetValid => "certificate_not_yet_valid",
            Self::WrongPurpose => "certificate_wrong_purpose",
            Self::Revoked => "certificate_revoked",
            Self::RevocationUnknown => "certificate_revocation_unknown",
            Self::RevocationsExpired => "certificate_revocations_expired",
            Self::OfAuthority => "certificate_of_authority",
            Self::NoName => "certificate_no_name",
            Self::SeveralNames => "certificate_several_names",
            Self::UnknownName(_) => "certificate_unknown_name",
            Self::Other(_) => "certificate_other",
        }
    }

    /// What the library found.
    pub(super) fn new(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self::Other(error.to_string());
        };
        // Some kinds have a variant that says more; their names begin alike.
        let kind = format!("{error:?}");
        for (begins, refusal) in [
            ("UnknownIssuer", Self::UnknownIssuer),
            ("ExpiredRevocationList", Self::RevocationsExpired),
            ("Expired", Self::Expired),
            ("NotValidYet", Self::NotYetValid),
            ("InvalidPurpose", Self::WrongPurpose),
            ("Revoked", Self::Revoked),
            ("UnknownRevocationStatus", Self::RevocationUnknown),
            ("Other(OtherError(CaUsedAsEndEntity", Self::OfAuthority),
        ] {
            if kind.starts_with(begins) {
                return refusal;
            }
        }
        Self::Other(error.to_string())
    }
}

/// Why a handshake is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeRefusal {
    /// It was not complete in time.
    #[error("the client did not complete the handshake in time")]
    Slow,
    /// It sent something else.
    #[error("the client does not speak TLS; with bmdemo-cli give https://HOST:PORT")]
    NotTls,
    /// It speaks an older version.
    #[error("the client does not speak TLS 1.3")]
    Version,
    /// It has no certificate.
    #[error("the client has no certificate")]
    NoCertificate,
    /// Its certificate is refused.
    #[error("the certificate of the client is refused: {0}")]
    Certificate(CertificateRefusal),
    /// It does not say that it speaks HTTP.
    #[error("the client does not say that it speaks HTTP/2 or HTTP/1.1 (ALPN)")]
    NoHttp,
    /// It refused us.
    #[error("the client refused the certificate of the server ({0})")]
    Refused(String),
    /// It went away.
    #[error("the client closed the connection during the handshake")]
    Left,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl HandshakeRefusal {
    /// Name in the metrics.
    pub(super) const fn cause(&self) -> &'static str {
        match self {
            Self::Slow => "tls_slow",
            Self::NotTls => "tls_not_tls",
            Self::Version => "tls_version",
            Self::NoCertificate => "tls_no_certificate",
            Self::Certificate(_) => "tls_certificate",
            Self::NoHttp => "tls_no_http",
            Self::Refused(_) => "tls_refused_by_client",
            Self::Left | Self::Other(_) => "tls_failed",
        }
    }

    /// Name of the kind, for a bound on what is logged of each.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Certificate(refusal) => refusal.kind(),
            Self::Slow
            | Self::NotTls
            | Self::Version
            | Self::NoCertificate
            | Self::NoHttp
            | Self::Refused(_)
            | Self::Left
            | Self::Other(_) => self.cause(),
        }
    }

    pub(super) fn new(error: &io::Error) -> Self {
        let found = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
        let Some(error) = found else {
            return Self::Left;
        };
        if let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error
            && let Some(refusal) = other.0.downcast_ref::<CertificateRefusal>()
        {
            return Self::Certificate(refusal.clone());
        }
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return Self::NotTls;
        }
        if let rustls::Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) = error
        {
            return Self::Version;
        }
        if matches!(error, rustls::Error::NoCertificatesPresented) {
            return Self::NoCertificate;
        }
        if matches!(error, rustls::Error::NoApplicationProtocol) {
            return Self::NoHttp;
        }
        if let rustls::Error::AlertReceived(alert) = error {
            return Self::Refused(format!("{alert:?}"));
        }
        Self::Other(format!("the handshake failed: {error}"))
    }
}
