//! What clients and watchers saw, recorded outside of any server, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bmdemo::ids::Revision;
use bmdemo::lifecycle::run;
use bmdemo::model::Run;
use bmdemo::provider::fake::{self, World};
use bmdemo::store::memory::MemoryStore;
use bmdemo::store::{Query, Store as _};

/// A mistake of a client that the verdict must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// It repeats a request with another request id.
    NewRequestId,
    /// It resumes its watch one revision too early.
    ResumeTooEarly,
}

/// Result of a seed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) acknowledged: u64,
    pub(crate) unanswered: u64,
    pub(crate) resumed: u64,
    pub(crate) faults: u64,
}

impl Report {
    /// Adds the counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.resumed += other.resumed;
        self.faults += other.faults;
    }
}

/// What a watcher received.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Revision of its first complete list.
    pub(crate) began: u64,
    /// Changes after it: revision and run.
    pub(crate) changes: Vec<(u64, String)>,
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) report: Report,
    /// Request id -> machine and run.
    pub(crate) acknowledged: BTreeMap<String, (String, String)>,
    pub(crate) clients_done: usize,
    pub(crate) watched: Watched,
}

/// What outlives servers: their store, the world, and the book.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) world: World,
    book: Arc<Mutex<Book>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let store = Arc::new(MemoryStore::new(crate::network::clock()));
        Self { store, world: World::in_memory(), book: Arc::default() }
    }

    /// Never held across an await.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, text: String) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.book().report.trace.push(format!("{:>8.3} {text}", at.as_secs_f64()));
    }

    pub(crate) fn accuse(&self, text: String) {
        self.note(format!("VIOLATION {text}"));
        self.book().report.violations.push(text);
    }

    /// Every change of a run after a revision, as the store has it.
    pub(crate) async fn changes(&self, after: u64) -> Vec<(u64, String)> {
        let changes = self.store.changes(Revision(after), 1_000_000).await;
        let runs = changes.expect("nothing is forgotten").into_iter().filter_map(|change| {
            let run = change.after::<Run>()?;
            Some((change.revision.0, run.id.to_string()))
        });
        runs.collect()
    }

    /// Compares what was seen with the final state.
    pub(crate) async fn judge(&self) -> Report {
        let query = Query { limit: 100_000, ..Query::default() };
        let runs = self.store.runs(query).await.expect("the store is in memory").items;
        let mut by_request = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for run in &runs {
            ids.insert(run.id.to_string());
            let request = (run.machine_id.to_string(), run.spec.request_id.clone());
            if let Some(twin) = by_request.insert(request, run.id) {
                self.accuse(format!(
                    "request {} made the runs {twin} and {}",
                    run.spec.request_id, run.id
                ));
            }
            if run.state != run::State::Succeeded {
                self.accuse(format!("run {} is {:?}", run.id, run.state));
            }
        }
        let acknowledged = self.book().acknowledged.clone();
        for (request, (machine, run)) in &acknowledged {
            let stored = by_request.get(&(machine.clone(), request.clone()));
            if stored.map(ToString::to_string).as_ref() != Some(run) {
                self.accuse(format!("request {request} was acknowledged as {run}, not {stored:?}"));
            }
        }
        let ledger = self.world.ledger();
        for text in fake::violations(&ledger).into_iter().chain(fake::repeated_steps(&ledger)) {
            self.accuse(text);
        }
        let watched = std::mem::take(&mut self.book().watched);
        let truth = self.changes(watched.began).await;
        if watched.changes != truth {
            let at = watched.changes.iter().zip(&truth).take_while(|(a, b)| a == b).count();
            let (seen, there) = (watched.changes.get(at), truth.get(at));
            self.accuse(format!("change {at} of the watch is {seen:?}, not {there:?}"));
        }
        let mut report = std::mem::take(&mut self.book().report);
        report.acknowledged = acknowledged.len() as u64;
        report
    }
}
