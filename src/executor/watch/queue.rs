//! What waits for one watcher.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::lock;
use crate::ids::Revision;
use crate::model::Change;

/// What waits for one watcher: whole commits, so that a reader never stands inside one.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when there is something to pop.
    pub(super) ready: Notify,
}

#[derive(Default)]
struct Waiting {
    commits: VecDeque<(Revision, Vec<Change>)>,
    changes: usize,
    lagged: bool,
    closed: bool,
}

/// What a queue has for its reader.
pub(super) enum Popped {
    /// A commit, as far as the reader is interested.
    Commit(Revision, Vec<Change>),
    /// Commits were dropped: read the log.
    Lagged,
    /// Nothing yet.
    Empty,
    /// Nothing any more.
    Closed,
}

impl Queue {
    pub(super) fn push(&self, revision: Revision, changes: Vec<Change>, max: usize) {
        let mut waiting = lock(&self.waiting);
        if waiting.lagged {
            return;
        }
        if waiting.changes + changes.len() > max {
            waiting.commits = VecDeque::new();
            waiting.changes = 0;
            waiting.lagged = true;
        } else {
            waiting.changes += changes.len();
            waiting.commits.push_back((revision, changes));
        }
        drop(waiting);
        self.ready.notify_one();
    }

    pub(super) fn pop(&self) -> Popped {
        let mut waiting = lock(&self.waiting);
        if waiting.lagged {
            return Popped::Lagged;
        }
        match waiting.commits.pop_front() {
            Some((revision, changes)) => {
                waiting.changes -= changes.len();
                Popped::Commit(revision, changes)
            }
            None if waiting.closed => Popped::Closed,
            None => Popped::Empty,
        }
    }

    /// Takes part again. Whatever was dropped before is in the store's log by now.
    pub(super) fn rejoin(&self) {
        lock(&self.waiting).lagged = false;
    }

    pub(super) fn is_idle(&self) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.lagged && waiting.commits.is_empty()
    }

    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.ready.notify_one();
    }

    /// Whether commits were dropped and the reader has not come back yet.
    pub(super) fn is_lagged(&self) -> bool {
        lock(&self.waiting).lagged
    }
}
