//! What plan authors read: drawings of plans, the actions, a template, the schema for editors.

use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use crate::pb;
use crate::plan::{
    ActionKind, ActionSpec, ArgSpec, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, Plan,
    RunType, Value, ValueKind, duration, limits,
};

use super::table::write_plain;
use super::text::{Look, Meaning, padded, sanitized};

/// A step to be drawn.
#[derive(Debug)]
struct Node {
    name: String,
    action: String,
    destructive: bool,
    needs: Vec<String>,
    compensation: Option<String>,
}

/// A plan to be drawn, from wherever it came.
#[derive(Debug)]
pub(crate) struct Drawing {
    id: String,
    steps: Vec<Node>,
}

impl Drawing {
    /// A plan that was read from a file.
    pub(crate) fn of_file(plan: &Plan) -> Self {
        let steps = plan.steps.iter().map(|step| Node {
            name: step.name.to_string(),
            action: step.action.kind.as_str().to_owned(),
            destructive: step.action.spec().destructive,
            needs: step.needs.iter().map(ToString::to_string).collect(),
            compensation: step.compensation.as_ref().map(|action| action.kind.as_str().to_owned()),
        });
        Self { id: plan.id.to_string(), steps: steps.collect() }
    }

    /// A plan of the server.
    pub(crate) fn of_server(plan: &pb::Plan) -> Self {
        let steps = plan.steps.iter().map(|step| Node {
            name: sanitized(&step.name).into_owned(),
            action: sanitized(&step.action).into_owned(),
            destructive: step.destructive,
            needs: step.needs.iter().map(|name| sanitized(name).into_owned()).collect(),
            compensation: Some(sanitized(&step.compensation).into_owned())
                .filter(|action| !action.is_empty()),
        });
        Self { id: sanitized(&plan.plan_id).into_owned(), steps: steps.collect() }
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// The text inside a box.
    fn label(step: &Node, newline: &str) -> String {
        let name = if step.name == step.action {
            step.name.clone()
        } else {
            format!("{}{newline}{}", step.name, step.action)
        };
        name.replace('"', "'")
    }

    /// Writes a Mermaid flowchart: steps in order, needs dotted, compensations dashed out to their own boxes.
    pub(crate) fn write_mermaid(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "---\ntitle: {}\n---\nflowchart LR", self.id)?;
        for (at, step) in self.steps.iter().enumerate() {
            let class = if step.destructive { ":::destructive" } else { "" };
            writeln!(out, "    s{at}[\"{}\"]{class}", Self::label(step, "<br/>"))?;
        }
        for at in 1..self.steps.len() {
            writeln!(out, "    s{} --> s{at}", at - 1)?;
        }
        for (at, step) in self.steps.iter().enumerate() {
            for from in step.needs.iter().filter_map(|need| self.index(need)) {
                writeln!(out, "    s{from} -. needed by .-> s{at}")?;
            }
            if let Some(action) = &step.compensation {
                writeln!(
                    out,
                    "    s{at} -. undone by .-> u{at}([\"{}\"])",
                    action.replace('"', "'")
                )?;
            }
        }
        if self.steps.iter().any(|step| step.destructive) {
            writeln!(out, "    classDef destructive stroke:#c00,stroke-width:2px")?;
        }
        Ok(())
    }

    /// Writes a Graphviz digraph with the same boxes and arrows.
    pub(crate) fn write_dot(&self, out: &mut dyn Write) -> io::Result<()> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        writeln!(
            out,
            "digraph \"{}\" {{\n    rankdir=LR;\n    node [shape=box];",
            quoted(&self.id)
        )?;
        for (at, step) in self.steps.iter().enumerate() {
            let color = if step.destructive { ", color=red" } else { "" };
            writeln!(out, "    s{at} [label=\"{}\"{color}];", Self::label(step, "\\n"))?;
        }
        for at in 1..self.steps.len() {
            writeln!(out, "    s{} -> s{at};", at - 1)?;
        }
        for (at, step) in self.steps.iter().enumerate() {
            for from in step.needs.iter().filter_map(|need| self.index(need)) {
                writeln!(out, "    s{from} -> s{at} [style=dotted, label=\"needed by\"];")?;
            }
            if let Some(action) = &step.compensation {
                writeln!(out, "    u{at} [label=\"{}\", shape=oval];", quoted(action))?;
                writeln!(out, "    s{at} -> u{at} [style=dashed, label=\"undone by\"];")?;
            }
        }
        writeln!(out, "}}")
    }
}

/// A value as a plan file writes it.
fn value_text(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("{text:?}"),
        Value::Int(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::DurationMs(ms) => format!("{:?}", duration::format(*ms)),
    }
}

/// Writes the table of actions.
pub(crate) fn write_actions(
    out: &mut dyn Write,
    look: Look,
    specs: &[ActionSpec],
) -> io::Result<()> {
    let rows: Vec<Vec<String>> = specs
        .iter()
        .map(|spec| {
            let destructive = if spec.destructive { "yes" } else { "-" };
            let cells =
                [spec.kind.as_str(), spec.capability.as_str(), destructive, spec.description];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    write_plain(
        out,
        look,
        &[("ACTION", 20), ("CAPABILITY", 12), ("DESTRUCTIVE", 11), ("WHAT IT DOES", 0)],
        &rows,
    )
}

/// Writes one action in full, with a step to copy.
pub(crate) fn write_action(out: &mut dyn Write, look: Look, spec: &ActionSpec) -> io::Result<()> {
    let yes_no = |flag: bool| if flag { "yes" } else { "no" };
    let field = |out: &mut dyn Write, label: &str, value: &str| {
        writeln!(out, "{}{value}", look.paint(Meaning::Dim, &padded(&format!("{label}:"), 16)))
    };
    field(out, "Action", spec.kind.as_str())?;
    field(out, "What it does", spec.description)?;
    field(out, "Capability", spec.capability.as_str())?;
    field(out, "Destructive", yes_no(spec.destructive))?;
    field(out, "Idempotent", yes_no(spec.idempotent))?;
    field(out, "Timeout", &duration::format(spec.timeout_ms))?;
    field(out, "Expected", &duration::format(spec.expected_ms))?;
    if let Some(kind) = spec.consumes {
        field(
            out,
            "Needs",
            &format!("an earlier step with the action {}, named in `needs`", kind.as_str()),
        )?;
    }
    if !spec.args.is_empty() {
        writeln!(out, "\n{}", look.paint(Meaning::Strong, "Arguments"))?;
    }
    for arg in spec.args {
        let default = match &arg.default {
            Some(value) => format!("default {}", value_text(value)),
            None => "required".to_owned(),
        };
        writeln!(out, "  {} ({}, {default})", arg.name, arg.kind.as_str())?;
        if !arg.one_of.is_empty() {
            writeln!(out, "      one of {}", arg.one_of.join(", "))?;
        }
        writeln!(out, "      {}", arg.description)?;
    }
    writeln!(out, "\n{}", look.paint(Meaning::Strong, "As a step"))?;
    for line in sample_step(spec).lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// A step with this action, every argument spelled out.
fn sample_step(spec: &ActionSpec) -> String {
    let name = spec.kind.as_str();
    let mut text = format!("[[steps]]\nname = \"{name}\"\naction = \"{name}\"\n");
    let value = |arg: &ArgSpec| arg.default.as_ref().map_or_else(|| "\"…\"".to_owned(), value_text);
    if !spec.args.is_empty() {
        let args: Vec<String> =
            spec.args.iter().map(|arg| format!("{} = {}", arg.name, value(arg))).collect();
        text.push_str(&format!("args = {{ {} }}\n", args.join(", ")));
    }
    text.push_str(&format!("timeout = \"{}\"\n", duration::format(spec.timeout_ms)));
    if let Some(kind) = spec.consumes {
        text.push_str(&format!("needs = [\"{}\"]\n", kind.as_str()));
    }
    if spec.destructive {
        text.push_str("on_unknown = \"verify\"\n");
    }
    text
}

/// A commented plan to begin with.
pub(crate) fn template(name: &str) -> String {
    let title: String =
        name.chars().take(1).flat_map(char::to_uppercase).chain(name.chars().skip(1)).collect();
    let title = title.replace('-', " ");
    format!(
        r#"# A plan: what a run does to a machine, step by step. Check it with
#   bmdemo-cli plan check {name}.toml
# and give it to the server with
#   bmdemo-server --plans-dir .
# The actions and their arguments: bmdemo-cli plan explain [ACTION]

id = "plan/{name}"
display_name = "{title}"
description = "What it is for, in a sentence."

# Phases in which it may be started.
allowed_phases = ["READY", "MAINTENANCE"]

# Refuse machines that serve a customer, and say what to do instead.
refused_effective = ["IN_SERVICE"]
refused_hint = "set the phase to MAINTENANCE first"

# A parameter is given when a run starts: bmdemo-cli run start {name} MACHINE --set grace=1m
# kind: string, integer, boolean or duration. Without a default it must be given.
[params.grace]
kind = "duration"
default = "5m"
description = "How long workloads get to finish by themselves."

[[steps]]
name = "drain"
action = "drain"
# An argument is a value, or the value of a parameter.
args = {{ grace = {{ param = "grace" }} }}
# One attempt may take so long; it usually takes so long, and is marked overdue after that.
timeout = "30m"
expected = "5m"
# Attempts, what is worth another one (transient, permanent, needs_human), and the wait between them, which doubles.
retry = {{ max_attempts = 3, on = ["transient"], backoff = "10s", backoff_max = "1m" }}
# Conditions of the machine that a success sets.
sets = {{ InCustomerCluster = false }}
# Carried out if the run fails or is canceled after this step has started.
compensation = {{ action = "undrain" }}

[[steps]]
name = "reboot"
action = "reboot"
timeout = "15m"
# What happens when the outcome is not known, as after a crash in the middle of the call:
#   verify  look at the machine and go by what is seen
#   retry   do it again; only for idempotent actions
#   hold    ask an operator
# A step with a destructive action must say.
on_unknown = "verify"

[[steps]]
name = "verify"
action = "verify"
args = {{ settle = "30s" }}
timeout = "5m"
sets = {{ Reachable = true, InCustomerCluster = true }}
# Left out unless all of this holds: when = {{ param = {{ … }}, condition = {{ … }}, phase = [ … ] }}
when = {{ phase = ["READY", "MAINTENANCE"] }}

# What a success sets on the machine; without it the phase stays.
[result]
phase = "READY"
"#
    )
}

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

fn schema() -> Json {
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
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bmdemo plan",
        "type": "object",
        "required": ["id", "steps"],
        "additionalProperties": false,
        "properties": {
            "id": described(json!({ "type": "string", "pattern": "^plan/[a-z][a-z0-9-]{0,62}$" }), "plan/<name>, unique."),
            "display_name": described(text.clone(), "Name for people."),
            "description": described(text.clone(), "What it is for."),
            "default_for": described(
                json!({ "enum": names(RunType::ALL, RunType::as_str) }),
                "Runs of this type that name no plan get this one."
            ),
            "destructive": described(json!({ "type": "boolean" }), "Whether a step is destructive; checked."),
            "allowed_phases": described(phases.clone(), "Phases in which it may be started."),
            "refused_effective": described(
                json!({ "type": "array", "items": { "enum": names(EffectiveState::ALL, EffectiveState::as_str) } }),
                "Effective states in which it is refused without force."
            ),
            "refused_hint": described(text.clone(), "What to do instead."),
            "required_conditions": described(conditions.clone(), "Conditions that must hold at the start."),
            "params": {
                "description": "Parameters, given when a run starts.",
                "type": "object",
                "propertyNames": name,
                "maxProperties": limits::PARAMS_MAX,
                "additionalProperties": {
                    "type": "object",
                    "required": ["kind"],
                    "additionalProperties": false,
                    "properties": {
                        "kind": described(json!({ "enum": names(ValueKind::ALL, ValueKind::as_str) }), "Type."),
                        "default": described(scalar.clone(), "Value if none is given; without it one must be."),
                        "one_of": described(json!({ "type": "array", "items": scalar.clone() }), "The only values."),
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
                "description": "What a success sets on the machine.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "phase": { "enum": names(Phase::ALL, Phase::as_str) },
                    "conditions": conditions
                }
            }
        }
    })
}

fn step_schema(name: &Json, time: &Json, conditions: &Json, phases: &Json) -> Json {
    let actions = names(ActionKind::ALL, ActionKind::as_str);
    let scalar = json!({ "type": ["string", "integer", "boolean"] });
    // For each action the arguments it takes, and on_unknown where it is destructive.
    let by_action: Vec<Json> = ActionSpec::all()
        .iter()
        .map(|spec| {
            let mut then = json!({ "properties": { "args": args_schema(spec) } });
            let mut required = Vec::new();
            if spec.destructive {
                required.push("on_unknown");
            }
            if spec.args.iter().any(|arg| arg.default.is_none()) {
                required.push("args");
            }
            if !required.is_empty() {
                then["required"] = json!(required);
            }
            json!({ "if": { "properties": { "action": { "const": spec.kind.as_str() } } }, "then": then })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["name", "action"],
        "additionalProperties": false,
        "allOf": by_action,
        "properties": {
            "name": described(name.clone(), "Unique in the plan."),
            "action": described(json!({ "enum": actions.clone() }), "What it does; see plan explain."),
            "args": described(json!({ "type": "object" }), "Arguments of the action."),
            "timeout": described(time.clone(), "Longest time of one attempt."),
            "expected": described(time.clone(), "Usual time of one attempt."),
            "retry": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "max_attempts": { "type": "integer", "minimum": 1, "maximum": limits::ATTEMPTS_MAX },
                    "on": { "type": "array", "items": { "enum": names(ErrorClass::ALL, ErrorClass::as_str) } },
                    "backoff": time.clone(),
                    "backoff_max": time.clone()
                }
            },
            "on_unknown": described(
                json!({ "enum": names(OnUnknown::ALL, OnUnknown::as_str) }),
                "What happens when the outcome is not known; a destructive action must say."
            ),
            "when": {
                "description": "Left out unless all of this holds.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "param": { "type": "object", "additionalProperties": scalar },
                    "condition": conditions.clone(),
                    "phase": phases.clone()
                }
            },
            "needs": described(json!({ "type": "array", "items": name.clone() }), "Earlier steps that it needs."),
            "compensation": {
                "description": "Carried out if the run fails or is canceled after this step has started.",
                "type": "object",
                "required": ["action"],
                "additionalProperties": false,
                "properties": { "action": { "enum": actions }, "args": { "type": "object" } }
            },
            "sets": described(conditions.clone(), "Conditions that a success sets.")
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
    use crate::plan::{Registry, SourceFile, compile, render};

    fn rendered(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_template_is_a_plan() {
        let text = template("firmware-update");
        let files = [SourceFile { name: "firmware-update.toml", bytes: text.as_bytes() }];
        match compile(&files) {
            Ok(plans) => assert_eq!(plans[0].id, "plan/firmware-update"),
            Err(diagnostics) => panic!("{}", render(&files, &diagnostics, false)),
        }
        assert_eq!(compile(&files).unwrap()[0].display_name, "Firmware update");
    }

    #[test]
    fn plans_are_drawn() {
        let registry = Registry::built_in();
        let plan = Drawing::of_file(&registry.get("plan/upgrade").unwrap().plan);
        let text = rendered(|out| {
            plan.write_mermaid(out)?;
            plan.write_dot(out)
        });
        crate::assert_golden!("plan_graph", text);
    }

    #[test]
    fn every_action_is_explained() {
        let look = Look::default();
        let text = rendered(|out| {
            write_actions(out, look, ActionSpec::all())?;
            ActionSpec::all().iter().try_for_each(|spec| {
                writeln!(out)?;
                write_action(out, look, spec)
            })
        });
        crate::assert_golden!("plan_explain", text);
    }

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
        assert_eq!(check(&template("x")), Vec::<String>::new());
        let broken = "id = \"plan/x\"\ncolor = 1\n[[steps]]\nname = \"w\"\naction = \"wipe\"\nargs = { speed = 1 }";
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
}
