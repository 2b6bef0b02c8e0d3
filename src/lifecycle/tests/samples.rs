//! Samples of every state and every event. A new variant does not compile until it has a name and a sample here.

use crate::clock::Timestamp;
use crate::lifecycle::backoff::Backoff;
use crate::lifecycle::machine::Phase;
use crate::lifecycle::run;
use crate::lifecycle::step::{
    Basis, Effect, ErrorClass, Event, Facts, INTERRUPTED_MAX, OnUnknown, Resolution, Rules, Seen,
    State, UNKNOWN_CHECKS_MAX,
};

/// Time of every event.
pub(super) const NOW: Timestamp = Timestamp(1_000_000);
/// An instant in the future that a state waits for.
pub(super) const LATER: Timestamp = Timestamp(NOW.0 + 5_000);

/// The samples of an enum, and the name that each variant has in tables and diagrams.
macro_rules! samples {
    ($all:ident, $name:ident: $type:ty {
        $($pattern:pat => $text:literal [$($sample:expr),+ $(,)?],)+
    }) => {
        pub(super) fn $all() -> Vec<$type> {
            let samples = vec![$($($sample),+),+];
            for text in [$($text),+] {
                assert!(samples.iter().any(|one| $name(*one) == text), "no sample of {text}");
            }
            samples
        }

        pub(super) fn $name(value: $type) -> &'static str {
            match value { $($pattern => $text),+ }
        }
    };
}

samples!(phases, phase_name: Phase {
    Phase::FactoryReady => "FACTORY_READY" [Phase::FactoryReady],
    Phase::Ready => "READY" [Phase::Ready],
    Phase::InService => "IN_SERVICE" [Phase::InService],
    Phase::Maintenance => "MAINTENANCE" [Phase::Maintenance],
    Phase::Rma => "RMA" [Phase::Rma],
    Phase::Retired => "RETIRED" [Phase::Retired],
});

samples!(run_states, run_state_name: run::State {
    run::State::Pending => "pending" [run::State::Pending],
    run::State::Running => "running" [run::State::Running],
    run::State::Pausing => "pausing" [run::State::Pausing],
    run::State::Held => "held" [run::State::Held],
    run::State::Deferred => "deferred" [run::State::Deferred],
    run::State::Resuming => "resuming" [run::State::Resuming],
    run::State::Canceling => "canceling" [run::State::Canceling],
    run::State::Stopping => "stopping" [run::State::Stopping],
    // A run that has succeeded has nothing to undo.
    run::State::Unwinding { ending: run::Ending::Failed | run::Ending::Succeeded } => "unwinding_failed"
        [run::State::Unwinding { ending: run::Ending::Failed }],
    run::State::Unwinding { ending: run::Ending::Canceled } => "unwinding_canceled"
        [run::State::Unwinding { ending: run::Ending::Canceled }],
    run::State::Closing { ending: run::Ending::Succeeded } => "closing_succeeded"
        [run::State::Closing { ending: run::Ending::Succeeded }],
    run::State::Closing { ending: run::Ending::Failed } => "closing_failed"
        [run::State::Closing { ending: run::Ending::Failed }],
    run::State::Closing { ending: run::Ending::Canceled } => "closing_canceled"
        [run::State::Closing { ending: run::Ending::Canceled }],
    run::State::Succeeded => "succeeded" [run::State::Succeeded],
    run::State::Failed => "failed" [run::State::Failed],
    run::State::Canceled => "canceled" [run::State::Canceled],
});

samples!(run_events, run_event_name: run::Event {
    run::Event::Admit => "admit" [run::Event::Admit],
    run::Event::StepsDone => "steps done" [run::Event::StepsDone],
    run::Event::StepFailed => "step failed" [run::Event::StepFailed],
    run::Event::SafePoint => "safe point" [run::Event::SafePoint],
    run::Event::Hold => "hold" [run::Event::Hold],
    run::Event::Restore => "restore" [run::Event::Restore],
    run::Event::Defer => "defer" [run::Event::Defer],
    run::Event::Due => "due" [run::Event::Due],
    run::Event::Pause => "pause" [run::Event::Pause],
    run::Event::Resume => "resume" [run::Event::Resume],
    run::Event::Cancel => "cancel" [run::Event::Cancel],
    run::Event::Abort => "abort" [run::Event::Abort],
    run::Event::Unwound => "unwound" [run::Event::Unwound],
    run::Event::Closed => "closed" [run::Event::Closed],
    run::Event::TimeUp => "time up" [run::Event::TimeUp],
});

/// The last observation of an unknown outcome.
const LAST_LOOK: Basis = Basis::Unknown { checks: UNKNOWN_CHECKS_MAX - 1, cut_off: false };
const FIRST_LOOK: Basis = Basis::Unknown { checks: 0, cut_off: false };
const CUT_OFF: Basis = Basis::Unknown { checks: 0, cut_off: true };

samples!(step_states, step_state_name: State {
    State::Waiting => "waiting" [State::Waiting],
    State::Observing { .. } => "observing" [
        State::Observing { attempt: 1, basis: Basis::Fresh },
        State::Observing { attempt: 1, basis: Basis::Poll },
        State::Observing { attempt: 1, basis: FIRST_LOOK },
        State::Observing { attempt: 1, basis: LAST_LOOK },
        State::Observing { attempt: 1, basis: CUT_OFF },
    ],
    State::Acting { .. } => "acting" [State::Acting { attempt: 1 }],
    State::Polling { .. } => "polling" [State::Polling { attempt: 1, until: LATER }],
    State::Verifying { .. } => "verifying" [
        State::Verifying { attempt: 1, checks: 0 },
        State::Verifying { attempt: 1, checks: UNKNOWN_CHECKS_MAX },
    ],
    State::BackingOff { .. } => "backing_off" [
        State::BackingOff { attempt: 1, until: LATER, basis: Basis::Fresh },
        State::BackingOff { attempt: 1, until: LATER, basis: Basis::Poll },
        State::BackingOff { attempt: 1, until: LATER, basis: FIRST_LOOK },
    ],
    State::Unknown { .. } => "unknown" [State::Unknown { attempt: 1 }],
    State::Succeeded => "succeeded" [State::Succeeded],
    State::Failed => "failed" [State::Failed],
    State::Skipped => "skipped" [State::Skipped],
    State::Canceled => "canceled" [State::Canceled],
});

samples!(step_events, step_event_name: Event {
    Event::Start => "start" [Event::Start],
    Event::GuardedOut => "guarded out" [Event::GuardedOut],
    Event::Observed(_) => "observed" [
        Event::Observed(Seen::Done),
        Event::Observed(Seen::NotDone),
        Event::Observed(Seen::InProgress { until: LATER }),
        Event::Observed(Seen::Unknowable),
    ],
    Event::Acted => "acted" [Event::Acted],
    Event::Accepted { .. } => "accepted" [Event::Accepted { until: LATER }],
    Event::Verified => "verified" [Event::Verified],
    Event::NotVerified => "not verified" [Event::NotVerified],
    Event::CallFailed(_) => "call failed" [
        Event::CallFailed(ErrorClass::Transient),
        Event::CallFailed(ErrorClass::Permanent),
        Event::CallFailed(ErrorClass::NeedsHuman),
        Event::CallFailed(ErrorClass::OutcomeUnknown),
    ],
    Event::Woken => "woken" [Event::Woken],
    Event::TimedOut => "timed out" [Event::TimedOut],
    Event::Recovered => "recovered" [Event::Recovered],
    Event::Skip => "skip" [Event::Skip],
    Event::Cancel => "cancel" [Event::Cancel],
    Event::Detach => "detach" [Event::Detach],
    Event::Resolve(_) => "resolve" [
        Event::Resolve(Resolution::Done),
        Event::Resolve(Resolution::Retry),
        Event::Resolve(Resolution::Skip),
    ],
});

/// An event with its data.
pub(super) fn step_event(event: Event) -> String {
    let detail = match event {
        Event::Observed(Seen::Done) => "done",
        Event::Observed(Seen::NotDone) => "not done",
        Event::Observed(Seen::InProgress { .. }) => "in progress",
        Event::Observed(Seen::Unknowable) => "unknowable",
        Event::CallFailed(class) => class.as_str(),
        Event::Resolve(Resolution::Done) => "done",
        Event::Resolve(Resolution::Retry) => "retry",
        Event::Resolve(Resolution::Skip) => "skip",
        Event::Start
        | Event::GuardedOut
        | Event::Acted
        | Event::Accepted { .. }
        | Event::Verified
        | Event::NotVerified
        | Event::Woken
        | Event::TimedOut
        | Event::Recovered
        | Event::Skip
        | Event::Cancel
        | Event::Detach => return step_event_name(event).to_owned(),
    };
    format!("{}: {detail}", step_event_name(event))
}

/// A state with its data; instants as milliseconds from [`NOW`].
pub(super) fn step_state(state: State) -> String {
    let name = step_state_name(state);
    match state {
        State::Observing { attempt, basis } => format!("{name} {attempt} {}", basis_text(basis)),
        State::Acting { attempt } | State::Unknown { attempt } => format!("{name} {attempt}"),
        State::Polling { attempt, until } => format!("{name} {attempt} until {}", ms(until)),
        State::Verifying { attempt, checks } => format!("{name} {attempt} checks={checks}"),
        State::BackingOff { attempt, until, basis } => {
            format!("{name} {attempt} {} until {}", basis_text(basis), ms(until))
        }
        State::Waiting | State::Succeeded | State::Failed | State::Skipped | State::Canceled => {
            name.to_owned()
        }
    }
}

fn basis_text(basis: Basis) -> String {
    match basis {
        Basis::Fresh => "fresh".to_owned(),
        Basis::Poll => "poll".to_owned(),
        Basis::Unknown { checks, cut_off: false } => format!("unknown({checks})"),
        Basis::Unknown { checks, cut_off: true } => format!("cut off({checks})"),
    }
}

fn ms(at: Timestamp) -> String {
    format!("+{}", at.since(NOW).as_millis())
}

pub(super) fn step_effect(effect: Effect) -> String {
    match effect {
        Effect::Open { attempt } => format!("open {attempt}"),
        Effect::WakeAt(at) => format!("wake {}", ms(at)),
        Effect::Extend => "extend".to_owned(),
        Effect::Unknown => "note unknown".to_owned(),
        Effect::Interrupted => "interrupt".to_owned(),
        Effect::Observe => "observe".to_owned(),
        Effect::Act => "act".to_owned(),
        Effect::Verify => "verify".to_owned(),
        Effect::Stop => "stop".to_owned(),
        Effect::Hold => "hold run".to_owned(),
    }
}

/// Rules and facts for a step's events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) label: &'static str,
    pub(super) rules: Rules,
    pub(super) facts: Facts,
}

/// The setting that the others differ from: `on_unknown = "verify"`, harmless, attempts left, nothing is stopping.
pub(super) const BASE: Setting = Setting {
    label: "",
    rules: Rules {
        attempts_max: 3,
        retry_transient: true,
        retry_permanent: false,
        retry_needs_human: false,
        backoff: Backoff { first_ms: 1_000, ms_max: 8_000 },
        on_unknown: OnUnknown::Verify,
        must_settle: false,
        is_own: false,
    },
    facts: Facts {
        now: NOW,
        random: 0,
        stopping: false,
        unknowns: 0,
        interrupted: 0,
        retry_at: None,
    },
};

/// Settings that differ from [`BASE`] in one or two things.
pub(super) fn settings() -> Vec<Setting> {
    let base = BASE.rules;
    let rules = |label, rules| Setting { label, rules, ..BASE };
    let facts = |label, facts| Setting { label, facts, ..BASE };
    let stopping = Facts { stopping: true, ..BASE.facts };
    let retry = Rules { on_unknown: OnUnknown::Retry, ..base };
    vec![
        rules("last attempt", Rules { attempts_max: 1, ..base }),
        facts("stopping", stopping),
        rules("destructive", Rules { must_settle: true, ..base }),
        rules("of the engine", Rules { is_own: true, ..base }),
        rules("on_unknown=retry", retry),
        rules("on_unknown=hold", Rules { on_unknown: OnUnknown::Hold, ..base }),
        Setting { label: "on_unknown=retry, stopping", rules: retry, facts: stopping },
        Setting {
            label: "destructive, on_unknown=retry, stopping",
            rules: Rules { must_settle: true, ..retry },
            facts: stopping,
        },
        facts("interrupted too often", Facts { interrupted: INTERRUPTED_MAX, ..BASE.facts }),
        facts("unknown too often", Facts { unknowns: UNKNOWN_CHECKS_MAX, ..BASE.facts }),
        rules(
            "retries every class",
            Rules { retry_permanent: true, retry_needs_human: true, ..base },
        ),
        rules("retries no transient", Rules { retry_transient: false, ..base }),
    ]
}
