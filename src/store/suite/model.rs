//! Random operations, compared with the simplest possible model: a copy of everything at every revision.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ids::{Epoch, RunId};
use crate::model::{Images, Object, Record};
use crate::store::samples::Sampler;

/// Everything at one revision.
#[derive(Clone, Default)]
struct World {
    machines: BTreeMap<MachineId, Machine>,
    runs: BTreeMap<RunId, Run>,
    requests: BTreeMap<String, RequestRecord>,
    logs: BTreeMap<RunId, u64>,
    gone: BTreeMap<MachineId, Epoch>,
}

/// The ordinal of what is stored, or the next one.
fn ordinal_of<T: Record>(stored: Option<&T>, last: &mut u64) -> u64 {
    stored.map_or_else(
        || {
            *last += 1;
            *last
        },
        T::ordinal,
    )
}

/// Whether the stored record is what the writer saw.
fn is_as_seen<T: Record>(stored: Option<&T>, images: &Images<T>) -> bool {
    stored.map(T::revision) == images.before.as_ref().map(|before| before.revision())
}

impl World {
    /// Writes or deletes a machine; returns what is wrong with it, if anything.
    fn write_machine(
        &mut self,
        images: &Images<Machine>,
        revision: Revision,
        last: &mut u64,
    ) -> Option<&'static str> {
        let id = &images.last().unwrap().id;
        let stored = self.machines.get(id);
        if !is_as_seen(stored, images) {
            return Some("conflict");
        }
        let Some(machine) = &images.after else {
            let deleted = self.machines.remove(id)?;
            self.gone.insert(id.clone(), deleted.epoch);
            return None;
        };
        let gone = self.gone.get(id);
        if stored.is_none() && gone.is_some_and(|gone| machine.epoch < *gone) {
            return Some("fenced");
        }
        let ordinal = ordinal_of(stored, last);
        self.machines.insert(id.clone(), Machine { ordinal, revision, ..(**machine).clone() });
        None
    }

    fn write_run(
        &mut self,
        images: &Images<Run>,
        revision: Revision,
        last: &mut u64,
    ) -> Option<&'static str> {
        let run = images.after.as_deref().unwrap();
        let stored = self.runs.get(&run.id);
        if !is_as_seen(stored, images) {
            return Some("conflict");
        }
        let owned = |other: &Run| {
            other.machine_id == run.machine_id && other.id != run.id && other.state.is_active()
        };
        if run.state.is_active() && self.runs.values().any(owned) {
            return Some("active run");
        }
        let ordinal = ordinal_of(stored, last);
        self.runs.insert(run.id, Run { ordinal, revision, ..run.clone() });
        None
    }
}

#[derive(Default)]
struct Model {
    now: World,
    past: Vec<World>,
    machine_ordinal: u64,
    run_ordinal: u64,
}

impl Model {
    /// The expected result of a batch; applies it if it should be committed.
    fn commit(&mut self, batch: &Batch) -> &'static str {
        let revision = Revision(self.past.len() as u64 + 1);
        let mut next = self.now.clone();
        if let Some(request) = &batch.request {
            if next.requests.contains_key(&request.request_id) {
                return "request used";
            }
            let used = RequestRecord { revision, ..request.clone() };
            next.requests.insert(request.request_id.clone(), used);
        }
        let epoch = |id| next.machines.get(id).map(|machine: &Machine| machine.epoch);
        if batch.holds.iter().any(|(id, held)| epoch(id) != Some(*held)) {
            return "fenced";
        }
        let mut ordinals = (self.machine_ordinal, self.run_ordinal);
        let mut named = BTreeSet::new();
        for write in &batch.writes {
            let wrong = match &write.object {
                Object::Machine(images) => {
                    let twice = !named.insert(images.last().unwrap().id.to_string());
                    let conflict = twice.then_some("conflict");
                    conflict.or_else(|| next.write_machine(images, revision, &mut ordinals.0))
                }
                Object::Run(images) => {
                    let twice = !named.insert(images.last().unwrap().id.to_string());
                    let conflict = twice.then_some("conflict");
                    conflict.or_else(|| next.write_run(images, revision, &mut ordinals.1))
                }
            };
            if let Some(wrong) = wrong {
                return wrong;
            }
        }
        for chunk in &batch.logs {
            let count = next.logs.entry(chunk.run_id).or_default();
            if chunk.offset != *count || !next.runs.contains_key(&chunk.run_id) {
                return "conflict";
            }
            *count += 1;
        }
        (self.machine_ordinal, self.run_ordinal) = ordinals;
        self.now = next;
        self.past.push(self.now.clone());
        "committed"
    }

    /// A batch that is more often valid than not.
    fn batch(&self, sampler: &mut Sampler) -> Batch {
        let mut made = Batch::default();
        // Sometimes a writer saw another record, or none.
        let seen_by = |sampler: &mut Sampler, stored: Option<Revision>| match sampler.below(8) {
            0 => Some(Revision(sampler.below(9) as u64)).filter(|seen| seen.0 > 0),
            _ => stored,
        };
        for _ in 0..sampler.below(3) {
            let number = sampler.below(6) as u64;
            let stored = self.now.machines.get(&samples::machine(number).id);
            let mut machine = stored.cloned().unwrap_or_else(|| samples::machine(number));
            let seen = seen_by(sampler, stored.map(|stored| stored.revision));
            let before = seen.map(|revision| Machine { revision, ..machine.clone() });
            if let Some(gone) = self.now.gone.get(&machine.id).filter(|_| stored.is_none()) {
                machine.epoch = *gone;
                if sampler.below(8) == 0 {
                    machine.epoch = Epoch(gone.0.saturating_sub(1));
                }
            }
            machine.spec.serial = sampler.below(1000).to_string();
            machine.epoch = Epoch(machine.epoch.0 + sampler.below(2) as u64);
            made.writes.push(match &before {
                Some(before) if sampler.below(6) == 0 => deletion(before),
                before => machine_write(before.as_ref(), &machine),
            });
        }
        for _ in 0..sampler.below(3) {
            let number = sampler.below(12) as u64;
            let stored = self.now.runs.get(&samples::run_id(number));
            let machine = samples::machine(number % 4).id;
            let mut run = match stored {
                Some(stored) => sampler.change_run(stored),
                None => samples::run(number, &machine),
            };
            // Terminal states are final: the engine ensures that.
            if stored.is_none_or(|stored| stored.state.is_active()) && sampler.below(3) == 0 {
                run.state = sampler.pick(&State::ALL);
                run.finished_at = (!run.state.is_active()).then_some(T0);
            }
            let seen = seen_by(sampler, stored.map(|stored| stored.revision));
            let before = seen.map(|revision| Run { revision, ..stored.unwrap_or(&run).clone() });
            made.writes.push(run_write(before.as_ref(), &run));
        }
        if sampler.below(4) == 0 {
            let number = sampler.below(6) as u64;
            let stored = self.now.machines.get(&samples::machine(number).id);
            let epoch = stored.map_or(Epoch(0), |machine| machine.epoch);
            let epoch = if sampler.below(4) == 0 { epoch.next() } else { epoch };
            made.holds.push((samples::machine(number).id, epoch));
        }
        if sampler.below(4) == 0 {
            made.request = Some(request(&sampler.below(20).to_string(), "x"));
        }
        if sampler.below(4) == 0 {
            let run = samples::run_id(sampler.below(12) as u64);
            let count = self.now.logs.get(&run).copied().unwrap_or_default();
            made.logs = (0..1 + sampler.below(2) as u64)
                .map(|more| samples::chunk(run, count + more))
                .collect();
            if sampler.below(6) == 0 {
                made.logs.reverse();
            }
        }
        made
    }
}

pub(super) async fn random_operations_agree_with_the_model(fresh: Fresh) {
    let mut store = fresh.store;
    let mut model = Model::default();
    let mut sampler = Sampler::new(11);
    let mut outcomes = BTreeMap::<&str, u32>::new();
    for operation in 0..600 {
        let batch = model.batch(&mut sampler);
        let committed = store.commit(batch.clone()).await;
        let expected = model.commit(&batch);
        assert_eq!(outcome(&committed), expected, "operation {operation}: {batch:#?}");
        *outcomes.entry(expected).or_default() += 1;
        if operation % 20 == 0 {
            compare(&*store, &model, &mut sampler).await;
        }
        if operation % 150 == 149
            && let Some(reopen) = &fresh.reopen
        {
            store = reopen(store);
        }
    }
    compare(&*store, &model, &mut sampler).await;
    for (outcome, at_least) in [
        ("committed", 100),
        ("conflict", 50),
        ("active run", 10),
        ("fenced", 10),
        ("request used", 10),
    ] {
        assert!(outcomes[outcome] >= at_least, "{outcomes:?}");
    }
}

async fn compare(store: &dyn Store, model: &Model, sampler: &mut Sampler) {
    assert_eq!(store.revisions().await.unwrap().0, Revision(model.past.len() as u64));
    let mut machines: Vec<_> = model.now.machines.values().collect();
    machines.sort_by_key(|machine| machine.ordinal);
    let listed = all_machines(store).await;
    assert!(listed.iter().map(|machine| &**machine).eq(machines));
    let mut runs: Vec<_> = model.now.runs.values().collect();
    runs.sort_by_key(|run| run.ordinal);
    let listed = all_runs(store).await;
    assert!(listed.iter().map(|run| &**run).eq(runs));
    for number in 0..20 {
        let id = number.to_string();
        let found = store.request("StartRun/machine-1", &id).await.unwrap();
        assert_eq!(found.as_ref(), model.now.requests.get(&id));
    }
    for _ in 0..10 {
        let revision = sampler.below(model.past.len() + 1);
        let empty = World::default();
        let then = if revision == 0 { &empty } else { &model.past[revision - 1] };
        let at = Revision(revision as u64);
        let machine = samples::machine(sampler.below(6) as u64).id;
        let found = store.machine_at(&machine, at).await.unwrap();
        assert_eq!(found.as_deref(), then.machines.get(&machine), "{machine} at {at}");
        let run = samples::run_id(sampler.below(12) as u64);
        let found = store.run_at(run, at).await.unwrap();
        assert_eq!(found.as_deref(), then.runs.get(&run), "{run} at {at}");
        let chunks = store.logs(run, 0, 1000).await.unwrap();
        assert_eq!(chunks.len() as u64, model.now.logs.get(&run).copied().unwrap_or_default());
    }
}
