//! The task of one receiver: reads the feed, sends, moves the cursor.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::event::{self, Event};
use super::post::Post;
use super::settings::{NotifyPorts, ReceiverSettings};
use super::status::Status;
use super::verdict::Verdict;
use crate::clock::{Clock, Random};
use crate::ids::Revision;
use crate::lifecycle::backoff::Backoff;
use crate::model::{Change, Cursor, Object};
use crate::store::{Batch, CursorMove, Store, StoreError};

/// Changes read from the feed at a time, except that a commit is read as a whole.
const PAGE: usize = 128;
/// Changes looked at, at a time, to count what waits.
const COUNTED: usize = 1_000;
/// Time between two such looks.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Least time between two moves of the cursor: what was sent since the last one is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The same where everything since then was of no interest: only retention needs it.
const SAVE_PASSED_EVERY: Duration = Duration::from_secs(60);
/// Between two attempts at an event, and after an error of the store.
const BACKOFF: Backoff = Backoff { first_ms: 1_000, ms_max: 60_000 };

/// This server does not own the cursor any more.
#[derive(Debug)]
struct Taken;

/// What was done since the cursor was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsaved {
    Nothing,
    Passed,
    Sent,
}

/// The task of one receiver.
pub(super) struct Worker {
    settings: ReceiverSettings,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    post: Arc<dyn Post>,
    status: Arc<Status>,
    woken: watch::Receiver<()>,
    is_owner: bool,
    /// The cursor as it is stored.
    stored: Cursor,
    /// The cursor as it should be.
    at: Cursor,
    unsaved: Unsaved,
    saved_at: Duration,
    /// Up to here events that wait were counted.
    counted: Revision,
    counted_at: Option<Duration>,
    /// Errors of the store in a row.
    failures: u32,
}

impl Worker {
    pub(super) fn new(
        settings: ReceiverSettings,
        ports: &NotifyPorts,
        post: Arc<dyn Post>,
        status: Arc<Status>,
        woken: watch::Receiver<()>,
    ) -> Self {
        let NotifyPorts { store, clock, random, .. } = ports.clone();
        let nowhere = Cursor::after(Revision(0));
        Self {
            settings,
            store,
            post,
            status,
            woken,
            is_owner: false,
            stored: nowhere,
            at: nowhere,
            unsaved: Unsaved::Nothing,
            saved_at: clock.monotonic(),
            counted: Revision(0),
            counted_at: None,
            failures: 0,
            clock,
            random,
        }
    }

    /// Notifies the receiver of what happens, as long as this server owns its cursor.
    pub(super) async fn run(mut self) {
        while !self.is_owner {
            if let Err(error) = self.try_claim().await {
                self.rest(&error).await;
            }
        }
        while let Ok(()) = self.round().await {}
        tracing::warn!(
            receiver = self.settings.name,
            "another server notifies this receiver now: this one has stopped"
        );
    }

    /// Takes the cursor over, if the store works; otherwise that is done by [`Worker::run`].
    pub(super) async fn begin(&mut self) {
        if let Err(error) = self.try_claim().await {
            tracing::debug!(receiver = self.settings.name, %error, "the cursor is taken later");
        }
    }

    /// Takes the cursor over. A new receiver begins with what happens from now on.
    async fn try_claim(&mut self) -> Result<(), StoreError> {
        loop {
            let receiver = self.settings.name.clone();
            let before = self.store.cursor(&receiver).await?;
            let begun = match before {
                Some(cursor) => cursor,
                None => Cursor::after(self.store.revisions().await?.0),
            };
            let after = Cursor { owner: begun.owner.next(), ..begun };
            let cursors = vec![CursorMove { receiver, before, after }];
            match self.store.commit(Batch { cursors, ..Batch::default() }).await {
                Ok(_) => {
                    (self.is_owner, self.stored, self.at) = (true, after, after);
                    self.saved_at = self.clock.monotonic();
                    self.store_works();
                    return Ok(());
                }
                // Read again: it has moved, or it was this server that moved it.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One page of the feed; waits for more at its end.
    async fn round(&mut self) -> Result<(), Taken> {
        // Before the feed is read: what comes meanwhile wakes.
        self.woken.mark_unchanged();
        let changes = match self.store.changes(self.at.passed(), PAGE).await {
            Ok(changes) => changes,
            Err(StoreError::Compacted { oldest }) => return self.gap(oldest).await,
            Err(error) => {
                self.rest(&error).await;
                return Ok(());
            }
        };
        self.store_works();
        if changes.is_empty() {
            return self.idle().await;
        }
        for commit in changes.chunk_by(|one, next| one.revision == next.revision) {
            self.commit(commit).await?;
        }
        Ok(())
    }

    /// Sends the events of one commit.
    async fn commit(&mut self, changes: &[Change]) -> Result<(), Taken> {
        let Some(revision) = changes.first().map(|change| change.revision) else { return Ok(()) };
        if revision > self.at.next {
            (self.at.next, self.at.done) = (revision, 0);
        }
        let mut index = 0;
        for change in changes {
            let first = index;
            index += u32::try_from(change.entries.len()).unwrap_or(u32::MAX);
            if index <= self.at.done || !self.concerns(change).await {
                continue;
            }
            for (index, entry) in (first..).zip(change.entries.iter()) {
                if index < self.at.done || !self.settings.interest.kinds.contains(&entry.kind) {
                    continue;
                }
                let event = event::of_entry(&self.settings.source, change, index, entry);
                self.deliver(&event).await?;
                self.at.done = index + 1;
                self.unsaved = Unsaved::Sent;
                if revision <= self.counted {
                    self.status
                        .change(|standing| standing.waiting = standing.waiting.saturating_sub(1));
                }
                self.save_if_due().await?;
            }
        }
        (self.at.next, self.at.done) = (Revision(revision.0.saturating_add(1)), 0);
        self.unsaved = self.unsaved.max(Unsaved::Passed);
        self.save_if_due().await
    }

    /// Whether a change is sent at all.
    async fn concerns(&self, change: &Change) -> bool {
        let interest = &self.settings.interest;
        if !interest.wants(change) {
            return false;
        }
        let machine = match (&change.object, change.machine_id()) {
            (Object::Run(_), Some(id)) if interest.needs_machine(change) => {
                // As it was then; what cannot be looked up is sent.
                self.store.machine_at(id, change.revision).await.unwrap_or_default()
            }
            (Object::Run(_) | Object::Machine(_), _) => None,
        };
        interest.concerns(change, machine.as_deref())
    }

    /// Sends an event until it is taken or refused.
    async fn deliver(&mut self, event: &Event) -> Result<(), Taken> {
        self.status.change(|standing| standing.oldest = Some(event.at));
        let begun = self.clock.monotonic();
        let mut failures = 0_u32;
        loop {
            let verdict = self.post.post(event).await;
            let (why, retry_at) = match verdict {
                Verdict::Taken => {
                    self.taken(failures);
                    return Ok(());
                }
                Verdict::Refused(why) => {
                    self.refused(event, &why);
                    return Ok(());
                }
                Verdict::Later(why, retry_at) => (why, retry_at),
            };
            failures = failures.saturating_add(1);
            let tried = self.clock.monotonic().saturating_sub(begun);
            if self.settings.give_up_after.is_some_and(|most| tried >= most) {
                self.refused(event, &format!("it was not taken for {} s: {why}", tried.as_secs()));
                return Ok(());
            }
            if failures == 1 {
                tracing::warn!(
                    receiver = self.settings.name,
                    why,
                    event = event.kind,
                    "a receiver does not take an event: events wait for it"
                );
            }
            self.status.change(|standing| {
                standing.error = why;
                standing.retries += 1;
            });
            // It may take long: a crash must not send again what was taken.
            self.save().await?;
            self.count().await;
            let ms = BACKOFF.delay_ms(failures, self.random.next_u64());
            let asked = retry_at.map_or(Duration::ZERO, |at| at.since(self.clock.now()));
            self.clock.sleep(asked.max(Duration::from_millis(ms))).await;
        }
    }

    fn taken(&self, failures: u32) {
        if failures > 0 {
            tracing::info!(receiver = self.settings.name, "a receiver takes events again");
        }
        let now = self.clock.now();
        self.status.change(|standing| {
            standing.delivered += 1;
            standing.delivered_at = Some(now);
            standing.error.clear();
        });
    }

    fn refused(&self, event: &Event, why: &str) {
        tracing::warn!(
            receiver = self.settings.name,
            why,
            event = event.kind,
            id = event.id,
            "an event was left out"
        );
        self.status.change(|standing| {
            standing.refused += 1;
            standing.error.clear();
        });
    }

    /// Changes were deleted that the receiver has not got: it is notified of that, and continues after them.
    async fn gap(&mut self, oldest: Revision) -> Result<(), Taken> {
        let from = self.at.next;
        tracing::warn!(
            receiver = self.settings.name,
            from = from.0,
            to = oldest.0,
            "the history was deleted before a receiver was notified of it"
        );
        let event = event::of_gap(&self.settings.source, from, oldest, self.clock.now());
        self.status.change(|standing| standing.gaps += 1);
        self.deliver(&event).await?;
        (self.at.next, self.at.done) = (Revision(oldest.0.saturating_add(1)), 0);
        self.unsaved = Unsaved::Sent;
        self.save().await
    }

    /// Everything is sent: waits for more.
    async fn idle(&mut self) -> Result<(), Taken> {
        self.status.change(|standing| {
            standing.waiting = 0;
            standing.oldest = None;
        });
        self.counted = self.at.passed();
        self.save_if_due().await?;
        let every = match self.unsaved {
            Unsaved::Nothing => None,
            Unsaved::Passed => Some(SAVE_PASSED_EVERY),
            Unsaved::Sent => Some(SAVE_EVERY),
        };
        let due = async {
            match every {
                Some(every) => {
                    let since = self.clock.monotonic().saturating_sub(self.saved_at);
                    self.clock.sleep(every.saturating_sub(since)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error: the store is gone, and so is this server soon.
            woken = self.woken.changed() => if woken.is_err() {
                std::future::pending::<()>().await;
            },
            () = due => {}
        }
        Ok(())
    }

    async fn save_if_due(&mut self) -> Result<(), Taken> {
        let since = self.clock.monotonic().saturating_sub(self.saved_at);
        let is_due = match self.unsaved {
            Unsaved::Nothing => false,
            Unsaved::Passed => since >= SAVE_PASSED_EVERY,
            Unsaved::Sent => since >= SAVE_EVERY,
        };
        if is_due { self.save().await } else { Ok(()) }
    }

    /// Stores the cursor.
    async fn save(&mut self) -> Result<(), Taken> {
        while self.stored != self.at {
            let receiver = self.settings.name.clone();
            let step = CursorMove { receiver, before: Some(self.stored), after: self.at };
            match self.store.commit(Batch { cursors: vec![step], ..Batch::default() }).await {
                Ok(_) => self.stored = self.at,
                // It may be durable although its outcome was unknown.
                Err(StoreError::Conflict { .. }) => self.look().await?,
                Err(error) => {
                    self.rest(&error).await;
                    // Sending is not stopped by a full disk: it is repeated at worst.
                    return Ok(());
                }
            }
        }
        self.unsaved = Unsaved::Nothing;
        self.saved_at = self.clock.monotonic();
        Ok(())
    }

    /// Reads the cursor again after a conflict.
    async fn look(&mut self) -> Result<(), Taken> {
        loop {
            match self.store.cursor(&self.settings.name).await {
                Ok(Some(cursor)) if cursor.owner == self.at.owner => {
                    self.stored = cursor;
                    return Ok(());
                }
                Ok(_) => return Err(Taken),
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// Counts the events that wait: a bounded part of the feed at a time.
    async fn count(&mut self) {
        let now = self.clock.monotonic();
        if self.counted_at.is_some_and(|at| now.saturating_sub(at) < COUNT_EVERY) {
            return;
        }
        self.counted_at = Some(now);
        if self.counted < self.at.next {
            self.counted = self.at.passed();
            self.status.change(|standing| standing.waiting = 0);
        }
        // Without an answer the figure stays what it is.
        let Ok(changes) = self.store.changes(self.counted, COUNTED).await else { return };
        let mut waiting = 0;
        for commit in changes.chunk_by(|one, next| one.revision == next.revision) {
            let mut index = 0;
            for change in commit {
                let first = index;
                index += u32::try_from(change.entries.len()).unwrap_or(u32::MAX);
                if !self.concerns(change).await {
                    continue;
                }
                let waits = |index| change.revision > self.at.next || index >= self.at.done;
                let entries = (first..).zip(change.entries.iter());
                let wanted = entries.filter(|(index, entry)| {
                    waits(*index) && self.settings.interest.kinds.contains(&entry.kind)
                });
                waiting += wanted.count() as u64;
            }
            self.counted = commit.last().map_or(self.counted, |change| change.revision);
        }
        self.status.change(|standing| standing.waiting += waiting);
    }

    fn store_works(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.status.change(|standing| standing.error.clear());
        }
    }

    /// Waits after an error of the store.
    async fn rest(&mut self, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::warn!(receiver = self.settings.name, %error, "a receiver cannot be notified: the store fails");
        }
        self.status.change(|standing| standing.error = format!("the store fails: {error}"));
        let ms = BACKOFF.delay_ms(self.failures, self.random.next_u64());
        self.clock.sleep(Duration::from_millis(ms)).await;
    }
}
