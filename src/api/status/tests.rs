use std::sync::Arc;

use tonic::Code;

use super::*;
use crate::clock::Timestamp;
use crate::executor::error::FieldViolation;
use crate::ids::{Epoch, MachineId, Revision};
use crate::store::RequestRecord;

fn cause() -> Arc<dyn std::error::Error + Send + Sync> {
    Arc::new(std::io::Error::other("disk /var/lib/secret is on fire"))
}

fn machine_id() -> MachineId {
    MachineId::parse("machine-1").unwrap()
}

const RUN: &str = "0190f5fe-7c00-7a00-8000-000000000001";

/// At least one error for every reason.
fn errors() -> Vec<ApiError> {
    let refused = Refusal::ALL.map(|refusal| EngineError::Refused {
        refusal,
        subject: "machines/machine-1".to_owned(),
        message: format!("machine machine-1 has an active run {RUN}"),
        hint: "wait".to_owned(),
    });
    let record = RequestRecord {
        scope: "StartRun/machine-1".to_owned(),
        request_id: "a".to_owned(),
        body_digest: String::new(),
        object_id: String::new(),
        at: Timestamp(0),
        revision: Revision(1),
    };
    let stored = [
        StoreError::Conflict {
            kind: "machine",
            id: "machine-1".to_owned(),
            expected: Revision(1),
            stored: Revision(2),
        },
        StoreError::ActiveRun { machine_id: machine_id(), run_id: RunId::parse(RUN).unwrap() },
        StoreError::Fenced { machine_id: machine_id(), held: Epoch(1), current: Epoch(2) },
        StoreError::RequestUsed(Box::new(record)),
        StoreError::NoSlot { key: crate::store::SlotKey::new("label/rack=r1"), max: 2 },
        StoreError::Compacted { oldest: Revision(7) },
        StoreError::Full(cause()),
        StoreError::Unknown(cause()),
        StoreError::Unavailable(cause()),
        StoreError::Corrupt {
            kind: "run",
            id: RUN.to_owned(),
            message: "expected value at line 1, column 7 of /var/lib/secret".to_owned(),
        },
    ];
    let engine = [
        EngineError::invalid("machine_id", "must not be empty"),
        EngineError::NotFound { kind: "machine", id: "machine-9".to_owned() },
        EngineError::OutOfScope {
            message: "ListAudit is about the whole fleet, and ann has the scope rack=r1".to_owned(),
        },
        EngineError::AlreadyExists {
            kind: "machine",
            id: "machine-1".to_owned(),
            difference: "its provider is fake, not redfish".to_owned(),
        },
        EngineError::ForAdmins {
            who: "carl".to_owned(),
            role: "operator",
            what: "StartRun of plan/rma".to_owned(),
        },
        EngineError::RequestIdReused { request_id: "a".to_owned() },
        EngineError::EtagMismatch {
            kind: "machine",
            id: "machine-1".to_owned(),
            given: "\"1\"".to_owned(),
            current: "\"2\"".to_owned(),
        },
        EngineError::Exhausted { limit: "WATCHERS", message: "2000 watches are open".to_owned() },
        EngineError::Compacted { oldest: Revision(7) },
        EngineError::DeadlineExceeded,
        EngineError::ShuttingDown,
        EngineError::Internal("secret cause".to_owned()),
    ];
    let own = [
        ApiError::PlanNotFound {
            id: "plan/repave-jion".to_owned(),
            suggestion: Some("plan/repave-join".to_owned()),
        },
        ApiError::Filter(FilterError {
            position: 7,
            expected: "a value".to_owned(),
            found: "the end".to_owned(),
        }),
        ApiError::PageTokenInvalid,
        ApiError::PageTokenMismatch,
        ApiError::MessageMalformed("invalid wire type".to_owned()),
        ApiError::MessageTooLarge,
        ApiError::CompressionUnsupported("Content is compressed with `gzip`".to_owned()),
        ApiError::DeadlineExceeded,
        ApiError::RequestIncomplete { limit: Duration::from_secs(10) },
        ApiError::NotReady,
        ApiError::Unauthenticated,
        ApiError::CredentialsEnded { resume_from: 7 },
        ApiError::RoleMissing {
            who: "ann".to_owned(),
            role: "viewer",
            what: "StartRun".to_owned(),
            wanted: "operator",
        },
        ApiError::PrincipalLocked("bob is locked by ann: laptop lost".to_owned()),
        ApiError::MethodUnknown("/baremetal.v1.RunService/Fly".to_owned()),
    ];
    let stored = stored.map(EngineError::Store);
    let engine = refused.into_iter().chain(engine).chain(stored).map(ApiError::Engine);
    engine.chain(own).collect()
}

#[test]
fn every_reason_has_an_error_and_every_error_its_details() {
    let mut seen = Vec::new();
    let mut gallery = String::new();
    for error in errors() {
        let reason = error.reason();
        seen.push(reason);
        let status = Status::from(error);
        assert_eq!(status.code(), reason.code());
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), DOMAIN));
        for secret in ["secret", "fire"] {
            assert!(!format!("{status:?}").contains(secret), "{reason:?} leaks its cause");
        }
        gallery += &describe(&status);
    }
    for reason in Reason::ALL {
        assert!(seen.contains(reason), "no error for {reason:?}");
    }
    let gallery = gallery.replace(env!("CARGO_PKG_VERSION"), "<version>");
    crate::assert_golden!("api_statuses", gallery);
}

fn describe(status: &Status) -> String {
    use std::fmt::Write as _;
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    let mut text = format!("{:?} {}\n  {}\n", status.code(), info.reason, status.message());
    let metadata: std::collections::BTreeMap<_, _> = info.metadata.iter().collect();
    for (key, value) in metadata {
        writeln!(text, "  metadata {key}: {value}").unwrap();
    }
    for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
        writeln!(text, "  field {}: {}", violation.field, violation.description).unwrap();
    }
    for violation in details.precondition_failure().map_or(&[][..], |failure| &failure.violations) {
        let failure = (&violation.r#type, &violation.subject, &violation.description);
        writeln!(text, "  precondition {} of {}: {}", failure.0, failure.1, failure.2).unwrap();
    }
    for violation in details.quota_failure().map_or(&[][..], |failure| &failure.violations) {
        writeln!(text, "  quota {}: {}", violation.subject, violation.description).unwrap();
    }
    if let Some(resource) = details.resource_info() {
        writeln!(text, "  resource {} {}", resource.resource_type, resource.resource_name).unwrap();
    }
    if let Some(retry) = details.retry_info() {
        writeln!(text, "  retry after {:?}", retry.retry_delay.unwrap()).unwrap();
    }
    for link in details.help().map_or(&[][..], |help| &help.links) {
        writeln!(text, "  help {}: {}", link.description, link.url).unwrap();
    }
    text
}

#[test]
fn refusals_keep_their_names() {
    for refusal in Refusal::ALL {
        assert_eq!(Reason::from(refusal).as_str(), refusal.as_str());
    }
}

#[test]
fn a_status_stays_small_enough_for_trailers() {
    let violation = |n, text: &str| FieldViolation::new(format!("labels.{n}"), text.repeat(10_000));
    for text in ["x", "ä", "💥", "\u{202e}", "\"", "%"] {
        let wrong: Vec<_> = (0..1000).map(|n| violation(n, text)).collect();
        let refused = |refusal| EngineError::Refused {
            refusal,
            subject: text.repeat(9_000),
            message: text.repeat(10_000),
            hint: text.repeat(10_000),
        };
        let plan =
            ApiError::PlanNotFound { id: text.repeat(70_000), suggestion: Some(text.repeat(500)) };
        let errors = [
            ApiError::from(EngineError::Invalid(wrong)),
            ApiError::Blocked(Refusal::ALL.map(refused).to_vec()),
            ApiError::MessageMalformed(text.repeat(70_000)),
            ApiError::MethodUnknown(text.repeat(70_000)),
            plan,
        ];
        for error in errors {
            let status = Status::from(error);
            let bytes: usize = status
                .clone()
                .into_http::<tonic::body::Body>()
                .headers()
                .iter()
                // As HTTP/2 counts them (RFC 9113, section 6.5.2).
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(bytes < 8 * 1024 - 256, "{bytes} bytes of {text}: {}", status.message());
            assert!(!status.message().is_empty());
            assert!(!status.message().contains('\u{202e}'));
        }
    }
    let status = Status::from(ApiError::from(EngineError::Invalid(
        (0..1000).map(|n| violation(n, "x")).collect(),
    )));
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations.len(), VIOLATIONS_MAX);
}

#[test]
fn what_cannot_be_seen_is_escaped_in_every_part_of_an_error() {
    let error = EngineError::invalid("labels.\u{202e}x", "given \u{200b}twice");
    let status = Status::from(ApiError::from(error));
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "labels.\\u{202e}x");
    assert_eq!(violation.description, "given \\u{200b}twice");
    assert_eq!(status.message(), "labels.\\u{202e}x: given \\u{200b}twice");
}

/// `docs/errors.md` has a section for every reason, in the order of the enum, and no other.
#[test]
fn the_documentation_matches_the_list() {
    let text = include_str!("../../../docs/errors.md");
    let mut sections = text.split("\n## ").skip(1);
    for reason in Reason::ALL {
        let section = sections.next().unwrap_or_default();
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        assert_eq!(title, reason.as_str());
        let code = format!("Code: `{}`.", screaming(reason.code()));
        for part in [code.as_str(), "**What happened.** ", "**What to do.** "] {
            assert!(body.contains(part), "{title} lacks {part:?}");
        }
    }
    assert_eq!(sections.next(), None);
}

/// The details that a section promises are those that the status has.
#[test]
fn the_documentation_names_the_details() {
    let text = include_str!("../../../docs/errors.md");
    for error in errors() {
        let reason = error.reason();
        let marker = format!("\n## {}\n", reason.as_str());
        let section = text.split_once(&marker).unwrap().1.split("\n## ").next().unwrap();
        let promised = section.lines().find(|line| line.starts_with("Code: ")).unwrap();
        let status = Status::from(error.clone());
        let details = status.get_error_details();
        // A conflict in the store gives the same reason with the details that the store knows.
        if matches!(error, ApiError::Engine(EngineError::Store(_))) {
            continue;
        }
        for (name, has) in [
            ("`BadRequest`", details.bad_request().is_some()),
            ("`PreconditionFailure`", details.precondition_failure().is_some()),
            ("`ResourceInfo`", details.resource_info().is_some()),
            ("`RetryInfo`", details.retry_info().is_some()),
            ("`QuotaFailure`", details.quota_failure().is_some()),
            ("`Help`", details.help().is_some()),
        ] {
            assert_eq!(promised.contains(name), has, "{name} of {}", reason.as_str());
        }
    }
}

fn screaming(code: Code) -> String {
    let name = format!("{code:?}");
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}
