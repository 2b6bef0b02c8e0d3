//! Filters, orders and verdicts of the tests' server.

use crate::pb;

/// The server's filters, for the few fields that the tests use.
pub(super) fn matches_machine(filter: &str, machine: &pb::Machine) -> bool {
    let status = machine.status.clone().unwrap_or_default();
    any_of(filter, |field, operator, value| match (field, operator) {
        ("machine_id", "=") => machine.machine_id == value,
        ("active_run_id", "=") => status.active_run_id == value,
        ("revision", ">") => machine.revision > value.parse().unwrap(),
        (field, "=") if field.starts_with("labels.") => {
            machine.labels.get(&field["labels.".len()..]).is_some_and(|label| label == value)
        }
        (field, "=") if field.starts_with("conditions.") => {
            status.conditions.iter().any(|condition| {
                super::super::output::condition_name(condition.r#type)
                    == field["conditions.".len()..]
                    && condition.status.to_string() == value
            })
        }
        _ => panic!("the test server knows no {field} {operator} {value}"),
    })
}

pub(super) fn matches_run(filter: &str, run: &pb::Run) -> bool {
    any_of(filter, |field, _, value| match field {
        "run_id" => run.run_id == value,
        "machine_id" => run.machine_id == value,
        "phase" => super::super::output::run_phase_name(run.phase) == value,
        _ => panic!("the test server knows no {field}"),
    })
}

/// AND of ORs of comparisons, each optionally after NOT; no nested parentheses.
fn any_of(filter: &str, is: impl Fn(&str, &str, &str) -> bool) -> bool {
    filter.split(" AND ").map(str::trim).filter(|term| !term.is_empty()).all(|term| {
        term.trim_matches(['(', ')']).split(" OR ").any(|term| {
            let (negated, term) =
                term.strip_prefix("NOT ").map_or((false, term), |term| (true, term));
            let at = term.find(['=', '>']).unwrap();
            let value = term[at + 1..].trim().trim_matches('"');
            is(term[..at].trim(), &term[at..=at], value) != negated
        })
    })
}

/// What a dry run says of a machine: one in service is not installed again, and one with a run is busy.
pub(super) fn verdict(request: &pb::BatchStartRunsRequest, machine: &pb::Machine) -> pb::RunResult {
    use pb::run_result::Outcome;
    let id = &machine.machine_id;
    let status = machine.status.clone().unwrap_or_default();
    let active = &status.active_run_id;
    let refused = |reason: &str, message: String, hint: String| {
        let code = tonic::Code::FailedPrecondition.into();
        Outcome::Error(pb::ItemError { code, reason: reason.to_owned(), message, hint })
    };
    let serves = status.effective_state() == pb::EffectiveState::InService;
    let outcome = if serves && !request.force && request.r#type() == pb::RunType::Repave {
        let message = format!("plan/repave-join is refused while {id} is effectively IN_SERVICE");
        refused("EFFECTIVE_STATE_REFUSED", message, "use plan/upgrade, or `force`".to_owned())
    } else if active.is_empty() {
        Outcome::Run(pb::Run::default())
    } else {
        let message = format!("run {active} is active on {id}");
        refused("RUN_ACTIVE", message, format!("watch it: run {active}"))
    };
    pb::RunResult { machine_id: id.clone(), outcome: Some(outcome) }
}

/// Natural order of ids: machine-2 before machine-10.
pub(super) fn natural(id: &str) -> (&str, u64) {
    let text = id.trim_end_matches(|c: char| c.is_ascii_digit());
    (text, id[text.len()..].parse().unwrap_or(0))
}
