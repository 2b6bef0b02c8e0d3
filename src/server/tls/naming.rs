//! What certificates say: the identity of a client, the names and the end of a server's.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::refusal::CertificateRefusal;
use crate::clock::Timestamp;

/// What of a server's certificate matters here.
pub(super) struct ServerFacts {
    pub(super) expires_at: Timestamp,
    pub(super) host_names: Vec<String>,
}

/// Reads the certificate of a server.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn server(certificate: &CertificateDer<'_>) -> Result<ServerFacts, String> {
    let parsed = parse(certificate)?;
    let host_names = alternatives(&parsed)?
        .into_iter()
        .filter_map(|name| {
            let GeneralName::DNSName(name) = name else { return None };
            Some((*name).to_owned())
        })
        .collect();
    Ok(ServerFacts { expires_at: expiry(&parsed), host_names })
}

/// Refuses a certificate that may sign no others.
///
/// # Errors
/// What is wrong.
pub(super) fn authority(certificate: &CertificateDer<'_>) -> Result<(), String> {
    match parse(certificate)?.is_ca() {
        true => Ok(()),
        false => Err("has a certificate that is not one of an authority (CA:TRUE)".to_owned()),
    }
}

/// The identity in a client's certificate, and when it expires: its only URI, or without one its only common name,
/// written `CN=…`.
///
/// # Errors
/// [`CertificateRefusal`] if it names no one, or several.
pub(super) fn client(
    certificate: &CertificateDer<'_>,
) -> Result<(String, Timestamp), CertificateRefusal> {
    let parsed = parse(certificate).map_err(CertificateRefusal::Other)?;
    let names = alternatives(&parsed).map_err(CertificateRefusal::Other)?;
    let uris: Vec<&str> = names
        .into_iter()
        .filter_map(|name| {
            let GeneralName::URI(uri) = name else { return None };
            Some(*uri)
        })
        .collect();
    let identity = match uris[..] {
        [uri] => uri.to_owned(),
        [] => {
            let mut common = parsed.subject().iter_common_name();
            match (common.next().and_then(|name| name.as_str().ok()), common.next()) {
                (Some(name), None) if !name.is_empty() => format!("CN={name}"),
                (_, Some(_)) => return Err(CertificateRefusal::SeveralNames),
                (_, None) => return Err(CertificateRefusal::NoName),
            }
        }
        _ => return Err(CertificateRefusal::SeveralNames),
    };
    Ok((identity, expiry(&parsed)))
}

/// When the next list of revocations is due; after that this one says nothing (RFC 5280 section 5.1.2.5).
///
/// # Errors
/// What is wrong.
pub(super) fn next_list(list: &CertificateRevocationListDer<'_>) -> Result<Timestamp, String> {
    let Ok(([], parsed)) = CertificateRevocationList::from_der(list) else {
        return Err("has a list of revocations that cannot be read".to_owned());
    };
    match parsed.next_update() {
        Some(at) => Ok(timestamp(at)),
        None => Err("has a list of revocations that does not say until when it holds".to_owned()),
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) | Err(_) => Err("has a certificate that cannot be read".to_owned()),
    }
}

fn alternatives<'a>(parsed: &'a X509Certificate<'_>) -> Result<Vec<&'a GeneralName<'a>>, String> {
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| "has a certificate whose names cannot be read".to_owned())?;
    Ok(names.map(|names| names.value.general_names.iter().collect()).unwrap_or_default())
}

fn expiry(parsed: &X509Certificate<'_>) -> Timestamp {
    timestamp(parsed.validity().not_after)
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}
