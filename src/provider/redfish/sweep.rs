//! The controllers that a driver knows, and their sessions, which are ended when they are not used.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::bmc::Bmc;
use super::settings::{RedfishPorts, RedfishSettings};
use crate::outbound::{Channel, Fingerprint, Origin, Trust};
use crate::provider::breaker::OpenBreakers;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// Most controllers that are called at the same time to end sessions.
const TOGETHER: usize = 64;

/// The controllers of one class.
#[derive(Debug)]
pub(super) struct Bmcs {
    settings: Arc<RedfishSettings>,
    ports: RedfishPorts,
    known: Mutex<HashMap<(String, String), Arc<Bmc>>>,
    pub(super) open: OpenBreakers,
    /// Whether rounds are made.
    is_tidied: AtomicBool,
}

impl Bmcs {
    pub(super) fn new(settings: Arc<RedfishSettings>, ports: RedfishPorts) -> Self {
        let (known, open) = (Mutex::default(), OpenBreakers::default());
        Self { settings, ports, known, open, is_tidied: AtomicBool::new(false) }
    }

    /// The controller at an origin, with its pinned certificate if it has one: machines that share it share its turns.
    ///
    /// # Errors
    /// If the fingerprint is none.
    pub(super) fn get(&self, origin: Origin, pinned: &str) -> Result<Arc<Bmc>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin.to_string(), pinned.to_owned());
        if let Some(bmc) = known.get(&key) {
            return Ok(bmc.clone());
        }
        let trust = match pinned {
            "" if self.settings.is_insecure => Trust::Anyone,
            "" => self.settings.trust.clone(),
            pinned => Trust::Pinned(
                Fingerprint::parse(pinned).ok_or("spec.bmc_certificate_sha256 is not a SHA-256")?,
            ),
        };
        let RedfishPorts { dial, clock, credentials, .. } = self.ports.clone();
        let channel = Channel::new(origin, trust, dial, clock.clone());
        let bmc = Arc::new(Bmc::new(
            channel,
            self.settings.clone(),
            clock,
            credentials,
            self.open.clone(),
        ));
        known.insert(key, bmc.clone());
        Ok(bmc)
    }

    fn all(&self) -> Vec<Arc<Bmc>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Ends sessions: those not used for a while, or all.
    pub(super) async fn log_out(&self, all: bool) {
        let each = futures_util::stream::iter(self.all());
        each.for_each_concurrent(TOGETHER, async |bmc| bmc.log_out(all).await).await;
    }

    /// Makes rounds from the first call on: a session that is not used takes a place that others need.
    pub(super) fn keep_tidy(self: &Arc<Self>) {
        if self.is_tidied.swap(true, Ordering::AcqRel) {
            return;
        }
        let (bmcs, clock): (Weak<Self>, _) = (Arc::downgrade(self), self.ports.clock.clone());
        tokio::spawn(async move {
            loop {
                clock.sleep(ROUND).await;
                let Some(bmcs) = bmcs.upgrade() else { return };
                bmcs.log_out(false).await;
            }
        });
    }
}
