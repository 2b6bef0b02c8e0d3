//! Power: what is asked for, and what is then seen. An answer is never taken for the effect.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::failure::Failure;
use super::json;
use super::system::{Remote, System};
use super::ticket::{Asking, Ticket};
use crate::lifecycle::step::ErrorClass;
use crate::model::LogStream;
use crate::provider::{ErrorCode, Logs, ProviderError, ProviderErrorKind};

/// What a wait for a power state ended with.
#[derive(Debug)]
pub(super) enum Waited {
    /// It came and stayed.
    Held,
    /// It did not.
    Missed {
        /// What was seen last.
        seen: String,
    },
}

/// A request for a reset that may have had an effect.
#[derive(Debug)]
pub(super) struct Sent {
    /// What spoke against it: a refusal, or a lost answer.
    trouble: Option<ProviderError>,
    /// Its task.
    task: Option<String>,
}

/// Whether an error ends a wait: another look would give it again.
fn is_final(error: &ProviderError) -> bool {
    let is_transient = error.kind == ProviderErrorKind::Class(ErrorClass::Transient);
    !is_transient || error.code == ErrorCode::Unauthorized
}

pub(super) fn say(logs: &Logs, text: &str) {
    logs.line(LogStream::Stdout, text);
}

impl Remote {
    /// Waits until the power state is `wanted` and has stayed so for `settle`. Looks that fail are repeated.
    ///
    /// # Errors
    /// Those that no other look would change.
    pub(super) async fn until_power(
        &self,
        asking: Asking<'_>,
        wanted: &str,
        within: Duration,
        settle: Duration,
        logs: &Logs,
    ) -> Result<Waited, ProviderError> {
        let clock = &self.bmc.clock;
        let until = clock.monotonic() + within;
        let mut since: Option<Duration> = None;
        loop {
            let seen = match self.system(asking).await {
                Ok(system) => {
                    if system.power() == wanted {
                        let began = *since.get_or_insert_with(|| clock.monotonic());
                        if clock.monotonic().saturating_sub(began) >= settle {
                            return Ok(Waited::Held);
                        }
                    } else if since.take().is_some() {
                        let seen = system.power_text();
                        say(logs, &format!("the power was {wanted} and is not any more: {seen}"));
                    }
                    system.power_text()
                }
                Err(failure) if is_final(&failure.error) => return Err(failure.error),
                Err(failure) => format!("no answer ({})", failure.error),
            };
            let now = clock.monotonic();
            // A state that came in time may settle later; one that comes and goes ends, too.
            if now >= until && (since.is_none() || now >= until + settle * 2) {
                return Ok(Waited::Missed { seen });
            }
            clock.sleep(self.bmc.settings.poll).await;
        }
    }

    /// Asks for the first of these resets that the machine knows.
    ///
    /// # Errors
    /// If nothing was sent, or the machine knows none of them.
    pub(super) async fn reset(
        &self,
        ticket: &Ticket,
        system: &System,
        kinds: &[&str],
        logs: &Logs,
    ) -> Result<Sent, ProviderError> {
        let info = match system.reset_info() {
            Some(path) => self.bmc.get(ticket.asking(), path).await.unwrap_or_default(),
            None => serde_json::Value::Null,
        };
        let mut known = system.resets();
        for parameter in
            json::at(&info, &["Parameters"]).and_then(|it| it.as_array()).into_iter().flatten()
        {
            if json::text(parameter, &["Name"]) == "ResetType" {
                known.extend(json::texts(parameter, &["AllowableValues"]));
            }
        }
        let fits = |kind: &&&str| known.is_empty() || known.contains(*kind);
        let Some(kind) = kinds.iter().find(fits) else {
            return Err(ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unsupported,
                format!("the machine knows no reset {}", kinds.join(" or ")),
            )
            .seen(kinds.join(" or "), known.join(", ")));
        };
        say(logs, &format!("reset {kind} of {}", system.path));
        let path = system.reset_path();
        let sent =
            self.bmc.change(ticket, Method::POST, &path, &json!({ "ResetType": kind })).await;
        match sent {
            Ok(changed) => Ok(Sent { trouble: None, task: changed.task }),
            Err(failure) => self.unsure(failure, logs),
        }
    }

    /// A refusal can come although it is so already, and an answer can be lost after the effect: the state decides.
    fn unsure(&self, failure: Failure, logs: &Logs) -> Result<Sent, ProviderError> {
        let is_refused = failure.is(&[400, 409]);
        if !is_refused && (is_final(&failure.error) || !failure.may_be_done) {
            return Err(failure.error);
        }
        say(logs, &format!("{}; the state decides", failure.error));
        Ok(Sent { trouble: Some(failure.error), task: None })
    }

    /// The error of a reset after which the state did not come.
    pub(super) async fn missed(
        &self,
        asking: Asking<'_>,
        sent: Sent,
        expected: &str,
        seen: &str,
    ) -> ProviderError {
        let task = match &sent.task {
            Some(task) => self.bmc.get(asking, task).await.ok().map(|json| {
                let messages = json::at(&json, &["Messages"]).and_then(|it| it.as_array());
                let texts = messages.into_iter().flatten().map(|it| json::text(it, &["Message"]));
                let state = json::text(&json, &["TaskState"]);
                json::plain(&format!(
                    "; its task is {state} {}",
                    texts.collect::<Vec<_>>().join(" ")
                ))
            }),
            None => None,
        };
        let why = match sent.trouble {
            Some(error) => format!("({error})"),
            None => "although the controller accepted the request".to_owned(),
        };
        let message =
            format!("the machine did not come to {expected} {why}{}", task.unwrap_or_default());
        ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, message)
            .seen(expected, seen.to_owned())
    }
}
