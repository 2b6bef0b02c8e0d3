//! Validation of requests: every wrong field is named, with how to fix it.

mod network;

use std::collections::BTreeMap;

use super::mask::{Masked, ReadMask};
use super::status::ApiError;
use crate::credentials;
use crate::executor::error::{EngineError, FieldViolation};
use crate::ids::{MachineId, Revision, RunId};
use crate::outbound::Fingerprint;
use crate::plan::suggest::nearest;
use crate::store::Order;
use crate::text::hidden_in;

use self::network::{wrong_bmc, wrong_mac, wrong_ssh, wrong_system_id};

/// Longest text of a field of a spec, in characters.
pub const SPEC_TEXT_CHARS_MAX: usize = 256;
/// Most labels of a machine.
pub const LABELS_MAX: usize = 64;
/// Longest name of a label, without its prefix, in characters.
pub const LABEL_NAME_CHARS_MAX: usize = 63;
/// Longest prefix of a label, in characters.
pub const LABEL_PREFIX_CHARS_MAX: usize = 253;
/// Longest value of a label, in characters.
pub const LABEL_VALUE_CHARS_MAX: usize = 256;
/// Most MAC addresses of a machine.
pub const MACS_MAX: usize = 32;
/// Longest request id, in characters.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 1024;
/// Most parameters of a run.
pub const PARAMETERS_MAX: usize = 32;
/// Longest value of a parameter, in bytes.
pub const PARAMETER_BYTES_MAX: usize = 4096;
/// Longest name of a step, a plan, a provider or a parameter, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// Default number of objects per page.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// Most objects per page; a larger request gets this many and is not refused.
pub const PAGE_SIZE_MAX: usize = 1000;

/// Collects the errors of a request.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<FieldViolation>);

impl Checks {
    pub(crate) fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }

    /// The values, if all checks passed. A check returns `None` only after it has refused something.
    pub(crate) fn done<T>(self, values: Option<T>) -> Result<T, ApiError> {
        match values {
            Some(values) if self.0.is_empty() => Ok(values),
            None if self.0.is_empty() => {
                Err(EngineError::Internal("a check failed without saying why".to_owned()).into())
            }
            Some(_) | None => Err(EngineError::Invalid(self.0).into()),
        }
    }

    pub(crate) fn machine_id(&mut self, field: &str, text: &str) -> Option<MachineId> {
        MachineId::parse(text).map_err(|error| self.refuse(field, error.to_string())).ok()
    }

    pub(crate) fn run_id(&mut self, field: &str, text: &str) -> Option<RunId> {
        RunId::parse(text).map_err(|error| self.refuse(field, error.to_string())).ok()
    }

    pub(crate) fn request_id(&mut self, text: &str) {
        if text.chars().count() > REQUEST_ID_CHARS_MAX {
            self.refuse(
                "request_id",
                format!("must be at most {REQUEST_ID_CHARS_MAX} characters long: use a UUID"),
            );
        } else if !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            self.refuse("request_id", "must consist of printable ASCII characters: use a UUID");
        }
    }

    /// A line of free text.
    pub(crate) fn line(&mut self, field: &str, text: &str, chars_max: usize) {
        if text.chars().count() > chars_max {
            self.refuse(field, format!("must be at most {chars_max} characters long"));
        } else if let Some(hidden) = hidden_in(text) {
            self.hidden(field, hidden);
        }
    }

    fn hidden(&mut self, field: &str, hidden: char) {
        let code = u32::from(hidden);
        self.refuse(
            field,
            format!(
                "must not contain the character U+{code:04X}, which is invisible: leave it out"
            ),
        );
    }

    /// How many errors there are so far.
    fn refused(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn reason(&mut self, text: &str) {
        if text.chars().count() > REASON_CHARS_MAX {
            self.refuse("reason", format!("must be at most {REASON_CHARS_MAX} characters long"));
        } else if let Some(hidden) =
            text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t')
        {
            self.hidden("reason", hidden);
        }
    }

    pub(crate) fn required_reason(&mut self, text: &str) {
        if text.trim().is_empty() {
            self.refuse("reason", "must be given: it is kept in the history");
        } else {
            self.reason(text);
        }
    }

    /// A mandatory name: of a provider, a step, a plan.
    pub(crate) fn name(&mut self, field: &str, text: &str) {
        if text.is_empty() {
            self.refuse(field, "must not be empty");
        } else {
            self.line(field, text, NAME_CHARS_MAX);
        }
    }

    /// A provider of this server.
    pub(crate) fn provider<'a>(
        &mut self,
        field: &str,
        text: &str,
        known: impl Iterator<Item = &'a String>,
    ) {
        let refused = self.refused();
        self.name(field, text);
        let known: Vec<&str> = known.map(String::as_str).collect();
        if self.refused() > refused || known.contains(&text) {
            return;
        }
        let meant = match nearest(text, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("it has {}", known.join(", ")),
        };
        self.refuse(field, format!("this server has no provider {text:?}: {meant}"));
    }

    pub(crate) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        if labels.len() > LABELS_MAX {
            self.refuse(
                field,
                format!("must have at most {LABELS_MAX} entries, not {}", labels.len()),
            );
            return;
        }
        for (key, value) in labels {
            self.label(&format!("{field}.{key}"), key, Some(value));
        }
    }

    pub(crate) fn label(&mut self, field: &str, key: &str, value: Option<&str>) {
        if let Some(wrong) = wrong_label_key(key) {
            self.refuse(field, wrong);
        } else if let Some(value) = value {
            self.line(field, value, LABEL_VALUE_CHARS_MAX);
        }
    }

    /// MAC addresses, in lower case.
    pub(crate) fn macs(&mut self, field: &str, macs: &[String]) -> Vec<String> {
        if macs.len() > MACS_MAX {
            self.refuse(
                field,
                format!("must have at most {MACS_MAX} elements, not {}", macs.len()),
            );
            return Vec::new();
        }
        let mut normal = Vec::with_capacity(macs.len());
        for (place, mac) in macs.iter().enumerate() {
            let lower = mac.to_ascii_lowercase();
            let wrong = wrong_mac(&lower).map(str::to_owned);
            let twice = || normal.contains(&lower).then(|| format!("{lower} is given twice"));
            match wrong.or_else(twice) {
                Some(wrong) => self.refuse(format!("{field}[{place}]"), wrong),
                None => normal.push(lower),
            }
        }
        normal
    }

    /// The URL of a baseboard management controller; empty if there is none.
    pub(crate) fn bmc_endpoint(&mut self, field: &str, text: &str) {
        self.endpoint(field, text, wrong_bmc);
    }

    /// The id of a system at its controller; empty if there is none.
    pub(crate) fn bmc_system_id(&mut self, field: &str, text: &str) {
        self.endpoint(field, text, wrong_system_id);
    }

    /// The name of a controller's credentials; empty if there is none.
    pub(crate) fn bmc_credentials(&mut self, field: &str, text: &str) {
        // Credentials instead of their name are not repeated in the answer.
        if !text.is_empty()
            && let Err(wrong) = credentials::check_name(text)
        {
            self.refuse(field, wrong);
        }
    }

    /// The SHA-256 of a controller's certificate, as it is stored; empty if it is not pinned.
    pub(crate) fn bmc_certificate(&mut self, field: &str, text: &str) -> String {
        match Fingerprint::parse(text) {
            Some(fingerprint) => fingerprint.to_string(),
            None if text.is_empty() => String::new(),
            None => {
                let wanted = "must be the SHA-256 of the certificate: 64 hexadecimal digits, with or without colons";
                self.refuse(field, wanted);
                String::new()
            }
        }
    }

    /// The address for remote commands; empty if there is none.
    pub(crate) fn ssh_endpoint(&mut self, field: &str, text: &str) {
        self.endpoint(field, text, wrong_ssh);
    }

    fn endpoint(&mut self, field: &str, text: &str, wrong: fn(&str) -> Option<String>) {
        let refused = self.refused();
        self.line(field, text, SPEC_TEXT_CHARS_MAX);
        if !text.is_empty()
            && self.refused() == refused
            && let Some(wrong) = wrong(text)
        {
            self.refuse(field, wrong);
        }
    }

    pub(crate) fn parameters(&mut self, parameters: &BTreeMap<String, String>) {
        if parameters.len() > PARAMETERS_MAX {
            let given = parameters.len();
            self.refuse(
                "parameters",
                format!("must have at most {PARAMETERS_MAX} entries, not {given}"),
            );
            return;
        }
        for (name, value) in parameters {
            let field = format!("parameters.{name}");
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
                let max = NAME_CHARS_MAX;
                self.refuse("parameters", format!("names must have 1 to {max} characters"));
            } else if hidden_in(name).is_some() {
                self.refuse(
                    "parameters",
                    format!("the name {name:?} has an invisible character: leave it out"),
                );
            } else if value.len() > PARAMETER_BYTES_MAX {
                self.refuse(field, format!("must be at most {PARAMETER_BYTES_MAX} bytes long"));
            }
        }
    }

    /// A mandatory enum value.
    pub(crate) fn given<E: Named>(&mut self, field: &str, number: i32) -> Option<E> {
        match self.optional(field, number) {
            Some(Some(value)) => Some(value),
            Some(None) => {
                self.refuse(field, format!("must be given: one of {}", names::<E>()));
                None
            }
            None => None,
        }
    }

    /// An enum value that may be unspecified; the outer `None` means that it was refused.
    #[expect(
        clippy::option_option,
        reason = "refused, not given, given: the caller distinguishes them"
    )]
    pub(crate) fn optional<E: Named>(&mut self, field: &str, number: i32) -> Option<Option<E>> {
        match E::try_from(number) {
            Ok(value) if number == 0 => {
                let _ = value;
                Some(None)
            }
            Ok(value) => Some(Some(value)),
            Err(_) => {
                let known = names::<E>();
                self.refuse(field, format!("{number} is not a value of the enum: one of {known}"));
                None
            }
        }
    }

    pub(crate) fn page_size(&mut self, size: i32) -> usize {
        match usize::try_from(size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => {
                self.refuse("page_size", "must not be negative: 0 takes the default, 50");
                PAGE_SIZE_DEFAULT
            }
        }
    }

    /// The order of a list, and whether it is descending.
    pub(crate) fn order(&mut self, order_by: &str) -> (Order, bool) {
        let words: Vec<_> = order_by.split_whitespace().collect();
        let (field, descending) = match words[..] {
            [] => ("created_at", false),
            [field] | [field, "asc"] => (field, false),
            [field, "desc"] => (field, true),
            _ => ("", false),
        };
        let order = match field {
            "created_at" => Order::Created,
            "id" => Order::Id,
            _ => {
                let wanted = "must be id, id desc, created_at, created_at desc, or empty";
                self.refuse("order_by", wanted);
                Order::Created
            }
        };
        (order, descending)
    }

    /// The fields that the client wants.
    pub(crate) fn read_mask<M: Masked>(
        &mut self,
        mask: Option<&prost_types::FieldMask>,
    ) -> ReadMask {
        ReadMask::parse::<M>(mask).unwrap_or_else(|wrong| {
            self.refuse("read_mask", wrong);
            ReadMask::default()
        })
    }

    /// The revision in an etag; `None` if there is no etag.
    pub(crate) fn etag(&mut self, field: &str, etag: &str) -> Option<Revision> {
        if etag.is_empty() {
            return None;
        }
        let number = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let revision = number.and_then(|number| number.parse().ok()).map(Revision);
        if revision.is_none() {
            self.refuse(field, "must be an etag as the server gave it, quotes included, or empty");
        }
        revision
    }
}

/// A protobuf enum whose values have names.
pub(crate) trait Named: TryFrom<i32> + Sized {
    /// Every name except that of zero.
    fn names() -> Vec<&'static str>;
}

macro_rules! named {
    ($($name:ident),*) => {
        $(impl Named for crate::pb::$name {
            fn names() -> Vec<&'static str> {
                let values = (1..64).map_while(|number| Self::try_from(number).ok());
                values.map(|value| value.as_str_name()).collect()
            }
        })*
    };
}

named!(Phase, RunType, StepResolution);

fn names<E: Named>() -> String {
    E::names().join(", ")
}

/// What is wrong with a label key.
pub(crate) fn wrong_label_key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LABEL_NAME_CHARS_MAX {
        let max = LABEL_NAME_CHARS_MAX;
        return Some(format!("the name of a label must have 1 to {max} characters"));
    }
    if !edge(name.chars().next()) || !edge(name.chars().last()) || !name.chars().all(inner) {
        return Some(
            "the name of a label must consist of letters, digits and, inside, '-', '_' or '.'"
                .to_owned(),
        );
    }
    let prefix = prefix?;
    let part = |part: &str| {
        edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let is_domain = prefix.len() <= LABEL_PREFIX_CHARS_MAX && prefix.split('.').all(part);
    (!is_domain)
        .then(|| "the prefix of a label must be a domain, such as example.com/rack".to_owned())
}

#[cfg(test)]
mod tests;
