//! The invariants, one file each, named after the promises of the design.

mod audit;
mod brakes;
mod effective_state;
mod legal;
mod limits;
mod promise_01;
mod promise_02;
mod promise_03;
mod promise_04;
mod promise_05;
mod promise_06;
mod promise_07;
mod promise_08;
mod promise_09;
mod promise_10;
mod promise_11;
mod promise_12;
mod promise_13;
mod promise_16;
mod promise_21;
mod promise_22;

pub(crate) use audit::the_audit_speaks_of_every_request;
pub(crate) use brakes::{
    a_plan_that_keeps_failing_is_paused, nothing_begins_while_everything_is_stopped,
};
pub(crate) use effective_state::effective_state_follows_its_rules;
pub(crate) use legal::legal_transitions;
pub(crate) use limits::{blast_radius_is_kept, limits_are_exact};
pub(crate) use promise_01::promise_01_acknowledged_is_durable;
pub(crate) use promise_02::promise_02_one_active_run;
pub(crate) use promise_03::promise_03_intent_is_durable_before_an_effect;
pub(crate) use promise_04::promise_04_succeeded_is_never_executed_again;
pub(crate) use promise_05::promise_05_nothing_is_stuck;
pub(crate) use promise_06::{
    promise_06_no_second_effect_without_evidence,
    promise_06_unknown_outcomes_are_not_acted_on_blindly,
};
pub(crate) use promise_07::promise_07_request_ids_are_idempotent;
pub(crate) use promise_08::{
    promise_08_ended_runs_are_as_they_ended, promise_08_terminal_is_immutable,
};
pub(crate) use promise_09::promise_09_a_watch_misses_and_repeats_nothing;
pub(crate) use promise_10::{
    promise_10_claims_raise_the_epoch, promise_10_fenced_executor_cannot_write,
    promise_10_no_effect_behind_a_newer_reader, promise_10_the_world_agrees,
};
pub(crate) use promise_11::{
    promise_11_a_cancel_is_never_lost, promise_11_no_new_step_after_a_cancel,
};
pub(crate) use promise_12::promise_12_a_slow_watcher_catches_up;
pub(crate) use promise_13::promise_13_a_full_disk_acknowledges_nothing;
pub(crate) use promise_16::promise_16_first_come_first_served;
pub(crate) use promise_21::{
    promise_21_nothing_continues_without_approval, promise_21_the_time_limit_holds,
    promise_21_what_comes_last_is_done_once,
};
pub(crate) use promise_22::promise_22_only_the_registered_hardware_is_written;

/// `Err` says what is wrong.
pub(crate) type Verdict = Result<(), String>;

/// `Err` with a text unless the condition holds.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}
