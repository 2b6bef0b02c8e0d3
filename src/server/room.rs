//! Room for answers that have not been sent: how many bytes of them there may be, of one connection and of all.
//!
//! A peer that asks for much and reads nothing would otherwise have the server keep every answer. A handler begins only when
//! there is room for the largest answer that it may give, and what it really gives is counted until the connection has
//! written it. Whose connection has had the least is next, so that one with many calls waits for itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::limits::{
    ANSWER_SMALL_BYTES, CALLS_WAITING_MAX, CALLS_WAITING_PER_CONNECTION, SCANS_PER_PROCESSOR,
    UNSENT_BYTES_CROWDED_MAX, UNSENT_BYTES_MAX, UNSENT_BYTES_PER_CONNECTION_MAX,
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

/// What a call needs before its handler begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// The most that it may answer.
    pub(super) bytes: u64,
    /// Whether it reads many records, which takes processor time before there is an answer.
    pub(super) is_scan: bool,
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
    need: Need,
    granted: oneshot::Sender<Held>,
}

#[derive(Debug, Default)]
struct Connection {
    bytes: u64,
    /// Bytes that it has had, or may have; at least as many as the others, as of its last turn.
    had: u64,
    waiting: VecDeque<Waiter>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    /// Handlers at work that read many records.
    scans: usize,
    next_id: u64,
    connections: BTreeMap<u64, Connection>,
    /// Connections with calls that wait.
    turns: VecDeque<u64>,
    /// What the connection had had that was let in last: who has had less, as it asked for nothing, has no more credit for
    /// that than who comes now.
    share: u64,
}

impl State {
    fn forget_who_left(&mut self) {
        let Self { turns, connections, .. } = self;
        turns.retain(|id| {
            let Some(connection) = connections.get_mut(id) else { return false };
            connection.waiting.retain(|waiter| !waiter.granted.is_closed());
            !connection.waiting.is_empty()
        });
    }
}

/// Room for the answers of a server. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Room {
    bounds: Bounds,
    scans_max: usize,
    state: Arc<Mutex<State>>,
}

impl Room {
    pub(super) fn new(bounds: Bounds) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { bounds, scans_max: processors * SCANS_PER_PROCESSOR, state: Arc::default() }
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

    /// Changes what a connection holds, and lets in who fits now. `scanned` is whether it has finished reading.
    fn change(&self, id: u64, from: u64, to: u64, scanned: bool) {
        let mut state = self.lock();
        state.scans -= usize::from(scanned);
        let unused = if scanned { from.saturating_sub(to) } else { 0 };
        state.bytes = state.bytes - from + to;
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.bytes = connection.bytes - from + to;
            connection.had = connection.had.saturating_sub(unused);
            if connection.has_ended && connection.bytes == 0 {
                state.connections.remove(&id);
            }
        }
        let granted = if to < from || scanned { self.grant(&mut state) } else { Vec::new() };
        drop(state);
        for (sender, held) in granted {
            // Who has gone meanwhile gives it back by dropping it: without the lock, which that takes.
            drop(sender.send(held));
        }
    }

    fn may_begin(&self, need: Need, of_connection: u64, in_all: u64, scans: usize) -> bool {
        let is_turn = !need.is_scan || scans < self.scans_max;
        is_turn && fits(self.bounds, of_connection, in_all, need.bytes)
    }

    fn begun(&self, state: &mut State, id: u64, need: Need) -> Held {
        state.bytes += need.bytes;
        state.scans += usize::from(need.is_scan);
        let connection = state.connections.entry(id).or_default();
        connection.bytes += need.bytes;
        state.share = connection.had.max(state.share);
        connection.had = state.share + need.bytes;
        Held { room: self.clone(), id, bytes: need.bytes, is_scan: need.is_scan }
    }

    /// Lets in who fits now, first those of connections that have had the least.
    fn grant(&self, state: &mut State) -> Vec<(oneshot::Sender<Held>, Held)> {
        let mut granted = Vec::new();
        state.forget_who_left();
        while let Some(turn) = self.next_turn(state) {
            let Some(id) = state.turns.remove(turn) else { break };
            let Some(connection) = state.connections.get_mut(&id) else { continue };
            let Some(Waiter { need, granted: sender }) = connection.waiting.pop_front() else {
                continue;
            };
            if !connection.waiting.is_empty() {
                state.turns.push_back(id);
            }
            granted.push((sender, self.begun(state, id, need)));
        }
        granted
    }

    /// Whose turn it is, of those that fit.
    fn next_turn(&self, state: &State) -> Option<usize> {
        let turns = state.turns.iter().enumerate();
        let fitting = turns.filter_map(|(turn, id)| {
            let connection = state.connections.get(id)?;
            let first = connection.waiting.front()?;
            let fits = self.may_begin(first.need, connection.bytes, state.bytes, state.scans);
            // Of those that are even, who has had less before does not wait for a round of the others.
            let is_even = connection.had >= state.share;
            fits.then_some((connection.had.max(state.share), is_even, turn))
        });
        fitting.min().map(|(.., turn)| turn)
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

    /// Waits until there is what a call needs, after those of this connection that wait already. `None` if too many calls
    /// wait, and enough of them are of this connection.
    pub(super) async fn enter(&self, need: Need) -> Option<Held> {
        let Seat { room, id } = &*self.0;
        let granted = {
            let mut state = room.lock();
            let (in_all, scans) = (state.bytes, state.scans);
            let waiting: usize = state.connections.values().map(|one| one.waiting.len()).sum();
            let connection = state.connections.entry(*id).or_default();
            let is_first = connection.waiting.is_empty();
            if is_first && room.may_begin(need, connection.bytes, in_all, scans) {
                return Some(room.begun(&mut state, *id, need));
            }
            let own = connection.waiting.len();
            if waiting >= CALLS_WAITING_MAX && own >= CALLS_WAITING_PER_CONNECTION {
                return None;
            }
            let (sender, granted) = oneshot::channel();
            connection.waiting.push_back(Waiter { need, granted: sender });
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
        room.change(*id, 0, bytes, false);
        Held { room: room.clone(), id: *id, bytes, is_scan: false }
    }
}

/// Room that an answer takes, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    id: u64,
    bytes: u64,
    is_scan: bool,
}

impl Held {
    /// Takes what the answer really takes, which is there now.
    pub(super) fn resize(&mut self, bytes: u64) {
        self.room.change(self.id, self.bytes, bytes, std::mem::take(&mut self.is_scan));
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.change(self.id, self.bytes, 0, self.is_scan);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const LARGE: Need = Need { bytes: 4 * MIB, is_scan: false };
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
        let first = greedy.enter(LARGE).now_or_never().flatten().unwrap();
        let mut queue: Vec<_> = (0..3).map(|_| Box::pin(greedy.enter(LARGE))).collect();
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        // 4 of 6 MiB for large answers are taken: another connection waits too, but only for one answer.
        let mut other = Box::pin(honest.enter(LARGE));
        assert!((&mut other).now_or_never().is_none());
        drop(queue.remove(0));
        drop(first);
        // Who has had less is next.
        assert!((&mut queue[0]).now_or_never().is_none());
        let got = (&mut other).now_or_never().flatten().unwrap();
        drop(got);
        assert!((&mut queue[0]).now_or_never().flatten().is_some());
    }

    #[test]
    fn what_is_sent_or_lost_gives_its_room_back() {
        let room = Room::new(BOUNDS);
        let place = room.place();
        let mut held = place.enter(LARGE).now_or_never().flatten().unwrap();
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
        let _held = greedy.enter(LARGE).now_or_never().flatten().unwrap();
        let mut queue: Vec<_> =
            (0..CALLS_WAITING_MAX).map(|_| Box::pin(greedy.enter(LARGE))).collect();
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        assert!(matches!(greedy.enter(LARGE).now_or_never(), Some(None)));
        // Others may wait still.
        assert!(honest.enter(LARGE).now_or_never().is_none());
    }

    #[test]
    fn those_who_read_much_take_turns_before_there_is_an_answer() {
        let scan = Need { bytes: 4 * MIB, is_scan: true };
        let room = Room { scans_max: 2, ..Room::new(BOUNDS) };
        let (greedy, honest) = (room.place(), room.place());
        let first = greedy.enter(scan).now_or_never().flatten().unwrap();
        let mut second = greedy.enter(scan).now_or_never().flatten().unwrap();
        let mut third = Box::pin(greedy.enter(scan));
        assert!((&mut third).now_or_never().is_none());
        let mut other = Box::pin(honest.enter(scan));
        assert!((&mut other).now_or_never().is_none());
        // What reads one object does not wait.
        let small = Need { bytes: ANSWER_SMALL_BYTES, is_scan: false };
        assert!(room.place().enter(small).now_or_never().flatten().is_some());
        // An answer that is there no longer counts, whether it was taken or not.
        second.resize(MIB);
        assert!((&mut third).now_or_never().is_some() != (&mut other).now_or_never().is_some());
        drop(first);
        drop((second, third, other));
        assert_eq!((room.bytes(), room.lock().scans), (0, 0));
    }

    #[test]
    fn who_asks_for_little_does_not_wait_for_a_round_of_those_who_ask_for_much() {
        let scan = Need { bytes: 4 * MIB, is_scan: true };
        let room = Room { scans_max: 1, ..Room::new(BOUNDS) };
        let greedy: Vec<_> = (0..4).map(|_| room.place()).collect();
        for place in &greedy {
            place.enter(scan).now_or_never().flatten().unwrap().resize(MIB);
        }
        let busy = greedy[0].enter(scan).now_or_never().flatten().unwrap();
        let mut queue: Vec<_> =
            greedy[1..].iter().map(|place| Box::pin(place.enter(scan))).collect();
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        let modest = room.place();
        let mut other = Box::pin(modest.enter(scan));
        assert!((&mut other).now_or_never().is_none());
        drop(busy);
        for call in &mut queue {
            assert!(call.now_or_never().is_none());
        }
        assert!((&mut other).now_or_never().flatten().is_some());
    }
}
