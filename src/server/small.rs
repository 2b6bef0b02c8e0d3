//! Small HTTP listeners beside that of the API: few connections, each with a bounded life.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::activity::Activity;
use super::gate::Gate;
use crate::clock::Clock;

/// Time that a peer has for the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after a failed accept.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Serves until `stop`. A connection ends after `age_max`, idle or not.
pub(super) async fn serve<A, F>(
    listener: TcpListener,
    gate: Gate,
    age_max: Duration,
    builder: auto::Builder<TokioExecutor>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            clock.sleep(BACK_OFF).await;
            continue;
        };
        let activity = Activity::new(clock.clone());
        let Ok(permit) = gate.enter(peer.ip(), &activity, 0) else { continue };
        let answer = answer.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (answer, call) = (answer.clone(), activity.begin());
            async move {
                let _call = call;
                Ok::<_, Infallible>(answer(request, peer).await)
            }
        });
        let age = clock.sleep(age_max);
        let (stop, mut builder) = (stop.clone(), builder.clone());
        tokio::spawn(async move {
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection =
                builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            tokio::select! {
                served = connection => if let Err(error) = served {
                    tracing::debug!(%peer, error, "the connection of a small listener ended");
                },
                () = age => {}
                () = permit.leave.cancelled() => {}
                () = stop.cancelled() => {}
            }
            drop(permit);
        });
    }
}
