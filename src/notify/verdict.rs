//! What the answer to an event means.

use crate::clock::Timestamp;
use crate::outbound::{Answer, CallError};

/// What the answer to an event means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was taken.
    Taken,
    /// It will never be taken: the receiver says that this event is wrong.
    Refused(String),
    /// It may be taken later, not before the time if there is one.
    Later(String, Option<Timestamp>),
}

/// Judges an answer.
///
/// An answer about the event itself refuses it. One about the receiver (its address, its secret, its load) says nothing of the
/// event, which waits until someone puts that right.
pub(super) fn judge(answer: &Result<Answer, CallError>, now: Timestamp) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Verdict::Later(error.message.clone(), None),
    };
    let status = answer.status.as_u16();
    match status {
        200..=299 => Verdict::Taken,
        401 | 403 | 404 | 405 | 407 | 408 | 410 | 421 | 425 | 429 => {
            Verdict::Later(format!("it answers {status}"), answer.retry_at(now))
        }
        400..=499 => Verdict::Refused(format!("it answers {status}")),
        _ => Verdict::Later(format!("it answers {status}"), answer.retry_at(now)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::outbound::CallErrorKind;

    #[test]
    fn only_what_is_about_the_event_refuses_it() {
        let now = Timestamp(1_000_000);
        let judged = |status: u16| {
            let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, "7".parse().unwrap())]);
            let status = StatusCode::from_u16(status).unwrap();
            judge(&Ok(Answer { status, headers, body: Vec::new() }), now)
        };
        for status in [200, 202, 204, 299] {
            assert_eq!(judged(status), Verdict::Taken);
        }
        for status in [400, 402, 406, 409, 413, 415, 422, 451, 499] {
            assert!(matches!(judged(status), Verdict::Refused(_)), "{status}");
        }
        for status in [304, 401, 403, 404, 405, 407, 408, 410, 421, 425, 429, 500, 502, 503, 599] {
            let later = Verdict::Later(format!("it answers {status}"), Some(now.plus_ms(7_000)));
            assert_eq!(judged(status), later);
        }
        let away = CallError {
            kind: CallErrorKind::Closed,
            may_be_sent: true,
            message: "gone".to_owned(),
        };
        assert_eq!(judge(&Err(away), now), Verdict::Later("gone".to_owned(), None));
    }
}
