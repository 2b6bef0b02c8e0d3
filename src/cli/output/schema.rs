//! The JSON schema of plan files, for editors, and the tables of docs/plans.md.

use serde_json::{Map, Value as Json, json};

use crate::plan::{
    ActionSpec, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, RunType, ValueKind, limits,
};

/// The JSON schema of plan files, made from the same tables that check them.
///
/// # Errors
/// None in practice: a JSON value always has a text.
pub(crate) fn schema_json() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&schema())
}

fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Json {
    Json::Array(all.iter().map(|value| Json::from(name(*value))).collect())
}

fn described(mut schema: Json, text: &str) -> Json {
    schema["description"] = Json::from(text);
    schema
}

pub(super) fn schema() -> Json {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" });
    let name = json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$" });
    let phases = json!({ "type": "array", "items": { "enum": names(Phase::ALL, Phase::as_str) } });
    let conditions = json!({
        "type": "object",
        "propertyNames": { "enum": names(Condition::ALL, Condition::as_str) },
        "additionalProperties": { "type": "boolean" }
    });
    let scalar = json!({ "type": ["string", "integer", "boolean"] });
    let defaults: Vec<&str> =
        RunType::ALL.iter().map(|kind| kind.as_str()).filter(|name| *name != "CUSTOM").collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bmdemo plan",
        "type": "object",
        "required": ["id", "allowed_phases", "steps"],
        "additionalProperties": false,
        "properties": {
            "id": described(json!({ "type": "string", "pattern": "^plan/[a-z][a-z0-9-]{0,62}$" }), "plan/ and a name, unique among the plans of a server."),
            "display_name": described(text.clone(), "Name for people; the name of the id if absent."),
            "description": described(text.clone(), "What it is for."),
            "default_for": described(
                json!({ "enum": defaults }),
                "Runs of this type that name no plan get this one. At most one plan can say so for each type."
            ),
            "destructive": described(json!({ "type": "boolean" }), "Whether a step is disruptive or data-destroying. It follows from the actions; who says it anyway is held to it."),
            "allowed_phases": described(phases.clone(), "Phases in which a machine may be when a run starts; at least one."),
            "refused_effective": described(
                json!({ "type": "array", "items": { "enum": names(EffectiveState::ALL, EffectiveState::as_str) } }),
                "Effective states in which a run is refused unless it is started with --force, which is audited."
            ),
            "refused_hint": described(text.clone(), "What to do instead, shown with such a refusal."),
            "required_conditions": described(conditions.clone(), "Conditions that must be so when a run starts; one that was never observed is false."),
            "params": {
                "description": "Parameters by name, given when a run starts: --set NAME=VALUE.",
                "type": "object",
                "propertyNames": name,
                "maxProperties": limits::PARAMS_MAX,
                "additionalProperties": {
                    "type": "object",
                    "required": ["kind"],
                    "additionalProperties": false,
                    "properties": {
                        "kind": described(json!({ "enum": names(ValueKind::ALL, ValueKind::as_str) }), "Type of its values."),
                        "default": described(scalar.clone(), "Value if the run gives none; without a default it must be given."),
                        "one_of": described(json!({ "type": "array", "items": scalar.clone() }), "The only values taken; any if absent."),
                        "description": described(text, "What it is for.")
                    }
                }
            },
            "steps": {
                "description": "What is done, in order.",
                "type": "array",
                "minItems": 1,
                "maxItems": limits::STEPS_MAX,
                "items": step_schema(&name, &time, &conditions, &phases)
            },
            "result": {
                "description": "What a success of the whole run sets on the machine; a failed run never changes the phase.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "phase": described(
                        json!({ "enum": names(Phase::ALL, Phase::as_str) }),
                        "Phase to set; it stays if absent."
                    ),
                    "conditions": described(conditions, "Conditions to set.")
                }
            }
        }
    })
}

fn step_schema(name: &Json, time: &Json, conditions: &Json, phases: &Json) -> Json {
    let actions: Vec<&str> = ActionSpec::all().iter().map(|spec| spec.name).collect();
    let scalar = json!({ "type": ["string", "integer", "boolean"] });
    // For each action the arguments it takes, and on_unknown where it puts anything at stake.
    let by_action: Vec<Json> = ActionSpec::all()
        .iter()
        .map(|spec| {
            let mut then = json!({ "properties": { "args": args_schema(spec) } });
            let mut required = Vec::new();
            if spec.risk.is_destructive() {
                required.push("on_unknown");
            }
            if spec.args.iter().any(|arg| arg.default.is_none()) {
                required.push("args");
            }
            if !required.is_empty() {
                then["required"] = json!(required);
            }
            json!({ "if": { "properties": { "action": { "const": spec.name } } }, "then": then })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["name", "action"],
        "additionalProperties": false,
        "allOf": by_action,
        "properties": {
            "name": described(name.clone(), "Name, unique in the plan."),
            "action": described(json!({ "enum": actions.clone() }), "What it does: see the actions below, or plan explain."),
            "args": described(json!({ "type": "object" }), "Arguments of the action: each a value, or { param = \"NAME\" } for the value of a parameter."),
            "timeout": described(time.clone(), "Longest time of one attempt, at most 24h; the action's own if absent."),
            "expected": described(time.clone(), "Usual time of one attempt, after which it is marked overdue; the action's own, or half of a shorter timeout, if absent."),
            "retry": {
                "description": "When and how often a failed attempt is repeated.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "max_attempts": described(
                        json!({ "type": "integer", "minimum": 1, "maximum": limits::ATTEMPTS_MAX }),
                        "Attempts in all, the first included; 3 if absent."
                    ),
                    "on": described(
                        json!({ "type": "array", "items": { "enum": names(ErrorClass::ALL, ErrorClass::as_str) } }),
                        "Classes of failure worth another attempt; transient if absent."
                    ),
                    "backoff": described(
                        time.clone(),
                        "Pause after the first failure; it doubles with each further one. 1s if absent."
                    ),
                    "backoff_max": described(time.clone(), "Longest pause, at most 1h; 30s if absent.")
                }
            },
            "on_unknown": described(
                json!({ "enum": names(OnUnknown::ALL, OnUnknown::as_str) }),
                "What happens when it is not known whether the action took effect; a step with a disruptive or data-destroying action must say. If absent, retry for idempotent actions and verify for others."
            ),
            "when": {
                "description": "The step is skipped unless all of this holds when its turn comes.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "param": described(
                        json!({ "type": "object", "additionalProperties": scalar }),
                        "Parameters and the value each must have."
                    ),
                    "condition": described(
                        conditions.clone(),
                        "Conditions and what each must be when the step's turn comes; one that was never observed is false."
                    ),
                    "phase": described(phases.clone(), "Phases of which the machine must be in one.")
                }
            },
            "needs": described(json!({ "type": "array", "items": name.clone() }), "Earlier steps that a retried run repeats before this one. An action that consumes what another one gives must name it."),
            "compensation": {
                "description": "Undoes the step: carried out if the run fails or is canceled after the step has started. The newest comes first.",
                "type": "object",
                "required": ["action"],
                "additionalProperties": false,
                "properties": {
                    "action": described(json!({ "enum": actions }), "What it does."),
                    "args": described(json!({ "type": "object" }), "Arguments of the action."),
                    "sets": described(conditions.clone(), "Conditions of the machine that are known once the compensation has succeeded. What the step itself has set goes back to what it was before, unless it is named here.")
                }
            },
            "sets": described(conditions.clone(), "Conditions of the machine that are known once the step has succeeded.")
        }
    })
}

fn args_schema(spec: &ActionSpec) -> Json {
    let mut properties = Map::new();
    for arg in spec.args {
        let mut value = match arg.kind {
            ValueKind::Integer => json!({ "type": "integer" }),
            ValueKind::Boolean => json!({ "type": "boolean" }),
            ValueKind::String | ValueKind::Duration => json!({ "type": "string" }),
        };
        if !arg.one_of.is_empty() {
            value["enum"] = json!(arg.one_of);
        }
        let param = json!({
            "type": "object",
            "required": ["param"],
            "additionalProperties": false,
            "properties": { "param": { "type": "string" } }
        });
        let either = json!({ "anyOf": [value, param], "description": arg.description });
        properties.insert(arg.name.to_owned(), either);
    }
    let required: Vec<&str> =
        spec.args.iter().filter(|arg| arg.default.is_none()).map(|arg| arg.name).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough of JSON schema for ours: checks the keys and the closed sets of names.
    fn violations(schema: &Json, value: &toml::Value, at: &str, found: &mut Vec<String>) {
        if let Some(names) = schema["enum"].as_array()
            && !names.iter().any(|name| name.as_str() == value.as_str())
        {
            found.push(format!("{at}: {value} is not one of the names"));
        }
        match value {
            toml::Value::Table(table) => {
                for required in schema["required"].as_array().into_iter().flatten() {
                    if !table.contains_key(required.as_str().unwrap()) {
                        found.push(format!("{at}: {required} is missing"));
                    }
                }
                for (key, value) in table {
                    let place = format!("{at}.{key}");
                    match (&schema["properties"][key], &schema["additionalProperties"]) {
                        (Json::Null, Json::Bool(false)) => {
                            found.push(format!("{place}: unknown key"))
                        }
                        (Json::Null, other) => violations(other, value, &place, found),
                        (known, _) => violations(known, value, &place, found),
                    }
                }
                for rule in schema["allOf"].as_array().into_iter().flatten() {
                    let action = &rule["if"]["properties"]["action"]["const"];
                    if table.get("action").and_then(toml::Value::as_str) == action.as_str() {
                        violations(&rule["then"], value, at, found);
                    }
                }
            }
            toml::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    violations(&schema["items"], item, &format!("{at}[{index}]"), found);
                }
            }
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => {}
        }
    }

    #[test]
    fn the_schema_agrees_with_the_validator() {
        let schema = schema();
        let check = |text: &str| {
            let mut found = Vec::new();
            violations(&schema, &toml::from_str(text).unwrap(), "plan", &mut found);
            found
        };
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/plans");
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                assert_eq!(
                    check(&std::fs::read_to_string(&path).unwrap()),
                    Vec::<String>::new(),
                    "{path:?}"
                );
            }
        }
        assert_eq!(check(&super::super::author::template("x")), Vec::<String>::new());
        let broken = "id = \"plan/x\"\nallowed_phases = [\"READY\"]\ncolor = 1\n[[steps]]\nname = \"w\"\naction = \"wipe\"\nargs = { speed = 1 }";
        assert_eq!(
            check(broken),
            [
                "plan.color: unknown key",
                "plan.steps[0]: \"on_unknown\" is missing",
                "plan.steps[0].args.speed: unknown key"
            ]
        );
        crate::assert_golden!("plan_schema", schema_json().unwrap());
    }

    #[test]
    fn the_defaults_in_words_are_those_of_the_validator() {
        let text = "id = \"plan/x\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"v\"\naction = \"verify\"";
        let files = [crate::plan::SourceFile { name: "x.toml", bytes: text.as_bytes() }];
        let retry = &crate::plan::compile(&files).unwrap()[0].steps[0].retry;
        assert_eq!(
            (retry.max_attempts, retry.backoff_ms, retry.backoff_max_ms),
            (3, 1_000, 30_000)
        );
        assert_eq!(retry.on.as_ref(), [ErrorClass::Transient]);
    }

    /// What a value may be, in words.
    fn type_of(schema: &Json) -> String {
        let names = |list: &Json| {
            let names = list.as_array().into_iter().flatten().filter_map(Json::as_str);
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        if schema["enum"].is_array() {
            return names(&schema["enum"]);
        }
        match (schema["type"].as_str(), schema["pattern"].as_str()) {
            (Some("string"), Some(pattern)) if pattern.contains("ms") => "duration".to_owned(),
            (Some("string"), Some(_)) => "name".to_owned(),
            (Some("string"), None) => "text".to_owned(),
            (Some("array"), _) if schema["items"]["type"] == "object" => "tables".to_owned(),
            (Some("array"), _) => format!("list of {}", type_of(&schema["items"])),
            (Some("object"), _) if schema["propertyNames"]["enum"].is_array() => {
                format!("table of {} to `true` or `false`", names(&schema["propertyNames"]["enum"]))
            }
            (Some("object"), _) => "table".to_owned(),
            (Some("boolean"), _) => "`true` or `false`".to_owned(),
            (Some(other), _) => other.to_owned(),
            (None, _) => "text, integer or `true` or `false`".to_owned(),
        }
    }

    fn keys_table(schema: &Json) -> String {
        let mut text = String::from("| Key | Value | Meaning |\n| --- | --- | --- |\n");
        for (key, value) in schema["properties"].as_object().unwrap() {
            let meaning = value["description"].as_str().unwrap_or_else(|| panic!("{key}"));
            let required = schema["required"].as_array().into_iter().flatten();
            let must = if required.into_iter().any(|name| name == key.as_str()) {
                " **Required.**"
            } else {
                ""
            };
            text += &format!("| `{key}` | {} | {meaning}{must} |\n", type_of(value));
        }
        text
    }

    fn actions_table() -> String {
        let time = crate::plan::duration::format;
        let mut text = String::new();
        for spec in ActionSpec::all() {
            let yes = |is: bool, what: &str| if is { format!(", {what}") } else { String::new() };
            text += &format!(
                "### `{}`\n\n{}\n\nNeeds the capability `{}`{}{}{}{}. Timeout {}, expected {}.\n\n",
                spec.name,
                spec.description,
                spec.capability,
                yes(spec.risk.is_destructive(), &format!("is **{}**", spec.risk)),
                yes(spec.idempotent, "is idempotent"),
                yes(spec.risk.is_destructive() && spec.interruptible, "a cancel stops it"),
                spec.consumes.map_or_else(String::new, |kind| format!(
                    ", consumes what an earlier step with `{kind}` gives, which it must name in `needs`"
                )),
                time(spec.timeout_ms),
                time(spec.expected_ms),
            );
            if spec.args.is_empty() {
                continue;
            }
            text += "| Argument | Value | Default | Meaning |\n| --- | --- | --- | --- |\n";
            for arg in spec.args {
                let kind = if arg.one_of.is_empty() {
                    arg.kind.to_string()
                } else {
                    let names = arg.one_of.iter().map(|name| format!("`{name}`"));
                    names.collect::<Vec<_>>().join(", ")
                };
                let default = match &arg.default {
                    Some(value) if value.to_string().is_empty() => "empty".to_owned(),
                    Some(value) => format!("`{value}`"),
                    None => "required".to_owned(),
                };
                text += &format!("| `{}` | {kind} | {default} | {} |\n", arg.name, arg.description);
            }
            text += "\n";
        }
        text.trim_end().to_owned() + "\n"
    }

    fn limits_table() -> String {
        let mut text = String::from("| What | Most |\n| --- | --- |\n");
        for (what, most) in [
            ("size of a file", format!("{} KiB", limits::FILE_BYTES_MAX / 1024)),
            ("steps of a plan", limits::STEPS_MAX.to_string()),
            ("parameters of a plan", limits::PARAMS_MAX.to_string()),
            ("values of a `one_of`", limits::ONE_OF_MAX.to_string()),
            ("length of a name", format!("{} bytes", limits::NAME_BYTES_MAX)),
            ("length of a line of text", format!("{} bytes", limits::LINE_BYTES_MAX)),
            (
                "length of `description` and `refused_hint`",
                format!("{} bytes", limits::TEXT_BYTES_MAX),
            ),
            ("attempts of a step", limits::ATTEMPTS_MAX.to_string()),
            ("time of an attempt", crate::plan::duration::format(limits::TIMEOUT_MS_MAX)),
            ("pause between attempts", crate::plan::duration::format(limits::BACKOFF_MS_MAX)),
            ("other durations", crate::plan::duration::format(limits::DURATION_MS_MAX)),
        ] {
            text += &format!("| {what} | {most} |\n");
        }
        text
    }

    /// `docs/plans.md` with its tables made anew: they stand between `<!-- table: NAME -->` and `<!-- end -->`.
    fn with_tables(text: &str) -> String {
        let schema = schema();
        let plan = &schema["properties"];
        let step = &plan["steps"]["items"];
        let tables = [
            ("plan", keys_table(&schema)),
            ("params", keys_table(&plan["params"]["additionalProperties"])),
            ("step", keys_table(step)),
            ("retry", keys_table(&step["properties"]["retry"])),
            ("when", keys_table(&step["properties"]["when"])),
            ("compensation", keys_table(&step["properties"]["compensation"])),
            ("result", keys_table(&plan["result"])),
            ("actions", actions_table()),
            ("limits", limits_table()),
        ];
        let mut text = text.to_owned();
        for (name, table) in tables {
            let open = format!("<!-- table: {name} -->\n");
            let begin = text.find(&open).unwrap_or_else(|| panic!("no table {name}")) + open.len();
            let end = begin + text[begin..].find("<!-- end -->").unwrap();
            text.replace_range(begin..end, &format!("\n{table}\n"));
        }
        text
    }

    #[test]
    fn the_guide_has_every_key_and_every_action() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plans.md");
        let written = std::fs::read_to_string(path).unwrap();
        let wanted = with_tables(&written);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let stale = "docs/plans.md is stale: run UPDATE_DOCS=1 cargo test --lib the_guide_has";
        assert!(std::fs::read_to_string(path).unwrap() == wanted, "{stale}");
    }
}
