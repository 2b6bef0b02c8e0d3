use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::ids::{OperationId, Revision};
use crate::lifecycle;
use crate::model::{Actor, Condition, ConditionKind, Entry, EntryKind, Run, RunDelta};
use crate::store::samples::{self, Sampler};

proptest! {
    #[test]
    fn records_read_back_as_they_were_written(seed: u64) {
        let mut sampler = Sampler::new(seed);
        let machine = sampler.machine();
        let read = decode_machine(&encode_machine(&machine), machine.ordinal, machine.revision);
        prop_assert_eq!(read, Ok(machine));
        let run = sampler.run();
        prop_assert_eq!(decode_run(&encode_run(&run), run.ordinal, run.revision), Ok(run.clone()));
        let after = sampler.change_run(&run);
        let delta = RunDelta::between(Some(&run), &after);
        let text = encode_delta(&delta, run.id);
        let read = decode_delta(&text, Some(run.id), after.ordinal, after.revision);
        prop_assert_eq!(read, Ok(delta));
        let entries: Vec<_> = (0..sampler.below(4)).map(|_| sampler.entry()).collect();
        prop_assert_eq!(decode_entries(&encode_entries(&entries)), Ok(entries));
    }

    #[test]
    fn damaged_records_are_errors_or_other_records_but_never_a_panic(seed: u64, at: usize, with: u8) {
        let run = Sampler::new(seed).run();
        let mut bytes = encode_run(&run).into_bytes();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = decode_run(&text, 1, Revision(1));
        }
    }
}

/// A run in the middle of its second step.
fn running() -> Run {
    let machine = samples::machine(1);
    let mut run = samples::run(1, &machine.id);
    run.state = lifecycle::run::State::Running;
    run.started_at = Some(Timestamp(1_700_000_000_100));
    run.current_step = Some(1);
    run.steps[0].state = lifecycle::step::State::Succeeded;
    let until = Timestamp(1_700_000_009_000);
    let step = &mut run.steps[1];
    let basis = lifecycle::step::Basis::Unknown { checks: 1, cut_off: false };
    step.state = lifecycle::step::State::BackingOff { attempt: 2, until, basis };
    step.attempt = 2;
    step.operation = Some(OperationId::new(run.id, "repave", 2));
    step.expected = "image v2".to_owned();
    step.observed = "image v1".to_owned();
    run
}

/// What is stored today has to be readable forever: a difference here is a change of the format.
#[test]
fn the_stored_format_is_locked() {
    let mut machine = samples::machine(1);
    machine.labels.insert("rack".to_owned(), "r1".to_owned());
    machine.active_run = Some(samples::run_id(1));
    machine.conditions.set(
        ConditionKind::NeedsIntervention,
        Condition {
            status: true,
            reason: "RUN_FAILED".to_owned(),
            message: "expected image v2, saw v1".to_owned(),
            last_transition_at: Timestamp(1_700_000_000_000),
            observed_by: "operator/someone".to_owned(),
            plan_id: "plan/repave-join".to_owned(),
        },
    );
    let after = running();
    let before = samples::run(1, &machine.id);
    let delta = RunDelta::between(Some(&before), &after);
    let entry = Entry::new(EntryKind::StepRetrying, Actor::engine())
        .step("repave")
        .moved("acting", "backing-off")
        .reason("OUTCOME_UNKNOWN")
        .message("no answer");
    let text = format!(
        "machine\n{}\nrun\n{}\ndelta\n{}\nentries\n{}\n",
        encode_machine(&machine),
        encode_run(&after),
        encode_delta(&delta, after.id),
        encode_entries(&[entry]),
    );
    crate::assert_golden!("store_format", text);
}

#[test]
fn unknown_names_and_newer_formats_are_refused() {
    let text = encode_run(&running());
    let check = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from} in {text}");
        let error = decode_run(&text.replace(from, to), 1, Revision(1)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(r#""st":"running""#, r#""st":"dancing""#, r#"unknown state of a run "dancing""#);
    check(r#""s":"backing-off""#, r#""s":"napping""#, r#"unknown state of a step "napping""#);
    check(r#""b":"unknown""#, r#""b":"guess""#, r#"unknown basis of a step's state "guess""#);
    check(r#""type":"REPAVE""#, r#""type":"PAINT""#, r#"unknown run type "PAINT""#);
    check(r#","u":1700000009000"#, "", "wake time of a step's state is missing");
    check(r#""f":2"#, r#""f":3"#, "format 3 is newer than this version reads (2)");
}

#[test]
fn a_field_that_this_version_does_not_know_is_left_aside() {
    let run = running();
    let text = encode_run(&run).replacen('{', r#"{"later":{"x":[1]},"#, 1);
    assert_eq!(decode_run(&text, run.ordinal, run.revision), Ok(run));
}

/// Format 1 wrote the whole header with every change, and the name of every operation.
#[test]
fn changes_of_an_older_format_are_read() {
    let before = running();
    let mut after = before.clone();
    after.steps[1].message = "again".to_owned();
    let header = Run { steps: crate::model::Steps::default(), ..after.clone() };
    let operation = after.steps[1].operation.clone().unwrap();
    let step = serde_json::to_string(&step::StepBody::new(&after.steps[1], after.id)).unwrap();
    let step = step.replace(r#""op":"""#, &format!(r#""op":"{operation}""#));
    assert!(step.contains(operation.as_str()), "{step}");
    let text = format!(r#"{{"h":{},"s":[[1,{step}]]}}"#, encode_run(&header));
    let text = text.replace(r#""f":2"#, r#""f":1"#);
    let delta = decode_delta(&text, Some(before.id), after.ordinal, after.revision).unwrap();
    assert_eq!(delta.apply(Some(before)), Some(after));
}

#[test]
fn a_change_is_nothing_without_the_run_before_it() {
    let before = running();
    let delta = RunDelta::between(Some(&before), &before);
    let text = encode_delta(&delta, before.id);
    let error = decode_delta(&text, None, 1, Revision(1)).unwrap_err();
    assert_eq!(error.to_string(), "the change before it is missing");
    assert_eq!(delta.apply(None), None);
    for text in ["{}", r#"{"s":[]}"#] {
        let error = decode_delta(text, Some(before.id), 1, Revision(1)).unwrap_err();
        assert_eq!(error.to_string(), "one header, and one only, is missing");
    }
}
