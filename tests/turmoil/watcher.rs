//! A watch on every run that is resumed wherever it breaks.

use std::time::Duration;

use bmdemo::pb;
use bmdemo::pb::RunEventType;
use bmdemo::pb::run_service_client::RunServiceClient;
use tonic::Status;

use crate::book::{Mistake, Shared, Watched};
use crate::network::{clock, connect, in_time};

/// How often the watcher checks whether everything is over.
const LOOK: Duration = Duration::from_millis(200);

/// A watch without any event for this long is given up; bookmarks come every ten seconds.
const SILENT_MAX: Duration = Duration::from_secs(11);

/// Watches until every client is done and every change has been received.
pub(crate) async fn watch(
    clients: usize,
    mistake: Option<Mistake>,
    shared: Shared,
) -> turmoil::Result {
    let clock = clock();
    let mut position = Position::default();
    loop {
        let Some(channel) = connect(&clock).await else {
            clock.sleep(Duration::from_millis(50)).await;
            continue;
        };
        if position.resume_from > 0 {
            shared.book().report.resumed += 1;
        } else {
            shared.book().watched = Watched::default();
        }
        shared.note(format!("watch from {}", position.resume_from));
        position.is_synced = position.resume_from > 0;
        let resume_from = match mistake {
            Some(Mistake::ResumeTooEarly) => position.resume_from.saturating_sub(1),
            Some(Mistake::NewRequestId) | None => position.resume_from,
        };
        let request =
            pb::WatchRunsRequest { resume_from, allow_bookmarks: true, ..Default::default() };
        let mut client = RunServiceClient::new(channel);
        let opened = in_time(&clock, Duration::from_secs(2), client.watch_runs(request)).await;
        let mut events = match opened {
            Some(Ok(events)) => events.into_inner(),
            Some(Err(status)) => {
                broken(&shared, &status);
                clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => continue,
        };
        let mut silent = Duration::ZERO;
        while silent < SILENT_MAX {
            if shared.book().clients_done == clients {
                let rest = shared.changes(position.resume_from).await;
                if position.is_synced && rest.is_empty() {
                    return Ok(());
                }
            }
            match in_time(&clock, LOOK, events.message()).await {
                None => silent += LOOK,
                Some(Ok(Some(event))) => {
                    silent = Duration::ZERO;
                    position.take(event, &shared);
                }
                Some(Ok(None)) => {
                    shared.note("the watch ended".to_owned());
                    break;
                }
                Some(Err(status)) => {
                    broken(&shared, &status);
                    break;
                }
            }
        }
    }
}

fn broken(shared: &Shared, status: &Status) {
    shared.note(format!("the watch broke: {:?} {}", status.code(), status.message()));
    if matches!(status.code(), tonic::Code::OutOfRange | tonic::Code::InvalidArgument) {
        shared.accuse(format!("a watch cannot be resumed: {status:?}"));
    }
}

/// Position of the watch.
#[derive(Default)]
struct Position {
    resume_from: u64,
    is_synced: bool,
}

impl Position {
    fn take(&mut self, event: pb::RunEvent, shared: &Shared) {
        match event.r#type() {
            RunEventType::Snapshot if !self.is_synced => {}
            RunEventType::Synced if !self.is_synced => {
                self.is_synced = true;
                self.resume_from = event.revision;
                shared.book().watched.began = event.revision;
            }
            // It is part of the list.
            RunEventType::Change if !self.is_synced => {}
            RunEventType::Change => {
                self.resume_from = event.revision;
                let run = event.snapshot.unwrap_or_default();
                shared.book().watched.changes.push((run.revision, run.run_id));
            }
            RunEventType::Bookmark => self.resume_from = self.resume_from.max(event.revision),
            RunEventType::Unspecified
            | RunEventType::Snapshot
            | RunEventType::Synced
            | RunEventType::Removed
            | RunEventType::Reset => {
                shared.accuse(format!("an event out of place: {:?}", event.r#type()));
            }
        }
    }
}
