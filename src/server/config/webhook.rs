//! The receiver of a class of machines, as the configuration file names it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{self, HOUR, SECOND};
use super::endpoint::Endpoint;
use super::span::Span;
use crate::credentials::check_name;
use crate::plan::Capability;
use crate::provider::webhook::WebhookSettings;

const TIMEOUT: Duration = Duration::from_secs(30);
const PARALLEL_DEFAULT: usize = 16;
const PARALLEL_MAX: u64 = 1_000;

/// `[machine_classes.NAME.webhook]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebhookClass {
    url: Option<String>,
    secret: Option<String>,
    ca_file: Option<PathBuf>,
    certificate_sha256: Option<String>,
    timeout: Option<Span>,
    max_parallel: Option<usize>,
    observe: Option<bool>,
    pub(in crate::server) actions: Option<Vec<String>>,
}

impl WebhookClass {
    /// The settings of the driver, for the class of this name.
    ///
    /// # Errors
    /// What makes no sense, naming the key.
    pub(in crate::server) fn settings(&self, name: &str) -> Result<WebhookSettings, String> {
        let section = format!("machine_classes.{name}.webhook");
        let key = |of: &str| format!("{section}.{of}");
        let endpoint = Endpoint {
            section: &section,
            url: self.url.as_deref(),
            ca_file: self.ca_file.as_deref(),
            certificate_sha256: self.certificate_sha256.as_deref(),
        };
        let (origin, path, trust) = endpoint.read()?;
        let secret = self.secret.clone().ok_or_else(|| {
            format!(
                "{} is missing: name the credential that messages are signed with",
                key("secret")
            )
        })?;
        check_name(&secret).map_err(|why| format!("{} {why}", key("secret")))?;
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        bounds::span(&key("timeout"), timeout, SECOND, HOUR)?;
        let parallel_max = self.max_parallel.unwrap_or(PARALLEL_DEFAULT);
        let none = "no message would ever be sent";
        bounds::number(&key("max_parallel"), parallel_max as u64, PARALLEL_MAX, none)?;
        Ok(WebhookSettings {
            class: name.to_owned(),
            origin,
            path,
            secret,
            trust,
            timeout,
            parallel_max,
            observe: self.observe.unwrap_or(false),
            actions: self.actions.iter().flatten().cloned().collect(),
        })
    }

    /// Refuses what makes no sense; `needed` is what the class names the driver for.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub(super) fn check(&self, name: &str, needed: &[Capability]) -> Result<(), String> {
        self.settings(name)?;
        let actions = self.actions.as_deref().unwrap_or_default();
        match (needed.contains(&Capability::Custom), actions.is_empty()) {
            (true, true) => Err(format!(
                "machine_classes.{name}.custom is \"webhook\", and its receiver performs no action; name them in machine_classes.{name}.webhook.actions"
            )),
            (false, false) => Err(format!(
                "machine_classes.{name}.webhook.actions has no effect: add custom = \"webhook\" to the class"
            )),
            (true, false) | (false, true) if needed.is_empty() => Err(format!(
                "machine_classes.{name}.webhook has no effect: no capability of the class is by webhook, as with notify = \"webhook\""
            )),
            (true, false) | (false, true) => Ok(()),
        }
    }
}
