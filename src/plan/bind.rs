//! Binds the parameters of a run: given text becomes typed values.

use std::collections::BTreeMap;

use super::action::ActionSpec;
use super::duration::{self, DurationError};
use super::form::Form;
use super::limits::{DURATION_MS_MAX, LINE_BYTES_MAX};
use super::names::ValueKind;
use super::nodes::shown;
use super::schema::{Arg, Param, Plan};
use super::suggest::nearest;
use super::template::{Piece, fill, pieces};
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
    /// The text is empty, and an argument that it becomes must not be.
    #[error("parameter `{name}` must not be empty: it is the argument `{argument}` of `{action}`")]
    Empty {
        /// Its name.
        name: String,
        /// The argument.
        argument: String,
        /// The action that needs it.
        action: String,
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
    /// What is wrong, without the name of the parameter.
    pub fn what(&self) -> String {
        let text = self.to_string();
        let named = format!("parameter `{}` ", self.name());
        text.strip_prefix(&named).map_or(text.clone(), ToOwned::to_owned)
    }

    /// The parameter concerned.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. }
            | Self::Missing { name, .. }
            | Self::Empty { name, .. }
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
        errors.extend(self.misshapen(&bound));
        errors.sort_by(|a, b| a.name().cmp(b.name()));
        if errors.is_empty() { Ok(bound) } else { Err(errors) }
    }
}

impl Plan {
    /// The parameters whose values do not look as the arguments need it that they become.
    fn misshapen(&self, bound: &BTreeMap<String, Value>) -> Vec<ParamError> {
        let mut errors: Vec<ParamError> = Vec::new();
        for action in self.steps.iter().map(|step| &step.action) {
            let Some(spec) = ActionSpec::find(&action.name) else { continue };
            for (name, arg) in action.args.iter() {
                let form = spec.arg(name).map_or(Form::Any, |arg| arg.form);
                let (param, text) = match arg {
                    Arg::Literal(_) => continue,
                    Arg::Param(param) => {
                        let value = bound.get(param.as_ref()).and_then(Value::as_str);
                        (param.to_string(), value.unwrap_or_default().to_owned())
                    }
                    Arg::Text(text) => (first_param(text), fill(text, bound)),
                };
                let is_known = errors.iter().any(|error| error.name() == param);
                if !bound.contains_key(&param) || is_known || form.accepts(&text) {
                    continue;
                }
                errors.push(if text.is_empty() {
                    let (argument, action) = (name.to_string(), action.name.to_string());
                    ParamError::Empty { name: param, argument, action }
                } else {
                    let (wanted, given) = (form.wanted().to_owned(), shown(&text));
                    ParamError::BadValue { name: param, wanted, given }
                });
            }
        }
        errors
    }
}

/// The first parameter in a text.
fn first_param(text: &str) -> String {
    let named = pieces(text).unwrap_or_default().into_iter().find_map(|piece| match piece {
        Piece::Param(name) => Some(name.to_owned()),
        Piece::Literal(_) => None,
    });
    named.unwrap_or_default()
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

    #[test]
    fn what_an_action_needs_is_not_empty() {
        let plan = r#"
            id = "plan/tell"
            allowed_phases = ["READY"]
            params.channel = { kind = "string", default = "ops" }
            params.site = { kind = "string", default = "a" }
            [[steps]]
            name = "tell"
            action = "notify"
            args = { channel = { param = "channel" }, message = "" }
            [[steps]]
            name = "reach"
            action = "verify-connectivity"
            args = { target = "{site}" }
        "#;
        let compiled =
            |text: &str| compile(&[SourceFile { name: "plan.toml", bytes: text.as_bytes() }]);
        let own = compiled(plan).unwrap().remove(0);
        let said = |plan: &Plan, given: &[(&str, &str)]| -> String {
            let given = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            let errors = plan.bind(&given.collect()).err().unwrap_or_default();
            errors.iter().map(|error| format!("{error}\n")).collect()
        };
        assert_eq!(said(&own, &[]), "");
        assert_eq!(
            said(&own, &[("channel", ""), ("site", "")]),
            "parameter `channel` must not be empty: it is the argument `channel` of `notify`\n\
             parameter `site` must not be empty: it is the argument `target` of `verify-connectivity`\n"
        );
        assert_eq!(
            bind(&[("image", "")]).unwrap_err(),
            "parameter `image` must not be empty: it is the argument `image` of `repave`\n"
        );
        for (good, wrong) in [
            ("{ param = \"channel\" }", "\"\""),
            ("kind = \"string\", default = \"ops\"", "kind = \"string\", default = \"\""),
        ] {
            let found = compiled(&plan.replace(good, wrong)).unwrap_err();
            assert!(found.iter().any(|one| one.code == "plan::missing-argument"), "{found:?}");
        }
    }

    #[test]
    fn what_is_installed_where_is_checked_before_a_machine_is_touched() {
        const PLAN: &str = r#"
            id = "plan/install-here"
            allowed_phases = ["READY"]
            params.disk = { kind = "string", default = "" }
            params.rack = { kind = "string" }
            params.key = { kind = "string", default = "" }
            [[steps]]
            name = "repave"
            action = "repave"
            on_unknown = "verify"
            args = { image = "a", disk = { param = "disk" }, hostname = "{rack}-1", ssh-key = { param = "key" } }
        "#;
        let compiled =
            |text: &str| compile(&[SourceFile { name: "plan.toml", bytes: text.as_bytes() }]);
        let plan = compiled(PLAN).unwrap().remove(0);
        let bind = |given: &[(&str, &str)]| {
            let given = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            plan.bind(&given.collect()).map_err(|errors| errors.len())
        };
        let bound = bind(&[("rack", "r1"), ("disk", "serial:S1")]).unwrap();
        let args = plan.steps[0].action.resolve(&bound);
        assert_eq!(args["hostname"], Value::Str("r1-1".into()));
        assert!(!args.contains_key("user-data"), "what is not given is absent");
        assert_eq!(bind(&[("rack", "r1"), ("disk", "sda")]), Err(1));
        assert_eq!(bind(&[("rack", "r 1"), ("disk", "sda"), ("key", "x")]), Err(3));
        let wrong = PLAN
            .replace("default = \"\" }", "default = \"sda\" }")
            .replace("\"{rack}-1\"", "\"a_b\"");
        let found =
            compiled(&wrong.replace("params.rack = { kind = \"string\" }", "")).unwrap_err();
        assert_eq!(
            found.iter().filter(|one| one.code == "plan::not-one-of").count(),
            3,
            "{found:?}"
        );
    }
}
