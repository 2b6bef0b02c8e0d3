use super::*;
use crate::plan::Capability;

/// A JSON schema checker, complete enough for ours: checks the keys and the closed sets of names.
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
                    (Json::Null, Json::Bool(false)) => found.push(format!("{place}: unknown key")),
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
    let schema = schema(Actions::BUILT_IN);
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
    crate::assert_golden!("plan_schema", schema_json(Actions::BUILT_IN).unwrap());
}

#[test]
fn the_defaults_in_words_are_those_of_the_validator() {
    let text = "id = \"plan/x\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"v\"\naction = \"verify\"";
    let files = [crate::plan::SourceFile { name: "x.toml", bytes: text.as_bytes() }];
    let retry = &crate::plan::compile(&files).unwrap()[0].steps[0].retry;
    assert_eq!((retry.max_attempts, retry.backoff_ms, retry.backoff_max_ms), (3, 1_000, 30_000));
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
        (Some("array"), _) if schema["items"]["$ref"].is_string() => "tables".to_owned(),
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
            "### `{}`\n\n{}\n\n{}{}{}{}{}. Timeout {}, expected {}.\n\n",
            spec.name,
            spec.description,
            if spec.capability == Capability::Engine {
                "Needs no capability of a provider".to_owned()
            } else {
                format!("Needs the capability `{}`", spec.capability)
            },
            yes(spec.risk.is_destructive(), &format!("is **{}**", spec.risk)),
            yes(spec.idempotent, "is idempotent"),
            yes(spec.risk.is_destructive() && spec.interruptible, "a cancel stops it"),
            spec.consumes.as_ref().map_or_else(String::new, |kind| format!(
                ", consumes what an earlier step with `{kind}` gives, which it must name in `needs`"
            )),
            time(spec.timeout_ms),
            time(spec.expected_ms),
        );
        if spec.args.is_empty() {
            continue;
        }
        text += "| Argument | Value | Default | Meaning |\n| --- | --- | --- | --- |\n";
        for arg in spec.args.iter() {
            let kind = if arg.one_of.is_empty() {
                arg.kind.to_string()
            } else {
                let names = arg.one_of.iter().map(|name| format!("`{name}`"));
                names.collect::<Vec<_>>().join(", ")
            };
            let default = match &arg.default {
                Some(value) if value.to_string().is_empty() => "empty".to_owned(),
                Some(value) => format!("`{value}`"),
                None if arg.is_optional => "optional".to_owned(),
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
        ("length of `description` and `refused_hint`", format!("{} bytes", limits::TEXT_BYTES_MAX)),
        ("attempts of a step", limits::ATTEMPTS_MAX.to_string()),
        ("parameters named in one text", limits::TEXT_PARAMS_MAX.to_string()),
        ("entries of a table or list in a guard", limits::GUARD_ENTRIES_MAX.to_string()),
        (
            "time of a whole run, of a wait and of an approval",
            crate::plan::duration::format(limits::PATIENCE_MS_MAX),
        ),
        ("time of an attempt", crate::plan::duration::format(limits::TIMEOUT_MS_MAX)),
        ("pause between attempts", crate::plan::duration::format(limits::BACKOFF_MS_MAX)),
        ("other durations", crate::plan::duration::format(limits::DURATION_MS_MAX)),
    ] {
        text += &format!("| {what} | {most} |\n");
    }
    text
}

/// `docs/plans.md` with its tables regenerated: they are between `<!-- table: NAME -->` and `<!-- end -->`.
fn with_tables(text: &str) -> String {
    let schema = schema(Actions::BUILT_IN);
    let plan = &schema["properties"];
    let step = &plan["steps"]["items"];
    let tables = [
        ("plan", keys_table(&schema)),
        ("params", keys_table(&plan["params"]["additionalProperties"])),
        ("step", keys_table(step)),
        ("retry", keys_table(&step["properties"]["retry"])),
        ("when", keys_table(&step["properties"]["when"])),
        ("until", keys_table(&step["properties"]["until"])),
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
