//! Instants and durations, for people and for programs.

use prost_types::{Duration, Timestamp};

use super::text::Look;

/// Milliseconds since the Unix epoch.
pub(crate) fn instant(at: Option<&Timestamp>) -> Option<i64> {
    at.map(|at| at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000))
}

/// RFC 3339 in UTC with milliseconds; `-` if absent.
pub(crate) fn rfc3339(at: Option<&Timestamp>) -> String {
    match instant(at).map(jiff::Timestamp::from_millisecond) {
        Some(Ok(at)) => format!("{at:.3}"),
        Some(Err(_)) | None => "-".to_owned(),
    }
}

/// An instant in a table: `3m ago` for people, RFC 3339 for programs; `-` if absent.
pub(crate) fn moment(look: Look, at: Option<&Timestamp>, now_ms: u64) -> String {
    let Some(ms) = instant(at).filter(|_| look.relative) else { return rfc3339(at) };
    let ahead = ms.saturating_sub(i64::try_from(now_ms).unwrap_or(i64::MAX));
    let seconds = ahead.unsigned_abs() / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, 's'),
        60..3600 => (seconds / 60, 'm'),
        3600..86_400 => (seconds / 3600, 'h'),
        _ => (seconds / 86_400, 'd'),
    };
    if ahead > 0 { format!("in {count}{unit}") } else { format!("{count}{unit} ago") }
}

/// A length of time as the result box shows it: `2.5s`, `1m 05s`, `2h 03m`, `3d 04h`.
pub(crate) fn elapsed_text(ms: i64) -> String {
    let ms = ms.max(0);
    let tenths = (ms + 50) / 100;
    if tenths < 600 {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    let seconds = (ms + 500) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if hours == 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else {
        format!("{days}d {:02}h", hours % 24)
    }
}

/// A duration from a plan: `30s`, `5m`, `1h30m`, `500ms`.
pub(crate) fn duration_text(duration: Option<&Duration>) -> String {
    let Some(duration) = duration else { return "-".to_owned() };
    let ms =
        duration.seconds.saturating_mul(1000).saturating_add(i64::from(duration.nanos) / 1_000_000);
    if ms % 1000 != 0 || ms == 0 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let seconds = ms / 1000;
    let mut text = String::new();
    for (unit, name) in [(3600, 'h'), (60, 'm'), (1, 's')] {
        let count = if unit == 3600 { seconds / 3600 } else { seconds / unit % 60 };
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (ms, text) in [
            (-5, "0.0s"),
            (0, "0.0s"),
            (2_460, "2.5s"),
            (59_940, "59.9s"),
            (59_960, "1m 00s"),
            (65_000, "1m 05s"),
            (7_380_000, "2h 03m"),
            (273_600_000, "3d 04h"),
        ] {
            assert_eq!(elapsed_text(ms), text, "{ms}");
        }
        let duration = |seconds, nanos| duration_text(Some(&Duration { seconds, nanos }));
        assert_eq!(duration(5400, 0), "1h30m");
        assert_eq!(duration(90, 0), "1m30s");
        assert_eq!(duration(0, 500_000_000), "500ms");
        assert_eq!(duration(0, 0), "0s");
        assert_eq!(duration_text(None), "-");
    }

    #[test]
    fn instants_are_rfc_3339() {
        let at = Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 };
        assert_eq!(rfc3339(Some(&at)), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(None), "-");
    }

    #[test]
    fn tables_on_terminals_show_the_time_since() {
        let at = Timestamp { seconds: 1_000_000, nanos: 0 };
        let piped = Look::default();
        let terminal = Look { relative: true, ..piped };
        let after = |seconds: u64| moment(terminal, Some(&at), (1_000_000 + seconds) * 1000);
        assert_eq!(moment(piped, Some(&at), 0), "1970-01-12T13:46:40.000Z");
        assert_eq!([0, 59, 60, 3_599].map(after), ["0s ago", "59s ago", "1m ago", "59m ago"]);
        assert_eq!([3_600, 86_399, 864_000].map(after), ["1h ago", "23h ago", "10d ago"]);
        assert_eq!(moment(terminal, Some(&at), 999_990_000), "in 10s");
        assert_eq!(moment(terminal, None, 0), "-");
    }
}
