//! A stream of run events that survives the loss of its connection.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Streaming};

use crate::clock::Clock;
use crate::pb;

use super::client::Client;
use super::error::{Error, is_connection_loss};

/// How long to look for a server that went away.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Wait between two attempts to reconnect, at first and at most.
const RECONNECT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What a watch saw.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A change, a first snapshot, or the end of the snapshots.
    Event(Box<pb::RunEvent>),
    /// The connection broke; the next call reconnects.
    Lost,
    /// The server ended the stream.
    Ended,
}

/// A watch over the runs that match a filter.
#[derive(Debug)]
pub(crate) struct RunWatch {
    client: Client,
    clock: Arc<dyn Clock>,
    filter: String,
    resume_from: u64,
    stream: Option<Streaming<pb::RunEvent>>,
    lost_at: Option<Duration>,
    backoff: Duration,
}

impl RunWatch {
    /// A watch that begins with the present state of the runs.
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>, filter: String) -> Self {
        let backoff = RECONNECT_EVERY.0;
        Self { client, clock, filter, resume_from: 0, stream: None, lost_at: None, backoff }
    }

    /// Forgets the stream, which ended although it should not have.
    pub(crate) fn lose(&mut self) {
        self.stream = None;
        self.lost_at.get_or_insert(self.clock.monotonic());
    }

    /// The next thing seen. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What the server refused, or [`Error::Lost`] once it was away for a minute.
    pub(crate) async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(seen) = self.open().await? {
                    return Ok(seen);
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(event)) => {
                    self.note(&event);
                    return Ok(Seen::Event(Box::new(event)));
                }
                Ok(None) => return Ok(Seen::Ended),
                Err(status) if is_connection_loss(&status) => {
                    self.lose();
                    return Ok(Seen::Lost);
                }
                Err(status) if status.code() == Code::OutOfRange && self.resume_from > 0 => {
                    self.stream = None;
                    self.resume_from = 0;
                }
                Err(status) => return Err(Error::rpc(status)),
            }
        }
    }

    /// Snapshots do not move the resume point: a watch broken among them must begin again.
    fn note(&mut self, event: &pb::RunEvent) {
        self.lost_at = None;
        self.backoff = RECONNECT_EVERY.0;
        if event.r#type() != pb::RunEventType::Snapshot {
            self.resume_from = self.resume_from.max(event.revision);
        }
    }

    async fn open(&mut self) -> Result<Option<Seen>, Error> {
        let request = pb::WatchRunsRequest {
            filter: self.filter.clone(),
            resume_from: self.resume_from,
            ..pb::WatchRunsRequest::default()
        };
        match self.client.watch_runs(request).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(None)
            }
            Err(status) if status.code() == Code::OutOfRange && self.resume_from > 0 => {
                self.resume_from = 0;
                Ok(None)
            }
            Err(status) if is_connection_loss(&status) => {
                let now = self.clock.monotonic();
                let Some(lost_at) = self.lost_at else {
                    self.lost_at = Some(now);
                    return Ok(Some(Seen::Lost));
                };
                if now.saturating_sub(lost_at) > RECONNECT_LIMIT {
                    let resume =
                        format!("bmdemo-cli watch {}", self.filter.trim_start_matches("run_id="));
                    return Err(Error::Lost { address: self.client.address.clone(), resume });
                }
                self.clock.sleep(self.backoff).await;
                self.backoff = (self.backoff * 2).min(RECONNECT_EVERY.1);
                Ok(None)
            }
            Err(status) => Err(Error::rpc(status)),
        }
    }
}
