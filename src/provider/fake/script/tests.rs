use super::*;

fn subject<'a>(machine: &'a str, kind: CallKind, name: &'a str, attempt: u32) -> Subject<'a> {
    let step = Step { name, action: "repave", attempt, run: 1 };
    Subject { machine, kind, step: Some(step) }
}

fn applies(rule: &str, subject: &Subject<'_>) -> bool {
    let script = Script::parse(rule).unwrap();
    script.applying(subject).next().is_some()
}

#[test]
fn globs_match_whole_names() {
    for (glob, text, expected) in [
        ("*", "", true),
        ("*", "machine-1", true),
        ("machine-?", "machine-1", true),
        ("machine-?", "machine-12", false),
        ("m*-2", "machine-12", false),
        ("m*-*2", "machine-12", true),
        ("machine", "machine-1", false),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b*", "xxbxxaxx", false),
        ("", "", true),
        ("", "x", false),
    ] {
        assert_eq!(matches(glob, text), expected, "{glob:?} {text:?}");
    }
}

#[test]
fn rules_are_separated_by_lines_or_semicolons_and_may_be_commented() {
    let script = Script::parse(
        "# a comment; do=nothing\n machine=a   do=fail ; step=join do=hang times=2\n\ndo=slow:1m30s # x",
    )
    .unwrap();
    assert_eq!(script.to_string(), "machine=a do=fail; step=join do=hang times=2; do=slow:1m30s");
    assert_eq!(script.rules[2].fault, Fault::Slow { ms: 90_000 });
    assert_eq!(Script::parse(&script.to_string()), Ok(script));
    assert!(Script::parse(" \n;;# x").unwrap().is_empty());
}

#[test]
fn every_key_narrows() {
    let call = subject("machine-2", CallKind::Act, "image", 3);
    for rule in [
        "do=fail",
        "machine=machine-* do=fail",
        "step=image do=fail",
        "step=repave do=fail",
        "attempt=3 run=1 do=fail",
        "attempt=* run=* do=fail",
        "call=act do=hang",
        "do=unreachable",
    ] {
        assert!(applies(rule, &call), "{rule}");
    }
    for rule in [
        "machine=machine-1 do=fail",
        "step=join do=fail",
        "attempt=1 do=fail",
        "run=2 do=fail",
        "call=verify do=fail",
        "do=unknowable",
        "do=degraded",
    ] {
        assert!(!applies(rule, &call), "{rule}");
    }
}

#[test]
fn a_probe_belongs_to_no_step() {
    let probe = Subject { machine: "machine-1", kind: CallKind::Probe, step: None };
    assert!(applies("do=unreachable", &probe));
    assert!(applies("step=* do=flap", &probe));
    assert!(applies("do=degraded", &probe));
    assert!(!applies("step=join do=unreachable", &probe));
    assert!(!applies("attempt=1 do=unreachable", &probe));
    assert!(!applies("do=fail", &probe));
    assert!(applies("call=probe do=fail", &probe));
}

#[test]
fn errors_name_the_rule_and_what_was_expected() {
    let bad = [
        "do=fail; machine=a",
        "do=explode",
        "machin=a do=fail",
        "broken do=fail",
        "do=fail do=hang",
        "machine= do=fail",
        "attempt=0 do=fail",
        "run=x do=fail",
        "times=* do=fail",
        "p=2 do=fail",
        "p=NaN do=fail",
        "do=slow:fast",
        "do=slow:",
        "do=slow:5",
        "call=poke do=fail",
        "call=verify do=lie",
        "call=probe do=unknowable",
    ];
    let texts: Vec<_> = bad
        .iter()
        .map(|text| format!("{text}\n    {}", Script::parse(text).unwrap_err()))
        .collect();
    crate::assert_golden!("fake-script-errors", texts.join("\n"));
}
