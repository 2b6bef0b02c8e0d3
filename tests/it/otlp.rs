//! Spans of the real server, at the test's own collector.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bmdemo::pb;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::runs::{register, watched};
use crate::support::{Server, within};

// The part of opentelemetry.proto.collector.trace.v1 that is used.

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    truth: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

fn fields(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let shown = |value: &Value| {
        let text = value.text.clone().or(value.truth.map(|truth| truth.to_string()));
        text.or(value.number.map(|number| number.to_string())).unwrap_or_default()
    };
    attributes
        .iter()
        .filter_map(|field| Some((field.key.as_str(), shown(field.value.as_ref()?))))
        .collect()
}

/// A collector that keeps what it receives.
#[derive(Clone)]
struct Collector(watch::Sender<Vec<ResourceSpans>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Export> for Collector {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        self.0.send_modify(|kept| kept.extend(request.into_inner().resources));
        ready(Ok(Response::new(())))
    }
}

impl tower::Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<(), Export>::default());
            Ok(grpc.unary(collector, request).await)
        })
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_seen_by_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (kept, mut sent) = watch::channel(Vec::new());
    let collector: Router = tonic::transport::Server::builder().add_service(Collector(kept));
    tokio::spawn(collector.serve_with_incoming(TcpListenerStream::new(listener)));

    let script = "machine=machine-1 step=join do=fail times=1";
    let args = ["--otlp-endpoint", &url, "--fake-script", script, "--log-level", "warn"];
    let server = Server::ephemeral(&args).await;
    let channel = server.channel().await;
    register(&channel, 1).await;
    let mut request = Request::new(pb::StartRunRequest {
        request_id: "traced".to_owned(),
        machine_id: "machine-1".to_owned(),
        plan_id: "plan/repave-join".to_owned(),
        ..Default::default()
    });
    let traceparent = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", traceparent);
    let run = RunServiceClient::new(channel.clone()).start_run(request).await.unwrap().into_inner();
    let run = watched(channel, &run.run_id).await.unwrap();
    assert_eq!(run.phase(), pb::RunPhase::Succeeded);
    // Spans are sent in the order in which they end: of the spans checked here, that of the run is the last.
    let has_run = |kept: &Vec<ResourceSpans>| {
        let scopes = kept.iter().flat_map(|kept| &kept.scopes);
        scopes.flat_map(|scope| &scope.spans).any(|span| span.name == "run")
    };
    let kept = within("the spans are sent", sent.wait_for(has_run)).await.unwrap().clone();
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success(), "{log}");

    let resource = fields(&kept[0].resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "bmdemo-server");
    let spans: Vec<&Span> =
        kept.iter().flat_map(|kept| &kept.scopes).flat_map(|scope| &scope.spans).collect();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();

    let start = named("/baremetal.v1.RunService/StartRun")[0];
    assert_eq!((hex(&start.trace_id), hex(&start.parent)), (TRACE.to_owned(), CALLER.to_owned()));
    let found = fields(&start.attributes);
    assert_eq!(found["request_id"], "traced");
    assert_eq!(found["status"], "Ok");

    let runs = named("run");
    let [seen] = runs[..] else { panic!("one run, not {runs:?}") };
    let found = fields(&seen.attributes);
    assert_eq!((&found["run_id"], &found["plan"]), (&run.run_id, &run.plan_id));
    assert_eq!((&*found["machine_id"], &*found["outcome"]), ("machine-1", "SUCCEEDED"));
    assert_eq!(found["taken_up"], "false");
    assert_eq!(seen.links[0].span_id, start.span_id);
    assert_eq!(seen.links[0].trace_id, start.trace_id);

    let steps = named("step");
    assert!(steps.iter().all(|step| step.parent == seen.span_id));
    let attempts: Vec<_> = steps
        .iter()
        .map(|step| fields(&step.attributes))
        .map(|span| format!("{} {} {}", span["step"], span["attempt"], span["outcome"]))
        .collect();
    assert_eq!(
        attempts,
        [
            "set-netboot 1 SUCCEEDED",
            "repave 1 SUCCEEDED",
            "mint-join 1 SUCCEEDED",
            "join 1 RETRIED",
            "join 2 SUCCEEDED",
            "verify 1 SUCCEEDED",
        ]
    );
    let calls = named("call");
    assert!(calls.iter().all(|call| steps.iter().any(|step| call.parent == step.span_id)));
    let acted = calls.iter().filter(|call| fields(&call.attributes)["kind"] == "act");
    assert!(acted.count() >= steps.len(), "{calls:?}");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_refused() {
    for (url, said) in
        [("https://127.0.0.1:4317", "TLS is not supported"), ("4317", "http://HOST:PORT")]
    {
        let ended = crate::support::run_to_end(&["--ephemeral", "--otlp-endpoint", url]).await;
        let log = crate::support::text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(78), "{log}");
        assert!(log.contains(said), "{log}");
    }
}
