//! Timers of a worker. They live in memory; their instants are in the run's record.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// A step waits until then.
    Wake { step: usize },
    /// A step's attempt times out then.
    Deadline { step: usize, at: Timestamp },
    /// The time limit of the whole run passes then.
    TimeLimit,
    /// Log lines have waited long enough for another commit.
    FlushLogs,
    /// The store may have a slot for the run now.
    TakeSlot,
}

impl Timer {
    /// Whether a new timer replaces this one. One step is in progress at a time: a timer of an earlier step is
    /// obsolete, and must not be taken for the present step's when its worker leaves.
    fn is_replaced_by(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Wake { .. }, Self::Wake { .. })
                | (Self::Deadline { .. }, Self::Deadline { .. })
                | (Self::TimeLimit, Self::TimeLimit)
                | (Self::FlushLogs, Self::FlushLogs)
                | (Self::TakeSlot, Self::TakeSlot)
        )
    }
}

/// The timers of one worker, of which there are few.
#[derive(Debug, Default)]
pub(super) struct Timers(Vec<(Duration, Timer)>);

impl Timers {
    /// Arms a timer that is due at `due` on the monotonic clock, replacing one of its kind.
    pub(super) fn arm(&mut self, timer: Timer, due: Duration) {
        self.0.retain(|(_, armed)| !armed.is_replaced_by(&timer));
        self.0.push((due, timer));
    }

    /// Whether log lines are already waiting for a flush.
    pub(super) fn flush_is_armed(&self) -> bool {
        self.0.iter().any(|(_, timer)| *timer == Timer::FlushLogs)
    }

    /// Whether the run will request its slot again.
    pub(super) fn slot_is_awaited(&self) -> bool {
        self.0.iter().any(|(_, timer)| *timer == Timer::TakeSlot)
    }

    /// The earliest instant, on the monotonic clock.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.0.iter().map(|(due, _)| *due).min()
    }

    /// When the step in progress continues by itself.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due_of(|timer| matches!(timer, Timer::Wake { .. }))
    }

    /// When its attempt times out.
    pub(super) fn deadline_at(&self) -> Option<Duration> {
        self.due_of(|timer| matches!(timer, Timer::Deadline { .. }))
    }

    /// When the time limit of the whole run passes.
    pub(super) fn limit_at(&self) -> Option<Duration> {
        self.due_of(|timer| *timer == Timer::TimeLimit)
    }

    fn due_of(&self, wanted: impl Fn(&Timer) -> bool) -> Option<Duration> {
        self.0.iter().filter(|(_, timer)| wanted(timer)).map(|(due, _)| *due).min()
    }

    /// Takes the timers that are due.
    pub(super) fn take_due(&mut self, clock: &dyn Clock) -> Vec<Timer> {
        let now = clock.monotonic();
        let mut due: Vec<_> = self.0.iter().copied().filter(|(at, _)| *at <= now).collect();
        self.0.retain(|(at, _)| *at > now);
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, timer)| timer).collect()
    }
}
