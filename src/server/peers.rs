//! What one peer may ask for in a time: mutations, and bytes that it has written. A peer is a principal, whatever its
//! addresses are; who is not known is an address.
//!
//! Buckets that fill with time. A call begins while its peer's buckets are not empty; what it takes is taken when it is
//! known, and a bucket may go below nothing, so that large requests are never refused for being large.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::gate::counted_as;
use crate::clock::Clock;

/// How much there may be of something in a second. What a peer has not used of ten seconds it may use at once.
pub(super) const BURST_S: u64 = 10;

/// Rates of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    /// Calls a second that may change something.
    pub(super) mutations_per_s: u64,
    /// Bytes of such calls a second.
    pub(super) written_bytes_per_s: u64,
}

/// Why a mutation is refused now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// Name of the limit in errors.
    pub(super) limit: &'static str,
    /// Name in the metrics, and of the setting.
    pub(super) setting: &'static str,
    /// How much a second.
    pub(super) per_s: u64,
    /// When there is room again.
    pub(super) retry_after: Duration,
}

/// What is left, in thousandths, at an instant.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: i64,
    at_ms: u64,
}

impl Bucket {
    fn full(per_s: u64, now_ms: u64) -> Self {
        Self { left: most(per_s), at_ms: now_ms }
    }

    fn fill(&mut self, per_s: u64, now_ms: u64) {
        let gained = signed(per_s).saturating_mul(signed(now_ms.saturating_sub(self.at_ms)));
        self.left = self.left.saturating_add(gained).min(most(per_s));
        self.at_ms = now_ms;
    }

    fn take(&mut self, count: u64) {
        self.left = self.left.saturating_sub(signed(count).saturating_mul(1000));
    }

    /// How long until something is left; `None` if something is.
    fn empty_for(&self, per_s: u64) -> Option<Duration> {
        let missing = u64::try_from(1 - self.left).unwrap_or(0);
        (missing > 0).then(|| Duration::from_millis(missing.div_ceil(per_s.max(1))))
    }
}

/// What a full bucket holds.
fn most(per_s: u64) -> i64 {
    signed(per_s).saturating_mul(signed(BURST_S * 1000))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct Used {
    mutations: Bucket,
    bytes: Bucket,
}

impl Used {
    fn full(rates: Rates, now_ms: u64) -> Self {
        Self {
            mutations: Bucket::full(rates.mutations_per_s, now_ms),
            bytes: Bucket::full(rates.written_bytes_per_s, now_ms),
        }
    }

    fn fill(&mut self, rates: Rates, now_ms: u64) {
        self.mutations.fill(rates.mutations_per_s, now_ms);
        self.bytes.fill(rates.written_bytes_per_s, now_ms);
    }

    fn is_full(&self, rates: Rates) -> bool {
        self.mutations.left == most(rates.mutations_per_s)
            && self.bytes.left == most(rates.written_bytes_per_s)
    }
}

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Someone at an address, who has not proved who it is.
    Address(IpAddr),
    /// A principal.
    Principal(Arc<str>),
}

/// Peers with buckets that are not full are remembered; past this many the full ones are forgotten.
const REMEMBERED: usize = 1_024;

/// The peers of a server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    rates: Rates,
    clock: Arc<dyn Clock>,
    used: Arc<Mutex<BTreeMap<Who, Used>>>,
}

impl Peers {
    pub(super) fn new(rates: Rates, clock: Arc<dyn Clock>) -> Self {
        Self { rates, clock, used: Arc::default() }
    }

    /// The one of a connection.
    pub(super) fn at(&self, address: IpAddr) -> Peer {
        Peer { peers: self.clone(), who: Who::Address(counted_as(address)) }
    }

    /// Looks at what a peer has used, as it is now.
    fn with<T>(&self, who: &Who, look: impl FnOnce(&mut Used) -> T) -> T {
        let now_ms = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let rates = self.rates;
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > REMEMBERED && !all.contains_key(who) {
            all.retain(|_, used| {
                used.fill(rates, now_ms);
                !used.is_full(rates)
            });
        }
        if let Some(used) = all.get_mut(who) {
            used.fill(rates, now_ms);
            return look(used);
        }
        look(all.entry(who.clone()).or_insert_with(|| Used::full(rates, now_ms)))
    }
}

/// A peer. Clones are of the same one.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    peers: Peers,
    who: Who,
}

impl Peer {
    /// The same, as a principal if it is one.
    pub(super) fn known_as(&self, principal: Option<&Arc<str>>) -> Self {
        let who = principal.map_or_else(|| self.who.clone(), |name| Who::Principal(name.clone()));
        Self { peers: self.peers.clone(), who }
    }

    /// Who it is.
    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    /// What it is, for people.
    pub(super) fn noun(&self) -> &'static str {
        match self.who {
            Who::Address(_) => "address",
            Who::Principal(_) => "principal",
        }
    }

    /// Takes a mutation.
    ///
    /// # Errors
    /// [`TooMany`] if the peer has used up what it may.
    pub(super) fn mutate(&self) -> Result<(), TooMany> {
        let rates = self.peers.rates;
        self.peers.with(&self.who, |used| {
            let limits = [
                ("MUTATIONS", "mutations_per_peer_per_s", rates.mutations_per_s, used.mutations),
                (
                    "WRITTEN_BYTES",
                    "written_bytes_per_peer_per_s",
                    rates.written_bytes_per_s,
                    used.bytes,
                ),
            ];
            for (limit, setting, per_s, bucket) in limits {
                if let Some(retry_after) = bucket.empty_for(per_s) {
                    return Err(TooMany { limit, setting, per_s, retry_after });
                }
            }
            used.mutations.take(1);
            Ok(())
        })
    }

    /// Takes bytes of a mutation that have come.
    pub(super) fn write(&self, bytes: u64) {
        self.peers.with(&self.who, |used| used.bytes.take(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Timestamp, TokioClock};

    const RATES: Rates = Rates { mutations_per_s: 2, written_bytes_per_s: 100 };

    fn peers() -> (Peers, Arc<dyn Clock>) {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(0)));
        (Peers::new(RATES, clock.clone()), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_use_ten_seconds_at_once_and_then_as_much_as_comes() {
        let (peers, clock) = peers();
        let (peer, other) =
            (peers.at("192.0.2.1".parse().unwrap()), peers.at("192.0.2.2".parse().unwrap()));
        for _ in 0..20 {
            assert_eq!(peer.mutate(), Ok(()));
        }
        let refused = peer.mutate().unwrap_err();
        assert_eq!((refused.limit, refused.per_s), ("MUTATIONS", 2));
        assert!(refused.retry_after <= Duration::from_millis(500), "{refused:?}");
        assert_eq!(other.mutate(), Ok(()));
        clock.sleep(refused.retry_after).await;
        assert_eq!(peer.mutate(), Ok(()));
        assert!(peer.mutate().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_is_taken_and_paid_for_afterwards() {
        let (peers, clock) = peers();
        let peer = peers.at("127.0.0.1".parse().unwrap());
        peer.mutate().unwrap();
        peer.write(1_500);
        // ::1 is the same peer.
        let refused = peers.at("::1".parse().unwrap()).mutate().unwrap_err();
        assert_eq!(refused.limit, "WRITTEN_BYTES");
        let five = Duration::from_secs(5);
        assert!(refused.retry_after >= five && refused.retry_after < five * 2, "{refused:?}");
        clock.sleep(refused.retry_after).await;
        assert_eq!(peer.mutate(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_has_one_ration_at_all_its_addresses() {
        let (peers, _clock) = peers();
        let (here, there) =
            (peers.at("192.0.2.1".parse().unwrap()), peers.at("192.0.2.2".parse().unwrap()));
        let (ann, ben) = (Arc::from("ann"), Arc::from("ben"));
        for n in 0..20 {
            let at = if n % 2 == 0 { &here } else { &there };
            assert_eq!(at.known_as(Some(&ann)).mutate(), Ok(()));
        }
        assert!(there.known_as(Some(&ann)).mutate().is_err());
        assert_eq!(here.known_as(Some(&ben)).mutate(), Ok(()));
        assert_eq!(here.known_as(None).mutate(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_used_nothing_for_long_is_forgotten() {
        let (peers, clock) = peers();
        let at = |n: u32| peers.at(IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + n)));
        for n in 0..=1_024 {
            at(n).mutate().unwrap();
        }
        clock.sleep(Duration::from_secs(1)).await;
        at(5_000).mutate().unwrap();
        assert_eq!(peers.used.lock().unwrap().len(), 1);
    }
}
