//! `AuditService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::caller::handle;
use super::convert::timestamp;
use super::lists;
use super::page::List;
use super::signed::HeadSigner;
use super::status::ApiError;
use super::validate::Checks;
use crate::executor::{Engine, EngineError};
use crate::model::{AuditHead, AuditRow, Chain};
use crate::pb;
use crate::pb::audit_service_server::AuditService;
use crate::store::codec::decode_audit;

/// Entries read at a time while the chain is followed.
const ROWS_PER_READ: usize = 1_000;

/// The service.
pub(super) struct Audit {
    engine: Engine,
    signer: Arc<HeadSigner>,
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        handle(&self.engine, request, async |_, message| self.list(&message).await).await
    }

    async fn get_audit_head(
        &self,
        request: Request<pb::GetAuditHeadRequest>,
    ) -> Result<Response<pb::AuditHead>, Status> {
        handle(&self.engine, request, async |_, _| {
            let (_, head) = self.engine.store().audit_ends().await?;
            Ok(self.head(&head))
        })
        .await
    }

    async fn verify_audit(
        &self,
        request: Request<pb::VerifyAuditRequest>,
    ) -> Result<Response<pb::VerifyAuditResponse>, Status> {
        handle(&self.engine, request, async |_, message| self.verify(&message).await).await
    }
}

impl Audit {
    pub(super) fn new(engine: Engine, signer: Arc<HeadSigner>) -> Self {
        Self { engine, signer }
    }

    async fn list(
        &self,
        request: &pb::ListAuditRequest,
    ) -> Result<pb::ListAuditResponse, ApiError> {
        let mut checks = Checks::default();
        let limit = checks.page_size(request.page_size);
        checks.done(Some(()))?;
        let list = List::new("ListAudit", &[&request.after.to_string()]);
        let after = match list.cursor(&request.page_token)? {
            Some((seq, _)) => seq,
            None => request.after,
        };
        // One more than requested shows whether there is another page.
        let rows = self.engine.store().audit(after, limit + 1).await?;
        let mut entries: Vec<_> = rows.iter().take(limit).map(entry).collect();
        entries.truncate(lists::fitting(&entries));
        let more = entries.len() < rows.len();
        let last = entries.last().filter(|_| more);
        let next_page_token = last.map(|last| list.token((last.seq, 0))).unwrap_or_default();
        Ok(pb::ListAuditResponse { entries, next_page_token })
    }

    fn head(&self, head: &AuditHead) -> pb::AuditHead {
        let at = self.engine.clock().now();
        pb::AuditHead {
            seq: head.seq,
            hash: head.hash.to_string(),
            at: Some(timestamp(at)),
            public_key: self.signer.public_key(),
            line: self.signer.line(head, at),
        }
    }

    async fn verify(
        &self,
        request: &pb::VerifyAuditRequest,
    ) -> Result<pb::VerifyAuditResponse, ApiError> {
        let saved = match request.head.as_str() {
            "" => None,
            line => {
                let head = self.signer.head_of(line, &request.public_key);
                Some(head.map_err(|why| EngineError::invalid("head", why))?)
            }
        };
        let store = self.engine.store();
        // Entries may be deleted meanwhile: then the chain is followed from its new beginning.
        loop {
            let (anchor, _) = store.audit_ends().await?;
            let (followed, entries) = self.follow(anchor, saved).await?;
            if followed.is_err() && store.audit_ends().await?.0 != anchor {
                continue;
            }
            return Ok(match followed {
                Ok(head) => pb::VerifyAuditResponse {
                    holds: true,
                    entries,
                    head: Some(self.head(&head)),
                    problem: String::new(),
                },
                Err(problem) => {
                    pb::VerifyAuditResponse { holds: false, entries, head: None, problem }
                }
            });
        }
    }

    /// Follows the chain to its end: the head or what is wrong, and how many entries were followed.
    async fn follow(
        &self,
        anchor: AuditHead,
        saved: Option<AuditHead>,
    ) -> Result<(Result<AuditHead, String>, u64), ApiError> {
        let mut chain = match Chain::after(anchor, saved) {
            Ok(chain) => chain,
            Err(fault) => return Ok((Err(fault.to_string()), 0)),
        };
        let (mut after, mut entries) = (anchor.seq, 0);
        loop {
            let rows = self.engine.store().audit(after, ROWS_PER_READ).await?;
            for row in &rows {
                if let Err(fault) = chain.follow(row) {
                    return Ok((Err(fault.to_string()), entries));
                }
                entries += 1;
            }
            match rows.last() {
                Some(last) => after = last.seq,
                None => return Ok((chain.end().map_err(|fault| fault.to_string()), entries)),
            }
        }
    }
}

/// An entry as it is stored, as a message; one that cannot be read has its text as the reason.
fn entry(row: &AuditRow) -> pb::AuditEntry {
    let place = pb::AuditEntry {
        seq: row.seq,
        revision: row.revision.0,
        at: Some(timestamp(row.at)),
        hash: row.hash.to_string(),
        ..Default::default()
    };
    match decode_audit(&row.body) {
        Ok(entry) => pb::AuditEntry {
            decision: entry.decision.as_str().to_owned(),
            principal: entry.principal.to_string(),
            verified: entry.verified,
            proof: entry.proof,
            peer: entry.peer,
            rpc: entry.rpc,
            objects: entry.objects,
            request_id: entry.request_id,
            reason: entry.reason,
            body_digest: entry.body_digest,
            plan_digest: entry.plan_digest,
            calls: entry.calls,
            ..place
        },
        Err(error) => {
            pb::AuditEntry { reason: format!("cannot be read: {error}: {}", row.body), ..place }
        }
    }
}
