//! Which records a command is about, and in which order: labels, filters, limits, sorting.

use std::cmp::Ordering;

use clap::Args;

use crate::pb;

use super::error::Error;
use super::output::{effective_name, phase_name, run_phase_name};

/// Which machines.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Selection {
    /// Labels: rack=r1,role!=db,zone in (a,b),gpu,!legacy
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Filter that the server evaluates, for example 'phase = READY AND conditions.Degraded = true'
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
}

/// How many, in which order.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Paging {
    /// Print at most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Sort by a column, descending with :desc
    #[arg(long, value_name = "COLUMN[:desc]")]
    pub(crate) sort_by: Option<String>,
}

impl Selection {
    /// Whether nothing was selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.selector.is_none() && self.filter.is_none()
    }

    /// The filter for the server.
    ///
    /// # Errors
    /// Usage, if the selector cannot be read.
    pub(crate) fn to_filter(&self) -> Result<String, Error> {
        let mut terms = match &self.selector {
            Some(selector) => selector_terms(selector)?,
            None => Vec::new(),
        };
        match &self.filter {
            Some(filter) if terms.is_empty() => return Ok(filter.clone()),
            Some(filter) if !filter.trim().is_empty() => terms.push(format!("({filter})")),
            Some(_) | None => {}
        }
        Ok(terms.join(" AND "))
    }
}

/// The terms of a selector in the language of the server's filters.
fn selector_terms(selector: &str) -> Result<Vec<String>, Error> {
    let mut terms = Vec::new();
    let mut rest = selector;
    while !rest.trim().is_empty() {
        // A comma inside parentheses does not end the term.
        let mut depth = 0_i32;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        let (term, after) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
        terms.push(selector_term(term.trim()).ok_or_else(|| {
            Error::usage(
                format!("{:?} is not a term of a label selector", term.trim()),
                "terms are key=value, key!=value, key in (a,b), key notin (a,b), key and !key, joined by commas",
            )
        })?);
        rest = after;
    }
    if terms.is_empty() {
        return Err(Error::usage(
            "the label selector is empty",
            "for example: -l rack=r1,role=worker",
        ));
    }
    Ok(terms)
}

fn selector_term(term: &str) -> Option<String> {
    if let Some(open) = term.find('(') {
        let values = term[open + 1..].strip_suffix(')')?;
        let (key, word) = term[..open].trim().rsplit_once(char::is_whitespace)?;
        let field = label(key.trim())?;
        let operator = match word {
            "in" => "=",
            "notin" => "!=",
            _ => return None,
        };
        let each: Vec<String> = values
            .split(',')
            .map(|value| format!("{field} {operator} {}", quoted(value.trim())))
            .collect();
        let joint = if operator == "=" { " OR " } else { " AND " };
        return Some(format!("({})", each.join(joint)));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Some(format!("{} != {}", label(key.trim())?, quoted(value.trim())));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(format!("{} = {}", label(key.trim())?, quoted(value.trim())));
    }
    match term.strip_prefix('!') {
        Some(key) => Some(format!("NOT {}:*", label(key.trim())?)),
        None => Some(format!("{}:*", label(term)?)),
    }
}

/// The field of a label; `None` if it cannot be the key of one.
fn label(key: &str) -> Option<String> {
    if key.is_empty()
        || key.contains(|c: char| c.is_whitespace() || matches!(c, '!' | '(' | ')' | '=' | ','))
    {
        return None;
    }
    let simple = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    Some(if simple { format!("labels.{key}") } else { format!("labels.{}", quoted(key)) })
}

/// A text that the filter takes as it is.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '*' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Paging {
    /// Most records to fetch: all of them if they must be sorted here.
    pub(crate) fn fetch_max(&self) -> usize {
        let sorted_here = self.sort_by.is_some() && self.order_by().is_empty();
        if sorted_here { usize::MAX } else { self.limit.unwrap_or(usize::MAX) }
    }

    /// The order for the server, if it knows the column; else the empty one.
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

    /// Sorts and cuts off machines.
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

    /// Sorts and cuts off runs.
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
                        format!("{order:?} is not an order"),
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

    fn filter(selector: Option<&str>, filter: Option<&str>) -> Result<String, Error> {
        Selection { selector: selector.map(str::to_owned), filter: filter.map(str::to_owned) }
            .to_filter()
    }

    #[test]
    fn selectors_become_filters() {
        for (selector, expected) in [
            ("rack=r1", "labels.rack = \"r1\""),
            ("rack==r1,role!=db", "labels.rack = \"r1\" AND labels.role != \"db\""),
            ("zone in (a, b),gpu", "(labels.zone = \"a\" OR labels.zone = \"b\") AND labels.gpu:*"),
            ("zone notin (a,b)", "(labels.zone != \"a\" AND labels.zone != \"b\")"),
            ("!legacy", "NOT labels.legacy:*"),
            ("example.com/rack=r\"1*", "labels.\"example.com/rack\" = \"r\\\"1\\*\""),
        ] {
            assert_eq!(filter(Some(selector), None).unwrap(), expected);
        }
        assert_eq!(filter(Some("a=b"), Some("x OR y")).unwrap(), "labels.a = \"b\" AND (x OR y)");
        assert_eq!(filter(None, Some("phase=READY")).unwrap(), "phase=READY");
        assert_eq!(filter(None, None).unwrap(), "");
        for wrong in ["", ",", "=b", "a in b", "a in (b", "a b", "x within (a)"] {
            assert_eq!(filter(Some(wrong), None).unwrap_err().code(), 2, "{wrong}");
        }
    }

    #[test]
    fn the_filters_are_read_by_the_server() {
        use crate::model::filter::{Filter, Subject};
        for selector in ["rack=r1", "a.b/c-d!=\"x*\\", "zone in (a,b),!x,gpu", "z notin (1)"] {
            let text = filter(Some(selector), Some("phase = READY OR phase = RMA")).unwrap();
            Filter::parse(&text, Subject::Machine).unwrap();
        }
    }

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
