//! Virtual time without a special runtime: a clock that moves only when nothing else can.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Clock, Sleep, Timestamp};

/// A clock that stands still until [`SimulatedClock::advance`] moves it to the next instant at which a sleeper is
/// due.
///
/// On a single-threaded runtime that calls `advance` whenever it is idle, a year of waiting passes instantly, and
/// always in the same order.
#[derive(Debug)]
pub struct SimulatedClock {
    start: Timestamp,
    shared: Arc<Mutex<Waiting>>,
}

/// The sleepers, by due time and in the order in which they started.
#[derive(Debug, Default)]
struct Waiting {
    now: Duration,
    begun: u64,
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
}

fn lock(shared: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedClock {
    /// A clock whose time is `start` now.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { start, shared: Arc::default() }
    }

    /// Time until the next sleeper is due; `None` if there is none.
    #[must_use]
    pub fn until_next(&self) -> Option<Duration> {
        let waiting = lock(&self.shared);
        let ((at, _), _) = waiting.sleepers.first_key_value()?;
        Some(at.saturating_sub(waiting.now))
    }

    /// Moves to the next due time and wakes its sleeper; of several, the one that started first. Returns whether
    /// there was one.
    pub fn advance(&self) -> bool {
        let mut waiting = lock(&self.shared);
        let Some(((at, _), waker)) = waiting.sleepers.pop_first() else { return false };
        waiting.now = waiting.now.max(at);
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        lock(&self.shared).now
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut waiting = lock(&self.shared);
        waiting.begun += 1;
        let place = (waiting.now.saturating_add(duration), waiting.begun);
        waiting.sleepers.insert(place, None);
        Box::pin(Sleeper { shared: self.shared.clone(), place })
    }
}

/// A sleeper. It leaves the clock when it is done or dropped.
struct Sleeper {
    shared: Arc<Mutex<Waiting>>,
    place: (Duration, u64),
}

impl Future for Sleeper {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match lock(&self.shared).sleepers.get_mut(&self.place) {
            Some(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        lock(&self.shared).sleepers.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_with_nothing_to_do_lets_time_pass_in_order() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000)));
        let idle = clock.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || {
                idle.advance();
            })
            .build()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        runtime.block_on(async {
            let tasks: Vec<_> = [("late", 86_400_000), ("soon", 1), ("also soon", 1)]
                .into_iter()
                .map(|(name, ms)| {
                    let (clock, seen) = (clock.clone(), seen.clone());
                    tokio::spawn(async move {
                        clock.sleep(Duration::from_millis(ms)).await;
                        seen.lock().unwrap().push((name, clock.now().0));
                    })
                })
                .collect();
            drop(clock.sleep(Duration::from_millis(5)));
            for task in tasks {
                task.await.unwrap();
            }
        });
        let seen = seen.lock().unwrap();
        assert_eq!(*seen, [("soon", 1_001), ("also soon", 1_001), ("late", 86_401_000)]);
        assert!(!clock.advance(), "no sleeper is left");
        assert_eq!(clock.until_next(), None);
        let _nap = clock.sleep(Duration::from_millis(7));
        assert_eq!(clock.until_next(), Some(Duration::from_millis(7)));
    }
}
