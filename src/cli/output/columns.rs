//! Columns by name, for `--columns` and `-o csv`.

use std::io::{self, Write};

use prost_types::Timestamp;

use crate::pb;

use super::table::{
    Cell, condition, effective_meaning, ended_name, run_meaning, run_ms, steps_done, write_columns,
};
use super::text::{
    Look, Meaning, effective_name, phase_name, run_type_name, sanitized, short_run,
    wait_reason_name,
};
use super::time::{elapsed_text, moment, rfc3339};

/// The content of a column for one record.
pub(crate) enum Content {
    /// Text from the record.
    Text(String),
    /// Text of the client's.
    Painted(String, Meaning),
    /// A run id; short where there is little room.
    Run(String),
    /// True, false, or never observed.
    Mark(Option<bool>),
    Time(Option<Timestamp>),
    /// Milliseconds.
    Took(Option<i64>),
}

impl Content {
    fn cell(self, look: Look, now_ms: u64) -> Cell {
        let plain = |text: String| (text, Meaning::Plain);
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        match self {
            Self::Text(text) => plain(or_dash(sanitized(&text).into_owned())),
            Self::Painted(text, meaning) => (or_dash(text), meaning),
            Self::Run(id) if look.columns.is_some() => {
                plain(or_dash(sanitized(short_run(&id)).into_owned()))
            }
            Self::Run(id) => plain(or_dash(sanitized(&id).into_owned())),
            Self::Mark(mark) => {
                let (glyph, meaning) = look.mark(mark);
                (glyph.to_owned(), meaning)
            }
            Self::Time(at) => plain(moment(look, at.as_ref(), now_ms)),
            Self::Took(ms) => plain(ms.map_or_else(|| "-".to_owned(), elapsed_text)),
        }
    }

    /// For programs: empty where there is no value, RFC 3339, seconds.
    fn raw(self) -> String {
        match self {
            Self::Text(text) | Self::Run(text) => text,
            Self::Painted(text, _) => {
                if text == "-" {
                    String::new()
                } else {
                    text
                }
            }
            Self::Mark(mark) => mark.map(|mark| mark.to_string()).unwrap_or_default(),
            Self::Time(at) => at.map(|at| rfc3339(Some(&at))).unwrap_or_default(),
            Self::Took(ms) => ms.map(|ms| format!("{:.3}", ms as f64 / 1000.0)).unwrap_or_default(),
        }
    }
}

/// A record with columns.
pub(crate) trait Columned {
    /// Names of all columns, plus `labels.<key>` where there are labels.
    const COLUMNS: &'static [&'static str];
    /// Other names that are taken for columns.
    const ALIASES: &'static [&'static str] = &[];
    /// Whether `labels.<key>` is a column too.
    const LABELS: bool;
    /// The content of a column; `None` if there is no such column.
    fn content(&self, column: &str, now_ms: u64) -> Option<Content>;
}

impl Columned for pb::Machine {
    const COLUMNS: &'static [&'static str] = &[
        "machine_id",
        "phase",
        "effective",
        "reachable",
        "in_cluster",
        "needs_intervention",
        "degraded",
        "hardware_matches",
        "disks_trusted",
        "active_run",
        "provider",
        "mac",
        "bmc",
        "ssh",
        "cluster",
        "serial",
        "labels",
        "created",
        "updated",
    ];
    const ALIASES: &'static [&'static str] = &["id", "registered", "changed"];
    const LABELS: bool = true;

    fn content(&self, column: &str, _: u64) -> Option<Content> {
        let status = self.status.clone().unwrap_or_default();
        let spec = self.spec.clone().unwrap_or_default();
        if let Some(key) = column.strip_prefix("labels.") {
            return Some(Content::Text(self.labels.get(key).cloned().unwrap_or_default()));
        }
        let mark = |kind| Content::Mark(condition(&status, kind));
        Some(match column {
            "machine_id" | "id" => Content::Text(self.machine_id.clone()),
            "phase" => Content::Text(phase_name(status.phase)),
            "effective" => Content::Painted(
                effective_name(status.effective_state),
                effective_meaning(status.effective_state),
            ),
            "reachable" => mark(pb::ConditionType::Reachable),
            "in_cluster" => mark(pb::ConditionType::InCustomerCluster),
            "needs_intervention" => mark(pb::ConditionType::NeedsIntervention),
            "degraded" => mark(pb::ConditionType::Degraded),
            "hardware_matches" => mark(pb::ConditionType::HardwareMatches),
            "disks_trusted" => Content::Mark(Some(status.untrusted_disks.is_none())),
            "active_run" => Content::Run(status.active_run_id),
            "provider" => Content::Text(spec.provider),
            "mac" => Content::Text(spec.mac_addresses.join(" ")),
            "bmc" => Content::Text(spec.bmc_endpoint),
            "ssh" => Content::Text(spec.ssh_endpoint),
            "cluster" => Content::Text(spec.target_cluster),
            "serial" => Content::Text(spec.serial),
            "labels" => {
                let mut labels: Vec<String> =
                    self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                labels.sort();
                Content::Text(labels.join(","))
            }
            "created" | "registered" => Content::Time(self.created_at),
            "updated" | "changed" => Content::Time(self.updated_at),
            _ => return None,
        })
    }
}

impl Columned for pb::Run {
    const COLUMNS: &'static [&'static str] = &[
        "run_id",
        "machine_id",
        "type",
        "plan_id",
        "phase",
        "steps",
        "duration",
        "step",
        "waiting",
        "error",
        "created",
        "started",
        "finished",
        "by",
        "reason",
        "retry_of",
    ];
    const ALIASES: &'static [&'static str] = &["id", "machine", "plan"];
    const LABELS: bool = false;

    fn content(&self, column: &str, now_ms: u64) -> Option<Content> {
        let waiting = self.waiting.as_ref().map(|waiting| wait_reason_name(waiting.reason));
        Some(match column {
            "run_id" | "id" => Content::Run(self.run_id.clone()),
            "machine_id" | "machine" => Content::Text(self.machine_id.clone()),
            "type" => Content::Text(run_type_name(self.r#type)),
            "plan_id" | "plan" => Content::Text(self.plan_id.clone()),
            "phase" => Content::Painted(ended_name(self), run_meaning(self.phase)),
            "steps" => {
                let (done, all) = steps_done(self);
                Content::Text(format!("{done}/{all}"))
            }
            "duration" => Content::Took(run_ms(self, Some(now_ms))),
            "step" => Content::Text(self.current_step.clone()),
            "waiting" => Content::Text(waiting.unwrap_or_default()),
            "error" => Content::Text(
                self.error
                    .as_ref()
                    .map(|error| format!("{}: {}", error.code, error.message))
                    .unwrap_or_default(),
            ),
            "created" => Content::Time(self.created_at),
            "started" => Content::Time(self.started_at),
            "finished" => Content::Time(self.finished_at),
            "by" => Content::Text(
                self.requested_by.as_ref().map(|actor| actor.name.clone()).unwrap_or_default(),
            ),
            "reason" => Content::Text(self.reason.clone()),
            "retry_of" => Content::Run(self.retry_of.clone()),
            _ => return None,
        })
    }
}

/// The first requested column that does not exist.
pub(crate) fn unknown_column<T: Columned>(asked: &[String]) -> Option<&str> {
    let is_column = |name: &str| {
        let label = T::LABELS && name.strip_prefix("labels.").is_some_and(|key| !key.is_empty());
        T::COLUMNS.contains(&name) || T::ALIASES.contains(&name) || label
    };
    asked.iter().map(String::as_str).find(|name| !is_column(name))
}

/// Writes a table of the requested columns; those that do not exist are left out.
pub(crate) fn write_chosen<T: Columned>(
    out: &mut dyn Write,
    look: Look,
    records: &[T],
    columns: &[String],
    now_ms: u64,
) -> io::Result<()> {
    let names: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let headers: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let rows: Vec<Vec<Cell>> = records
        .iter()
        .map(|record| {
            let contents = columns.iter().filter_map(|name| record.content(name, now_ms));
            contents.map(|content| content.cell(look, now_ms)).collect()
        })
        .collect();
    write_columns(out, look, &headers, 1, &rows)
}

/// Writes the header of a CSV file.
pub(crate) fn write_csv_header<T: Columned>(
    out: &mut dyn Write,
    columns: &[String],
) -> io::Result<()> {
    if columns.is_empty() {
        return write_record(out, T::COLUMNS.iter().map(|name| (*name).to_owned()));
    }
    write_record(out, columns.iter().cloned())
}

/// Writes records as CSV (RFC 4180, with bare line feeds); without `columns`, all of them.
pub(crate) fn write_csv_rows<T: Columned>(
    out: &mut dyn Write,
    records: &[T],
    columns: &[String],
    now_ms: u64,
) -> io::Result<()> {
    let all: Vec<String> = T::COLUMNS.iter().map(|name| (*name).to_owned()).collect();
    let columns = if columns.is_empty() { &all } else { columns };
    records.iter().try_for_each(|record| {
        let contents = columns.iter().filter_map(|name| record.content(name, now_ms));
        write_record(out, contents.map(Content::raw))
    })
}

fn write_record(out: &mut dyn Write, fields: impl Iterator<Item = String>) -> io::Result<()> {
    let quoted = |field: String| {
        if field.contains(['"', ',', '\n', '\r']) || field.trim() != field {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field
        }
    };
    let line: Vec<String> = fields.map(quoted).collect();
    writeln!(out, "{}", line.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> pb::Machine {
        pb::Machine {
            machine_id: "machine-1".to_owned(),
            labels: [("rack", "r1"), ("note", "a, \"b\"\nc")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            status: Some(pb::MachineStatus {
                phase: pb::Phase::Ready.into(),
                active_run_id: "019b76da-a800-78ef-a333-b266f1034752".to_owned(),
                ..Default::default()
            }),
            created_at: Some(Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            ..Default::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn csv_reads_back() {
        let columns = names(&["machine_id", "labels.note", "labels.none", "reachable", "created"]);
        let mut out = Vec::new();
        write_csv_header::<pb::Machine>(&mut out, &columns).unwrap();
        write_csv_rows(&mut out, &[machine()], &columns, 0).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "machine_id,labels.note,labels.none,reachable,created\n\
             machine-1,\"a, \"\"b\"\"\nc\",,,2027-01-15T08:00:00.000Z\n"
        );
    }

    #[test]
    fn every_column_has_a_content_and_no_other_has() {
        let machine = machine();
        assert!(pb::Machine::COLUMNS.iter().all(|name| machine.content(name, 0).is_some()));
        let run = pb::Run::default();
        assert!(pb::Run::COLUMNS.iter().all(|name| run.content(name, 0).is_some()));
        assert_eq!(unknown_column::<pb::Machine>(&names(&["phase", "labels.x"])), None);
        assert_eq!(unknown_column::<pb::Machine>(&names(&["phase", "labels."])), Some("labels."));
        assert_eq!(unknown_column::<pb::Run>(&names(&["labels.x"])), Some("labels.x"));
    }

    #[test]
    fn a_table_of_chosen_columns() {
        let mut out = Vec::new();
        let columns = names(&["machine_id", "active_run", "labels.rack", "degraded"]);
        let look = Look { columns: Some(80), ..Look::default() };
        write_chosen(&mut out, look, &[machine()], &columns, 0).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "MACHINE_ID ACTIVE_RUN   LABELS.RACK DEGRADED\nmachine-1  b266f1034752 r1          -\n"
        );
    }
}
