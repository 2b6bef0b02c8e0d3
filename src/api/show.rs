//! Runs as clients see them: the record, its pinned plan, and the scheduler's state.

use std::sync::Arc;

use super::convert;
use crate::executor::Engine;
use crate::model::Run;
use crate::pb;
use crate::plan::Plan;

/// The message of a run as it is now.
pub(super) async fn run(engine: &Engine, run: &Run) -> pb::Run {
    let plan = pinned_plan(engine, run).await;
    let held_back = engine.held_back(run);
    convert::run::run(run, plan.as_deref(), held_back.as_ref(), engine.clock().now())
}

/// The plan of a run. A run whose plan cannot be read is shown without the fields that come from the plan: an
/// operator needs to see it all the more.
async fn pinned_plan(engine: &Engine, run: &Run) -> Option<Arc<Plan>> {
    match engine.pinned_plan(run).await {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::warn!(run = %run.id, plan = %run.spec.plan_id, %error, "the plan of a run cannot be read");
            None
        }
    }
}
