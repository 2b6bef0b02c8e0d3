//! The driver: what is posted, and to whom.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::reply;
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::ids::{Epoch, MachineId};
use crate::lifecycle::step::ErrorClass;
use crate::outbound::{self, Answer, CallError, Channel, Dial, Limits, Origin, Trust, signature};
use crate::plan::Capability;
use crate::provider::message::{self, Purpose};
use crate::provider::{
    Acted, Call, Capabilities, ErrorCode, Fut, Health, Logs, Observation, Provider, ProviderError,
    Target, Verification,
};

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// What the configuration says about a receiver.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// The class.
    pub class: String,
    /// Where it is.
    pub origin: Origin,
    /// Path and query.
    pub path: String,
    /// Name of the credential that messages are signed with.
    pub secret: String,
    /// Whose certificate is believed.
    pub trust: Trust,
    /// Longest time until an answer.
    pub timeout: Duration,
    /// Most messages on their way at the same time.
    pub parallel_max: usize,
    /// Whether the receiver answers looks, too.
    pub observe: bool,
    /// The declared actions that it performs.
    pub actions: BTreeSet<String>,
}

/// What a driver needs of its server.
#[derive(Debug, Clone)]
pub struct WebhookPorts {
    /// Makes connections.
    pub dial: Arc<dyn Dial>,
    /// Secrets.
    pub credentials: Credentials,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// See the module `webhook`.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookSettings,
    ports: WebhookPorts,
    /// Channels that carry no message now: each keeps what TLS was set up with.
    idle: Mutex<Vec<Channel>>,
    places: Semaphore,
    fences: Mutex<HashMap<MachineId, Epoch>>,
}

impl Webhook {
    /// The driver of a class.
    #[must_use]
    pub fn new(settings: WebhookSettings, ports: WebhookPorts) -> Self {
        let places = Semaphore::new(settings.parallel_max);
        Self { settings, ports, idle: Mutex::default(), places, fences: Mutex::default() }
    }

    /// Refuses a call under an epoch that is no longer in force; with `raise` a newer one comes into force.
    fn admit(&self, machine: &MachineId, epoch: Epoch, raise: bool) -> Result<(), ProviderError> {
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let fence = fences.get(machine).copied().unwrap_or_default();
        if epoch < fence {
            let message = format!("epoch {epoch} of {machine} is older than {fence}");
            return Err(ProviderError::fenced(fence, message));
        }
        if raise {
            fences.insert(machine.clone(), epoch);
        }
        Ok(())
    }

    /// Sends a message.
    async fn post(
        &self,
        purpose: Purpose,
        target: &Target,
        call: &Call,
        begins: Option<&Logs>,
    ) -> Result<Result<Answer, CallError>, ProviderError> {
        self.admit(&target.machine_id, call.epoch, false)?;
        let _place = self.places.acquire().await.map_err(|_| {
            let message = "the server is ending";
            ProviderError::new(ErrorClass::Transient, ErrorCode::Unavailable, message)
        })?;
        // While it waited, everything may have been stopped, and another epoch may have come into force.
        if begins.is_some_and(|logs| !logs.may_begin()) {
            return Err(ProviderError::put_off());
        }
        self.admit(&target.machine_id, call.epoch, false)?;
        // Read for each message: a changed secret needs no restart.
        let secret = self.ports.credentials.secret(&self.settings.secret).map_err(|error| {
            ProviderError::new(ErrorClass::Permanent, ErrorCode::Unauthorized, error.to_string())
        })?;
        let body = message::of_call(purpose, &self.settings.class, target, call).into_bytes();
        let signed = signature::header(secret.expose().as_bytes(), self.ports.clock.now(), &body);
        let limits = Limits {
            connect: CONNECT.min(self.settings.timeout),
            read: self.settings.timeout,
            whole: self.settings.timeout,
            body_bytes_max: BODY_BYTES_MAX,
        };
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|error| {
                let message = format!("cannot be a header: {error}");
                ProviderError::new(ErrorClass::Permanent, ErrorCode::Invalid, message)
            })
        };
        let request = outbound::Call::new(Method::POST, self.settings.path.clone(), limits)
            .header(HeaderName::from_static(signature::HEADER), value(&signed)?)
            .header(HeaderName::from_static("idempotency-key"), value(call.operation.as_str())?)
            // A receiver that closes an idle connection as a message comes would leave its outcome unknown.
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .body("application/json", body);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let channel = idle.unwrap_or_else(|| {
            let WebhookPorts { dial, clock, .. } = &self.ports;
            let (origin, trust) = (self.settings.origin.clone(), self.settings.trust.clone());
            Channel::new(origin, trust, dial.clone(), clock.clone())
        });
        let answer = channel.call(&request).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
        Ok(answer)
    }

    async fn observe_now(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Observation, ProviderError> {
        if !self.settings.observe {
            self.admit(&target.machine_id, call.epoch, false)?;
            let why = format!(
                "the receiver of class {} is not asked whether {} is done",
                self.settings.class, call.action
            );
            return Ok(Observation::Unknowable { why });
        }
        let answer = self.post(Purpose::Observe, target, call, None).await?;
        reply::observed(call, answer, self.ports.clock.now())
    }

    async fn verify_now(
        &self,
        target: &Target,
        call: &Call,
    ) -> Result<Verification, ProviderError> {
        let expected = format!("{} done", call.action);
        match self.observe_now(target, call).await? {
            Observation::Done { evidence, .. } => Ok(Verification::Holds { evidence }),
            Observation::NotDone { observed } => Ok(Verification::Broken { expected, observed }),
            Observation::InProgress { .. } => {
                Ok(Verification::Broken { expected, observed: "still in progress".to_owned() })
            }
            // What the receiver answered is all there is.
            Observation::Unknowable { why } if !self.settings.observe => {
                Ok(Verification::Holds { evidence: format!("not checked: {why}") })
            }
            Observation::Unknowable { why } => {
                Err(ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, why))
            }
        }
    }
}

impl Provider for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn capabilities(&self, _target: &Target) -> Capabilities {
        Capabilities::all()
    }

    fn performs(&self, capability: Capability, action: &str) -> bool {
        capability != Capability::Custom || self.settings.actions.contains(action)
    }

    fn fence<'a>(&'a self, target: &'a Target, epoch: Epoch, _uses: Capabilities) -> Fut<'a, ()> {
        Box::pin(std::future::ready(self.admit(&target.machine_id, epoch, true)))
    }

    fn observe<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        _logs: Logs,
    ) -> Fut<'a, Observation> {
        Box::pin(self.observe_now(target, call))
    }

    fn act<'a>(&'a self, target: &'a Target, call: &'a Call, logs: Logs) -> Fut<'a, Acted> {
        Box::pin(async move {
            let answer = self.post(Purpose::Act, target, call, Some(&logs)).await?;
            reply::acted(call, answer, self.settings.observe, self.ports.clock.now())
        })
    }

    fn verify<'a>(
        &'a self,
        target: &'a Target,
        call: &'a Call,
        _logs: Logs,
    ) -> Fut<'a, Verification> {
        Box::pin(self.verify_now(target, call))
    }

    /// A message cannot be taken back.
    fn stop<'a>(&'a self, _target: &'a Target, _call: &'a Call) -> Fut<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe<'a>(&'a self, _target: &'a Target) -> Fut<'a, Health> {
        let message = "a webhook does not look at machines";
        let error = ProviderError::new(ErrorClass::Permanent, ErrorCode::Unsupported, message);
        Box::pin(std::future::ready(Err(error)))
    }

    fn is_real(&self) -> bool {
        true
    }
}
