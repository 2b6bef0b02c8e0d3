//! Output for plan authors: drawings of plans, the actions, a template.

use std::io::{self, Write};

use crate::pb;
use crate::plan::schema::WAIT;
use crate::plan::{ActionSpec, Actions, ArgSpec, Capability, Plan, Risk, Role, Value, duration};

use super::table::write_plain;
use super::text::{Look, Meaning, padded, sanitized, wrapped};

/// A step to be drawn.
#[derive(Debug)]
struct Node {
    name: String,
    action: String,
    destructive: bool,
    needs: Vec<String>,
    compensation: Option<String>,
    role: Role,
}

/// A plan to be drawn, whatever its source.
#[derive(Debug)]
pub(crate) struct Drawing {
    id: String,
    steps: Vec<Node>,
}

impl Drawing {
    /// A plan from a file.
    pub(crate) fn of_file(plan: &Plan) -> Self {
        let steps = plan.steps.iter().map(|step| Node {
            name: step.name.to_string(),
            action: step.action.name.to_string(),
            destructive: step.action.traits.risk.is_destructive(),
            needs: step.needs.iter().map(ToString::to_string).collect(),
            compensation: step.compensation.as_ref().map(|undo| undo.action.name.to_string()),
            role: step.role,
        });
        Self { id: plan.id.to_string(), steps: steps.collect() }
    }

    /// A plan from the server.
    pub(crate) fn of_server(plan: &pb::Plan) -> Self {
        let steps = plan.steps.iter().map(|step| Node {
            name: sanitized(&step.name).into_owned(),
            action: sanitized(&step.action).into_owned(),
            destructive: step.destructive,
            needs: step.needs.iter().map(|name| sanitized(name).into_owned()).collect(),
            compensation: Some(sanitized(&step.compensation).into_owned())
                .filter(|action| !action.is_empty()),
            role: Role::parse(&step.role).unwrap_or(Role::Main),
        });
        Self { id: sanitized(&plan.plan_id).into_owned(), steps: steps.collect() }
    }

    fn last_main(&self) -> Option<usize> {
        self.steps.iter().rposition(|step| step.role == Role::Main)
    }

    fn first(&self, role: Role) -> Option<usize> {
        self.steps.iter().position(|step| step.role == role)
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
            let (from, to) = (self.steps[at - 1].role, self.steps[at].role);
            if from == to {
                writeln!(out, "    s{} --> s{at}", at - 1)?;
            }
        }
        if let Some(last) = self.last_main() {
            if let Some(at) = self.first(Role::OnFailure) {
                writeln!(out, "    s{last} -. if a step fails .-> s{at}")?;
            }
            if let Some(at) = self.first(Role::Finally) {
                writeln!(out, "    s{last} -. whatever the end .-> s{at}")?;
            }
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
            if self.steps[at - 1].role == self.steps[at].role {
                writeln!(out, "    s{} -> s{at};", at - 1)?;
            }
        }
        if let Some(last) = self.last_main() {
            if let Some(at) = self.first(Role::OnFailure) {
                writeln!(out, "    s{last} -> s{at} [style=dotted, label=\"if a step fails\"];")?;
            }
            if let Some(at) = self.first(Role::Finally) {
                writeln!(out, "    s{last} -> s{at} [style=dotted, label=\"whatever the end\"];")?;
            }
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
pub(crate) fn write_actions(out: &mut dyn Write, look: Look, actions: &Actions) -> io::Result<()> {
    let rows: Vec<Vec<String>> = actions
        .iter()
        .map(|spec| {
            let risk = if spec.risk == Risk::None { "-" } else { spec.risk.as_str() };
            let cells = [&*spec.name, spec.capability.as_str(), risk, &*spec.description];
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
        let label = look.paint(Meaning::Dim, &padded(&format!("{label}:"), 16));
        writeln!(out, "{}", wrapped(look, &format!("{label}{value}"), 16))
    };
    field(out, "Action", &spec.name)?;
    field(out, "What it does", &spec.description)?;
    let capability = if spec.capability == Capability::Engine {
        "none, the engine does it itself"
    } else {
        spec.capability.as_str()
    };
    field(out, "Capability", capability)?;
    field(out, "Risk", spec.risk.as_str())?;
    field(out, "Idempotent", yes_no(spec.idempotent))?;
    if spec.risk.is_destructive() {
        field(
            out,
            "Cancel",
            if spec.interruptible { "stops it midway" } else { "waits for its end" },
        )?;
    }
    field(out, "Timeout", &duration::format(spec.timeout_ms))?;
    field(out, "Expected", &duration::format(spec.expected_ms))?;
    if let Some(consumed) = &spec.consumes {
        field(
            out,
            "Needs",
            &format!("an earlier step with the action {}, named in `needs`", consumed),
        )?;
    }
    if !spec.args.is_empty() {
        writeln!(out, "\n{}", look.paint(Meaning::Strong, "Arguments"))?;
    }
    for arg in spec.args.iter() {
        let default = match &arg.default {
            Some(value) => format!("default {}", value_text(value)),
            None if arg.is_optional => "optional".to_owned(),
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

/// A step with this action, with every argument spelled out.
fn sample_step(spec: &ActionSpec) -> String {
    let name = &spec.name;
    let mut text = format!("[[steps]]\nname = \"{name}\"\naction = \"{name}\"\n");
    let value = |arg: &ArgSpec| arg.default.as_ref().map_or_else(|| "\"…\"".to_owned(), value_text);
    if spec.name == WAIT {
        return text
            + "args = { for = \"10m\" }\n# or: until = { condition = { Reachable = true } }\n";
    }
    if !spec.args.is_empty() {
        let given = spec.args.iter().filter(|arg| !arg.is_optional);
        let args: Vec<String> = given.map(|arg| format!("{} = {}", arg.name, value(arg))).collect();
        text.push_str(&format!("args = {{ {} }}\n", args.join(", ")));
    }
    text.push_str(&format!("timeout = \"{}\"\n", duration::format(spec.timeout_ms)));
    if let Some(consumed) = &spec.consumes {
        text.push_str(&format!("needs = [\"{consumed}\"]\n"));
    }
    if spec.risk.is_destructive() {
        text.push_str("on_unknown = \"verify\"\n");
    }
    text
}

/// A commented starter plan.
pub(crate) fn template(name: &str) -> String {
    let title: String =
        name.chars().take(1).flat_map(char::to_uppercase).chain(name.chars().skip(1)).collect();
    let title = title.replace('-', " ");
    include_str!("template.toml").replace("{name}", name).replace("{title}", &title)
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
            write_actions(out, look, Actions::BUILT_IN)?;
            ActionSpec::all().iter().try_for_each(|spec| {
                writeln!(out)?;
                write_action(out, look, spec)
            })
        });
        crate::assert_golden!("plan_explain", text);
    }
}
