//! Which steps a retried run repeats.

use super::*;

/// The steps that a retry of `before` skips.
fn left_out(before: &Bench) -> Vec<String> {
    assert!(!before.run.state.is_active());
    let mut again = Bench::accepted("verify", &[]);
    admission::skip_what_was_done(&mut again.run, &before.run, &before.plan);
    for name in again.names(State::Skipped) {
        let place = again.run.steps.iter().position(|step| step.name == name).unwrap();
        let message = format!("done by run {}", before.run.id);
        assert_eq!(again.run.steps[place].message, message);
    }
    let skipped: Vec<_> = again.names(State::Skipped).into_iter().map(str::to_owned).collect();
    again.machine.conditions = before.machine.conditions.clone();
    again.admit();
    again.finish();
    assert_eq!(again.run.state, run::State::Succeeded);
    skipped
}

#[test]
fn what_was_undone_is_repeated_only_where_it_is_needed() {
    let mut bench = Bench::acting("verify", CHECK);
    bench.fail(CHECK);
    bench.finish();
    assert_eq!(left_out(&bench), ["boot", "drain", "write"], "check needs none of them");
}

#[test]
fn a_retry_begins_at_the_step_that_did_not_succeed() {
    let mut bench = Bench::acting("verify", CHECK);
    // An abort undoes nothing.
    bench.operate(Verb::Abort).unwrap();
    assert_eq!(left_out(&bench), ["boot", "drain", "write"]);
}

#[test]
fn a_retry_returns_to_what_the_step_needs() {
    let mut bench = Bench::acting("verify", WRITE);
    bench.operate(Verb::Abort).unwrap();
    assert_eq!(left_out(&bench), Vec::<String>::new(), "write needs boot");
}

#[test]
fn a_step_that_was_skipped_counts_as_done() {
    let mut bench = Bench::acting("verify", BOOT);
    bench.operate(skip("drain")).unwrap();
    bench.operate(skip("write")).unwrap();
    bench.succeed(BOOT);
    bench.operate(Verb::Abort).unwrap();
    assert_eq!(left_out(&bench), ["boot", "drain", "write"]);
}

#[test]
fn a_retry_keeps_the_outputs_of_what_it_leaves_out() {
    let mut bench = Bench::acting("verify", CHECK);
    bench.run.steps[DRAIN].output =
        Values::from([("handle".to_owned(), Value::Str("handle-1".into()))]);
    bench.operate(Verb::Abort).unwrap();
    let mut again = Bench::accepted("verify", &[]);
    admission::skip_what_was_done(&mut again.run, &bench.run, &bench.plan);
    assert_eq!(again.run.steps[DRAIN].output["handle"], Value::Str("handle-1".into()));
}
