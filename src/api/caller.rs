//! The context of every call: who calls and the deadline; for a mutation also the idempotency key and a digest of the
//! request.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Request, Response, Status};

use super::methods::Called;
use super::status::ApiError;
use crate::executor::request::Origin;
use crate::executor::{Engine, EngineError};
use crate::ids::Revision;
use crate::model::Actor;
use crate::model::filter::{Filter, Subject};
use crate::text::is_hidden;

/// Metadata in which a client declares who it acts for. Not verified.
pub const ACTOR_METADATA: &str = "bmdemo-actor";

/// Longest name of an actor, in characters; the rest is cut off.
const ACTOR_CHARS_MAX: usize = 64;

/// When the caller stops waiting for the answer, on the monotonic clock of the engine. The server attaches it to the
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// Who calls, and how long the caller waits for the answer.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    actor: Actor,
    deadline: Option<Deadline>,
    peer: Option<SocketAddr>,
}

impl Caller {
    fn new(metadata: &MetadataMap, extensions: &Extensions) -> Self {
        let peer = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        Self { actor: actor(metadata), deadline: extensions.get().copied(), peer }
    }

    /// What the caller may see: today everything. Lists, counts and watches AND it with the filter of the request.
    pub(super) fn scope(&self, _subject: Subject) -> Filter {
        Filter::default()
    }

    /// The origin of a mutation. The digest covers everything in the message except the request id, so it must be
    /// taken before anything is moved out; maps are sorted, so equal requests have equal digests in whatever order
    /// they were encoded.
    pub(super) fn origin<M: Called>(
        &self,
        message: &mut M,
        reason: &str,
        expected: Option<Revision>,
    ) -> Origin {
        let request_id = message.request_id().map(std::mem::take).unwrap_or_default();
        if !request_id.is_empty() {
            tracing::Span::current().record("request_id", &*request_id);
        }
        let mut hash = Sha256::new();
        hash.update(M::METHOD.name);
        hash.update([0]);
        hash.update(message.encode_to_vec());
        Origin {
            request_id,
            body_digest: hex(&hash.finalize()),
            actor: self.actor.clone(),
            reason: reason.trim().to_owned(),
            expected,
            deadline: self.deadline.map(|Deadline(at)| at),
        }
    }
}

/// Handles one call: the only path from a request to its handler, so that every call has a caller and none is handled
/// after its deadline.
pub(super) async fn handle<M, T, H>(
    engine: &Engine,
    request: Request<M>,
    handler: impl FnOnce(Caller, M) -> H,
) -> Result<Response<T>, Status>
where
    M: Called,
    H: Future<Output = Result<T, ApiError>>,
{
    let (metadata, extensions, message) = request.into_parts();
    let caller = Caller::new(&metadata, &extensions);
    tracing::trace!(method = M::METHOD.name, peer = ?caller.peer, actor = %caller.actor.name, "a call");
    if caller.deadline.is_some_and(|Deadline(at)| engine.clock().monotonic() >= at) {
        return Err(ApiError::from(EngineError::DeadlineExceeded).into());
    }
    handler(caller, message).await.map(Response::new).map_err(Status::from)
}

/// The declared caller: shown to people and kept in the history, so only printable characters stay.
fn actor(metadata: &MetadataMap) -> Actor {
    let declared = metadata.get(ACTOR_METADATA).map(|value| value.as_encoded_bytes());
    let text = String::from_utf8_lossy(declared.unwrap_or_default());
    // Replacement characters for invalid UTF-8 are dropped too.
    let printable = |c: &char| !is_hidden(*c) && *c != char::REPLACEMENT_CHARACTER;
    let name: String = text.chars().filter(printable).take(ACTOR_CHARS_MAX).collect();
    let name = name.trim();
    Actor::operator(if name.is_empty() { "anonymous" } else { name })
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
    use crate::pb;

    fn digest<M: Called>(mut request: M) -> String {
        let caller = Caller::new(&MetadataMap::new(), &Extensions::new());
        caller.origin(&mut request, "", None).body_digest
    }

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
        let cancel = pb::CancelRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        let abort = pb::AbortRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        assert_ne!(digest(cancel), digest(abort));
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
