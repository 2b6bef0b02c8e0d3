//! One watch: lists, catches up from the change feed of the store, then follows its queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio_stream::{Stream, StreamExt as _};

use super::event::{Judged, Part, Verdict};
use super::groups::Grouped;
use super::hub::{Behind, Subscription, WatchHub};
use super::item::{Start, WatchItem};
use super::queue::Popped;
use super::watched::Interest;
use crate::clock::Sleep;
use crate::executor::error::EngineError;
use crate::ids::Revision;
use crate::model::filter::Filter;
use crate::model::{Machine, Run};
use crate::store::{Position, Query, Store};

/// A lagging watcher rests once it owes this much.
const REST_MIN: Duration = Duration::from_millis(5);

impl WatchHub {
    /// Watches the runs that match `filter`.
    ///
    /// A watch whose filter pins one `run_id` ends after the event that ended the run; any other lasts until it is
    /// dropped. A failed item is the last one.
    pub fn watch_runs(
        &self,
        store: Arc<dyn Store>,
        filter: Filter,
        start: Start,
    ) -> impl Stream<Item = Result<WatchItem<Run>, EngineError>> + Send + 'static + use<> {
        open::<Run>(self.clone(), store, filter, start)
    }

    /// Watches the machines that match `filter`.
    pub fn watch_machines(
        &self,
        store: Arc<dyn Store>,
        filter: Filter,
        start: Start,
    ) -> impl Stream<Item = Result<WatchItem<Machine>, EngineError>> + Send + 'static + use<> {
        open::<Machine>(self.clone(), store, filter, start)
    }
}

/// Opens a watch. Nothing happens, and no resources are held, before it is first polled.
fn open<T: Grouped>(
    hub: WatchHub,
    store: Arc<dyn Store>,
    filter: Filter,
    start: Start,
) -> impl Stream<Item = Result<WatchItem<T>, EngineError>> + Send + 'static {
    let opening = Opening { hub, store, filter, start };
    unfold(Watch::Opening(opening), |watch| async move {
        let mut live = match watch {
            Watch::Opening(opening) => match opening.open().await {
                Ok(live) => Box::new(live),
                Err(error) => return Some((Err(error), Watch::Over)),
            },
            Watch::Live(live) => live,
            Watch::Over => return None,
        };
        match live.next().await {
            Ok(Some(item)) => Some((Ok(item), Watch::Live(live))),
            Ok(None) => None,
            Err(error) => Some((Err(error), Watch::Over)),
        }
    })
    .fuse()
}

enum Watch<T: Grouped> {
    Opening(Opening),
    Live(Box<Live<T>>),
    Over,
}

struct Opening {
    hub: WatchHub,
    store: Arc<dyn Store>,
    filter: Filter,
    start: Start,
}

impl Opening {
    async fn open<T: Grouped>(self) -> Result<Live<T>, EngineError> {
        // Subscribe first, then read the store: what happens in between is in the queue.
        let interest = Interest::new(self.filter, self.hub.shared.planted);
        let subscription = self.hub.subscribe(&interest)?;
        let (newest, _) = self.store.revisions().await?;
        let (position, stage, resume) = match self.start {
            Start::Snapshot => (Revision(0), Stage::Listing { after: None }, None),
            Start::Resume(revision) if revision > newest => {
                return Err(EngineError::invalid(
                    "resume_from",
                    format!(
                        "is {revision}, but the newest revision is {newest}: was it taken from another store? \
                         Watch from 0 to start with the present state"
                    ),
                ));
            }
            Start::Resume(revision) => (revision, Stage::Behind { target: None }, Some(revision)),
            Start::Now => (newest, Stage::Following, Some(newest)),
        };
        let mut live = Live {
            subscription,
            store: self.store,
            interest,
            stage,
            position,
            resume,
            sync_at: None,
            floors: Vec::new(),
            created_since: BTreeMap::new(),
            newest_old: u64::MAX,
            pending: VecDeque::new(),
            bookmark: None,
            behind: None,
            owed: Duration::ZERO,
        };
        if self.start == Start::Now {
            live.pending.push_back(WatchItem::Synced(newest));
            live.end_if_over().await?;
        }
        Ok(live)
    }
}

enum Stage {
    /// Listing the present state, page by page.
    Listing { after: Option<u64> },
    /// Reading the change feed up to `target`, the newest revision when it rejoined its queue.
    Behind { target: Option<Revision> },
    /// Reading its queue.
    Following,
    /// The end.
    Over,
}

struct Live<T: Grouped> {
    subscription: Subscription<T>,
    store: Arc<dyn Store>,
    interest: Interest<T>,
    stage: Stage,
    /// Everything up to here has been sent.
    position: Revision,
    /// Where a client may resume after the last commit sent; `None` while the snapshots are incomplete.
    resume: Option<Revision>,
    /// Sends `Synced` once the position is here.
    sync_at: Option<Revision>,
    /// For each listed page: the last ordinal it covers, and the revision at which it was read. Changes of its
    /// records up to that revision are in the snapshots already.
    floors: Vec<(u64, Revision)>,
    /// Ordinals of the records sent as snapshots that were created after the listing started. Events of a deleted
    /// record with the same id are not sent after them: they would be taken for events of the new one.
    created_since: BTreeMap<T::Id, u64>,
    /// The last ordinal assigned before the listing started.
    newest_old: u64,
    pending: VecDeque<WatchItem<T>>,
    bookmark: Option<Sleep>,
    behind: Option<Behind>,
    /// Rest that it owes to the other lagging watchers.
    owed: Duration,
}

impl<T: Grouped> Live<T> {
    async fn next(&mut self) -> Result<Option<WatchItem<T>>, EngineError> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Ok(Some(item));
            }
            match self.stage {
                Stage::Listing { after } => self.list(after).await?,
                Stage::Behind { target } => self.catch_up(target).await?,
                Stage::Following => self.follow().await?,
                Stage::Over => return Ok(None),
            }
        }
    }

    async fn list(&mut self, after: Option<u64>) -> Result<(), EngineError> {
        let limit = self.subscription.hub.shared.limits.page_size;
        if after.is_none() && T::RETURNS {
            let newest = Query { limit: 1, descending: true, ..Query::default() };
            let newest = T::page(self.store.as_ref(), newest).await?;
            self.newest_old = newest.items.first().map_or(0, |record| record.ordinal());
        }
        let after = after.map(Position::Ordinal);
        let query =
            Query { filter: self.interest.filter.clone(), after, limit, ..Query::default() };
        let page = T::page(self.store.as_ref(), query).await?;
        if self.floors.is_empty() {
            self.position = page.as_of;
        }
        let next = page.next.as_ref().and_then(Position::ordinal);
        self.floors.push((next.unwrap_or(u64::MAX), page.as_of));
        if !page.unreadable.is_empty() {
            let count = u64::try_from(page.unreadable.len()).unwrap_or(u64::MAX);
            self.pending.push_back(WatchItem::LeftOut(count));
        }
        for record in page.items {
            if record.ordinal() > self.newest_old {
                self.created_since.insert(record.id().clone(), record.ordinal());
            }
            self.pending.push_back(WatchItem::Snapshot(record, page.as_of));
        }
        if next.is_some() {
            self.stage = Stage::Listing { after: next };
            return Ok(());
        }
        self.sync_at = Some(page.as_of);
        if self.position == page.as_of {
            self.moved_to(page.as_of);
            self.stage = Stage::Following;
            self.end_if_over().await
        } else {
            // The pages were read at different revisions: bring the early ones up to the last.
            self.stage = Stage::Behind { target: None };
            Ok(())
        }
    }

    async fn catch_up(&mut self, target: Option<Revision>) -> Result<(), EngineError> {
        self.rest().await;
        let target = match target {
            Some(target) => target,
            None => {
                // First rejoin the queue, then read how far the change feed goes: no commit is missed between the
                // two.
                self.subscription.queue.rejoin();
                self.store.revisions().await?.0
            }
        };
        let mut sent = 0;
        // Commits without changes leave no trace, so the change feed may end before the target.
        let mut feed_is_read = true;
        if self.position < target {
            let shared = self.subscription.hub.shared.clone();
            let backlog = T::backlog(&shared.backlogs);
            let changes_max = shared.limits.feed_changes;
            let page = backlog.page(self.store.as_ref(), self.position, changes_max).await?;
            feed_is_read = page.last <= self.position;
            let interest = self.interest.clone();
            for part in page.parts(self.position, &interest) {
                sent += part.events.len();
                self.deliver(&part);
                if matches!(self.stage, Stage::Over) {
                    return Ok(());
                }
            }
            self.moved_to(self.position.max(page.last));
        }
        if self.position >= target || feed_is_read {
            self.moved_to(self.position.max(target));
            self.stage = Stage::Following;
            self.behind = None;
            self.end_if_over().await
        } else {
            let hub = &self.subscription.hub;
            let behind = self.behind.get_or_insert_with(|| hub.fall_behind());
            self.owed += behind.rest(sent);
            self.stage = Stage::Behind { target: Some(target) };
            Ok(())
        }
    }

    /// Yields the processor to others, if it has used much of it.
    async fn rest(&mut self) {
        if self.owed >= REST_MIN {
            let owed = std::mem::take(&mut self.owed);
            self.subscription.hub.shared.clock.sleep(owed).await;
        }
    }

    async fn follow(&mut self) -> Result<(), EngineError> {
        loop {
            match self.subscription.queue.pop() {
                Popped::Part(part) => {
                    self.deliver(&part);
                    return Ok(());
                }
                Popped::Lagged => {
                    self.stage = Stage::Behind { target: None };
                    return Ok(());
                }
                Popped::Closed => return Err(EngineError::ShuttingDown),
                Popped::Empty => {}
            }
            let shared = &self.subscription.hub.shared;
            let bookmark = self
                .bookmark
                .get_or_insert_with(|| shared.clock.sleep(shared.limits.bookmark_every));
            tokio::select! {
                biased;
                () = self.subscription.queue.ready.notified() => {}
                () = bookmark => {
                    self.bookmark = None;
                    if let Some(head) = self.subscription.hub.idle_at(&self.subscription.queue) {
                        self.moved_to(self.position.max(head));
                        self.pending.push_back(WatchItem::Bookmark(self.position));
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends what a commit means to this watch, unless it was sent before.
    fn deliver(&mut self, part: &Part<T>) {
        let revision = part.revision;
        if revision <= self.position {
            return;
        }
        if let Some(sync_at) = self.sync_at.filter(|sync_at| revision > *sync_at) {
            self.moved_to(sync_at);
        }
        let before = self.resume;
        let resume = before.unwrap_or_default();
        let mut last = None;
        for Judged { event, verdict } in &part.events {
            let ordinal = event.record.ordinal();
            let successor = self.created_since.get(event.record.id());
            if revision <= self.floor(ordinal)
                || successor.is_some_and(|created_since| *created_since > ordinal)
            {
                continue;
            }
            last = Some(self.pending.len());
            let event = event.clone();
            self.pending.push_back(match verdict {
                Verdict::Matches => WatchItem::Change { event, resume },
                Verdict::Left => WatchItem::Removed { event, resume },
            });
        }
        self.moved_to(revision);
        if let Some(last) = last {
            self.bookmark = None;
            if before.is_some()
                && let Some(WatchItem::Change { resume, .. } | WatchItem::Removed { resume, .. }) =
                    self.pending.get_mut(last)
            {
                *resume = revision;
            }
        }
        if part.ended.is_some_and(|ordinal| revision > self.floor(ordinal)) {
            self.stage = Stage::Over;
        }
    }

    fn floor(&self, ordinal: u64) -> Revision {
        let page = self.floors.partition_point(|(last, _)| *last < ordinal);
        self.floors.get(page).map_or(Revision(0), |(_, as_of)| *as_of)
    }

    fn moved_to(&mut self, position: Revision) {
        self.position = position;
        if let Some(sync_at) = self.sync_at {
            if position < sync_at {
                return;
            }
            self.sync_at = None;
            self.pending.push_back(WatchItem::Synced(sync_at));
            self.resume = Some(sync_at);
        }
        if let Some(resume) = &mut self.resume {
            *resume = (*resume).max(position);
        }
        if let Some((_, newest)) = self.floors.last()
            && position >= *newest
        {
            self.floors = Vec::new();
            self.created_since = BTreeMap::new();
        }
    }

    /// Ends the watch if the only record it watches has ended, and that has been sent.
    async fn end_if_over(&mut self) -> Result<(), EngineError> {
        let Some(only) = &self.interest.only else { return Ok(()) };
        let over = match T::now(self.store.as_ref(), only).await? {
            Some(record) => record.has_ended() && record.revision() <= self.position,
            // Deleted: only ended runs are.
            None => true,
        };
        if over {
            self.stage = Stage::Over;
        }
        Ok(())
    }
}
