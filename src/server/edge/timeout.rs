//! The deadline of a call, as its client has set it.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

use crate::api::status::ApiError;
use crate::executor::EngineError;

/// Deadlines longer than this are not enforced.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The deadline that the client has set, from the header `grpc-timeout`.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
        let expected = "must be 1 to 8 digits and one of H M S m u n, for example 5S";
        Status::from(ApiError::Engine(EngineError::invalid("grpc-timeout", expected)))
    })?;
    Ok(Some(parsed).filter(|timeout| *timeout <= TIMEOUT_MAX))
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol over HTTP/2.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_those_of_the_protocol() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse_timeout("1n"), Some(Duration::from_nanos(1)));
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5 S", "ä", "5ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
