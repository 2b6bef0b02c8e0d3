//! Durations as plans write them: `500ms`, `30s`, `5m`, `1h30m`.

use std::fmt;

use super::limits::DURATION_MS_MAX;

/// Units from the longest to the shortest, with their milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// The text is empty.
    Empty,
    /// Something other than a number where a number is expected.
    NoNumber,
    /// A number without a unit.
    NoUnit,
    /// A unit that does not exist.
    UnknownUnit(String),
    /// Units are not in order from long to short, or one occurs twice.
    Order,
    /// More than 30 days.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a duration must not be empty"),
            Self::NoNumber => f.write_str("a duration is whole numbers, each with a unit"),
            Self::NoUnit => f.write_str("a number in a duration needs a unit"),
            Self::UnknownUnit(unit) => write!(f, "`{unit}` is not a unit of time"),
            Self::Order => f.write_str("units go from long to short, each at most once"),
            Self::TooLong => f.write_str("a duration is at most 30 days"),
        }
    }
}

impl std::error::Error for DurationError {}

/// Parses a duration, in milliseconds; at most 30 days.
///
/// # Errors
/// What is wrong; [`FORMAT_HINT`] says how to write it.
pub fn parse(text: &str) -> Result<u64, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| !c.is_ascii_digit());
        if number.is_empty() {
            return Err(DurationError::NoNumber);
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit);
        }
        if !UNITS.iter().any(|&(name, _)| name == unit) {
            return Err(DurationError::UnknownUnit(unit.chars().take(16).collect()));
        }
        // The iterator only moves forward, so a unit that was passed is not found again.
        let &(_, unit_ms) = units.find(|&&(name, _)| name == unit).ok_or(DurationError::Order)?;
        total_ms = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .and_then(|ms| ms.checked_add(total_ms))
            .filter(|&ms| ms <= DURATION_MS_MAX)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(total_ms)
}

/// How a duration is written, for hints.
pub const FORMAT_HINT: &str = "write it like \"500ms\", \"30s\", \"5m\" or \"1h30m\"";

fn split_while(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

/// Writes milliseconds as [`parse`] reads them, with the fewest units: `90_000` is `1m30s`, zero is `0s`.
pub fn format(ms: u64) -> String {
    let mut text = String::new();
    let mut rest = ms;
    for (name, unit_ms) in UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{name}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1s1ms", 1_001),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, error) in [
            ("", DurationError::Empty),
            ("s", DurationError::NoNumber),
            ("-5s", DurationError::NoNumber),
            (" 5s", DurationError::NoNumber),
            ("30", DurationError::NoUnit),
            ("1h30", DurationError::NoUnit),
            ("5 m", DurationError::UnknownUnit(" m".to_owned())),
            ("1.5h", DurationError::UnknownUnit(".".to_owned())),
            ("5min", DurationError::UnknownUnit("min".to_owned())),
            ("5µs", DurationError::UnknownUnit("µs".to_owned())),
            ("5s1m", DurationError::Order),
            ("5s5s", DurationError::Order),
            ("31d", DurationError::TooLong),
            ("99999999999999999999999999s", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for ms in [0, 1, 999, 1_000, 61_001, 5_400_000, DURATION_MS_MAX] {
            assert_eq!(parse(&format(ms)), Ok(ms));
        }
        assert_eq!(format(90_000), "1m30s");
    }
}
