use std::collections::BTreeSet;
use std::sync::Arc;

use bmdemo::ids::Revision;
use bmdemo::model::{ActorKind, Chain, EntryKind};
use bmdemo::store::Store as _;
use bmdemo::store::memory::MemoryStore;

use super::{Verdict, ensure};

/// The audit is a chain from its first entry to its last, and every commit that carries out a request has its entry in
/// it: the same commit, whatever failed around it.
pub(crate) async fn the_audit_speaks_of_every_request(store: &Arc<MemoryStore>) -> Verdict {
    let unreadable = |error: bmdemo::store::StoreError| error.to_string();
    let (anchor, head) = store.audit_ends().await.map_err(unreadable)?;
    let mut chain = Chain::after(anchor, Some(head)).map_err(|fault| fault.to_string())?;
    let rows = store.audit(0, usize::MAX).await.map_err(unreadable)?;
    for row in &rows {
        chain.follow(row).map_err(|fault| fault.to_string())?;
    }
    chain.end().map_err(|fault| fault.to_string())?;
    let audited: BTreeSet<Revision> = rows.iter().map(|row| row.revision).collect();
    let changes = store.changes(Revision(0), usize::MAX).await.map_err(unreadable)?;
    for change in &changes {
        let asked = change.entries.iter().find(|entry| {
            entry.actor.kind == ActorKind::Operator
                && matches!(
                    entry.kind,
                    EntryKind::MachineRegistered
                        | EntryKind::MachineUpdated
                        | EntryKind::MachineDeleted
                        | EntryKind::InterventionCleared
                        | EntryKind::RunCreated
                )
        });
        if let Some(entry) = asked {
            ensure(audited.contains(&change.revision), || {
                let kind = entry.kind.as_str();
                format!("{kind} at r{} is not in the audit", change.revision)
            })?;
        }
    }
    Ok(())
}
