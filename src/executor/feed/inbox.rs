//! Commits on their way from the committing thread to the publishing task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::queue::lock;
use crate::store::Committed;

/// Commits that wait to be published. Nothing is kept while there are no watchers.
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    changes_max: usize,
    /// Notified when a commit has come in.
    pub(super) arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    watchers: usize,
    commits: VecDeque<Arc<Committed>>,
    changes: usize,
    lost: bool,
}

/// Commits taken out of the inbox.
pub(super) struct Taken {
    pub(super) commits: Vec<Arc<Committed>>,
    /// Commits were dropped before these, because the inbox was full.
    pub(super) lost: bool,
}

/// How much a commit counts towards the bound; one without changes still moves the head.
fn len(commit: &Arc<Committed>) -> usize {
    1 + commit.changes.len() + commit.logs.len()
}

impl Inbox {
    pub(super) fn new(changes_max: usize) -> Self {
        Self { waiting: Mutex::default(), changes_max, arrived: Notify::new() }
    }

    /// Adds a watcher: every later commit is kept for it.
    pub(super) fn open(&self) {
        lock(&self.waiting).watchers += 1;
    }

    /// Removes a watcher.
    pub(super) fn close(&self) {
        lock(&self.waiting).watchers -= 1;
    }

    /// Keeps a commit. Called by the committing thread, which never waits for a reader.
    pub(super) fn put(&self, commit: &Arc<Committed>) {
        let mut waiting = lock(&self.waiting);
        if waiting.watchers == 0 {
            return;
        }
        waiting.changes += len(commit);
        waiting.commits.push_back(commit.clone());
        if waiting.changes > self.changes_max {
            waiting.commits = VecDeque::new();
            waiting.changes = 0;
            waiting.lost = true;
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes out the oldest commits, at most `max` of them.
    pub(super) fn take(&self, max: usize) -> Taken {
        let mut waiting = lock(&self.waiting);
        let count = waiting.commits.len().min(max);
        let commits: Vec<_> = waiting.commits.drain(..count).collect();
        waiting.changes -= commits.iter().map(len).sum::<usize>();
        Taken { commits, lost: std::mem::take(&mut waiting.lost) }
    }
}
