//! Lists that are gathered page by page, and records that are looked for.

use tonic::{Code, Status};

use crate::pb;

use super::super::error::{About, Error};
use super::super::{query, resolve};
use super::{Client, PAGE_SIZE};

impl Client {
    /// Every machine that matches, page after page, up to `limit`.
    pub(crate) async fn all_machines(
        &self,
        filter: &str,
        limit: usize,
    ) -> Result<Vec<pb::Machine>, Error> {
        self.ordered_machines(filter, "", limit).await
    }

    /// The first `limit` machines that match, in an order of the server's.
    pub(crate) async fn ordered_machines(
        &self,
        filter: &str,
        order_by: &str,
        limit: usize,
    ) -> Result<Vec<pb::Machine>, Error> {
        gather(limit, async |page_size, page_token| {
            let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
            let request = pb::ListMachinesRequest {
                filter,
                page_size,
                page_token,
                order_by,
                ..pb::ListMachinesRequest::default()
            };
            let page = self.list_machines(request).await?;
            Ok((page.machines, page.next_page_token))
        })
        .await
    }

    /// Every run that matches, page after page, up to `limit`.
    pub(crate) async fn all_runs(&self, filter: &str, limit: usize) -> Result<Vec<pb::Run>, Error> {
        self.ordered_runs(filter, "", limit).await
    }

    /// The newest runs that match, newest first, up to `limit`.
    pub(crate) async fn newest_runs(
        &self,
        filter: &str,
        limit: usize,
    ) -> Result<Vec<pb::Run>, Error> {
        self.ordered_runs(filter, "created_at desc", limit).await
    }

    /// The first `limit` runs that match, in an order of the server's.
    pub(crate) async fn ordered_runs(
        &self,
        filter: &str,
        order_by: &str,
        limit: usize,
    ) -> Result<Vec<pb::Run>, Error> {
        gather(limit, async |page_size, page_token| {
            let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
            let request = pb::ListRunsRequest {
                filter,
                page_size,
                page_token,
                order_by,
                ..pb::ListRunsRequest::default()
            };
            let page = self.list_runs(request).await?;
            Ok((page.runs, page.next_page_token))
        })
        .await
    }

    /// The newest run of a machine, if it ever had one.
    pub(crate) async fn last_run(&self, machine: &str) -> Result<Option<pb::Run>, Error> {
        let filter = format!("machine_id = {}", query::quoted(machine));
        Ok(self.newest_runs(&filter, 1).await?.pop())
    }

    /// Every plan, page after page.
    pub(crate) async fn all_plans(&self) -> Result<Vec<pb::Plan>, Error> {
        gather(usize::MAX, async |page_size, page_token| {
            let request = pb::ListPlansRequest { filter: String::new(), page_size, page_token };
            let page = self.list_plans(request).await?;
            Ok((page.plans, page.next_page_token))
        })
        .await
    }

    /// The run with this id, or the one whose id begins so.
    pub(crate) async fn find_run(&self, id: &str) -> Result<pb::Run, Error> {
        let error =
            match self.get_run(pb::GetRunRequest { run_id: id.into(), ..Default::default() }).await
            {
                Err(error) if is_no_such_id(&error) => error,
                other => return other,
            };
        let about = About::Run(id.to_owned());
        // A whole UUID can be no prefix.
        if id.len() < resolve::PREFIX_MIN || error.grpc_code() == Some(Code::NotFound) {
            return Err(error.about(about));
        }
        let runs = self.all_runs("", usize::MAX).await?;
        let found = resolve::by_prefix("run", id, runs.iter().map(|run| run.run_id.as_str()))?;
        let run = runs.into_iter().find(|run| found.as_deref() == Some(&run.run_id));
        run.ok_or_else(|| {
            Error::rpc(Status::not_found(format!("no run begins with \"{id}\""))).about(about)
        })
    }

    /// The machine with this id, or the one whose id begins so.
    pub(crate) async fn find_machine(&self, id: &str) -> Result<pb::Machine, Error> {
        let error = match self
            .get_machine(pb::GetMachineRequest { machine_id: id.into(), ..Default::default() })
            .await
        {
            Err(error) if is_no_such_id(&error) => error,
            other => return other,
        };
        if id.len() >= resolve::PREFIX_MIN {
            let machines = self.all_machines("", usize::MAX).await?;
            let ids = machines.iter().map(|machine| machine.machine_id.as_str());
            let found = resolve::by_prefix("machine", id, ids)?;
            if let Some(machine) =
                machines.into_iter().find(|machine| found.as_deref() == Some(&machine.machine_id))
            {
                return Ok(machine);
            }
        }
        Err(error.about(About::Machine(id.to_owned())))
    }
}

fn is_no_such_id(error: &Error) -> bool {
    matches!(error.grpc_code(), Some(Code::NotFound | Code::InvalidArgument))
}

/// Gathers page after page until there are no more, or `limit` items. `page` takes a size and a token, and gives a page's
/// items and the token of the next one, empty after the last.
async fn gather<T>(
    limit: usize,
    mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Error>,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut page_token = String::new();
    loop {
        let left = limit - items.len();
        let page_size = i32::try_from(left).unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE);
        let (more, next) = page(page_size, page_token).await?;
        items.extend(more);
        if next.is_empty() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
        page_token = next;
    }
}
