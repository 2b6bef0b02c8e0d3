//! Promise 9 as a property: clients that keep copies end with the truth, whatever happens on the way.

use proptest::prelude::*;

use super::*;
use crate::clock::SplitMix64;
use crate::store::Query;

/// A client that keeps a copy of what it watches and reconnects where it stopped.
struct Client {
    filter: &'static str,
    watch: Items<Machine>,
    copy: BTreeMap<MachineId, Arc<Machine>>,
    resume: Revision,
    /// Where the copy became complete.
    synced: Option<Revision>,
    /// Changes received after it was synced, as (revision, id).
    changes: Vec<(Revision, MachineId)>,
}

impl Client {
    fn new(world: &World, filter: &'static str) -> Self {
        Self {
            filter,
            watch: world.machines(filter, Start::Snapshot),
            copy: BTreeMap::new(),
            resume: Revision(0),
            synced: None,
            changes: Vec::new(),
        }
    }

    /// Loses the connection; a client without a resume point starts over.
    fn reconnect(&mut self, world: &World) {
        if self.resume == Revision(0) {
            *self = Self::new(world, self.filter);
        } else {
            self.watch = world.machines(self.filter, Start::Resume(self.resume));
        }
    }

    /// Reads at most `max` items; returns whether there were as many.
    fn read(&mut self, max: usize) -> Result<bool, TestCaseError> {
        for _ in 0..max {
            let Poll::Ready(Some(item)) = poll(&mut self.watch) else { return Ok(false) };
            let item = item.map_err(|error| TestCaseError::fail(error.to_string()))?;
            self.apply(item)?;
        }
        Ok(true)
    }

    fn apply(&mut self, item: WatchItem<Machine>) -> Result<(), TestCaseError> {
        match item {
            WatchItem::Snapshot(machine, _) => {
                prop_assert!(self.synced.is_none());
                let ordinal = machine.ordinal;
                let before = self.copy.insert(machine.id.clone(), machine);
                // Deleted and registered again between two pages, it is another machine with the same id.
                prop_assert!(before.is_none_or(|before| before.ordinal < ordinal));
            }
            WatchItem::Synced(revision) => {
                prop_assert!(self.synced.is_none());
                self.synced = Some(revision);
                self.resume = revision;
            }
            WatchItem::Change { event, resume } => {
                self.moved(event.revision, resume, &event.record)?;
                if self.synced.is_some() {
                    self.changes.push((event.revision, event.record.id.clone()));
                }
                self.copy.insert(event.record.id.clone(), event.record.clone());
            }
            WatchItem::Removed { event, resume } => {
                self.moved(event.revision, resume, &event.record)?;
                self.copy.remove(&event.record.id);
            }
            WatchItem::LeftOut(count) => panic!("{count} records cannot be read"),
            WatchItem::Bookmark(revision) => self.resume = revision,
        }
        Ok(())
    }

    fn moved(
        &mut self,
        revision: Revision,
        resume: Revision,
        object: &Machine,
    ) -> Result<(), TestCaseError> {
        prop_assert!(revision > self.resume, "{revision} was received before {}", self.resume);
        prop_assert!(resume <= revision && resume >= self.resume);
        if let Some(held) = self.copy.get(&object.id) {
            // Only if the connection was lost inside a commit may a change be repeated.
            prop_assert!(revision >= held.revision, "{} went back in time", object.id);
        }
        self.resume = resume;
        Ok(())
    }
}

const FILTERS: [&str; 4] =
    ["", "phase=READY", "machine_id=m-2", "provider=fake AND phase=FACTORY_READY"];

async fn random_commit(
    world: &World,
    random: &mut SplitMix64,
    truth: &mut Vec<(Revision, Arc<Machine>)>,
) {
    let page = world.store.machines(Query { limit: 100, ..Query::default() }).await.unwrap();
    let mut batch = Batch::default();
    for _ in 0..random.below(4) {
        let name = format!("m-{}", random.below(8));
        let known = page.items.iter().find(|machine| machine.id.as_str() == name);
        let is_named = |machine: &Arc<Machine>| machine.id.as_str() == name;
        let touched = batch.images::<Machine>().any(|images| images.last().is_some_and(is_named));
        match known {
            _ if touched => {}
            None => batch.writes.push(write(None, machine(&name))),
            Some(known) if random.chance(1, 5) => {
                batch.writes.push(Write::deletion(known.clone(), Vec::new()));
            }
            Some(known) => {
                let phases = [Phase::FactoryReady, Phase::Ready, Phase::Maintenance];
                let phase = phases[usize::try_from(random.below(3)).unwrap()];
                let after = Machine { phase, ..(**known).clone() };
                batch.writes.push(write(Some(known), after));
            }
        }
    }
    let committed = world.commit(batch).await;
    let written = committed.written::<Machine>();
    truth.extend(written.map(|machine| (committed.revision, machine.clone())));
}

async fn scenario(seed: u64) -> Result<(), TestCaseError> {
    let mut random = SplitMix64::new(seed);
    let limits = WatchLimits {
        queue_events_max: 1 + usize::try_from(random.below(6)).unwrap(),
        page_size: 1 + usize::try_from(random.below(3)).unwrap(),
        feed_changes: 1 + usize::try_from(random.below(3)).unwrap(),
        ..WatchLimits::default()
    };
    let world = World::new(limits);
    let mut truth = Vec::new();
    let mut clients: Vec<_> = FILTERS.iter().map(|filter| Client::new(&world, filter)).collect();
    for _ in 0..120 {
        let client = usize::try_from(random.below(4)).unwrap();
        let client = &mut clients[client];
        match random.below(10) {
            0..5 => random_commit(&world, &mut random, &mut truth).await,
            5..9 => drop(client.read(usize::try_from(random.below(5)).unwrap())?),
            _ => client.reconnect(&world),
        }
    }
    for client in &mut clients {
        while client.read(100)? {}
        let filter = Filter::parse(client.filter, Subject::Machine).unwrap();
        let query = Query { filter: filter.clone(), limit: 100, ..Query::default() };
        let page = world.store.machines(query).await.unwrap();
        let copy: Vec<_> = client.copy.values().cloned().collect();
        let mut stored = page.items;
        stored.sort_by(|a, b| a.id.cmp(&b.id));
        prop_assert_eq!(copy, stored, "the copy of {:?} is the store's state", client.filter);
        let synced = client.synced.unwrap();
        let mut wanted: Vec<_> = truth
            .iter()
            .filter(|(revision, machine)| *revision > synced && filter.matches_machine(machine))
            .map(|(revision, machine)| (*revision, machine.id.clone()))
            .collect();
        let mut items = client.changes.clone();
        // The order inside one commit is the store's; a lost connection inside a commit repeats it.
        wanted.sort();
        prop_assert!(items.is_sorted_by_key(|(revision, _)| *revision));
        items.sort();
        items.dedup();
        prop_assert_eq!(items, wanted, "every later change of {:?}, once", client.filter);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Promise 9, under random commits, slow readers, overflowing queues and lost connections.
    #[test]
    fn a_watcher_sees_every_later_change_once_in_order(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        // Unconstrained: a poll that tokio interrupts for fairness would look as if nothing were available.
        runtime.block_on(tokio::task::coop::unconstrained(scenario(seed)))?;
    }
}
