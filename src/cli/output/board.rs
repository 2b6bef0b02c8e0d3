//! The live screen of the fleet: counts, rates, runs in progress, and what needs a person, fitted to the terminal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::pb;

use super::issues::{Issue, issues_of};
use super::progress::hold;
use super::table::{effective_meaning, ended_name, run_meaning};
use super::text::{
    Look, Meaning, cut, effective_name, padded, phase_name, sanitized, short_run, wait_reason_name,
    width,
};
use super::time::{elapsed_text, instant};

/// Window of the rates, in milliseconds.
pub(crate) const RATE_MS: i64 = 5 * 60 * 1000;

/// The known state of the fleet.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    /// Machines by their ids.
    pub(crate) machines: BTreeMap<String, pb::Machine>,
    /// Runs in progress and runs that ended recently, by id.
    pub(crate) runs: BTreeMap<String, pb::Run>,
    /// Whether only runs of these machines are shown.
    pub(crate) only_these: bool,
}

/// What is shown of it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Address of the server.
    pub(crate) server: String,
    /// Words that a machine or run must contain.
    pub(crate) wanted: String,
    /// Whether the words are being typed.
    pub(crate) typing: bool,
    /// Which run is chosen, counted from 0.
    pub(crate) chosen: usize,
    /// Whether keys are read.
    pub(crate) keys: bool,
    /// What is stopped; empty if nothing is.
    pub(crate) stopped: String,
    /// A note about the connection.
    pub(crate) note: String,
    /// A note that stays, because another server took over the address.
    pub(crate) again: &'static str,
}

impl Fleet {
    /// The runs in progress that match the words: held ones first, then overdue ones, then running ones, then those
    /// that wait for a slot; within each group the oldest first.
    pub(crate) fn active(&self, wanted: &str) -> Vec<&pb::Run> {
        let mut active: Vec<&pb::Run> = self
            .runs
            .values()
            .filter(|run| run.finished_at.is_none() && self.has(run, wanted))
            .collect();
        active.sort_by_key(|run| {
            let created = instant(run.created_at.as_ref());
            // machine-2 comes before machine-10.
            let machine = (run.machine_id.len(), run.machine_id.as_str());
            (hold(run).is_none(), !is_overdue(run), waits_for_a_slot(run), created, machine)
        });
        active
    }

    fn has(&self, run: &pb::Run, wanted: &str) -> bool {
        let machine = self.machines.get(&run.machine_id);
        if self.only_these && machine.is_none() {
            return false;
        }
        let labels = machine.map(label_words).unwrap_or_default();
        let text = format!(
            "{} {} {} {} {} {labels}",
            run.run_id,
            run.machine_id,
            run.plan_id,
            run.current_step,
            ended_name(run)
        );
        matches(&text, wanted)
    }
}

fn label_words(machine: &pb::Machine) -> String {
    machine.labels.iter().map(|(key, value)| format!("{key}={value} ")).collect()
}

/// Whether a text contains each of the words, in any case.
fn matches(text: &str, wanted: &str) -> bool {
    let text = text.to_lowercase();
    wanted.to_lowercase().split_whitespace().all(|word| text.contains(word))
}

fn waits_for_a_slot(run: &pb::Run) -> bool {
    run.waiting.as_ref().is_some_and(|waiting| waiting.reason() == pb::WaitReason::Capacity)
}

/// A held run waits for an operator, not for its step.
fn is_overdue(run: &pb::Run) -> bool {
    hold(run).is_none() && run.steps.iter().any(|step| step.overdue)
}

/// The lines of the screen: at most `rows`, each at most as long as the look allows.
pub(crate) fn board(
    look: Look,
    rows: usize,
    fleet: &Fleet,
    view: &View,
    now_ms: u64,
) -> Vec<String> {
    let columns = look.columns.unwrap_or(120);
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let machines: Vec<&pb::Machine> = fleet
        .machines
        .values()
        .filter(|machine| {
            let status = machine.status.clone().unwrap_or_default();
            let (phase, effective) =
                (phase_name(status.phase), effective_name(status.effective_state));
            let labels = label_words(machine);
            matches(&format!("{} {phase} {effective} {labels}", machine.machine_id), &view.wanted)
        })
        .collect();
    let active = fleet.active(&view.wanted);
    // A machine has at most one.
    let run_of: HashMap<&str, &pb::Run> =
        active.iter().map(|run| (run.machine_id.as_str(), *run)).collect();
    let mut issues: Vec<Issue> = Vec::new();
    for machine in &machines {
        let run = run_of.get(machine.machine_id.as_str()).copied();
        issues.extend(
            issues_of(machine, run, now_ms).into_iter().filter(|issue| issue.needs_person()),
        );
    }
    issues.sort_by_key(|issue| std::cmp::Reverse(issue.since_ms));
    let overdue = active.iter().filter(|run| is_overdue(run)).count();

    let mut lines = vec![title(look, columns, view, machines.len())];
    lines.push(counts(
        look,
        columns,
        "phase",
        machines.iter().map(|machine| {
            let phase = machine.status.as_ref().map_or(0, |status| status.phase);
            (phase, phase_name(phase), Meaning::Plain)
        }),
    ));
    lines.push(counts(
        look,
        columns,
        "effective",
        machines.iter().map(|machine| {
            let state = machine.status.as_ref().map_or(0, |status| status.effective_state);
            (state, effective_name(state), effective_meaning(state))
        }),
    ));
    lines.push(cut(look, &rates(fleet, view, now), columns));
    lines.push(String::new());

    // Two headers, an empty line and the keys; the rest is shared, and one part gets what the other does not use.
    let left = rows.saturating_sub(lines.len() + 4);
    let for_issues = issues.len().min(left.div_ceil(3).max(left.saturating_sub(active.len())));
    let for_runs = active.len().min(left.saturating_sub(for_issues));
    let heading = format!("RUNS IN PROGRESS {}, {overdue} overdue", active.len());
    lines.push(look.paint(Meaning::Strong, &cut(look, &heading, columns)));
    let chosen = view.chosen.min(active.len().saturating_sub(1));
    let first = (chosen + 1).saturating_sub(for_runs);
    let widths = Widths::of(active.iter().skip(first).take(for_runs).copied());
    for (place, run) in active.iter().enumerate().skip(first).take(for_runs) {
        let mark = if view.keys && place == chosen { ">" } else { " " };
        lines.push(run_line(look, columns, widths, mark, run, now));
    }
    lines.push(String::new());
    let machines: BTreeSet<&str> = issues.iter().map(|issue| issue.machine.as_str()).collect();
    let heading = format!("NEEDS A PERSON {}", machines.len());
    lines.push(look.paint(Meaning::Strong, &cut(look, &heading, columns)));
    let ids = issues.iter().take(for_issues).map(|issue| width(&issue.machine));
    let id_columns = ids.max().unwrap_or(0).min(ID_COLUMNS_MAX);
    for issue in issues.iter().take(for_issues) {
        let since = issue.since_ms.map(elapsed_text).unwrap_or_default();
        // The line shows the reason; the header has the name of the condition.
        let what = match issue.what.as_str() {
            "NeedsIntervention" => String::new(),
            what => format!("{}: ", sanitized(what)),
        };
        let text = format!(
            "  {} {since:>8} {what}{}",
            padded(&cut(look, &sanitized(&issue.machine), id_columns), id_columns),
            sanitized(&issue.why)
        );
        lines.push(cut(look, &text, columns));
    }
    let more = active.len().saturating_sub(for_runs) + issues.len().saturating_sub(for_issues);
    lines.push(cut(look, &foot(view, more), columns));
    lines.truncate(rows);
    lines
}

fn title(look: Look, columns: usize, view: &View, machines: usize) -> String {
    let plural = if machines == 1 { "" } else { "s" };
    let mut text = format!("bmdemo {}  {machines} machine{plural}", sanitized(&view.server));
    if !view.wanted.is_empty() || view.typing {
        let cursor = if view.typing { "_" } else { "" };
        text.push_str(&format!("  /{}{cursor}", sanitized(&view.wanted)));
        if machines == 0 {
            text.push_str("  (no id, phase or label has these words)");
        }
    }
    if !view.stopped.is_empty() {
        text.push_str(&format!("  STOPPED: {}", sanitized(&view.stopped)));
    }
    if !view.again.is_empty() {
        text.push_str(&format!("  {}", view.again));
    }
    if !view.note.is_empty() {
        text.push_str(&format!("  {}", sanitized(&view.note)));
    }
    look.paint(Meaning::Strong, &cut(look, &text, columns))
}

/// `phase      READY 5  RMA 1`, in the order of the enum.
fn counts(
    look: Look,
    columns: usize,
    label: &str,
    values: impl Iterator<Item = (i32, String, Meaning)>,
) -> String {
    let mut counted: BTreeMap<i32, (String, Meaning, usize)> = BTreeMap::new();
    for (value, name, meaning) in values {
        counted.entry(value).or_insert((name, meaning, 0)).2 += 1;
    }
    let mut line = padded(label, 10);
    let mut used = 10;
    for (name, meaning, count) in counted.into_values() {
        let text = format!(" {name} {count}");
        if used + text.len() + 1 > columns {
            break;
        }
        used += text.len() + 1;
        line.push_str(&look.paint(meaning, &text));
        line.push(' ');
    }
    line.trim_end().to_owned()
}

/// What was started and what ended within the window.
fn rates(fleet: &Fleet, view: &View, now: i64) -> String {
    let recent = |at: Option<i64>| at.is_some_and(|at| now - at <= RATE_MS);
    let wanted = || fleet.runs.values().filter(|run| fleet.has(run, &view.wanted));
    let started = wanted().filter(|run| recent(instant(run.created_at.as_ref()))).count();
    let ended: Vec<&pb::Run> =
        wanted().filter(|run| recent(instant(run.finished_at.as_ref()))).collect();
    let count = |phase: pb::RunPhase| ended.iter().filter(|run| run.phase() == phase).count();
    let per_minute = ended.len() as f64 / (RATE_MS as f64 / 60_000.0);
    format!(
        "last 5m    {started} started, {} succeeded, {} failed, {} canceled, {per_minute:.1} ended a minute",
        count(pb::RunPhase::Succeeded),
        count(pb::RunPhase::Failed),
        count(pb::RunPhase::Canceled)
    )
}

/// Most columns of a machine's id, and of the names of a plan and a step.
const ID_COLUMNS_MAX: usize = 16;
const NAME_COLUMNS_MAX: usize = 14;

/// Widths of the columns of the runs shown: only what they need, to leave room for what they do.
#[derive(Clone, Copy)]
struct Widths {
    machine: usize,
    plan: usize,
    step: usize,
}

impl Widths {
    fn of<'a>(runs: impl Iterator<Item = &'a pb::Run>) -> Self {
        let mut widths = Self { machine: 0, plan: 0, step: 0 };
        for run in runs {
            widths.machine = widths.machine.max(width(&run.machine_id)).min(ID_COLUMNS_MAX);
            widths.plan = widths.plan.max(width(plan_name(run))).min(NAME_COLUMNS_MAX);
            widths.step = widths.step.max(width(&run.current_step)).min(NAME_COLUMNS_MAX);
        }
        widths
    }
}

fn plan_name(run: &pb::Run) -> &str {
    run.plan_id.strip_prefix("plan/").unwrap_or(&run.plan_id)
}

fn run_line(
    look: Look,
    columns: usize,
    widths: Widths,
    mark: &str,
    run: &pb::Run,
    now: i64,
) -> String {
    let age =
        instant(run.created_at.as_ref()).map_or_else(String::new, |at| elapsed_text(now - at));
    let step = run.steps.iter().find(|step| step.state() == pb::StepState::Running);
    let (state, meaning) = match (hold(run), &run.waiting, step) {
        (Some(waiting), ..) => {
            (format!("held {}", wait_reason_name(waiting.reason)), Meaning::Attention)
        }
        _ if run.cancel_requested => ("to be canceled".to_owned(), Meaning::Attention),
        _ if run.pause_requested => ("to be paused".to_owned(), Meaning::Attention),
        _ if is_overdue(run) => ("overdue".to_owned(), Meaning::Attention),
        (_, Some(waiting), _) if waiting.reason() == pb::WaitReason::Backoff => {
            (format!("attempt {} failed", waiting.attempt), Meaning::Attention)
        }
        _ if waits_for_a_slot(run) => ("waits for a slot".to_owned(), Meaning::Dim),
        (_, _, Some(step)) if step.attempt > 1 => {
            (format!("attempt {}", step.attempt), Meaning::Attention)
        }
        _ => (ended_name(run), run_meaning(run.phase)),
    };
    let cell = |text: &str, columns: usize| padded(&cut(look, &sanitized(text), columns), columns);
    let text = format!(
        "{mark} {} {} {} {} {age:>8}",
        cell(short_run(&run.run_id), 12),
        cell(&run.machine_id, widths.machine),
        cell(plan_name(run), widths.plan),
        cell(&run.current_step, widths.step)
    );
    let room = columns.saturating_sub(width(&text) + 1);
    if room == 0 {
        return cut(look, &text, columns);
    }
    format!("{text} {}", look.paint(meaning, &cut(look, &state, room)))
}

fn foot(view: &View, more: usize) -> String {
    let mut text = String::new();
    if more > 0 {
        text.push_str(&format!("{more} more: see runs, issues.  "));
    }
    if view.typing {
        text.push_str("Enter to filter, Esc to clear");
    } else if view.keys {
        text.push_str("q quit  / filter  Up Down choose  Enter open the run");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn fleet(count: usize) -> Fleet {
        let mut fleet = Fleet::default();
        for number in 1..=count {
            let id = format!("machine-{number}");
            let condition = pb::Condition {
                r#type: pb::ConditionType::NeedsIntervention.into(),
                status: number % 3 == 0,
                reason: "RUN_FAILED".to_owned(),
                message: "step repave: the image could not be written, whatever was tried"
                    .to_owned(),
                last_transition_at: at(1_000),
                ..Default::default()
            };
            let machine = pb::Machine {
                machine_id: id.clone(),
                labels: [("rack".to_owned(), format!("r{}", number % 2))].into(),
                status: Some(pb::MachineStatus {
                    phase: pb::Phase::Ready.into(),
                    effective_state: pb::EffectiveState::Provisioning.into(),
                    conditions: vec![condition],
                    ..Default::default()
                }),
                ..Default::default()
            };
            let run = pb::Run {
                run_id: format!("00000000-0000-7000-8000-{number:012}"),
                machine_id: id.clone(),
                plan_id: "plan/repave-join".to_owned(),
                phase: pb::RunPhase::Running.into(),
                current_step: "repave".to_owned(),
                created_at: at(1_000 + i64::try_from(number).unwrap()),
                steps: vec![pb::StepStatus {
                    name: "repave".to_owned(),
                    state: pb::StepState::Running.into(),
                    overdue: number == 4,
                    attempt: 1,
                    ..Default::default()
                }],
                ..Default::default()
            };
            fleet.machines.insert(id, machine);
            fleet.runs.insert(run.run_id.clone(), run);
        }
        fleet
    }

    fn shown(columns: usize, rows: usize, count: usize, wanted: &str) -> Vec<String> {
        let look = Look { columns: Some(columns), ..Look::default() };
        let view = View {
            server: "127.0.0.1:50051".to_owned(),
            wanted: wanted.to_owned(),
            keys: true,
            ..View::default()
        };
        board(look, rows, &fleet(count), &view, 1_060_000)
    }

    #[test]
    fn it_fits_the_screen_whatever_there_is() {
        for (columns, rows) in [(80, 24), (140, 50), (40, 12), (80, 10)] {
            for count in [0, 1, 7, 300] {
                let lines = shown(columns, rows, count, "");
                assert!(lines.len() <= rows, "{columns}x{rows} of {count}: {}", lines.len());
                for line in lines {
                    assert!(width(&line) <= columns, "{columns}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_board_at_80_by_24() {
        crate::assert_golden!("top_board", shown(80, 24, 30, "").join("\n"));
    }

    #[test]
    fn words_filter_machines_and_runs() {
        let lines = shown(80, 24, 30, "rack=r1 Machine-3");
        assert!(lines[0].contains("1 machine  /rack=r1 Machine-3"), "{}", lines[0]);
        assert!(lines.iter().any(|line| line.starts_with("RUNS IN PROGRESS 1, 0 overdue")));
    }
}
