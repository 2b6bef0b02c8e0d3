//! Whose certificate is believed, over real handshakes.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A certificate with its key, and the certificate of its authority.
struct Certified {
    authority: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// A certificate that is its own authority, as tools make them that are asked for a self-signed one.
fn own_authority(name: &str) -> Certified {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Certified { authority: certificate.pem(), certificate: certificate.der().clone(), key }
}

fn certified(names: &[&str], years: (i32, i32)) -> Certified {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let name = Fingerprint::of(&key.serialize_der()).to_string();
    params.distinguished_name.push(DnType::CommonName, name);
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    Certified { authority: authority.pem(), certificate: certificate.der().clone(), key }
}

/// Answers one request on each connection.
#[derive(Debug, Clone)]
struct Secured(Arc<ServerConfig>);

impl Dial for Secured {
    fn dial<'a>(&'a self, _: &'a Origin) -> Fut<'a, Result<Box<dyn Stream>, CallError>> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let acceptor = TlsAcceptor::from(self.0.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(theirs).await else { return };
                let mut head = [0; 4096];
                if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    drop(stream.write_all(answer).await);
                }
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

fn server(of: &Certified, versions: &[&'static rustls::SupportedProtocolVersion]) -> Secured {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(of.key.serialize_der()).unwrap();
    let settings = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![of.certificate.clone()], key)
        .unwrap();
    Secured(Arc::new(settings))
}

async fn call(dial: Secured, trust: Trust) -> Result<Answer, CallError> {
    let clock = Arc::new(TokioClock::new(Timestamp(0)));
    let (origin, _) = Origin::parse("https://bmc.example").unwrap();
    let channel = Channel::new(origin, trust, Arc::new(dial), clock);
    channel.call(&Call::new(Method::GET, "/", Limits::default())).await
}

#[tokio::test]
async fn only_the_right_certificate_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let good = certified(&["bmc.example"], (2020, 2100));
    let other = certified(&["bmc.example"], (2020, 2100));
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ours = Trust::Authorities(write("ours.pem", &good.authority));
    let theirs = Trust::Authorities(write("theirs.pem", &other.authority));
    let both = [&rustls::version::TLS13, &rustls::version::TLS12];
    let old = [&rustls::version::TLS12];
    assert_eq!(call(server(&good, &both), ours.clone()).await.unwrap().body, b"ok");
    assert_eq!(call(server(&good, &old), ours.clone()).await.unwrap().body, b"ok");

    let refused = async |of: &Certified, trust: &Trust| {
        let error = call(server(of, &both), trust.clone()).await.unwrap_err();
        assert_eq!((error.kind, error.may_be_sent), (CallErrorKind::Tls, false));
        error.message
    };
    let message = refused(&good, &theirs).await;
    assert!(
        message.contains("pin the certificate (") && message.contains("UnknownIssuer"),
        "{message}"
    );
    let own = own_authority("bmc.example");
    let of_own = Trust::Authorities(write("own.pem", &own.authority));
    assert!(refused(&own, &of_own).await.contains("only a pin makes believed ("));
    let pinned = Trust::Pinned(Fingerprint::of(&own.certificate));
    assert_eq!(call(server(&own, &both), pinned).await.unwrap().body, b"ok");
    let named = certified(&["other.example"], (2020, 2100));
    let of_named = Trust::Authorities(write("named.pem", &named.authority));
    assert!(refused(&named, &of_named).await.contains("not valid for name"));
    let past = certified(&["bmc.example"], (2001, 2002));
    let of_past = Trust::Authorities(write("past.pem", &past.authority));
    assert!(refused(&past, &of_past).await.contains("expired"));

    // A pinned certificate may have any name, date and issuer.
    let pinned = Trust::Pinned(Fingerprint::of(&past.certificate));
    assert_eq!(call(server(&past, &both), pinned.clone()).await.unwrap().body, b"ok");
    assert_eq!(call(server(&past, &old), pinned.clone()).await.unwrap().body, b"ok");
    let message = refused(&good, &pinned).await;
    assert!(message.contains(&Fingerprint::of(&good.certificate).to_string()), "{message}");
    assert_eq!(call(server(&named, &both), Trust::Anyone).await.unwrap().body, b"ok");

    // A file that is replaced counts from the next connection.
    let rotated = write("rotated.pem", &other.authority);
    let trust = Trust::Authorities(rotated.clone());
    let clock = Arc::new(TokioClock::new(Timestamp(0)));
    let (origin, _) = Origin::parse("https://bmc.example").unwrap();
    let channel = Channel::new(origin, trust, Arc::new(server(&good, &both)), clock);
    let get = Call::new(Method::GET, "/", Limits::default());
    assert!(channel.call(&get).await.is_err());
    std::fs::write(&rotated, format!("{}{}", other.authority, good.authority)).unwrap();
    assert_eq!(channel.call(&get).await.unwrap().body, b"ok");
}

#[test]
fn a_wrong_file_is_found_before_the_first_call() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Trust::Authorities(path).check().unwrap_err().to_string()
    };
    assert!(wrong("empty.pem", "").ends_with("has no certificate"));
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(wrong("bad.pem", bad).contains("has a bad certificate"));
    let absent = Trust::Authorities(dir.path().join("absent.pem")).check().unwrap_err();
    assert!(absent.to_string().contains("cannot be read"), "{absent}");
}
