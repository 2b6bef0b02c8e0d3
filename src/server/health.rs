//! grpc.health.v1 according to its specification.
//!
//! tonic-health ends a Watch of an unknown service with NOT_FOUND; the specification requires SERVICE_UNKNOWN and an
//! open stream, since the service may come.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::executor::Engine;
use crate::store::Availability;

/// Services with the status of the whole server: not serving until recovery is done, while draining, while the database is
/// away, and once the store accepts no more writes.
const READINESS: [&str; 8] = [
    "",
    "readiness",
    "baremetal.v1.AuditService",
    "baremetal.v1.LockService",
    "baremetal.v1.MachineService",
    "baremetal.v1.PlanService",
    "baremetal.v1.RunService",
    "baremetal.v1.ServerService",
];
/// Services that serve as long as the process responds and need not be restarted: a store that accepts no more writes
/// needs a restart.
const LIVENESS: [&str; 3] =
    ["liveness", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Health of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is recovering its runs, or is about to end.
    NotReady,
    Ready,
    /// Its store accepts no more writes: only a restart helps.
    Broken,
}

/// Sets whether the server is ready; shared by the parts that know.
#[derive(Debug, Clone)]
pub(super) struct Readiness(watch::Sender<State>);

impl Readiness {
    /// Not ready.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::NotReady))
    }

    /// Notifies every watcher.
    pub(super) fn set(&self, ready: bool) {
        self.0.send_if_modified(|state| {
            let is_broken = *state == State::Broken;
            if !is_broken {
                *state = if ready { State::Ready } else { State::NotReady };
            }
            !is_broken
        });
    }

    /// Follows whether the store accepts writes: while its database is away, the server is not ready. Never returns.
    pub(super) async fn follow(
        self,
        mut availability: watch::Receiver<Availability>,
        engine: Engine,
    ) {
        let mut was_away = false;
        loop {
            let state = *availability.borrow_and_update();
            let is_away = matches!(state, Availability::Away { .. });
            if matches!(state, Availability::Broken { .. }) {
                self.broken();
            } else if is_away != was_away && !engine.is_draining() {
                self.set(!is_away);
            }
            was_away = is_away;
            if availability.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Nothing can be written any more, until the server is restarted.
    pub(super) fn broken(&self) {
        self.0.send_replace(State::Broken);
    }

    /// The service to serve.
    pub(super) fn service(&self) -> HealthServer<Service> {
        HealthServer::new(Service { state: self.0.subscribe() })
    }
}

/// The health service.
#[derive(Debug)]
pub(super) struct Service {
    state: watch::Receiver<State>,
}

/// Status of a service, `None` if it does not exist.
fn status_of(service: &str, state: State) -> Option<ServingStatus> {
    let serves = if LIVENESS.contains(&service) {
        state != State::Broken
    } else if READINESS.contains(&service) {
        state == State::Ready
    } else {
        return None;
    };
    Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let state = *self.state.borrow();
        status_of(&service, state)
            .map(|status| Response::new(HealthCheckResponse { status: status.into() }))
            .ok_or_else(|| {
                let names: Vec<&str> = READINESS.into_iter().chain(LIVENESS).skip(1).collect();
                Status::not_found(format!("unknown service; known are \"\", {}", names.join(", ")))
            })
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let mut last = None;
        let statuses = WatchStream::new(self.state.clone())
            .map(move |state| status_of(&service, state).unwrap_or(ServingStatus::ServiceUnknown))
            .filter_map(move |status| {
                let changed = last != Some(status);
                last = Some(status);
                changed.then(|| Ok(HealthCheckResponse { status: status.into() }))
            });
        Ok(Response::new(Box::pin(statuses)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(service: &Service, name: &str) -> Result<ServingStatus, tonic::Code> {
        let request = Request::new(HealthCheckRequest { service: name.to_owned() });
        match service.check(request).await {
            Ok(response) => Ok(response.into_inner().status()),
            Err(status) => Err(status.code()),
        }
    }

    #[tokio::test]
    async fn readiness_follows_the_server_and_liveness_does_not() {
        let readiness = Readiness::new();
        let service = Service { state: readiness.0.subscribe() };
        for (ready, expected) in
            [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)]
        {
            readiness.set(ready);
            for name in READINESS {
                assert_eq!(check(&service, name).await, Ok(expected), "{name}");
            }
            for name in LIVENESS {
                assert_eq!(check(&service, name).await, Ok(ServingStatus::Serving), "{name}");
            }
        }
        assert_eq!(check(&service, "nobody.Knows").await, Err(tonic::Code::NotFound));
    }

    #[tokio::test]
    async fn a_store_that_takes_no_more_writes_is_not_served_and_calls_for_a_restart() {
        let readiness = Readiness::new();
        let service = Service { state: readiness.0.subscribe() };
        readiness.set(true);
        readiness.broken();
        for ready in [true, false] {
            readiness.set(ready);
            for name in READINESS.into_iter().chain(LIVENESS) {
                assert_eq!(check(&service, name).await, Ok(ServingStatus::NotServing), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn watches_report_changes_once_and_unknown_services_stay_open() {
        let readiness = Readiness::new();
        let service = Service { state: readiness.0.subscribe() };
        let watch = async |name: &str| {
            let request = Request::new(HealthCheckRequest { service: name.to_owned() });
            service.watch(request).await.unwrap().into_inner()
        };
        let (mut known, mut unknown) = (watch("").await, watch("nobody.Knows").await);
        let next = async |stream: &mut <Service as Health>::WatchStream| {
            stream.next().await.unwrap().unwrap().status()
        };
        assert_eq!(next(&mut known).await, ServingStatus::NotServing);
        assert_eq!(next(&mut unknown).await, ServingStatus::ServiceUnknown);
        readiness.set(true);
        assert_eq!(next(&mut known).await, ServingStatus::Serving);
        let mut silent = std::pin::pin!(unknown.next());
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(
                silent.as_mut().poll(cx).is_pending()
            ))
            .await
        );
    }
}
