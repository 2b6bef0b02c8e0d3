//! What needs a look, why, and the next command to type.

use std::io::{self, Write};

use prost_types::Timestamp;
use serde::Serialize;

use crate::pb;

use super::columns::{Columned, Content};
use super::data::Record;
use super::describe::{next_for_hold, next_for_machine};
use super::lock::lock_name;
use super::progress::{hold, waits_for};
use super::text::{
    Look, Meaning, condition_name, name_text, padded, sanitized, shortened, wait_reason_name,
    width, wrapped,
};
use super::time::{elapsed_text, instant, rfc3339};

/// One thing that needs a look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Issue {
    pub(super) machine: String,
    /// The run it is about; empty if it is about the machine alone.
    run: String,
    pub(super) what: String,
    /// When it began.
    since: Option<Timestamp>,
    /// Milliseconds from when it began until now.
    pub(super) since_ms: Option<i64>,
    pub(super) why: String,
    /// The next command to type.
    next: Option<String>,
    /// Whether it only waits, as it is configured to: nothing is wrong.
    pub(crate) waits: bool,
}

/// How a run that waits is named.
const WAITS: &str = "run waits";
/// A run waits longer for a slot, without a word of what is overdue, only if limits and work do not fit.
const SLOT_MS_MAX: i64 = 3_600_000;
/// What was due longer ago is overdue.
const DUE_MS_MAX: i64 = 300_000;

/// An issue as JSON has it: named as in the API, what is empty left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssueData {
    machine_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    run_id: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    waits: bool,
}

impl Record for Issue {
    const LIST: &'static str = "issues";
    type Data = IssueData;

    fn id(&self) -> &str {
        &self.machine
    }

    fn data(&self) -> io::Result<IssueData> {
        Ok(IssueData {
            machine_id: self.machine.clone(),
            run_id: self.run.clone(),
            what: self.what.clone(),
            since: self.since.map(|at| rfc3339(Some(&at))),
            why: self.why.clone(),
            next: self.next.clone(),
            waits: self.waits,
        })
    }
}

impl Columned for Issue {
    const COLUMNS: &'static [&'static str] =
        &["machine_id", "run_id", "what", "since", "why", "next", "waits"];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        Some(match column {
            "machine_id" => Content::Text(self.machine.clone()),
            "run_id" => Content::Run(self.run.clone()),
            "what" => Content::Text(self.what.clone()),
            "since" => Content::Time(self.since),
            "why" => Content::Text(self.why.clone()),
            "next" => Content::Text(self.next.clone().unwrap_or_default()),
            "waits" => Content::Mark(Some(self.waits)),
            _ => return None,
        })
    }
}

impl Issue {
    /// Whether it stays until a person acts, as opposed to what may resolve itself.
    pub(super) fn needs_person(&self) -> bool {
        !self.waits
    }
}

/// What is stopped, locked or paused.
pub(crate) fn issue_of_lock(lock: &pb::Lock, now_ms: u64) -> Issue {
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let name = lock_name(lock);
    let reason = "--reason ...";
    let (machine, what, next) = match lock.kind() {
        pb::LockKind::Stop => (
            "all machines".to_owned(),
            "everything is stopped",
            format!("bmdemo-cli resume-all {reason}"),
        ),
        pb::LockKind::Plan => {
            let next = format!("bmdemo-cli plan resume {name} {reason}");
            (name, "plan is paused", next)
        }
        pb::LockKind::Machines | pb::LockKind::Principal | pb::LockKind::Unspecified => {
            (name, "locked", format!("bmdemo-cli unlock {} {reason}", lock.lock_id))
        }
    };
    let by = lock.actor.as_ref().map(|actor| actor.name.as_str()).filter(|name| !name.is_empty());
    let by = by.map(|name| format!("by {}: ", name_text(name))).unwrap_or_default();
    Issue {
        machine,
        run: String::new(),
        waits: false,
        what: what.to_owned(),
        since: lock.created_at,
        since_ms: instant(lock.created_at.as_ref()).map(|at| now - at),
        why: format!("{by}{}", lock.reason),
        next: Some(next),
    }
}

/// Whether a run waits longer than what it waits for explains.
fn waits_too_long(waiting: &pb::Waiting, now: i64) -> bool {
    let due = match instant(waiting.next_wake_at.as_ref()) {
        Some(at) if waiting.reason() == pb::WaitReason::Backoff => at,
        Some(_) | None => instant(waiting.since.as_ref()).unwrap_or(now),
    };
    let most = if waiting.reason() == pb::WaitReason::Capacity { SLOT_MS_MAX } else { DUE_MS_MAX };
    now - due > most
}

/// What is wrong with a machine and its active or last run.
pub(crate) fn issues_of(machine: &pb::Machine, run: Option<&pb::Run>, now_ms: u64) -> Vec<Issue> {
    let status = machine.status.clone().unwrap_or_default();
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let mut issues = Vec::new();
    let mut push = |run_id: &str, what: String, since, why: String, next: Option<String>| {
        issues.push(Issue {
            machine: machine.machine_id.clone(),
            run: run_id.to_owned(),
            what,
            since,
            since_ms: instant(since.as_ref()).map(|at| now - at),
            why,
            next,
            waits: false,
        });
    };
    let mut has_next = false;
    for condition in &status.conditions {
        let kind = condition.r#type();
        let is_bad = match kind {
            pb::ConditionType::NeedsIntervention | pb::ConditionType::Degraded => condition.status,
            pb::ConditionType::Reachable | pb::ConditionType::HardwareMatches => !condition.status,
            pb::ConditionType::InCustomerCluster | pb::ConditionType::Unspecified => false,
        };
        // The held run behind it says the same, and how to continue.
        let is_said = kind == pb::ConditionType::NeedsIntervention
            && condition.reason == "OUTCOME_UNKNOWN"
            && run.and_then(hold).is_some_and(|w| w.reason() == pb::WaitReason::OutcomeUnknown);
        if is_bad && !is_said {
            let not = if condition.status { "" } else { "not " };
            let why = match (condition.reason.as_str(), condition.message.as_str()) {
                (reason, "") => reason.to_owned(),
                (reason, message) => format!("{reason}: {message}"),
            };
            let next = if kind == pb::ConditionType::NeedsIntervention {
                next_for_machine(machine, &status, run)
            } else {
                Some(format!("bmdemo-cli machine describe {}", machine.machine_id))
            };
            let what = format!("{not}{}", condition_name(condition.r#type));
            // A run is named where one led to it; the last run does not make a machine unreachable.
            let about_run = run.filter(|_| kind == pb::ConditionType::NeedsIntervention);
            let run_id = about_run.map_or("", |run| &run.run_id);
            has_next |= kind == pb::ConditionType::NeedsIntervention && next.is_some();
            push(run_id, what, condition.last_transition_at, why, next);
        }
    }
    if let Some(disks) = &status.untrusted_disks {
        // One machine, one thing to do next: a retry that succeeds makes the disks trusted too.
        let next = (!has_next)
            .then(|| format!("bmdemo-cli run start {} {}", disks.plan_id, machine.machine_id));
        let what = "disks not trusted".to_owned();
        let why =
            format!("step {} of {} destroys data and did not succeed", disks.step, disks.plan_id);
        push(&disks.run_id, what, disks.at, why, next);
    }
    let Some(run) = run.filter(|run| run.finished_at.is_none()) else { return issues };
    let mut is_late = false;
    if let Some(waiting) = hold(run) {
        let what = format!("run held: {}", wait_reason_name(waiting.reason));
        push(&run.run_id, what, waiting.since, waiting.message.clone(), next_for_hold(run));
    } else if let Some(waiting) = run.waiting.as_ref().filter(|waiting| {
        matches!(
            waiting.reason(),
            pb::WaitReason::Capacity | pb::WaitReason::Backoff | pb::WaitReason::Recovery
        )
    }) {
        let mut why = waiting.message.clone();
        if waiting.attempt > 0 {
            why.push_str(&format!(" (attempt {} of {})", waiting.attempt, waiting.max_attempts));
        }
        let what = format!("{WAITS}: {}", wait_reason_name(waiting.reason));
        let next = format!("bmdemo-cli run describe {}", run.run_id);
        push(&run.run_id, what, waiting.since, why, Some(next));
        is_late = waits_too_long(waiting, now);
    }
    // A held run waits for an operator, not for its step.
    let is_held = hold(run).is_some();
    for step in run.steps.iter().filter(|step| step.overdue && !is_held) {
        let mut why = format!("{} takes longer than expected", step.name);
        if let Some(waits) = waits_for(run).filter(|_| step.name == run.current_step) {
            why.push_str(&format!(": it {waits}"));
        }
        let next = format!("bmdemo-cli run describe {}", run.run_id);
        // Overdue since the time it was expected to end; when a later attempt began is not in the answer.
        let since = step.started_at.filter(|_| step.attempt == 1).map(|at| {
            let expected = step.expected_duration.unwrap_or_default();
            Timestamp { seconds: at.seconds.saturating_add(expected.seconds), nanos: at.nanos }
        });
        push(&run.run_id, "step overdue".to_owned(), since, why, Some(next));
    }
    for issue in &mut issues {
        issue.waits = !is_late && issue.what.starts_with(WAITS);
    }
    issues
}

/// Writes a block per issue: machine, what, since when, why, what to do.
pub(crate) fn write_issues(out: &mut dyn Write, look: Look, issues: &[Issue]) -> io::Result<()> {
    let columns = issues.iter().map(|issue| width(&sanitized(&issue.machine))).max().unwrap_or(0);
    for issue in issues {
        let machine = look.paint(Meaning::Strong, &padded(&sanitized(&issue.machine), columns));
        let meaning = if issue.waits { Meaning::Attention } else { Meaning::Bad };
        let what = look.paint(meaning, &sanitized(&issue.what));
        let since =
            issue.since_ms.map(|ms| format!(" for {}", elapsed_text(ms))).unwrap_or_default();
        let why = if issue.why.is_empty() {
            String::new()
        } else {
            format!(": {}", sanitized(&issue.why))
        };
        let line = format!("{machine} {what}{since}{why}");
        writeln!(out, "{}", wrapped(look, &line, columns + 1))?;
        if let Some(next) = &issue.next {
            let next = format!("{} Next: {}", " ".repeat(columns), sanitized(&shortened(next)));
            for line in wrapped(look, &next, columns + 3).split('\n') {
                writeln!(out, "{}", look.paint(Meaning::Dim, line))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{ConditionType, WaitReason};

    const NOW: u64 = 10_000_000;

    fn at(ms_ago: i64) -> Option<Timestamp> {
        let ms = i64::try_from(NOW).unwrap() - ms_ago;
        Some(Timestamp { seconds: ms / 1000, nanos: 0 })
    }

    fn waiting(reason: WaitReason, since_ms: i64, next_ms: Option<i64>) -> pb::Run {
        pb::Run {
            run_id: "r".to_owned(),
            waiting: Some(pb::Waiting {
                reason: reason.into(),
                since: at(since_ms),
                next_wake_at: next_ms.and_then(at),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn troubled(kind: ConditionType, status: bool, reason: &str) -> pb::Machine {
        let condition = pb::Condition {
            r#type: kind.into(),
            status,
            reason: reason.to_owned(),
            ..Default::default()
        };
        pb::Machine {
            machine_id: "m-1".to_owned(),
            status: Some(pb::MachineStatus { conditions: vec![condition], ..Default::default() }),
            ..Default::default()
        }
    }

    /// A queue is what limits are for: it needs a look once it does not move.
    #[test]
    fn what_waits_as_configured_is_no_trouble() {
        let machine = pb::Machine { machine_id: "m-1".to_owned(), ..Default::default() };
        for (run, waits) in [
            (waiting(WaitReason::Capacity, 3_000, None), true),
            (waiting(WaitReason::Capacity, SLOT_MS_MAX + 1_000, None), false),
            (waiting(WaitReason::Backoff, 2 * SLOT_MS_MAX, Some(-60_000)), true),
            (waiting(WaitReason::Backoff, 2 * SLOT_MS_MAX, Some(DUE_MS_MAX + 1_000)), false),
            (waiting(WaitReason::Recovery, 1_000, None), true),
            (waiting(WaitReason::Recovery, DUE_MS_MAX + 1_000, None), false),
        ] {
            let issues = issues_of(&machine, Some(&run), NOW);
            assert_eq!(issues.len(), 1);
            assert_eq!((issues[0].waits, issues[0].needs_person()), (waits, !waits), "{run:?}");
        }
        let held = waiting(WaitReason::Paused, 1_000, None);
        assert!(issues_of(&machine, Some(&held), NOW)[0].needs_person());
    }

    /// Whatever sends an operator to the description of a machine finds there what to do.
    #[test]
    fn every_trouble_has_a_remedy() {
        for (kind, status, command) in [
            (ConditionType::HardwareMatches, false, "bmdemo-cli machine update m-1 --serial"),
            (ConditionType::Degraded, true, "bmdemo-cli machine inspect m-1"),
            (ConditionType::Reachable, false, "bmdemo-cli machine inspect m-1"),
            (ConditionType::NeedsIntervention, true, "bmdemo-cli machine clear-intervention m-1"),
        ] {
            let machine = troubled(kind, status, "A_REASON");
            assert_eq!(issues_of(&machine, None, NOW).len(), 1);
            let status = machine.status.clone().unwrap();
            let next = next_for_machine(&machine, &status, None).unwrap();
            assert!(next.starts_with(command), "{kind:?}: {next}");
            let well = troubled(kind, !status.conditions[0].status, "");
            assert_eq!(next_for_machine(&well, &well.status.clone().unwrap(), None), None);
        }
        let mut machine = troubled(ConditionType::Degraded, true, "FAN");
        machine.status.as_mut().unwrap().untrusted_disks =
            Some(pb::UntrustedDisks { plan_id: "plan/rma".to_owned(), ..Default::default() });
        let status = machine.status.clone().unwrap();
        let next = next_for_machine(&machine, &status, None).unwrap();
        assert!(next.starts_with("bmdemo-cli run start plan/rma m-1"), "{next}");
    }

    #[test]
    fn after_an_abort_comes_what_the_server_lets_through() {
        use super::super::describe::next_after_failure;
        let failed = |code: &str| pb::Run {
            run_id: "r".to_owned(),
            machine_id: "m-1".to_owned(),
            error: Some(pb::RunError { code: code.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(
            next_after_failure(&failed("STEP_FAILED")),
            "bmdemo-cli run describe r, then: bmdemo-cli retry r"
        );
        assert_eq!(
            next_after_failure(&failed("ABORTED")),
            "bmdemo-cli machine describe m-1, then: bmdemo-cli machine clear-intervention m-1 --reason \"what you found\""
        );
    }
}
