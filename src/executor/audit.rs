//! What the audit says of requests that are carried out.

use super::request::Origin;
use crate::model::{ActorKind, AuditEntry, Decision};

/// The entry of a request, for its commit; none for what the engine and the probes do by themselves. `rpc` is the
/// method, unless the call came by another one: a run of a batch.
pub(super) fn done(
    origin: &Origin,
    rpc: &str,
    objects: Vec<String>,
    plan_digest: &str,
) -> Vec<AuditEntry> {
    match origin.actor.kind {
        ActorKind::Engine | ActorKind::Probe => Vec::new(),
        ActorKind::Operator => vec![AuditEntry {
            decision: Decision::Done,
            principal: origin.actor.name.clone(),
            verified: origin.actor.verified,
            proof: origin.call.proof.to_owned(),
            peer: origin.call.peer.clone(),
            rpc: if origin.call.rpc.is_empty() { rpc } else { origin.call.rpc }.to_owned(),
            objects,
            request_id: origin.request_id.clone(),
            reason: origin.reason.clone(),
            body_digest: origin.body_digest.clone(),
            plan_digest: plan_digest.to_owned(),
            calls: 1,
        }],
    }
}

/// The method in the scope of a request: `StartRun` of `StartRun/machine-1`.
pub(super) fn rpc_of(scope: &str) -> &str {
    scope.split('/').next().unwrap_or(scope)
}
