//! State shared by the simulation of one seed: time, randomness, gates, faults, and the judge.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, Timestamp, TokioClock};
use bmdemo::ids::MachineId;
use bmdemo::provider::Call;
use bmdemo::store::{Availability, Batch};
use tokio::sync::watch;

use crate::gate::{Gates, Incarnation, Life};
use crate::oracle::Oracle;
use crate::profile::Profile;

/// 2026-01-01T00:00:00Z, with room for clock jumps in both directions.
pub(crate) const START: Timestamp = Timestamp(1_767_225_600_000);

/// Which provider call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Fence,
    Observe,
    Act,
    Verify,
    Stop,
    Probe,
}

/// A place where the server can be killed: a commit boundary, or an effect.
pub(crate) enum Point<'a> {
    /// The commit is on its way, and not applied.
    BeforeCommit(&'a Batch),
    /// The commit is durable, and not answered.
    AfterCommit(&'a Batch),
    /// The call has not been sent.
    BeforeCall(CallKind, Option<&'a Call>),
    /// The world has acted, and the answer has not come.
    AfterCall(CallKind, Option<&'a Call>),
}

/// Decides at which point the server is killed. It burns once.
pub(crate) type Fuse = Box<dyn FnMut(&Point<'_>) -> bool + Send>;

/// The present fault of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Only random faults.
    None,
    /// Every call fails.
    Unavailable,
    /// Every write finds the disk full.
    Full,
}

/// Shared state of one simulation.
pub(crate) struct Sim {
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) profile: Profile,
    pub(crate) gates: Gates,
    rng: Mutex<SplitMix64>,
    fuse: Mutex<Option<Fuse>>,
    outage: Mutex<Outage>,
    availability: watch::Sender<Availability>,
    healed: Mutex<bool>,
    /// Machines in whose place another one is.
    swapped: Mutex<BTreeSet<MachineId>>,
    oracle: Mutex<Oracle>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    pub(crate) fn new(seed: u64, profile: Profile) -> Arc<Self> {
        let clock = Arc::new(TokioClock::new(START));
        let oracle = Oracle::new(profile.limits.clone());
        Arc::new(Self {
            clock,
            profile,
            gates: Gates::default(),
            rng: Mutex::new(SplitMix64::new(seed)),
            fuse: Mutex::new(None),
            outage: Mutex::new(Outage::None),
            availability: watch::Sender::default(),
            healed: Mutex::new(false),
            swapped: Mutex::default(),
            oracle: Mutex::new(oracle),
        })
    }

    /// The judge. Never held across an await.
    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        let mut oracle = lock(&self.oracle);
        oracle.now_ms = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        oracle
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.oracle().note(text.into());
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        lock(&self.rng).below(bound)
    }

    /// True with a chance of `permille`, but never once the world has healed.
    pub(crate) fn trouble(&self, permille: u64) -> bool {
        let drawn = lock(&self.rng).chance(permille, 1_000);
        drawn && !*lock(&self.healed)
    }

    pub(crate) fn is_healed(&self) -> bool {
        *lock(&self.healed)
    }

    /// Another machine takes the place of this one, or it is back.
    pub(crate) fn swap(&self, machine: &MachineId) {
        let mut swapped = lock(&self.swapped);
        if !swapped.remove(machine) {
            swapped.insert(machine.clone());
        }
        drop(swapped);
        self.note(format!(
            "{machine} is {}swapped",
            if self.is_swapped(machine) { "" } else { "no longer " }
        ));
    }

    pub(crate) fn is_swapped(&self, machine: &MachineId) -> bool {
        lock(&self.swapped).contains(machine)
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        *lock(&self.healed) = true;
        lock(&self.swapped).clear();
        *lock(&self.fuse) = None;
        self.set_outage(Outage::None);
    }

    pub(crate) fn outage(&self) -> Outage {
        *lock(&self.outage)
    }

    pub(crate) fn set_outage(&self, outage: Outage) {
        *lock(&self.outage) = outage;
        self.availability.send_replace(match outage {
            Outage::None | Outage::Unavailable => Availability::Ok,
            Outage::Full => Availability::Full { since: self.clock.now() },
        });
    }

    /// How the store reports the outage.
    pub(crate) fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    pub(crate) fn set_fuse(&self, fuse: Fuse) {
        *lock(&self.fuse) = Some(fuse);
    }

    pub(crate) async fn sleep_ms(&self, ms: u64) {
        self.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Sleeps for a random time below `ms_max`.
    pub(crate) async fn delay(&self, ms_max: u64) {
        let ms = self.below(ms_max);
        if ms > 0 {
            self.sleep_ms(ms).await;
        }
    }

    /// The server may be killed here; a killed or stopped one does not get past.
    pub(crate) async fn point(&self, who: Incarnation, point: Point<'_>) {
        self.gates.pass(who).await;
        if self.burns(&point) {
            let place = match point {
                Point::BeforeCommit(_) => "before a commit".to_owned(),
                Point::AfterCommit(_) => "after a commit".to_owned(),
                Point::BeforeCall(kind, call) => format!("before {kind:?} {}", name(call)),
                Point::AfterCall(kind, call) => format!("after {kind:?} {}", name(call)),
            };
            self.note(format!("incarnation {who} is killed {place}"));
            self.gates.set(who, Life::Dead);
            self.gates.pass(who).await;
        }
    }

    fn burns(&self, point: &Point<'_>) -> bool {
        let mut fuse = lock(&self.fuse);
        let burns = fuse.as_mut().is_some_and(|burns| burns(point));
        if burns {
            *fuse = None;
        }
        burns
    }
}

fn name(call: Option<&Call>) -> String {
    call.map_or_else(String::new, |call| call.operation.to_string())
}

/// Polls a future once, so that what it does without waiting happens now.
pub(crate) async fn poll_once<T>(
    future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> Poll<T> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
