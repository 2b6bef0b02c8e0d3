//! Helpers shared by unit tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::executor::request::Origin;
use crate::ids::{MachineId, Revision, RunId};
use crate::lifecycle::run;
use crate::model::{Actor, CallFacts, Run, RunSpec, RunType};

/// The origin of requests in tests.
pub(crate) fn origin() -> Origin {
    Origin {
        request_id: String::new(),
        body_digest: String::new(),
        actor: Actor::operator("tester"),
        reason: "a test".to_owned(),
        expected: None,
        deadline: None,
        scope: None,
        call: CallFacts::default(),
    }
}

/// A run without steps that was accepted on a machine.
pub(crate) fn run(id: RunId, machine_id: MachineId, now: Timestamp) -> Run {
    Run {
        id,
        machine_id,
        spec: Arc::new(RunSpec {
            provider: "fake".to_owned(),
            labels: Some(BTreeMap::new()),
            request_id: String::new(),
            run_type: RunType::Custom,
            plan_id: "plan/test".to_owned(),
            plan_digest: String::new(),
            parameters: BTreeMap::new(),
            retry_of: None,
            requested_by: Actor::operator("tester"),
            reason: String::new(),
            forced: false,
        }),
        state: run::State::Pending,
        steps: crate::model::Steps::default(),
        current_step: None,
        error: None,
        hold: None,
        cancel_requested_at: None,
        queued_at: None,
        created_at: now,
        started_at: None,
        finished_at: None,
        ordinal: 0,
        revision: Revision(0),
    }
}

/// Compares `value` with the snapshot `name` in the top-level `snapshots/`, named by the caller and not by module path.
#[macro_export]
macro_rules! assert_golden {
    ($name:expr, $value:expr) => {
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!($name, $value) })
    };
}
