mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::{machine, run};
use crate::model::{
    Actor, Condition, ConditionKind, MachineSpec, RunError, RunErrorCode, RunSpec, RunType,
    StepRecord,
};

const RUN_ID: &str = "018bcfe5-6800-7000-8000-000000000000";

fn a_machine() -> Machine {
    let labels = [("rack", "r1"), ("example.com/role", "gpu worker"), ("empty", "")];
    let spec = MachineSpec {
        provider: "fake".to_owned(),
        target_cluster: "east".to_owned(),
        mac_addresses: vec!["02:00:00:00:00:01".to_owned()],
        serial: "SN*1".to_owned(),
        ..MachineSpec::default()
    };
    let mut machine = Machine::registered(
        MachineId::parse("machine-1").unwrap(),
        labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        spec,
        Timestamp(1_700_000_000_000),
    );
    machine.phase = machine::Phase::Ready;
    machine.revision = Revision(7);
    for (kind, status) in [(ConditionKind::Reachable, true), (ConditionKind::Degraded, false)] {
        let condition = Condition {
            status,
            reason: String::new(),
            message: String::new(),
            last_transition_at: Timestamp(0),
            observed_by: String::new(),
            plan_id: String::new(),
        };
        machine.conditions.set(kind, condition);
    }
    machine
}

fn a_run() -> Run {
    Run {
        id: RunId::parse(RUN_ID).unwrap(),
        machine_id: MachineId::parse("machine-1").unwrap(),
        spec: Arc::new(RunSpec {
            labels: Some([("rack".to_owned(), "r1".to_owned())].into()),
            provider: "fake".to_owned(),
            request_id: "req-1".to_owned(),
            run_type: RunType::Repave,
            plan_id: "plan/repave-join".to_owned(),
            plan_digest: String::new(),
            parameters: BTreeMap::new(),
            retry_of: None,
            requested_by: Actor::engine(),
            reason: String::new(),
            forced: false,
        }),
        state: run::State::Failed,
        steps: ["set-netboot", "repave"].map(StepRecord::waiting).into_iter().collect(),
        current_step: Some(1),
        error: Some(RunError {
            code: RunErrorCode::StepFailed,
            message: String::new(),
            retryable: true,
            step: "repave".to_owned(),
        }),
        hold: None,
        cancel_requested_at: None,
        queued_at: None,
        created_at: Timestamp(1_700_000_000_000),
        started_at: Some(Timestamp(1_700_000_001_000)),
        finished_at: None,
        ordinal: 1,
        revision: Revision(9),
    }
}

fn machines(text: &str) -> bool {
    Filter::parse(text, Subject::Machine)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .matches_machine(&a_machine())
}

fn runs(text: &str) -> bool {
    Filter::parse(text, Subject::Run)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .matches_run(&a_run())
}

#[test]
fn machines_that_match() {
    for text in [
        "",
        "  ",
        "machine_id=machine-1",
        "phase=READY",
        "phase = PHASE_READY",
        "phase = READY AND labels.rack = \"r1\" AND conditions.Degraded = false",
        "status.phase != IN_SERVICE",
        "effective_state = READY",
        "spec.provider = fake AND provider = 'fake'",
        "machine_id = \"mach*\" AND machine_id = *-1 AND machine_id = m*ch*1 AND machine_id = *",
        "labels.\"example.com/role\" = \"gpu worker\"",
        "labels.example.com/role = \"gpu*\"",
        "labels:rack AND labels.rack:* AND labels.rack:r1 AND labels.empty:* AND labels.empty = \"\"",
        "NOT labels.row:* AND labels.row != x AND -labels.row = \"\"",
        "conditions.Reachable = true AND conditions:Degraded AND NOT conditions.NeedsIntervention:*",
        "conditions.NeedsIntervention != true",
        "active_run_id = \"\" AND NOT active_run_id:*",
        "mac_addresses:02:00:00:00:00:01 AND mac_addresses:\"02:00*\" AND mac_addresses:*",
        "mac_addresses:\"02:00:00:00:00:0*\"",
        "serial = \"SN\\*1\" AND serial = SN*1 AND NOT serial = \"SN\\*\"",
        "created_at = 2023-11-14T22:13:20Z AND created_at >= \"2023-11-14T23:13:20+01:00\"",
        "created_at > 2023-11-14T22:13:19.999Z AND updated_at < 2024-01-01T00:00:00Z",
        "revision >= 7 AND revision < 8",
        // OR binds tighter than AND.
        "phase = READY OR phase = RMA AND provider = fake",
        "(phase = RMA AND provider = other) OR provider = fake",
        "NOT (phase = RMA OR provider = other)",
    ] {
        assert!(machines(text), "{text}");
    }
}

#[test]
fn machines_that_do_not_match() {
    for text in [
        "machine_id=machine-10",
        "machine_id = machine",
        "machine_id = \"*-2\"",
        "machine_id = machine-1*1",
        "phase = READY AND provider = other",
        // As `(phase = READY OR phase = RMA) AND provider = other`.
        "phase = READY OR phase = RMA AND provider = other",
        "labels.row:*",
        "labels.row = \"\"",
        "conditions.NeedsIntervention = false",
        "mac_addresses:02:00:00:00:00:02",
        "serial = SN1*",
        "revision > 7",
        "created_at < 2000-01-01T00:00:00Z",
    ] {
        assert!(!machines(text), "{text}");
    }
}

#[test]
fn runs_that_match() {
    for text in [
        &format!("run_id={RUN_ID}"),
        &format!("run_id = \"{}\"", RUN_ID.to_uppercase()),
        "run_id = \"018bcfe5*\"",
        "machine_id=machine-1 AND phase=FAILED AND type=REPAVE AND provider=fake",
        "phase = RUN_PHASE_FAILED AND type = RUN_TYPE_REPAVE",
        "plan_id = repave-join AND plan_id = plan/repave-join AND plan_id = repave*",
        "request_id = req-1",
        "retry_of = \"\" AND -retry_of:*",
        "current_step = repave",
        "cancel_requested = false AND held = false",
        "error.code = STEP_FAILED AND error:* AND error.code != ABORTED",
    ] {
        assert!(runs(text), "{text}");
    }
    assert!(runs("started_at:* AND NOT finished_at:*"));
    assert!(!runs("finished_at > 1970-01-01T00:00:00Z OR finished_at <= 2100-01-01T00:00:00Z"));
    assert!(!runs("held = true"));
    assert!(!runs("plan_id = plan/reboot"));
}

#[test]
fn bad_filters_say_where_and_what_was_expected() {
    let machine_filters = [
        "phase",
        "phase READY",
        "phase =",
        "phase = ready",
        "phase = REDY",
        "phase = READY*",
        "phase < READY",
        "phase:READY",
        "phse = READY",
        "run_id = x",
        "phase = READY provider = fake",
        "phase = READY and provider = fake",
        "phase = READY AND",
        "AND phase = READY",
        "phase = AND",
        "NOT NOT phase = READY",
        "(phase = READY",
        "phase = READY)",
        "()",
        "machine_id = Machine-1",
        "machine_id == machine-1",
        "active_run_id = 12",
        "labels = r1",
        "labels. = r1",
        "labels.\"a*b\" = c",
        "conditions.Reachabel = true",
        "conditions.Reachable = yes",
        "mac_addresses = 02:00:00:00:00:01",
        "created_at > yesterday",
        "created_at > 1960-01-01T00:00:00Z",
        "revision = -1",
        "serial = \"abc",
        "serial = \"a\\qb\"",
        "ä ö",
        "\u{1b}[31m",
        "machine-1",
    ];
    let mut table = String::new();
    for text in machine_filters {
        let error = Filter::parse(text, Subject::Machine).expect_err(text);
        table += &format!("{text:?}\n    {error}\n");
    }
    for text in [
        "conditions.Degraded = true",
        "labels = r1",
        "type = REBOT",
        "error.code = ABORT",
        "held = 1",
    ] {
        let error = Filter::parse(text, Subject::Run).expect_err(text);
        table += &format!("{text:?} (runs)\n    {error}\n");
    }
    crate::assert_golden!("filter_errors", table);
}

#[test]
fn positions_count_characters_not_bytes() {
    let error = Filter::parse("serial = \"äöü\" AND phase = X", Subject::Machine).unwrap_err();
    assert_eq!(error.position, 28);
}

#[test]
fn limits_are_enforced_at_their_edges() {
    let nested = |depth: usize| format!("{}phase=RMA{}", "(".repeat(depth), ")".repeat(depth));
    let joined = |terms: usize| vec!["phase=RMA"; terms].join(" OR ");
    let sized = |bytes: usize| format!("serial={}", "x".repeat(bytes - "serial=".len()));
    for good in [nested(FILTER_DEPTH_MAX), joined(FILTER_TERMS_MAX), sized(FILTER_BYTES_MAX)] {
        Filter::parse(&good, Subject::Machine).unwrap();
    }
    for (bad, expected) in [
        (nested(FILTER_DEPTH_MAX + 1), "at most 32 levels of parentheses"),
        (joined(FILTER_TERMS_MAX + 1), "at most 128 comparisons"),
        (sized(FILTER_BYTES_MAX + 1), "at most 4096 bytes"),
    ] {
        assert_eq!(Filter::parse(&bad, Subject::Machine).unwrap_err().expected, expected);
    }
}

#[test]
fn only_what_every_match_must_have_is_pinned() {
    let pins = |text: &str, field: &str| {
        Filter::parse(text, Subject::Machine).unwrap().pinned(field).map(str::to_owned)
    };
    assert_eq!(pins("machine_id=machine-1", "machine_id").as_deref(), Some("machine-1"));
    assert_eq!(
        pins("spec.provider=x AND (phase=READY AND serial=y)", "phase").as_deref(),
        Some("READY")
    );
    assert_eq!(pins("spec.provider=x AND phase=PHASE_RMA", "provider").as_deref(), Some("x"));
    for unpinned in [
        "phase != READY",
        "NOT phase = READY",
        "phase = READY OR provider = x",
        "phase = READY OR phase = READY",
        "NOT (phase = READY AND provider = x)",
        "phase:*",
        "",
    ] {
        assert_eq!(pins(unpinned, "phase"), None, "{unpinned}");
    }
    assert_eq!(pins("machine_id = machine*", "machine_id"), None);
    let run = Filter::parse("plan_id = reboot", Subject::Run).unwrap();
    assert_eq!(run.pinned("plan_id"), Some("plan/reboot"));
}

#[test]
fn the_canonical_form_is_short_and_plain() {
    for (text, canonical) in [
        ("", ""),
        ("machine_id=machine-1", "machine_id = machine-1"),
        ("((phase=READY))AND(-(NOT(provider='a b')))", "phase = READY AND provider = \"a b\""),
        (
            "(phase=RMA AND serial=x)OR serial=\"AND\"",
            "(phase = RMA AND serial = x) OR serial = \"AND\"",
        ),
        ("labels.'a b':* AND labels:rack", "labels.\"a b\":* AND labels.rack:*"),
        ("serial = a**b", "serial = a*b"),
        ("created_at>2023-11-14T22:13:20Z", "created_at > 2023-11-14T22:13:20.000Z"),
    ] {
        assert_eq!(Filter::parse(text, Subject::Machine).unwrap().to_string(), canonical);
    }
}

/// Text of a filter generated from the grammar, with odd spacing and quoting.
fn any_filter() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z0-9./:-]{1,8}",
        "\"[a-zA-Z *ä(]{0,8}\"",
        r#""(\\"|\\\\|\\\*|\\n|[a-z*]){0,6}""#,
        "'[a-z\" ]{0,6}'",
        "[a-z]{0,3}\\*[a-z]{0,3}",
    ];
    let comparison = prop_oneof![
        (text.clone(), "[=]|!=").prop_map(|(value, op)| format!("serial {op}{value}")),
        text.clone().prop_map(|value| format!("labels.rack={value}")),
        (r#"[a-z/.]{1,6}|"[a-z ä]{1,6}""#, text).prop_map(|(key, v)| format!("labels.{key}:{v}")),
        Just("phase=RMA".to_owned()),
        Just("conditions.Degraded!=true".to_owned()),
        Just("active_run_id:*".to_owned()),
        Just("mac_addresses:\"02:*:0A\"".to_owned()),
        (0_u64..4_000_000_000_000).prop_map(|ms| format!("created_at<={}", Timestamp(ms))),
        any::<u64>().prop_map(|number| format!("revision>{number}")),
    ];
    comparison.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|all| format!("({})", all.join(" AND "))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| all.join(" OR ")),
            inner.clone().prop_map(|one| format!("NOT({one})")),
            inner.prop_map(|one| format!("-(  {one} )")),
        ]
    })
}

proptest! {
    #[test]
    fn the_canonical_form_reads_back_equal(text in any_filter()) {
        prop_assume!(text.len() < 1000);
        let filter = Filter::parse(&text, Subject::Machine).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let canonical = filter.to_string();
        let again = Filter::parse(&canonical, Subject::Machine)
            .map_err(|e| TestCaseError::fail(format!("{canonical}: {e}")))?;
        prop_assert_eq!(&again, &filter);
        prop_assert_eq!(again.to_string(), canonical);
        prop_assert_eq!(again.matches_machine(&a_machine()), filter.matches_machine(&a_machine()));
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,60}") {
        for subject in [Subject::Machine, Subject::Run] {
            if let Ok(filter) = Filter::parse(&text, subject) {
                let _ = (filter.matches_machine(&a_machine()), filter.matches_run(&a_run()));
            }
        }
    }

    #[test]
    fn random_pieces_never_panic(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "(", ")", "AND", "OR", "NOT", "-", "=", "!=", "<", ">=", ":", "*", "\"", "'", "\\", "phase",
                "READY", "labels.", "labels", "conditions.", "Degraded", "true", "created_at", "run_id", "ä", " ",
            ]),
            0..30,
        )
    ) {
        let text = pieces.concat();
        for subject in [Subject::Machine, Subject::Run] {
            if let Ok(filter) = Filter::parse(&text, subject) {
                let again = Filter::parse(&filter.to_string(), subject);
                prop_assert_eq!(again.as_ref(), Ok(&filter), "{}", filter);
            }
        }
    }

    /// Stars against a definition that does not share the code: try every split.
    #[test]
    fn wildcards_match_as_defined(pattern in "[ab*]{0,6}", held in "[ab]{0,8}") {
        fn by_definition(pattern: &[u8], held: &[u8]) -> bool {
            match pattern.split_first() {
                None => held.is_empty(),
                Some((b'*', rest)) => (0..=held.len()).any(|at| by_definition(rest, &held[at..])),
                Some((c, rest)) => held.split_first().is_some_and(|(h, held)| h == c && by_definition(rest, held)),
            }
        }
        let mut machine = a_machine();
        machine.spec.serial = held.clone();
        let filter = Filter::parse(&format!("serial = \"{pattern}\""), Subject::Machine).unwrap();
        prop_assert_eq!(
            filter.matches_machine(&machine),
            by_definition(pattern.as_bytes(), held.as_bytes())
        );
    }
}

#[test]
fn every_field_and_value_is_documented() {
    let text = include_str!("../../../docs/filters.md");
    let (machines, runs) = text.split_once("## Fields of runs").unwrap();
    for (subject, text) in [(Subject::Machine, machines), (Subject::Run, runs)] {
        for (name, kind) in fields::documented(subject) {
            let row = text
                .lines()
                .find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
            let row =
                row.unwrap_or_else(|| panic!("{name} of {subject:?} is not in docs/filters.md"));
            if let fields::Kind::Name { names, .. } = kind
                && !row.contains("as phase")
            {
                for name in names {
                    assert!(row.contains(name), "{name} is not in: {row}");
                }
            }
        }
    }
}

#[test]
fn two_filters_are_joined() {
    let filter = |text: &str| Filter::parse(text, Subject::Machine).unwrap();
    let joined = |one: &str, other: &str| filter(one).and(filter(other)).to_string();
    assert_eq!(joined("", ""), "");
    assert_eq!(joined("phase = READY", ""), "phase = READY");
    assert_eq!(joined("", "phase = READY"), "phase = READY");
    assert_eq!(joined("phase = READY", "phase=READY"), "phase = READY");
    assert_eq!(
        joined("phase = READY OR phase = RMA", "labels.rack = r1 AND provider = fake"),
        "phase = READY OR phase = RMA AND labels.rack = r1 AND provider = fake"
    );
    assert_eq!(
        joined("NOT (a_b = c)".replace("a_b", "serial").as_str(), "serial = x"),
        "NOT serial = c AND serial = x"
    );
    let both = filter("provider = fake").and(filter("labels.rack = r1"));
    assert_eq!(both.pinned("labels.rack"), Some("r1"));
    let machine = a_machine();
    for text in ["provider = fake", "provider = other", "labels.rack = r1", "phase = RMA"] {
        for other in ["provider = fake", "labels.rack = nowhere"] {
            let wanted =
                filter(text).matches_machine(&machine) && filter(other).matches_machine(&machine);
            let joined = filter(text).and(filter(other));
            assert_eq!(joined.matches_machine(&machine), wanted, "{joined}");
            assert_eq!(filter(&joined.to_string()), joined, "it reads back");
        }
    }
}
