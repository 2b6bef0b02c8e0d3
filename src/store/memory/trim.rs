//! Deletes what the retention policy says.

use super::state::State;
use crate::clock::Timestamp;
use crate::ids::{Revision, RunId};
use crate::model::{AuditHead, AuditRow};
use crate::store::{Retention, TRIM_ROWS_MAX, Trimmed};

impl State {
    pub(super) fn trim(&mut self, retention: Retention) -> Trimmed {
        let mut trimmed = Trimmed::default();
        self.trim_machine_changes(retention, &mut trimmed);
        self.trim_runs(retention, &mut trimmed);
        self.trim_requests(retention.requests_before, &mut trimmed);
        self.trim_audit(retention, &mut trimmed);
        trimmed
    }

    /// Changes of machines are deleted strictly oldest first: the rest still gives the true state of a machine at a
    /// revision.
    fn trim_machine_changes(&mut self, retention: Retention, trimmed: &mut Trimmed) {
        let most = usize::try_from(retention.machine_changes_max).unwrap_or(usize::MAX);
        let surplus = self.machine_changes.len().saturating_sub(most);
        let places = self.machine_changes.iter().copied().enumerate();
        let old: Vec<_> = places
            .take_while(|(nth, place)| {
                *nth < surplus || self.changes[place].at < retention.ended_before
            })
            .map(|(_, place)| place)
            .take(TRIM_ROWS_MAX)
            .collect();
        for place in old {
            self.remove_change(place);
            trimmed.changes += 1;
            self.compact(place.0);
        }
    }

    fn trim_runs(&mut self, retention: Retention, trimmed: &mut Trimmed) {
        for _ in 0..TRIM_ROWS_MAX {
            let Some((ended_at, ordinal)) = self.ended.first().copied() else { break };
            let surplus = self.ended.len() as u64 > retention.ended_runs_max;
            if ended_at >= retention.ended_before && !surplus {
                break;
            }
            let last = self.runs.get(&ordinal).map_or(Revision(0), |row| row.run.revision);
            trimmed.changes += self.remove_run(ordinal);
            trimmed.runs += 1;
            self.compact(last);
        }
    }

    fn trim_audit(&mut self, retention: Retention, trimmed: &mut Trimmed) {
        for _ in 0..TRIM_ROWS_MAX {
            let surplus = self.audit.len() as u64 > retention.audit_max;
            let is_old = |row: &&AuditRow| surplus || row.at < retention.audit_before;
            let Some(row) = self.audit.front().filter(is_old) else { break };
            self.audit_anchor = AuditHead { seq: row.seq, hash: row.hash };
            self.audit.pop_front();
            trimmed.audit += 1;
        }
    }

    fn trim_requests(&mut self, before: Timestamp, trimmed: &mut Trimmed) {
        let old = self.requests_by_age.iter().take_while(|(at, ..)| *at < before);
        let gone: Vec<_> = old
            .filter(|(_, scope, id)| {
                let record = self.request_record(scope, id);
                !record.is_some_and(|record| self.is_active_run(&record.object_id))
            })
            .take(TRIM_ROWS_MAX)
            .cloned()
            .collect();
        for key in gone {
            self.requests_by_age.remove(&key);
            let (_, scope, id) = key;
            if let Some(ids) = self.requests.get_mut(&scope) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.requests.remove(&scope);
                }
            }
            trimmed.requests += 1;
        }
    }

    fn is_active_run(&self, object_id: &str) -> bool {
        let ordinal = RunId::parse(object_id).ok().and_then(|id| self.run_ids.get(&id));
        ordinal.is_some_and(|ordinal| self.active.contains(ordinal))
    }

    /// Readers before `revision` must list again.
    fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }
}
