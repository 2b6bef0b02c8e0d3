//! The receivers of notifications, as the configuration file names them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{self, HOUR, SECOND, YEARS};
use super::endpoint::Endpoint;
use super::span::Span;
use crate::credentials::check_name;
use crate::model::filter::{Filter, Subject};
use crate::notify::{Interest, ReceiverSettings, kinds};
use crate::text::escaped;

const TIMEOUT: Duration = Duration::from_secs(10);
const SOURCE: &str = "/bmdemo";
const NAME_CHARS_MAX: usize = 63;
const SOURCE_CHARS_MAX: usize = 200;
/// Most receivers: each reads the feed of changes.
const RECEIVERS_MAX: usize = 32;

/// One `[[notify]]`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Receiver {
    name: Option<String>,
    url: Option<String>,
    secret: Option<String>,
    ca_file: Option<PathBuf>,
    certificate_sha256: Option<String>,
    events: Option<Vec<String>>,
    machines: Option<String>,
    runs: Option<String>,
    source: Option<String>,
    timeout: Option<Span>,
    give_up_after: Option<Span>,
}

/// The path of a URL is a secret with some receivers.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Its settings.
    ///
    /// # Errors
    /// What makes no sense, naming the key.
    fn settings(&self) -> Result<ReceiverSettings, String> {
        let name = self.name.clone().ok_or_else(|| {
            "notify.name is missing: a receiver needs a name, under which the server remembers how far it has got".to_owned()
        })?;
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=NAME_CHARS_MAX).contains(&name.len()) || !name.chars().all(inside) {
            return Err(format!(
                "notify.name is {}: a name has 1 to {NAME_CHARS_MAX} lower-case letters, digits and '-'",
                escaped(&name)
            ));
        }
        let section = format!("notify.{name}");
        let key = |of: &str| format!("{section}.{of}");
        let endpoint = Endpoint {
            section: &section,
            url: self.url.as_deref(),
            ca_file: self.ca_file.as_deref(),
            certificate_sha256: self.certificate_sha256.as_deref(),
        };
        let (origin, path, trust) = endpoint.read()?;
        if let Some(secret) = &self.secret {
            check_name(secret).map_err(|why| format!("{} {why}", key("secret")))?;
        }
        let filter = |of: &str, text: &Option<String>, subject| {
            let text = text.as_deref().unwrap_or_default();
            Filter::parse(text, subject).map_err(|error| format!("{}: {error}", key(of)))
        };
        let patterns = self.events.clone().unwrap_or_default();
        if self.events.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!("{} is empty: nothing would ever be sent", key("events")));
        }
        let interest = Interest {
            kinds: kinds(&patterns).map_err(|why| format!("{}: {why}", key("events")))?,
            machines: filter("machines", &self.machines, Subject::Machine)?,
            runs: filter("runs", &self.runs, Subject::Run)?,
        };
        let source = self.source.clone().unwrap_or_else(|| SOURCE.to_owned());
        let is_plain = |c: char| c.is_ascii_graphic();
        if source.is_empty() || source.len() > SOURCE_CHARS_MAX || !source.chars().all(is_plain) {
            return Err(format!(
                "{} must be a URI of at most {SOURCE_CHARS_MAX} characters, as in \"//bmdemo.example.com/site-1\"",
                key("source")
            ));
        }
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        bounds::span(&key("timeout"), timeout, SECOND, HOUR)?;
        let give_up_after = self.give_up_after.map(|span| span.0);
        if let Some(most) = give_up_after {
            bounds::span(&key("give_up_after"), most, SECOND, YEARS)?;
        }
        let secret = self.secret.clone();
        Ok(ReceiverSettings {
            name,
            origin,
            path,
            secret,
            trust,
            timeout,
            give_up_after,
            interest,
            source,
        })
    }
}

/// The settings of all receivers.
///
/// # Errors
/// What makes no sense, naming the key.
pub(in crate::server) fn receivers(named: &[Receiver]) -> Result<Vec<ReceiverSettings>, String> {
    if named.len() > RECEIVERS_MAX {
        return Err(format!("notify has {} receivers; give at most {RECEIVERS_MAX}", named.len()));
    }
    let all: Vec<ReceiverSettings> =
        named.iter().map(Receiver::settings).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    match all.iter().find(|receiver| !names.insert(receiver.name.as_str())) {
        Some(again) => Err(format!(
            "notify.name {:?} is given twice: each receiver needs a name of its own",
            again.name
        )),
        None => Ok(all),
    }
}
