//! What the end of a program means.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::plan::Value;

fn ended(end: End, answer: &str) -> Ended {
    let answer = (!answer.is_empty()).then(|| answer.to_owned());
    let answer = answer.map(zeroize::Zeroizing::new);
    Ended { end, answer, last_error: "the last words".to_owned() }
}

/// The table of docs/providers.md.
#[test]
fn exit_codes_have_a_meaning() {
    let now = Timestamp(0);
    let mut table = String::new();
    let ends = [0, 1, 10, 11, 12, 64, 65, 69, 74, 75, 77, 78, 126, 127, 255].map(End::Exited);
    for end in ends.into_iter().chain([
        End::Signaled(11),
        End::TimedOut(Duration::from_secs(300)),
        End::Asked,
    ]) {
        let ended = ended(end, "");
        let failed = |error: ProviderError| format!("{:?} {:?}", error.kind, error.code);
        let cells = [
            acted("drain", &ended, now).map_or_else(failed, |_| "done".to_owned()),
            observed("drain", &ended, now).map_or_else(failed, |seen| format!("{seen:?}")),
            verified("drain", &ended, now).map_or_else(failed, |seen| format!("{seen:?}")),
            done(Purpose::Fence, "", &ended, now).map_or_else(failed, |()| "raised".to_owned()),
            probed(&ended, now).map_or_else(failed, |health| {
                format!("reachable {} degraded {}", health.reachable, health.degraded)
            }),
        ];
        writeln!(table, "{end}").unwrap();
        for (name, cell) in ["act", "observe", "verify", "fence", "probe"].iter().zip(cells) {
            let cell: String = cell.chars().take(72).collect();
            writeln!(table, "  {name:8}{cell}").unwrap();
        }
    }
    crate::assert_golden!("exec_exit_codes", table);
}

#[test]
fn an_answer_adds_what_an_exit_code_cannot_say() {
    let now = Timestamp(1_000);
    let answer = r#"{"evidence":"7 pods moved","outputs":{"pods":7,"ok":true,"node":"n1"}}"#;
    let output: Values = [
        ("pods".to_owned(), Value::Int(7)),
        ("ok".to_owned(), Value::Bool(true)),
        ("node".to_owned(), Value::Str("n1".into())),
    ]
    .into();
    let evidence = "7 pods moved".to_owned();
    let done = acted("drain", &ended(End::Exited(0), answer), now).unwrap();
    assert_eq!(done, Acted::Done { evidence, output });

    let answer = r#"{"handle":"job-7","poll_after":"30s"}"#;
    let accepted = acted("drain", &ended(End::Exited(0), answer), now).unwrap();
    let poll_at = Timestamp(31_000);
    assert_eq!(accepted, Acted::Accepted { handle: "job-7".to_owned(), poll_at });

    let answer = r#"{"message":"rate limit","retry_after":"5m","expected":"a","observed":"b"}"#;
    let busy = acted("drain", &ended(End::Exited(75), answer), now).unwrap_err();
    assert_eq!(busy.message, "act of drain exited with 75: rate limit");
    assert_eq!(busy.retry_at, Some(Timestamp(301_000)));
    assert_eq!((busy.expected.as_str(), busy.observed.as_str()), ("a", "b"));

    let fence = super::done(Purpose::Fence, "", &ended(End::Exited(10), r#"{"epoch":9}"#), now);
    let current = Epoch(9);
    assert_eq!(fence.unwrap_err().kind, crate::provider::ProviderErrorKind::Fenced { current });
}

/// It has acted: to say that it failed would let it act again.
#[test]
fn an_unreadable_answer_leaves_the_outcome_of_an_act_unknown() {
    for answer in [
        "{",
        "7",
        r#"{"evidnce":"a"}"#,
        r#"{"outputs":{"Name":1}}"#,
        r#"{"outputs":{"a":1.5}}"#,
        r#"{"outputs":{"a":null}}"#,
        r#"{"handle":"a","poll_after":"soon"}"#,
    ] {
        let error = acted("drain", &ended(End::Exited(0), answer), Timestamp(0)).unwrap_err();
        let unknown = ErrorClass::OutcomeUnknown;
        assert_eq!(error.kind, crate::provider::ProviderErrorKind::Class(unknown), "{answer}");
        assert!(error.message.starts_with("act of drain: "), "{error}");
        // Whatever it says, it has failed.
        let error = acted("drain", &ended(End::Exited(65), answer), Timestamp(0)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Invalid);
    }
}
