//! Serves scrapes over HTTP/1.1 and HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::measured::Metrics;
use super::snapshot::Sources;
use crate::clock::Clock;
use crate::server::checks::{self, HostNames};
use crate::server::gate::{Caps, Gate};
use crate::server::limits::{HEADER_LIST_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::server::refusals::Refusals;
use crate::server::small;

/// Scrapers are few.
const CAPS: Caps =
    Caps { connections_max: 32, connections_per_peer_max: 8, connections_loopback_max: 8 };
/// Longest life of a scraper's connection: an idle one is closed.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Most scrapes of one connection at the same time.
const STREAMS_MAX: u32 = 8;

/// Media type of OpenMetrics text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What keeps pages of other sites from reading metrics.
#[derive(Debug)]
pub(in crate::server) struct Guard {
    pub(in crate::server) host_names: HostNames,
    pub(in crate::server) refusals: Refusals,
}

/// Serves until `stop`.
pub(in crate::server) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    sources: Sources,
    guard: Guard,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let (sources, guard) = (Arc::new(sources), Arc::new(guard));
    let gate = Gate::new(CAPS, guard.refusals.clone());
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let scraped = move |request: Request<Incoming>, _| {
        let (metrics, sources, guard) = (metrics.clone(), sources.clone(), guard.clone());
        async move {
            let headers = request.headers();
            if let Err(refusal) = checks::source(request.uri(), headers, &guard.host_names) {
                guard.refusals.count(refusal.cause());
                return refusal.response();
            }
            answer(request, &metrics, &sources).await
        }
    };
    small::serve(listener, gate, CONNECTION_AGE_MAX, builder, clock, stop, scraped).await;
}

async fn answer<B>(request: Request<B>, metrics: &Metrics, sources: &Sources) -> Response<Body> {
    let (status, content_type, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics.render(sources).await {
            Ok(text) => (StatusCode::OK, CONTENT_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    "cannot write metrics\n".to_owned(),
                )
            }
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}
