//! Stops everything, locks callers and machines, and lifts that again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::engine::Engine;
use crate::clock::Timestamp;
use crate::executor::audit;
use crate::executor::brakes::{ENDED_MAX, LOCKS_MAX};
use crate::executor::error::EngineError;
use crate::executor::idempotency::request;
use crate::executor::ports::Ports;
use crate::executor::request::Origin;
use crate::ids::Revision;
use crate::model::{Lock, LockTarget};
use crate::store::{Batch, LockMove, Outcome, StoreError};

/// Delay before the outcome of a commit is looked up again, in milliseconds.
const RETRY_MS: u64 = 250;

/// How often that is tried.
const TRIES_MAX: usize = 40;

/// What a request does.
enum Wanted {
    Set {
        target: LockTarget,
        until: Option<Timestamp>,
    },
    /// Lifts a stop.
    Resume,
    /// Lifts the lock with this id.
    Lift(String),
}

impl Engine {
    /// Stops everything: from the answer on no effect begins, until [`Engine::resume_all`]. What has been sent is
    /// waited for. If everything is stopped already, that stop is returned.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn stop_all(&self, origin: &Origin) -> Result<Arc<Lock>, EngineError> {
        self.set_lock(origin, LockTarget::All, None).await
    }

    /// Lifts a stop.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if nothing is stopped.
    pub async fn resume_all(&self, origin: &Origin) -> Result<Arc<Lock>, EngineError> {
        self.with_locks(origin, Wanted::Resume).await
    }

    /// Locks a caller or machines.
    ///
    /// # Errors
    /// [`EngineError::Exhausted`] if there are too many locks.
    pub async fn set_lock(
        &self,
        origin: &Origin,
        target: LockTarget,
        until: Option<Timestamp>,
    ) -> Result<Arc<Lock>, EngineError> {
        self.with_locks(origin, Wanted::Set { target, until }).await
    }

    /// Lifts a lock.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if no lock with this id is in force.
    pub async fn lift_lock(&self, origin: &Origin, id: &str) -> Result<Arc<Lock>, EngineError> {
        self.with_locks(origin, Wanted::Lift(id.to_owned())).await
    }

    /// The locks that are in force, the oldest first.
    #[must_use]
    pub fn locks(&self) -> Vec<Arc<Lock>> {
        let now = self.ports.clock.now();
        let mut locks = self.ports.brakes.all();
        locks.retain(|lock| lock.holds(now));
        locks.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        locks
    }

    /// The stop that is in force, if there is one.
    #[must_use]
    pub fn stop(&self) -> Option<Arc<Lock>> {
        self.locks().into_iter().find(|lock| lock.target == LockTarget::All)
    }

    /// Number of runs that a stop, a lock or a pause of their plan holds back.
    #[must_use]
    pub fn held_runs(&self) -> usize {
        self.ports.brakes.held()
    }

    /// The lock on a caller, if there is one.
    #[must_use]
    pub fn lock_of(&self, principal: &str) -> Option<Arc<Lock>> {
        self.ports.brakes.principal(principal, self.ports.clock.now())
    }

    /// Notified of every change of a lock.
    #[must_use]
    pub fn lock_changes(&self) -> watch::Receiver<u64> {
        self.ports.brakes.subscribe()
    }

    async fn with_locks(&self, origin: &Origin, wanted: Wanted) -> Result<Arc<Lock>, EngineError> {
        if self.is_draining() {
            return Err(EngineError::ShuttingDown);
        }
        let (reply, answer) = oneshot::channel();
        let (ports, origin) = (self.ports.clone(), origin.clone());
        self.ports.tasks.spawn(async move {
            // One after the other: each looks at what is in force.
            let turn = ports.lock_turn.lock().await;
            let answer = ports.change_locks(&origin, wanted).await;
            drop(turn);
            drop(reply.send(answer));
        });
        answer.await.unwrap_or(Err(EngineError::ShuttingDown))
    }
}

impl Ports {
    async fn change_locks(
        &self,
        origin: &Origin,
        wanted: Wanted,
    ) -> Result<Arc<Lock>, EngineError> {
        let scope = match &wanted {
            Wanted::Set { target: LockTarget::All, .. } => "StopAll".to_owned(),
            Wanted::Set { .. } => "CreateLock".to_owned(),
            Wanted::Resume => "ResumeAll".to_owned(),
            Wanted::Lift(id) => format!("DeleteLock/{id}"),
        };
        if let Some(id) = self.repeated_object(origin, &scope).await? {
            return self.lock_by_id(&id);
        }
        self.in_time(origin)?;
        let now = self.clock.now();
        let mut in_force = self.brakes.all();
        in_force.retain(|lock| lock.holds(now));
        let stop = in_force.iter().find(|lock| lock.target == LockTarget::All);
        let lift = |found: Option<&Arc<Lock>>, id: &str| match found {
            Some(lock) => Ok(Lock { lifted_at: Some(now), ..Lock::clone(lock) }),
            None => Err(EngineError::NotFound { kind: "lock", id: id.to_owned() }),
        };
        let (lock, is_new) = match &wanted {
            Wanted::Set { target: LockTarget::All, .. } if stop.is_some() => {
                return self.same_stop(origin, stop.cloned(), &scope).await;
            }
            Wanted::Set { target, until } => {
                if in_force.len() >= LOCKS_MAX && *target != LockTarget::All {
                    return Err(EngineError::Exhausted {
                        limit: "LOCKS",
                        message: format!("{LOCKS_MAX} locks are in force: lift one first"),
                    });
                }
                let lock = Lock {
                    id: self.lock_id(target),
                    target: target.clone(),
                    reason: origin.reason.clone(),
                    by: origin.actor.clone(),
                    at: now,
                    until: *until,
                    lifted_at: None,
                };
                (lock, true)
            }
            Wanted::Resume => (lift(stop, "stop")?, false),
            Wanted::Lift(id) => (lift(in_force.iter().find(|lock| lock.id == *id), id)?, false),
        };
        let lock = Arc::new(lock);
        if is_new {
            // From here on: what began before is sent by the time of the answer, and nothing begins after it.
            self.brakes.put(lock.clone());
        }
        let forgotten = self.long_ended(now);
        let mut locks = vec![LockMove::Put(lock.clone())];
        locks.extend(forgotten.iter().map(|id| LockMove::Forget(id.clone())));
        let batch = Batch {
            id: self.next_batch(),
            locks,
            request: request(origin, &scope, &lock.id, now),
            audit: audit::done(origin, audit::rpc_of(&scope), objects(&lock), ""),
            ..Batch::default()
        };
        match self.commit_in_doubt(batch).await {
            Ok(()) => {
                self.brakes.put(lock.clone());
                self.brakes.drop_all(forgotten.iter().map(String::as_str));
                say(&lock);
                Ok(lock)
            }
            Err(error) => {
                // What is not known to be refused stays in force until it is known.
                if is_new && !matches!(error, StoreError::Unknown(_)) {
                    self.brakes.drop_all([lock.id.as_str()]);
                }
                Err(error.into())
            }
        }
    }

    /// Everything is stopped already: who asks for it again is in the audit.
    async fn same_stop(
        &self,
        origin: &Origin,
        stop: Option<Arc<Lock>>,
        scope: &str,
    ) -> Result<Arc<Lock>, EngineError> {
        let stop = stop.ok_or_else(|| EngineError::Internal("a stop that is none".to_owned()))?;
        let batch = Batch {
            request: request(origin, scope, &stop.id, self.clock.now()),
            audit: audit::done(origin, scope, objects(&stop), ""),
            ..Batch::default()
        };
        self.commit(batch).await?;
        Ok(stop)
    }

    fn lock_by_id(&self, id: &str) -> Result<Arc<Lock>, EngineError> {
        let found = self.brakes.all().into_iter().find(|lock| lock.id == id);
        found.ok_or_else(|| EngineError::NotFound { kind: "lock", id: id.to_owned() })
    }

    /// The ended locks that are kept no longer.
    fn long_ended(&self, now: Timestamp) -> Vec<String> {
        let mut ended: Vec<_> = self
            .brakes
            .all()
            .into_iter()
            .filter_map(|lock| Some((lock.ended_at(now)?, lock.id.clone())))
            .collect();
        ended.sort();
        let excess = ended.len().saturating_sub(ENDED_MAX);
        ended.into_iter().take(excess).map(|(_, id)| id).collect()
    }

    /// Commits, and finds out the outcome if the store cannot say at once.
    async fn commit_in_doubt(&self, batch: Batch) -> Result<(), StoreError> {
        let id = batch.id;
        let since = match self.store.revisions().await {
            Ok((revision, _)) => revision,
            Err(_) => Revision(0),
        };
        let unknown = match self.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(unknown @ StoreError::Unknown(_)) => unknown,
            Err(error) => return Err(error),
        };
        for _ in 0..TRIES_MAX {
            match self.store.outcome(id, since).await {
                Ok(Outcome::Committed(_)) => return Ok(()),
                Ok(Outcome::NotCommitted) => {
                    let error = std::io::Error::other("the store did not take the commit");
                    return Err(StoreError::Unavailable(Arc::new(error)));
                }
                Ok(Outcome::Forgotten) => return Err(unknown),
                Err(_) => self.clock.sleep(Duration::from_millis(RETRY_MS)).await,
            }
        }
        Err(unknown)
    }
}

/// The objects of a request, for the audit.
fn objects(lock: &Lock) -> Vec<String> {
    let mut objects = vec![format!("locks/{}", lock.id)];
    match &lock.target {
        LockTarget::All => {}
        LockTarget::Principal(name) => objects.push(format!("principals/{name}")),
        LockTarget::Machines(labels) => {
            let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            objects.push(format!("labels/{}", all.join(",")));
        }
        LockTarget::Plan { plan_id, .. } => objects.push(format!("plans/{plan_id}")),
    }
    objects
}

/// The log says when something is held back, and when it no longer is.
fn say(lock: &Lock) {
    let (kind, id, by, reason) = (lock.target.kind(), &lock.id, &lock.by.name, &lock.reason);
    match (&lock.target, lock.lifted_at) {
        (LockTarget::All, None) => {
            tracing::warn!(%by, reason, "everything is stopped: nothing begins until resume-all");
        }
        (LockTarget::All, Some(_)) => {
            tracing::warn!(stopped_by = %by, reason, "the stop is lifted: runs continue");
        }
        (_, None) => tracing::warn!(id, kind, %by, reason, "a lock is set"),
        (_, Some(_)) => tracing::info!(id, kind, "a lock is lifted"),
    }
}
