//! grpc.health.v1 by its specification.
//!
//! tonic-health ends a Watch of an unknown service with NOT_FOUND; the specification wants SERVICE_UNKNOWN and an open
//! stream, since the service may come.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Services whose status is that of the whole server: not serving until recovery is done, and while draining.
const READINESS: [&str; 5] = [
    "",
    "readiness",
    "baremetal.v1.MachineService",
    "baremetal.v1.PlanService",
    "baremetal.v1.RunService",
];
/// Services that serve for as long as the process answers.
const LIVENESS: [&str; 3] =
    ["liveness", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Says whether the server is ready; shared with those who know.
#[derive(Debug, Clone)]
pub(super) struct Readiness(watch::Sender<bool>);

impl Readiness {
    /// Not ready.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Tells every watcher.
    pub(super) fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }

    /// The service to be served.
    pub(super) fn service(&self) -> HealthServer<Service> {
        HealthServer::new(Service { ready: self.0.subscribe() })
    }
}

/// The health service.
#[derive(Debug)]
pub(super) struct Service {
    ready: watch::Receiver<bool>,
}

/// Status of a service, `None` if there is none of that name.
fn status_of(service: &str, ready: bool) -> Option<ServingStatus> {
    if LIVENESS.contains(&service) {
        return Some(ServingStatus::Serving);
    }
    READINESS.contains(&service).then_some(if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    })
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let ready = *self.ready.borrow();
        status_of(&service, ready)
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
        let statuses = WatchStream::new(self.ready.clone())
            .map(move |ready| status_of(&service, ready).unwrap_or(ServingStatus::ServiceUnknown))
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
        let service = Service { ready: readiness.0.subscribe() };
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
    async fn watches_tell_changes_once_and_unknown_services_stay_open() {
        let readiness = Readiness::new();
        let service = Service { ready: readiness.0.subscribe() };
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
