//! Serves one connection: HTTP/2 or HTTP/1.1 with limits, a deadline for the peer's first bytes, keepalive and a maximum age.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::config::Keep;
use super::edge::Edge;
use super::greeting::Greeted;
use super::http1::Calls;
use super::limits::{
    AGE_GRACE, HEAD, HEADER_LIST_BYTES_MAX, HTTP1_BUFFER_BYTES, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, LEAVE_GRACE, STREAMS_MAX,
};
use super::sending::Streams;
use crate::clock::{Clock, Sleep};

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
    let refusals = edge.refusals().clone();
    let streams =
        Streams { clock: clock.clone(), activity: activity.clone(), refusals: refusals.clone() };
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        // No gRPC client reads it; in a simulation it would be the real time.
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let greeted = Greeted::new(stream, clock.clone(), refusals.clone());
    let calls = Calls::new(edge, activity.clone());
    let own = calls.progress().clone();
    let service = TowerToHyperService::new(calls);
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
            // The only call of a connection of HTTP/1.1: it ends with it.
            () = own.ended() => {
                refusals.count("watch_gave_way");
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
