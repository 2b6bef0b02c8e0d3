//! Who watches: streams are limited in all and of one peer, and the principal (without one, the connection) with the most
//! of them gives way to one with fewer.
//!
//! A limit that is first come, first served would let one client keep all others from seeing anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::peers::Who;
use super::progress::Progress;

/// Who gives way: a principal with all its connections, or a connection of no one in particular.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Connection(u64),
    Principal(Arc<str>),
}

/// Why there is no place for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There are too many, and no one has more of them.
    All,
    /// The peer has as many as one may.
    Peer(usize),
}

impl Full {
    /// Name in the metrics, and of the setting.
    pub(super) const fn setting(self) -> &'static str {
        match self {
            Self::All => "watches_max",
            Self::Peer(_) => "watches_per_peer_max",
        }
    }
}

#[derive(Debug)]
struct Stream {
    id: u64,
    progress: Arc<Progress>,
    who: Option<Who>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    next_id: u64,
    /// The streams of each, the oldest first.
    of: BTreeMap<Holder, VecDeque<Stream>>,
    /// How many each peer has.
    by_peer: BTreeMap<Who, usize>,
}

impl State {
    fn held_by(&self, holder: &Holder) -> usize {
        self.of.get(holder).map_or(0, VecDeque::len)
    }

    fn remove(&mut self, holder: &Holder, id: u64) -> Option<Arc<Progress>> {
        let streams = self.of.get_mut(holder)?;
        let place = streams.iter().position(|stream| stream.id == id)?;
        let removed = streams.remove(place)?;
        self.count -= 1;
        if streams.is_empty() {
            self.of.remove(holder);
        }
        if let Some(who) = &removed.who
            && let Some(count) = self.by_peer.get_mut(who)
        {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(who);
            }
        }
        Some(removed.progress)
    }
}

/// The watches of a server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Watches {
    most: usize,
    most_of_peer: usize,
    state: Arc<Mutex<State>>,
}

/// A place of a stream, given back when dropped.
#[derive(Debug)]
pub(super) struct Watching {
    watches: Watches,
    holder: Holder,
    id: u64,
}

impl Watches {
    pub(super) fn new(most: usize, most_of_peer: usize) -> Self {
        Self { most, most_of_peer, state: Arc::default() }
    }

    /// A place for a stream of a connection. If there are too many, the oldest stream of who has the most is ended.
    ///
    /// # Errors
    /// [`Full`] if the peer has too many, or there are too many and no one has more of them.
    pub(super) fn begin(
        &self,
        connection: u64,
        who: Option<&Who>,
        progress: Arc<Progress>,
    ) -> Result<Watching, Full> {
        let mut state = self.lock();
        let held = who.and_then(|who| state.by_peer.get(who)).copied().unwrap_or(0);
        if held >= self.most_of_peer {
            return Err(Full::Peer(self.most_of_peer));
        }
        let holder = match who {
            Some(Who::Principal(name)) => Holder::Principal(name.clone()),
            Some(Who::Address(_)) | None => Holder::Connection(connection),
        };
        if state.count >= self.most {
            let counts = state.of.iter().map(|(holder, streams)| (streams.len(), holder));
            let (held, largest) = counts.max().ok_or(Full::All)?;
            if held <= state.held_by(&holder) + 1 {
                return Err(Full::All);
            }
            let largest = largest.clone();
            let oldest = state.of.get(&largest).and_then(|streams| streams.front());
            let oldest = oldest.map(|stream| stream.id).ok_or(Full::All)?;
            if let Some(ended) = state.remove(&largest, oldest) {
                ended.end();
            }
        }
        let id = state.next_id;
        state.next_id += 1;
        state.count += 1;
        if let Some(who) = who {
            *state.by_peer.entry(who.clone()).or_default() += 1;
        }
        let stream = Stream { id, progress, who: who.cloned() };
        state.of.entry(holder.clone()).or_default().push_back(stream);
        Ok(Watching { watches: self.clone(), holder, id })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watches.lock().remove(&self.holder, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_with_the_most_gives_way() {
        let watches = Watches::new(4, 4);
        let stream = Arc::<Progress>::default;
        let begin = |connection, progress| watches.begin(connection, None, progress);
        let streams: Vec<_> = (0..4).map(|_| stream()).collect();
        let held: Vec<_> = streams.iter().map(|one| begin(1, one.clone()).unwrap()).collect();
        assert_eq!(begin(1, stream()).unwrap_err(), Full::All, "it has the most itself");
        let second = begin(2, stream()).unwrap();
        assert_eq!(
            streams.iter().map(|one| one.has_ended()).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        let third = begin(2, stream()).unwrap();
        // Two each.
        assert_eq!(begin(2, stream()).unwrap_err(), Full::All);
        let other = begin(3, stream()).unwrap();
        drop((held, second, third, other));
        let state = watches.lock();
        assert_eq!((state.count, state.of.len()), (0, 0));
    }

    #[test]
    fn a_principal_is_one_over_all_its_connections_and_has_a_limit() {
        let watches = Watches::new(6, 4);
        let (ann, ben) = (Who::Principal("ann".into()), Who::Principal("ben".into()));
        let begin = |connection, who: &Who| {
            watches.begin(connection, Some(who), Arc::<Progress>::default())
        };
        let mut held: Vec<_> = (1..=4).map(|connection| begin(connection, &ann).unwrap()).collect();
        assert_eq!(begin(5, &ann).unwrap_err(), Full::Peer(4));
        held.extend([begin(6, &ben).unwrap(), begin(6, &ben).unwrap()]);
        // Ann gives way, though no connection of hers has more than one.
        held.push(begin(7, &ben).unwrap());
        assert_eq!(begin(7, &ben).unwrap_err(), Full::All);
        drop(held);
        let state = watches.lock();
        assert_eq!((state.count, state.of.len(), state.by_peer.len()), (0, 0, 0));
    }
}
