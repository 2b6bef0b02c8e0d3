//! The diagrams of docs/lifecycles.md, drawn from the same enumeration as the tables and statig's hierarchy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};

use statig::blocking::{IntoStateMachine, State, Superstate};

use super::samples::*;
use super::table::RUN_FACTS;
use crate::lifecycle::machine::{Phase, PhaseMachine};
use crate::lifecycle::run::{self, RunMachine};
use crate::lifecycle::step::{self, StepMachine};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lifecycles.md");

/// Superstates of a state, inner first.
fn ancestry<M>(mut state: M::State) -> Vec<String>
where
    M: IntoStateMachine,
    M::State: State<M>,
    for<'s> M::Superstate<'s>: Superstate<M> + Debug,
{
    fn walk<M>(mut group: M::Superstate<'_>, found: &mut Vec<String>)
    where
        M: IntoStateMachine,
        for<'s> M::Superstate<'s>: Superstate<M> + Debug,
    {
        let text = format!("{group:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default();
        found.push(snake_case(name));
        if let Some(outer) = group.superstate() {
            walk::<M>(outer, found);
        }
    }
    let mut found = Vec::new();
    if let Some(group) = state.superstate() {
        walk::<M>(group, &mut found);
    }
    found
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// A machine as it is drawn.
struct Diagram {
    initial: &'static str,
    /// Leaves in the order of the samples, each with its groups, inner first.
    leaves: Vec<(&'static str, Vec<String>)>,
    /// From, event, to.
    edges: BTreeSet<(&'static str, &'static str, &'static str)>,
}

impl Diagram {
    fn new(initial: &'static str) -> Self {
        Self { initial, leaves: Vec::new(), edges: BTreeSet::new() }
    }

    fn leaf(&mut self, name: &'static str, groups: Vec<String>) {
        if !self.leaves.iter().any(|(known, _)| *known == name) {
            self.leaves.push((name, groups));
        }
    }

    /// Groups, outer first, each with its leaves.
    fn groups(&self) -> Vec<(&str, BTreeSet<&'static str>)> {
        let mut groups: BTreeMap<&str, BTreeSet<&'static str>> = BTreeMap::new();
        for (leaf, ancestors) in &self.leaves {
            for group in ancestors {
                groups.entry(group).or_default().insert(leaf);
            }
        }
        let mut sorted: Vec<_> = groups.into_iter().collect();
        sorted.sort_by_key(|(_, leaves)| std::cmp::Reverse(leaves.len()));
        sorted
    }

    /// Edges between nodes, with their events: an edge that all states of a group have becomes an edge of the group.
    /// An edge into the group itself stays with its leaves, since Mermaid cannot draw it.
    fn arrows(&self) -> BTreeMap<(String, &'static str), Vec<&'static str>> {
        let mut sources: BTreeMap<(&'static str, &'static str), BTreeSet<&'static str>> =
            BTreeMap::new();
        for (from, event, to) in &self.edges {
            sources.entry((event, to)).or_default().insert(from);
        }
        let mut arrows: BTreeMap<(String, &'static str), Vec<&'static str>> = BTreeMap::new();
        for ((event, to), mut from) in sources {
            for (group, leaves) in self.groups() {
                if leaves.len() > 1 && !leaves.contains(to) && leaves.is_subset(&from) {
                    from.retain(|leaf| !leaves.contains(leaf));
                    arrows.entry((group.to_owned(), to)).or_default().push(event);
                }
            }
            for leaf in from {
                arrows.entry((leaf.to_owned(), to)).or_default().push(event);
            }
        }
        arrows
    }

    fn render_group(&self, depth: usize, path: &[&str], text: &mut String) {
        let indent = "    ".repeat(depth + 1);
        let mut drawn = BTreeSet::new();
        for (leaf, ancestors) in &self.leaves {
            let outer_first: Vec<_> = ancestors.iter().rev().map(String::as_str).collect();
            if !outer_first.starts_with(path) {
                continue;
            }
            match outer_first.get(path.len()) {
                None => {
                    let _ = writeln!(text, "{indent}{leaf}");
                }
                Some(group) if drawn.insert(*group) => {
                    let inner: Vec<_> = path.iter().copied().chain([*group]).collect();
                    let _ = writeln!(text, "{indent}state {group} {{");
                    self.render_group(depth + 1, &inner, text);
                    let _ = writeln!(text, "{indent}}}");
                }
                Some(_) => {}
            }
        }
    }

    fn mermaid(&self) -> String {
        let mut text = String::from("stateDiagram-v2\n");
        self.render_group(0, &[], &mut text);
        let _ = writeln!(text, "    [*] --> {}", self.initial);
        let arrows = self.arrows();
        for ((from, to), events) in &arrows {
            let _ = writeln!(text, "    {from} --> {to}: {}", events.join(", "));
        }
        for (leaf, _) in &self.leaves {
            if !self.edges.iter().any(|(from, ..)| from == leaf) {
                let _ = writeln!(text, "    {leaf} --> [*]");
            }
        }
        text
    }
}

fn machine() -> Diagram {
    let mut diagram = Diagram::new(phase_name(Phase::FactoryReady));
    for from in phases() {
        diagram.leaf(phase_name(from), ancestry::<PhaseMachine>(from));
        for to in from.targets() {
            diagram.edges.insert((phase_name(from), "set", phase_name(to)));
        }
    }
    diagram
}

fn run() -> Diagram {
    let mut diagram = Diagram::new(run_state_name(run::State::Pending));
    let all_facts = RUN_FACTS.into_iter().map(|(_, facts)| facts).chain([run::Facts::default()]);
    for (from, facts) in
        run_states().into_iter().flat_map(|s| all_facts.clone().map(move |f| (s, f)))
    {
        diagram.leaf(run_state_name(from), ancestry::<RunMachine>(from));
        for event in run_events() {
            if let Ok(to) = run::apply(from, event, facts)
                && to != from
            {
                let edge = (run_state_name(from), run_event_name(event), run_state_name(to));
                diagram.edges.insert(edge);
            }
        }
    }
    diagram
}

fn step() -> Diagram {
    let mut diagram = Diagram::new(step_state_name(step::State::Waiting));
    for from in step_states() {
        diagram.leaf(step_state_name(from), ancestry::<StepMachine>(from));
        for (event, setting) in step_events()
            .into_iter()
            .flat_map(|event| settings().into_iter().chain([BASE]).map(move |s| (event, s)))
        {
            if let Ok((to, _)) = step::apply(setting.rules, from, event, setting.facts)
                && to != from
            {
                let edge = (step_state_name(from), step_event_name(event), step_state_name(to));
                diagram.edges.insert(edge);
            }
        }
    }
    diagram
}

/// The document with its diagrams redrawn.
fn redrawn(document: &str) -> String {
    let mut text = document.to_owned();
    for (name, diagram) in [("machine", machine()), ("run", run()), ("step", step())] {
        let (begin, end) = (format!("<!-- diagram: {name} -->\n"), "<!-- end -->");
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {begin}"));
        let drawn = format!("```mermaid\n{}```\n", diagram.mermaid());
        text = format!("{before}{begin}{drawn}{end}{after}");
    }
    text
}

#[test]
fn the_diagrams_of_the_documents_are_current() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let wanted = redrawn(&document);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(DOCUMENT, wanted).unwrap();
        return;
    }
    assert!(
        document == wanted,
        "docs/lifecycles.md is out of date; redraw it with: UPDATE_DOCS=1 cargo test --lib lifecycle::tests::diagram"
    );
}

/// A group has an edge if all of its leaves have it, and only then.
#[test]
fn arrows_are_lifted_to_groups() {
    let mut diagram = Diagram::new("a");
    diagram.leaf("a", vec!["inner".to_owned(), "outer".to_owned()]);
    diagram.leaf("b", vec!["inner".to_owned(), "outer".to_owned()]);
    diagram.leaf("c", vec!["outer".to_owned()]);
    diagram.leaf("d", Vec::new());
    for edge in
        [("a", "x", "d"), ("b", "x", "d"), ("c", "x", "d"), ("a", "y", "d"), ("b", "y", "d")]
    {
        diagram.edges.insert(edge);
    }
    diagram.edges.insert(("a", "z", "c"));
    diagram.edges.insert(("b", "z", "c"));
    let arrows: Vec<_> = diagram.arrows().into_iter().collect();
    assert_eq!(
        arrows,
        [
            (("inner".to_owned(), "c"), vec!["z"]),
            (("inner".to_owned(), "d"), vec!["y"]),
            (("outer".to_owned(), "d"), vec!["x"]),
        ]
    );
}
