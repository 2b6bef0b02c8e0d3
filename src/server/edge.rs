//! Handling of calls before and after their handlers: readiness, deadlines, unknown methods.
//!
//! tonic answers an expired deadline with CANCELLED, an unknown method with an empty message, and broken framing with
//! INTERNAL.

mod kinds;
mod terms;
mod timeout;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::codegen::{Bytes, StdError};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, field};

use self::kinds::{is_reflection, is_stream, lasts, need};
use self::terms::{in_our_terms, too_many_wait};
use super::admission::Admission;
use super::body::Timely;
use super::checks::{self, HeadRefusal, HostNames};
use super::connect::{self, Carried, Protocol};
use super::denials::Denials;
use super::metrics::Metrics;
use super::peers::{Peer, Peers, TooMany};
use super::progress::Progress;
use super::refusals::Refusals;
use super::room::{Bounds, Place, Room};
use super::watches::{Full, Watches, Watching};
use super::{limits, sending, telemetry};
use crate::api::methods;
use crate::api::status::ApiError;
use crate::api::{Deadline, Identity};
use crate::clock::Clock;
use crate::executor::EngineError;

/// Services and the layer around their handlers. Cheap to clone: one per connection.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    /// Served from the start: health and reflection.
    always: Routes,
    /// Served once the engine has recovered.
    ready: Arc<OnceLock<Routes>>,
    clock: Arc<dyn Clock>,
    metrics: Option<Arc<Metrics>>,
    /// What the authority of a request must be; `None` where only this program can connect.
    host_names: Option<Arc<HostNames>>,
    refusals: Refusals,
    denials: Denials,
    room: Room,
    /// The part of the connection in the room; `None` before there is one.
    place: Option<Place>,
    peers: Option<Peers>,
    /// The peer of the connection, where its rates are limited.
    peer: Option<Peer>,
    watches: Option<Watches>,
    /// What finds out who calls; `None` where only this program can connect.
    admission: Option<Admission>,
    info: Option<TcpConnectInfo>,
}

impl Edge {
    /// Nothing but `always` is served until `ready` is set.
    pub(super) fn new(always: Routes, ready: Arc<OnceLock<Routes>>, clock: Arc<dyn Clock>) -> Self {
        Self {
            always,
            ready,
            metrics: None,
            host_names: None,
            refusals: Refusals::default(),
            denials: Denials::new(clock.clone(), Refusals::default()),
            room: Room::new(Bounds::default()),
            place: None,
            peers: None,
            peer: None,
            watches: None,
            admission: None,
            info: None,
            clock,
        }
    }

    /// The same, counting its calls.
    pub(super) fn measured(self, metrics: Option<Arc<Metrics>>) -> Self {
        Self { metrics, ..self }
    }

    /// The same, refusing what pages of other sites send, and counting what is refused.
    pub(super) fn guarded(self, host_names: HostNames, refusals: Refusals) -> Self {
        let denials = Denials::new(self.clock.clone(), refusals.clone());
        Self { host_names: Some(Arc::new(host_names)), refusals, denials, ..self }
    }

    /// The same, under these names.
    pub(super) fn called(self, host_names: Arc<HostNames>) -> Self {
        Self { host_names: self.host_names.map(|_| host_names), ..self }
    }

    /// The same for callers that may have to say who they are.
    pub(super) fn admitting(self, admission: Admission) -> Self {
        Self { admission: Some(admission), ..self }
    }

    /// Who calls. Health may be asked by anyone: a load balancer has no credentials, and it says nothing about machines.
    fn admit<B>(&self, request: &Request<B>) -> Result<Option<Identity>, Status> {
        match &self.admission {
            Some(admission) if !request.uri().path().starts_with("/grpc.health.") => {
                admission.admit(request.uri().path(), request.headers())
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The same, with room for answers that have not been sent.
    pub(super) fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// The same, limiting what a peer may ask for in a time, and how many watches there are.
    pub(super) fn rationed(self, peers: Peers, watches: Watches) -> Self {
        Self { peers: Some(peers), watches: Some(watches), ..self }
    }

    /// Takes what a mutation takes of what its peer may ask for.
    fn ration(&self, path: &str, peer: Option<&Peer>) -> Result<Option<Peer>, Status> {
        let is_mutation = methods::by_path(path).is_some_and(|method| method.is_mutation);
        let Some(peer) = peer.filter(|_| is_mutation) else { return Ok(None) };
        peer.mutate().map_err(|TooMany { limit, setting, per_s, .. }| {
            self.refusals.count(setting);
            let message = format!(
                "this {} changes more than the server takes of one, {per_s} a second (server.{setting})",
                peer.noun()
            );
            Status::from(ApiError::Engine(EngineError::Exhausted { limit, message }))
        })?;
        Ok(Some(peer.clone()))
    }

    /// A place for a watch, where they are limited; `None` for what is no watch.
    fn watching(&self, path: &str, peer: Option<&Peer>) -> Result<Option<Watching>, Status> {
        let (Some(watches), Some(place)) = (&self.watches, &self.place) else { return Ok(None) };
        if !is_stream(path) || is_reflection(path) {
            return Ok(None);
        }
        let Some(stream) = Progress::of_this_stream() else { return Ok(None) };
        let begun = watches.begin(place.connection(), peer.map(Peer::who), stream);
        begun.map(Some).map_err(|full| {
            self.refusals.count(full.setting());
            let message = match full {
                Full::All => "as many watches are open as are allowed, and no one has more of them than this caller (server.watches_max)".to_owned(),
                Full::Peer(most) => format!(
                    "this {} has {most} watches open, and may have no more (server.watches_per_peer_max)",
                    peer.map_or("address", Peer::noun)
                ),
            };
            Status::from(ApiError::Engine(EngineError::Exhausted { limit: "WATCHERS", message }))
        })
    }

    /// Who is refused is said here.
    pub(super) fn denials(&self) -> &Denials {
        &self.denials
    }

    /// What is refused is counted here.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether the head of a request says that it is for us, and a call, and of which protocol.
    fn check_head<B>(&self, request: &Request<B>) -> Result<Protocol, HeadRefusal> {
        if let Some(names) = &self.host_names {
            checks::has_host(request.version(), request.headers())?;
            checks::source(request.uri(), request.headers(), names)?;
        }
        connect::protocol(request)
    }

    /// The same for the calls of one connection.
    pub(super) fn of_connection(
        &self,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let info = TcpConnectInfo { local_addr: local, remote_addr: peer };
        let peer = self.peers.as_ref().zip(peer).map(|(peers, address)| peers.at(address.ip()));
        Self { info: Some(info), place: Some(self.room.place()), peer, ..self.clone() }
    }

    fn routes_of(&self, path: &str) -> Option<Routes> {
        if path.starts_with("/grpc.health.") || is_reflection(path) {
            return Some(self.always.clone());
        }
        self.ready.get().cloned()
    }
}

/// The answer of a call.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Edge
where
    B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        match self.check_head(&request) {
            Ok(Protocol::Grpc) => self.carry_out(request, None),
            Ok(Protocol::Connect(call)) => {
                let answer = self.carry_out(request, Some(call.clone()));
                Box::pin(async move { answer.await.map(|answer| call.refused(answer)) })
            }
            Ok(Protocol::Document) => {
                let admitted = self.admit(&request).map(|_| connect::described());
                let answer = admitted.unwrap_or_else(connect::refused);
                Box::pin(std::future::ready(Ok(answer)))
            }
            Err(refusal) => {
                self.refusals.count(refusal.cause());
                Box::pin(std::future::ready(Ok(refusal.response())))
            }
        }
    }
}

impl Edge {
    /// Carries out a call. What refuses one of Connect is said in the terms of gRPC all the same.
    fn carry_out<B>(&self, request: Request<B>, connect: Option<Arc<connect::Call>>) -> Answer
    where
        B: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        let identity = match self.admit(&request) {
            Ok(identity) => identity,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let body_limit = match is_reflection(request.uri().path()) {
            // Its requests come one after the other, as its client needs them.
            true => limits::CALL,
            false => limits::BODY,
        };
        let name = identity.as_ref().map(|identity| &identity.name);
        let peer = self.peer.as_ref().map(|peer| peer.known_as(name));
        let payer = match self.ration(request.uri().path(), peer.as_ref()) {
            Ok(payer) => payer,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let request =
            request.map(|body| Timely::new(body, body_limit, self.clock.clone()).paid_by(payer));
        let translated = match &connect {
            Some(call) => call.translated(request),
            None => Ok(request.map(Carried::plain)),
        };
        let mut request = match translated {
            Ok(request) => request,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        if let Some(identity) = identity {
            request.extensions_mut().insert(identity);
        }
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
            telemetry::continue_trace(&span, request.headers());
        }
        let timeout = match timeout::of(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            let late = ApiError::from(EngineError::DeadlineExceeded);
            return Box::pin(std::future::ready(Ok(Status::from(late).into_http())));
        }
        let timeout = timeout.or_else(|| (!lasts(&path)).then_some(limits::CALL));
        if let Some(timeout) = timeout {
            // The engine checks once more before it commits.
            request.extensions_mut().insert(Deadline(self.clock.monotonic() + timeout));
        }
        let Some(mut routes) = self.routes_of(&path) else {
            return Box::pin(std::future::ready(Ok(Status::from(ApiError::NotReady).into_http())));
        };
        let expired = timeout.map(|timeout| self.clock.sleep(timeout));
        let metrics = self.metrics.clone();
        let (place, refusals) = (self.place.clone(), self.refusals.clone());
        let edge = self.watches.is_some().then(|| self.clone());
        Box::pin(async move {
            // Only here is it known which stream this is.
            let begun = edge.as_ref().map_or(Ok(None), |edge| edge.watching(&path, peer.as_ref()));
            let watching = match begun {
                Ok(watching) => watching,
                Err(status) => return Ok(status.into_http()),
            };
            let answer = async {
                // Before the handler reads anything.
                let held = match (&place, need(&path, connect.is_some())) {
                    (Some(place), Some(need)) => match place.enter(need).await {
                        Some(held) => Some(held),
                        None => {
                            refusals.count("calls_waiting");
                            return Ok((too_many_wait().into_http(), None));
                        }
                    },
                    _ => None,
                };
                let response = caught(routes.call(request)).instrument(span.clone()).await;
                response.map(|response| (response, held))
            };
            let response = match expired {
                None => answer.await,
                Some(expired) => tokio::select! {
                    biased;
                    answer = answer => answer,
                    // The handler is dropped here; requests that it has passed to the engine continue.
                    () = expired => Ok((Status::from(ApiError::DeadlineExceeded).into_http(), None)),
                },
            };
            let (response, held) = response?;
            let mut response = in_our_terms(response, &path);
            let status = code_of(&response);
            let code = status.unwrap_or(Code::Ok);
            span.record("status", field::debug(code));
            if let Some(metrics) = metrics {
                metrics.called(&path, code);
            }
            response.headers_mut().insert("bmdemo-version", VERSION);
            if status.is_some() {
                // Nothing but a head.
                return Ok(response);
            }
            let held = held.or_else(|| Some(place.filter(|_| !is_stream(&path))?.hold(0)));
            let (head, body) = response.into_parts();
            let body = match (connect, held) {
                (Some(call), held) => return Ok(call.answered(head, body, held, watching).await),
                (None, Some(held)) => sending::whole(body, held).await,
                (None, None) => sending::noted(body, watching),
            };
            Ok(Response::from_parts(head, body))
        })
    }
}

/// The response of a call. A handler that panics answers INTERNAL, and the other calls of its connection continue.
async fn caught(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Result<Response<Body>, Infallible> {
    let mut answer = pin!(answer);
    let poll = |cx: &mut Context<'_>| {
        // A future that has panicked is not polled again.
        catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))).unwrap_or_else(|_| {
            let bug = EngineError::Internal("a handler panicked".to_owned());
            Poll::Ready(Ok(Status::from(ApiError::Engine(bug)).into_http()))
        })
    };
    std::future::poll_fn(poll).await
}

/// Metadata of every response, for `bmdemo-cli doctor` and for identifying the server.
const VERSION: HeaderValue = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));

/// The status of a response without a body; a stream that fails later is not seen here.
fn code_of(response: &Response<Body>) -> Option<Code> {
    response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests;
