//! The machines or runs that a command applies to: named, or selected.

use std::collections::{BTreeMap, HashSet};

use crate::pb;

use super::super::client::Client;
use super::super::error::{About, Error};
use super::super::query::{RunSelection, Selection};
use super::super::resolve::check_name;

/// Runs in progress.
pub(crate) const ACTIVE: &str = "phase = PENDING OR phase = RUNNING";
/// Runs that failed; those that an operator aborted are among them.
const FAILED: &str = "phase = FAILED";

/// The machines named, or those selected, each once.
///
/// # Errors
/// Usage, if none was named and none selected, if both were done, or if nothing matches.
pub(crate) async fn machines(
    client: &Client,
    ids: &[String],
    selection: &Selection,
) -> Result<Vec<pb::Machine>, Error> {
    one_way(ids, selection.is_empty(), "machine")?;
    selection.check_narrow()?;
    ids.iter().try_for_each(|id| check_name("machine", id))?;
    let mut machines: Vec<pb::Machine> = Vec::new();
    for id in ids {
        // Never by prefix: if machine-1 does not exist, machine-10 must not be destroyed in its place.
        let machine = client
            .get_machine(pb::GetMachineRequest { machine_id: id.clone(), ..Default::default() })
            .await;
        machines.push(machine.map_err(|error| error.about(About::Machine(id.clone())))?);
    }
    if !selection.is_empty() {
        machines.extend(client.all_machines(&selection.to_filter()?, usize::MAX).await?);
    }
    let mut seen = HashSet::new();
    machines.retain(|machine| seen.insert(machine.machine_id.clone()));
    if machines.is_empty() {
        return Err(Error::usage("no machine matches", "list the machines with: bmdemo-cli list"));
    }
    Ok(machines)
}

/// The ids of the machines named, as they were named, or of those selected.
///
/// # Errors
/// Usage, as [`machines`].
pub(crate) async fn chosen(
    client: &Client,
    ids: &[String],
    selection: &Selection,
) -> Result<Vec<String>, Error> {
    if selection.is_empty() && !ids.is_empty() {
        ids.iter().try_for_each(|id| check_name("machine", id))?;
        return Ok(ids.to_vec());
    }
    let machines = machines(client, ids, selection).await?;
    Ok(machines.into_iter().map(|machine| machine.machine_id).collect())
}

/// The runs named, by any part of their ids or by their machines, or the runs in progress that are selected, each once.
///
/// # Errors
/// Usage, as [`machines`].
pub(crate) async fn active_runs(
    client: &Client,
    names: &[String],
    selection: &RunSelection,
) -> Result<Vec<pb::Run>, Error> {
    let mut runs = named(client, names, selection).await?;
    runs.extend(selected(client, selection, Some(ACTIVE), "").await?);
    distinct(runs, "no run in progress matches")
}

/// The runs named, or of the runs that are selected the newest of each machine, each once.
///
/// # Errors
/// Usage, as [`machines`].
pub(crate) async fn newest_runs(
    client: &Client,
    names: &[String],
    selection: &RunSelection,
) -> Result<Vec<pb::Run>, Error> {
    let mut runs = named(client, names, selection).await?;
    let mut seen = HashSet::new();
    let newest = selected(client, selection, None, "created_at desc").await?;
    runs.extend(newest.into_iter().filter(|run| seen.insert(run.machine_id.clone())));
    distinct(runs, "no run matches")
}

/// The runs named, or the last runs of the selected machines that failed, each once. A run that an operator ended is
/// repeated only by name.
///
/// # Errors
/// Usage, as [`machines`].
pub(crate) async fn retriable_runs(
    client: &Client,
    names: &[String],
    selection: &RunSelection,
) -> Result<Vec<pb::Run>, Error> {
    let mut runs = named(client, names, selection).await?;
    let mut newest: BTreeMap<String, pb::Run> = BTreeMap::new();
    for run in selected(client, selection, Some(FAILED), "created_at desc").await? {
        newest.entry(run.machine_id.clone()).or_insert(run);
    }
    let aborted = |run: &pb::Run| run.error.as_ref().is_some_and(|error| error.code == "ABORTED");
    for run in newest.into_values().filter(|run| !aborted(run)) {
        // A later run has superseded a failure.
        let last = client.last_run(&run.machine_id).await?;
        if last.is_some_and(|last| last.run_id == run.run_id) {
            runs.push(run);
        }
    }
    distinct(
        runs,
        "no machine matches whose last run failed; canceled and aborted ones are repeated by name",
    )
}

/// The runs named, if runs are named or selected, and not both.
async fn named(
    client: &Client,
    names: &[String],
    selection: &RunSelection,
) -> Result<Vec<pb::Run>, Error> {
    one_way(names, selection.is_empty(), "run")?;
    selection.check_narrow()?;
    names.iter().try_for_each(|name| check_name("run", name))?;
    let mut runs = Vec::new();
    for name in names {
        runs.push(client.find_run(name).await?);
    }
    Ok(runs)
}

/// The runs selected, of those that match `also` too; none where nothing is selected.
async fn selected(
    client: &Client,
    selection: &RunSelection,
    also: Option<&str>,
    order: &str,
) -> Result<Vec<pb::Run>, Error> {
    if selection.is_empty() {
        return Ok(Vec::new());
    }
    let machines = labelled(client, selection).await?;
    let filter = selection.to_filter(also);
    client.runs_on(machines.as_ref(), &filter, order, usize::MAX).await
}

/// The machines that a selection of runs names by labels; `None` if it names none.
///
/// # Errors
/// Usage, if the selector cannot be read.
pub(crate) async fn labelled(
    client: &Client,
    selection: &RunSelection,
) -> Result<Option<HashSet<String>>, Error> {
    let Some(filter) = selection.machine_filter()? else { return Ok(None) };
    let machines = client.all_machines(&filter, usize::MAX).await?;
    Ok(Some(machines.into_iter().map(|machine| machine.machine_id).collect()))
}

fn distinct(mut runs: Vec<pb::Run>, none: &str) -> Result<Vec<pb::Run>, Error> {
    let mut seen = HashSet::new();
    runs.retain(|run| seen.insert(run.run_id.clone()));
    if runs.is_empty() {
        return Err(Error::usage(none, "list the runs with: bmdemo-cli runs"));
    }
    Ok(runs)
}

fn one_way(names: &[String], nothing_selected: bool, what: &str) -> Result<(), Error> {
    match (names.is_empty(), nothing_selected) {
        (true, true) => Err(Error::usage(
            format!("no {what} was named"),
            "name one, or select some with -l or --filter",
        )),
        (false, false) => Err(Error::usage(
            format!("{what}s were both named and selected"),
            "either name them, or select them with -l or --filter",
        )),
        _ => Ok(()),
    }
}
