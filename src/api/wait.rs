//! `WaitRun`: the end of a run in one call, for clients without streams.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt as _;

use super::caller::Caller;
use super::show;
use super::status::ApiError;
use super::validate::Checks;
use crate::executor::Engine;
use crate::executor::feed::{Start, WatchItem};
use crate::lifecycle::run::State;
use crate::model::Run;
use crate::model::filter::{Filter, Subject};
use crate::pb;

/// Default time to wait.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Longest wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// Waits for the end of a run, for as long as the credentials of the caller are accepted.
pub(super) async fn wait(
    engine: &Engine,
    caller: &Caller,
    request: pb::WaitRunRequest,
) -> Result<pb::Run, ApiError> {
    let mut checks = Checks::default();
    let id = checks.run_id("run_id", &request.run_id);
    let timeout = timeout(&mut checks, request.timeout);
    let id = checks.done(id)?;
    let mut latest = caller.run(engine, id).await?;
    let mut ended = caller.ended();
    let over =
        |run: &Run| !run.state.is_active() || request.return_when_held && run.state == State::Held;
    let filter = Filter::parse(&format!("run_id = \"{id}\""), Subject::Run)?;
    let items = engine.watch().watch_runs(engine.store().clone(), filter, Start::Snapshot);
    let mut items = Box::pin(items);
    let mut timer = engine.clock().sleep(timeout);
    while !over(&latest) {
        tokio::select! {
            biased;
            () = &mut ended => {
                return Err(ApiError::CredentialsEnded { resume_from: latest.revision.0 });
            }
            item = items.next() => match item {
                Some(item) => latest = newer(latest, item?),
                None => break,
            },
            () = &mut timer => break,
        }
    }
    Ok(show::run(engine, &latest).await)
}

fn newer(latest: Arc<Run>, item: WatchItem<Run>) -> Arc<Run> {
    match item {
        WatchItem::Snapshot(run, _) => run,
        WatchItem::Change { event, .. } | WatchItem::Removed { event, .. } => event.record.clone(),
        WatchItem::Synced(_) | WatchItem::LeftOut(_) | WatchItem::Bookmark(_) => latest,
    }
}

/// A non-negative duration. The conversion of prost-types panics at the smallest of all values.
fn duration(given: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(given.seconds).ok()?;
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

fn timeout(checks: &mut Checks, given: Option<prost_types::Duration>) -> Duration {
    let Some(given) = given else { return TIMEOUT_DEFAULT };
    match duration(given) {
        Some(timeout) if timeout <= TIMEOUT_MAX => timeout,
        Some(_) | None => {
            checks.refuse("timeout", "must be at least zero and at most one hour");
            TIMEOUT_DEFAULT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_duration_is_a_timeout_or_refused() {
        let of = |seconds, nanos| duration(prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Some(Duration::from_millis(1_500)));
        assert_eq!(of(0, 0), Some(Duration::ZERO));
        assert!(of(i64::MAX, 999_999_999) > Some(TIMEOUT_MAX));
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (i64::MIN, 0),
            (i64::MIN, i32::MIN),
            (0, 1_000_000_000),
            (1, i32::MAX),
        ] {
            assert_eq!(of(seconds, nanos), None);
        }
    }
}
