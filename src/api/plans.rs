//! `PlanService`.

use tonic::{Request, Response, Status};

use super::caller::handle;
use super::convert::plan::plan;
use super::page::List;
use super::status::ApiError;
use super::validate::Checks;
use crate::executor::Engine;
use crate::pb;
use crate::pb::plan_service_server::PlanService;
use crate::plan::Registry;

/// The service.
pub(super) struct Plans {
    engine: Engine,
}

#[tonic::async_trait]
impl PlanService for Plans {
    async fn get_plan(
        &self,
        request: Request<pb::GetPlanRequest>,
    ) -> Result<Response<pb::Plan>, Status> {
        handle(&self.engine, request, async |_, message| self.get(&message)).await
    }

    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        handle(&self.engine, request, async |_, message| self.list(&message)).await
    }
}

impl Plans {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn get(&self, request: &pb::GetPlanRequest) -> Result<pb::Plan, ApiError> {
        let mut checks = Checks::default();
        checks.name("plan_id", &request.plan_id);
        checks.done(Some(()))?;
        let plans = self.engine.plans();
        let found = plans.get(&full_id(&request.plan_id)).map(|found| plan(found));
        found.ok_or_else(|| not_found(&plans, &request.plan_id))
    }

    fn list(&self, request: &pb::ListPlansRequest) -> Result<pb::ListPlansResponse, ApiError> {
        let mut checks = Checks::default();
        let limit = checks.page_size(request.page_size);
        if !request.filter.is_empty() {
            checks.refuse("filter", "must be empty: plans cannot be filtered");
        }
        checks.done(Some(()))?;
        let plans = self.engine.plans();
        // Plans may be reloaded between two pages: a position in the old list means nothing in the new one.
        let ids: Vec<_> = plans.iter().map(|registered| registered.plan.id.as_ref()).collect();
        let list = List::new("ListPlans", &ids);
        let from = match list.cursor(&request.page_token)? {
            Some((from, _)) => usize::try_from(from).map_err(|_| ApiError::PageTokenInvalid)?,
            None => 0,
        };
        let page: Vec<_> = plans.iter().skip(from).take(limit).map(|found| plan(found)).collect();
        let next = from + page.len();
        let next_page_token =
            if next < ids.len() { list.token((next as u64, 0)) } else { String::new() };
        Ok(pb::ListPlansResponse { plans: page, next_page_token })
    }
}

/// An id with its prefix.
pub(super) fn full_id(id: &str) -> String {
    if id.contains('/') { id.to_owned() } else { format!("plan/{id}") }
}

/// There is no such plan; suggests the closest id.
pub(super) fn not_found(plans: &Registry, id: &str) -> ApiError {
    let suggestion = plans.suggest(id).map(ToOwned::to_owned);
    ApiError::PlanNotFound { id: id.to_owned(), suggestion }
}
