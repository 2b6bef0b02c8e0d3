//! Looks plans up by id and by run type.

use std::sync::{Arc, OnceLock};

use super::names::RunType;
use super::schema::Plan;
use super::suggest::nearest;

mod generated {
    use std::borrow::Cow;

    use crate::plan::names::*;
    use crate::plan::schema::*;
    use crate::plan::value::Value;

    include!(concat!(env!("OUT_DIR"), "/plans.rs"));
}
pub use generated::BUILT_IN;

/// Why plans cannot form one registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two plans with one id.
    #[error("there are two plans `{0}`; give one of them another id")]
    DuplicateId(String),
    /// Two defaults for one run type.
    #[error(
        "`{first}` and `{second}` are both the default for {run_type}; remove `default_for` from one of them"
    )]
    TwoDefaults {
        /// The run type.
        run_type: RunType,
        /// The plan with the smaller id.
        first: String,
        /// The other one.
        second: String,
    },
}

/// A plan with its identity.
#[derive(Debug)]
pub struct Registered {
    /// The plan.
    pub plan: Arc<Plan>,
    canonical: OnceLock<(Arc<str>, String)>,
}

impl Registered {
    /// A plan whose digest is computed on first use.
    pub fn new(plan: Plan) -> Self {
        Self { plan: Arc::new(plan), canonical: OnceLock::new() }
    }

    /// A plan that a run has pinned, with the text and the digest from then: they stay, whatever format this build
    /// writes.
    pub fn pinned(plan: Plan, text: &str) -> Self {
        let identity = (Arc::from(text), super::canonical::digest(text));
        Self { plan: Arc::new(plan), canonical: OnceLock::from(identity) }
    }

    fn identity(&self) -> &(Arc<str>, String) {
        self.canonical.get_or_init(|| {
            let text = self.plan.canonical();
            let digest = super::canonical::digest(&text);
            (text.into(), digest)
        })
    }

    /// The canonical text, which a run pins and [`Plan::from_canonical`] parses. Computed once.
    pub fn canonical(&self) -> &Arc<str> {
        &self.identity().0
    }

    /// `sha256:<hex>` of the canonical text. Computed once.
    pub fn digest(&self) -> &str {
        &self.identity().1
    }
}

/// The plans of a server, sorted by id.
#[derive(Debug)]
pub struct Registry {
    plans: Vec<Arc<Registered>>,
}

impl Registry {
    /// The built-in plans.
    pub fn built_in() -> Self {
        // build.rs refuses clashes and sorts; a test checks both.
        Self {
            plans: BUILT_IN.iter().cloned().map(|plan| Arc::new(Registered::new(plan))).collect(),
        }
    }

    /// A registry of exactly these plans. To add to the built-in ones, pass both.
    ///
    /// # Errors
    /// Two plans with one id, or two defaults for one run type.
    pub fn from_plans(mut plans: Vec<Plan>) -> Result<Self, RegistryError> {
        plans.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some(pair) = plans.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(RegistryError::DuplicateId(pair[0].id.to_string()));
        }
        for &run_type in RunType::ALL {
            let mut defaults = plans.iter().filter(|plan| plan.default_for == Some(run_type));
            if let (Some(first), Some(second)) = (defaults.next(), defaults.next()) {
                let (first, second) = (first.id.to_string(), second.id.to_string());
                return Err(RegistryError::TwoDefaults { run_type, first, second });
            }
        }
        Ok(Self { plans: plans.into_iter().map(|plan| Arc::new(Registered::new(plan))).collect() })
    }

    /// The plan with this id, including `plan/`.
    pub fn get(&self, id: &str) -> Option<&Arc<Registered>> {
        let index =
            self.plans.binary_search_by(|registered| registered.plan.id.as_ref().cmp(id)).ok()?;
        self.plans.get(index)
    }

    /// The plan for a run of this type when the request names none.
    pub fn default_for(&self, run_type: RunType) -> Option<&Arc<Registered>> {
        self.plans.iter().find(|registered| registered.plan.default_for == Some(run_type))
    }

    /// Every plan, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Registered>> + DoubleEndedIterator {
        self.plans.iter()
    }

    /// The closest id to one that does not exist; the `plan/` may be missing from it.
    pub fn suggest(&self, id: &str) -> Option<&str> {
        let name = id.strip_prefix("plan/").unwrap_or(id);
        let meant = nearest(name, self.plans.iter().map(|registered| registered.plan.name()))?;
        self.plans
            .iter()
            .map(|registered| registered.plan.id.as_ref())
            .find(|id| id.strip_prefix("plan/") == Some(meant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_plans() {
        let registry = Registry::built_in();
        let ids: Vec<&str> =
            registry.iter().map(|registered| registered.plan.id.as_ref()).collect();
        assert_eq!(
            ids,
            ["plan/net-reconfig", "plan/reboot", "plan/repave-join", "plan/rma", "plan/upgrade"]
        );
        for id in ids {
            assert_eq!(registry.get(id).unwrap().plan.id, id);
        }
        assert!(registry.get("repave-join").is_none());
        assert!(registry.get("").is_none());
    }

    #[test]
    fn every_run_type_but_custom_has_a_default() {
        let registry = Registry::built_in();
        for &run_type in RunType::ALL {
            let default =
                registry.default_for(run_type).map(|registered| registered.plan.run_type());
            assert_eq!(default, (run_type != RunType::Custom).then_some(run_type));
        }
    }

    #[test]
    fn suggests_ids() {
        let registry = Registry::built_in();
        assert_eq!(registry.suggest("plan/repave-jion"), Some("plan/repave-join"));
        assert_eq!(registry.suggest("repave-join"), Some("plan/repave-join"));
        assert_eq!(registry.suggest("plan/ram"), Some("plan/rma"));
        assert_eq!(registry.suggest("plan/launch-rocket"), None);
    }

    #[test]
    fn refuses_clashes() {
        let mut plans = BUILT_IN.to_vec();
        assert!(Registry::from_plans(plans.clone()).is_ok());
        let mut copy = plans[0].clone();
        plans.push(copy.clone());
        let error = Registry::from_plans(plans).unwrap_err();
        assert_eq!(error, RegistryError::DuplicateId("plan/net-reconfig".to_owned()));
        copy.id = "plan/other".into();
        let error = Registry::from_plans([BUILT_IN, &[copy]].concat()).unwrap_err().to_string();
        assert_eq!(
            error,
            "`plan/net-reconfig` and `plan/other` are both the default for NET_RECONFIG; remove `default_for` from one of them"
        );
    }

    #[test]
    fn identity_is_that_of_the_plan() {
        let registry = Registry::built_in();
        let registered = registry.get("plan/rma").unwrap();
        assert_eq!(registered.digest(), registered.plan.digest());
        assert_eq!(Plan::from_canonical(registered.canonical()).unwrap(), *registered.plan);
    }
}
