//! Selection of the records that a command applies to: labels, filters, times.

use clap::Args;

use super::error::Error;
use super::flags::parse_moment;
use crate::selector::{self, SelectorError};

pub(crate) use crate::selector::quoted;

/// Which machines.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Selection {
    /// Labels: rack=r1,role!=db,zone in (a,b),gpu,!legacy
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Filter that the server evaluates, for example 'phase = READY AND conditions.Degraded = true'
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,
}

/// Which runs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunSelection {
    /// Labels of the machines: rack=r1,role!=db,zone in (a,b),gpu,!legacy
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Filter over runs that the server evaluates, for example 'plan_id = reboot AND created_at > -2h'
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,
}

/// From when to when.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Span {
    /// Only newer ones: a time like 2026-01-31T08:00:00Z, or an age: 2h, 1d
    #[arg(long, value_name = "WHEN", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Only older ones: a time, or an age
    #[arg(long, value_name = "WHEN", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
}

impl RunSelection {
    /// Whether nothing was selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.selector.is_none() && self.filter.is_none()
    }

    /// Refuses an empty filter in commands that change what matches.
    ///
    /// # Errors
    /// Usage, as [`Selection::check_narrow`].
    pub(crate) fn check_narrow(&self) -> Result<(), Error> {
        check_narrow(self.selector.as_deref(), self.filter.as_deref(), "run_id:*")
    }

    /// The filter over runs for the server, combined with another condition.
    pub(crate) fn to_filter(&self, also: Option<&str>) -> String {
        let given = self.filter.as_deref().filter(|filter| !filter.trim().is_empty());
        joined(given.into_iter().chain(also))
    }

    /// The filter over machines whose runs are meant, if labels were given.
    ///
    /// # Errors
    /// Usage, if the selector cannot be read.
    pub(crate) fn machine_filter(&self) -> Result<Option<String>, Error> {
        let terms = self.selector.as_deref().map(selector_terms).transpose()?;
        Ok(terms.map(|terms| terms.join(" AND ")))
    }
}

impl Span {
    /// The terms of a filter over a field.
    pub(crate) fn terms(&self, field: &str) -> Vec<String> {
        let term = |value: &Option<String>, op: &str| {
            value.as_ref().map(|value| format!("{field} {op} {value}"))
        };
        [term(&self.since, ">="), term(&self.until, "<")].into_iter().flatten().collect()
    }

    /// The bounds in milliseconds since the Unix epoch, relative to `now_ms`.
    pub(crate) fn bounds(&self, now_ms: u64) -> (Option<i64>, Option<i64>) {
        let at = |value: &Option<String>| value.as_deref().and_then(|text| moment_ms(text, now_ms));
        (at(&self.since), at(&self.until))
    }
}

/// Milliseconds since the Unix epoch of what [`parse_moment`] took.
fn moment_ms(text: &str, now_ms: u64) -> Option<i64> {
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    match text.strip_prefix('-') {
        Some(ago) => Some(now_ms.saturating_sub(i64::try_from(super::flags::ago_ms(ago)?).ok()?)),
        None => Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()),
    }
}

/// Conditions that must all hold. None needs parentheses: OR binds stronger than AND in this language (AIP-160). What a
/// person has written should come first, so that an error names the character that the person counts.
pub(crate) fn joined<'a>(terms: impl IntoIterator<Item = &'a str>) -> String {
    terms.into_iter().collect::<Vec<_>>().join(" AND ")
}

impl Selection {
    /// Whether nothing was selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.selector.is_none() && self.filter.is_none()
    }

    /// Refuses an empty filter in commands that change what matches: an unset variable in a script must not select
    /// the whole fleet.
    ///
    /// # Errors
    /// Usage, with a filter that selects all of them.
    pub(crate) fn check_narrow(&self) -> Result<(), Error> {
        check_narrow(self.selector.as_deref(), self.filter.as_deref(), "machine_id:*")
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
            // First, so that an error names the character that the person counts.
            Some(filter) if !filter.trim().is_empty() => terms.insert(0, filter.clone()),
            Some(_) | None => {}
        }
        Ok(terms.join(" AND "))
    }
}

fn check_narrow(selector: Option<&str>, filter: Option<&str>, all: &str) -> Result<(), Error> {
    if selector.is_none() && filter.is_some_and(|filter| filter.trim().is_empty()) {
        return Err(Error::usage(
            "the filter is empty, which matches everything",
            format!("give a filter; to select all, use --filter '{all}'"),
        ));
    }
    Ok(())
}

/// The terms of a selector, translated to the server's filter language.
fn selector_terms(text: &str) -> Result<Vec<String>, Error> {
    selector::terms(text).map_err(|error| match error {
        SelectorError::Empty => {
            Error::usage(error.to_string(), "for example: -l rack=r1,role=worker")
        }
        SelectorError::NoTerm(_) => Error::usage(error.to_string(), error.hint()),
    })
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
        ] {
            assert_eq!(filter(Some(selector), None).unwrap(), expected);
        }
        assert_eq!(filter(Some("a=b"), Some("x OR y")).unwrap(), "x OR y AND labels.a = \"b\"");
        assert_eq!(filter(None, Some("phase=READY")).unwrap(), "phase=READY");
        assert_eq!(filter(None, None).unwrap(), "");
        for wrong in ["", "=b"] {
            assert_eq!(filter(Some(wrong), None).unwrap_err().code(), 2, "{wrong}");
        }
    }

    #[test]
    fn runs_are_selected_by_machine_and_by_filter() {
        let selection = RunSelection {
            selector: Some("rack=r1".to_owned()),
            filter: Some("phase = FAILED OR held = true".to_owned()),
        };
        assert_eq!(selection.machine_filter().unwrap().unwrap(), "labels.rack = \"r1\"");
        assert_eq!(selection.to_filter(None), "phase = FAILED OR held = true");
        assert_eq!(selection.to_filter(Some("a = b")), "phase = FAILED OR held = true AND a = b");
        assert_eq!(RunSelection::default().to_filter(Some("a = b")), "a = b");
        assert_eq!(RunSelection::default().to_filter(None), "");
    }

    #[test]
    fn an_empty_filter_selects_nothing_to_act_on() {
        use crate::model::filter::{Filter, Subject};
        let selection = |selector: Option<&str>, filter: &str| Selection {
            selector: selector.map(str::to_owned),
            filter: Some(filter.to_owned()),
        };
        for (selector, filter, wrong) in
            [(None, "", true), (None, " ", true), (Some("a=b"), "", false), (None, "x = y", false)]
        {
            let selection = selection(selector, filter);
            assert_eq!(selection.check_narrow().is_err(), wrong, "{selector:?} {filter:?}");
        }
        let runs = RunSelection { selector: None, filter: Some(String::new()) };
        let Err(Error::Usage { hint, .. }) = runs.check_narrow() else { panic!("it is empty") };
        assert!(hint.ends_with("--filter 'run_id:*'"), "{hint}");
        // What the hints say is understood.
        Filter::parse("run_id:*", Subject::Run).unwrap();
        Filter::parse("machine_id:*", Subject::Machine).unwrap();
    }

    #[test]
    fn spans_are_terms_and_instants() {
        let span =
            Span { since: Some("-2h".to_owned()), until: Some("2026-01-31T08:00:00Z".to_owned()) };
        assert_eq!(span.terms("at"), ["at >= -2h", "at < 2026-01-31T08:00:00Z"]);
        assert_eq!(span.bounds(10_000_000), (Some(2_800_000), Some(1_769_846_400_000)));
        assert!(Span::default().terms("at").is_empty());
    }

    #[test]
    fn the_filters_are_read_by_the_server() {
        use crate::model::filter::{Filter, Subject};
        for selector in ["rack=r1", "a.b/c-d!=\"x*\\", "zone in (a,b),!x,gpu", "z notin (1)"] {
            let text = filter(Some(selector), Some("phase = READY OR phase = RMA")).unwrap();
            Filter::parse(&text, Subject::Machine).unwrap();
        }
    }
}
