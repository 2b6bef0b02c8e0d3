//! Settings of a class's controllers.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{HOUR, SECOND, number, span};
use super::span::Span;
use crate::outbound::{Origin, Trust};
use crate::provider::redfish::RedfishSettings;

/// Most requests a second to one controller.
const REQUESTS_PER_S_MAX: u64 = 1_000;

/// As the file has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redfish {
    ca_file: Option<PathBuf>,
    insecure: Option<bool>,
    sessions: Option<bool>,
    adapters: Option<bool>,
    image: Option<String>,
    settle: Option<Span>,
    power: Option<Span>,
    graceful: Option<Span>,
    poll: Option<Span>,
    request: Option<Span>,
    requests_per_s_max: Option<u32>,
}

impl Redfish {
    /// With the defaults.
    pub(super) fn settings(&self) -> RedfishSettings {
        let default = RedfishSettings::default();
        let span = |span: Option<Span>, default: Duration| span.map_or(default, |span| span.0);
        RedfishSettings {
            trust: self.ca_file.clone().map_or(default.trust, Trust::Authorities),
            is_insecure: self.insecure.unwrap_or(default.is_insecure),
            uses_sessions: self.sessions.unwrap_or(default.uses_sessions),
            reads_adapters: self.adapters.unwrap_or(default.reads_adapters),
            image: self.image.clone().or(default.image),
            settle: span(self.settle, default.settle),
            power: span(self.power, default.power),
            graceful: span(self.graceful, default.graceful),
            poll: span(self.poll, default.poll),
            request: span(self.request, default.request),
            requests_per_s_max: self.requests_per_s_max.unwrap_or(default.requests_per_s_max),
        }
    }
}

/// Refuses what makes no sense; `class` is the key of the class.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn check(class: &str, settings: &RedfishSettings) -> Result<(), String> {
    let key = |name: &str| format!("{class}.redfish.{name}");
    if let Trust::Authorities(_) = &settings.trust {
        if settings.is_insecure {
            return Err(format!(
                "{} and {} contradict each other: with insecure no certificate is checked; remove one of them",
                key("ca_file"),
                key("insecure")
            ));
        }
        settings.trust.check().map_err(|error| format!("{}: {error}", key("ca_file")))?;
    }
    if let Some(image) = &settings.image {
        Origin::parse(image).map_err(|error| format!("{} {error}", key("image")))?;
    }
    let ms = Duration::from_millis(1);
    span(&key("settle"), settings.settle, Duration::ZERO, HOUR)?;
    span(&key("power"), settings.power, SECOND, HOUR)?;
    span(&key("graceful"), settings.graceful, SECOND, HOUR)?;
    span(&key("poll"), settings.poll, ms * 10, SECOND * 60)?;
    span(&key("request"), settings.request, SECOND, HOUR)?;
    let rate = u64::from(settings.requests_per_s_max);
    number(&key("requests_per_s_max"), rate, REQUESTS_PER_S_MAX, "no request would ever be sent")
}
