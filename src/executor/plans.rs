//! The plans that new runs can use, and those that runs in progress have pinned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::admission;
use super::error::EngineError;
use super::planted::Planted;
use super::request::{NewRun, Origin};
use crate::model::Run;
use crate::plan::{OnUnknown, Plan, Registered, Registry, Risk};
use crate::store::{Store, StoreError};

/// Most plans kept in memory besides those of the registry: copies that older runs pinned.
const PINNED_PLANS_MAX: usize = 256;

/// See the module.
pub(super) struct Plans {
    registry: RwLock<Arc<Registry>>,
    pinned: Mutex<BTreeMap<String, Arc<Registered>>>,
    store: Arc<dyn Store>,
    planted: Option<Planted>,
}

impl Plans {
    pub(super) fn new(registry: Registry, store: Arc<dyn Store>, planted: Option<Planted>) -> Self {
        let registry = RwLock::new(Arc::new(registry));
        Self { registry, pinned: Mutex::default(), store, planted }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Registered>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the plans that new runs can use; runs in flight keep their pinned plan.
    pub(super) fn set(&self, registry: Registry) {
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(registry);
    }

    /// The plan that a request selects.
    pub(super) fn chosen(&self, new: &NewRun) -> Result<Arc<Registered>, EngineError> {
        let registry = self.registry();
        let registered = admission::choose_plan(&registry, new)?;
        if !new.plan_digest.is_empty() && new.plan_digest != registered.digest() {
            return Err(EngineError::EtagMismatch {
                kind: "plan",
                id: registered.plan.id.to_string(),
                given: new.plan_digest.clone(),
                current: registered.digest().to_owned(),
            });
        }
        Ok(self.with_planted(registered.clone()))
    }

    /// The plan that a run pinned, with its digest.
    pub(super) async fn pinned(&self, run: &Run) -> Result<Arc<Registered>, EngineError> {
        if let Some(found) = self.lock().get(&run.spec.plan_digest) {
            return Ok(found.clone());
        }
        if let Some(found) = self.registry().iter().find(|r| r.digest() == run.spec.plan_digest) {
            return Ok(self.with_planted(found.clone()));
        }
        let corrupt = |message: String| StoreError::Corrupt {
            kind: "plan",
            id: run.spec.plan_digest.clone(),
            message: format!("{message}; run {} has pinned it", run.id),
        };
        let text = self.store.plan(&run.spec.plan_digest).await?;
        let text = text.ok_or_else(|| corrupt("it is missing".to_owned()))?;
        let plan = Plan::from_canonical(&text).map_err(|error| corrupt(error.to_string()))?;
        let registered = self.with_planted(Arc::new(Registered::pinned(plan, &text)));
        self.remember(&registered);
        Ok(registered)
    }

    /// Refuses a caller below an admin what is to be done with a run of a plan that is for admins, ended or not.
    pub(super) async fn admits(&self, origin: &Origin, run: &Run) -> Result<(), EngineError> {
        match origin.call.below_admin {
            Some(_) => origin.may_run(&self.pinned(run).await?.plan),
            None => Ok(()),
        }
    }

    /// The risk of the plan that a run pinned: the worst, if it cannot be read.
    pub(super) async fn pinned_risk(&self, run: &Run) -> Risk {
        if self.planted == Some(Planted::RiskForgotten) {
            return Risk::None;
        }
        self.pinned(run).await.map_or(Risk::DataDestroying, |registered| registered.plan.risk())
    }

    /// Caches a pinned plan.
    pub(super) fn remember(&self, registered: &Arc<Registered>) {
        let mut pinned = self.lock();
        if !pinned.contains_key(registered.digest()) {
            if pinned.len() >= PINNED_PLANS_MAX {
                pinned.pop_first();
            }
            pinned.insert(registered.digest().to_owned(), registered.clone());
        }
    }

    fn with_planted(&self, registered: Arc<Registered>) -> Arc<Registered> {
        if self.planted != Some(Planted::BlindRetry) {
            return registered;
        }
        let mut plan = Plan::clone(&registered.plan);
        for step in plan.steps.to_mut() {
            step.on_unknown = OnUnknown::Retry;
        }
        Arc::new(Registered::new(plan))
    }
}
