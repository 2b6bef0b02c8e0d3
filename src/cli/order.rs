//! How many records a command prints, and in which order.

use std::cmp::Ordering;

use clap::Args;

use super::error::Error;
use super::output::{Columned, Content, unknown_column};

/// How many, and in which order.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Paging {
    /// Print at most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Sort by a column, named as in the table or as in --columns; descending with :desc
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

    /// Most records to fetch: all of them if they must be sorted here, because the server has no such order.
    pub(crate) fn fetch_max(&self, order: &str) -> usize {
        let sorted_here = self.sort_by.is_some() && order.is_empty();
        if sorted_here { usize::MAX } else { self.limit.unwrap_or(usize::MAX) }
    }

    /// The order of machines for the server, if it supports the column; else empty.
    pub(crate) fn machine_order(&self) -> &'static str {
        self.order_by("machine_id")
    }

    /// The order of runs for the server: newest first unless another was requested.
    pub(crate) fn run_order(&self) -> &'static str {
        if self.sort_by.is_none() { "created_at desc" } else { self.order_by("run_id") }
    }

    fn order_by(&self, id: &str) -> &'static str {
        let sort_by = self.sort_by.as_deref().unwrap_or_default();
        let (column, order) = sort_by.split_once(':').unwrap_or((sort_by, "asc"));
        let column = column.to_ascii_lowercase();
        let column = if column == id { "id" } else { &column };
        match (column, order) {
            ("id", "asc") => "id",
            ("id", "desc") => "id desc",
            ("registered" | "created", "asc") => "created_at",
            ("registered" | "created", "desc") => "created_at desc",
            _ => "",
        }
    }

    /// Sorts and truncates records by any of their columns.
    ///
    /// # Errors
    /// Usage, if there is no such column or order.
    pub(crate) fn apply<T: Columned>(
        &self,
        records: &mut Vec<T>,
        now_ms: u64,
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
            let is_label = column.starts_with("labels.");
            let column = if is_label { column.to_owned() } else { column.to_ascii_lowercase() };
            if unknown_column::<T>(std::slice::from_ref(&column)).is_some() {
                return Err(Error::usage(
                    format!("there is no column {column:?} to sort by"),
                    format!("the columns are {}", T::COLUMNS.join(", ")),
                ));
            }
            records.sort_by_cached_key(|record| Key::of(record.content(&column, now_ms)));
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
    Number(Option<i64>),
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
    fn of(content: Option<Content>) -> Self {
        match content {
            Some(Content::Text(text) | Content::Painted(text, _) | Content::Run(text)) => {
                Self::natural(&text)
            }
            Some(Content::Mark(mark)) => Self::Number(mark.map(i64::from)),
            Some(Content::Time(at)) => Self::time(at.as_ref()),
            Some(Content::Took(ms)) => Self::Number(ms),
            None => Self::Number(None),
        }
    }

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
    use crate::pb;

    fn paging(sort_by: &str, limit: Option<usize>) -> Paging {
        Paging { limit, sort_by: Some(sort_by.to_owned()) }
    }

    #[test]
    fn ids_sort_as_people_count() {
        let machine = |id: &str| pb::Machine { machine_id: id.to_owned(), ..Default::default() };
        let mut machines: Vec<_> =
            ["machine-10", "machine-9", "a", "machine-1"].map(machine).to_vec();
        paging("id", None).apply(&mut machines, 0).unwrap();
        let ids: Vec<&str> = machines.iter().map(|machine| machine.machine_id.as_str()).collect();
        assert_eq!(ids, ["a", "machine-1", "machine-9", "machine-10"]);
        paging("id:desc", Some(1)).apply(&mut machines, 0).unwrap();
        assert_eq!(machines[0].machine_id, "machine-10");
        assert_eq!(machines.len(), 1);
        for (sort_by, order_by, fetched) in [
            ("id", "id", 3),
            ("MACHINE_ID:desc", "id desc", 3),
            ("registered:asc", "created_at", 3),
            ("created:desc", "created_at desc", 3),
            ("phase", "", usize::MAX),
            ("id:up", "", usize::MAX),
        ] {
            let paging = paging(sort_by, Some(3));
            let order = paging.machine_order();
            assert_eq!((order, paging.fetch_max(order)), (order_by, fetched), "{sort_by}");
        }
        assert_eq!(paging("color", None).apply(&mut machines, 0).unwrap_err().code(), 2);
        assert_eq!(paging("id:up", None).apply(&mut machines, 0).unwrap_err().code(), 2);
    }

    #[test]
    fn every_column_sorts_by_the_names_that_tables_have() {
        let mut machines = vec![pb::Machine::default()];
        let mut runs = vec![pb::Run::default()];
        for column in pb::Machine::COLUMNS.iter().chain(pb::Machine::ALIASES) {
            paging(&column.to_uppercase(), None).apply(&mut machines, 0).unwrap();
        }
        for column in pb::Run::COLUMNS.iter().chain(pb::Run::ALIASES) {
            paging(&column.to_uppercase(), None).apply(&mut runs, 0).unwrap();
        }
        // The column of a run, not the id of a machine.
        assert_eq!(paging("machine_id", None).run_order(), "");
        assert_eq!(paging("RUN_ID", None).run_order(), "id");
        let run = |machine: &str, seconds| pb::Run {
            machine_id: machine.to_owned(),
            started_at: Some(prost_types::Timestamp::default()),
            finished_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        let mut runs = vec![run("machine-10", 100), run("machine-9", 20)];
        paging("machine", None).apply(&mut runs, 0).unwrap();
        assert_eq!(runs[0].machine_id, "machine-9");
        paging("duration:desc", None).apply(&mut runs, 0).unwrap();
        assert_eq!(runs[0].machine_id, "machine-10");
    }
}
