//! Authorities, certificates and files of a test, and clients that use them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Server, within};

/// Seconds of a day.
pub(crate) const DAY: i64 = 24 * 60 * 60;

/// Someone who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    key: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Sets from when until when a certificate is valid, in seconds from now.
pub(crate) fn valid(params: &mut CertificateParams, from_s: i64, until_s: i64) {
    let now = i64::try_from(SystemClock::new().now().0 / 1000).unwrap();
    let after = |seconds: i64| Duration::from_secs(u64::try_from(now + seconds).unwrap());
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + after(from_s);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + after(until_s);
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    valid(&mut params, -3600, DAY);
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut authority = params();
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        authority.extended_key_usages = vec![];
        let key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&key).unwrap().pem();
        let secret = key.serialize_pem();
        Self { issuer: Issuer::new(authority, key), pem, key: secret }
    }

    /// Its own certificate, as if it were that of a client.
    pub(crate) fn own(&self) -> Pair {
        Pair { cert: self.pem.clone(), key: self.key.clone() }
    }

    fn signed(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// A server's, for localhost.
    pub(crate) fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = params();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ];
        change(&mut params);
        self.signed(&params)
    }

    /// A client's, which is `bmdemo://ann` unless it is changed.
    pub(crate) fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = params();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri("bmdemo://ann")];
        change(&mut params);
        self.signed(&params)
    }

    /// The list of the certificates that it has revoked, by their serial numbers.
    pub(crate) fn revoked(&self, serials: &[u64]) -> String {
        let valid = params();
        let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: valid.not_before,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: valid.not_before,
            next_update: valid.not_after,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// The files of a server and of its clients.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Lab {
    /// An authority, a certificate of the server, and a configuration that wants certificates of clients: `ann`, `bob`
    /// and those whom `more` adds.
    pub(crate) fn new(more: &str) -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap(), authority: Authority::new("lab") };
        lab.put("ca.pem", &lab.authority.pem);
        lab.put("crl.pem", &lab.authority.revoked(&[666]));
        lab.pair("server", &lab.authority.server(|_| ()));
        lab.pair("ann", &lab.authority.client(|_| ()));
        lab.configure(&format!(
            "[principals.ann]\nrole = \"admin\"\n[principals.bob]\nrole = \"viewer\"\n{more}"
        ));
        lab
    }

    /// Writes the configuration of the server, with its TLS.
    pub(crate) fn configure(&self, rest: &str) {
        let dir = self.dir.path().display();
        self.put(
            "bmdemo.toml",
            &format!(
                "[tls]\ncert_file = \"{dir}/server.pem\"\nkey_file = \"{dir}/server-key.pem\"\n\
                 client_ca_file = \"{dir}/ca.pem\"\ncrl_file = \"{dir}/crl.pem\"\n{rest}\n"
            ),
        );
    }

    /// The path of a file.
    pub(crate) fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn put(&self, name: &str, text: &str) {
        write(&self.dir.path().join(name), text);
    }

    /// Writes a certificate and its key.
    pub(crate) fn pair(&self, name: &str, pair: &Pair) {
        self.put(&format!("{name}.pem"), &pair.cert);
        self.put(&format!("{name}-key.pem"), &pair.key);
    }

    /// A server with the configuration.
    pub(crate) async fn server(&self, args: &[&str]) -> Server {
        let config = self.at("bmdemo.toml");
        Server::ephemeral(&[&["--config", &config], args].concat()).await
    }

    /// The client, with the certificate `name` if it is not empty.
    pub(crate) async fn cli(&self, server: &Server, name: &str, args: &[&str]) -> Output {
        let address = format!("https://{}", server.address);
        let mut all = vec!["--server", &address];
        let ca = self.at("ca.pem");
        let (cert, key) = (self.at(&format!("{name}.pem")), self.at(&format!("{name}-key.pem")));
        all.extend(["--ca-file", &ca]);
        if !name.is_empty() {
            all.extend(["--cert-file", &cert, "--key-file", &key]);
        }
        all.extend(args);
        self.run(&all, &[]).await
    }

    /// The client with these arguments and this environment, and no other.
    pub(crate) async fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .env("HOME", self.dir.path())
            .kill_on_drop(true)
            .output();
        within("the client ends", output).await.unwrap()
    }

    /// Settings of a client in this process.
    pub(crate) fn config(
        &self,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// A handshake with a server.
pub(crate) async fn secured(
    server: &Server,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    within("a handshake", connector.connect(name, server.raw().await)).await
}

/// A channel over TLS that connects once.
pub(crate) async fn channel(server: &Server, config: ClientConfig) -> Channel {
    let mut stream = Some(TokioIo::new(secured(server, config).await.unwrap()));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("one connection only"));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// Writes a file as a whole that only its owner may read.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, path).unwrap();
}
