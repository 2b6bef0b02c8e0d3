//! Requests and answers in the shapes of Connect, without a connection.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::Service as _;

use super::error::{http_status, name};
use super::request::enveloped;
use super::{Protocol, protocol};
use crate::api::REQUEST_BYTES_MAX;
use crate::api::status::ApiError;
use crate::clock::{Clock, Timestamp, TokioClock};
use crate::executor::EngineError;
use crate::server::checks::HeadRefusal;
use crate::server::edge::Edge;
use crate::server::limits::JSON_BYTES_MAX;

/// Answers after as many seconds as the name of the service says, and refuses every other name.
struct Named(Arc<dyn Clock>);

type Answers =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for Named {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let Ok(seconds) = service.parse() else {
            let error = EngineError::invalid("service", format!("{service:?} is no number"));
            return Err(ApiError::from(error).into());
        };
        self.0.sleep(Duration::from_secs(seconds)).await;
        Ok(tonic::Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = Answers;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Answers>, Status> {
        let status = |status| Ok(HealthCheckResponse { status });
        let mut items = vec![status(1), status(2), status(0)];
        match request.into_inner().service.as_str() {
            "late" => items.push(Err(ApiError::NotReady.into())),
            "at once" => return Err(ApiError::NotReady.into()),
            _ => {}
        }
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter(items))))
    }
}

fn edge() -> Edge {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(0)));
    let health = HealthServer::new(Named(clock.clone()));
    let always = Routes::new(health.max_decoding_message_size(REQUEST_BYTES_MAX));
    Edge::new(always, Arc::default(), clock)
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

struct Answered {
    status: u16,
    content_type: String,
    body: Bytes,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The flags and the JSON of each envelope.
    fn envelopes(&self) -> Vec<(u8, Value)> {
        let mut rest = &self.body[..];
        let mut found = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            found.push((head[0], serde_json::from_slice(&after[..length]).unwrap()));
            rest = &after[length..];
        }
        assert!(rest.is_empty());
        found
    }
}

async fn answered(response: Response<Body>) -> Answered {
    let (head, body) = response.into_parts();
    let text = |name: &str| {
        let value = head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    assert!(!head.headers.contains_key("grpc-status"), "{:?}", head.headers);
    let body = body.collect().await.unwrap();
    assert!(body.trailers().is_none());
    let body = body.to_bytes();
    if let Ok(length) = text("content-length").parse::<usize>() {
        assert_eq!(length, body.len());
    }
    Answered { status: head.status.as_u16(), content_type: text("content-type"), body }
}

async fn sent(path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answered {
    let mut request = Request::builder().method("POST").uri(path).version(Version::HTTP_11);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(http_body_util::Full::new(body.into()));
    answered(edge().call(request.body(body).unwrap()).await.unwrap()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");
const JSON_STREAM: (&str, &str) = ("content-type", "application/connect+json");

#[tokio::test(start_paused = true)]
async fn one_message_is_answered_by_one() {
    let answer = sent(CHECK, &[JSON], r#"{"service":"0"}"#).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    assert_eq!(answer.json(), json!({"status": "SERVING"}));
    let utf8 = ("content-type", "Application/JSON; charset=\"UTF-8\"");
    let versioned = [utf8, ("connect-protocol-version", "1"), ("content-encoding", "identity")];
    assert_eq!(sent(CHECK, &versioned, r#"{"service":"0"}"#).await.status, 200);
    let message = HealthCheckRequest { service: "0".to_owned() }.encode_to_vec();
    let answer = sent(CHECK, &[("content-type", "application/proto")], message).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/proto"));
    let decoded = HealthCheckResponse::decode(answer.body).unwrap();
    assert_eq!(decoded, HealthCheckResponse { status: 1 });
}

#[tokio::test(start_paused = true)]
async fn an_error_has_its_code_message_and_details() {
    let answer = sent(CHECK, &[JSON], r#"{"service":"x"}"#).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (400, "application/json"));
    let error = answer.json();
    assert_eq!(error["code"], "invalid_argument");
    assert_eq!(error["message"], "service: \"x\" is no number");
    let details = error["details"].as_array().unwrap();
    let info = details.iter().find(|one| one["type"] == "google.rpc.ErrorInfo").unwrap();
    assert_eq!(info["debug"]["reason"], "FIELD_INVALID");
    assert!(!info["value"].as_str().unwrap().contains('='));
    let bad = details.iter().find(|one| one["type"] == "google.rpc.BadRequest").unwrap();
    assert_eq!(bad["debug"]["fieldViolations"][0]["field"], "service");
}

/// Code, field and message of a refused call.
fn refusal(answer: &Answered) -> (u16, String, String, String) {
    let error = answer.json();
    let details = error["details"].as_array().unwrap();
    let bad = details.iter().find(|one| one["type"] == "google.rpc.BadRequest");
    let field = bad.map(|bad| bad["debug"]["fieldViolations"][0]["field"].as_str().unwrap());
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), field.unwrap_or_default().to_owned(), text("message"))
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_with_the_field() {
    let huge = format!(r#"{{"service":"{}"}}"#, "x".repeat(JSON_BYTES_MAX));
    let larger = format!(r#"{{"service":"{}"}}"#, "x".repeat(JSON_BYTES_MAX * 2 / 3));
    for (headers, body, status, code, field) in [
        (&[][..], "", 400, "invalid_argument", ""),
        (&[], "{", 400, "invalid_argument", ""),
        (&[], r#"{"service":5}"#, 400, "invalid_argument", "service"),
        (&[], r#"{"servce":"x"}"#, 400, "invalid_argument", "servce"),
        (&[], huge.as_str(), 429, "resource_exhausted", ""),
        // Not too long as JSON, and too long as what it means.
        (&[], larger.as_str(), 429, "resource_exhausted", ""),
        (
            &[("connect-protocol-version", "2")],
            "{}",
            400,
            "invalid_argument",
            "connect-protocol-version",
        ),
        (&[("connect-timeout-ms", "soon")], "{}", 400, "invalid_argument", "connect-timeout-ms"),
        (
            &[("connect-timeout-ms", "12345678901")],
            "{}",
            400,
            "invalid_argument",
            "connect-timeout-ms",
        ),
        (&[("content-encoding", "gzip")], "{}", 501, "unimplemented", ""),
    ] {
        let answer = sent(CHECK, &[&[JSON], headers].concat(), body.to_owned()).await;
        let (got, named, at, message) = refusal(&answer);
        assert_eq!((got, named.as_str(), at.as_str()), (status, code, field), "{message}");
    }
    let unknown = sent("/grpc.health.v1.Health/Czech", &[JSON], "{}").await;
    let (status, code, _, message) = refusal(&unknown);
    assert_eq!((status, code.as_str()), (501, "unimplemented"));
    assert!(message.ends_with("no method /grpc.health.v1.Health/Czech"), "{message}");
    let later = sent("/baremetal.v1.RunService/StartRun", &[JSON], "{}").await;
    assert_eq!(refusal(&later).1, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_in_milliseconds() {
    for (timeout, seconds, status) in
        [("9999", "10", 504), ("11000", "10", 200), ("9999999999", "10", 200), ("0", "0", 504)]
    {
        let headers = [JSON, ("connect-timeout-ms", timeout), ("grpc-timeout", "1n")];
        let body = format!(r#"{{"service":"{seconds}"}}"#);
        let answer = sent(CHECK, &headers, body).await;
        assert_eq!(answer.status, status, "{timeout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_an_envelope_that_says_how() {
    let ask = |service: &str| enveloped(0, format!(r#"{{"service":"{service}"}}"#).as_bytes());
    let answer = sent(WATCH, &[JSON_STREAM], ask("")).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/connect+json"));
    let states =
        [(0, json!({"status": "SERVING"})), (0, json!({"status": "NOT_SERVING"})), (0, json!({}))];
    assert_eq!(answer.envelopes(), [&states[..], &[(2, json!({}))]].concat());

    let answer = sent(WATCH, &[JSON_STREAM], ask("late")).await;
    let envelopes = answer.envelopes();
    assert_eq!(envelopes[..3], states);
    assert_eq!((envelopes[3].0, &envelopes[3].1["error"]["code"]), (2, &json!("unavailable")));

    let answer = sent(WATCH, &[JSON_STREAM], ask("at once")).await;
    assert_eq!(answer.status, 200);
    let envelopes = answer.envelopes();
    assert_eq!((envelopes.len(), envelopes[0].0), (1, 2));
    let details = envelopes[0].1["error"]["details"].as_array().unwrap();
    assert!(details.iter().any(|one| one["debug"]["reason"] == "NOT_READY"), "{details:?}");

    let proto = ("content-type", "application/connect+proto");
    let answer = sent(WATCH, &[proto], vec![0; 5]).await;
    assert_eq!(answer.content_type, "application/connect+proto");
    assert_eq!(
        &answer.body[..],
        b"\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x02\0\0\0\0\0\x02\0\0\0\x02{}"
    );
}

#[tokio::test(start_paused = true)]
async fn broken_envelopes_are_refused() {
    let two = [&enveloped(0, b"{}")[..], &enveloped(0, b"{}")].concat();
    for (body, why) in [
        (Vec::new(), "has no envelope"),
        (b"{}".to_vec(), "has no envelope"),
        (enveloped(1, b"{}").to_vec(), "flags"),
        (enveloped(0, b"{").to_vec(), "it is no JSON of HealthCheckRequest"),
        (b"\0\0\0\0\x09{}".to_vec(), "shorter than its envelope says"),
        (two, "more than one message"),
    ] {
        let answer = sent(WATCH, &[JSON_STREAM], body).await;
        let (flags, end) = answer.envelopes().pop().unwrap();
        assert_eq!((flags, &end["error"]["code"]), (2, &json!("invalid_argument")), "{why}");
        let message = end["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
}

fn shape(method: &str, path: &str, content_type: &str) -> Result<String, HeadRefusal> {
    let request = Request::builder().method(method).uri(path).version(Version::HTTP_2);
    let request = request.header("content-type", content_type).body(()).unwrap();
    Ok(match protocol(&request)? {
        Protocol::Grpc => "gRPC".to_owned(),
        Protocol::Document => "description".to_owned(),
        Protocol::Connect(call) => format!("{:?} {:?}", call.shape, call.format),
    })
}

#[test]
fn a_call_is_known_by_its_head() {
    let (list, watch) =
        ("/baremetal.v1.MachineService/ListMachines", "/baremetal.v1.RunService/WatchRuns");
    let start = "/baremetal.v1.RunService/StartRun";
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for (path, content_type, wanted) in [
        (list, "application/grpc", "gRPC"),
        (list, "application/grpc+proto", "gRPC"),
        (watch, "Application/gRPC; charset=x", "gRPC"),
        (list, "application/json", "Unary Json"),
        (list, "application/json;charset=utf-8", "Unary Json"),
        (list, "application/proto", "Unary Proto"),
        (watch, "application/connect+json", "Stream Json"),
        (watch, "application/connect+proto", "Stream Proto"),
        (reflection, "application/connect+proto", "Stream Proto"),
        ("/none", "application/json", "Unary Json"),
        ("/none", "application/connect+json", "Stream Json"),
    ] {
        assert_eq!(
            shape("POST", path, content_type).as_deref(),
            Ok(wanted),
            "{path} {content_type}"
        );
    }
    for (path, content_type) in [
        (list, ""),
        (list, "text/plain"),
        (list, "text/plain; application/json"),
        (list, "application/json; charset=utf-16"),
        (list, "application/json+x"),
        (list, "application/connect+json"),
        (watch, "application/json"),
        (watch, "application/proto"),
        (reflection, "application/json"),
        (reflection, "application/connect+json"),
        (list, "application/grpc-web"),
        (list, "application/grpc-web+proto"),
        (list, "application/grpc+json"),
        (list, "application/x-www-form-urlencoded"),
        (list, "multipart/form-data; boundary=application/grpc"),
    ] {
        assert_eq!(
            shape("POST", path, content_type),
            Err(HeadRefusal::ContentType),
            "{path} {content_type}"
        );
    }
    assert_eq!(shape("GET", "/openapi.json", "").as_deref(), Ok("description"));
    assert_eq!(shape("GET", list, "").as_deref(), Ok("Get Json"));
    let proto = format!("{list}?encoding=proto&message=");
    assert_eq!(shape("GET", &proto, "").as_deref(), Ok("Get Proto"));
    assert_eq!(shape("GET", &format!("{list}?encoding=xml"), ""), Err(HeadRefusal::ContentType));
    for (method, path) in [
        ("GET", start),
        ("GET", watch),
        ("GET", reflection),
        ("HEAD", list),
        ("PUT", list),
        ("OPTIONS", list),
        ("DELETE", "/"),
        ("CONNECT", "localhost:1"),
    ] {
        assert_eq!(
            shape(method, path, "application/json"),
            Err(HeadRefusal::Method),
            "{method} {path}"
        );
    }
    for method in ["GET", "HEAD"] {
        assert_eq!(shape(method, "/", ""), Err(HeadRefusal::Nothing));
    }
    let old = Request::builder().method("POST").uri(list).version(Version::HTTP_11);
    let old = old.header("content-type", HeaderValue::from_static("application/grpc"));
    assert!(matches!(protocol(&old.body(()).unwrap()), Err(HeadRefusal::Version)));
}

/// The table of the protocol's specification, written here once more.
#[test]
fn codes_are_those_of_the_table() {
    for (code, wanted, status) in [
        (Code::Ok, "ok", 200),
        (Code::Cancelled, "canceled", 499),
        (Code::Unknown, "unknown", 500),
        (Code::InvalidArgument, "invalid_argument", 400),
        (Code::DeadlineExceeded, "deadline_exceeded", 504),
        (Code::NotFound, "not_found", 404),
        (Code::AlreadyExists, "already_exists", 409),
        (Code::PermissionDenied, "permission_denied", 403),
        (Code::ResourceExhausted, "resource_exhausted", 429),
        (Code::FailedPrecondition, "failed_precondition", 400),
        (Code::Aborted, "aborted", 409),
        (Code::OutOfRange, "out_of_range", 400),
        (Code::Unimplemented, "unimplemented", 501),
        (Code::Internal, "internal", 500),
        (Code::Unavailable, "unavailable", 503),
        (Code::DataLoss, "data_loss", 500),
        (Code::Unauthenticated, "unauthenticated", 401),
    ] {
        assert_eq!(
            (name(code), http_status(code)),
            (wanted, StatusCode::from_u16(status).unwrap())
        );
    }
}
