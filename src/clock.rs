//! Time and randomness: the only module that reads the operating system's clock and entropy.
//!
//! Everything waits on an injected [`Clock`], so that tests run in virtual time; all randomness comes from an
//! injected [`Random`], so that a run of the simulation replays from its seed.

pub mod simulated;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A future that resolves when some time has passed.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Wall-clock time in milliseconds since the Unix epoch.
///
/// Used for display, for history and for deadlines that must survive a restart; never for ordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The instant `ms` milliseconds later, saturating.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Source of time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall-clock time; may jump.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary origin; never jumps, never goes back.
    fn monotonic(&self) -> Duration;
    /// Resolves after `duration` of monotonic time.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// [`Clock`] of the operating system, waiting on tokio's timer.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    #[expect(clippy::disallowed_methods, reason = "the one place where real time enters")]
    #[must_use]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where real time enters")]
    fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that waits on tokio's timer")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Virtual time of a paused tokio runtime: wall time starts at a given instant and follows tokio's clock.
///
/// `jump` moves the wall clock without moving timers, as a clock adjustment does.
#[derive(Debug)]
pub struct TokioClock {
    start: Timestamp,
    origin: tokio::time::Instant,
    offset_ms: std::sync::atomic::AtomicI64,
}

impl TokioClock {
    /// A clock whose time is `start` now.
    #[expect(clippy::disallowed_methods, reason = "virtual time of a paused runtime")]
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self {
            start,
            origin: tokio::time::Instant::now(),
            offset_ms: std::sync::atomic::AtomicI64::new(0),
        }
    }

    /// Moves the wall clock by `delta_ms`, forward or back.
    pub fn jump(&self, delta_ms: i64) {
        self.offset_ms.fetch_add(delta_ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX);
        let offset = self.offset_ms.load(std::sync::atomic::Ordering::SeqCst);
        Timestamp(self.start.0.saturating_add(elapsed).saturating_add_signed(offset))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time of a paused runtime")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Source of random numbers, for ids and jitter; not for secrets.
pub trait Random: fmt::Debug + Send + Sync + 'static {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// [`Random`] of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsRandom;

impl Random for OsRandom {
    #[expect(clippy::disallowed_methods, reason = "the one place where real randomness enters")]
    fn next_u64(&self) -> u64 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // The version and variant bits of a UUID are constant: fold the halves and drop them.
        (high << 32) ^ (high >> 32) ^ low.rotate_left(17)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and the same on every platform and version.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that always gives the same sequence for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the sequence.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if `bound` is zero. The bias is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// True with probability `numerator` / `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// [`Random`] that replays from a seed.
#[derive(Debug)]
pub struct SeededRandom(Mutex<SplitMix64>);

impl SeededRandom {
    /// A source that always gives the same sequence for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix64::new(seed)))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        assert_eq!(Timestamp(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn seeded_randomness_replays() {
        let (a, b) = (SeededRandom::new(7), SeededRandom::new(7));
        let first: Vec<_> = (0..5).map(|_| a.next_u64()).collect();
        let second: Vec<_> = (0..5).map(|_| b.next_u64()).collect();
        assert_eq!(first, second);
        assert_ne!(first[0], first[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_moves_the_wall_clock_but_no_timer() {
        let clock = TokioClock::new(Timestamp(1_000));
        let nap = clock.sleep(Duration::from_millis(500));
        clock.jump(1_000_000);
        assert_eq!(clock.now(), Timestamp(1_001_000));
        nap.await;
        assert_eq!(clock.monotonic(), Duration::from_millis(500));
        clock.jump(-1_000_000);
        assert_eq!(clock.now(), Timestamp(1_500));
    }
}
