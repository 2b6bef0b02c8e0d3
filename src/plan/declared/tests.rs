use super::*;
use crate::plan::{Arg, compile_with, render};

const FIRMWARE: &str = include_str!("../../../examples/actions/update-firmware.toml");
const PLAN: &str = "id = \"plan/own\"\ndisplay_name = \"Own\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"update\"\n\
                    action = \"update-firmware\"\n";

fn rendered(texts: &[&str]) -> String {
    let names = ["a.toml", "b.toml"];
    let files: Vec<SourceFile<'_>> = names
        .iter()
        .zip(texts)
        .map(|(name, text)| SourceFile { name, bytes: text.as_bytes() })
        .collect();
    match compile_actions(&files) {
        Ok(actions) => format!("{:#?}\n", actions.own()),
        Err(diagnostics) => render(&files, &diagnostics, false),
    }
}

fn firmware() -> Actions {
    compile_actions(&[SourceFile { name: "a.toml", bytes: FIRMWARE.as_bytes() }]).unwrap()
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let mut shown = String::new();
    for texts in [
        &[""][..],
        &["name = \"a\""],
        &[
            "name = \"reboot\"\ndescription = \"d\"\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"",
        ],
        &[
            "name = \"a\"\ndescription = \"d\"\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"",
            "name = \"a\"\ndescription = \"d\"\nrisk = \"nnoe\"\nidempotent = \"yes\"\ntimeout = \"25h\"",
        ],
        &[
            "name = \"A b\"\ndescription = 7\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"\nexpected = \"2m\"",
        ],
        &[
            "name = \"a\"\ndescription = \"d\"\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"\nconsumes = \"b\"\ncapability = \"power\"",
        ],
        &[
            "name = \"a\"\ndescription = \"d\"\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"\n[args.n]\nkind = \"integer\"\none_of = [1, 2]\n[args.x]\nkind = \"strng\"\n[args.y]\nkind = \"string\"\ndefault = 7",
        ],
    ] {
        shown += &rendered(texts);
        shown.push('\n');
    }
    crate::assert_golden!("plan_broken_actions", shown);
}

/// The same diagnostics as for a built-in action.
#[test]
fn a_plan_with_a_declared_action_is_checked_like_any_other() {
    let actions = firmware();
    let mut shown = String::new();
    for step in [
        "",
        "on_unknown = \"verify\"",
        "on_unknown = \"verify\"\nargs = { version = \"1\", component = \"cpu\", speed = 7 }",
        "on_unknown = \"verify\"\nargs = { version = \"1\" }\ncompensation = { action = \"update-firmware\", args = { version = \"0\" } }",
    ] {
        let text = format!("{PLAN}{step}\n");
        let files = [SourceFile { name: "plan.toml", bytes: text.as_bytes() }];
        let diagnostics = compile_with(&files, &actions).unwrap_err();
        shown += &render(&files, &diagnostics, false);
        shown.push('\n');
    }
    crate::assert_golden!("plan_broken_actions_in_plans", shown);
}

/// A run pins what its plan took from the declaration; another declaration makes another plan.
#[test]
fn a_plan_pins_the_declaration() {
    let text = format!("{PLAN}on_unknown = \"verify\"\nargs = {{ version = \"1\" }}\n");
    let files = [SourceFile { name: "plan.toml", bytes: text.as_bytes() }];
    let plan = compile_with(&files, &firmware()).unwrap().remove(0);
    let step = &plan.steps[0];
    assert_eq!((step.timeout_ms, step.expected_ms), (3_600_000, 1_200_000));
    let traits = step.action.traits;
    assert_eq!((traits.capability, traits.risk), (Capability::Custom, Risk::Disruptive));
    assert!(traits.idempotent && !traits.interruptible);
    let component = Arg::Literal(Value::Str("bios".into()));
    assert_eq!(step.action.args[0], ("component".into(), component));
    let pinned = crate::plan::Plan::from_canonical(&plan.canonical()).unwrap();
    assert_eq!(pinned, plan);

    let changed = FIRMWARE
        .replace("idempotent = true", "idempotent = false")
        .replace("\"bios\"\n", "\"bmc\"\n");
    let actions =
        compile_actions(&[SourceFile { name: "a.toml", bytes: changed.as_bytes() }]).unwrap();
    let other = compile_with(&files, &actions).unwrap().remove(0);
    assert_ne!(other.digest(), plan.digest());
    assert!(crate::plan::compile(&files).is_err(), "without its declaration it is no plan");
}
