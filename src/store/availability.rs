//! Whether the store takes writes: one state that everything waits on, and the few lines of log that tell of it.

use std::time::Duration;

use crate::clock::Timestamp;

/// Whether a store takes writes. Reads go on in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Availability {
    /// It does.
    #[default]
    Ok,
    /// There is no room. The store itself looks for some, and says so here when there is.
    Full {
        /// Since when.
        since: Timestamp,
    },
    /// A flush failed: nothing is written until the store is opened again.
    Broken {
        /// Since when.
        since: Timestamp,
    },
}

impl Availability {
    /// Whether a write may be tried.
    #[must_use]
    pub fn takes_writes(self) -> bool {
        self == Self::Ok
    }
}

/// How often a store that is full says so in the log.
const REMINDER: Duration = Duration::from_secs(60);

/// A store that is full again this soon after there was room has been full all the time.
const SETTLED: Duration = Duration::from_secs(10);

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// A first write was refused.
    Began,
    /// The store is still full.
    Lasts {
        /// For how long.
        lasted: Duration,
        /// Writes refused so far.
        refused: u64,
    },
    /// There is room again.
    Ended {
        /// How long the store was full.
        lasted: Duration,
        /// Writes refused in all.
        refused: u64,
    },
}

/// A time without room, from the first write that is refused until writes have been taken for a while. Times are
/// monotonic.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Lasting>);

#[derive(Debug, Clone, Copy)]
struct Lasting {
    began: Duration,
    noticed: Duration,
    /// When there was room again.
    room: Option<Duration>,
    refused: u64,
}

impl Outage {
    /// Whether the clock has to be looked at.
    pub(super) fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// Writes found no room.
    pub(super) fn refused(&mut self, writes: u64, now: Duration) -> Option<Notice> {
        let Some(lasting) = &mut self.0 else {
            self.0 = Some(Lasting { began: now, noticed: now, room: None, refused: writes });
            return Some(Notice::Began);
        };
        lasting.room = None;
        lasting.refused += writes;
        self.pass(now)
    }

    /// A write found room.
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
