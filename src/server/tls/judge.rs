//! Judges the certificates of clients: the library verifies them, and the configuration says whose they are.
//!
//! A client learns nothing but that it was refused; why goes to the log of the server.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};

use super::naming;
use super::refusal::CertificateRefusal;
use crate::clock::Timestamp;
use crate::server::identities::{Identities, Principal};

/// Verifies the certificates of clients.
#[derive(Debug)]
pub(super) struct Judge {
    inner: Arc<dyn ClientCertVerifier>,
    identities: Arc<Identities>,
}

impl Judge {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, identities: Arc<Identities>) -> Self {
        Self { inner, identities }
    }

    /// Whose certificate it is, and when it expires.
    pub(super) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(Arc<Principal>, Timestamp), CertificateRefusal> {
        self.inner
            .verify_client_cert(certificate, intermediates, now)
            .map_err(|error| CertificateRefusal::new(&error))?;
        let (identity, expires_at) = naming::client(certificate)?;
        // The library accepts the second in which it ends, too.
        if now.as_secs().saturating_mul(1000) >= expires_at.0 {
            return Err(CertificateRefusal::Expired);
        }
        match self.identities.of_certificate(&identity) {
            Some(principal) => Ok((principal, expires_at)),
            None => Err(CertificateRefusal::UnknownName(identity)),
        }
    }
}

impl ClientCertVerifier for Judge {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(certificate, intermediates, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(|refusal| CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
