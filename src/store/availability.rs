//! Whether the store accepts writes: one state that everything waits on, and its few log lines.

use std::time::Duration;

use crate::clock::Timestamp;

/// Whether a store accepts writes. Reads work in every state, except while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Availability {
    /// It accepts writes.
    #[default]
    Ok,
    /// The disk is full. The store itself checks for space, and changes this state when there is some.
    Full {
        /// Since when.
        since: Timestamp,
    },
    /// Its database cannot be reached. The store itself tries to, and changes this state when it can.
    Away {
        /// Since when.
        since: Timestamp,
    },
    /// A flush failed, or another server has taken the place of this one: nothing is written until the store is opened again.
    Broken {
        /// Since when.
        since: Timestamp,
    },
}

impl Availability {
    /// Whether a write may be attempted.
    #[must_use]
    pub fn takes_writes(self) -> bool {
        self == Self::Ok
    }
}

/// How often a full store repeats its log line.
const REMINDER: Duration = Duration::from_secs(60);

/// A store that is full again this soon after there was space counts as full all the time.
const SETTLED: Duration = Duration::from_secs(10);

/// Events for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// The first write was refused.
    Began,
    /// The store is still full.
    Lasts {
        /// For how long.
        lasted: Duration,
        /// Writes refused so far.
        refused: u64,
    },
    /// There is space again.
    Ended {
        /// How long the store was full.
        lasted: Duration,
        /// Writes refused in all.
        refused: u64,
    },
}

/// A time with a full disk, from the first write that is refused until writes have succeeded for a while. Times are
/// monotonic.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Lasting>);

#[derive(Debug, Clone, Copy)]
struct Lasting {
    began: Duration,
    noticed: Duration,
    /// When there was space again.
    room: Option<Duration>,
    refused: u64,
}

impl Outage {
    /// Whether the clock must be checked.
    pub(super) fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// Writes found the disk full.
    pub(super) fn refused(&mut self, writes: u64, now: Duration) -> Option<Notice> {
        let Some(lasting) = &mut self.0 else {
            self.0 = Some(Lasting { began: now, noticed: now, room: None, refused: writes });
            return Some(Notice::Began);
        };
        lasting.room = None;
        lasting.refused += writes;
        self.pass(now)
    }

    /// A write found space.
    pub(super) fn room(&mut self, now: Duration) -> Option<Notice> {
        self.0.as_mut()?.room.get_or_insert(now);
        self.pass(now)
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, now: Duration) -> Option<Notice> {
        let lasting = self.0.as_mut()?;
        let Lasting { began, refused, .. } = *lasting;
        if let Some(room) = lasting.room {
            let settled = now.saturating_sub(room) >= SETTLED;
            return settled.then(|| {
                self.0 = None;
                Notice::Ended { lasted: room.saturating_sub(began), refused }
            });
        }
        (now.saturating_sub(lasting.noticed) >= REMINDER).then(|| {
            lasting.noticed = now;
            Notice::Lasts { lasted: now.saturating_sub(began), refused }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_full_store_says_so_once_then_each_minute_then_that_it_is_over() {
        let mut outage = Outage::default();
        assert_eq!(outage.pass(at(0)), None);
        assert_eq!(outage.room(at(0)), None);
        assert_eq!(outage.refused(1, at(5)), Some(Notice::Began));
        let mut notices = Vec::new();
        for second in 6..200 {
            notices.extend(outage.refused(100, at(second)));
        }
        let lasts =
            |minute: u64| Notice::Lasts { lasted: at(60 * minute), refused: 6000 * minute + 1 };
        assert_eq!(notices, [lasts(1), lasts(2), lasts(3)]);
        assert_eq!(outage.room(at(200)), None);
        assert_eq!(outage.room(at(209)), None);
        let ended = Notice::Ended { lasted: at(195), refused: 19_401 };
        assert_eq!(outage.pass(at(210)), Some(ended));
        assert!(!outage.lasts());
        assert_eq!(outage.refused(1, at(300)), Some(Notice::Began));
    }

    #[test]
    fn room_that_is_gone_at_once_is_the_same_outage() {
        let mut outage = Outage::default();
        assert_eq!(outage.refused(1, at(0)), Some(Notice::Began));
        for second in 1..60 {
            assert_eq!(outage.room(at(second)), None);
            assert_eq!(outage.refused(1, at(second)), None);
        }
        assert_eq!(outage.pass(at(60)), Some(Notice::Lasts { lasted: at(60), refused: 60 }));
    }
}
