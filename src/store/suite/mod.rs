//! The contract of every store: one list of cases, run against each backend.
//!
//! To add a backend, write a function that creates a [`Fresh`] store and one line at the end of this file. `wrong`
//! shows that the cases can fail.

mod audit;
mod commits;
mod feed;
mod lists;
mod model;
mod records;
mod seams;
mod trims;
mod wrong;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::memory::MemoryStore;
use super::postgres::testing as postgres;
use super::sqlite::{SqliteOptions, SqliteStore};
use super::{Batch, Committed, Query, RequestRecord, Store, StoreError, Write};
use crate::clock::{Clock, Sleep, Timestamp};
use crate::ids::{MachineId, Revision};
use crate::lifecycle::run::State;
use crate::model::{Actor, Entry, EntryKind, Hold, HoldReason, Machine, Run};
use crate::store::samples;

/// Closes a store and opens it again with what is durable.
type Reopen = Box<dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync>;

/// An empty store.
pub(super) struct Fresh {
    pub(super) store: Arc<dyn Store>,
    /// For stores that outlive their process.
    pub(super) reopen: Option<Reopen>,
    pub(super) clock: Arc<Hand>,
    /// A resource that must live as long as the store.
    pub(super) _guard: Option<tempfile::TempDir>,
}

type Case = fn(Fresh) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Time of the first commit.
const T0: Timestamp = Timestamp(1_700_000_000_000);

/// The time of the commits of a case. Stands still until it is set.
#[derive(Debug)]
pub(super) struct Hand(AtomicU64);

impl Hand {
    fn set(&self, at: Timestamp) {
        self.0.store(at.0, Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

fn entries(kind: EntryKind) -> Vec<Entry> {
    vec![Entry::new(kind, Actor::engine())]
}

/// A write of a machine that is new, or that changes from `before`.
fn machine_write(before: Option<&Machine>, after: &Machine) -> Write {
    let before = before.cloned().map(Arc::new);
    Write::new(before, after.clone(), entries(EntryKind::MachineUpdated))
}

/// A write of a run that is new, or that changes from `before`.
fn run_write(before: Option<&Run>, after: &Run) -> Write {
    let before = before.cloned().map(Arc::new);
    Write::new(before, after.clone(), entries(EntryKind::StepStarted))
}

/// A deletion of a machine as stored.
fn deletion(machine: &Machine) -> Write {
    Write::deletion(Arc::new(machine.clone()), Vec::new())
}

fn batch(writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch { writes: writes.into_iter().collect(), ..Batch::default() }
}

async fn put_machine(store: &dyn Store, before: Option<&Machine>, after: &Machine) -> Arc<Machine> {
    let committed = store.commit(batch([machine_write(before, after)])).await.unwrap();
    committed.machine().unwrap().clone()
}

async fn register(store: &dyn Store, number: u64) -> Arc<Machine> {
    put_machine(store, None, &samples::machine(number)).await
}

/// A change of the machine as stored.
async fn change_of(store: &dyn Store, id: &MachineId, change: impl FnOnce(&mut Machine)) -> Write {
    let before = store.machine(id).await.unwrap().unwrap();
    let mut after = (*before).clone();
    change(&mut after);
    machine_write(Some(&before), &after)
}

/// Starts the run `number` on a machine, as the engine would.
async fn start(store: &dyn Store, number: u64, machine: &MachineId) -> Arc<Run> {
    let run = samples::run(number, machine);
    let owner = change_of(store, machine, |owner| owner.active_run = Some(run.id)).await;
    let committed = store.commit(batch([owner, run_write(None, &run)])).await.unwrap();
    committed.run().unwrap().clone()
}

/// Writes a change of a run.
async fn put_run(store: &dyn Store, before: &Run, after: &Run) -> Arc<Run> {
    let committed = store.commit(batch([run_write(Some(before), after)])).await.unwrap();
    committed.run().unwrap().clone()
}

/// A run with a mark that distinguishes it from others.
fn marked(run: &Run, mark: &str) -> Run {
    let (reason, since) = (HoldReason::Paused, Timestamp(1));
    let hold = Some(Hold { reason, message: mark.to_owned(), since });
    Run { hold, state: State::Running, ..run.clone() }
}

/// Ends a run at `at` and frees its machine.
async fn end(fresh: &Fresh, run: &Run, at: Timestamp) -> Arc<Run> {
    fresh.clock.set(at);
    let store = &*fresh.store;
    let after = Run { state: State::Succeeded, finished_at: Some(at), ..run.clone() };
    let owner = change_of(store, &run.machine_id, |owner| owner.active_run = None).await;
    let committed = store.commit(batch([owner, run_write(Some(run), &after)])).await.unwrap();
    committed.run().unwrap().clone()
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
fn outcome(result: &Result<Arc<Committed>, StoreError>) -> &'static str {
    match result {
        Ok(_) => "committed",
        Err(StoreError::Conflict { .. }) => "conflict",
        Err(StoreError::ActiveRun { .. }) => "active run",
        Err(StoreError::MacTaken { .. }) => "mac taken",
        Err(StoreError::Fenced { .. }) => "fenced",
        Err(StoreError::RequestUsed(_)) => "request used",
        Err(StoreError::NoSlot { .. }) => "no slot",
        Err(StoreError::Compacted { .. }) => "compacted",
        Err(StoreError::Full(_)) => "full",
        Err(StoreError::Unknown(_)) => "unknown",
        Err(StoreError::Unavailable(_)) => "unavailable",
        Err(StoreError::Corrupt { .. }) => "corrupt",
    }
}

/// Passes the list of all cases to a macro, after its own arguments.
macro_rules! with_cases {
    ($then:ident $($arguments:tt)*) => {
        $then! { [$($arguments)*]
            commits::a_request_id_is_used_once,
            commits::a_mac_address_belongs_to_one_machine,
            commits::one_run_is_active_under_racing_starts,
            commits::no_update_is_lost_under_contention,
            commits::a_refused_batch_leaves_no_trace,
            commits::preconditions_are_checked_in_order,
            commits::a_batch_that_names_an_object_twice_is_refused,
            commits::a_run_may_follow_another_in_one_batch,
            commits::a_fenced_writer_cannot_write,
            commits::a_conflict_fails_its_writer_only,
            commits::an_empty_batch_gets_a_revision,
            commits::a_polled_commit_continues_when_its_writer_leaves,
            records::records_are_read_as_they_were_written,
            records::history_is_ordered_and_pages,
            records::a_machine_is_known_as_of_every_revision,
            records::a_run_is_known_as_of_every_revision,
            records::logs_are_dense,
            records::plans_are_kept_once,
            records::a_reused_id_continues_from_its_epoch,
            records::everything_survives_reopening,
            lists::pages_make_up_the_whole,
            lists::pages_are_stable_under_inserts_and_deletions,
            lists::filters_agree_with_a_scan,
            lists::labels_are_found_as_they_are,
            lists::a_page_examines_a_bounded_number_of_rows,
            feed::changes_come_as_whole_commits,
            feed::readers_see_every_change_once_in_order,
            feed::a_list_and_the_changes_after_it_make_the_final_state,
            feed::listeners_hear_in_order_before_the_writer,
            trims::an_active_run_loses_nothing,
            trims::ended_runs_go_by_age,
            trims::ended_runs_go_by_number,
            trims::changes_of_machines_go_by_number,
            trims::readers_behind_the_compaction_get_an_error,
            trims::what_is_kept_is_still_true,
            trims::request_ids_go_by_age_unless_their_run_is_active,
            trims::trimming_is_bounded_and_comes_to_an_end,
            seams::slots_are_taken_and_given_back_by_commits,
            seams::slots_are_exact_under_racing_runs,
            seams::the_outcome_of_a_batch_can_be_asked_for,
            seams::many_machines_are_held_in_one_batch,
            seams::facts_lie_beside_the_machine,
            seams::an_installation_lies_beside_the_machine,
            seams::a_cursor_moves_from_where_its_writer_saw_it,
            seams::locks_are_kept_and_failures_counted,
            seams::the_time_of_commits_never_goes_back,
            seams::a_store_of_one_server_is_its_own,
            audit::the_audit_is_written_with_what_it_speaks_of,
            audit::a_refused_batch_is_not_in_the_audit,
            audit::the_audit_goes_on_after_what_was_deleted,
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
                let Some(fresh) = $fresh() else { return };
                super::$module::$case(fresh).await;
            })*
        }
    };
}

fn fresh_memory() -> Fresh {
    let clock = Arc::new(Hand(AtomicU64::new(T0.0)));
    let store = Arc::new(MemoryStore::new(clock.clone()));
    Fresh { store, reopen: None, clock, _guard: None }
}

/// A store in a new database; `None` where there is no PostgreSQL.
fn fresh_postgres() -> Option<Fresh> {
    let clock = Arc::new(Hand(AtomicU64::new(T0.0)));
    let options = postgres::database(postgres::shared()?, clock.clone());
    let open = move || -> Arc<dyn Store> { Arc::new(postgres::open(options.clone())) };
    let store = open();
    let reopen: Reopen = Box::new(move |store| {
        assert_eq!(Arc::strong_count(&store), 1, "nothing else uses the store");
        drop(store);
        open()
    });
    Some(Fresh { store, reopen: Some(reopen), clock, _guard: None })
}

fn some_memory() -> Option<Fresh> {
    Some(fresh_memory())
}

fn some_sqlite() -> Option<Fresh> {
    Some(fresh_sqlite())
}

fn fresh_sqlite() -> Fresh {
    let clock = Arc::new(Hand(AtomicU64::new(T0.0)));
    let guard = tempfile::tempdir().unwrap();
    let (dir, hand) = (guard.path().to_owned(), clock.clone());
    let open = move || -> Arc<dyn Store> {
        let options = SqliteOptions { clock: Some(hand.clone()), ..SqliteOptions::default() };
        Arc::new(SqliteStore::open(&dir, options).unwrap())
    };
    let store = open();
    let reopen: Reopen = Box::new(move |store| {
        assert_eq!(Arc::strong_count(&store), 1, "nothing else uses the store");
        drop(store);
        open()
    });
    Fresh { store, reopen: Some(reopen), clock, _guard: Some(guard) }
}

with_cases!(list_cases);
with_cases!(run_cases memory super::some_memory);
with_cases!(run_cases sqlite super::some_sqlite);
with_cases!(run_cases postgresql super::fresh_postgres);
