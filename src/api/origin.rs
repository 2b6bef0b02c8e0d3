//! What comes with every mutation: who asks, the idempotency key, and a digest of what is asked.

use std::fmt::Write as _;

use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;

use crate::executor::request::Origin;
use crate::ids::Revision;
use crate::model::Actor;
use crate::pb;

/// Metadata in which a client declares who asks. Not verified.
pub const ACTOR_METADATA: &str = "bmdemo-actor";

/// Longest name of an actor, in characters; the rest is dropped.
const ACTOR_CHARS_MAX: usize = 64;

/// A request that changes something.
pub(super) trait Mutation: Message {
    /// Name of the method: part of the digest.
    const METHOD: &'static str;
    fn request_id(&mut self) -> &mut String;
}

macro_rules! mutations {
    ($($message:ident = $method:literal,)*) => {
        $(impl Mutation for pb::$message {
            const METHOD: &'static str = $method;

            fn request_id(&mut self) -> &mut String {
                &mut self.request_id
            }
        })*
    };
}

mutations! {
    RegisterMachineRequest = "RegisterMachine",
    UpdateMachineRequest = "UpdateMachine",
    ClearInterventionRequest = "ClearIntervention",
    DeleteMachineRequest = "DeleteMachine",
    BatchStartRunsRequest = "BatchStartRuns",
    StartRunRequest = "StartRun",
    CancelRunRequest = "CancelRun",
    AbortRunRequest = "AbortRun",
    PauseRunRequest = "PauseRun",
    ResumeRunRequest = "ResumeRun",
    RetryRunRequest = "RetryRun",
    SkipStepRequest = "SkipStep",
    ResolveStepRequest = "ResolveStep",
}

/// The origin of a request. The digest covers everything in it but the request id, so it must be taken before
/// anything is moved out; maps are sorted, so equal requests have equal digests whoever encoded them.
pub(super) fn origin<M: Mutation>(
    metadata: &MetadataMap,
    message: &mut M,
    reason: &str,
    expected: Option<Revision>,
) -> Origin {
    let request_id = std::mem::take(message.request_id());
    if !request_id.is_empty() {
        tracing::Span::current().record("request_id", &*request_id);
    }
    let mut hash = Sha256::new();
    hash.update(M::METHOD);
    hash.update([0]);
    hash.update(message.encode_to_vec());
    Origin {
        request_id,
        body_digest: hex(&hash.finalize()),
        actor: actor(metadata),
        reason: reason.trim().to_owned(),
        expected,
    }
}

/// Who asks, as declared: shown to people and kept in the history, so only what can be printed stays.
pub(super) fn actor(metadata: &MetadataMap) -> Actor {
    let declared = metadata.get(ACTOR_METADATA).map(|value| value.as_encoded_bytes());
    let text = String::from_utf8_lossy(declared.unwrap_or_default());
    let printable = |c: &char| !c.is_control() && !is_invisible(*c);
    let name: String = text.chars().filter(printable).take(ACTOR_CHARS_MAX).collect();
    let name = name.trim();
    Actor::operator(if name.is_empty() { "anonymous" } else { name })
}

/// Characters that change how others are shown: they could make one name look like another.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}'
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn start() -> pb::StartRunRequest {
        pb::StartRunRequest {
            request_id: "first".to_owned(),
            machine_id: "m-1".to_owned(),
            plan_id: "plan/reboot".to_owned(),
            parameters: (0..20).map(|n| (format!("p{n}"), n.to_string())).collect(),
            ..pb::StartRunRequest::default()
        }
    }

    #[test]
    fn the_digest_covers_everything_but_the_request_id() {
        let none = MetadataMap::new();
        let digest =
            |mut request: pb::StartRunRequest| origin(&none, &mut request, "", None).body_digest;
        let base = digest(start());
        assert_eq!(base, digest(pb::StartRunRequest { request_id: "other".to_owned(), ..start() }));
        let reversed: BTreeMap<_, _> = start().parameters.into_iter().rev().collect();
        assert_eq!(base, digest(pb::StartRunRequest { parameters: reversed, ..start() }));
        for other in [
            pb::StartRunRequest { force: true, ..start() },
            pb::StartRunRequest { reason: "because".to_owned(), ..start() },
            pb::StartRunRequest { parameters: BTreeMap::new(), ..start() },
        ] {
            assert_ne!(base, digest(other));
        }
        let mut cancel = pb::CancelRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        let mut abort = pb::AbortRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        let cancel = origin(&none, &mut cancel, "", None).body_digest;
        assert_ne!(cancel, origin(&none, &mut abort, "", None).body_digest);
    }

    #[test]
    fn an_actor_is_what_can_be_printed() {
        let declared = |value: &[u8]| {
            let mut headers = http::HeaderMap::new();
            let value = http::HeaderValue::from_bytes(value).unwrap();
            headers.insert(ACTOR_METADATA, value);
            actor(&MetadataMap::from_headers(headers)).name.to_string()
        };
        assert_eq!(actor(&MetadataMap::new()).name.as_ref(), "anonymous");
        assert_eq!(declared(b"ann"), "ann");
        assert_eq!(declared(b"  "), "anonymous");
        assert_eq!(declared("zo\u{eb} \u{202e}x".as_bytes()), "zo\u{eb} x");
        assert_eq!(declared(b"a\tb"), "ab");
        assert_eq!(declared(&[0xff, b'a']), "a");
        assert_eq!(declared(&[b'x'; 200]).len(), 64);
    }
}
