//! How many connections there may be, of all peers and of one, and which makes room when there are too many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

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

#[derive(Debug)]
struct Connection {
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
        if let Some(of_peer) = self.by_peer.get_mut(&removed.peer) {
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
            .filter(|(_, connection)| of.is_none_or(|peer| connection.peer == peer))
            .filter_map(|(id, connection)| Some((connection.activity.idle_for()?, *id)))
            .max_by_key(|(idle_for, id)| (*idle_for, std::cmp::Reverse(*id)));
        let Some(ended) = longest.and_then(|(_, id)| self.remove(id)) else { return false };
        ended.leave.cancel();
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
}

impl Gate {
    pub(super) fn new(caps: Caps, refusals: Refusals) -> Self {
        Self { caps, open: Arc::default(), refusals }
    }

    /// Open connections.
    pub(super) fn open(&self) -> usize {
        self.lock().connections.len()
    }

    /// A place for a connection of `address`, or which cap is reached while no connection within it is idle.
    pub(super) fn enter(
        &self,
        address: IpAddr,
        activity: &Activity,
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
        } else if open.connections.len() >= self.caps.connections_max {
            open.make_room(None).then_some(true).ok_or("connections_max")
        } else {
            Ok(false)
        };
        match room {
            Ok(true) => self.refusals.count("idle_made_room"),
            Ok(false) => {}
            Err(cap) => {
                self.refusals.count(cap);
                return Err(cap);
            }
        }
        let id = open.next_id;
        open.next_id += 1;
        *open.by_peer.entry(peer).or_default() += 1;
        let leave = CancellationToken::new();
        let connection = Connection { peer, activity: activity.clone(), leave: leave.clone() };
        open.connections.insert(id, connection);
        Ok(Permit { gate: self.clone(), id, leave })
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
        let enter = |text: &str| gate.enter(address(text), &busy);
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
            (gate.enter(address(text), &activity).unwrap(), activity)
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
