//! Event streams that survive the loss of their connection.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::clock::Clock;
use crate::pb;

use super::client::Client;
use super::error::Error;

/// How long a watch tries to reach a lost server, unless it is patient.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Wait between two attempts to reconnect, at first and at most.
const RECONNECT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often credentials are read again before a refusal counts.
const RENEWALS_MAX: u32 = 5;

/// An event of a stream that can be resumed.
pub(crate) trait Resumable: Sized {
    /// Opens the stream.
    fn open(
        client: &Client,
        filter: &str,
        resume_from: u64,
    ) -> impl Future<Output = Result<Streaming<Self>, Status>> + Send;
    /// Where to resume after this event; `None` for a snapshot: a stream that broke among those must start over.
    fn resume_point(&self) -> Option<u64>;
    /// Whether the server cannot resume: the present state follows.
    fn is_reset(&self) -> bool;
}

/// Whether a server that has no RESET says that it cannot resume here: the history is gone, or is that of another store.
fn is_out_of_history(status: &Status) -> bool {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
    status.code() == Code::OutOfRange
        || (status.code() == Code::InvalidArgument
            && violations.is_some_and(|all| all.iter().any(|one| one.field == "resume_from")))
}

/// What a user reads when a watch starts over.
pub(crate) const STARTED_OVER: &str =
    "the server does not know what was seen last: reading everything again";
/// The same, for a screen: it stays, since the screen shows the records of another server.
pub(crate) const READ_AGAIN: &str = "server changed: all read again";

impl Resumable for pb::RunEvent {
    async fn open(
        client: &Client,
        filter: &str,
        resume_from: u64,
    ) -> Result<Streaming<Self>, Status> {
        let filter = filter.to_owned();
        let request =
            pb::WatchRunsRequest { filter, resume_from, allow_reset: true, ..Default::default() };
        client.watch_runs(request).await
    }

    fn resume_point(&self) -> Option<u64> {
        (self.r#type() != pb::RunEventType::Snapshot).then_some(self.revision)
    }

    fn is_reset(&self) -> bool {
        self.r#type() == pb::RunEventType::Reset
    }
}

impl Resumable for pb::MachineEvent {
    async fn open(
        client: &Client,
        filter: &str,
        resume_from: u64,
    ) -> Result<Streaming<Self>, Status> {
        let filter = filter.to_owned();
        let request = pb::WatchMachinesRequest {
            filter,
            resume_from,
            allow_reset: true,
            ..Default::default()
        };
        client.watch_machines(request).await
    }

    fn resume_point(&self) -> Option<u64> {
        (self.r#type() != pb::MachineEventType::Snapshot).then_some(self.revision)
    }

    fn is_reset(&self) -> bool {
        self.r#type() == pb::MachineEventType::Reset
    }
}

/// What a watch saw.
#[derive(Debug)]
pub(crate) enum Seen<E> {
    /// A change, a first snapshot, or the end of the snapshots.
    Event(Box<E>),
    /// The connection broke; the next call reconnects.
    Lost,
    /// What was seen so far is void: the present state follows, as at the start.
    Reset,
    /// The server ended the stream.
    Ended,
}

/// A watch over the records that match a filter.
#[derive(Debug)]
pub(crate) struct Watch<E> {
    client: Client,
    clock: Arc<dyn Clock>,
    filter: String,
    resume_from: u64,
    stream: Option<Streaming<E>>,
    lost_at: Option<Duration>,
    /// How often the credentials were read again since the last event.
    renewals: u32,
    backoff: Duration,
    /// How long to try to reach a lost server.
    limit: Duration,
}

/// A watch over runs.
pub(crate) type RunWatch = Watch<pb::RunEvent>;
/// A watch over machines.
pub(crate) type MachineWatch = Watch<pb::MachineEvent>;

impl<E: Resumable> Watch<E> {
    /// A watch that starts with the present state.
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>, filter: String) -> Self {
        let backoff = RECONNECT_EVERY.0;
        let limit = RECONNECT_LIMIT;
        Self {
            client,
            clock,
            filter,
            resume_from: 0,
            stream: None,
            lost_at: None,
            renewals: 0,
            backoff,
            limit,
        }
    }

    /// Waits for a lost server as long as the caller does.
    pub(crate) fn patient(self) -> Self {
        Self { limit: Duration::MAX, ..self }
    }

    /// Drops the stream, which ended although it should not have.
    pub(crate) fn lose(&mut self) {
        self.stream = None;
        self.lost_at.get_or_insert(self.clock.monotonic());
    }

    /// The next thing seen. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// What the server refused, or [`Error::Lost`] once it was unreachable for a minute.
    pub(crate) async fn next(&mut self) -> Result<Seen<E>, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(seen) = self.open().await? {
                    return Ok(seen);
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(event)) => {
                    self.lost_at = None;
                    self.renewals = 0;
                    self.backoff = RECONNECT_EVERY.0;
                    if event.is_reset() {
                        self.resume_from = 0;
                        return Ok(Seen::Reset);
                    }
                    self.resume_from = self.resume_from.max(event.resume_point().unwrap_or(0));
                    return Ok(Seen::Event(Box::new(event)));
                }
                Ok(None) => return Ok(Seen::Ended),
                Err(status) if self.client.is_lost(&status) => {
                    self.lose();
                    return Ok(Seen::Lost);
                }
                Err(status) if self.can_renew(&status) => self.renew().await?,
                Err(status) if self.resume_from > 0 && is_out_of_history(&status) => {
                    self.stream = None;
                    self.resume_from = 0;
                    return Ok(Seen::Reset);
                }
                Err(status) => return Err(self.client.error(status)),
            }
        }
    }

    fn can_renew(&self, status: &Status) -> bool {
        self.renewals < RENEWALS_MAX && self.client.can_renew(status)
    }

    /// Reads the credentials again; the stream is opened again with them, from where it was.
    async fn renew(&mut self) -> Result<(), Error> {
        self.stream = None;
        if self.renewals > 0 {
            self.clock.sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(RECONNECT_EVERY.1);
        }
        self.renewals += 1;
        self.client.renew().await
    }

    async fn open(&mut self) -> Result<Option<Seen<E>>, Error> {
        match E::open(&self.client, &self.filter, self.resume_from).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(None)
            }
            Err(status) if self.resume_from > 0 && is_out_of_history(&status) => {
                self.resume_from = 0;
                Ok(Some(Seen::Reset))
            }
            Err(status) if self.can_renew(&status) => {
                self.renew().await?;
                Ok(None)
            }
            Err(status) if self.client.is_lost(&status) => {
                let now = self.clock.monotonic();
                let Some(lost_at) = self.lost_at else {
                    self.lost_at = Some(now);
                    return Ok(Some(Seen::Lost));
                };
                if now.saturating_sub(lost_at) > self.limit {
                    let resume = match self.filter.strip_prefix("run_id=") {
                        Some(run) => format!("bmdemo-cli watch {run}"),
                        None => "bmdemo-cli runs --watch".to_owned(),
                    };
                    return Err(Error::Lost { address: self.client.address.clone(), resume });
                }
                self.clock.sleep(self.backoff).await;
                self.backoff = (self.backoff * 2).min(RECONNECT_EVERY.1);
                Ok(None)
            }
            Err(status) => Err(self.client.error(status)),
        }
    }
}
