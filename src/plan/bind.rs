//! Binds the parameters of a run: given text becomes typed values.

use std::collections::BTreeMap;

use super::duration::{self, DurationError};
use super::limits::{DURATION_MS_MAX, LINE_BYTES_MAX};
use super::names::ValueKind;
use super::nodes::shown;
use super::schema::{Param, Plan};
use super::suggest::nearest;
use super::value::Value;
use crate::text::hidden_in;

/// Why a run's parameters are refused; one error per parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The plan has no such parameter.
    #[error("{plan} has no parameter `{name}`{}", hint(suggestion, known))]
    Unknown {
        /// Plan id.
        plan: String,
        /// Name as given.
        name: String,
        /// The parameter with the closest name.
        suggestion: Option<String>,
        /// All parameters of the plan.
        known: Vec<String>,
    },
    /// A parameter without a default was not given.
    #[error("parameter `{name}` ({kind}) must be given{}", described(description))]
    Missing {
        /// Its name.
        name: String,
        /// Its kind.
        kind: ValueKind,
        /// What it is for; may be empty.
        description: String,
    },
    /// The text is not of the parameter's kind.
    #[error("parameter `{name}` must be {wanted}, not `{given}`")]
    BadValue {
        /// Its name.
        name: String,
        /// What would be valid.
        wanted: String,
        /// Text as given, shortened.
        given: String,
    },
    /// The value is not one of those accepted.
    #[error("parameter `{name}` cannot be `{given}`; one of: {}", accepted.join(", "))]
    NotOneOf {
        /// Its name.
        name: String,
        /// Text as given, shortened.
        given: String,
        /// What is accepted.
        accepted: Vec<String>,
    },
}

impl ParamError {
    /// The parameter concerned.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. }
            | Self::Missing { name, .. }
            | Self::BadValue { name, .. }
            | Self::NotOneOf { name, .. } => name,
        }
    }
}

fn hint(suggestion: &Option<String>, known: &[String]) -> String {
    match suggestion {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None if known.is_empty() => "; it takes none".to_owned(),
        None => format!("; it has: {}", known.join(", ")),
    }
}

fn described(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!(": {description}") }
}

impl Plan {
    /// Types the parameters of a run and fills in defaults: the result has every parameter of the plan and nothing else.
    ///
    /// # Errors
    /// Every parameter that is unknown, missing, of the wrong kind or not among the accepted values, sorted by name.
    pub fn bind(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Value>, Vec<ParamError>> {
        let mut errors: Vec<ParamError> = given
            .keys()
            .filter(|name| self.param(name).is_none())
            .map(|name| {
                let suggestion = nearest(name, self.params.iter().map(|param| param.name.as_ref()))
                    .map(str::to_owned);
                let known = self.params.iter().map(|param| param.name.to_string()).collect();
                ParamError::Unknown {
                    plan: self.id.to_string(),
                    name: shown(name),
                    suggestion,
                    known,
                }
            })
            .collect();
        let mut bound = BTreeMap::new();
        for param in self.params.iter() {
            match value(param, given.get(param.name.as_ref())) {
                Ok(value) => {
                    bound.insert(param.name.to_string(), value);
                }
                Err(error) => errors.push(error),
            }
        }
        errors.sort_by(|a, b| a.name().cmp(b.name()));
        if errors.is_empty() { Ok(bound) } else { Err(errors) }
    }
}

fn value(param: &Param, given: Option<&String>) -> Result<Value, ParamError> {
    let name = || param.name.to_string();
    let Some(text) = given else {
        return param.default.clone().ok_or_else(|| ParamError::Missing {
            name: name(),
            kind: param.kind,
            description: param.description.to_string(),
        });
    };
    let bad = |wanted: String| ParamError::BadValue { name: name(), wanted, given: shown(text) };
    let value = match param.kind {
        ValueKind::String if text.len() > LINE_BYTES_MAX || text.contains(['\n', '\r']) => {
            return Err(bad(format!("one line of at most {LINE_BYTES_MAX} bytes")));
        }
        ValueKind::String if hidden_in(text).is_some() => {
            return Err(bad("text without control or invisible characters".to_owned()));
        }
        ValueKind::String => Value::Str(text.clone().into()),
        ValueKind::Integer => {
            Value::Int(text.parse().map_err(|_| bad("a whole number".to_owned()))?)
        }
        ValueKind::Boolean => {
            Value::Bool(text.parse().map_err(|_| bad("true or false".to_owned()))?)
        }
        ValueKind::Duration => {
            Value::DurationMs(duration::parse(text).map_err(|error| bad(duration_hint(&error)))?)
        }
    };
    if param.one_of.is_empty() || param.one_of.contains(&value) {
        return Ok(value);
    }
    let accepted = param.one_of.iter().map(Value::to_string).collect();
    Err(ParamError::NotOneOf { name: name(), given: shown(text), accepted })
}

fn duration_hint(error: &DurationError) -> String {
    match error {
        DurationError::TooLong => {
            format!("a duration of at most {}", duration::format(DURATION_MS_MAX))
        }
        DurationError::Empty
        | DurationError::NoNumber
        | DurationError::NoUnit
        | DurationError::UnknownUnit(_)
        | DurationError::Order => "a duration such as 30s, 5m or 1h30m".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{SourceFile, compile};

    const PLAN: &str = r#"
        id = "plan/all-kinds"
        allowed_phases = ["READY"]
        params.image = { kind = "string", description = "What to install." }
        params.method = { kind = "string", one_of = ["quick", "secure"], default = "quick" }
        params.wipe = { kind = "boolean", default = false }
        params.grace = { kind = "duration", default = "1m" }
        params.port = { kind = "integer", default = -1 }
        [[steps]]
        name = "repave"
        action = "repave"
        args = { image = { param = "image" } }
        on_unknown = "hold"
        when = { param = { wipe = true, grace = "1m", port = -1, method = "quick" } }
    "#;

    fn bind(given: &[(&str, &str)]) -> Result<BTreeMap<String, Value>, String> {
        let plan =
            compile(&[SourceFile { name: "x.toml", bytes: PLAN.as_bytes() }]).unwrap().remove(0);
        let given = given.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        plan.bind(&given)
            .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect())
    }

    #[test]
    fn types_what_is_given_and_fills_in_the_rest() {
        let bound = bind(&[("image", "debian-13"), ("wipe", "true"), ("grace", "90s")]).unwrap();
        let texts: Vec<String> =
            bound.iter().map(|(name, value)| format!("{name}: {} {value}", value.kind())).collect();
        assert_eq!(
            texts,
            [
                "grace: duration 1m30s",
                "image: string debian-13",
                "method: string quick",
                "port: integer -1",
                "wipe: boolean true"
            ]
        );
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let long = "x".repeat(2_000);
        let errors = bind(&[
            ("method", "slow"),
            ("wipe", "yes"),
            ("grace", "5"),
            ("port", "99999999999999999999"),
            ("imgae", "debian-13"),
            (&long, "1"),
        ]);
        crate::assert_golden!("plan_bind_errors", errors.unwrap_err());
    }

    #[test]
    fn values_are_bounded() {
        assert!(bind(&[("image", &"x".repeat(1_025))]).unwrap_err().contains("at most 1024 bytes"));
        assert!(bind(&[("image", "a\u{7}b")]).unwrap_err().contains(r"`a\u{7}b`"));
        assert!(bind(&[("image", "x"), ("grace", "31d")]).unwrap_err().contains("at most 30d"));
    }
}
