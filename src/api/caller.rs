//! The context of every call: who calls and the deadline; for a mutation also the idempotency key and a digest of the
//! request.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Request, Response, Status};

use super::identity::{Ended, Identity};
use super::methods::{Called, Method, ObjectKind, Role};
use super::roles;
use super::status::{ApiError, Reason};
use crate::executor::request::Origin;
use crate::executor::waiting::lock_words;
use crate::executor::{Engine, EngineError};
use crate::ids::Revision;
use crate::model::{Actor, AuditEntry, CallFacts, Decision};
use crate::text::{escaped, hidden_in};

/// Metadata in which a client declares who it acts for. Not verified.
pub const ACTOR_METADATA: &str = "bmdemo-actor";

/// Longest name of an actor, in characters.
const ACTOR_CHARS_MAX: usize = 64;

/// Longest name of an object of a denied call in the audit, in characters.
const OBJECT_CHARS_MAX: usize = 128;

/// Names that would be taken for a part of the server.
const RESERVED: [&str; 3] = ["engine", "probe", "system"];

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
    identity: Option<Identity>,
}

impl Caller {
    fn new(metadata: &MetadataMap, extensions: &Extensions) -> Result<Self, EngineError> {
        let peer = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let identity = extensions.get::<Identity>().cloned();
        let actor = match &identity {
            // What the client declares besides does not matter.
            Some(identity) => Actor::principal(identity.name.clone()),
            None => actor(metadata)?,
        };
        Ok(Self { actor, deadline: extensions.get().copied(), peer, identity })
    }

    /// Who calls, if the server has verified it.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Who calls, verified or as declared.
    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Refuses a caller whose role does not allow force, for what amounts to it without saying so.
    ///
    /// # Errors
    /// [`ApiError::RoleMissing`].
    pub(super) fn may_force(&self, what: &str) -> Result<(), ApiError> {
        match &self.identity {
            Some(identity) if identity.role < Role::Admin => {
                Err(roles::missing(&identity.name, identity.role, what.to_owned(), Role::Admin))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn proof(&self) -> &'static str {
        self.identity.as_ref().map_or("", |identity| identity.proof.as_str())
    }

    /// What the audit says of a call that the role of its caller does not allow.
    fn denial<M: Called>(&self, message: &M, refused: &ApiError) -> AuditEntry {
        let method = M::METHOD;
        let mut message = message.clone();
        let request_id = message.request_id().map(std::mem::take).unwrap_or_default();
        AuditEntry {
            decision: Decision::Denied,
            principal: self.actor.name.clone(),
            verified: self.actor.verified,
            proof: self.proof().to_owned(),
            peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            rpc: method.name.to_owned(),
            objects: object_of(method, &message).into_iter().collect(),
            // What was not checked is cut.
            request_id: request_id.chars().take(ACTOR_CHARS_MAX).collect(),
            reason: refused.to_string(),
            body_digest: digest(&message),
            plan_digest: String::new(),
            calls: 1,
        }
    }

    /// Notes for the audit that a call was denied. The same of what is not there and of what is not in the scope, so
    /// that one takes as long as the other.
    fn note_denial<M: Called>(&self, engine: &Engine, message: &M, refused: &ApiError) {
        if engine.denied().note(&self.actor.name, self.denial(message, refused)) {
            tracing::info!(method = M::METHOD.name, reason = %refused, "a call was refused");
        }
    }

    /// Resolves when the caller's credentials are no longer accepted; never for one without.
    pub(super) fn ended(&self) -> Ended {
        match &self.identity {
            Some(identity) => (identity.ended)(),
            None => Box::pin(std::future::pending()),
        }
    }

    /// A lock on the caller ends its credentials, too.
    fn ending_with_lock(mut self, engine: &Engine) -> Self {
        if let Some(identity) = &mut self.identity {
            let (engine, name) = (engine.clone(), identity.name.clone());
            let credentials = identity.ended.clone();
            identity.ended = Arc::new(move || {
                let credentials = credentials();
                let (engine, name) = (engine.clone(), name.clone());
                Box::pin(async move {
                    tokio::select! {
                        () = credentials => {}
                        () = locked(&engine, &name) => {}
                    }
                })
            });
        }
        self
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
        Origin {
            request_id,
            body_digest: digest(message),
            actor: self.actor.clone(),
            reason: reason.trim().to_owned(),
            expected,
            deadline: self.deadline.map(|Deadline(at)| at),
            scope: self.scope().cloned(),
            call: CallFacts {
                rpc: M::METHOD.name,
                proof: self.proof(),
                peer: self.peer.map(|peer| peer.to_string()).unwrap_or_default(),
                below_admin: self
                    .identity
                    .as_ref()
                    .filter(|identity| identity.role < Role::Admin)
                    .map(|identity| roles::name(identity.role)),
            },
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
    let caller = Caller::new(&metadata, &extensions).map_err(ApiError::from)?;
    tracing::trace!(method = M::METHOD.name, peer = ?caller.peer, actor = %caller.actor.name, "a call");
    if caller.deadline.is_some_and(|Deadline(at)| engine.clock().monotonic() >= at) {
        return Err(ApiError::from(EngineError::DeadlineExceeded).into());
    }
    let caller = caller.ending_with_lock(engine);
    let allowed = |identity: &Identity| match engine.lock_of(&identity.name) {
        Some(lock) => Err(ApiError::PrincipalLocked(lock_words(&lock))),
        None => roles::check(&identity.name, identity.role, &message),
    };
    if let Some(identity) = caller.identity()
        && let Err(refused) = allowed(identity)
    {
        caller.note_denial(engine, &message, &refused);
        return Err(refused.into());
    }
    if let Err(refused) = caller.check_scope(engine, &message).await {
        if matches!(refused.reason(), Reason::NotFound | Reason::OutOfScope) {
            caller.note_denial(engine, &message, &refused);
        }
        return Err(refused.into());
    }
    // What only its handler finds out about a change is noted like the rest.
    let may_be_denied = M::METHOD.is_mutation && caller.identity().is_some();
    let kept = may_be_denied.then(|| (caller.clone(), message.clone()));
    let answer = handler(caller, message).await;
    if let (Err(refused), Some((caller, message))) = (&answer, &kept)
        && matches!(refused.reason(), Reason::RoleMissing | Reason::OutOfScope)
    {
        caller.note_denial(engine, message, refused);
    }
    answer.map(Response::new).map_err(Status::from)
}

/// Resolves when a caller is locked.
async fn locked(engine: &Engine, name: &str) {
    let mut changes = engine.lock_changes();
    while engine.lock_of(name).is_none() {
        if changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// The declared caller. It is shown to people and kept in the history, so one name must not look like another: it is
/// accepted unchanged or refused.
fn actor(metadata: &MetadataMap) -> Result<Actor, EngineError> {
    let Some(declared) = metadata.get(ACTOR_METADATA) else {
        return Ok(Actor::operator("anonymous"));
    };
    let refused = |why: String| EngineError::invalid(format!("metadata {ACTOR_METADATA}"), why);
    let name = std::str::from_utf8(declared.as_encoded_bytes())
        .map_err(|_| refused("must be UTF-8".to_owned()))?
        .trim();
    if name.is_empty() {
        return Err(refused("is empty: give a name, or leave it out".to_owned()));
    }
    if let Some(hidden) = hidden_in(name) {
        let code = u32::from(hidden);
        return Err(refused(format!(
            "must not contain the character U+{code:04X}, which is invisible: leave it out"
        )));
    }
    if name.chars().count() > ACTOR_CHARS_MAX {
        return Err(refused(format!("must have at most {ACTOR_CHARS_MAX} characters")));
    }
    if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err(refused(format!("must not be {name}, which is a part of the server")));
    }
    Ok(Actor::operator(name))
}

/// The digest of a request without its request id.
fn digest<M: Called>(message: &M) -> String {
    let mut hash = Sha256::new();
    hash.update(M::METHOD.name);
    hash.update([0]);
    hash.update(message.encode_to_vec());
    hex(&hash.finalize())
}

/// The object that a request names, as the audit names it.
fn object_of<M: Called>(method: &Method, message: &M) -> Option<String> {
    let kind = match method.object {
        ObjectKind::Machine => "machines",
        ObjectKind::Run => "runs",
        ObjectKind::Plan => "plans",
        ObjectKind::Server | ObjectKind::Unspecified => return None,
    };
    let id = roles::id_of(method, message)?;
    // It was not checked, either.
    let id: String = id.chars().take(OBJECT_CHARS_MAX).collect();
    Some(format!("{kind}/{}", escaped(&id)))
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

    fn digest_of<M: Called>(mut request: M) -> String {
        let caller = Caller::new(&MetadataMap::new(), &Extensions::new()).unwrap();
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
        let base = digest_of(start());
        assert_eq!(
            base,
            digest_of(pb::StartRunRequest { request_id: "other".to_owned(), ..start() })
        );
        let reversed: BTreeMap<_, _> = start().parameters.into_iter().rev().collect();
        assert_eq!(base, digest_of(pb::StartRunRequest { parameters: reversed, ..start() }));
        for other in [
            pb::StartRunRequest { force: true, ..start() },
            pb::StartRunRequest { reason: "because".to_owned(), ..start() },
            pb::StartRunRequest { parameters: BTreeMap::new(), ..start() },
        ] {
            assert_ne!(base, digest_of(other));
        }
        let cancel = pb::CancelRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        let abort = pb::AbortRunRequest { run_id: "m-1".to_owned(), ..Default::default() };
        assert_ne!(digest_of(cancel), digest_of(abort));
    }

    #[test]
    fn an_actor_is_accepted_unchanged_or_refused() {
        let declared = |value: &[u8]| {
            let mut headers = http::HeaderMap::new();
            let value = http::HeaderValue::from_bytes(value).unwrap();
            headers.insert(ACTOR_METADATA, value);
            actor(&MetadataMap::from_headers(headers)).map(|actor| actor.name.to_string())
        };
        assert_eq!(actor(&MetadataMap::new()).unwrap().name.as_ref(), "anonymous");
        assert_eq!(declared(b" ann ").unwrap(), "ann");
        assert_eq!(declared("zo\u{eb} x".as_bytes()).unwrap(), "zo\u{eb} x");
        assert_eq!(declared(&[b'x'; 64]).unwrap().len(), 64);
        for (wrong, why) in [
            (&b"  "[..], "is empty"),
            ("ali\u{202e}ce".as_bytes(), "U+202E"),
            (b"a\tb", "U+0009"),
            (&[0xff, b'a'], "must be UTF-8"),
            (&[b'x'; 65], "at most 64 characters"),
            (b"Engine", "a part of the server"),
            (b" system ", "a part of the server"),
        ] {
            let error = format!("{:?}", declared(wrong).unwrap_err());
            assert!(error.contains(why) && error.contains("bmdemo-actor"), "{error}");
        }
    }
}
