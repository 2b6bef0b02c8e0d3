//! Deadlines, checks and unknown methods, without a connection.

use std::time::Duration;

use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

use super::*;
use crate::clock::{Timestamp, TokioClock};

/// Answers Check after ten seconds, or as long as the request says, and Watch not at all.
struct Slow(Arc<dyn Clock>);

#[tonic::async_trait]
impl Health for Slow {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        assert!(service != "bug", "on purpose");
        self.0.sleep(Duration::from_secs(service.parse().unwrap_or(10))).await;
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
    let request = Request::builder().method("POST").uri(CHECK).version(http::Version::HTTP_2);
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
    let mut request = Request::builder().method("POST").uri(path).version(http::Version::HTTP_2);
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

/// Sends a piece of a message, and then nothing any more.
struct Half(Option<Bytes>);

impl tonic::codegen::Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(piece) => Poll::Ready(Some(Ok(http_body::Frame::data(piece)))),
            None => Poll::Pending,
        }
    }
}

/// Status and duration of a call with a body.
async fn sent(edge: &Edge, body: Body) -> (Option<Status>, Duration) {
    let request = Request::builder().method("POST").uri(CHECK).version(http::Version::HTTP_2);
    let request = request.header("content-type", "application/grpc").body(body).unwrap();
    let begun = edge.clock.monotonic();
    let response = edge.clone().call(request).await.unwrap();
    let took = edge.clock.monotonic().saturating_sub(begun);
    (Status::from_header_map(response.headers()), took)
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_has_one() {
    let edge = edge();
    let long = |seconds: &str| format!("\0\0\0\0{}\n{}{seconds}", '\u{5}', '\u{3}');
    let (late, took) = sent(&edge, Body::new(long("100"))).await;
    assert_eq!((late.unwrap().code(), took), (Code::DeadlineExceeded, limits::CALL));
    let (_, took) = sent(&edge, Body::new(long("059"))).await;
    assert_eq!(took, Duration::from_secs(59));
    for path in ["RunService/WatchRuns", "RunService/WaitRun", "RunService/StreamRunLogs"] {
        assert!(lasts(&format!("/baremetal.v1.{path}")), "{path}");
    }
    assert!(!lasts("/baremetal.v1.RunService/StartRun") && !lasts(CHECK));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_sent_to_its_end_is_ended() {
    let edge = edge();
    let (late, took) =
        sent(&edge, Body::new(Half(Some(Bytes::from_static(b"\0\0\0\0\x09half"))))).await;
    let late = late.unwrap();
    assert_eq!((late.code(), took), (Code::DeadlineExceeded, limits::BODY));
    assert!(late.message().contains("not complete within 10 s"), "{}", late.message());
    let info = late.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    assert_eq!(sent(&edge, Body::new(Half(None))).await.1, limits::BODY);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_call_is_refused_by_its_head() {
    let refusals = Refusals::default();
    let edge = edge().guarded(HostNames::default(), refusals.clone());
    for (method, uri, name, value, status, cause) in [
        ("POST", "http://127.0.0.1:1", "content-type", "text/plain", 415, "content_type"),
        ("GET", "http://127.0.0.1:1", "content-type", "application/grpc", 405, "method"),
        ("POST", "http://127.0.0.1:1", "origin", "http://evil.example", 403, "origin"),
        ("POST", "http://127.0.0.1:1", "sec-fetch-site", "cross-site", 403, "origin"),
        ("POST", "http://evil.example", "content-type", "application/grpc", 421, "host"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{uri}{CHECK}"))
            .version(http::Version::HTTP_2);
        let request = request.header(name, value).body(Half(None)).unwrap();
        let counted = refusals.of(cause);
        let response = edge.clone().call(request).await.unwrap();
        assert_eq!((response.status().as_u16(), refusals.of(cause)), (status, counted + 1));
    }
}
