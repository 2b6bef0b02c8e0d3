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
}

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
        })
    }
}

impl Columned for Issue {
    const COLUMNS: &'static [&'static str] =
        &["machine_id", "run_id", "what", "since", "why", "next"];
    const LABELS: bool = false;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        Some(match column {
            "machine_id" => Content::Text(self.machine.clone()),
            "run_id" => Content::Run(self.run.clone()),
            "what" => Content::Text(self.what.clone()),
            "since" => Content::Time(self.since),
            "why" => Content::Text(self.why.clone()),
            "next" => Content::Text(self.next.clone().unwrap_or_default()),
            _ => return None,
        })
    }
}

impl Issue {
    /// Whether it stays until a person acts, as opposed to what may resolve itself.
    pub(super) fn needs_person(&self) -> bool {
        !self.what.starts_with("run waits")
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
        what: what.to_owned(),
        since: lock.created_at,
        since_ms: instant(lock.created_at.as_ref()).map(|at| now - at),
        why: format!("{by}{}", lock.reason),
        next: Some(next),
    }
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
        let what = format!("run waits: {}", wait_reason_name(waiting.reason));
        push(
            &run.run_id,
            what,
            waiting.since,
            why,
            Some(format!("bmdemo-cli run describe {}", run.run_id)),
        );
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
    issues
}

/// Writes a block per issue: machine, what, since when, why, what to do.
pub(crate) fn write_issues(out: &mut dyn Write, look: Look, issues: &[Issue]) -> io::Result<()> {
    let columns = issues.iter().map(|issue| width(&sanitized(&issue.machine))).max().unwrap_or(0);
    for issue in issues {
        let machine = look.paint(Meaning::Strong, &padded(&sanitized(&issue.machine), columns));
        let what = look.paint(Meaning::Bad, &sanitized(&issue.what));
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
