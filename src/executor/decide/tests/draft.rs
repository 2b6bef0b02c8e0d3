//! When a draft must be committed, and when a condition counts as changed.

use super::*;
use crate::model::machine::Condition;
use crate::model::{Actor, Entry, EntryKind};

fn draft() -> Draft {
    let bench = Bench::acting("verify", WRITE);
    Draft::new(bench.run, bench.machine)
}

#[test]
fn stages_need_no_commit_and_changes_do() {
    let untouched = draft();
    assert!(!untouched.is_durable());
    let mut moved = draft();
    moved.run.steps[WRITE].state = State::Verifying { attempt: 1, checks: 0 };
    assert!(!moved.is_durable(), "a stage of an open attempt");
    let mut changed = draft();
    changed.machine_changed = true;
    assert!(changed.is_durable());
    let mut noted = draft();
    noted.note(Entry::new(EntryKind::StepSucceeded, Actor::engine()));
    assert!(noted.is_durable());
}

#[test]
fn a_condition_changes_with_its_status_reason_or_message_and_with_nothing_else() {
    let kind = ConditionKind::Degraded;
    let condition = |status, reason: &str, message: &str, at| Condition {
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_at: Timestamp(at),
        observed_by: "probe".to_owned(),
        plan_id: String::new(),
    };
    let mut draft = draft();
    draft.set_condition(kind, condition(true, "FAN", "a fan failed", 1), &Actor::engine());
    assert!(draft.machine_changed);
    let [first] = draft.machine_entries.as_slice() else { panic!("{:?}", draft.machine_entries) };
    assert_eq!((first.from.as_str(), first.to.as_str()), ("unknown", "true"));

    draft.machine_changed = false;
    draft.set_condition(kind, condition(true, "FAN", "a fan failed", 2), &Actor::engine());
    assert!(!draft.machine_changed, "seen again, later");
    assert_eq!(draft.machine_entries.len(), 1);

    for (changed, from, to) in [
        (condition(true, "FANS", "a fan failed", 3), "", ""),
        (condition(true, "FANS", "two fans failed", 4), "", ""),
        (condition(false, "FANS", "two fans failed", 5), "true", "false"),
    ] {
        draft.machine_changed = false;
        draft.set_condition(kind, changed.clone(), &Actor::engine());
        assert!(draft.machine_changed, "{changed:?}");
        let last = draft.machine_entries.last().unwrap();
        assert_eq!((last.from.as_str(), last.to.as_str()), (from, to), "{changed:?}");
        let stored = draft.machine.conditions.get(kind).unwrap();
        assert_eq!(
            (stored.status, &stored.reason, &stored.message),
            (changed.status, &changed.reason, &changed.message)
        );
    }
    assert_eq!(draft.machine_entries.len(), 4);
}
