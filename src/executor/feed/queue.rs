//! The queue of one watcher.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::Part;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queue of one watcher: whole commits, so that a reader never stops inside one.
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Notified when there is something to pop.
    pub(super) ready: Notify,
}

struct Waiting<T> {
    parts: VecDeque<Arc<Part<T>>>,
    events: usize,
    lagged: bool,
    closed: bool,
}

/// What a reader gets from its queue.
pub(super) enum Popped<T> {
    /// The part of a commit that concerns the reader.
    Part(Arc<Part<T>>),
    /// Commits were dropped: read the change feed.
    Lagged,
    /// Nothing yet.
    Empty,
    /// The queue is closed.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let waiting = Waiting { parts: VecDeque::new(), events: 0, lagged: false, closed: false };
        Self { waiting: Mutex::new(waiting), ready: Notify::new() }
    }

    pub(super) fn push(&self, part: &Arc<Part<T>>, events_max: usize) {
        let mut waiting = lock(&self.waiting);
        if waiting.lagged {
            return;
        }
        if waiting.events + part.events.len() > events_max {
            waiting.overflow();
        } else {
            waiting.events += part.events.len();
            waiting.parts.push_back(part.clone());
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Drops the queued commits: the reader must read the change feed.
    pub(super) fn overflow(&self) {
        lock(&self.waiting).overflow();
        self.ready.notify_one();
    }

    pub(super) fn pop(&self) -> Popped<T> {
        let mut waiting = lock(&self.waiting);
        if waiting.lagged {
            return Popped::Lagged;
        }
        match waiting.parts.pop_front() {
            Some(part) => {
                waiting.events -= part.events.len();
                Popped::Part(part)
            }
            None if waiting.closed => Popped::Closed,
            None => Popped::Empty,
        }
    }

    /// Continues with the queue. Everything dropped before is in the change feed of the store by now.
    pub(super) fn rejoin(&self) {
        lock(&self.waiting).lagged = false;
    }

    pub(super) fn is_idle(&self) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.lagged && waiting.parts.is_empty()
    }

    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.ready.notify_one();
    }

    /// Whether commits were dropped and the reader has not caught up yet.
    pub(super) fn is_lagged(&self) -> bool {
        lock(&self.waiting).lagged
    }
}

impl<T> Waiting<T> {
    fn overflow(&mut self) {
        self.parts = VecDeque::new();
        self.events = 0;
        self.lagged = true;
    }
}
