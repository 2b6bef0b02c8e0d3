//! Room for answers that have not been sent: how many bytes of them there may be, of one connection and of all.
//!
//! A peer that asks for much and reads nothing would otherwise have the server keep every answer. A handler begins only when
//! there is room for the largest answer that it may give, and what it really gives is counted until the connection has
//! written it. Connections take turns, so that one with many calls waits for itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::limits::{
    ANSWER_SMALL_BYTES, CALLS_WAITING_MAX, CALLS_WAITING_PER_CONNECTION, UNSENT_BYTES_CROWDED_MAX,
    UNSENT_BYTES_MAX, UNSENT_BYTES_PER_CONNECTION_MAX,
};

/// How many bytes there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of one connection.
    pub(super) of_connection: u64,
    /// Of all.
    pub(super) in_all: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { of_connection: UNSENT_BYTES_PER_CONNECTION_MAX, in_all: UNSENT_BYTES_MAX }
    }
}

/// Whether an answer of so many bytes may be begun, with what its connection and all connections hold.
fn fits(bounds: Bounds, of_connection: u64, in_all: u64, bytes: u64) -> bool {
    // In a crowd one connection gets less; and small answers have a part of the whole to themselves, so that large ones
    // that are not read never keep a server from being asked how it is.
    let is_crowded = in_all > bounds.in_all / 8;
    let own = match is_crowded {
        true => bounds.of_connection.min(UNSENT_BYTES_CROWDED_MAX),
        false => bounds.of_connection,
    };
    let whole = if bytes <= ANSWER_SMALL_BYTES { bounds.in_all } else { bounds.in_all / 4 * 3 };
    (of_connection == 0 || of_connection + bytes <= own) && in_all + bytes <= whole
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    granted: oneshot::Sender<Held>,
}

#[derive(Debug, Default)]
struct Connection {
    bytes: u64,
    waiting: VecDeque<Waiter>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    next_id: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections with calls that wait, in the order of their turns.
    turns: VecDeque<u64>,
}

/// Room for the answers of a server. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    bounds: Bounds,
    state: Arc<Mutex<State>>,
}

impl Room {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Arc::default() }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The part of a new connection.
    pub(super) fn place(&self) -> Place {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.connections.insert(id, Connection::default());
        Place(Arc::new(Seat { room: self.clone(), id }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what a connection holds, and lets in who fits now.
    fn change(&self, id: u64, from: u64, to: u64) {
        let mut state = self.lock();
        state.bytes = state.bytes - from + to;
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.bytes = connection.bytes - from + to;
            if connection.has_ended && connection.bytes == 0 {
                state.connections.remove(&id);
            }
        }
        let granted = if to < from { self.grant(&mut state) } else { Vec::new() };
        drop(state);
        for (sender, held) in granted {
            // Who has gone meanwhile gives it back by dropping it: without the lock, which that takes.
            drop(sender.send(held));
        }
    }

    /// Goes round the connections that wait until none of them fits.
    fn grant(&self, state: &mut State) -> Vec<(oneshot::Sender<Held>, Held)> {
        let mut granted = Vec::new();
        let mut passed = 0;
        while passed < state.turns.len() {
            let Some(id) = state.turns.pop_front() else { break };
            let in_all = state.bytes;
            let Some(connection) = state.connections.get_mut(&id) else { continue };
            connection.waiting.retain(|waiter| !waiter.granted.is_closed());
            let Some(first) = connection.waiting.front() else { continue };
            if !fits(self.bounds, connection.bytes, in_all, first.bytes) {
                state.turns.push_back(id);
                passed += 1;
                continue;
            }
            if let Some(Waiter { bytes, granted: sender }) = connection.waiting.pop_front() {
                connection.bytes += bytes;
                state.bytes += bytes;
                granted.push((sender, Held { room: self.clone(), id, bytes }));
            }
            state.turns.push_back(id);
            passed = 0;
        }
        granted
    }
}

#[derive(Debug)]
struct Seat {
    room: Room,
    id: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.waiting.clear();
            connection.has_ended = true;
            if connection.bytes == 0 {
                state.connections.remove(&self.id);
            }
        }
    }
}

/// The part of one connection. Clones are of the same one.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Seat>);

impl Place {
    /// Number of the connection.
    pub(super) fn connection(&self) -> u64 {
        self.0.id
    }

    /// Waits for room for an answer of at most so many bytes, after those of this connection that wait already. `None` if
    /// too many calls wait, and enough of them are of this connection.
    pub(super) async fn enter(&self, bytes: u64) -> Option<Held> {
        let Seat { room, id } = &*self.0;
        let granted = {
            let mut state = room.lock();
            let in_all = state.bytes;
            let waiting: usize = state.connections.values().map(|one| one.waiting.len()).sum();
            let connection = state.connections.entry(*id).or_default();
            let is_first = connection.waiting.is_empty();
            if is_first && fits(room.bounds, connection.bytes, in_all, bytes) {
                connection.bytes += bytes;
                state.bytes += bytes;
                return Some(Held { room: room.clone(), id: *id, bytes });
            }
            let own = connection.waiting.len();
            if waiting >= CALLS_WAITING_MAX && own >= CALLS_WAITING_PER_CONNECTION {
                return None;
            }
            let (sender, granted) = oneshot::channel();
            connection.waiting.push_back(Waiter { bytes, granted: sender });
            if !state.turns.contains(id) {
                state.turns.push_back(*id);
            }
            granted
        };
        match granted.await {
            Ok(held) => Some(held),
            // The connection has ended, and with it this call.
            Err(_) => std::future::pending().await,
        }
    }

    /// Counts an answer that is there already.
    pub(super) fn hold(&self, bytes: u64) -> Held {
        let Seat { room, id } = &*self.0;
        room.change(*id, 0, bytes);
        Held { room: room.clone(), id: *id, bytes }
    }
}

/// Room that an answer takes, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    id: u64,
    bytes: u64,
}

impl Held {
    /// Takes what the answer really takes.
    pub(super) fn resize(&mut self, bytes: u64) {
        self.room.change(self.id, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.change(self.id, self.bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const BOUNDS: Bounds = Bounds { of_connection: 16 * MIB, in_all: 256 * MIB };

    #[test]
    fn one_connection_gets_less_in_a_crowd_and_small_answers_have_a_part_of_their_own() {
        let large = 4 * MIB;
        let may = |of_connection, in_all, bytes| fits(BOUNDS, of_connection, in_all, bytes);
        assert!(may(12 * MIB, 12 * MIB, large));
        assert!(!may(13 * MIB, 13 * MIB, large));
        // In a crowd.
        assert!(may(0, 100 * MIB, large));
        assert!(!may(MIB, 100 * MIB, large));
        assert!(may(MIB, 100 * MIB, ANSWER_SMALL_BYTES));
        // Large ones leave the last quarter to small ones.
        assert!(may(0, 188 * MIB, large));
        assert!(!may(0, 190 * MIB, large));
        assert!(may(0, 250 * MIB, ANSWER_SMALL_BYTES));
        assert!(!may(0, 256 * MIB, ANSWER_SMALL_BYTES));
    }

    #[test]
    fn connections_take_turns_and_who_has_gone_is_passed_over() {
        let room = Room::new(Bounds { of_connection: 4 * MIB, in_all: 8 * MIB });
        let (greedy, honest) = (room.place(), room.place());
        let first = greedy.enter(4 * MIB).now_or_never().flatten().unwrap();
        let mut queue: Vec<_> = (0..3).map(|_| Box::pin(greedy.enter(4 * MIB))).collect();
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        // 4 of 6 MiB for large answers are taken: another connection waits too, but only for one answer.
        let mut other = Box::pin(honest.enter(4 * MIB));
        assert!((&mut other).now_or_never().is_none());
        drop(queue.remove(0));
        drop(first);
        let next = (&mut queue[0]).now_or_never();
        let got = (&mut other).now_or_never();
        assert!(next.is_some() != got.is_some(), "one of them has the room");
        drop((next, got));
        let rest =
            [(&mut queue[1]).now_or_never().is_some(), (&mut other).now_or_never().is_some()];
        assert!(rest.contains(&true));
    }

    #[test]
    fn what_is_sent_or_lost_gives_its_room_back() {
        let room = Room::new(BOUNDS);
        let place = room.place();
        let mut held = place.enter(4 * MIB).now_or_never().flatten().unwrap();
        held.resize(1000);
        assert_eq!(room.bytes(), 1000);
        let counted = place.hold(500);
        drop(place);
        assert_eq!(room.bytes(), 1500);
        drop((held, counted));
        assert_eq!(room.bytes(), 0);
        assert!(room.lock().connections.is_empty());
    }

    #[test]
    fn a_connection_with_many_calls_waits_with_some_of_them_only() {
        let room = Room::new(Bounds { of_connection: 4 * MIB, in_all: 8 * MIB });
        let (greedy, honest) = (room.place(), room.place());
        let _held = greedy.enter(4 * MIB).now_or_never().flatten().unwrap();
        let mut queue: Vec<_> =
            (0..CALLS_WAITING_MAX).map(|_| Box::pin(greedy.enter(4 * MIB))).collect();
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        assert!(matches!(greedy.enter(4 * MIB).now_or_never(), Some(None)));
        // Others may wait still.
        assert!(honest.enter(4 * MIB).now_or_never().is_none());
    }
}
