//! The JSON schema of plan files, for editors, and the tables of docs/plans.md.

use serde_json::{Map, Value as Json, json};

use crate::plan::{
    ActionSpec, Actions, Condition, EffectiveState, ErrorClass, OnUnknown, Phase, RunType,
    ValueKind, limits,
};

/// The JSON schema of plan files, generated from the tables that check them.
///
/// # Errors
/// None in practice: a JSON value can always be serialized.
pub(crate) fn schema_json(actions: &Actions) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&schema(actions))
}

fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Json {
    Json::Array(all.iter().map(|value| Json::from(name(*value))).collect())
}

fn described(mut schema: Json, text: &str) -> Json {
    schema["description"] = Json::from(text);
    schema
}

pub(super) fn schema(actions: &Actions) -> Json {
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
            "destructive": described(json!({ "type": "boolean" }), "Whether a step is disruptive or data-destroying. It follows from the actions; a value that is given is checked."),
            "allowed_phases": described(phases.clone(), "Phases that a machine may be in when a run starts; at least one."),
            "refused_effective": described(
                json!({ "type": "array", "items": { "enum": names(EffectiveState::ALL, EffectiveState::as_str) } }),
                "Effective states in which a run is refused unless it is started with --force, which is audited."
            ),
            "refused_hint": described(text.clone(), "What to do instead; shown with such a refusal."),
            "required_conditions": described(conditions.clone(), "Conditions that must hold when a run starts; one that was never observed is false."),
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
                        "default": described(scalar.clone(), "Value if the run gives none; without a default the parameter is required."),
                        "one_of": described(json!({ "type": "array", "items": scalar.clone() }), "The only values accepted; any if absent."),
                        "description": described(text, "What it is for.")
                    }
                }
            },
            "time_limit": described(time.clone(), "Longest time of a whole run, counted from its first step, at most 30d. After it the run fails at the next safe point."),
            "role": described(json!({ "enum": ["operator", "admin"] }), "Who may start and control its runs; operators if absent."),
            "allow_destructive": described(json!({ "type": "boolean" }), "Says that a plan of the type REBOOT or NET_RECONFIG destroys data: without it such a plan is refused."),
            "on_failure": {
                "description": "Steps that run after a step has failed, before anything is undone. If one fails, the others still run.",
                "type": "array",
                "maxItems": limits::STEPS_MAX,
                "items": { "$ref": "#/properties/steps/items" }
            },
            "finally": {
                "description": "Steps that run last, whatever the outcome, except after an abort. Their own outcome changes nothing.",
                "type": "array",
                "maxItems": limits::STEPS_MAX,
                "items": { "$ref": "#/properties/steps/items" }
            },
            "steps": {
                "description": "Steps, in order.",
                "type": "array",
                "minItems": 1,
                "maxItems": limits::STEPS_MAX,
                "items": step_schema(actions, &name, &time, &conditions, &phases)
            },
            "result": {
                "description": "What a successful run sets on the machine; a failed run never changes the phase.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "phase": described(
                        json!({ "enum": names(Phase::ALL, Phase::as_str) }),
                        "Phase to set; unchanged if absent."
                    ),
                    "conditions": described(conditions, "Conditions to set.")
                }
            }
        }
    })
}

fn step_schema(own: &Actions, name: &Json, time: &Json, conditions: &Json, phases: &Json) -> Json {
    let actions = own.names();
    let scalar = json!({ "type": ["string", "integer", "boolean"] });
    // For each action its arguments, and on_unknown where the action is disruptive or destroys data.
    let by_action: Vec<Json> = own
        .iter()
        .map(|spec| {
            let mut then = json!({ "properties": { "args": args_schema(spec) } });
            let mut required = Vec::new();
            if spec.risk.is_destructive() {
                required.push("on_unknown");
            }
            if spec.args.iter().any(|arg| arg.is_required()) {
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
            "action": described(json!({ "enum": actions.clone() }), "Action to perform: see the actions below, or plan explain."),
            "args": described(json!({ "type": "object" }), "Arguments of the action: each a value, or { param = \"NAME\" } for the value of a parameter. A text may contain parameters: \"firmware {version}\"."),
            "timeout": described(time.clone(), "Longest time of one attempt, at most 24h (30d for wait and approve); the action's own if absent."),
            "expected": described(time.clone(), "Expected time of one attempt, after which it is marked overdue; the action's own, or half of a shorter timeout, if absent."),
            "retry": retry_schema(time, "When and how often a failed attempt is repeated."),
            "on_unknown": described(
                json!({ "enum": names(OnUnknown::ALL, OnUnknown::as_str) }),
                "What to do when it is unknown whether the action took effect; required for disruptive and data-destroying actions. If absent, retry for idempotent actions and verify for others."
            ),
            "when": {
                "description": "Guard: the step is skipped unless all of this holds when it is reached.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "param": described(
                        json!({ "type": "object", "additionalProperties": scalar.clone() }),
                        "Parameters and the value each must have."
                    ),
                    "condition": described(
                        conditions.clone(),
                        "Conditions and the value each must have when the step is reached; one that was never observed is false."
                    ),
                    "phase": described(phases.clone(), "Phases that the machine may be in."),
                    "label": described(
                        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                        "Labels of the machine and the value each must have; a missing label is empty."
                    ),
                    "provider": described(
                        json!({ "type": "array", "items": { "type": "string" } }),
                        "Providers that the machine may have."
                    ),
                    "output": described(
                        json!({ "type": "object", "additionalProperties": { "type": "object", "additionalProperties": scalar } }),
                        "Outputs that earlier steps must have: { STEP = { NAME = VALUE } }."
                    )
                }
            },
            "until": {
                "description": "What a step with the action wait waits for, at most for its timeout; all of it must hold.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "condition": described(
                        conditions.clone(),
                        "Conditions and the value each must have; one that was never observed is false."
                    ),
                    "label": described(
                        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                        "Labels of the machine and the value each must have; a missing label is empty."
                    )
                }
            },
            "needs": described(json!({ "type": "array", "items": name.clone() }), "Earlier steps that a retried run repeats before this one. An action that consumes the output of another one must name it."),
            "compensation": {
                "description": "Undoes the step: runs if the run fails or is canceled after the step has started. The newest comes first.",
                "type": "object",
                "required": ["action"],
                "additionalProperties": false,
                "properties": {
                    "action": described(json!({ "enum": actions }), "Action to perform."),
                    "args": described(json!({ "type": "object" }), "Arguments of the action."),
                    "timeout": described(time.clone(), "Longest time of one attempt, at most 24h; the action's own if absent."),
                    "expected": described(time.clone(), "Expected time of one attempt; the action's own, or half of a shorter timeout, if absent."),
                    "retry": retry_schema(time, "When and how often a failed attempt is repeated; like the step itself if absent."),
                    "sets": described(conditions.clone(), "Conditions of the machine to set once the compensation has succeeded. Conditions that the step itself has set go back to their previous values, unless they are named here.")
                }
            },
            "sets": described(conditions.clone(), "Conditions of the machine to set once the step has succeeded.")
        }
    })
}

fn retry_schema(time: &Json, text: &str) -> Json {
    json!({
        "description": text,
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "max_attempts": described(
                json!({ "type": "integer", "minimum": 1, "maximum": limits::ATTEMPTS_MAX }),
                "Attempts in all, including the first; 3 if absent."
            ),
            "on": described(
                json!({ "type": "array", "items": { "enum": names(ErrorClass::ALL, ErrorClass::as_str) } }),
                "Classes of failure that are retried; transient if absent."
            ),
            "backoff": described(
                time.clone(),
                "Delay after the first failure; it doubles with each further one. 1s if absent."
            ),
            "backoff_max": described(time.clone(), "Longest delay, at most 1h; 30s if absent.")
        }
    })
}

fn args_schema(spec: &ActionSpec) -> Json {
    let mut properties = Map::new();
    for arg in spec.args.iter() {
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
        properties.insert(arg.name.to_string(), either);
    }
    let required: Vec<&str> =
        spec.args.iter().filter(|arg| arg.is_required()).map(|arg| &*arg.name).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required })
}

#[cfg(test)]
mod tests;
