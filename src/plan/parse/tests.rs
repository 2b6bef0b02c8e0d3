use std::collections::BTreeMap;

use super::*;
use crate::plan::{Around, Condition, ErrorClass, OnUnknown, Phase, Role, RunType, Value, render};

/// Uses every key that a plan can have.
const EVERYTHING: &str = r#"
id = "plan/everything"
display_name = "Everything"
description = """
Uses every key.
In two lines."""
default_for = "NET_RECONFIG"
destructive = true
allow_destructive = true
role = "admin"
allowed_phases = ["MAINTENANCE", "READY"]
refused_effective = ["IN_SERVICE", "PROVISIONING"]
refused_hint = "Not now."
required_conditions = { Reachable = true, Degraded = false }
time_limit = "8h"

[params.wipe]
kind = "boolean"
default = true
description = "Whether to erase first."

[params.image]
kind = "string"
one_of = ["debian-13", "ubuntu-24.04"]

[params.settle]
kind = "duration"
default = "1m30s"

[params.level]
kind = "integer"
default = 0x10

[[steps]]
name = "wipe"
action = "wipe"
args = { method = "quick" }
timeout = "2h"
expected = "20m"
retry = { max_attempts = 4, on = ["permanent", "transient"], backoff = "2s", backoff_max = "1m" }
on_unknown = "hold"
when = { param = { wipe = true, level = 16 }, condition = { InCustomerCluster = false }, phase = ["READY", "MAINTENANCE"], label = { rack = "r1", spare = "" }, provider = ["redfish", "fake"] }

[[steps]]
name = "repave"
action = "repave"
args = { image = { param = "image" } }
on_unknown = "retry"
needs = ["wipe"]
compensation = { action = "notify", args = { channel = "operators", message = "{image} of {{level}} {level}" }, timeout = "30s", retry = { max_attempts = 5 } }

[[steps]]
name = "mint"
action = "mint-join"

[[steps]]
name = "join"
action = "join"
needs = ["mint", "wipe"]
sets = { InCustomerCluster = true, Reachable = true }

[[steps]]
name = "check"
action = "verify"
args = { settle = { param = "settle" } }
timeout = "10s"
retry = { max_attempts = 1, backoff = "2m" }

[[steps]]
name = "soak"
action = "wait"
args = { for = { param = "settle" } }
when = { output = { mint = { handle = "h-1", level = 3, fresh = true } } }

[[steps]]
name = "tested"
action = "wait"
until = { condition = { Reachable = true }, label = { burn-in = "passed" } }
timeout = "7d"

[[steps]]
name = "ask"
action = "approve"
args = { message = "Put {image} into service?" }
timeout = "3d"

[[on_failure]]
name = "tell"
action = "notify"

[[finally]]
name = "bye"
action = "undrain"
sets = { InCustomerCluster = true }

[result]
phase = "READY"
conditions = { NeedsIntervention = false }
"#;

fn compiled(text: &str) -> Plan {
    let files = [SourceFile { name: "x.toml", bytes: text.as_bytes() }];
    let mut plans = compile(&files)
        .unwrap_or_else(|diagnostics| panic!("{}", render(&files, &diagnostics, false)));
    plans.remove(0)
}

#[test]
fn reads_every_key() {
    crate::assert_golden!("plan_everything", format!("{:#?}", compiled(EVERYTHING)));
}

#[test]
fn line_ends_and_byte_order_mark_change_nothing() {
    let plan = compiled(EVERYTHING);
    assert_eq!(compiled(&format!("\u{feff}{EVERYTHING}")), plan);
    assert_eq!(compiled(&EVERYTHING.replace('\n', "\r\n")), plan);
}

#[test]
fn defaults_are_sane() {
    let plan = compiled(
        "id = \"plan/small\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"a\"\naction = \"notify\"\n",
    );
    assert_eq!(
        (plan.display_name.as_ref(), plan.run_type(), plan.destructive),
        ("small", RunType::Custom, false)
    );
    let step = &plan.steps[0];
    // Not idempotent, so never repeated blindly.
    assert_eq!(
        (step.on_unknown, step.timeout_ms, step.expected_ms),
        (OnUnknown::Verify, 60_000, 2_000)
    );
    assert!(
        step.retry.again(ErrorClass::Transient, 2) && !step.retry.again(ErrorClass::Transient, 3)
    );
    assert!(!step.retry.again(ErrorClass::Permanent, 1));
}

#[test]
fn doubled_braces_do_not_lead_past_the_values_that_are_taken() {
    let text = "id = \"plan/small\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"a\"\naction = \"set-netboot\"\nargs = { target = \"pxe}}\" }\n";
    let files = [SourceFile { name: "x.toml", bytes: text.as_bytes() }];
    let diagnostics = compile(&files).unwrap_err();
    let codes: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["plan::not-one-of"]);
}

#[test]
fn expected_never_outgrows_the_timeout() {
    let check = compiled(EVERYTHING);
    let check = check.step("check").unwrap();
    assert_eq!((check.timeout_ms, check.expected_ms), (10_000, 5_000));
    assert_eq!((check.retry.backoff_ms, check.retry.backoff_max_ms), (120_000, 120_000));
}

#[test]
fn guards_hold_when_all_of_it_does() {
    let plan = compiled(EVERYTHING);
    let guard = plan.steps[0].when.as_ref().unwrap();
    let given = |wipe: &str| {
        BTreeMap::from([
            ("image".to_owned(), "debian-13".to_owned()),
            ("wipe".to_owned(), wipe.to_owned()),
        ])
    };
    let (yes, no) = (plan.bind(&given("true")).unwrap(), plan.bind(&given("false")).unwrap());
    let in_cluster: fn(Condition) -> bool = |condition| condition == Condition::InCustomerCluster;
    let around = Seen {
        params: &yes,
        phase: Phase::Ready,
        condition: |_| false,
        labels: BTreeMap::from([("rack", "r1")]),
        provider: "fake",
        outputs: BTreeMap::new(),
    };
    assert!(guard.holds(&around));
    assert!(!guard.holds(&Seen { params: &no, ..around.clone() }));
    assert!(!guard.holds(&Seen { phase: Phase::Rma, ..around.clone() }));
    assert!(!guard.holds(&Seen { condition: in_cluster, ..around.clone() }));
    assert!(!guard.holds(&Seen { provider: "other", ..around.clone() }));
    for labels in
        [BTreeMap::from([("rack", "r2")]), BTreeMap::from([("rack", "r1"), ("spare", "1")])]
    {
        assert!(!guard.holds(&Seen { labels, ..around.clone() }));
    }
    let guard = plan.step("soak").unwrap().when.as_ref().unwrap();
    assert!(!guard.holds(&around), "nothing is given");
    let mut outputs = BTreeMap::from([
        (("mint", "handle"), Value::Str("h-1".into())),
        (("mint", "level"), Value::Int(3)),
        (("mint", "fresh"), Value::Bool(true)),
    ]);
    assert!(guard.holds(&Seen { outputs: outputs.clone(), ..around.clone() }));
    outputs.insert(("mint", "level"), Value::Int(4));
    assert!(!guard.holds(&Seen { outputs, ..around }));
}

#[derive(Clone)]
struct Seen<'a> {
    params: &'a BTreeMap<String, Value>,
    phase: Phase,
    condition: fn(Condition) -> bool,
    labels: BTreeMap<&'a str, &'a str>,
    provider: &'a str,
    outputs: BTreeMap<(&'a str, &'a str), Value>,
}

impl Around for Seen<'_> {
    fn param(&self, name: &str) -> Option<&Value> {
        self.params.get(name)
    }

    fn condition(&self, condition: Condition) -> bool {
        (self.condition)(condition)
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).copied()
    }

    fn provider(&self) -> &str {
        self.provider
    }

    fn output(&self, step: &str, name: &str) -> Option<&Value> {
        let mut given = self.outputs.iter();
        given.find(|(of, _)| of.0 == step && of.1 == name).map(|(_, value)| value)
    }
}

#[test]
fn steps_have_their_roles_in_order() {
    let plan = compiled(EVERYTHING);
    let roles: Vec<Role> = plan.steps.iter().map(|step| step.role).collect();
    assert!(roles.is_sorted());
    assert_eq!(roles[8..], [Role::OnFailure, Role::Finally]);
    assert_eq!(plan.time_limit_ms, Some(8 * 60 * 60 * 1_000));
}

#[test]
fn arguments_resolve_to_values() {
    let plan = compiled(EVERYTHING);
    let params =
        plan.bind(&BTreeMap::from([("image".to_owned(), "debian-13".to_owned())])).unwrap();
    let texts = |name: &str| {
        let action = &plan.step(name).unwrap().action;
        action
            .resolve(&params)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("wipe"), ["method=quick"]);
    assert_eq!(texts("repave"), ["image=debian-13"]);
    assert_eq!(texts("mint"), ["ttl=15m"]);
    assert_eq!(texts("check"), ["settle=1m30s"]);
    let undo = plan.step("repave").unwrap().compensation.as_ref().unwrap();
    assert_eq!(undo.action.resolve(&params)["channel"], Value::Str("operators".into()));
    assert_eq!(
        undo.action.resolve(&params)["message"],
        Value::Str("debian-13 of {level} 16".into())
    );
    assert_eq!(texts("ask"), ["message=Put debian-13 into service?"]);
}

#[test]
fn capabilities_include_those_of_compensations() {
    let plan = compiled(EVERYTHING);
    let texts: Vec<String> = plan
        .capabilities()
        .map(|(step, capability)| format!("{} {capability}", step.name))
        .collect();
    assert_eq!(
        texts,
        [
            "wipe wipe",
            "repave imaging",
            "repave notify",
            "mint cluster-join",
            "join cluster-join",
            "check probe",
            "tell notify",
            "bye drain"
        ]
    );
}

#[test]
fn plans_come_sorted_by_id() {
    let text = |id: &str| {
        format!(
            "id = \"plan/{id}\"\nallowed_phases = [\"READY\"]\n[[steps]]\nname = \"a\"\naction = \"undrain\"\n"
        )
    };
    let (b, a) = (text("b"), text("a"));
    let files = [
        SourceFile { name: "1.toml", bytes: b.as_bytes() },
        SourceFile { name: "2.toml", bytes: a.as_bytes() },
    ];
    let ids: Vec<String> =
        compile(&files).unwrap().into_iter().map(|plan| plan.id.into_owned()).collect();
    assert_eq!(ids, ["plan/a", "plan/b"]);
    assert_eq!(compile(&[]), Ok(Vec::new()));
}
