//! What the library says, in our words.

use std::io;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use super::refusal::{CertificateRefusal, HandshakeRefusal};

#[test]
fn each_kind_of_failure_has_its_own_words() {
    let of = |error: rustls::Error| HandshakeRefusal::new(&io::Error::other(error));
    let refusal = CertificateRefusal::UnknownName("bmdemo://x\u{1b}".to_owned());
    let wrapped = CertificateError::Other(OtherError(Arc::new(refusal)));
    assert_eq!(
        of(wrapped.into()).to_string(),
        "the certificate of the client is refused: its identity \"bmdemo://x\\u{1b}\" is not one of a principal"
    );
    assert_eq!(of(rustls::Error::NoCertificatesPresented), HandshakeRefusal::NoCertificate);
    assert_eq!(of(rustls::Error::NoApplicationProtocol), HandshakeRefusal::NoHttp);
    let alert = rustls::AlertDescription::UnknownCA;
    let refused = of(rustls::Error::AlertReceived(alert));
    assert_eq!(refused, HandshakeRefusal::Refused("UnknownCA".to_owned()));
    assert_eq!(of(rustls::Error::HandshakeNotComplete).to_string().split(':').count(), 2);
    assert_eq!(HandshakeRefusal::new(&io::ErrorKind::UnexpectedEof.into()), HandshakeRefusal::Left);
}
