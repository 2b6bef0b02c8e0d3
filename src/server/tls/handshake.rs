//! Handshakes: within a deadline, and refused ones are logged with their reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::judge::Judge;
use super::material::{ALPN, Tls};
use super::refusal::{CertificateRefusal, HandshakeRefusal};
use crate::clock::{Clock, Timestamp};
use crate::server::denials::Denials;
use crate::server::identities::Principal;
use crate::server::limits::FIRST_BYTE;

/// Time that a refused client has to read why, and how much of what it sends meanwhile is read.
const PARTING: Duration = Duration::from_secs(1);
const PARTING_BYTES_MAX: usize = 64 * 1024;

/// The certificate of a connection's client.
#[derive(Debug, Clone)]
pub(in crate::server) struct Certified {
    chain: Arc<[CertificateDer<'static>]>,
    /// Whose it is.
    pub(in crate::server) principal: Arc<Principal>,
    /// When it expires.
    pub(in crate::server) expires_at: Timestamp,
}

/// A connection after its handshake.
pub(in crate::server) struct Secured<IO> {
    pub(in crate::server) stream: TlsStream<IO>,
    /// The client's certificate, if it has one.
    pub(in crate::server) certified: Option<Certified>,
}

/// Performs handshakes, and says which are refused.
#[derive(Debug, Clone)]
pub(in crate::server) struct Handshakes {
    clock: Arc<dyn Clock>,
    denials: Denials,
}

/// Lets a client read why it was refused: closing a connection whose bytes were not read takes back what was sent.
async fn part<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut bytes, mut left) = ([0; 1024], PARTING_BYTES_MAX);
    while left > 0 {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
    }
}

impl Handshakes {
    pub(in crate::server) fn new(clock: Arc<dyn Clock>, denials: Denials) -> Self {
        Self { clock, denials }
    }

    /// A handshake; `None` if it is refused, which has been logged.
    pub(in crate::server) async fn perform<IO>(
        &self,
        stream: IO,
        tls: &Tls,
        peer: SocketAddr,
    ) -> Option<Secured<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(tls.config.clone());
        let mut deadline = self.clock.sleep(FIRST_BYTE);
        let accepted = tokio::select! {
            biased;
            accepted = acceptor.accept(stream).into_fallible() => accepted,
            () = &mut deadline => {
                self.refused(&HandshakeRefusal::Slow, peer);
                return None;
            }
        };
        let refusal = match accepted {
            Ok(stream) => match self.judged(stream, tls.judge.as_deref()) {
                Ok(secured) => return Some(secured),
                Err(refusal) => refusal,
            },
            Err((error, stream)) => {
                let refusal = HandshakeRefusal::new(&error);
                self.refused(&refusal, peer);
                tokio::select! {
                    () = part(stream) => {}
                    () = self.clock.sleep(PARTING) => {}
                    () = deadline => {}
                }
                return None;
            }
        };
        self.refused(&refusal, peer);
        None
    }

    fn judged<IO>(
        &self,
        stream: TlsStream<IO>,
        of_clients: Option<&Judge>,
    ) -> Result<Secured<IO>, HandshakeRefusal> {
        let (_, session) = stream.get_ref();
        if !session.alpn_protocol().is_some_and(|spoken| ALPN.contains(&spoken)) {
            return Err(HandshakeRefusal::NoHttp);
        }
        let certified = match (of_clients, session.peer_certificates()) {
            (Some(of_clients), Some(chain)) => {
                let chain: Arc<[_]> =
                    chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
                let (principal, expires_at) = judge(of_clients, &chain, self.clock.now())
                    .map_err(HandshakeRefusal::Certificate)?;
                Some(Certified { chain, principal, expires_at })
            }
            _ => None,
        };
        Ok(Secured { stream, certified })
    }

    fn refused(&self, refusal: &HandshakeRefusal, peer: SocketAddr) {
        let (cause, kind) = (refusal.cause(), refusal.kind());
        self.denials.note("a handshake was refused", cause, kind, Some(peer), ("", refusal));
    }
}

fn judge(
    judge: &Judge,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<(Arc<Principal>, Timestamp), CertificateRefusal> {
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    let (first, rest) = chain.split_first().ok_or(CertificateRefusal::NoName)?;
    judge.judge(first, rest, now)
}

/// Whose a certificate is under settings that may have changed since its handshake.
///
/// # Errors
/// Why it is no longer accepted.
pub(in crate::server) fn judge_again(
    tls: Option<&Tls>,
    certified: &Certified,
    now: Timestamp,
) -> Result<Arc<Principal>, String> {
    let Some(of_clients) = tls.and_then(|tls| tls.judge.as_deref()) else {
        return Err("certificates of clients are no longer accepted".to_owned());
    };
    let judged = judge(of_clients, &certified.chain, now);
    judged.map(|(principal, _)| principal).map_err(|refusal| refusal.to_string())
}
