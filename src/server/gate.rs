//! How many connections there may be, of all peers and of one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caps {
    /// Of all peers.
    pub(super) connections_max: usize,
    /// Of one address (an IPv6 /64 counts as one); loopback is exempt.
    pub(super) connections_per_peer_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections_max: 1_024, connections_per_peer_max: 64 }
    }
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// Counts open connections.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    caps: Caps,
    open: Arc<Mutex<Open>>,
}

/// A place within the caps, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Gate,
    peer: Option<IpAddr>,
}

impl Gate {
    pub(super) fn new(caps: Caps) -> Self {
        Self { caps, open: Arc::default() }
    }

    /// Open connections.
    pub(super) fn open(&self) -> usize {
        self.lock().total
    }

    /// A place for a connection of `address`, or which cap is reached.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Permit, &'static str> {
        let mut open = self.lock();
        if open.total >= self.caps.connections_max {
            return Err("connections_max");
        }
        let peer = counted_as(address);
        if let Some(peer) = peer {
            let of_peer = open.by_peer.entry(peer).or_default();
            if *of_peer >= self.caps.connections_per_peer_max {
                return Err("connections_per_peer_max");
            }
            *of_peer += 1;
        }
        open.total += 1;
        Ok(Permit { gate: self.clone(), peer })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.gate.lock();
        open.total -= 1;
        if let Some(peer) = self.peer
            && let Some(of_peer) = open.by_peer.get_mut(&peer)
        {
            *of_peer -= 1;
            if *of_peer == 0 {
                open.by_peer.remove(&peer);
            }
        }
    }
}

/// The address under which a peer is counted, `None` if it is exempt.
fn counted_as(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        canonical if canonical.is_loopback() => None,
        v4 @ IpAddr::V4(_) => Some(v4),
        IpAddr::V6(v6) => {
            let network = v6.to_bits() >> 64 << 64;
            Some(IpAddr::V6(Ipv6Addr::from_bits(network)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_count_what_is_open() {
        let gate = Gate::new(Caps { connections_max: 3, connections_per_peer_max: 2 });
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let (first, second) = (gate.enter(peer).unwrap(), gate.enter(peer).unwrap());
        assert_eq!(gate.enter(peer).unwrap_err(), "connections_per_peer_max");
        let third = gate.enter("192.0.2.2".parse().unwrap()).unwrap();
        assert_eq!(gate.enter("127.0.0.1".parse().unwrap()).unwrap_err(), "connections_max");
        drop((first, third));
        let again = gate.enter(peer).unwrap();
        assert_eq!(gate.open(), 2);
        drop((second, again));
        assert_eq!(gate.open(), 0);
        assert!(gate.lock().by_peer.is_empty());
    }

    #[test]
    fn loopback_is_exempt_and_an_ipv6_network_is_one_peer() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(counted_as(loopback.parse().unwrap()), None, "{loopback}");
        }
        let v6 = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(v6("2001:db8:0:1::1"), v6("2001:db8:0:1:ffff::2"));
        assert_ne!(v6("2001:db8:0:1::1"), v6("2001:db8:0:2::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), v6("192.0.2.1"));
    }
}
