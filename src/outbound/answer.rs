//! What came back.

use http::{HeaderMap, StatusCode};

use crate::clock::Timestamp;

/// Longest wait that another server can ask for, in milliseconds.
const RETRY_AFTER_MS_MAX: u64 = 60 * 60 * 1_000;

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// When the other side asks to be called again (`Retry-After`).
    #[must_use]
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        retry_at(self.header("retry-after")?, now)
    }
}

/// The instant that a value of `Retry-After` names: seconds from now, or a date. At most an hour away.
#[must_use]
pub fn retry_at(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    let at = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse::<u64>().unwrap_or(RETRY_AFTER_MS_MAX);
        now.plus_ms(seconds.saturating_mul(1_000))
    } else {
        let date = jiff::fmt::rfc2822::parse(value).ok()?;
        Timestamp(u64::try_from(date.timestamp().as_millisecond()).ok()?).max(now)
    };
    Some(at.min(now.plus_ms(RETRY_AFTER_MS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_bounded() {
        // 2023-11-14T22:13:20Z
        let now = Timestamp(1_700_000_000_000);
        assert_eq!(retry_at("5", now), Some(now.plus_ms(5_000)));
        assert_eq!(retry_at(" 0 ", now), Some(now));
        assert_eq!(retry_at("Tue, 14 Nov 2023 22:14:20 GMT", now), Some(now.plus_ms(60_000)));
        assert_eq!(retry_at("Tue, 14 Nov 2023 22:00:00 GMT", now), Some(now));
        let hour = Some(now.plus_ms(3_600_000));
        assert_eq!(retry_at("86400", now), hour);
        assert_eq!(retry_at("99999999999999999999999", now), hour);
        assert_eq!(retry_at("Tue, 14 Nov 2028 22:14:20 GMT", now), hour);
        for text in ["", "soon", "-5", "1.5"] {
            assert_eq!(retry_at(text, now), None, "{text}");
        }
    }
}
