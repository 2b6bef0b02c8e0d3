//! One watch: lists, catches up from the log, then follows its queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio_stream::Stream;

use super::queue::Popped;
use super::watched::{Happened, Watched};
use super::{Start, Subscription, WatchHub, WatchItem};
use crate::clock::Sleep;
use crate::executor::error::EngineError;
use crate::executor::unfold::unfold;
use crate::ids::Revision;
use crate::model::filter::Filter;
use crate::model::{Change, EntryKind};
use crate::store::{Position, Query, Store};

/// Most objects of which a watch remembers whether they matched; beyond it, it asks the history again.
const KNOWN_MAX: usize = 65_536;

/// Opens a watch. Nothing happens, and nothing is held, before it is first polled.
pub(super) fn open<T: Watched>(
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
}

enum Watch<T: Watched> {
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
    async fn open<T: Watched>(self) -> Result<Live<T>, EngineError> {
        // First a place in the hub, then a look at the store: what happens in between is in the queue.
        let subscription = self.hub.subscribe(T::key(&self.filter))?;
        let (newest, _) = self.store.revisions().await?;
        let (position, stage, told) = match self.start {
            Start::Snapshot => (Revision(0), Stage::Listing { after: None }, None),
            Start::Resume(revision) if revision > newest => {
                return Err(EngineError::invalid(
                    "resume_from",
                    format!(
                        "is {revision}, but the newest revision is {newest}: was it taken from another store? \
                         Watch from 0 to begin with the present state"
                    ),
                ));
            }
            Start::Resume(revision) => (revision, Stage::Behind { target: None }, Some(revision)),
            Start::Now => (newest, Stage::Following, Some(newest)),
        };
        let mut live = Live {
            subscription,
            store: self.store,
            only: T::only(&self.filter),
            never_leaves: T::never_leaves(&self.filter),
            filter: self.filter,
            stage,
            position,
            resume: told,
            sync_at: None,
            floors: Vec::new(),
            young: BTreeMap::new(),
            newest_old: u64::MAX,
            known: BTreeMap::new(),
            pending: VecDeque::new(),
            bookmark: None,
        };
        if self.start == Start::Now {
            live.pending.push_back(WatchItem::Synced(newest));
            live.end_if_over().await?;
        }
        Ok(live)
    }
}

enum Stage {
    /// Reading what is there, page by page.
    Listing { after: Option<u64> },
    /// Reading the log up to `target`, the newest revision when it took part in the hub again.
    Behind { target: Option<Revision> },
    /// Reading its queue.
    Following,
    /// Nothing more will come.
    Over,
}

struct Live<T: Watched> {
    subscription: Subscription,
    store: Arc<dyn Store>,
    filter: Filter,
    never_leaves: bool,
    only: Option<T::Id>,
    stage: Stage,
    /// Everything up to here has been told.
    position: Revision,
    /// Where a client may resume after the last commit told; `None` while the snapshots are incomplete.
    resume: Option<Revision>,
    /// Told as synced once the position is here.
    sync_at: Option<Revision>,
    /// Per page listed: the last ordinal it covers, and the revision at which it was read. Changes of its objects
    /// up to that revision are in the snapshots already.
    floors: Vec<(u64, Revision)>,
    /// Ordinals of the objects told as snapshots that were made after the listing began. What happened to a deleted
    /// object of the same id is not told after them: it would be taken for theirs.
    young: BTreeMap<T::Id, u64>,
    /// The last ordinal given before the listing began.
    newest_old: u64,
    /// Whether objects matched when last seen.
    known: BTreeMap<T::Id, bool>,
    pending: VecDeque<WatchItem<T>>,
    bookmark: Option<Sleep>,
}

impl<T: Watched> Live<T> {
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
            self.newest_old = newest.items.first().map_or(0, |object| object.ordinal());
        }
        let after = after.map(Position::Ordinal);
        let query = Query { filter: self.filter.clone(), after, limit, ..Query::default() };
        let page = T::page(self.store.as_ref(), query).await?;
        if self.floors.is_empty() {
            self.position = page.as_of;
        }
        let next = page.next.as_ref().and_then(Position::ordinal);
        self.floors.push((next.unwrap_or(u64::MAX), page.as_of));
        for object in page.items {
            self.remember(object.id(), true);
            if object.ordinal() > self.newest_old {
                self.young.insert(object.id(), object.ordinal());
            }
            self.pending.push_back(WatchItem::Snapshot(object, page.as_of));
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
        let target = match target {
            Some(target) => target,
            None => {
                // First take part again, then look how far the log goes: no commit falls between the two.
                self.subscription.queue.rejoin();
                self.store.revisions().await?.0
            }
        };
        let limit = self.subscription.hub.shared.limits.log_changes;
        let changes = if self.position < target {
            self.store.changes(self.position, limit).await?
        } else {
            Vec::new()
        };
        // Commits that changed nothing leave no trace, so the log may end short of the target.
        let log_is_read = changes.is_empty();
        let mut changes = changes.into_iter().peekable();
        while let Some(first) = changes.next() {
            let revision = first.revision;
            let mut commit = vec![first];
            while let Some(next) = changes.next_if(|change| change.revision == revision) {
                commit.push(next);
            }
            self.tell(revision, commit).await?;
            if matches!(self.stage, Stage::Over) {
                return Ok(());
            }
        }
        if self.position >= target || log_is_read {
            self.moved_to(self.position.max(target));
            self.stage = Stage::Following;
            self.end_if_over().await
        } else {
            self.stage = Stage::Behind { target: Some(target) };
            Ok(())
        }
    }

    async fn follow(&mut self) -> Result<(), EngineError> {
        loop {
            match self.subscription.queue.pop() {
                Popped::Commit(revision, changes) => return self.tell(revision, changes).await,
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

    /// Tells what a commit means to this watch, unless it was told before.
    async fn tell(&mut self, revision: Revision, changes: Vec<Change>) -> Result<(), EngineError> {
        if revision <= self.position {
            return Ok(());
        }
        if let Some(sync_at) = self.sync_at.filter(|sync_at| revision > *sync_at) {
            self.moved_to(sync_at);
        }
        let before = self.resume;
        let mut items = Vec::new();
        let mut over = false;
        for change in changes {
            if !self.subscription.key.covers(&change) {
                continue;
            }
            let Some(happened) = T::of(change) else { continue };
            let ordinal = happened.object.ordinal();
            let successor = self.young.get(&happened.object.id());
            if revision <= self.floor(ordinal) || successor.is_some_and(|young| *young > ordinal) {
                continue;
            }
            over |= happened.object.has_ended()
                && self.only.as_ref().is_some_and(|only| *only == happened.object.id());
            items.extend(self.judge(revision, before.unwrap_or_default(), happened).await?);
        }
        let told = !items.is_empty();
        self.pending.extend(items);
        self.moved_to(revision);
        if told {
            self.bookmark = None;
            if let (Some(_), Some(last)) = (before, self.last_told(revision)) {
                *last = revision;
            }
        }
        if over {
            self.stage = Stage::Over;
        }
        Ok(())
    }

    /// The resume point of the last change told of a commit.
    fn last_told(&mut self, commit: Revision) -> Option<&mut Revision> {
        self.pending.iter_mut().rev().find_map(|item| match item {
            WatchItem::Change { revision, resume, .. }
            | WatchItem::Removed { revision, resume, .. } => {
                (*revision == commit).then_some(resume)
            }
            WatchItem::Snapshot(..) | WatchItem::Synced(_) | WatchItem::Bookmark(_) => None,
        })
    }

    async fn judge(
        &mut self,
        revision: Revision,
        resume: Revision,
        happened: Happened<T>,
    ) -> Result<Option<WatchItem<T>>, EngineError> {
        let Happened { at, object, entries, deleted } = happened;
        let id = object.id();
        if !deleted && T::matches(&self.filter, &object) {
            self.remember(id, true);
            return Ok(Some(WatchItem::Change { revision, resume, at, object, entries }));
        }
        let matched = if deleted && T::matches(&self.filter, &object) {
            true
        } else if self.never_leaves {
            false
        } else if let Some(matched) = self.known.get(&id) {
            *matched
        } else {
            let before = Revision(revision.0.saturating_sub(1));
            match T::at(self.store.as_ref(), &id, before).await? {
                Some(before) => T::matches(&self.filter, &before),
                // Nobody can say any more. Telling too much is harmless, telling too little is not.
                None => !entries.iter().any(|entry| {
                    matches!(entry.kind, EntryKind::MachineRegistered | EntryKind::RunCreated)
                }),
            }
        };
        self.remember(id, false);
        Ok(matched.then_some(WatchItem::Removed { revision, resume, at, object, entries }))
    }

    fn remember(&mut self, id: T::Id, matched: bool) {
        if self.never_leaves {
            return;
        }
        if self.known.len() >= KNOWN_MAX {
            self.known = BTreeMap::new();
        }
        self.known.insert(id, matched);
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
            self.young = BTreeMap::new();
        }
    }

    /// Ends the watch if the only object it is about has ended, and that has been told.
    async fn end_if_over(&mut self) -> Result<(), EngineError> {
        let Some(only) = &self.only else { return Ok(()) };
        let over = match T::now(self.store.as_ref(), only).await? {
            Some(object) => object.has_ended() && T::revision(&object) <= self.position,
            // Forgotten: only what has ended is.
            None => true,
        };
        if over {
            self.stage = Stage::Over;
        }
        Ok(())
    }
}
