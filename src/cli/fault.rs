//! Why client and server do not go together, in words.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// What is wrong with a connection, where client and server do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client speaks TLS, the server does not.
    ServerIsPlain,
    /// The server speaks TLS, the client does not.
    ServerSpeaksTls,
    /// Something else than HTTP/2 answers.
    Foreign,
    /// The certificate of the server is not one that the client trusts.
    ServerUntrusted(String),
    /// The server refused the certificate of the client.
    ClientRefused,
    /// The server wants a certificate of the client.
    ClientUnknown,
    /// A file cannot be used; why.
    Files(String),
    /// Anything else in the handshake.
    Handshake(String),
}

impl Fault {
    /// A sentence about the server at `address`.
    pub(crate) fn message(&self, address: &str) -> String {
        match self {
            Self::ServerIsPlain => format!("the server at {address} does not speak TLS"),
            Self::ServerSpeaksTls => {
                format!("the server at {address} speaks TLS only, and the address says http")
            }
            Self::Foreign => format!("what answers at {address} does not speak HTTP/2"),
            Self::ServerUntrusted(why) => {
                format!("the certificate of the server at {address} is not trusted: {why}")
            }
            Self::ClientRefused => {
                format!("the server at {address} refused the certificate of this client")
            }
            Self::ClientUnknown => {
                format!(
                    "the server at {address} wants a certificate of the client, and none is given"
                )
            }
            Self::Files(why) => why.clone(),
            Self::Handshake(why) => format!("TLS with the server at {address} failed: {why}"),
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self, address: &str) -> Option<String> {
        let other = |from: &str, to: &str| address.replacen(from, to, 1);
        match self {
            Self::ServerIsPlain => Some(format!(
                "give {}, or set up TLS in the configuration of the server ([tls])",
                other("https://", "http://")
            )),
            Self::ServerSpeaksTls => {
                Some(format!("give {} and --ca-file FILE", other("http://", "https://")))
            }
            Self::Foreign => Some(
                "something else answers at this address, perhaps the metrics of the server: give the address of its API"
                    .to_owned(),
            ),
            Self::ServerUntrusted(_) => Some(
                "give the authority that signed it with --ca-file FILE, and call the server by a name in its certificate"
                    .to_owned(),
            ),
            Self::ClientRefused => Some(
                "the log of the server says why; give another one with --cert-file and --key-file"
                    .to_owned(),
            ),
            Self::ClientUnknown => Some("give --cert-file FILE and --key-file FILE".to_owned()),
            Self::Files(_) | Self::Handshake(_) => None,
        }
    }

    /// Whether it is about who the client is.
    pub(crate) fn is_about_client(&self) -> bool {
        matches!(self, Self::ClientRefused | Self::ClientUnknown)
    }

    /// The fault among the causes of an error.
    pub(crate) fn among_causes(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |error| (**error).source())
            .filter_map(|error| error.downcast_ref::<io::Error>()?.get_ref())
            .find_map(|error| error.downcast_ref::<Broken>().map(|Broken(fault)| fault.clone()))
    }

    /// What a failed handshake means.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        let found = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
        let Some(error) = found else {
            // A server that expects HTTP/2 closes the connection at once.
            let is_closed = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset]
                .contains(&error.kind());
            return if is_closed {
                Self::ServerIsPlain
            } else {
                Self::Handshake(error.to_string())
            };
        };
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return Self::ServerIsPlain;
        }
        if let rustls::Error::InvalidCertificate(why) = error {
            let is_stranger = *why == CertificateError::UnknownIssuer;
            return Self::ServerUntrusted(match is_stranger {
                true => "none of the given authorities has signed it".to_owned(),
                false => why.to_string(),
            });
        }
        Self::of_alert(error).unwrap_or_else(|| Self::Handshake(error.to_string()))
    }

    /// What an alert of the server means.
    pub(crate) fn of_alert(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::AlertReceived(alert) = error else { return None };
        Some(if *alert == AlertDescription::CertificateRequired {
            Self::ClientUnknown
        } else if is_about_certificate(*alert) {
            Self::ClientRefused
        } else {
            Self::Handshake(format!("the server answered {alert:?}"))
        })
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    [
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
    ]
    .contains(&alert)
}

/// A fault as the cause of an error of the network.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message("this address"))]
struct Broken(Fault);

/// The error of a connection with this fault.
pub(crate) fn broken(fault: Fault) -> io::Error {
    io::Error::other(Broken(fault))
}
