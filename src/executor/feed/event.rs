//! A change of one record for watchers, and how a filter judges it.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::watched::{Interest, Watched};
use crate::clock::Timestamp;
use crate::ids::Revision;
use crate::model::{Change, Entry, Images};

/// A change of one record. All its watchers share it.
#[derive(Debug)]
pub struct Event<T> {
    /// Revision of the commit.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// The record after the change; before it, if it was deleted.
    pub record: Arc<T>,
    /// What happened.
    pub entries: Arc<[Entry]>,
    /// The event in wire form, encoded by the first watcher that needs it.
    pub encoded: OnceCell<Arc<[u8]>>,
}

/// What a change means to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The record matches.
    Matches,
    /// The record matched before and no longer does, or was deleted.
    Left,
}

/// An event that a watch sends.
#[derive(Debug)]
pub(super) struct Judged<T> {
    pub(super) event: Arc<Event<T>>,
    pub(super) verdict: Verdict,
}

impl<T> Clone for Judged<T> {
    fn clone(&self) -> Self {
        Self { event: self.event.clone(), verdict: self.verdict }
    }
}

/// What one commit means to watches with the same filter.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) revision: Revision,
    pub(super) events: Vec<Judged<T>>,
    /// Ordinal of the one record that the filter pins, if it ended by this commit.
    pub(super) ended: Option<u64>,
}

impl<T> Part<T> {
    pub(super) fn new(revision: Revision) -> Self {
        Self { revision, events: Vec::new(), ended: None }
    }

    /// Whether watches have nothing to do because of it.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.ended.is_none()
    }
}

/// A change of a record of one kind that is being judged. The event is created when the first watch needs it.
pub(super) struct Happened<'a, T> {
    change: &'a Change,
    images: &'a Images<T>,
    /// The record after the change; before it, if it was deleted.
    pub(super) record: &'a Arc<T>,
    event: Option<Arc<Event<T>>>,
}

impl<'a, T: Watched> Happened<'a, T> {
    /// The change of a record of this kind; `None` if it is of another kind.
    pub(super) fn of(change: &'a Change) -> Option<Self> {
        let images = change.images::<T>()?;
        Some(Self { change, images, record: images.last()?, event: None })
    }

    /// The same, with an event that was created before.
    pub(super) fn again(change: &'a Change, event: &Arc<Event<T>>) -> Option<Self> {
        Some(Self { event: Some(event.clone()), ..Self::of(change)? })
    }

    /// What it means to a watch, judged only by the record before and after it.
    pub(super) fn verdict(&self, interest: &Interest<T>) -> Option<Verdict> {
        let takes = |record: &Arc<T>| interest.takes(record);
        if self.images.after.as_ref().is_some_and(takes) {
            return Some(Verdict::Matches);
        }
        // A change written by an older version, without the record before it: sending too much is harmless, sending
        // too little is not.
        // Within a scope the opposite is so: what may never have been in it is not named.
        let unknown = self.change.before_is_gone && !interest.filter.is_scoped();
        let left = unknown || self.images.before.as_ref().is_some_and(takes);
        (left && !interest.misjudges).then_some(Verdict::Left)
    }

    /// The event that all watches share.
    pub(super) fn event(&mut self) -> Arc<Event<T>> {
        let event = self.event.get_or_insert_with(|| {
            Arc::new(Event {
                revision: self.change.revision,
                at: self.change.at,
                record: self.record.clone(),
                entries: self.change.entries.clone(),
                encoded: OnceCell::new(),
            })
        });
        event.clone()
    }

    /// Adds what it means to a watch to that watch's part of the commit.
    pub(super) fn judge(&mut self, interest: &Interest<T>, part: &mut Part<T>) {
        let record = self.record;
        if record.has_ended() && interest.only.as_ref().is_some_and(|only| only == record.id()) {
            part.ended = Some(record.ordinal());
        }
        if let Some(verdict) = self.verdict(interest) {
            let event = self.event();
            part.events.push(Judged { event, verdict });
        }
    }
}
