//! What happens to a call before and after its handler: readiness, deadlines, unknown methods.
//!
//! tonic answers an expired deadline with CANCELLED, an unknown method with an empty message, and broken framing with
//! INTERNAL.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::codegen::{Bytes, StdError};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, field};

use super::metrics::Metrics;
use super::telemetry;
use crate::api::Deadline;
use crate::api::status::ApiError;
use crate::clock::Clock;
use crate::executor::EngineError;

/// Deadlines further away than this are not watched.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Metadata that names the compressions of a peer.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Longest part of a method's name that an error repeats.
const PATH_CHARS_MAX: usize = 256;

/// Services in front of their handlers. Cheap to clone: one per connection.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    /// Served from the first moment: health and reflection.
    always: Routes,
    /// Served once the engine has recovered.
    ready: Arc<OnceLock<Routes>>,
    clock: Arc<dyn Clock>,
    metrics: Option<Arc<Metrics>>,
    info: Option<TcpConnectInfo>,
}

impl Edge {
    /// Nothing but `always` is served until `ready` is set.
    pub(super) fn new(always: Routes, ready: Arc<OnceLock<Routes>>, clock: Arc<dyn Clock>) -> Self {
        Self { always, ready, clock, metrics: None, info: None }
    }

    /// The same, counting its calls.
    pub(super) fn measured(self, metrics: Option<Arc<Metrics>>) -> Self {
        Self { metrics, ..self }
    }

    /// The same for the calls of one connection.
    pub(super) fn of_connection(
        &self,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let info = TcpConnectInfo { local_addr: local, remote_addr: peer };
        Self { info: Some(info), ..self.clone() }
    }

    fn routes_of(&self, path: &str) -> Option<Routes> {
        if path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.") {
            return Some(self.always.clone());
        }
        self.ready.get().cloned()
    }
}

impl<B> Service<Request<B>> for Edge
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(info) = &self.info {
            request.extensions_mut().insert(info.clone());
        }
        let path = request.uri().path().to_owned();
        let span = tracing::debug_span!(
            "request",
            otel.name = %path,
            otel.kind = "server",
            method = %path,
            request_id = field::Empty,
            status = field::Empty,
        );
        if !span.is_disabled() {
            telemetry::take_up(&span, request.headers());
        }
        let timeout = match timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            let late = ApiError::from(EngineError::DeadlineExceeded);
            return Box::pin(std::future::ready(Ok(Status::from(late).into_http())));
        }
        if let Some(timeout) = timeout {
            // The engine asks once more before it commits.
            request.extensions_mut().insert(Deadline(self.clock.monotonic() + timeout));
        }
        let Some(mut routes) = self.routes_of(&path) else {
            return Box::pin(std::future::ready(Ok(Status::from(ApiError::NotReady).into_http())));
        };
        let expired = timeout.map(|timeout| self.clock.sleep(timeout));
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let answer = caught(routes.call(request)).instrument(span.clone());
            let response = match expired {
                None => answer.await,
                Some(expired) => tokio::select! {
                    biased;
                    answer = answer => answer,
                    // The handler is dropped here; what it has given to the engine goes on.
                    () = expired => Ok(Status::from(ApiError::DeadlineExceeded).into_http()),
                },
            };
            let response = response.map(|response| in_our_terms(response, &path));
            if let Ok(response) = &response {
                let code = code_of(response).unwrap_or(Code::Ok);
                span.record("status", field::debug(code));
                if let Some(metrics) = metrics {
                    metrics.called(&path, code);
                }
            }
            response.map(|mut response| {
                response.headers_mut().insert("bmdemo-version", VERSION);
                response
            })
        })
    }
}

/// The answer of a call. A handler that panics answers INTERNAL, and the other calls of its connection go on.
async fn caught(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Result<Response<Body>, Infallible> {
    let mut answer = pin!(answer);
    let poll = |cx: &mut Context<'_>| {
        // What has panicked is not polled again.
        catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))).unwrap_or_else(|_| {
            let bug = EngineError::Internal("a handler panicked".to_owned());
            Poll::Ready(Ok(Status::from(ApiError::Engine(bug)).into_http()))
        })
    };
    std::future::poll_fn(poll).await
}

/// What every answer carries as metadata, for `bmdemo-cli doctor` and whoever wonders which server answered.
const VERSION: HeaderValue = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));

/// Says what tonic refuses by itself in our terms: with a reason, and as the client's fault where it is. Of its own tonic
/// answers an unknown method without a word, and broken framing with INTERNAL.
fn in_our_terms(response: Response<Body>, path: &str) -> Response<Body> {
    let refused = Status::from_header_map(response.headers());
    let Some(status) = refused.filter(|status| status.details().is_empty()) else {
        return response;
    };
    let (code, message) = (status.code(), status.message());
    let error = if code == Code::Unimplemented && message.is_empty() {
        ApiError::MethodUnknown(path.chars().take(PATH_CHARS_MAX).collect())
    } else if code == Code::Unimplemented && message.starts_with("Content is compressed") {
        ApiError::CompressionUnsupported(message.to_owned())
    } else if code == Code::OutOfRange && message.contains("message length too large") {
        ApiError::MessageTooLarge
    } else if code == Code::Internal {
        // Whatever is ours has details.
        ApiError::MessageMalformed(message.to_owned())
    } else {
        return response;
    };
    let mut ours = Status::from(error).into_http();
    // Tells a client which compressions it may use.
    if let Some(encodings) = response.headers().get(ACCEPT_ENCODING) {
        ours.headers_mut().insert(ACCEPT_ENCODING, encodings.clone());
    }
    ours
}

/// The status of an answer that is nothing but a status; a stream that fails later is not seen here.
fn code_of(response: &Response<Body>) -> Option<Code> {
    response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// The deadline that the client has set, from the header `grpc-timeout`.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
        let expected = "must be 1 to 8 digits and one of H M S m u n, for example 5S";
        Status::from(ApiError::Engine(EngineError::invalid("grpc-timeout", expected)))
    })?;
    Ok(Some(parsed).filter(|timeout| *timeout <= TIMEOUT_MAX))
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol over HTTP/2.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::health_server::{Health, HealthServer};
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::clock::{Timestamp, TokioClock};

    /// Answers Check after ten seconds, and Watch not at all.
    struct Slow(Arc<dyn Clock>);

    #[tonic::async_trait]
    impl Health for Slow {
        async fn check(
            &self,
            request: tonic::Request<HealthCheckRequest>,
        ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
            assert!(request.into_inner().service != "bug", "on purpose");
            self.0.sleep(Duration::from_secs(10)).await;
            Ok(tonic::Response::new(HealthCheckResponse::default()))
        }

        type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

        async fn watch(
            &self,
            _: tonic::Request<HealthCheckRequest>,
        ) -> Result<tonic::Response<Self::WatchStream>, Status> {
            Err(Status::unimplemented("on purpose"))
        }
    }

    /// Code and reason of the answer to what is no gRPC message, or none that is taken.
    async fn broken(edge: &Edge, body: &str, encoding: &str) -> (Code, String) {
        let request = Request::builder().method("POST").uri(CHECK);
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding)
            .body(Body::new(body.to_owned()));
        let response = edge.clone().call(request.unwrap()).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        let info = status.get_error_details().error_info().cloned().unwrap();
        (status.code(), info.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn what_tonic_refuses_by_itself_has_a_reason() {
        let edge = edge();
        let malformed = (Code::InvalidArgument, "MESSAGE_MALFORMED".to_owned());
        // Nothing at all, half a header, less than was announced, a flag that there is not.
        for body in ["", "\0\0", "\0\0\0\0\u{9}", "\u{7}\0\0\0\0"] {
            assert_eq!(broken(&edge, body, "identity").await, malformed, "{body:?}");
        }
        assert_eq!(broken(&edge, "\u{1}\0\0\0\0", "identity").await, malformed, "not compressed");
        let bug = broken(&edge, "\0\0\0\0\u{5}\n\u{3}bug", "identity").await;
        assert_eq!(bug, (Code::Internal, "INTERNAL".to_owned()));
        let large = broken(&edge, "\0\u{7f}\0\0\0", "identity").await;
        assert_eq!(large, (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
        let packed = broken(&edge, "\u{1}\0\0\0\0", "gzip").await;
        assert_eq!(packed, (Code::Unimplemented, "COMPRESSION_UNSUPPORTED".to_owned()));
    }

    /// Code and message of the answer to an empty call.
    async fn call(edge: &Edge, path: &str, timeout: Option<&str>) -> (Code, String, Duration) {
        let mut request = Request::builder().method("POST").uri(path);
        request = request.header("content-type", "application/grpc").header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let begun = edge.clock.monotonic();
        let body = Body::new(String::from("\0\0\0\0\0"));
        let response = edge.clone().call(request.body(body).unwrap()).await.unwrap();
        let status = Status::from_header_map(response.headers());
        let (code, message) =
            status.map_or((Code::Ok, String::new()), |s| (s.code(), s.message().to_owned()));
        (code, message, edge.clock.monotonic().saturating_sub(begun))
    }

    fn edge() -> Edge {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(0)));
        let always = Routes::new(HealthServer::new(Slow(clock.clone())));
        Edge::new(always, Arc::default(), clock)
    }

    const CHECK: &str = "/grpc.health.v1.Health/Check";

    #[tokio::test(start_paused = true)]
    async fn an_expired_deadline_is_deadline_exceeded() {
        let (code, message, took) = call(&edge(), CHECK, Some("9999m")).await;
        assert_eq!((code, took), (Code::DeadlineExceeded, Duration::from_millis(9_999)));
        assert!(message.contains("deadline") && message.contains("request_id"), "{message}");
        let (code, _, took) = call(&edge(), CHECK, Some("11S")).await;
        assert_eq!((code, took), (Code::Ok, Duration::from_secs(10)));
        assert_eq!(call(&edge(), CHECK, None).await.0, Code::Ok);
        assert_eq!(call(&edge(), CHECK, Some("99999999H")).await.0, Code::Ok);
        assert_eq!(call(&edge(), CHECK, Some("soon")).await.0, Code::InvalidArgument);
        for passed in ["0n", "0H"] {
            let (code, message, took) = call(&edge(), CHECK, Some(passed)).await;
            assert_eq!((code, took), (Code::DeadlineExceeded, Duration::ZERO));
            assert!(message.contains("nothing was changed"), "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_served_says_so() {
        let edge = edge();
        let start_run = "/baremetal.v1.RunService/StartRun";
        let (code, message, _) = call(&edge, start_run, None).await;
        assert_eq!(code, Code::Unavailable);
        assert!(message.contains("not ready yet"), "{message}");
        edge.ready.set(Routes::default()).unwrap();
        for unknown in [start_run, "/", "/grpc.health.v1.Health/Czech"] {
            let (code, message, _) = call(&edge, unknown, None).await;
            assert_eq!(code, Code::Unimplemented);
            assert!(message.ends_with(&format!("no method {unknown}")), "{message}");
        }
        // A handler's own words stay.
        let (_, message, _) = call(&edge, "/grpc.health.v1.Health/Watch", None).await;
        assert_eq!(message, "on purpose");
    }

    #[test]
    fn timeouts_are_those_of_the_protocol() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse_timeout("1n"), Some(Duration::from_nanos(1)));
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5 S", "ä", "5ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
