//! How many connections there may be, of all peers and of one, and which makes room when there are too many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::refusals::Refusals;

/// Caps on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caps {
    /// In total.
    pub(super) connections_max: usize,
    /// Of one address; an IPv6 /64 counts as one.
    pub(super) connections_per_peer_max: usize,
    /// Of loopback, whose addresses count as one.
    pub(super) connections_loopback_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections_max: 1_024, connections_per_peer_max: 64, connections_loopback_max: 512 }
    }
}

/// Most places that are kept for admins, and the share of all that they are at most.
const SPARES_MAX: usize = 16;
const SPARES_SHARE: usize = 8;

/// A spare connection that has been idle for so long, and has not shown that it is an admin's, makes room for another.
const SPARE_IDLE: Duration = Duration::from_secs(1);

/// Of a connection beyond the caps: whether a call on it has shown that it is an admin's.
#[derive(Debug, Clone, Default)]
pub(super) struct Spare(Arc<AtomicBool>);

impl Spare {
    /// A call of an admin has come on it.
    pub(super) fn prove(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one has.
    pub(super) fn is_proven(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Caps {
    /// How many of the places are kept for admins, where callers have to say who they are.
    pub(super) fn spares(&self) -> usize {
        SPARES_MAX.min(self.connections_max / SPARES_SHARE)
    }
}

#[derive(Debug)]
struct Connection {
    /// One beyond the caps, in a place that is kept for admins.
    spare: Option<Spare>,
    peer: IpAddr,
    activity: Activity,
    /// Cancelled when it has to make room.
    leave: CancellationToken,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    connections: BTreeMap<u64, Connection>,
    by_peer: BTreeMap<IpAddr, usize>,
}

impl Open {
    fn remove(&mut self, id: u64) -> Option<Connection> {
        let removed = self.connections.remove(&id)?;
        if removed.spare.is_none()
            && let Some(of_peer) = self.by_peer.get_mut(&removed.peer)
        {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.by_peer.remove(&removed.peer);
            }
        }
        Some(removed)
    }

    /// Ends the connection that has been idle for the longest time, of one peer or of all; whether there was one.
    fn make_room(&mut self, of: Option<IpAddr>) -> bool {
        let candidates = self.connections.iter();
        let longest = candidates
            .filter(|(_, connection)| connection.spare.is_none())
            .filter(|(_, connection)| of.is_none_or(|peer| connection.peer == peer))
            .filter_map(|(id, connection)| Some((connection.activity.idle_for()?, *id)))
            .max_by_key(|(idle_for, id)| (*idle_for, std::cmp::Reverse(*id)));
        let Some(ended) = longest.and_then(|(_, id)| self.remove(id)) else { return false };
        ended.leave.cancel();
        true
    }

    fn spares(&self) -> usize {
        self.connections.values().filter(|connection| connection.spare.is_some()).count()
    }

    /// Whether one of so many places for admins is free, or becomes free of a connection that says nothing.
    fn has_spare(&mut self, places: usize) -> bool {
        if self.spares() < places {
            return true;
        }
        let mut silent = self.connections.iter().filter(|(_, connection)| {
            connection.spare.as_ref().is_some_and(|spare| !spare.is_proven())
                && connection.activity.idle_for().is_some_and(|idle_for| idle_for >= SPARE_IDLE)
        });
        let Some(id) = silent.next().map(|(id, _)| *id).filter(|_| places > 0) else {
            return false;
        };
        if let Some(ended) = self.remove(id) {
            ended.leave.cancel();
        }
        true
    }
}

/// Counts open connections.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    caps: Caps,
    open: Arc<Mutex<Open>>,
    refusals: Refusals,
}

/// A place within the caps, released when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Gate,
    id: u64,
    /// Cancelled when the connection has to make room for another one: its place is taken already.
    pub(super) leave: CancellationToken,
    /// Of a place that is kept for admins.
    pub(super) spare: Option<Spare>,
}

impl Gate {
    pub(super) fn new(caps: Caps, refusals: Refusals) -> Self {
        Self { caps, open: Arc::default(), refusals }
    }

    /// Open connections.
    pub(super) fn open(&self) -> usize {
        self.lock().connections.len()
    }

    /// How many places are kept for admins, where callers have to say who they are.
    pub(super) fn spares(&self) -> usize {
        self.caps.spares()
    }

    /// A place for a connection of `address`, or which cap is reached while no connection within it is idle. `spares` of
    /// the places are for connections that soon show that they are an admin's: a connection that comes when a cap is reached
    /// gets one of those.
    pub(super) fn enter(
        &self,
        address: IpAddr,
        activity: &Activity,
        spares: usize,
    ) -> Result<Permit, &'static str> {
        let mut open = self.lock();
        let peer = counted_as(address);
        let (peer_max, cap) = match peer.is_loopback() {
            true => (self.caps.connections_loopback_max, "connections_loopback_max"),
            false => (self.caps.connections_per_peer_max, "connections_per_peer_max"),
        };
        let is_full = open.by_peer.get(&peer).is_some_and(|of_peer| *of_peer >= peer_max);
        let room = if is_full {
            open.make_room(Some(peer)).then_some(true).ok_or(cap)
        } else if open.connections.len() - open.spares() + spares >= self.caps.connections_max {
            open.make_room(None).then_some(true).ok_or("connections_max")
        } else {
            Ok(false)
        };
        let mut spare = None;
        match room {
            Err(_) if open.has_spare(spares) => spare = Some(Spare::default()),
            Ok(true) => self.refusals.count("idle_made_room"),
            Ok(false) => {}
            Err(cap) => {
                self.refusals.count(cap);
                return Err(cap);
            }
        }
        let id = open.next_id;
        open.next_id += 1;
        if spare.is_none() {
            *open.by_peer.entry(peer).or_default() += 1;
        }
        let leave = CancellationToken::new();
        let (activity, of) = (activity.clone(), spare.clone());
        let connection = Connection { spare: of, peer, activity, leave: leave.clone() };
        open.connections.insert(id, connection);
        Ok(Permit { gate: self.clone(), id, leave, spare })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.lock().remove(self.id);
    }
}

/// The address under which a peer is counted.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        canonical if canonical.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let network = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock as _, Timestamp, TokioClock};

    const CAPS: Caps =
        Caps { connections_max: 3, connections_per_peer_max: 2, connections_loopback_max: 2 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn caps_count_what_is_open_and_busy() {
        let refusals = Refusals::default();
        let gate = Gate::new(CAPS, refusals.clone());
        let busy = Activity::new(Arc::new(TokioClock::new(Timestamp(0))));
        let _stream = busy.begin();
        let enter = |text: &str| gate.enter(address(text), &busy, 0);
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").unwrap_err(), "connections_per_peer_max");
        let third = enter("192.0.2.2").unwrap();
        assert_eq!(enter("127.0.0.1").unwrap_err(), "connections_max");
        assert_eq!(refusals.of("connections_max"), 1);
        drop((first, third));
        let own = enter("127.0.0.1").unwrap();
        assert_eq!(gate.open(), 2);
        drop(second);
        let other = enter("::1").unwrap();
        assert_eq!(enter("127.9.9.9").unwrap_err(), "connections_loopback_max");
        drop((own, other));
        assert_eq!(gate.open(), 0);
        assert!(gate.lock().by_peer.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_makes_room() {
        let clock = Arc::new(TokioClock::new(Timestamp(0)));
        let gate = Gate::new(CAPS, Refusals::default());
        let enter = |text: &str| {
            let activity = Activity::new(clock.clone());
            (gate.enter(address(text), &activity, 0).unwrap(), activity)
        };
        let (busy, of_busy) = enter("192.0.2.1");
        let _stream = of_busy.begin();
        clock.sleep(Duration::from_secs(1)).await;
        let (old, _) = enter("192.0.2.2");
        clock.sleep(Duration::from_secs(1)).await;
        let (young, _) = enter("192.0.2.3");
        let (fourth, _) = enter("192.0.2.4");
        assert_eq!(
            [&busy, &old, &young, &fourth].map(|permit| permit.leave.is_cancelled()),
            [false, true, false, false]
        );
        // Its place is not given back twice.
        drop(old);
        assert_eq!(gate.open(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_kept_for_admins() {
        let clock = Arc::new(TokioClock::new(Timestamp(0)));
        let caps =
            Caps { connections_max: 24, connections_per_peer_max: 2, connections_loopback_max: 2 };
        let gate = Gate::new(caps, Refusals::default());
        assert_eq!((gate.spares(), Caps::default().spares()), (3, 16));
        let busy = Activity::new(clock.clone());
        let _stream = busy.begin();
        let enter = |text: &str, activity: &Activity| gate.enter(address(text), activity, 3);
        let mut held: Vec<_> =
            (0..21).map(|n| enter(&format!("192.0.{n}.1"), &busy).unwrap()).collect();
        assert!(held.iter().all(|permit| permit.spare.is_none()));
        // Three more, of whatever address; those that show who they are stay.
        let idle = Activity::new(clock.clone());
        let spares: Vec<_> = (0..3).map(|_| enter("192.0.2.1", &idle).unwrap()).collect();
        spares[0].spare.as_ref().unwrap().prove();
        assert_eq!(enter("192.0.2.1", &idle).unwrap_err(), "connections_max");
        clock.sleep(SPARE_IDLE).await;
        let next = enter("192.0.2.1", &idle).unwrap();
        assert!(next.spare.is_some());
        assert_eq!(
            spares.iter().map(|permit| permit.leave.is_cancelled()).collect::<Vec<_>>(),
            [false, true, false]
        );
        drop((spares, next));
        // A peer that has reached its own cap is no reason to keep its admin out.
        drop(held.pop());
        held.push(enter("192.0.0.1", &busy).unwrap());
        assert!(enter("192.0.0.1", &idle).unwrap().spare.is_some());
        assert_eq!(
            gate.enter(address("192.0.0.1"), &idle, 0).unwrap_err(),
            "connections_per_peer_max"
        );
        drop(held);
        assert_eq!(gate.open(), 0);
        assert!(gate.lock().by_peer.is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_so_is_loopback() {
        let peer = |text: &str| counted_as(address(text));
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(peer(loopback), address("127.0.0.1"), "{loopback}");
        }
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::2"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
    }
}
