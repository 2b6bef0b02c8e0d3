//! Background work: retention, and the warning of an unprotected server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::config::Retention;
use crate::clock::{Clock, Timestamp};
use crate::store::{self, Store, StoreError, Trimmed};

/// Interval at which the warning of an unprotected server is repeated.
const WARNING_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Pause between two parts of one round, so that trimming never crowds out commits.
const PART_PAUSE: Duration = Duration::from_millis(20);

/// Deletes what the policy says, round after round. Never returns; a new policy starts a round at once.
pub(super) async fn retain(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mut policy: watch::Receiver<Retention>,
) {
    loop {
        let present = *policy.borrow_and_update();
        match round(&*store, &*clock, present).await {
            Ok(trimmed) if trimmed == Trimmed::default() => {}
            Ok(Trimmed { runs, changes, requests, audit }) => {
                tracing::info!(
                    runs,
                    changes,
                    requests,
                    audit,
                    "deleted data older than the retention"
                );
            }
            Err(error) => tracing::warn!(%error, "retention could not finish its round"),
        }
        tokio::select! {
            () = clock.sleep(present.interval) => {}
            changed = policy.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn round(
    store: &dyn Store,
    clock: &dyn Clock,
    policy: Retention,
) -> Result<Trimmed, StoreError> {
    let now = clock.now();
    let retention = store::Retention {
        ended_before: before(now, policy.ended_runs),
        ended_runs_max: policy.ended_runs_max,
        machine_changes_max: policy.machine_changes_max,
        requests_before: before(now, policy.requests),
        audit_before: before(now, policy.audit),
        audit_max: policy.audit_max,
    };
    let mut total = Trimmed::default();
    loop {
        let part = store.trim(retention).await?;
        if part == Trimmed::default() {
            return Ok(total);
        }
        total.runs += part.runs;
        total.changes += part.changes;
        total.requests += part.requests;
        total.audit += part.audit;
        clock.sleep(PART_PAUSE).await;
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// Repeatedly warns that anyone who can reach the server controls every machine.
pub(super) async fn warn_of_exposure(clock: Arc<dyn Clock>, address: std::net::SocketAddr) {
    loop {
        tracing::warn!(
            %address,
            "serving WITHOUT encryption and authentication of everyone (--insecure-no-auth): anyone who can reach this \
             address controls every machine"
        );
        clock.sleep(WARNING_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_back_from_now() {
        assert_eq!(before(Timestamp(10_000), Duration::from_secs(3)), Timestamp(7_000));
        assert_eq!(before(Timestamp(1), Duration::MAX), Timestamp(0));
    }
}
