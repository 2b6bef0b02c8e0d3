//! Looks at hardware because someone asks.

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use crate::executor::error::{EngineError, Refusal};
use crate::executor::request::Origin;
use crate::executor::scheduler::probes::answered;
use crate::executor::worker::Message;
use crate::ids::MachineId;
use crate::model::Machine;
use crate::plan::Capability;
use crate::provider::Target;

/// Longest time that the machine's provider may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Engine {
    /// Asks the machine's provider how the hardware is, and stores what it says. A machine that does not answer is
    /// unreachable: that is an answer, and no error.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if the provider cannot look at the machine.
    pub async fn inspect_machine(
        &self,
        origin: &Origin,
        id: &MachineId,
    ) -> Result<Arc<Machine>, EngineError> {
        let machine = self.ports.machine_for(origin, id).await?;
        let class = &machine.spec.provider;
        let refuse = |refusal, message: String, hint: String| EngineError::Refused {
            refusal,
            subject: format!("machines/{id}"),
            message,
            hint,
        };
        let Some(provider) = self.ports.provider(class) else {
            let message =
                format!("provider {class:?} of machine {id} is not configured on this server");
            return Err(refuse(Refusal::ProviderMissing, message, String::new()));
        };
        let target = Target::from(&*machine);
        if !provider.capabilities(&target).contains(Capability::Probe) {
            return Err(refuse(
                Refusal::CapabilityMissing,
                format!(
                    "machine {id} cannot be looked at: its provider {class:?} lacks the capability probe"
                ),
                format!(
                    "name a driver for probe in [machine_classes.{class}] of the server's configuration"
                ),
            ));
        }
        let health = answered(&self.ports, provider.inspect(&target), PATIENCE).await;
        if health.reachable {
            self.ports.sightings.forget(id);
            let (store, now) = (&*self.ports.store, self.ports.clock.now());
            self.ports.sightings.note(store, id, &health.facts, now).await;
        }
        let (origin, health) = (Box::new(origin.clone()), Box::new(health));
        self.ask(id, |reply| Message::Inspected { origin, health, reply }).await
    }
}
