//! What plan authors read: drawings of plans, the actions, a template.

use std::io::{self, Write};

use crate::pb;
use crate::plan::{ActionSpec, ArgSpec, Plan, Risk, Value, duration};

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
            action: step.action.name.to_string(),
            destructive: step.action.traits.risk.is_destructive(),
            needs: step.needs.iter().map(ToString::to_string).collect(),
            compensation: step.compensation.as_ref().map(|undo| undo.action.name.to_string()),
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
            let risk = if spec.risk == Risk::None { "-" } else { spec.risk.as_str() };
            let cells = [spec.name, spec.capability.as_str(), risk, spec.description];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    write_plain(
        out,
        look,
        &[("ACTION", 20), ("CAPABILITY", 12), ("RISK", 15), ("WHAT IT DOES", 0)],
        &rows,
    )
}

/// Writes one action in full, with a step to copy.
pub(crate) fn write_action(out: &mut dyn Write, look: Look, spec: &ActionSpec) -> io::Result<()> {
    let yes_no = |flag: bool| if flag { "yes" } else { "no" };
    let field = |out: &mut dyn Write, label: &str, value: &str| {
        writeln!(out, "{}{value}", look.paint(Meaning::Dim, &padded(&format!("{label}:"), 16)))
    };
    field(out, "Action", spec.name)?;
    field(out, "What it does", spec.description)?;
    field(out, "Capability", spec.capability.as_str())?;
    field(out, "Risk", spec.risk.as_str())?;
    field(out, "Idempotent", yes_no(spec.idempotent))?;
    field(out, "Timeout", &duration::format(spec.timeout_ms))?;
    field(out, "Expected", &duration::format(spec.expected_ms))?;
    if let Some(consumed) = spec.consumes {
        field(
            out,
            "Needs",
            &format!("an earlier step with the action {}, named in `needs`", consumed),
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
    let name = spec.name;
    let mut text = format!("[[steps]]\nname = \"{name}\"\naction = \"{name}\"\n");
    let value = |arg: &ArgSpec| arg.default.as_ref().map_or_else(|| "\"…\"".to_owned(), value_text);
    if !spec.args.is_empty() {
        let args: Vec<String> =
            spec.args.iter().map(|arg| format!("{} = {}", arg.name, value(arg))).collect();
        text.push_str(&format!("args = {{ {} }}\n", args.join(", ")));
    }
    text.push_str(&format!("timeout = \"{}\"\n", duration::format(spec.timeout_ms)));
    if let Some(consumed) = spec.consumes {
        text.push_str(&format!("needs = [\"{consumed}\"]\n"));
    }
    if spec.risk.is_destructive() {
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
# try it, and what may go wrong, with
#   bmdemo-cli plan simulate {name}.toml
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
# Attempts, what is worth another one (transient, permanent, needs-human), and the wait between them, which doubles.
retry = {{ max_attempts = 3, on = ["transient"], backoff = "10s", backoff_max = "1m" }}
# What happens when the outcome is not known, as after a crash in the middle of the call:
#   verify  look at the machine and go by what is seen
#   retry   do it again; only for idempotent actions
#   hold    ask an operator
# A step with a disruptive or data-destroying action must say.
on_unknown = "retry"
# Conditions of the machine that a success sets.
sets = {{ InCustomerCluster = false }}
# Carried out if the run fails or is canceled after this step has started.
compensation = {{ action = "undrain" }}

[[steps]]
name = "reboot"
action = "reboot"
timeout = "15m"
# A second reboot would interrupt the boot that the first one started.
on_unknown = "verify"

[[steps]]
name = "check"
action = "verify-connectivity"
args = {{ target = "gateway" }}
timeout = "2m"
sets = {{ Reachable = true }}
# Left out unless all of this holds: when = {{ param = {{ … }}, condition = {{ … }}, phase = [ … ] }}
when = {{ phase = ["READY", "MAINTENANCE"] }}

# What a success sets on the machine; without it the phase stays.
[result]
phase = "READY"
"#
    )
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
}
