//! Who watches: streams are limited in all, and the connection with the most of them gives way to one with fewer.
//!
//! A limit that is first come, first served would let one client keep all others from seeing anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::progress::Progress;

#[derive(Debug, Default)]
struct State {
    count: usize,
    next_id: u64,
    /// Streams by connection, the oldest first.
    of: BTreeMap<u64, VecDeque<(u64, Arc<Progress>)>>,
}

impl State {
    fn held_by(&self, connection: u64) -> usize {
        self.of.get(&connection).map_or(0, VecDeque::len)
    }

    fn remove(&mut self, connection: u64, id: u64) {
        let Some(streams) = self.of.get_mut(&connection) else { return };
        let before = streams.len();
        streams.retain(|(of, _)| *of != id);
        self.count -= before - streams.len();
        if streams.is_empty() {
            self.of.remove(&connection);
        }
    }
}

/// The watches of a server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Watches {
    most: usize,
    state: Arc<Mutex<State>>,
}

/// A place of a stream, given back when dropped.
#[derive(Debug)]
pub(super) struct Watching {
    watches: Watches,
    connection: u64,
    id: u64,
}

impl Watches {
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// A place for a stream of a connection; `None` if there is none and no connection has more of them. The oldest stream of
    /// the one with the most is ended otherwise.
    pub(super) fn begin(&self, connection: u64, stream: Arc<Progress>) -> Option<Watching> {
        let mut state = self.lock();
        if state.count >= self.most {
            let (largest, held) = state
                .of
                .iter()
                .map(|(id, streams)| (*id, streams.len()))
                .max_by_key(|(_, n)| *n)?;
            if held <= state.held_by(connection) + 1 {
                return None;
            }
            let (oldest, ended) = state.of.get(&largest)?.front().cloned()?;
            state.remove(largest, oldest);
            ended.end();
        }
        let id = state.next_id;
        state.next_id += 1;
        state.count += 1;
        state.of.entry(connection).or_default().push_back((id, stream));
        Some(Watching { watches: self.clone(), connection, id })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watches.lock().remove(self.connection, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_with_the_most_gives_way() {
        let watches = Watches::new(4);
        let stream = Arc::<Progress>::default;
        let streams: Vec<_> = (0..4).map(|_| stream()).collect();
        let held: Vec<_> =
            streams.iter().map(|one| watches.begin(1, one.clone()).unwrap()).collect();
        assert!(watches.begin(1, stream()).is_none(), "it has the most itself");
        let second = watches.begin(2, stream()).unwrap();
        assert_eq!(
            streams.iter().map(|one| one.has_ended()).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        let third = watches.begin(2, stream()).unwrap();
        // Two each.
        assert!(watches.begin(2, stream()).is_none());
        let other = watches.begin(3, stream()).unwrap();
        drop((held, second, third, other));
        let state = watches.lock();
        assert_eq!((state.count, state.of.len()), (0, 0));
    }
}
