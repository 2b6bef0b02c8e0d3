//! The receivers of notifications of a server.

use std::sync::Arc;

use super::config::{Config, ConfigError, receivers};
use crate::api::{Facts, ReceiverFacts};
use crate::credentials::Credentials;
use crate::executor::Engine;
use crate::notify::{self, NotifyPorts, Standing, Status};
use crate::outbound::TcpDial;

/// Begins to notify every receiver of the configuration of what happens, until the engine ends.
///
/// # Errors
/// [`ConfigError`] for a receiver whose settings make no sense any more, such as a file that was removed.
pub(super) async fn start(
    config: &Config,
    engine: &Engine,
) -> Result<Arc<[Arc<Status>]>, ConfigError> {
    let settings = receivers(&config.notify).map_err(ConfigError::Setting)?;
    let ports = NotifyPorts {
        store: engine.store().clone(),
        dial: Arc::new(TcpDial::new(config.networks.webhook.clone())),
        credentials: Credentials::new(config.credentials_dir.clone()),
        clock: engine.clock().clone(),
        random: engine.random().clone(),
    };
    let receivers = notify::receivers(settings, &ports).await;
    let standing = receivers.into_iter().map(|(task, status)| {
        engine.spawn(task);
        status
    });
    Ok(standing.collect())
}

/// Adds how receivers are doing.
pub(super) fn with_facts(facts: Facts, receivers: &[Arc<Status>]) -> Facts {
    let receiver = |status: &Arc<Status>| {
        let Standing { delivered, refused, retries, gaps, waiting, oldest, delivered_at, error } =
            status.standing();
        ReceiverFacts {
            name: status.receiver().to_owned(),
            delivered,
            refused,
            retries,
            gaps,
            waiting,
            oldest,
            delivered_at,
            error,
        }
    };
    Facts { receivers: receivers.iter().map(receiver).collect(), ..facts }
}
