//! Secrets that machines get as the answer to a report: in memory, once, and only while the step that needs them runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::credentials::Secret;
use crate::ids::MachineId;

/// The secrets that machines may fetch.
#[derive(Clone, Default)]
pub(super) struct Handing(Arc<Mutex<BTreeMap<MachineId, Offered>>>);

struct Offered {
    secret: Secret,
    /// On the monotonic clock.
    until: Duration,
    is_fetched: Arc<AtomicBool>,
}

/// A secret that a machine may fetch until this is dropped.
pub struct Handover {
    all: Handing,
    machine: MachineId,
    is_fetched: Arc<AtomicBool>,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl Handover {
    /// Whether the machine has fetched it.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.is_fetched.load(Ordering::Acquire)
    }

    /// Takes it back, if the machine has not fetched it.
    pub fn end(&self) {
        let mut all = self.all.lock();
        // A later one may have replaced it.
        let is_own = |offered: &Offered| Arc::ptr_eq(&offered.is_fetched, &self.is_fetched);
        if all.get(&self.machine).is_some_and(is_own) {
            all.remove(&self.machine);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.end();
    }
}

impl Handing {
    /// Offers a secret to a machine; one that was offered to it before is forgotten.
    pub(super) fn offer(&self, machine: &MachineId, secret: Secret, until: Duration) -> Handover {
        let is_fetched = Arc::new(AtomicBool::new(false));
        let offered = Offered { secret, until, is_fetched: is_fetched.clone() };
        self.lock().insert(machine.clone(), offered);
        Handover { all: self.clone(), machine: machine.clone(), is_fetched }
    }

    /// The secret of a machine, which is not offered any longer.
    pub(super) fn take(&self, machine: &MachineId, now: Duration) -> Option<Secret> {
        let mut all = self.lock();
        all.retain(|_, offered| offered.until > now);
        let offered = all.remove(machine)?;
        offered.is_fetched.store(true, Ordering::Release);
        Some(offered.secret)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineId, Offered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_fetched_once_in_time_and_while_its_step_runs() {
        let [one, two] = ["m-1", "m-2"].map(|id| MachineId::parse(id).unwrap());
        let (all, minute) = (Handing::default(), Duration::from_secs(60));
        let offer = |text: &str| all.offer(&one, Secret::new(text.to_owned()), minute);
        let take =
            |machine, now| all.take(machine, now).map(|secret: Secret| secret.expose().to_owned());
        let first = offer("canary-1");
        assert!(!format!("{first:?}").contains("canary"));
        assert_eq!(take(&two, Duration::ZERO), None);
        assert_eq!(take(&one, Duration::ZERO).as_deref(), Some("canary-1"));
        assert!(first.is_fetched());
        assert_eq!(take(&one, Duration::ZERO), None);
        // The end of one step does not end the offer of the next.
        let second = offer("canary-2");
        drop(first);
        assert!(!second.is_fetched());
        assert_eq!(take(&one, Duration::ZERO).as_deref(), Some("canary-2"));
        let third = offer("canary-3");
        assert_eq!(take(&one, minute), None, "too late");
        assert!(!third.is_fetched());
        let fourth = offer("canary-4");
        fourth.end();
        assert_eq!(take(&one, Duration::ZERO), None, "its step was stopped");
        drop(offer("canary-5"));
        assert_eq!(take(&one, Duration::ZERO), None, "its step has ended");
    }
}
