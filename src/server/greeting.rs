//! The first bytes of a connection: they must come in time, and say which version of HTTP the peer speaks.
//!
//! A connection of HTTP/2 has pings and streams that are reset. One of HTTP/1.1 has neither: a peer that takes nothing of its
//! answer is cut off here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{FIRST_BYTE, GREETING, STALL};
use super::refusals::Refusals;
use crate::clock::{Clock, Sleep};

/// What every client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The same with an empty SETTINGS frame.
const GREETING_BYTES: usize = PREFACE.len() + 9;

/// A stream whose peer must greet in time: otherwise reading fails with `TimedOut`. With HTTP/1.1 the rest of the head has a
/// deadline elsewhere, and writing fails with `TimedOut` when the peer takes nothing.
pub(super) struct Greeted<IO> {
    stream: IO,
    clock: Arc<dyn Clock>,
    refusals: Refusals,
    received: usize,
    /// `None` once the greeting is complete.
    deadline: Option<Sleep>,
    is_http1: bool,
    /// Set while the peer of HTTP/1.1 takes nothing.
    stall: Option<Sleep>,
}

impl<IO> Greeted<IO> {
    pub(super) fn new(stream: IO, clock: Arc<dyn Clock>, refusals: Refusals) -> Self {
        let deadline = Some(clock.sleep(FIRST_BYTE));
        Self { stream, clock, refusals, received: 0, deadline, is_http1: false, stall: None }
    }

    /// Takes notice of first bytes.
    fn hear(&mut self, bytes: &[u8]) {
        if self.received == 0 {
            self.deadline = Some(self.clock.sleep(GREETING));
        }
        let wanted = PREFACE.get(self.received..).unwrap_or_default();
        self.is_http1 |= wanted.iter().zip(bytes).any(|(wanted, byte)| wanted != byte);
        self.received += bytes.len();
        if self.is_http1 || self.received >= GREETING_BYTES {
            self.deadline = None;
        }
    }

    /// The outcome of writing, which may not wait for a peer of HTTP/1.1 forever.
    fn taken<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if !self.is_http1 || polled.is_ready() {
            self.stall = None;
            return polled;
        }
        let stall = self.stall.get_or_insert_with(|| self.clock.sleep(STALL));
        ready!(stall.as_mut().poll(cx));
        self.refusals.count("stalled");
        let error = io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing");
        Poll::Ready(Err(error))
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
                let read = buf.filled().get(before..).unwrap_or_default();
                if this.deadline.is_some() && !read.is_empty() {
                    this.hear(read);
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
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.taken(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.taken(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.taken(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.taken(polled, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::clock::{Timestamp, TokioClock};

    /// What the reader gets from a peer that sends some bytes and then is silent, and after how long.
    async fn heard(sent: &[u8]) -> (usize, Option<io::ErrorKind>, Duration) {
        let clock = Arc::new(TokioClock::new(Timestamp(0)));
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut greeted = Greeted::new(stream, clock.clone(), Refusals::default());
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
        assert_eq!(heard(PREFACE).await, (24, timed_out, GREETING));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_greeted_may_be_silent() {
        let greeting = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat();
        for (sent, long) in [(&greeting[..], GREETING_BYTES), (b"GET / HT", 8), (b"P\r", 2)] {
            let (read, error, waited) = heard(sent).await;
            assert_eq!((read, error, waited), (long, None, Duration::from_secs(3600)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_of_http_1_that_takes_nothing_is_cut_off() {
        for (greeting, wanted) in
            [(&b"GET / HTTP/1.1"[..], Some(io::ErrorKind::TimedOut)), (PREFACE, None)]
        {
            let clock = Arc::new(TokioClock::new(Timestamp(0)));
            let (mut peer, stream) = tokio::io::duplex(64);
            let refusals = Refusals::default();
            let mut greeted = Greeted::new(stream, clock.clone(), refusals.clone());
            peer.write_all(greeting).await.unwrap();
            let mut read = vec![0; greeting.len()];
            greeted.read_exact(&mut read).await.unwrap();
            let begun = clock.monotonic();
            let wrote = tokio::select! {
                wrote = greeted.write_all(&[0; 200]) => wrote.err().map(|error| error.kind()),
                () = clock.sleep(Duration::from_secs(3600)) => None,
            };
            assert_eq!((wrote, refusals.of("stalled")), (wanted, u64::from(wanted.is_some())));
            if wanted.is_some() {
                assert_eq!(clock.monotonic().saturating_sub(begun), STALL);
            }
        }
    }
}
