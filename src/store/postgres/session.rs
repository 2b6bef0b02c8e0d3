//! How the writer gets its session, at first and after one was lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::{Conn, Purpose};
use super::error::{OpenError, unavailable, words};
use super::load::Loaded;
use super::options::PostgresOptions;
use super::place::{Expected, NotTaken, Place, end_former_session, lock, number, take};
use super::schema::migrate;
use super::shared::Shared;
use super::writer::{Work, Writer};
use crate::clock::{OsRandom, Random as _};
use crate::store::Availability;

/// How long a server that starts waits for its place: PostgreSQL may not have noticed yet that the one before is gone.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_STEP: Duration = Duration::from_millis(100);
/// The first and the longest delay before the next attempt to connect.
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// How long an attempt may take. One that waits for a standby, or for the end of the session before, is made again.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// How often a database that is away is mentioned in the log.
const REMINDER: Duration = Duration::from_secs(60);

impl Writer {
    /// Connects, takes the place of the one server, brings the tables up to date, and loads what is stored.
    pub(super) async fn open(
        options: Arc<PostgresOptions>,
        shared: Arc<Shared>,
        queue: UnboundedReceiver<Work>,
    ) -> Result<Self, OpenError> {
        let conn = Conn::open(&options, Purpose::Write).await?;
        let begun = shared.clock.monotonic();
        while let Err(error) = lock(&conn).await {
            match error {
                NotTaken::Held(holder) => {
                    if shared.clock.monotonic().saturating_sub(begun) >= PATIENCE {
                        return Err(OpenError::InUse { holder });
                    }
                    shared.clock.sleep(PATIENCE_STEP).await;
                }
                NotTaken::Lost(why) => return Err(OpenError::Damaged(why)),
                NotTaken::Failed(error) => return Err(error),
            }
        }
        migrate(&conn).await?;
        let holder = number(OsRandom.next_u64());
        let place = take(&conn, holder, None).await.map_err(|error| match error {
            NotTaken::Failed(error) => error,
            NotTaken::Held(why) | NotTaken::Lost(why) => OpenError::Damaged(why),
        })?;
        let state = Loaded::load(&conn).await?;
        let revision = state.counters.revision;
        let expected = Expected { store_id: place.store_id, holders: vec![holder], revision };
        let (plans, is_stale, ended) = (HashSet::new(), false, None);
        Ok(Self { options, shared, queue, conn, expected, holder, state, is_stale, plans, ended })
    }

    /// Gets a new session after one was lost. Meanwhile everything that is asked for is refused.
    ///
    /// # Errors
    /// Why the server cannot continue.
    pub(super) async fn reconnect(&mut self, why: &str) -> Result<Place, String> {
        let clock = self.shared.clock.clone();
        let since = clock.now();
        let (begun, mut mentioned) = (clock.monotonic(), clock.monotonic());
        self.shared.set(Availability::Away { since });
        tracing::warn!(why, "the database is away: nothing is read or written until it is back");
        let mut delay = DELAY_MIN;
        loop {
            let attempt = tokio::select! {
                biased;
                attempt = self.connect_again() => attempt,
                () = clock.sleep(ATTEMPT_MAX) => {
                    Err(NotTaken::Failed(OpenError::Setting("it does not answer".to_owned())))
                }
            };
            let last = match attempt {
                Ok(place) => {
                    let away_ms = clock.monotonic().saturating_sub(begun).as_millis();
                    self.shared.set(Availability::Ok);
                    tracing::info!(%away_ms, "the database is back");
                    return Ok(place);
                }
                Err(NotTaken::Lost(why)) => {
                    self.give_up(&why);
                    return Err(why);
                }
                Err(NotTaken::Held(holder)) => format!("its place is held: {holder}"),
                Err(NotTaken::Failed(OpenError::Postgres(error))) => words(&error),
                Err(NotTaken::Failed(error)) => error.to_string(),
            };
            let now = clock.monotonic();
            if now.saturating_sub(mentioned) >= REMINDER {
                mentioned = now;
                let seconds = now.saturating_sub(begun).as_secs();
                tracing::warn!(seconds, why = last, "the database is still away");
            }
            let sleep = clock.sleep(delay);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    biased;
                    () = &mut sleep => break,
                    work = self.queue.recv() => match work {
                        Some(work) => {
                            let error = unavailable(format!("the database is away: {last}"));
                            work.refuse(error, &self.shared);
                        }
                        // No one waits for more than what is in doubt.
                        None => return Err(format!("the database is away: {last}")),
                    }
                }
            }
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    async fn connect_again(&mut self) -> Result<Place, NotTaken> {
        let opened = Conn::open(&self.options, Purpose::Write).await;
        let conn = opened.map_err(NotTaken::Failed)?;
        if let Err(error) = lock(&conn).await {
            if let NotTaken::Held(_) = error {
                end_former_session(&conn, &self.expected).await?;
            }
            return Err(error);
        }
        let holder = number(OsRandom.next_u64());
        // Whether it is stored is not known until there is an answer.
        self.expected.holders.push(holder);
        let place = take(&conn, holder, Some(&self.expected)).await?;
        self.expected.holders = vec![holder];
        self.holder = holder;
        self.conn = conn;
        self.is_stale = true;
        Ok(place)
    }
}
