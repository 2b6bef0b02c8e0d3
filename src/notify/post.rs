//! Sends one event.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::event::{CONTENT_TYPE, Event};
use super::settings::{NotifyPorts, ReceiverSettings};
use super::verdict::{Verdict, judge};
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::outbound::{Call, Channel, Limits, signature};

/// Longest answer that is read; nothing of it is kept.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// Sends events.
pub(super) trait Post: Send + Sync {
    /// Sends one, once.
    fn post<'a>(&'a self, event: &'a Event) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
}

/// Sends over HTTP.
pub(super) struct Http {
    path: String,
    secret: Option<String>,
    limits: Limits,
    channel: Channel,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(settings: &ReceiverSettings, ports: &NotifyPorts) -> Self {
        let ReceiverSettings { origin, path, secret, trust, timeout, .. } = settings.clone();
        let limits = Limits {
            connect: CONNECT.min(timeout),
            read: timeout,
            whole: timeout,
            body_bytes_max: BODY_BYTES_MAX,
        };
        let NotifyPorts { dial, credentials, clock, .. } = ports.clone();
        let channel = Channel::new(origin, trust, dial, clock.clone());
        Self { path, secret, limits, channel, credentials, clock }
    }

    async fn send(&self, event: &Event) -> Verdict {
        let mut call = Call::new(Method::POST, self.path.clone(), self.limits);
        if let Some(name) = &self.secret {
            // Read for each event: a changed secret needs no restart.
            let secret = match self.credentials.secret(name) {
                Ok(secret) => secret,
                Err(error) => return Verdict::Later(error.to_string(), None),
            };
            let now = self.clock.now();
            let signed = signature::header(secret.expose().as_bytes(), now, &event.body);
            match HeaderValue::from_str(&signed) {
                Ok(signed) => {
                    call = call.header(HeaderName::from_static(signature::HEADER), signed)
                }
                Err(error) => return Verdict::Later(format!("it cannot be signed: {error}"), None),
            }
        }
        let call = call.body(CONTENT_TYPE, event.body.clone());
        judge(&self.channel.call(&call).await, self.clock.now())
    }
}

impl Post for Http {
    fn post<'a>(&'a self, event: &'a Event) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(self.send(event))
    }
}
