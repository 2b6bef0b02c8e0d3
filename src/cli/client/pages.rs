//! Lists fetched page by page, and lookups of single records.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use tonic::{Code, Status};

use crate::pb;

use super::super::error::{About, Error};
use super::super::{query, resolve};
use super::{Client, PAGE_SIZE};

/// Most machines named in the filter over runs; above that, the client filters.
const NAMED_MAX: usize = 24;

impl Client {
    fn left_out(&self, unreadable: u64) {
        self.unreadable.fetch_add(unreadable, Ordering::Relaxed);
    }

    /// How many records lists have omitted as unreadable since this was last called.
    pub(crate) fn take_unreadable(&self) -> u64 {
        self.unreadable.swap(0, Ordering::Relaxed)
    }

    /// Every machine that matches, page after page, up to `limit`.
    pub(crate) async fn all_machines(
        &self,
        filter: &str,
        limit: usize,
    ) -> Result<Vec<pb::Machine>, Error> {
        self.ordered_machines(filter, "", limit).await
    }

    /// The first `limit` machines that match, in an order that the server supports.
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
            self.left_out(page.unreadable_count);
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

    /// The first `limit` runs that match, in an order that the server supports.
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
            self.left_out(page.unreadable_count);
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

    /// The runs that match, of these machines only, up to `limit`.
    pub(crate) async fn runs_on(
        &self,
        machines: Option<&HashSet<String>>,
        filter: &str,
        order: &str,
        limit: usize,
    ) -> Result<Vec<pb::Run>, Error> {
        let Some(machines) = machines else {
            return self.ordered_runs(filter, order, limit).await;
        };
        let mut filter = filter.to_owned();
        if machines.is_empty() {
            return Ok(Vec::new());
        }
        if machines.len() <= NAMED_MAX {
            let names = machines.iter().map(|id| format!("machine_id = {}", query::quoted(id)));
            let names = names.collect::<Vec<_>>().join(" OR ");
            let given = Some(filter.as_str()).filter(|filter| !filter.is_empty());
            filter = query::joined(given.into_iter().chain([names.as_str()]));
            return self.ordered_runs(&filter, order, limit).await;
        }
        let mut runs = self.ordered_runs(&filter, order, usize::MAX).await?;
        runs.retain(|run| machines.contains(&run.machine_id));
        runs.truncate(limit);
        Ok(runs)
    }

    /// The run with this id, or the one whose id contains it, or the active or last run of the machine with this id.
    pub(crate) async fn find_run(&self, name: &str) -> Result<pb::Run, Error> {
        resolve::check_name("run", name)?;
        let request = pb::GetRunRequest { run_id: name.into(), ..Default::default() };
        let error = match self.get_run(request).await {
            Err(error) if is_no_such_id(&error) => error,
            other => return other,
        };
        if let Some(run) = self.run_of_machine(name).await? {
            return Ok(run);
        }
        let about = About::Run(name.to_owned());
        // A whole UUID cannot be a part of another one.
        if error.grpc_code() == Some(Code::NotFound) {
            return Err(error.about(about));
        }
        if name.len() < resolve::PART_MIN {
            let short = format!(
                "no machine has the id \"{name}\", and a part of a run id has at least {} characters",
                resolve::PART_MIN
            );
            return Err(Error::rpc(Status::not_found(short)).about(about));
        }
        let runs = self.all_runs("", usize::MAX).await?;
        let found = resolve::by_part("run", name, runs.iter().map(|run| run.run_id.as_str()))?;
        let run = runs.into_iter().find(|run| found.as_deref() == Some(&run.run_id));
        run.ok_or_else(|| {
            let none = format!("no run id contains \"{name}\", and no machine has that id");
            Error::rpc(Status::not_found(none)).about(about)
        })
    }

    /// The active or last run of a machine; `None` if there is no such machine.
    ///
    /// # Errors
    /// NOT_FOUND if the machine has never had a run.
    async fn run_of_machine(&self, id: &str) -> Result<Option<pb::Run>, Error> {
        let request = pb::GetMachineRequest { machine_id: id.into(), ..Default::default() };
        let machine = match self.get_machine(request).await {
            Ok(machine) => machine,
            Err(error) if is_no_such_id(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let active = machine.status.map(|status| status.active_run_id).unwrap_or_default();
        if !active.is_empty() {
            let request = pb::GetRunRequest { run_id: active, ..Default::default() };
            return self.get_run(request).await.map(Some);
        }
        match self.last_run(id).await? {
            Some(run) => Ok(Some(run)),
            None => Err(Error::rpc(Status::not_found(format!("machine {id} has never had a run")))),
        }
    }

    /// The machine with this id, or the one whose id begins with it.
    pub(crate) async fn find_machine(&self, id: &str) -> Result<pb::Machine, Error> {
        resolve::check_name("machine", id)?;
        let error = match self
            .get_machine(pb::GetMachineRequest { machine_id: id.into(), ..Default::default() })
            .await
        {
            Err(error) if is_no_such_id(&error) => error,
            other => return other,
        };
        if id.len() >= resolve::PART_MIN {
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

/// Fetches page after page until there are no more, or `limit` items. `page` takes a size and a token, and returns a
/// page's items and the token of the next one, empty after the last.
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
