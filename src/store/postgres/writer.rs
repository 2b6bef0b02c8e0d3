//! The one session that writes: it drains its queue into one transaction, so that one flush serves many commits.
//!
//! Order: what the checks need is looked up, all batches are checked one after the other, everything is written in one
//! transaction, listeners, answers. A refused batch writes nothing, so the others continue without it. If the
//! transaction fails, none of them is written and all get the error.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::connection::Conn;
use super::encoded::Encoded;
use super::error::{not_open, unavailable, unknown};
use super::group::Group;
use super::heads::{Found, Wanted};
use super::load::{Counters, Loaded};
use super::lookup::look_up;
use super::options::PostgresOptions;
use super::place::{Expected, leave, number};
use super::shared::Shared;
use super::statements::{Stmt, meta, statements};
use super::transaction::{Mark, Unwritten, write};
use super::trim::{self, Doomed};
use crate::clock::{OsRandom, Random as _};
use crate::ids::{BatchId, Revision};
use crate::store::{
    Availability, Batch, Committed, Outcome, Retention, SlotKey, StoreError, Trimmed,
};

/// Most batches in one transaction.
const GROUP_MAX: usize = 4096;
/// Most plans known to be stored: more than a fleet uses at a time.
const PLANS_MAX: usize = 256;
/// How long the writer waits for the answer to a transaction. A database that is stopped, or whose standby does not answer,
/// is away.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often the writer tries to write while the disk of the database is full.
const FULL_RETRY: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A batch that waits for its commit.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) encoded: Encoded,
    pub(super) answer: Answer<Arc<Committed>>,
}

/// Work for the writer.
pub(super) enum Work {
    Commit(Box<Job>),
    Trim { retention: Retention, oldest_kept: i64, answer: Answer<Trimmed> },
    Slots(Answer<BTreeMap<SlotKey, u64>>),
    Outcome { id: BatchId, since: Revision, answer: Answer<Outcome> },
}

impl Work {
    /// Answers that it was not done.
    pub(super) fn refuse(self, error: StoreError, shared: &Shared) {
        // The caller may have stopped waiting.
        match self {
            Self::Commit(job) => {
                shared.stats.queued.fetch_sub(1, Relaxed);
                drop(job.answer.send(Err(error)));
            }
            Self::Trim { answer, .. } => drop(answer.send(Err(error))),
            Self::Slots(answer) => drop(answer.send(Err(error))),
            Self::Outcome { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// The writer's side of the store.
pub(super) struct Writer {
    pub(super) options: Arc<PostgresOptions>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: UnboundedReceiver<Work>,
    pub(super) conn: Conn,
    /// What the next session must find.
    pub(super) expected: Expected,
    /// The number of the place.
    pub(super) holder: i64,
    pub(super) state: Loaded,
    /// The state may differ from what is stored.
    pub(super) is_stale: bool,
    /// Digests of plans that are stored. Forgotten when rows are trimmed, which may take some away.
    pub(super) plans: HashSet<String>,
    /// Why nothing can be written any more.
    pub(super) ended: Option<String>,
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) async fn run(mut self) {
        loop {
            let is_full = matches!(*self.shared.availability.borrow(), Availability::Full { .. });
            let (mut lost, clock) = (self.conn.lost(), self.shared.clock.clone());
            let work = tokio::select! {
                biased;
                // An end without a word is an end, too.
                _ = lost.wait_for(|lost| *lost), if self.ended.is_none() => {
                    self.is_stale = true;
                    let again = self.reconnect("the connection was closed").await;
                    if again.is_err() && self.queue.is_closed() && self.queue.is_empty() {
                        break;
                    }
                    continue;
                }
                work = self.queue.recv() => work,
                () = clock.sleep(FULL_RETRY), if is_full => {
                    self.look_for_room().await;
                    continue;
                }
            };
            let Some(work) = work else { break };
            if let Some(why) = &self.ended {
                work.refuse(unavailable(why.clone()), &self.shared);
                continue;
            }
            self.work(work).await;
        }
        if self.ended.is_none() && !self.conn.is_lost() {
            let clock = self.shared.clock.clone();
            tokio::select! {
                () = leave(&self.conn) => {}
                () = clock.sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn work(&mut self, first: Work) {
        let mut next = Some(first);
        let mut jobs = Vec::new();
        let mut other = None;
        while let Some(work) = next.take() {
            match work {
                Work::Commit(job) => jobs.push(*job),
                work @ (Work::Trim { .. } | Work::Slots(_) | Work::Outcome { .. }) => {
                    other = Some(work);
                }
            }
            if other.is_none() && jobs.len() < GROUP_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        if !jobs.is_empty() {
            self.shared.stats.queued.fetch_sub(jobs.len() as u64, Relaxed);
            self.commit(jobs).await;
        }
        let Some(other) = other else { return };
        if let Some(why) = &self.ended {
            return other.refuse(unavailable(why.clone()), &self.shared);
        }
        match other {
            Work::Commit(_) => {}
            Work::Slots(answer) => {
                let slots = self.refresh().await.map(|()| self.state.heads.slots.used());
                drop(answer.send(slots));
            }
            Work::Outcome { id, since, answer } => {
                drop(answer.send(Ok(self.state.outcomes.of(id, since))));
            }
            Work::Trim { retention, oldest_kept, answer } => {
                let trimmed = self.trim(retention, oldest_kept).await;
                drop(answer.send(trimmed));
            }
        }
    }

    /// Loads the state again, if it may differ from what is stored.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        if !self.is_stale {
            return Ok(());
        }
        let loaded = Loaded::load(&self.conn).await.map_err(not_open)?;
        let Loaded { counters, heads, .. } = loaded;
        // The outcomes that are remembered are more than those that are stored.
        self.state.counters = counters;
        self.state.heads = heads;
        self.is_stale = false;
        Ok(())
    }

    async fn commit(&mut self, jobs: Vec<Job>) {
        let mut wanted = Wanted::default();
        let prepared = self.refresh().await;
        let looked_up = match prepared {
            Err(error) => Err(error),
            Ok(()) => {
                let heads = &self.state.heads;
                jobs.iter().for_each(|job| heads.want(&job.batch, &mut wanted));
                look_up(&self.conn, &wanted, heads.epoch_floor).await
            }
        };
        match looked_up {
            Ok(found) => self.state.heads.found = found,
            Err(error) => {
                for job in jobs {
                    drop(job.answer.send(Err(error.clone())));
                }
                return;
            }
        }
        let mut group = Group::new(self.state.counters, self.shared.clock.now());
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let added = group.add(&mut self.state.heads, job.batch, job.encoded);
            outcomes.push(added.map(Arc::new));
            answers.push(job.answer);
        }
        let is_empty = group.counters.revision == self.state.counters.revision;
        let written = if is_empty { Ok(()) } else { self.write_group(&mut group).await };
        self.state.heads.found = Found::default();
        match written {
            Ok(()) => {
                self.state.counters = group.counters;
                self.expected.revision = group.counters.revision;
                for (id, revision) in &group.named {
                    self.state.outcomes.note(*id, *revision);
                }
                self.know(group.plans.into_keys());
                self.shared.announce(outcomes.iter());
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // The caller may have stopped waiting.
                    drop(answer.send(outcome));
                }
            }
            Err(error) => {
                // What was added to the state is not stored.
                self.is_stale = true;
                for answer in answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    async fn write_group(&mut self, group: &mut Group) -> Result<(), StoreError> {
        let plans = &self.plans;
        group.plans.retain(|digest, _| !plans.contains(digest));
        let mut all = statements(group);
        all.push(meta(group));
        self.write(all).await.map(|_| ())
    }

    /// Writes statements in one transaction, and finds out its outcome if the session is lost. Returns the rows
    /// of each, as far as they are known.
    async fn write(&mut self, statements: Vec<Stmt<'_>>) -> Result<Vec<u64>, StoreError> {
        let group = number(OsRandom.next_u64());
        let mark = Mark { holder: self.holder, revision: self.state.counters.revision, group };
        let clock = self.shared.clock.clone();
        let written = tokio::select! {
            biased;
            written = write(&self.conn, mark, statements) => written,
            () = clock.sleep(ANSWER_MAX) => {
                Err(Unwritten::InDoubt("it does not answer".to_owned()))
            }
        };
        self.shared.stats.flushes.fetch_add(1, Relaxed);
        match written {
            Ok(rows) => {
                if self.shared.set(Availability::Ok) {
                    tracing::info!("the database has space again");
                }
                Ok(rows)
            }
            Err(Unwritten::Failed(error)) => {
                let since = self.shared.clock.now();
                if matches!(error, StoreError::Full(_))
                    && self.shared.set(Availability::Full { since })
                {
                    tracing::warn!("the database is full: nothing is written until there is space");
                }
                Err(error)
            }
            Err(Unwritten::PlaceLost) => {
                self.give_up("another server has taken the place of this one");
                Err(unavailable("another server has taken the place of this one"))
            }
            Err(Unwritten::InDoubt(why)) => self.find_out(group, &why).await,
        }
    }

    /// Finds out the outcome of the transaction of a session that was lost.
    async fn find_out(&mut self, group: i64, why: &str) -> Result<Vec<u64>, StoreError> {
        match self.reconnect(why).await {
            Ok(place) if place.last_group == group => Ok(Vec::new()),
            Ok(_) => Err(unavailable(format!("the database was lost before the commit: {why}"))),
            Err(why) => Err(unknown(why)),
        }
    }

    /// Nothing is written any more.
    pub(super) fn give_up(&mut self, why: &str) {
        tracing::error!(why, "the store refuses further writes until the server is restarted");
        self.ended = Some(why.to_owned());
        let since = self.shared.clock.now();
        self.shared.availability.send_replace(Availability::Broken { since });
        self.shared.ended.send_replace(Some(why.to_owned()));
    }

    fn know(&mut self, plans: impl Iterator<Item = String>) {
        for digest in plans {
            if self.plans.len() >= PLANS_MAX {
                self.plans.clear();
            }
            self.plans.insert(digest);
        }
    }

    async fn look_for_room(&mut self) {
        let group = Group::new(self.state.counters, self.state.counters.at);
        // The availability has the result.
        drop(self.write(vec![meta(&group)]).await);
    }

    async fn trim(
        &mut self,
        retention: Retention,
        oldest_kept: i64,
    ) -> Result<Trimmed, StoreError> {
        self.refresh().await?;
        self.plans.clear();
        let before: Counters = self.state.counters;
        let doomed = trim::find(&self.conn, &before, retention, oldest_kept).await?;
        if doomed.is_empty() {
            return Ok(Trimmed::default());
        }
        let mut group = Group::new(before, before.at);
        group.counters.compacted = doomed.compacted();
        let mut all = doomed.statements();
        all.push(meta(&group));
        match self.write(all).await {
            Ok(rows) => {
                self.state.counters = group.counters;
                Ok(Doomed::trimmed(&rows))
            }
            Err(error) => {
                self.is_stale = true;
                Err(error)
            }
        }
    }
}
