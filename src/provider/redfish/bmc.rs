//! One controller: requests go to it one at a time and not too fast, not while it is left alone, and with a session where
//! it has them.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, header};
use serde_json::Value as Json;
use tokio::sync::Mutex;

use super::failure::{Failure, is_broken};
use super::gate::Gate;
use super::json;
use super::settings::RedfishSettings;
use super::ticket::{Asking, Ticket};
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::lifecycle::step::ErrorClass;
use crate::outbound::{Answer, Call, Channel, Limits, Origin};
use crate::provider::breaker::{Breaker, OpenBreakers};
use crate::provider::{ErrorCode, ProviderError};

/// Where every controller has its root.
pub(super) const ROOT: &str = "/redfish/v1/";

/// Most bytes of an answer: a system is some 10 KB, a collection of a thousand members 60 KB.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// One controller.
#[derive(Debug)]
pub(super) struct Bmc {
    pub(super) channel: Channel,
    pub(super) settings: Arc<RedfishSettings>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) credentials: Credentials,
    gate: Mutex<Gate>,
}

/// The answer to a change.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Where the task can be watched that carries it out.
    pub(super) task: Option<String>,
}

impl Bmc {
    pub(super) fn new(
        channel: Channel,
        settings: Arc<RedfishSettings>,
        clock: Arc<dyn Clock>,
        credentials: Credentials,
        open: OpenBreakers,
    ) -> Self {
        let gate = Gate { breaker: Breaker::among(open), ..Gate::default() };
        Self { channel, settings, clock, credentials, gate: Mutex::new(gate) }
    }

    /// Whether a session is open.
    pub(super) async fn has_sessions(&self) -> bool {
        !self.gate.lock().await.sessions.is_empty()
    }

    pub(super) async fn gate(&self) -> tokio::sync::MutexGuard<'_, Gate> {
        self.gate.lock().await
    }

    /// Reads a resource.
    pub(super) async fn get(&self, asking: Asking<'_>, path: &str) -> Result<Json, Failure> {
        let mut gate = self.gate.lock().await;
        self.get_in(&mut gate, asking, path).await
    }

    pub(super) async fn get_in(
        &self,
        gate: &mut Gate,
        asking: Asking<'_>,
        path: &str,
    ) -> Result<Json, Failure> {
        let call = self.made(Method::GET, path);
        let answer = self.in_turn(gate, asking, &call, None).await?;
        self.read(path, &answer)
    }

    /// Its service root. Read once, without the password: it is open to everyone.
    pub(super) async fn root(&self, gate: &mut Gate) -> Result<Arc<Json>, Failure> {
        if let Some(root) = &gate.root {
            return Ok(root.clone());
        }
        let answer = self.raw(gate, &self.made(Method::GET, ROOT)).await?;
        let root = if answer.status.is_success() {
            Arc::new(self.read(ROOT, &answer)?)
        } else if answer.status.as_u16() == 401 {
            // Against the specification; everything else is where it always is.
            Arc::new(Json::Null)
        } else {
            return Err(Failure::refused(&self.what("GET", ROOT), &answer, self.clock.now()));
        };
        gate.root = Some(root.clone());
        Ok(root)
    }

    /// The path of a collection of the root.
    pub(super) async fn collection(&self, name: &str) -> Result<String, Failure> {
        let root = self.root(&mut *self.gate.lock().await).await?;
        let known = json::link(&root, &[name]).map(str::to_owned);
        Ok(known.unwrap_or_else(|| format!("{ROOT}{name}")))
    }

    /// Changes a resource, unless its ticket has lost its machine. Sent once; a second time only if the answer says that
    /// the first was not looked at, for want of the resource's tag.
    pub(super) async fn change(
        &self,
        ticket: &Ticket,
        method: Method,
        path: &str,
        body: &Json,
    ) -> Result<Changed, Failure> {
        let mut gate = self.gate.lock().await;
        let bytes = body.to_string().into_bytes();
        let call = self.made(method.clone(), path).body("application/json", bytes);
        let asking = ticket.asking();
        match self.in_turn(&mut gate, asking, &call, Some(ticket)).await {
            Ok(answer) => Ok(changed(&answer)),
            Err(failure) if method == Method::PATCH && failure.is(&[412, 428]) => {
                let now = self.get_in(&mut gate, asking, path).await?;
                let tag = json::text(&now, &["@odata.etag"]);
                let Ok(tag) = header::HeaderValue::from_str(tag) else { return Err(failure) };
                let call = call.header(header::IF_MATCH, tag);
                self.in_turn(&mut gate, asking, &call, Some(ticket)).await.map(|it| changed(&it))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Waits until a task has ended.
    pub(super) async fn finished(&self, asking: Asking<'_>, task: &str) -> Result<(), Failure> {
        let until = self.clock.monotonic() + self.settings.request;
        loop {
            let call = self.made(Method::GET, task);
            let mut gate = self.gate.lock().await;
            let answer = match self.in_turn(&mut gate, asking, &call, None).await {
                Ok(answer) => answer,
                // A monitor that is gone has ended.
                Err(failure) if failure.is(&[404, 410]) => return Ok(()),
                Err(failure) => return Err(failure),
            };
            drop(gate);
            let body: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
            let state = json::text(&body, &["TaskState"]);
            let is_running = answer.status.as_u16() == 202
                || ["New", "Starting", "Running", "Pending", "Suspended", "Stopping", "Service"]
                    .contains(&state);
            if ["Exception", "Killed", "Cancelled", "Cancelling", "Interrupted"].contains(&state) {
                let said = json::said(&answer.body);
                let message = format!("task {task} ended as {state}: {said}");
                let class = ErrorClass::Transient;
                return Err(ProviderError::new(class, ErrorCode::Failed, message).into());
            }
            if !is_running {
                return Ok(());
            }
            if self.clock.monotonic() >= until {
                let seconds = self.settings.request.as_secs();
                let message = format!("task {task} is {} after {seconds} s", json::plain(state));
                let class = ErrorClass::Transient;
                return Err(ProviderError::new(class, ErrorCode::Timeout, message).into());
            }
            self.clock.sleep(self.settings.poll).await;
        }
    }

    pub(super) fn made(&self, method: Method, path: &str) -> Call {
        let request = self.settings.request;
        let limits = Limits {
            connect: request.min(Duration::from_secs(10)),
            read: request,
            whole: request,
            body_bytes_max: BODY_BYTES_MAX,
        };
        let json = header::HeaderValue::from_static("application/json");
        Call::new(method, path, limits).header(header::ACCEPT, json).header(
            header::HeaderName::from_static("odata-version"),
            header::HeaderValue::from_static("4.0"),
        )
    }

    fn read(&self, path: &str, answer: &Answer) -> Result<Json, Failure> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let message = format!("{} is not JSON: {error}", self.what("GET", path));
            ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, message).into()
        })
    }

    pub(super) fn what(&self, method: &str, path: &str) -> String {
        json::plain(&format!("{method} {}{path}", self.channel.origin()))
    }

    /// Sends with the credentials; an answer that is no success is a failure.
    pub(super) async fn in_turn(
        &self,
        gate: &mut Gate,
        asking: Asking<'_>,
        call: &Call,
        ticket: Option<&Ticket>,
    ) -> Result<Answer, Failure> {
        for is_first in [true, false] {
            let (name, value) = self.pass(gate, asking).await?;
            let is_session = name != header::AUTHORIZATION;
            // As late as possible: a new owner may have come while this waited for its turn.
            if let Some(ticket) = ticket {
                ticket.check()?;
            }
            let answer = self.raw(gate, &call.clone().header(name, value)).await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let failure =
                Failure::refused(&self.what(call.method(), call.path()), &answer, self.clock.now());
            if answer.status.as_u16() != 401 {
                return Err(failure);
            }
            if !is_session {
                return Err(self.refuse(gate, asking));
            }
            // Nothing was done. That a session is gone can mean that a new owner of the machine has ended it.
            gate.sessions.remove(asking.reference);
            if asking.is_acting {
                gate.ended_during = asking.operation.map(str::to_owned);
            }
            if asking.is_acting || !is_first {
                return Err(self.ended());
            }
        }
        Err(self.ended())
    }

    pub(super) fn ended(&self) -> Failure {
        let message = format!(
            "the session at {} was ended by the controller or by another server",
            self.channel.origin()
        );
        ProviderError::new(ErrorClass::Transient, ErrorCode::Unauthorized, message).into()
    }

    /// Sends, unless the controller is left alone.
    pub(super) async fn raw(&self, gate: &mut Gate, call: &Call) -> Result<Answer, Failure> {
        if let Some(pause) = gate.breaker.pause(self.clock.monotonic()) {
            let message = format!(
                "{} is left alone for {} s after failures in a row",
                self.channel.origin(),
                pause.as_secs().max(1)
            );
            let error = ProviderError::new(ErrorClass::Transient, ErrorCode::Unreachable, message);
            return Err(error.retry_at(self.clock.now().plus(pause)).into());
        }
        let gap = Duration::from_secs(1) / self.settings.requests_per_s_max.max(1);
        let now = self.clock.monotonic();
        if let Some(wait) = gate.sent_at.and_then(|at| (at + gap).checked_sub(now))
            && !wait.is_zero()
        {
            self.clock.sleep(wait).await;
        }
        gate.sent_at = Some(self.clock.monotonic());
        let answered = self.channel.call(call).await;
        let is_trouble = match &answered {
            Ok(answer) => is_broken(answer.status),
            Err(error) => Failure::from(error.clone()).is_trouble(),
        };
        if !is_trouble {
            gate.breaker.worked();
        } else if gate.breaker.failed(self.clock.monotonic()) {
            tracing::warn!(bmc = %self.channel.origin(), "a controller is left alone after failures in a row");
        }
        answered.map_err(Failure::from)
    }
}

/// What the answer to a change leads to.
fn changed(answer: &Answer) -> Changed {
    if answer.status.as_u16() != 202 {
        return Changed::default();
    }
    let body: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    Changed { task: created(answer, &body) }
}

/// The path of what an answer says was made: in its header, or in its body.
pub(super) fn created(answer: &Answer, body: &Json) -> Option<String> {
    let named = answer.header("location").map(|at| match Origin::parse(at) {
        Ok((_, path)) => path,
        Err(_) => at,
    });
    let named = named.filter(|path| path.starts_with('/'));
    named.or_else(|| json::link(body, &["@odata.id"])).map(str::to_owned)
}
