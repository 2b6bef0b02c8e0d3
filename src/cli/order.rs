//! How many records a command prints, and in which order.

use std::cmp::Ordering;

use clap::Args;

use crate::pb;

use super::error::Error;
use super::output::{effective_name, phase_name, run_phase_name};

/// How many, and in which order.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Paging {
    /// Print at most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Sort by a column, descending with :desc
    #[arg(long, value_name = "COLUMN[:desc]")]
    pub(crate) sort_by: Option<String>,
}

impl Paging {
    /// Refuses what means nothing for a list that is watched.
    ///
    /// # Errors
    /// Usage, naming the option.
    pub(crate) fn check_unwatched(&self) -> Result<(), Error> {
        let given = match (&self.limit, &self.sort_by) {
            (Some(_), _) => "--limit",
            (None, Some(_)) => "--sort-by",
            (None, None) => return Ok(()),
        };
        Err(Error::usage(
            format!("{given} cannot be used with --watch"),
            "leave one of the two out; a watched list shows every change as it happens",
        ))
    }

    /// Most records to fetch: all of them if they must be sorted here.
    pub(crate) fn fetch_max(&self) -> usize {
        let sorted_here = self.sort_by.is_some() && self.order_by().is_empty();
        if sorted_here { usize::MAX } else { self.limit.unwrap_or(usize::MAX) }
    }

    /// The order for the server, if it supports the column; else empty.
    pub(crate) fn order_by(&self) -> &'static str {
        let sort_by = self.sort_by.as_deref().unwrap_or_default();
        let (column, order) = sort_by.split_once(':').unwrap_or((sort_by, "asc"));
        match (column.to_ascii_lowercase().as_str(), order) {
            ("id", "asc") => "id",
            ("id", "desc") => "id desc",
            ("registered" | "created", "asc") => "created_at",
            ("registered" | "created", "desc") => "created_at desc",
            _ => "",
        }
    }

    /// The order of runs for the server: newest first unless another was requested.
    pub(crate) fn run_order(&self) -> &'static str {
        if self.sort_by.is_none() { "created_at desc" } else { self.order_by() }
    }

    /// Sorts and truncates machines.
    pub(crate) fn machines(&self, machines: &mut Vec<pb::Machine>) -> Result<(), Error> {
        self.apply(
            machines,
            &["id", "phase", "effective", "registered", "changed"],
            |machine, column| {
                let status = machine.status.clone().unwrap_or_default();
                match column {
                    "phase" => Key::Text(phase_name(status.phase)),
                    "effective" => Key::Text(effective_name(status.effective_state)),
                    "registered" => Key::time(machine.created_at.as_ref()),
                    "changed" => Key::time(machine.updated_at.as_ref()),
                    _ => Key::natural(&machine.machine_id),
                }
            },
        )
    }

    /// Sorts and truncates runs.
    pub(crate) fn runs(&self, runs: &mut Vec<pb::Run>) -> Result<(), Error> {
        self.apply(
            runs,
            &["id", "machine", "plan", "phase", "created", "finished"],
            |run, column| match column {
                "machine" => Key::natural(&run.machine_id),
                "plan" => Key::natural(&run.plan_id),
                "phase" => Key::Text(run_phase_name(run.phase)),
                "created" => Key::time(run.created_at.as_ref()),
                "finished" => Key::time(run.finished_at.as_ref()),
                _ => Key::Text(run.run_id.clone()),
            },
        )
    }

    fn apply<T>(
        &self,
        records: &mut Vec<T>,
        columns: &[&str],
        key: impl Fn(&T, &str) -> Key,
    ) -> Result<(), Error> {
        if let Some(sort_by) = &self.sort_by {
            let (column, descending) = match sort_by.split_once(':') {
                None | Some((_, "asc")) => (sort_by.trim_end_matches(":asc"), false),
                Some((column, "desc")) => (column, true),
                Some((_, order)) => {
                    return Err(Error::usage(
                        format!("{order:?} is not a sort order"),
                        "the orders are asc and desc",
                    ));
                }
            };
            let column = column.to_ascii_lowercase();
            if !columns.contains(&column.as_str()) {
                return Err(Error::usage(
                    format!("there is no column {column:?} to sort by"),
                    format!("the columns are {}", columns.join(", ")),
                ));
            }
            records.sort_by_cached_key(|record| key(record, &column));
            if descending {
                records.reverse();
            }
        }
        records.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(())
    }
}

/// What records are ordered by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text(String),
    Time(Option<(i64, i32)>),
    Natural(Vec<Piece>),
}

/// Part of an id: machine-2 comes before machine-10.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number(u128),
}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Piece {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl Key {
    fn time(at: Option<&prost_types::Timestamp>) -> Self {
        Self::Time(at.map(|at| (at.seconds, at.nanos)))
    }

    fn natural(id: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = id;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(match piece.parse() {
                Ok(number) if digits => Piece::Number(number),
                Ok(_) | Err(_) => Piece::Text(piece.to_owned()),
            });
            rest = after;
        }
        Self::Natural(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_people_count() {
        let machine = |id: &str| pb::Machine { machine_id: id.to_owned(), ..Default::default() };
        let mut machines: Vec<_> =
            ["machine-10", "machine-9", "a", "machine-1"].map(machine).to_vec();
        let paging = |sort_by: &str, limit| Paging { limit, sort_by: Some(sort_by.to_owned()) };
        paging("id", None).machines(&mut machines).unwrap();
        let ids: Vec<&str> = machines.iter().map(|machine| machine.machine_id.as_str()).collect();
        assert_eq!(ids, ["a", "machine-1", "machine-9", "machine-10"]);
        paging("id:desc", Some(1)).machines(&mut machines).unwrap();
        assert_eq!(machines[0].machine_id, "machine-10");
        assert_eq!(machines.len(), 1);
        for (sort_by, order_by, fetched) in [
            ("id", "id", 3),
            ("ID:desc", "id desc", 3),
            ("registered:asc", "created_at", 3),
            ("created:desc", "created_at desc", 3),
            ("phase", "", usize::MAX),
            ("id:up", "", usize::MAX),
        ] {
            let paging = paging(sort_by, Some(3));
            assert_eq!((paging.order_by(), paging.fetch_max()), (order_by, fetched), "{sort_by}");
        }
        assert_eq!(paging("color", None).machines(&mut machines).unwrap_err().code(), 2);
        assert_eq!(paging("id:up", None).machines(&mut machines).unwrap_err().code(), 2);
    }
}
