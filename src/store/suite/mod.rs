//! What every store has to do: one list of cases, run against each backend.
//!
//! A backend is added with a function that makes a [`Fresh`] store and one line at the end of this file. `wrong` shows
//! that the cases can fail.

mod commits;
mod feed;
mod lists;
mod model;
mod records;
mod trims;
mod wrong;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::memory::MemoryStore;
use super::sqlite::{SqliteOptions, SqliteStore};
use super::{Batch, Committed, MachineWrite, Query, RequestRecord, RunWrite, Store, StoreError};
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision};
use crate::lifecycle::run::State;
use crate::model::{Actor, Entry, EntryKind, Hold, HoldReason, Machine, Run, RunDelta};
use crate::store::samples;

/// Closes a store and opens it again with what is durable.
type Reopen = Box<dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send>;

/// An empty store.
pub(super) struct Fresh {
    pub(super) store: Arc<dyn Store>,
    /// For stores that outlive their process.
    pub(super) reopen: Option<Reopen>,
    /// What has to live as long as the store.
    pub(super) _guard: Option<tempfile::TempDir>,
}

type Case = fn(Fresh) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Time of the first commit.
const T0: Timestamp = Timestamp(1_700_000_000_000);

/// A batch that writes machines and runs. `before` is the run that a change is relative to.
fn batch(machines: &[&Machine], runs: &[(Option<&Run>, &Run)]) -> Batch {
    let entry = |kind| vec![Entry::new(kind, Actor::engine())];
    Batch {
        at: T0,
        machines: machines
            .iter()
            .map(|machine| MachineWrite {
                machine: (*machine).clone(),
                entries: entry(EntryKind::MachineUpdated),
            })
            .collect(),
        runs: runs
            .iter()
            .map(|(before, run)| RunWrite {
                run: (*run).clone(),
                delta: RunDelta::between(*before, run),
                entries: entry(EntryKind::StepStarted),
            })
            .collect(),
        ..Batch::default()
    }
}

async fn put_machine(store: &dyn Store, machine: &Machine) -> Arc<Machine> {
    store.commit(batch(&[machine], &[])).await.unwrap().machines[0].clone()
}

async fn register(store: &dyn Store, number: u64) -> Arc<Machine> {
    put_machine(store, &samples::machine(number)).await
}

/// Starts the run `number` on a machine, as the engine would.
async fn start(store: &dyn Store, number: u64, machine: &MachineId) -> Arc<Run> {
    let mut owner = (*store.machine(machine).await.unwrap().unwrap()).clone();
    let run = samples::run(number, machine);
    owner.active_run = Some(run.id);
    store.commit(batch(&[&owner], &[(None, &run)])).await.unwrap().runs[0].clone()
}

/// Writes a change of a run.
async fn put_run(store: &dyn Store, before: &Run, after: &Run) -> Arc<Run> {
    store.commit(batch(&[], &[(Some(before), after)])).await.unwrap().runs[0].clone()
}

/// A run with a mark that tells it from others.
fn marked(run: &Run, mark: &str) -> Run {
    let (reason, since) = (HoldReason::Paused, Timestamp(1));
    let hold = Some(Hold { reason, message: mark.to_owned(), since });
    Run { hold, state: State::Running, ..run.clone() }
}

/// Ends a run at `at` and frees its machine.
async fn end(store: &dyn Store, run: &Run, at: Timestamp) -> Arc<Run> {
    let after = Run { state: State::Succeeded, finished_at: Some(at), ..run.clone() };
    let mut owner = (*store.machine(&run.machine_id).await.unwrap().unwrap()).clone();
    owner.active_run = None;
    let batch = Batch { at, ..batch(&[&owner], &[(Some(run), &after)]) };
    store.commit(batch).await.unwrap().runs[0].clone()
}

fn request(id: &str, object_id: impl ToString) -> RequestRecord {
    RequestRecord {
        scope: "StartRun/machine-1".to_owned(),
        request_id: id.to_owned(),
        body_digest: "digest".to_owned(),
        object_id: object_id.to_string(),
        at: T0,
        revision: Revision(0),
    }
}

async fn all_machines(store: &dyn Store) -> Vec<Arc<Machine>> {
    let query = Query { limit: 1_000_000, ..Query::default() };
    store.machines(query).await.unwrap().items
}

async fn all_runs(store: &dyn Store) -> Vec<Arc<Run>> {
    let query = Query { limit: 1_000_000, ..Query::default() };
    store.runs(query).await.unwrap().items
}

/// Name of the outcome of a commit, for comparison.
fn outcome(result: &Result<Committed, StoreError>) -> &'static str {
    match result {
        Ok(_) => "committed",
        Err(StoreError::Conflict { .. }) => "conflict",
        Err(StoreError::ActiveRun { .. }) => "active run",
        Err(StoreError::Fenced { .. }) => "fenced",
        Err(StoreError::RequestUsed(_)) => "request used",
        Err(StoreError::Compacted { .. }) => "compacted",
        Err(StoreError::Full(_)) => "full",
        Err(StoreError::Unknown(_)) => "unknown",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Corrupt { .. }) => "corrupt",
    }
}

/// Hands the list of all cases to a macro, after its own arguments.
macro_rules! with_cases {
    ($then:ident $($arguments:tt)*) => {
        $then! { [$($arguments)*]
            commits::a_request_id_is_used_once,
            commits::one_run_is_active_under_racing_starts,
            commits::no_update_is_lost_under_contention,
            commits::a_refused_batch_leaves_no_trace,
            commits::preconditions_are_checked_in_order,
            commits::a_batch_that_names_an_object_twice_is_refused,
            commits::a_run_may_follow_another_in_one_batch,
            commits::a_fenced_writer_cannot_write,
            commits::a_conflict_fails_its_writer_only,
            commits::an_empty_batch_gets_a_revision,
            commits::a_polled_commit_goes_on_when_its_writer_leaves,
            records::records_are_read_as_they_were_written,
            records::history_is_ordered_and_pages,
            records::a_machine_is_known_as_of_every_revision,
            records::a_run_is_known_as_of_every_revision,
            records::logs_are_dense,
            records::plans_are_kept_once,
            records::a_name_that_comes_back_goes_on_from_its_epoch,
            records::everything_survives_reopening,
            lists::pages_make_up_the_whole,
            lists::pages_are_stable_under_inserts_and_deletions,
            lists::filters_agree_with_a_scan,
            lists::a_page_examines_a_bounded_number_of_rows,
            feed::changes_come_as_whole_commits,
            feed::readers_see_every_change_once_in_order,
            feed::a_list_and_the_changes_after_it_make_the_final_state,
            feed::listeners_hear_in_order_before_the_writer,
            trims::an_active_run_loses_nothing,
            trims::ended_runs_go_by_age,
            trims::ended_runs_go_by_number,
            trims::readers_behind_the_compaction_are_told,
            trims::what_is_kept_is_still_true,
            trims::request_ids_go_by_age_unless_their_run_is_active,
            trims::trimming_is_bounded_and_comes_to_an_end,
            model::random_operations_agree_with_the_model,
        }
    };
}

macro_rules! list_cases {
    ([] $($module:ident::$case:ident,)*) => {
        /// Every case by name.
        const CASES: &[(&str, Case)] =
            &[$((stringify!($case), |fresh| Box::pin($module::$case(fresh))),)*];
    };
}

macro_rules! run_cases {
    ([$backend:ident $fresh:path] $($module:ident::$case:ident,)*) => {
        mod $backend {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$module::$case($fresh()).await;
            })*
        }
    };
}

fn fresh_memory() -> Fresh {
    Fresh { store: Arc::new(MemoryStore::new()), reopen: None, _guard: None }
}

fn fresh_sqlite() -> Fresh {
    let guard = tempfile::tempdir().unwrap();
    let dir = guard.path().to_owned();
    let open = move || -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&dir, SqliteOptions::default()).unwrap())
    };
    let store = open();
    let reopen: Reopen = Box::new(move |store| {
        assert_eq!(Arc::strong_count(&store), 1, "nobody else uses the store");
        drop(store);
        open()
    });
    Fresh { store, reopen: Some(reopen), _guard: Some(guard) }
}

with_cases!(list_cases);
with_cases!(run_cases memory super::fresh_memory);
with_cases!(run_cases sqlite super::fresh_sqlite);
