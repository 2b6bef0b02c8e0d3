//! The providers of a server: the simulator, and one for each class of machines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{Config, Driver};
use crate::provider::Provider;
use crate::provider::routed::Routed;

/// Every provider that a machine can name.
pub(super) fn all(config: &Config, fake: Arc<dyn Provider>) -> Vec<Arc<dyn Provider>> {
    let mut providers = vec![fake.clone()];
    for (name, class) in &config.machine_classes {
        let driver = |driver: &Driver| match driver {
            Driver::Fake => fake.clone(),
        };
        let routes: BTreeMap<_, _> =
            class.routes.iter().map(|(at, named)| (*at, driver(named))).collect();
        providers.push(Arc::new(Routed::new(name.clone(), routes)));
    }
    providers
}
