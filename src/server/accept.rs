//! Accepts connections: enforces caps, and copes with running out of file descriptors.
//!
//! tonic's own loop has neither caps nor deadlines: a peer that connects and sends nothing would stay forever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Present;
use super::activity::Activity;
use super::admission::Admission;
use super::config::Keep;
use super::connection::{self, Membership};
use super::edge::Edge;
use super::gate::{Gate, Spare};
use super::tls::{Handshakes, Secured};
use crate::clock::Clock;

/// Delay after a failed accept, first and longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Time in which a connection in a place for admins has to show that it is one's.
const PROOF: Duration = Duration::from_secs(5);
/// Refused connections, and failures to accept, are logged at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// When serving ends, and how long connections have after that.
pub(super) struct End {
    pub(super) stop: CancellationToken,
    pub(super) goodbye: Duration,
}

/// Serves until `stop`, then sends GOAWAY on every connection and waits at most `goodbye` for them.
pub(super) async fn serve(
    listener: TcpListener,
    gate: Gate,
    edge: Edge,
    access: Present,
    keep: Keep,
    clock: Arc<dyn Clock>,
    end: End,
) {
    let End { stop, goodbye } = end;
    let connections = TaskTracker::new();
    let denials = edge.denials().clone();
    let handshakes = Handshakes::new(clock.clone(), denials.clone());
    let admission = Admission::new(access.clone(), clock.clone(), denials);
    let (mut failure, mut refusal) = (Complaint::default(), Complaint::default());
    let mut back_off = BACK_OFF.0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most likely out of file descriptors: connections wait in the kernel's queue until some are free.
                if failure.is_due(&*clock) {
                    tracing::warn!(%error, "cannot accept connections; retrying");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = clock.sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF.1);
                continue;
            }
        };
        back_off = BACK_OFF.0;
        let activity = Activity::new(clock.clone());
        let present = access.borrow().clone();
        let spares = if present.authenticates { gate.spares() } else { 0 };
        match gate.enter(peer.ip(), &activity, spares) {
            Ok(permit) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
                }
                let local = stream.local_addr().ok();
                let edge = edge.of_connection(local, Some(peer)).called(present.host_names.clone());
                let of = Membership { activity, leave: permit.leave.clone() };
                let (clock, stop) = (clock.clone(), stop.clone());
                let handshakes = handshakes.clone();
                let admission = match &permit.spare {
                    None => admission.clone(),
                    Some(spare) => {
                        tokio::spawn(end_unproven(spare.clone(), of.leave.clone(), clock.clone()));
                        admission.proving(spare.clone())
                    }
                };
                connections.spawn(async move {
                    match &present.tls {
                        None => {
                            let edge = edge.admitting(admission.of_connection(peer, &present, None));
                            connection::serve(stream, edge, keep, of, clock, stop).await;
                        }
                        Some(tls) => {
                            let secured = tokio::select! {
                                biased;
                                secured = handshakes.perform(stream, tls, peer) => secured,
                                () = of.leave.cancelled() => None,
                                () = stop.cancelled() => None,
                            };
                            if let Some(Secured { stream, certified }) = secured {
                                let admission = admission.of_connection(peer, &present, certified);
                                let edge = edge.admitting(admission.clone());
                                let leave = of.leave.clone();
                                tokio::select! {
                                    () = connection::serve(stream, edge, keep, of, clock, stop) => {}
                                    // Its client connects again, with its present certificate.
                                    () = async {
                                        admission.until_certificate_ended().await;
                                        leave.cancel();
                                        std::future::pending().await
                                    } => {}
                                }
                            }
                        }
                    }
                    drop(permit);
                });
            }
            Err(cap) => {
                if refusal.is_due(&*clock) {
                    tracing::warn!(%peer, cap, "refusing connections: a cap is reached");
                }
            }
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = clock.sleep(goodbye) => {
            tracing::info!(open = connections.len(), "closing connections that are still in use");
        }
    }
}

/// Ends a connection in a place for admins that has not shown in time that it is one's.
async fn end_unproven(spare: Spare, leave: CancellationToken, clock: Arc<dyn Clock>) {
    tokio::select! {
        () = leave.cancelled() => {}
        () = clock.sleep(PROOF) => {
            if !spare.is_proven() {
                leave.cancel();
            }
        }
    }
}

/// Keeps a flood of connections from flooding the log.
#[derive(Debug, Default)]
struct Complaint {
    last_at: Option<Duration>,
}

impl Complaint {
    fn is_due(&mut self, clock: &dyn Clock) -> bool {
        let now = clock.monotonic();
        let due = self.last_at.is_none_or(|at| now.saturating_sub(at) >= COMPLAINT_INTERVAL);
        if due {
            self.last_at = Some(now);
        }
        due
    }
}

/// Errors that concern one peer, as opposed to failures of accepting.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::Interrupted
    )
}

/// Binds a listener.
///
/// # Errors
/// Those of the operating system: the port is in use, the address is not one of this host.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
