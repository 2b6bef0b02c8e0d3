//! What a client shows to a server, and how it knows the server: files that are read at each connection.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, version};
use tonic::metadata::{Ascii, MetadataValue};

use super::error::Error;
use super::ui::within;
use crate::clock::Clock;
use crate::files;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;
/// Longest run of a command that prints a token.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Longest file of certificates or of a key, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the credentials of a client are. Nothing in here is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Authorities that sign the certificate of the server.
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate of the client.
    pub(crate) cert_file: Option<PathBuf>,
    /// Its private key.
    pub(crate) key_file: Option<PathBuf>,
    /// File with a token.
    pub(crate) token_file: Option<PathBuf>,
    /// Command that prints a token; one of a context.
    pub(crate) token_command: Option<String>,
}

impl Credentials {
    /// Whether the client has a token, or can get one.
    pub(crate) fn has_token(&self) -> bool {
        self.token_file.is_some() || self.token_command.is_some()
    }

    /// Whether new calls may be accepted where old ones were not: what the client shows can change.
    pub(crate) fn can_change(&self) -> bool {
        self.has_token() || self.cert_file.is_some()
    }

    /// The token as it is now, if there is one. It is in no argument, message or log.
    ///
    /// # Errors
    /// For a file that others can read, a command that fails, and a text that is no token.
    pub(crate) async fn token(
        &self,
        clock: &dyn Clock,
    ) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let (text, from) = match (&self.token_file, &self.token_command) {
            (Some(path), _) => {
                let text = files::read_secret_text(path, TOKEN_BYTES_MAX);
                (text.map_err(|error| unreadable(path, error))?, path.display().to_string())
            }
            (None, Some(command)) => {
                (printed(command, clock).await?, "the token_command of the context".to_owned())
            }
            (None, None) => return Ok(None),
        };
        let text = text.trim();
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = is_token.then(|| MetadataValue::try_from(format!("Bearer {text}")).ok());
        match value.flatten() {
            Some(mut value) => {
                value.set_sensitive(true);
                Ok(Some(value))
            }
            None => Err(Error::local(
                format!("{from} has no token"),
                "a token is one word without spaces, on a line of its own",
            )),
        }
    }

    /// Reads the files for one connection.
    ///
    /// # Errors
    /// For a file that is missing, or that cannot be used: it is named.
    pub(crate) fn read(&self) -> Result<Arc<ClientConfig>, Error> {
        let Some(ca_file) = &self.ca_file else {
            return Err(Error::usage(
                "the address begins with https, and no authority is given that signs the certificate of the server",
                "give --ca-file FILE, or ca_file in the context (bmdemo-cli context set --help)",
            ));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_file)? {
            roots.add(certificate).map_err(|error| unusable(ca_file, error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| Error::Answer(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots);
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let (chain, secret) = (certificates(cert)?, private_key(key)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    let is_other = matches!(error, rustls::Error::InconsistentKeys(_));
                    unusable(
                        key,
                        match is_other {
                            true => format!("it is not the key of {}", cert.display()),
                            false => error.to_string(),
                        },
                    )
                })?
            }
            (None, None) => builder.with_no_client_auth(),
            (cert, _) => {
                let missing = if cert.is_none() { "certificate" } else { "key" };
                return Err(Error::usage(
                    format!("the {missing} of the client is not given"),
                    "give --cert-file FILE and --key-file FILE together",
                ));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection shows the certificate as it is now.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// What a command prints.
async fn printed(command: &str, clock: &dyn Clock) -> Result<String, Error> {
    let failed = |why: String| Error::Local {
        message: "the token_command of the context failed".to_owned(),
        hint: Some("run it by hand; it has to print the token, and nothing else".to_owned()),
        source: Some(why.into()),
    };
    let mut run = tokio::process::Command::new("sh");
    run.args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = within(clock, COMMAND_LIMIT, run.output()).await;
    let output = output
        .ok_or_else(|| failed(format!("it did not end within {} s", COMMAND_LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    if output.stdout.len() as u64 > TOKEN_BYTES_MAX {
        return Err(failed(format!("it printed more than {TOKEN_BYTES_MAX} bytes")));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("it printed no text".to_owned()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(|error| unreadable(path, error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) | Err(_) => Err(unusable(path, "it has no certificate in PEM form".to_owned())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes =
        files::read_secret(path, FILE_BYTES_MAX).map_err(|error| unreadable(path, error))?;
    // What is in it goes into no message.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        unusable(path, "it has no private key in PEM form that is not encrypted".to_owned())
    })
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Local {
        message: format!("cannot read {}", path.display()),
        hint: None,
        source: Some(source.into()),
    }
}

fn unusable(path: &Path, why: String) -> Error {
    Error::Local {
        message: format!("{} cannot be used", path.display()),
        hint: None,
        source: Some(why.into()),
    }
}
