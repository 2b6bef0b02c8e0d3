//! Ownership of machines, if several servers share a store.
//!
//! Machines are assigned in shards. A lease says that this server owns the work of a shard; it only decides who
//! starts work: what keeps a former owner from writing is the epoch of each machine
//! ([`Batch::holds`](super::Batch::holds)), which the new owner raises first.

use super::error::Fut;
use crate::ids::{Epoch, MachineId};

/// Number of shards; fixed for the life of a store.
pub const SHARDS: u16 = 256;

/// A part of all machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The shard of a machine. It must never change, so the hash is defined here: FNV-1a of 64 bits, and the last
    /// steps of `SplitMix64`, since ids that differ only in their last digit would otherwise be close together.
    #[must_use]
    pub fn of(machine: &MachineId) -> Self {
        let hash = machine.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(u16::try_from((hash ^ (hash >> 31)) % u64::from(SHARDS)).unwrap_or_default())
    }

    /// Its number, below [`SHARDS`].
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A shard owned by this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub shard: Shard,
    /// Grows each time that the shard gets another owner.
    pub epoch: Epoch,
}

/// The owner of a machine's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This server.
    Us,
    /// The server at this address.
    Other {
        /// Its address.
        address: String,
    },
    /// None: the lease has expired, or was released.
    None,
}

/// Assigns the work on machines to the servers of a store.
pub trait Ownership: Send + Sync {
    /// Claims up to `limit` shards that no server owns.
    fn claim(&self, limit: usize) -> Fut<'_, Vec<Lease>>;
    /// Renews leases; returns those that this server still owns.
    fn renew<'a>(&'a self, held: &'a [Lease]) -> Fut<'a, Vec<Lease>>;
    /// Releases leases, so that others need not wait until they expire.
    fn release<'a>(&'a self, held: &'a [Lease]) -> Fut<'a, ()>;
    /// The owner of a machine's work.
    fn owner_of<'a>(&'a self, machine: &'a MachineId) -> Fut<'a, Owner>;
}

/// The one server of a store that only one can use: it owns everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnsAll;

impl Ownership for OwnsAll {
    fn claim(&self, limit: usize) -> Fut<'_, Vec<Lease>> {
        let leases = Shard::all().take(limit).map(|shard| Lease { shard, epoch: Epoch(1) });
        let leases = leases.collect();
        Box::pin(async move { Ok(leases) })
    }

    fn renew<'a>(&'a self, held: &'a [Lease]) -> Fut<'a, Vec<Lease>> {
        Box::pin(async move { Ok(held.to_vec()) })
    }

    fn release<'a>(&'a self, _: &'a [Lease]) -> Fut<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn owner_of<'a>(&'a self, _: &'a MachineId) -> Fut<'a, Owner> {
        Box::pin(async { Ok(Owner::Us) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_dealt_out_evenly_and_for_ever() {
        let mut counts = vec![0_u32; usize::from(SHARDS)];
        for number in 0..25_600 {
            let machine = MachineId::parse(&format!("machine-{number}")).unwrap();
            counts[usize::from(Shard::of(&machine).number())] += 1;
        }
        assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
        let number = |id: &str| Shard::of(&MachineId::parse(id).unwrap()).number();
        let known = [number("machine-1"), number("rack-7.node-3"), number("a")];
        assert_eq!(known, [50, 17, 248]);
    }
}
