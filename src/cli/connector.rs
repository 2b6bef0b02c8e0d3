//! Connections to servers, plain and with TLS, and what was wrong with one that broke.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::credentials::Credentials;
use super::fault::{Fault, broken};

/// What was wrong with the newest connection, if it says so. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noticed(Arc<Mutex<Option<Fault>>>);

impl Noticed {
    /// The fault of the newest connection.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// Connects; a channel that lost its connection connects again in the same way. With `server_name` it speaks TLS.
///
/// # Errors
/// Those of the network; [`Fault::among_causes`] finds a fault of TLS.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    server_name: Option<&str>,
    credentials: &Credentials,
    noticed: &Noticed,
) -> Result<Channel, tonic::transport::Error> {
    let secure = server_name.map(|name| (name.to_owned(), credentials.clone()));
    let noticed = noticed.clone();
    let was_secure = Arc::new(AtomicBool::new(false));
    let connector = tower::service_fn(move |uri: Uri| {
        let (secure, noticed, was_secure) = (secure.clone(), noticed.clone(), was_secure.clone());
        async move {
            let stream = tcp(&uri).await?;
            noticed.set(None);
            let is_plain = secure.is_none();
            let stream: Box<dyn Stream> = match secure {
                None => Box::new(stream),
                Some((name, credentials)) => secured(stream, &name, &credentials, &was_secure)
                    .await
                    .inspect_err(|error| noticed.set(Fault::among_causes(error)))?,
            };
            Ok::<_, io::Error>(TokioIo::new(Noticing { stream, noticed, is_first: is_plain }))
        }
    });
    endpoint.connect_with_connector(connector).await
}

async fn tcp(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = uri.port_u16().unwrap_or_default();
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secured(
    stream: TcpStream,
    server_name: &str,
    credentials: &Credentials,
    was_secure: &AtomicBool,
) -> io::Result<Box<dyn Stream>> {
    let config = credentials.read().map_err(|error| {
        let cause = std::error::Error::source(&error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        broken(Fault::Files(format!("{error}{cause}")))
    })?;
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|error| broken(Fault::ServerUntrusted(error.to_string())))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        let fault = Fault::of_handshake(&error);
        // A server that has spoken TLS to this client is restarting.
        let restarts = matches!(fault, Fault::ServerIsPlain) && was_secure.load(Ordering::Relaxed);
        if restarts { error } else { broken(fault) }
    })?;
    was_secure.store(true, Ordering::Relaxed);
    Ok(Box::new(stream))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// First byte of an alert of TLS. A frame of HTTP/2 that begins so would have more than a million bytes.
const ALERT: u8 = 0x15;

/// A stream that notices why it breaks: HTTP/2 only says that it did.
struct Noticing {
    stream: Box<dyn Stream>,
    noticed: Noticed,
    /// Whether the first byte of a plain connection is still to come.
    is_first: bool,
}

impl AsyncRead for Noticing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match read {
            Ok(()) => {
                let first = buf.filled().get(before).copied();
                // HTTP/2 begins with the length of a small frame. What comes after this may be lost with the connection.
                if let Some(first) = first.filter(|first| self.is_first && *first != 0) {
                    let fault = match first {
                        ALERT => Fault::ServerSpeaksTls,
                        _ => Fault::Foreign,
                    };
                    self.noticed.set(Some(fault.clone()));
                    return Poll::Ready(Err(broken(fault)));
                }
                self.is_first &= first.is_none();
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let alert = error
                    .get_ref()
                    .and_then(|error| error.downcast_ref::<rustls::Error>())
                    .and_then(Fault::of_alert);
                if alert.is_some() {
                    self.noticed.set(alert);
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

impl AsyncWrite for Noticing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server that restarts closes connections before it speaks; one without TLS always does.
    #[tokio::test]
    async fn a_closed_handshake_means_no_tls_only_at_a_server_that_never_spoke_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), &cert).unwrap();
        let credentials =
            Credentials { ca_file: Some(ca.path().to_owned()), ..Credentials::default() };
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
                )
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let was_secure = AtomicBool::new(false);
        let connect = async || {
            let stream = TcpStream::connect(address).await.unwrap();
            secured(stream, "localhost", &credentials, &was_secure).await
        };
        let close = async || drop(listener.accept().await.unwrap());

        let (error, ()) = tokio::join!(connect(), close());
        assert_eq!(Fault::among_causes(&error.err().unwrap()), Some(Fault::ServerIsPlain));
        let accept = async || acceptor.accept(listener.accept().await.unwrap().0).await;
        let (connected, accepted) = tokio::join!(connect(), accept());
        connected.unwrap();
        accepted.unwrap();
        let (error, ()) = tokio::join!(connect(), close());
        assert_eq!(Fault::among_causes(&error.err().unwrap()), None);
    }
}
