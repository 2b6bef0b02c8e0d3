//! `MachineService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::caller::{Caller, handle};
use super::codec::Encoded;
use super::convert::machine::{installation, machine, observed};
use super::lists::{self, ListRequest};
use super::register::{new_machine, reason};
use super::status::{Answers, ApiError};
use super::update::Update;
use super::validate::Checks;
use super::{batch, history, update, watch};
use crate::executor::Engine;
use crate::model::{Machine, filter};
use crate::pb;
use crate::pb::machine_service_server::MachineService;
use crate::store::{Store, Subject};

/// The service.
pub(super) struct Machines {
    engine: Engine,
}

#[tonic::async_trait]
impl MachineService for Machines {
    async fn register_machine(
        &self,
        request: Request<pb::RegisterMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        handle(&self.engine, request, async |caller, message| self.register(&caller, message).await)
            .await
    }

    async fn get_machine(
        &self,
        request: Request<pb::GetMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        handle(&self.engine, request, async |caller, message| self.get(&caller, message).await)
            .await
    }

    async fn list_machines(
        &self,
        request: Request<pb::ListMachinesRequest>,
    ) -> Result<Response<pb::ListMachinesResponse>, Status> {
        handle(&self.engine, request, async |caller, message| self.list(&caller, message).await)
            .await
    }

    async fn update_machine(
        &self,
        request: Request<pb::UpdateMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        handle(&self.engine, request, async |caller, message| self.update(&caller, message).await)
            .await
    }

    async fn clear_intervention(
        &self,
        request: Request<pb::ClearInterventionRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        handle(&self.engine, request, async |caller, message| self.clear(&caller, message).await)
            .await
    }

    async fn inspect_machine(
        &self,
        request: Request<pb::InspectMachineRequest>,
    ) -> Result<Response<pb::Machine>, Status> {
        handle(&self.engine, request, async |caller, message| self.inspect(&caller, message).await)
            .await
    }

    async fn list_machine_history(
        &self,
        request: Request<pb::ListMachineHistoryRequest>,
    ) -> Result<Response<pb::ListMachineHistoryResponse>, Status> {
        handle(&self.engine, request, async |caller, message| self.history(&caller, message).await)
            .await
    }

    async fn delete_machine(
        &self,
        request: Request<pb::DeleteMachineRequest>,
    ) -> Result<Response<pb::DeleteMachineResponse>, Status> {
        handle(&self.engine, request, async |caller, message| self.delete(&caller, message).await)
            .await
    }

    async fn batch_register_machines(
        &self,
        request: Request<pb::BatchRegisterMachinesRequest>,
    ) -> Result<Response<pb::BatchRegisterMachinesResponse>, Status> {
        handle(&self.engine, request, async |caller, message| {
            batch::register_machines(&self.engine, &caller, message).await
        })
        .await
    }

    async fn watch_machines(
        &self,
        request: Request<pb::WatchMachinesRequest>,
    ) -> Result<Response<Answers<Encoded<pb::MachineEvent>>>, Status> {
        handle(&self.engine, request, async |caller, message| {
            watch::machines(&self.engine, &caller, message).await
        })
        .await
    }

    async fn list_history(
        &self,
        request: Request<pb::ListHistoryRequest>,
    ) -> Result<Response<pb::ListHistoryResponse>, Status> {
        handle(&self.engine, request, async |caller, message| {
            history::of_everything(&self.engine, &caller, &message).await
        })
        .await
    }
}

impl Machines {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn register(
        &self,
        caller: &Caller,
        mut request: pb::RegisterMachineRequest,
    ) -> Result<pb::Machine, ApiError> {
        let mut checks = Checks::default();
        checks.request_id(&request.request_id);
        let (in_service, why) = (request.in_service, request.reason.clone());
        reason(&mut checks, in_service, &why);
        let new = new_machine(&self.engine, &mut checks, request.machine.as_ref(), in_service);
        let new = checks.done(new)?;
        let origin = caller.origin(&mut request, &why, None);
        Ok(machine(self.engine.register_machine(&origin, new).await?.as_ref()))
    }

    /// Another provider must be one of this server; the present one may be gone.
    async fn check_provider(&self, update: &Update) -> Result<(), ApiError> {
        let Some(provider) = &update.changes.provider else { return Ok(()) };
        let known = self.engine.providers();
        if known.contains_key(provider)
            || self.engine.machine(&update.id).await?.spec.provider == *provider
        {
            return Ok(());
        }
        let mut checks = Checks::default();
        checks.provider("machine.spec.provider", provider, known.keys());
        checks.done(Some(()))
    }

    async fn get(
        &self,
        caller: &Caller,
        request: pb::GetMachineRequest,
    ) -> Result<pb::Machine, ApiError> {
        let mut checks = Checks::default();
        let id = checks.machine_id("machine_id", &request.machine_id);
        let mask = checks.read_mask::<pb::Machine>(request.read_mask.as_ref());
        let id = checks.done(id)?;
        let found = caller.machine(&self.engine, &id).await?;
        let mut shown = self.shown(&found).await?;
        mask.apply(&mut shown);
        Ok(shown)
    }

    /// A machine with what is stored beside it.
    async fn shown(&self, found: &Machine) -> Result<pb::Machine, ApiError> {
        let id = &found.id;
        let mut shown = machine(found);
        if let Some(status) = &mut shown.status {
            let drivers = self.engine.drivers(found).into_iter();
            let named = drivers.map(|able| pb::CapabilityDriver {
                capability: able.capability.to_string(),
                driver: able.driver,
                warning: able.warning,
            });
            status.capabilities = named.collect();
            let store = self.engine.store();
            status.observed = store.observed(id).await?.as_ref().map(observed);
            status.installation = store.installation(id).await?.as_ref().map(installation);
        }
        Ok(shown)
    }

    async fn list(
        &self,
        caller: &Caller,
        request: pb::ListMachinesRequest,
    ) -> Result<pb::ListMachinesResponse, ApiError> {
        let mut checks = Checks::default();
        let mask = checks.read_mask::<pb::Machine>(request.read_mask.as_ref());
        checks.done(Some(()))?;
        let wanted = ListRequest {
            method: "ListMachines",
            subject: filter::Subject::Machine,
            filter: &request.filter,
            scope: caller.sees(),
            order_by: &request.order_by,
            page_size: request.page_size,
            page_token: &request.page_token,
            with_total_size: request.with_total_size,
        };
        let store = self.engine.store().as_ref();
        let (read, count) = (<dyn Store>::machines, <dyn Store>::count_machines);
        let mut listed = lists::list(store, self.engine.clock().now(), wanted, read, count).await?;
        let show = |found: &Arc<Machine>| {
            let mut shown = machine(found);
            mask.apply(&mut shown);
            shown
        };
        let mut shown = Vec::with_capacity(listed.page.items.len());
        for part in listed.page.items.chunks(lists::PART) {
            shown.extend(part.iter().map(show));
            // Other calls come in between.
            tokio::task::yield_now().await;
        }
        Ok(pb::ListMachinesResponse {
            machines: listed.bounded(shown, |machine| (machine.ordinal, &machine.id)),
            next_page_token: listed.next_page_token,
            revision: listed.page.as_of.0,
            total_size: listed.total_size,
            unreadable_count: caller.counted(listed.unreadable_count),
        })
    }

    async fn update(
        &self,
        caller: &Caller,
        mut request: pb::UpdateMachineRequest,
    ) -> Result<pb::Machine, ApiError> {
        let update = update::update(&request)?;
        self.check_provider(&update).await?;
        let reason = request.reason.clone();
        let validate_only = request.validate_only;
        let origin = caller.origin(&mut request, &reason, update.expected);
        let updated = if validate_only {
            self.engine.would_update(&origin, &update.id, &update.changes).await?
        } else {
            self.engine.update_machine(&origin, &update.id, update.changes).await?
        };
        Ok(machine(&updated))
    }

    async fn clear(
        &self,
        caller: &Caller,
        mut request: pb::ClearInterventionRequest,
    ) -> Result<pb::Machine, ApiError> {
        let mut checks = Checks::default();
        let id = checks.machine_id("machine_id", &request.machine_id);
        checks.request_id(&request.request_id);
        checks.required_reason(&request.reason);
        let expected = checks.etag("etag", &request.etag);
        let id = checks.done(id)?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, expected);
        Ok(machine(self.engine.clear_intervention(&origin, &id).await?.as_ref()))
    }

    async fn inspect(
        &self,
        caller: &Caller,
        mut request: pb::InspectMachineRequest,
    ) -> Result<pb::Machine, ApiError> {
        let mut checks = Checks::default();
        let id = checks.machine_id("machine_id", &request.machine_id);
        checks.request_id(&request.request_id);
        let id = checks.done(id)?;
        let origin = caller.origin(&mut request, "", None);
        let inspected = self.engine.inspect_machine(&origin, &id).await?;
        self.shown(&inspected).await
    }

    async fn delete(
        &self,
        caller: &Caller,
        mut request: pb::DeleteMachineRequest,
    ) -> Result<pb::DeleteMachineResponse, ApiError> {
        let mut checks = Checks::default();
        let id = checks.machine_id("machine_id", &request.machine_id);
        checks.request_id(&request.request_id);
        checks.reason(&request.reason);
        let expected = checks.etag("etag", &request.etag);
        let id = checks.done(id)?;
        let reason = request.reason.clone();
        let origin = caller.origin(&mut request, &reason, expected);
        self.engine.delete_machine(&origin, &id).await?;
        Ok(pb::DeleteMachineResponse {})
    }

    async fn history(
        &self,
        caller: &Caller,
        request: pb::ListMachineHistoryRequest,
    ) -> Result<pb::ListMachineHistoryResponse, ApiError> {
        let mut checks = Checks::default();
        let id = checks.machine_id("machine_id", &request.machine_id);
        let id = checks.done(id)?;
        let found = self.engine.machine(&id).await;
        let (entries, next_page_token) = history::of_object(
            &self.engine,
            caller,
            "ListMachineHistory",
            Subject::Machine(id),
            request.page_size,
            &request.page_token,
        )
        .await?;
        // The history of a deleted machine is kept for a while.
        if entries.is_empty() && request.page_token.is_empty() {
            found?;
        }
        Ok(pb::ListMachineHistoryResponse { entries, next_page_token })
    }
}
