//! Tables: columns with minimum widths that grow for longer cells.

use std::io::{self, Write};

use crate::pb;

use super::progress::hold;
use super::text::{
    Look, Meaning, condition_name, effective_name, padded, phase_name, run_phase_name,
    run_type_name, sanitized, short_run, wait_reason_name, width, wrapped,
};
use super::time::{elapsed_text, instant, moment};

/// A cell and what its colour says.
pub(super) type Cell = (String, Meaning);

fn cell(text: &str) -> Cell {
    (sanitized(text).into_owned(), Meaning::Plain)
}

/// On a terminal with fewer columns, a table that does not fit is written record by record.
const NARROW: usize = 72;

/// Whether a table fits the terminal, if there is one.
fn fits(look: Look, headers: &[(&str, usize)], gap: usize, rows: &[Vec<Cell>]) -> bool {
    let Some(columns) = look.columns else { return true };
    let last = headers.len().saturating_sub(1);
    let needed = |index: usize, (name, least): &(&str, usize)| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|(text, _)| width(text));
        let widest = cells.max().unwrap_or(0).max(width(name));
        if index == last { widest } else { widest.max(*least) + gap }
    };
    headers.iter().enumerate().map(|(index, header)| needed(index, header)).sum::<usize>()
        <= columns
}

/// Writes each row as a block: its first cell, then the others under it with their headers.
fn write_cards(
    out: &mut dyn Write,
    look: Look,
    headers: &[(&str, usize)],
    rows: &[Vec<Cell>],
) -> io::Result<()> {
    let columns = headers.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    for row in rows {
        for (index, ((header, _), (text, meaning))) in headers.iter().zip(row).enumerate() {
            let text = look.paint(*meaning, text);
            match index {
                0 => writeln!(out, "{}", look.paint(Meaning::Strong, &text))?,
                _ => {
                    let label = look.paint(Meaning::Dim, &padded(header, columns));
                    let line = format!("  {label} {text}");
                    writeln!(out, "{}", wrapped(look, &line, columns + 3))?;
                }
            }
        }
    }
    Ok(())
}

/// Writes rows under their headers. `gap` spaces follow each column; the last is never padded.
pub(super) fn write_columns(
    out: &mut dyn Write,
    look: Look,
    headers: &[(&str, usize)],
    gap: usize,
    rows: &[Vec<Cell>],
) -> io::Result<()> {
    let mut widths: Vec<usize> =
        headers.iter().map(|(name, least)| width(name).max(*least)).collect();
    for row in rows {
        for (columns, (text, _)) in widths.iter_mut().zip(row) {
            *columns = (*columns).max(width(text));
        }
    }
    let before_last: usize = widths.iter().rev().skip(1).map(|columns| columns + gap).sum();
    if !fits(look, headers, gap, rows)
        && look.columns.is_some_and(|columns| columns < NARROW || before_last > columns / 4 * 3)
    {
        return write_cards(out, look, headers, rows);
    }
    let heading: Vec<Cell> =
        headers.iter().map(|(name, _)| ((*name).to_owned(), Meaning::Strong)).collect();
    std::iter::once(&heading)
        .chain(rows)
        .try_for_each(|row| write_row(out, look, row, &widths, gap))
}

fn write_row(
    out: &mut dyn Write,
    look: Look,
    row: &[Cell],
    widths: &[usize],
    gap: usize,
) -> io::Result<()> {
    let mut line = String::new();
    let mut before_last = 0;
    for (index, (text, meaning)) in row.iter().enumerate() {
        line.push_str(&look.paint(*meaning, text));
        if index + 1 < row.len() {
            let used = width(text);
            line.extend(std::iter::repeat_n(' ', widths[index].saturating_sub(used) + gap));
            before_last += widths[index].max(used) + gap;
        }
    }
    // Only the last column may be long: its words wrap onto further lines.
    writeln!(out, "{}", wrapped(look, &line, before_last))
}

/// Minimum widths of the import table: id and MAC address.
const IMPORT_WIDTHS: [usize; 2] = [13, 19];

/// Writes the header of the table that `import` prints while it runs. `id_columns` is the length of the longest id to
/// come.
pub(crate) fn write_import_header(
    out: &mut dyn Write,
    look: Look,
    id_columns: usize,
) -> io::Result<()> {
    let header = import_line(["MACHINE_ID", "MAC", "PHASE"], id_columns);
    writeln!(out, "{}", look.paint(Meaning::Strong, &header))
}

/// Writes one registered machine.
pub(crate) fn write_import_row(
    out: &mut dyn Write,
    machine: &pb::Machine,
    id_columns: usize,
) -> io::Result<()> {
    let mac = machine
        .spec
        .as_ref()
        .and_then(|spec| spec.mac_addresses.first())
        .map_or("-", String::as_str);
    let phase = phase_name(machine.status.as_ref().map_or(0, |status| status.phase));
    writeln!(
        out,
        "{}",
        import_line([&sanitized(&machine.machine_id), &sanitized(mac), &phase], id_columns)
    )
}

fn import_line([id, mac, phase]: [&str; 3], id_columns: usize) -> String {
    format!(
        "{} {} {phase}",
        padded(id, IMPORT_WIDTHS[0].max(id_columns)),
        padded(mac, IMPORT_WIDTHS[1])
    )
}

/// Writes the machine table of `list`; `wide` adds the conditions.
pub(crate) fn write_machines(
    out: &mut dyn Write,
    look: Look,
    machines: &[pb::Machine],
    wide: bool,
) -> io::Result<()> {
    let mut headers = vec![
        ("MACHINE_ID", 13),
        ("PHASE", 14),
        ("EFFECTIVE", 14),
        ("REACHABLE", 10),
        ("IN_CLUSTER", 11),
        ("ACTIVE_RUN", 0),
    ];
    if wide {
        headers.push(("CONDITIONS", 0));
    }
    let row = |short| machines.iter().map(move |machine| machine_row(look, machine, wide, short));
    let mut rows: Vec<Vec<Cell>> = row(false).collect();
    if !fits(look, &headers, 1, &rows) {
        rows = row(true).collect();
    }
    write_columns(out, look, &headers, 1, &rows)
}

fn machine_row(look: Look, machine: &pb::Machine, wide: bool, short: bool) -> Vec<Cell> {
    let status = machine.status.clone().unwrap_or_default();
    let mark = |kind: pb::ConditionType| {
        let (glyph, meaning) = look.mark(condition(&status, kind));
        (glyph.to_owned(), meaning)
    };
    let effective =
        (effective_name(status.effective_state), effective_meaning(status.effective_state));
    // The disks cannot be trusted: see `machine describe`.
    let phase = match status.untrusted_disks {
        Some(_) => (format!("{}!", phase_name(status.phase)), Meaning::Bad),
        None => cell(&phase_name(status.phase)),
    };
    let active = match status.active_run_id.as_str() {
        "" => "-",
        id if short => short_run(id),
        id => id,
    };
    let mut row = vec![
        cell(&machine.machine_id),
        phase,
        effective,
        mark(pb::ConditionType::Reachable),
        mark(pb::ConditionType::InCustomerCluster),
        cell(active),
    ];
    if wide {
        row.push((conditions_text(look, &status), Meaning::Plain));
    }
    row
}

/// Width of a row of the machine table with a whole run id.
const MACHINE_ROW_COLUMNS: usize = 103;

/// Writes one row of the machine table, for streams: columns have their minimum widths.
pub(crate) fn write_machine_row(
    out: &mut dyn Write,
    look: Look,
    machine: &pb::Machine,
    wide: bool,
) -> io::Result<()> {
    let short = look.columns.is_some_and(|columns| columns < MACHINE_ROW_COLUMNS);
    let row = machine_row(look, machine, wide, short);
    write_row(out, look, &row, &[13, 14, 14, 10, 11, if short { 12 } else { 36 }, 0], 1)
}

/// Value of one condition, `None` if it was never observed.
pub(crate) fn condition(status: &pb::MachineStatus, kind: pb::ConditionType) -> Option<bool> {
    status
        .conditions
        .iter()
        .find(|condition| condition.r#type == kind as i32)
        .map(|condition| condition.status)
}

/// `InCustomerCluster=✓, Degraded=✓`; `(active run)` if nothing is known but a run is active; else `-`.
pub(crate) fn conditions_text(look: Look, status: &pb::MachineStatus) -> String {
    let mut shown: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!("{}={}", condition_name(condition.r#type), look.mark(Some(condition.status)).0)
        })
        .collect();
    if status.untrusted_disks.is_some() {
        shown.push("disks not trusted".to_owned());
    }
    if !shown.is_empty() {
        shown.join(", ")
    } else if status.active_run_id.is_empty() {
        "-".to_owned()
    } else {
        "(active run)".to_owned()
    }
}

/// Colour of an effective state.
pub(crate) fn effective_meaning(state: i32) -> Meaning {
    match pb::EffectiveState::try_from(state) {
        Ok(pb::EffectiveState::InService) => Meaning::Good,
        Ok(pb::EffectiveState::Provisioning) => Meaning::Active,
        Ok(pb::EffectiveState::Maintenance) => Meaning::Attention,
        Ok(pb::EffectiveState::Rma) => Meaning::Bad,
        Ok(pb::EffectiveState::Retired) => Meaning::Dim,
        Ok(
            pb::EffectiveState::Unspecified
            | pb::EffectiveState::FactoryReady
            | pb::EffectiveState::Ready,
        )
        | Err(_) => Meaning::Plain,
    }
}

/// Colour of the phase of a run.
pub(crate) fn run_meaning(phase: i32) -> Meaning {
    match pb::RunPhase::try_from(phase) {
        Ok(pb::RunPhase::Succeeded) => Meaning::Good,
        Ok(pb::RunPhase::Failed) => Meaning::Bad,
        Ok(pb::RunPhase::Canceled) => Meaning::Attention,
        Ok(pb::RunPhase::Running) => Meaning::Active,
        Ok(pb::RunPhase::Pending | pb::RunPhase::Unspecified) | Err(_) => Meaning::Plain,
    }
}

/// Steps of the plan that succeeded or were skipped, and the number of all. Those around them do not count: what runs
/// after a failure or at the end, and compensations.
pub(crate) fn steps_done(run: &pb::Run) -> (usize, usize) {
    // An older server does not say the roles.
    let is_main = |step: &&pb::StepStatus| {
        step.compensates.is_empty() && ["", "steps"].contains(&step.role.as_str())
    };
    let steps = run.steps.iter().filter(is_main);
    let done = [pb::StepState::Succeeded as i32, pb::StepState::Skipped as i32];
    (steps.clone().filter(|step| done.contains(&step.state)).count(), steps.count())
}

/// How long a run took, or has taken at `now_ms`.
pub(crate) fn run_ms(run: &pb::Run, now_ms: Option<u64>) -> Option<i64> {
    let start = instant(run.started_at.as_ref().or(run.created_at.as_ref()))?;
    let now = now_ms.and_then(|now| i64::try_from(now).ok());
    Some(instant(run.finished_at.as_ref()).or(now)? - start)
}

/// Columns of the run table with their minimum widths; `-o wide` adds the last three.
const RUN_COLUMNS: [(&str, usize); 10] = [
    ("RUN_ID", 36),
    ("MACHINE", 13),
    ("TYPE", 12),
    ("PLAN", 17),
    ("PHASE", 9),
    ("STEPS", 5),
    ("DURATION", 8),
    ("STEP", 12),
    ("WAITING", 15),
    ("CREATED", 0),
];
/// Columns of the run table on a terminal that is too narrow for the others: a part of the id is enough for every
/// command, and the plan implies the type.
const NARROW_RUN_COLUMNS: [(&str, usize); 9] = [
    ("RUN_ID", 12),
    ("MACHINE", 13),
    ("PLAN", 12),
    ("PHASE", 9),
    ("STEPS", 5),
    ("DURATION", 8),
    ("STEP", 12),
    ("WAITING", 15),
    ("CREATED", 0),
];

/// Writes the table of runs. Runs in progress show the time taken until `now_ms`.
pub(crate) fn write_runs(
    out: &mut dyn Write,
    look: Look,
    runs: &[pb::Run],
    now_ms: u64,
    wide: bool,
) -> io::Result<()> {
    let rows = |short| runs.iter().map(move |run| run_row(look, run, now_ms, wide, short));
    let whole: Vec<Vec<Cell>> = rows(false).collect();
    let headers = if wide { &RUN_COLUMNS[..] } else { &RUN_COLUMNS[..7] };
    if fits(look, headers, 1, &whole) {
        return write_columns(out, look, headers, 1, &whole);
    }
    let headers = if wide { &NARROW_RUN_COLUMNS[..] } else { &NARROW_RUN_COLUMNS[..6] };
    write_columns(out, look, headers, 1, &rows(true).collect::<Vec<_>>())
}

/// Writes one row of the run table, for streams: columns have their minimum widths.
pub(crate) fn write_run_row(
    out: &mut dyn Write,
    look: Look,
    run: &pb::Run,
    now_ms: u64,
    wide: bool,
) -> io::Result<()> {
    let headers = if wide { &RUN_COLUMNS[..] } else { &RUN_COLUMNS[..7] };
    let short = !fits(look, headers, 1, &[run_row(look, run, now_ms, wide, false)]);
    let widths: Vec<usize> = if short {
        NARROW_RUN_COLUMNS.iter().map(|(_, least)| *least).collect()
    } else {
        RUN_COLUMNS.iter().map(|(_, least)| *least).collect()
    };
    write_row(out, look, &run_row(look, run, now_ms, wide, short), &widths, 1)
}

fn run_row(look: Look, run: &pb::Run, now_ms: u64, wide: bool, short: bool) -> Vec<Cell> {
    let (done, all) = steps_done(run);
    let duration = run_ms(run, Some(now_ms)).map_or_else(|| "-".to_owned(), elapsed_text);
    let mut row = vec![cell(if short { short_run(&run.run_id) } else { &run.run_id })];
    row.push(cell(&run.machine_id));
    if short {
        row.push(cell(run.plan_id.strip_prefix("plan/").unwrap_or(&run.plan_id)));
    } else {
        row.extend([cell(&run_type_name(run.r#type)), cell(&run.plan_id)]);
    }
    // It does not move until an operator acts.
    let phase = match hold(run) {
        Some(_) => ("HELD".to_owned(), Meaning::Attention),
        None => (ended_name(run), run_meaning(run.phase)),
    };
    row.extend([phase, cell(&format!("{done}/{all}")), cell(&duration)]);
    if wide {
        let step = if run.current_step.is_empty() { "-" } else { &run.current_step };
        let waiting = run
            .waiting
            .as_ref()
            .map_or_else(|| "-".to_owned(), |waiting| wait_reason_name(waiting.reason));
        let created = moment(look, run.created_at.as_ref(), now_ms);
        row.extend([cell(step), cell(&waiting), cell(&created)]);
    }
    row
}

/// The phase of a run as people name it: a run that an operator aborted is FAILED to programs.
pub(crate) fn ended_name(run: &pb::Run) -> String {
    let aborted = run.error.as_ref().is_some_and(|error| error.code == "ABORTED");
    if aborted && run.phase() == pb::RunPhase::Failed {
        "ABORTED".to_owned()
    } else {
        run_phase_name(run.phase)
    }
}

/// Writes any table whose cells carry no colour.
pub(crate) fn write_plain(
    out: &mut dyn Write,
    look: Look,
    headers: &[(&str, usize)],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let rows: Vec<Vec<Cell>> =
        rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    write_columns(out, look, headers, 1, &rows)
}
