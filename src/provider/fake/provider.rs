//! The simulator as a provider for the engine.

use super::decided::Decided;
use super::simulator::{FakeProvider, NAME};
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::provider::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};

impl Provider for FakeProvider {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self, _target: &Target) -> Capabilities {
        Capabilities::all()
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, _uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(async move { answer(self.decide_fence(target, epoch), None).await })
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(async move { answer(self.decide_observe(target, call), Some(logs)).await })
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move { answer(self.decide_act(target, call), Some(logs)).await })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(async move { answer(self.decide_verify(target, call), Some(logs)).await })
    }

    fn stop<'a>(&'a self, target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        Box::pin(async move { answer(self.decide_stop(target, call), None).await })
    }

    fn probe<'a>(&'a self, target: &'a Target) -> Fut<'a, Health> {
        Box::pin(async move { answer(self.decide_probe(target), None).await })
    }

    fn is_real(&self) -> bool {
        false
    }
}

/// Waits until a decision is durable, prints its lines, and returns its result, if there is one.
async fn answer<T>(decided: Decided<T>, logs: Option<Logs>) -> Result<T, ProviderError> {
    let Decided { result, lines, durable, hangs } = decided;
    if let Some(durable) = durable {
        let why = match durable.await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_closed) => Some("the world was closed".to_owned()),
        };
        if let Some(why) = why {
            return Err(ProviderError::new(
                ErrorClass::OutcomeUnknown,
                ErrorCode::Unavailable,
                why,
            ));
        }
    }
    if let Some(logs) = logs {
        for (stream, line) in &lines {
            logs.line(*stream, line);
        }
    }
    if hangs {
        std::future::pending::<()>().await;
    }
    result
}
