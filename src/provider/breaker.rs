//! When a controller is left alone: after failures in a row, for a time that grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Failures in a row after which it is left alone.
const FAILURES_MAX: u32 = 3;
/// First pause; it doubles with every further failure.
const FIRST: Duration = Duration::from_secs(5);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(120);

/// Counts what one controller did. Pure: instants come in.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Until when it is left alone, on the monotonic clock.
    open_until: Option<Duration>,
    /// Counts it, from then on until it has answered.
    open: Option<Open>,
    all: OpenBreakers,
}

/// The number of open breakers of a driver.
#[derive(Debug, Default, Clone)]
pub(super) struct OpenBreakers(Arc<AtomicU64>);

impl OpenBreakers {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn open(&self) -> Open {
        self.0.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }
}

/// One open breaker; closed when dropped.
#[derive(Debug)]
struct Open(OpenBreakers);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Breaker {
    /// One that is counted when it is open.
    pub(super) fn among(all: OpenBreakers) -> Self {
        Self { all, ..Self::default() }
    }

    /// How much longer it is left alone; `None` if it may be called. After a pause one call is a trial: calls come one at
    /// a time, so that the others see its result first.
    pub(super) fn pause(&self, now: Duration) -> Option<Duration> {
        self.open_until.and_then(|until| until.checked_sub(now)).filter(|left| !left.is_zero())
    }

    /// It has answered sensibly.
    pub(super) fn worked(&mut self) {
        *self = Self::among(self.all.clone());
    }

    /// It gave no answer, or one that says that it is broken. `true` if it is left alone from now on.
    pub(super) fn failed(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let Some(more) = self.failures.checked_sub(FAILURES_MAX) else { return false };
        let pause = FIRST.saturating_mul(1 << more.min(10)).min(LONGEST);
        self.open_until = Some(now + pause);
        self.open.get_or_insert_with(|| self.all.open());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_for_longer_and_longer() {
        let at = Duration::from_secs;
        let all = OpenBreakers::default();
        let mut breaker = Breaker::among(all.clone());
        assert!(!breaker.failed(at(1)) && !breaker.failed(at(1)));
        breaker.worked();
        assert!(!breaker.failed(at(1)) && !breaker.failed(at(1)));
        assert_eq!(breaker.pause(at(1)), None);
        assert_eq!(all.count(), 0);
        assert!(breaker.failed(at(1)));
        assert_eq!(all.count(), 1);
        assert_eq!(breaker.pause(at(1)), Some(at(5)));
        assert_eq!(breaker.pause(at(6)), None);
        let mut now = 6;
        for pause in [10, 20, 40, 80, 120, 120] {
            breaker.failed(at(now));
            assert_eq!(breaker.pause(at(now)), Some(at(pause)));
            now += pause;
        }
        assert_eq!(all.count(), 1);
        breaker.worked();
        assert_eq!((breaker.pause(at(now)), all.count()), (None, 0));
        // A controller that is forgotten is left alone by no one.
        assert!((0..3).any(|_| breaker.failed(at(now))));
        assert_eq!(all.count(), 1);
        drop(breaker);
        assert_eq!(all.count(), 0);
    }
}
