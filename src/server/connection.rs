//! Serves one connection: HTTP/2 with limits, a deadline for the peer's preface, keepalive and a maximum age.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::config::Keep;
use super::edge::Edge;
use super::limits::{
    AGE_GRACE, FIRST_BYTE, GREETING, HEADER_LIST_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    LEAVE_GRACE, STREAMS_MAX,
};
use super::sending::Streams;
use crate::clock::{Clock, Sleep};

/// HTTP/2 connection preface and an empty SETTINGS frame: what every client sends first.
const GREETING_BYTES: usize = 24 + 9;

/// What a connection is to the others.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    /// Its use.
    pub(super) activity: Activity,
    /// Cancelled when it has to make room.
    pub(super) leave: CancellationToken,
}

/// Serves until the peer leaves, breaks the protocol or stays silent, or until `stop` once its streams have ended.
pub(super) async fn serve<IO>(
    stream: IO,
    edge: Edge,
    keep: Keep,
    of: Membership,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Membership { activity, leave } = of;
    let streams = Streams {
        clock: clock.clone(),
        activity: activity.clone(),
        refusals: edge.refusals().clone(),
    };
    let mut builder = auto::Builder::new(streams).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        // No gRPC client reads it; in a simulation it would be the real time.
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let greeted = Greeted::new(stream, clock.clone());
    let service = TowerToHyperService::new(edge);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(greeted), service));
    let mut stopping = false;
    let mut leaving = false;
    let mut age = keep.age_max.map(|age| clock.sleep(age));
    let mut idle = keep.idle_max.map(|idle| clock.sleep(idle));
    loop {
        tokio::select! {
            // In a fixed order, so that simulations replay. The connection is ready once, at its end.
            biased;
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = due(&mut age) => {
                if leaving {
                    return;
                }
                leaving = true;
                connection.as_mut().graceful_shutdown();
                age = Some(clock.sleep(AGE_GRACE));
            }
            () = leave.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                age = Some(clock.sleep(LEAVE_GRACE));
            }
            () = due(&mut idle), if !leaving => {
                let left = keep.idle_max.zip(activity.idle_for().or(Some(Duration::ZERO)));
                idle = match left.map(|(most, idle)| most.saturating_sub(idle)) {
                    Some(Duration::ZERO) => {
                        leaving = true;
                        connection.as_mut().graceful_shutdown();
                        age = Some(clock.sleep(AGE_GRACE));
                        None
                    }
                    Some(left) => Some(clock.sleep(left)),
                    None => None,
                };
            }
        }
    }
}

/// Resolves when the sleep does; never if there is none.
async fn due(sleep: &mut Option<Sleep>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

/// A stream whose peer must send its preface in time: otherwise reading fails with `TimedOut`.
struct Greeted<IO> {
    stream: IO,
    clock: Arc<dyn Clock>,
    received: usize,
    /// `None` once the preface is complete.
    deadline: Option<Sleep>,
}

impl<IO> Greeted<IO> {
    fn new(stream: IO, clock: Arc<dyn Clock>) -> Self {
        let deadline = Some(clock.sleep(FIRST_BYTE));
        Self { stream, clock, received: 0, deadline }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Greeted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                if this.deadline.is_some() && read > 0 {
                    if this.received == 0 {
                        this.deadline = Some(this.clock.sleep(GREETING));
                    }
                    this.received += read;
                    if this.received >= GREETING_BYTES {
                        this.deadline = None;
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match &mut this.deadline {
                Some(deadline) => {
                    ready!(deadline.as_mut().poll(cx));
                    Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the peer did not send its preface in time",
                    )))
                }
                None => Poll::Pending,
            },
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Greeted<IO> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::clock::{Timestamp, TokioClock};

    /// What the reader gets from a peer that sends some bytes and then is silent, and after how long.
    async fn heard(sent: &[u8]) -> (usize, Option<io::ErrorKind>, Duration) {
        let clock = Arc::new(TokioClock::new(Timestamp(0)));
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut greeted = Greeted::new(stream, clock.clone());
        peer.write_all(sent).await.unwrap();
        let mut read = 0;
        let patience = clock.sleep(Duration::from_secs(3600));
        tokio::pin!(patience);
        loop {
            let mut byte = [0];
            let result = tokio::select! {
                result = greeted.read(&mut byte) => result,
                () = &mut patience => return (read, None, clock.monotonic()),
            };
            match result {
                Ok(count) => read += count,
                Err(error) => return (read, Some(error.kind()), clock.monotonic()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_cut_off_and_a_slow_one_too() {
        let timed_out = Some(io::ErrorKind::TimedOut);
        assert_eq!(heard(b"").await, (0, timed_out, FIRST_BYTE));
        assert_eq!(heard(b"PRI * HT").await, (8, timed_out, GREETING));
        assert_eq!(heard(&[0; GREETING_BYTES - 1]).await, (32, timed_out, GREETING));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_greeted_may_be_silent() {
        let (read, error, waited) = heard(&[0; GREETING_BYTES]).await;
        assert_eq!((read, error, waited), (GREETING_BYTES, None, Duration::from_secs(3600)));
    }
}
